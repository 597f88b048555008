"""A job that keeps a journal of what its store promised it, outside of the store, and the judge that reads it.

Each process appends lines to a file of its own, whole lines by single writes, before and after the real calls; SIGKILL
loses nothing that was written. A line is ``EVENT KEY gN TOKEN TIME [EPOCH MARK]``, the time on the one monotonic clock
that all processes of a host share::

    took          Claims.take returned a claim
    commits       save_ckpt is about to be called, with MARK appended to ckpt['lineage']
    acknowledged  it returned
    finished      the run was declared done

The lineage lies in the checkpoint: whoever resumes from a commit carries its mark on. So a commit is contained in a
result, neither lost nor outranked by an older state, if and only if its mark stands in the result's lineage.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jimmy_manager import Config, Manager, Store
from jimmy_manager.archives.claim import Claim
from jimmy_manager.errors import RecordError
from jimmy_manager.manager.progress import Progress


class Line(NamedTuple):
    """One event of the journal; ``epoch`` and ``mark`` belong to commits."""

    event: str
    key: str
    generation: int
    token: str
    at: float
    epoch: int = -1
    mark: str = ""

    @classmethod
    def parse(cls, text: str) -> Line:
        event, key, generation, token, at, *commit = text.split(" ")
        return cls(event, key, int(generation[1:]), token, float(at), *((int(commit[0]), commit[1]) if commit else ()))


class Journal:
    """The journal of one process under ``folder``; lines written before a fork stay the parent's.

    With ``syncs`` a line that was written survives the loss of power, too.
    """

    def __init__(self, folder: Path, *, syncs: bool = False) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_DSYNC if syncs else 0)
        self._file = os.open(folder / f"{os.getpid()}.{time.monotonic_ns()}", flags)

    def write(self, event: str, key: str, generation: int, token: str, *commit: object) -> None:
        line = " ".join(map(str, (event, key, f"g{generation}", token, time.monotonic(), *commit)))
        os.write(self._file, f"{line}\n".encode())


def read_journals(folder: Path) -> list[Line]:
    """Every line of every process under ``folder``."""
    return [line for path in folder.iterdir() for line in read_lines(path)]


def read_lines(path: Path) -> list[Line]:
    """Every line of one process, in order."""
    return [Line.parse(text) for text in path.read_text("ascii").splitlines()]


class _Tells(Progress):
    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def end_run(self, key: str, state: str, message: str = "") -> None:
        if state == "done":
            self._witness.note("finished")
            self._witness.count_finished()


class Witness(Manager):
    """Trains by drawing from every generator of random numbers, and journals what it was promised."""

    def __init__(
        self, store: str, journal: Path, *, pause: Callable[[], None] = lambda: None, finished: str = os.devnull,
        syncs_journal: bool = False, **options: Any,
    ) -> None:
        super().__init__(store, verbose=False, device="cpu", **options)
        self.progress = _Tells(self)
        self._journal = Journal(journal, syncs=syncs_journal)
        self._pause = pause
        self._finished = finished
        self._claim: Claim | None = None
        self._take, self.store.claims.take = self.store.claims.take, self._take_and_tell  # type: ignore[method-assign]

    def _take_and_tell(self, *arguments: Any, **options: Any) -> Claim | None:
        claim = self._take(*arguments, **options)
        if claim is not None:
            self._claim = claim
            self.note("took")
        return claim

    def note(self, event: str, *commit: object) -> None:
        claim = self._claim
        assert claim is not None
        self._journal.write(event, claim.key, claim.generation, claim.record.token, *commit)

    def count_finished(self) -> None:
        """Make a file one byte longer: whoever throws the signals spreads them over the work by its size."""
        with open(self._finished, "ab", buffering=0) as file:
            file.write(b".")

    def init_ckpt(self) -> None:
        super().init_ckpt()
        self.ckpt |= {"value": "", "lineage": []}

    def train(self) -> None:
        import numpy
        import torch

        self._pause()
        draws = (random.random(), numpy.random.random(), torch.rand((), dtype=torch.float64).item())
        self.ckpt["value"] = chained(self.ckpt["value"], draws)

    def eval(self) -> Mapping[str, Any]:
        return {"value": self.ckpt["value"]}

    def save_ckpt(self) -> None:
        assert self._claim is not None
        mark = f"g{self._claim.generation}:{self._claim.record.token}:{self.epoch}"
        self.ckpt["lineage"].append(mark)
        self.note("commits", self.epoch, mark)
        super().save_ckpt()
        self.note("acknowledged", self.epoch, mark)


def configurations(count: int) -> list[Config]:
    return [Config({"x": number, "seed": number % 97}) for number in range(count)]


def chained(value: str, draws: Iterable[float]) -> str:
    return hashlib.sha256(" ".join([value, *map(repr, draws)]).encode("ascii")).hexdigest()


def reference(config: Mapping[str, Any], epochs: int) -> str:
    """The value after ``epochs`` without any interruption, from generators of its own."""
    import numpy
    import torch

    seed, value = config["seed"], ""
    drawers = random.Random(seed), numpy.random.RandomState(seed), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        tensor = torch.rand((), dtype=torch.float64, generator=drawers[2])
        value = chained(value, (drawers[0].random(), drawers[1].random(), tensor.item()))
    return value


def violations(store: Store, lines: list[Line], configs: Iterable[Mapping[str, Any]], epochs: int) -> list[str]:
    """What the finished ``store`` and the journal ``lines`` tell of broken promises; nothing when all were kept."""
    found = []
    by_key: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_key[line.key].append(line)
    for config in configs:
        key = store.find(config)
        if key is None:
            found.append(f"lost: {dict(config)} is not registered")
            continue
        found += late_acknowledgements(by_key[key], store.claims.stale_s)
        try:
            found += broken_claims(store, key, by_key[key])
            found += broken_result(store, key, by_key[key], epochs, reference(config, epochs))
        except RecordError as error:
            found.append(f"damaged: run {key}: {error}")
    return found


def broken_claims(store: Store, key: str, lines: list[Line]) -> list[str]:
    """A generation belongs to one token, for ever; that of its claim on disk."""
    tokens: dict[int, set[str]] = defaultdict(set)
    for line in lines:
        if line.event == "took":
            tokens[line.generation].add(line.token)
    for generation in store.claims.look(key).claims:
        record = store.claims.read(key, generation)
        # Of a claim whose taker was killed before its journal said so, the disk alone tells; nobody took ``done``.
        if record.state != "done":
            tokens[generation].add(record.token)
    shared = {generation: owners for generation, owners in tokens.items() if len(owners) > 1}
    return [f"two owners: run {key} g{generation} was taken by {sorted(them)}" for generation, them in shared.items()]


def late_acknowledgements(lines: list[Line], stale_s: float = 0.0) -> list[str]:
    """A commit that began when a higher claim had stood for ``stale_s`` already is never acknowledged.

    One that began before may be: its last listing showed the time before the takeover, or its successor adopts it.
    That it was adopted is what ``broken_result`` checks.
    """
    begun = {line.mark: line.at for line in lines if line.event == "commits"}
    took = [line for line in lines if line.event == "took"]
    return [
        f"late: run {line.key} g{line.generation} was acknowledged for epoch {line.epoch} although g{by.generation} "
        "had been taken before that commit began"
        for line in lines
        if line.event == "acknowledged"
        for by in took
        if by.generation > line.generation and by.at + stale_s < begun[line.mark]
    ]


def broken_result(store: Store, key: str, lines: list[Line], epochs: int, value: str) -> list[str]:
    """The run is done, equals the reference, and contains every acknowledged commit in order."""
    stats = store.committed(key)
    if stats is None or not stats.commits or stats.commits[-1].epoch != epochs:
        return [f"lost: run {key} is not trained to the end: {stats}"]
    found = []
    if store.standing(key).state != "done":
        found.append(f"lost: run {key} is {store.standing(key).state}, not done")
    finished = [line for line in lines if line.event == "finished"]
    if any(line.generation != stats.generation or line.token != stats.token for line in finished) or len(finished) > 1:
        found.append(f"changed: run {key} was finished as {finished} and is g{stats.generation} {stats.token} now")
    ckpt = store.ckpts.read(stats.commits[-1])
    if ckpt["value"] != value or store.previews[key]["value"] != value:
        found.append(f"wrong: run {key} has the value {ckpt['value']}, the reference {value}")
    lineage = ckpt["lineage"]
    acknowledged = {line.mark for line in lines if line.event == "acknowledged"}
    found += [f"outranked: run {key}: the result does not contain {mark}" for mark in acknowledged - set(lineage)]
    parts = [mark.split(":") for mark in lineage]
    generations, saved = [int(part[0][1:]) for part in parts], [int(part[2]) for part in parts]
    if generations != sorted(generations) or saved != sorted(saved):
        found.append(f"outranked: run {key}: the result's lineage goes back: {lineage}")
    return found
