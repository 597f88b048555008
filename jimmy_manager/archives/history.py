"""What was committed: stats records, and the reading rules over them.

``stats/ab/KEY.gN.json`` is the commit point of generation N: it names the last two commits with size and
digest of every file. The highest generation with stats is what readers see. A file that is missing or
does not match is read again until ``2 stale_s`` have passed (its owner may be pruning, this node's cache
may lag); only then the commit before it, then a lower generation is used, and the damage is logged by
name. A file that the file system refuses to hand over is never passed over: it may be whole and newer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, TypeVar

from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import Claims, Trace
from jimmy_manager.archives.files import Content, digest, unreadable
from jimmy_manager.archives.record import digest_of, seal, unseal
from jimmy_manager.errors import DamagedRecord, NoRecord

T = TypeVar("T")
log = logging.getLogger(__name__)


class Popped(NoRecord):
    """The highest stats are an empty record: the run was popped, with all that was committed below."""

    def __init__(self, key: str, generation: int) -> None:
        super().__init__(f"run {key!r} was popped")
        self.generation = generation


class Commit(NamedTuple):
    """One saved state. Times are in seconds; ``at`` counts from 1970 and is for people only."""

    key: str
    generation: int
    number: int
    epoch: int
    step: int
    at: float
    train_s: float
    eval_s: float
    ckpt: Content
    preview: Content
    figures: dict[str, Content]

    @property
    def order(self) -> tuple[int, int]:
        """Later commits of a run compare greater."""
        return (self.generation, self.number)

    @property
    def has_ckpt(self) -> bool:
        """Whether there is a checkpoint; an import of what was exported without has an empty file in its place."""
        return self.ckpt.size > 0

    @property
    def ckpt_name(self) -> str:
        return layout.ckpt(self.key, self.generation, self.number)

    @property
    def preview_name(self) -> str:
        return layout.preview(self.key, self.generation, self.number)

    def contents(self) -> dict[str, Content]:
        """Every file of this commit with what it must hold."""
        named = {self.ckpt_name: self.ckpt, self.preview_name: self.preview}
        for label, content in self.figures.items():
            named[layout.figure(self.key, self.generation, self.number, label)] = content
        return named


class Stats(NamedTuple):
    """The commit point of one generation; no commits at all is a tombstone: the run was popped."""

    key: str
    generation: int
    token: str
    commits: tuple[Commit, ...]
    done: bool = False
    run: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default; never changed

    @property
    def name(self) -> str:
        return layout.stats(self.key, self.generation)

    def digest(self) -> str:
        """What a ``done`` claim quotes; it does not cover the mark ``done`` itself."""
        return digest_of(self._commits_as_data())

    def seal(self) -> bytes:
        """The bytes of the stats file."""
        data = self._asdict() | {"commits": self._commits_as_data()}
        return seal("stats", data)

    @classmethod
    def unseal(cls, raw: bytes, name: str) -> Stats:
        """The stats in the file ``name``."""
        data = unseal("stats", raw, name)
        try:
            key, generation = data["key"], data["generation"]
            commits = tuple(_commit_of(key, generation, item) for item in data["commits"])
            stats = cls(**(data | {"commits": commits}))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRecord(f"damaged record {name}: it is sealed, but not stats: {error!r}") from error
        if stats.name != name:
            raise DamagedRecord(f"damaged record {name}: it was written as {stats.name}")
        return stats

    def _commits_as_data(self) -> list[dict[str, Any]]:
        hidden = ("key", "generation")
        return [{name: value for name, value in c._asdict().items() if name not in hidden} for c in self.commits]


class History:
    """The commits of one store, read by the rules above."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.files = claims.files

    def stats(self, key: str) -> Stats:
        """The stats of the highest generation that has readable ones.

        ``NoRecord`` where nothing is committed, its subclass ``Popped`` where the run was popped.
        """
        return self._settled(key, lambda stats, _: stats)

    def newest(self, key: str, use: Callable[[Commit], T]) -> T:
        """``use`` of the newest commit for which it raises no ``DamagedRecord``; ``NoRecord`` where none exists."""

        def of_stats(stats: Stats, damage: list[DamagedRecord]) -> T | None:
            for commit in reversed(stats.commits):
                try:
                    return use(commit)
                except DamagedRecord as error:
                    damage.append(error)
            return None

        return self._settled(key, of_stats)

    def read_stats(self, key: str, generation: int) -> Stats:
        """The stats of one generation."""
        name = layout.stats(key, generation)
        return Stats.unseal(self._open(name, self.files.read), name)

    def read(self, name: str, content: Content) -> bytes:
        """A small file that stats name, verified."""
        raw = self._open(name, self.files.read)
        if Content.of(raw) != content:
            raise DamagedRecord(f"damaged file {name}: its content does not match its stats")
        return raw

    def open(self, name: str, content: Content, *, copied_from: str = "") -> BinaryIO:
        """A file that stats name, verified to its last byte and rewound; the caller closes it.

        Damage is reported of ``copied_from``, where ``name`` is a link or copy that was made a moment ago.
        """
        file = self._open(name, self.files.open)
        try:
            found = digest(file)
            if found != content:
                size = f"{found.size} bytes of {content.size}" if found.size != content.size else "other bytes"
                raise DamagedRecord(f"damaged file {copied_from or name}: it holds {size}, not what its stats say")
            file.seek(0)
        except OSError as error:
            file.close()
            raise unreadable(name, error) from error
        except DamagedRecord:
            file.close()
            raise
        return file

    def verify(self, commit: Commit) -> Commit:
        """``commit``, after every file of it was read and compared with its digest."""
        for name, content in commit.contents().items():
            self.open(name, content).close()
        return commit

    def _settled(self, key: str, of_stats: Callable[[Stats, list[DamagedRecord]], T | None]) -> T:
        clock = self.claims.clock
        deadline = clock.monotonic() + 2 * self.claims.stale_s
        before = None
        while True:
            trace = self.claims.look(key)
            damage: list[DamagedRecord] = []
            outcome, popped = self._one_pass(key, trace, of_stats, damage)
            seen = (trace, [str(error) for error in damage])
            if not damage or (seen == before and clock.monotonic() >= deadline):
                break
            before = seen
            clock.sleep(max(0.002, self.claims.stale_s / 10))
        for error in damage:
            log.warning("%s", error)
        if outcome is not None:
            return outcome
        if damage:
            raise damage[0]
        if popped:
            raise Popped(key, popped)
        raise NoRecord(f"run {key!r} has nothing committed yet")

    def _one_pass(
        self, key: str, trace: Trace, of_stats: Callable[[Stats, list[DamagedRecord]], T | None],
        damage: list[DamagedRecord],
    ) -> tuple[T | None, int]:
        """What ``of_stats`` makes of the highest generation it can use, else that of a tombstone met before, or 0."""
        for generation in reversed(trace.stats):
            try:
                stats = self.read_stats(key, generation)
            except DamagedRecord as error:
                damage.append(error)
                continue
            if not stats.commits:
                return None, generation
            outcome = of_stats(stats, damage)
            if outcome is not None:
                return outcome, 0
        return None, 0

    def _open(self, name: str, operation: Callable[[str], T]) -> T:
        try:
            return operation(name)
        except FileNotFoundError:
            raise DamagedRecord(f"missing file {name}: a record names it, but it is not there") from None
        except OSError as error:
            raise unreadable(name, error) from error


def _commit_of(key: str, generation: int, data: dict[str, Any]) -> Commit:
    contents = {
        "ckpt": Content(*data["ckpt"]),
        "preview": Content(*data["preview"]),
        "figures": {label: Content(*content) for label, content in data["figures"].items()},
    }
    return Commit(key, generation, **(data | contents))
