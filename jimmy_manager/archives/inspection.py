"""What is wrong in one shard of a store: the questions that ``audit`` asks, without changing anything.

Each look is one moment. What a worker is doing just then may look like damage (a commit pruned between the
listing and the reading), so ``audit`` believes only what two looks ``2 stale_s`` apart agree upon.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from jimmy_manager.archives import layout, stops, strict
from jimmy_manager.archives.claim import is_live
from jimmy_manager.archives.claims import ClaimRecord, Standing
from jimmy_manager.archives.files import Content, unreadable
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.layout import Parsed
from jimmy_manager.archives.owner import is_provably_dead, this_process
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, StoreTooNew, UnreadableRecord

_HELD = ("held", "silent", "ended")
_OF_COMMITS = ("stats", "ckpts", "previews")


class Finding(NamedTuple):
    """One thing that is wrong: ``kind``, the file ``name``, what it means, and the ``remedy`` that ``fix`` knows.

    Kinds are ``damaged``, ``unreadable``, ``newer`` (of a later version), ``missing``, ``mismatch`` (two records
    contradict each other), ``unfinished`` (a step of a worker that was killed), ``mode`` (keeps the group out of a
    store that it shares), ``unreferenced``, ``superseded``, ``scratch`` and ``foreign``. Remedies are ``move`` (to
    ``damaged/``), ``return`` (from there), ``mark``, ``bury``, ``retry``, ``remove``, ``sweep``, ``sign`` and
    ``share``; an empty one leaves it to people.
    """

    kind: str
    name: str
    message: str
    key: str = ""
    remedy: str = ""

    @property
    def is_clutter(self) -> bool:
        """Whether it only takes space: no result is affected."""
        return self.kind in ("unreferenced", "superseded", "scratch", "foreign")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.message}"


class Shelf(NamedTuple):
    """The files of one shard: those of each run by archive, scratch files, what does not belong, stats moved aside.

    ``stops`` are the requests to leave of each run.
    """

    runs: dict[str, dict[str, dict[str, Parsed]]]
    scratch: list[tuple[str, str]]
    foreign: list[tuple[str, str]]
    moved: set[str]
    stops: dict[str, dict[str, Parsed]]


def shards(store: Store) -> list[str]:
    """The shards that any archive has."""
    folders = {name for archive in layout.ARCHIVES for name in store.files.names(archive)}
    return sorted(filter(layout.is_shard, folders))


def entries(store: Store, folder: str) -> Iterator[tuple[str, str]]:
    """The names in ``folder``, sorted, each with ``file``, ``folder`` or ``link``; without a disk all are files."""
    for name in sorted(store.files.names(folder)):
        kind = "file"
        if store.directory is not None:
            path = os.path.join(store.directory, folder, name)
            kind = "link" if os.path.islink(path) else "folder" if os.path.isdir(path) else "file"
        yield name, kind


def take_stock(store: Store, shard: str) -> Shelf:
    """List one shard in every archive."""
    aside = (layout.scratch_target(last) for last in store.files.names(f"{layout.DAMAGED}/stats/{shard}"))
    shelf = Shelf({}, [], [], {f"stats/{shard}/{target}" for target in aside if target}, {})
    for archive in layout.ARCHIVES:
        folder = f"{archive}/{shard}"
        for last, kind in entries(store, folder):
            name = f"{folder}/{last}"
            parsed = layout.parse(archive, last)
            if kind == "link":
                shelf.foreign.append((name, "is a symbolic link; a store consists of files alone"))
            elif kind == "folder":
                shelf.foreign.append((name, "is a folder, where only files belong"))
            elif (target := layout.scratch_target(last)) is not None:
                of_run = layout.parse(archive, target)
                shelf.scratch.append((name, of_run.key if of_run else ""))
            elif archive == "claims" and (stop := layout.parse_stop(last)) and stop.key[:2] == shard:
                shelf.stops.setdefault(stop.key, {})[name] = stop
            elif parsed is None or parsed.key[:2] != shard:
                shelf.foreign.append((name, "is no file of a store; nobody reads it"))
            else:
                shelf.runs.setdefault(parsed.key, {each: {} for each in layout.ARCHIVES})[archive][name] = parsed
    return shelf


def inspect(store: Store, shard: str, only: set[str] | None = None, *, contents: bool = True) -> list[Finding]:
    """Everything that is wrong in ``shard`` at this moment; of the runs ``only`` these, where given."""
    shelf = take_stock(store, shard)
    found = [Finding("foreign", name, message) for name, message in shelf.foreign]
    held = set()
    for key in sorted(shelf.runs):
        if only is None or key in only:
            run = _Run(store, key, shelf, contents)
            found.extend(run.findings())
            if run.is_held:
                held.add(key)
    for key in sorted(shelf.stops):
        if only is None or key in only:
            found.extend(_check_stops(store, key, shelf.stops[key]))
    for name, key in shelf.scratch:
        if key not in held and (only is None or key in only):
            message = "was left by a writer that was killed; what it was to become was never there"
            found.append(Finding("scratch", name, message, key, "remove"))
    return found


def _check_stops(store: Store, key: str, requests: dict[str, Parsed]) -> Iterator[Finding]:
    for name, stop in requests.items():
        if stops.is_over(store.claims, key, stop.generation):
            message = f"asked the owner of generation {stop.generation} to stop, which it has done"
            yield Finding("superseded", name, message, key, "remove")


class _Run:
    """One run under inspection."""

    def __init__(self, store: Store, key: str, shelf: Shelf, contents: bool) -> None:
        self.store = store
        self.key = key
        self.files = shelf.runs[key]
        self.shorter = [other for other in shelf.runs if other != key and key.startswith(other)]
        self._moved = shelf.moved
        self.digest = ""
        self.is_held = True
        self._contents = contents
        self._found: list[Finding] = []
        self._claims: dict[int, ClaimRecord] = {}
        self._stats: dict[int, Stats] = {}
        self._listed = {name for named in self.files.values() for name in named}
        self._whole: dict[tuple[int, int], bool] = {}

    def findings(self) -> list[Finding]:
        try:
            standing = self.store.standing(self.key)
        except UnreadableRecord as error:
            self._note("unreadable", layout.claim(self.key, 1), str(error))
            return self._found
        except (StoreTooNew, *strict.MALFORMED) as error:
            standing = Standing(self.key, "held", self.store.claims.look(self.key))
            self._note("damaged", layout.claim(self.key, standing.trace.top), f"{error}; it is left as it is")
        self.is_held = standing.state in _HELD
        self._owner = f"{standing.record.owner if standing.record else 'a worker'} may still hold run {self.key}"
        self._check_config()
        self._check_claims(standing)
        self._check_stats()
        self._check_files(standing)
        self._check_last_steps(standing)
        return self._found

    def _note(self, kind: str, name: str, message: str, remedy: str = "") -> None:
        if remedy and self.is_held:
            message, remedy = f"{message}; it is left alone, as {self._owner}", ""
        self._found.append(Finding(kind, name, message, self.key, remedy))

    def _note_error(self, name: str, error: Exception, advice: str, remedy: str = "") -> None:
        """Tell apart what was written by a later version, what cannot be read, and what is damaged."""
        if isinstance(error, StoreTooNew):
            self._note("newer", name, str(error))
        elif isinstance(error, UnreadableRecord):
            self._note("unreadable", name, str(error))
        else:
            self._note("damaged", name, f"{_reason(error, name)}; {advice}", remedy)

    def _check_config(self) -> None:
        name = layout.config(self.key)
        others = any(self.files[archive] for archive in layout.ARCHIVES if archive != "configs")
        if not self.files["configs"]:
            advice = "registering the same configuration again writes it anew, with this key"
            self._note("missing", name, f"run {self.key} has files, but not its configuration; {advice}")
            return
        try:
            self.digest, _ = strict.read_config(self.store.files, self.key)
        except (DamagedRecord, UnreadableRecord, StoreTooNew) as error:
            if others:
                advice = "it stays, as the run has claims: registering the same configuration again rewrites it"
                self._note_error(name, error, advice)
            else:
                self._note_error(name, error, "no run was ever claimed under it", "move")
        for other in self.shorter:
            if self.digest and self.digest == _digest_of(self.store, other):
                self._note("mismatch", name, f"one configuration has two keys: run {other} holds it as well")
        if len(self.key) not in self.store.registry.lengths:
            self._note("mismatch", name, f"its key has {len(self.key)} digits, which no key of this store can have")

    def _check_claims(self, standing: Standing) -> None:
        for generation in standing.trace.claims:
            name = layout.claim(self.key, generation)
            try:
                record = self._claims[generation] = strict.read_claim(self.store.files, self.key, generation)
            except (DamagedRecord, UnreadableRecord, StoreTooNew) as error:
                # Moved away, its number would be free and be used twice.
                advice = "it stays, as its number must never be used again; a worker goes on with the next one"
                self._note_error(name, error, advice)
                continue
            if self.digest and not (record.digest and self.digest.startswith(record.digest)):
                message = (
                    f"it was made for the configuration {record.digest[:16]}..., but {layout.config(self.key)} holds "
                    f"{self.digest[:16]}...: workers refuse the run; pop it, or restore the right configuration"
                )
                self._note("mismatch", name, message)
        for generation in sorted(set(range(1, standing.trace.top + 1)) - set(standing.trace.claims)):
            what = "there are stats of this generation, but no claim" if generation in standing.trace.stats else (
                "claims are numbered without gaps, but this one is not there"
            )
            message = f"{what}: the file system lost it; a worker goes on with generation {standing.trace.top + 1}"
            self._note("missing", layout.claim(self.key, generation), message)

    def _check_stats(self) -> None:
        for name, parsed in self.files["stats"].items():
            try:
                self._stats[parsed.generation] = strict.read_stats(self.store.files, self.key, parsed.generation)
            except (DamagedRecord, UnreadableRecord, StoreTooNew) as error:
                self._note_error(name, error, "an earlier generation is used, where there is one", "move")

    def _check_files(self, standing: Standing) -> None:
        """The files of commits, from the highest generation down to the first whole one; below it all is superseded."""
        generations = {p.generation for archive in _OF_COMMITS for p in self.files[archive].values()}
        floor = 0
        for generation in sorted(generations, reverse=True):
            if generation < floor:
                self._note_superseded(generation, floor)
                continue
            stats = self._stats.get(generation)
            if stats is not None:
                for commit in reversed(stats.commits):
                    self._whole[generation, commit.number] = self._check_commit(commit)
                if not stats.commits or self._whole[generation, stats.commits[-1].number]:
                    floor = generation
            # What damaged stats name is not known, and a worker writes files before the stats that name them.
            is_known = stats is not None or layout.stats(self.key, generation) not in self._listed | self._moved
            if is_known and not (self.is_held and generation == standing.trace.top):
                self._check_unreferenced(generation, stats)

    def _check_commit(self, commit: Commit) -> bool:
        is_whole = True
        advice = f"it belongs to epoch {commit.epoch} of run {self.key}; readers use the commit before it, if any"
        for name, content in commit.contents().items():
            if name not in self._listed:
                is_whole = False
                self._note("missing", name, f"stats name it, but it is not there; {advice}")
                continue
            try:
                self._verify(name, content)
            except (DamagedRecord, UnreadableRecord) as error:
                is_whole = False
                self._note_error(name, error, advice, "move")
        return is_whole

    def _verify(self, name: str, content: Content) -> None:
        if self._contents:
            self.store.history.open(name, content).close()
            return
        try:
            size = self.store.files.size(name)
        except OSError as error:
            raise unreadable(name, error) from error
        if size != content.size:
            raise DamagedRecord(f"damaged file {name}: it has {size} bytes of {content.size}")

    def _check_unreferenced(self, generation: int, stats: Stats | None) -> None:
        named = {name for commit in (stats.commits if stats else ()) for name in commit.contents()}
        for archive in ("ckpts", "previews"):
            for name, parsed in self.files[archive].items():
                if parsed.generation == generation and name not in named:
                    message = "no commit names it: its writer was stopped before, or before it removed it"
                    self._note("unreferenced", name, message, "move" if self._is_over(generation) else "")

    def _note_superseded(self, generation: int, floor: int) -> None:
        names = [n for archive in _OF_COMMITS for n, p in self.files[archive].items() if p.generation == generation]
        message = f"generation {generation} of run {self.key} ({len(names)} files) is superseded by generation {floor}"
        self._note("superseded", names[0], message, "sweep")

    def _check_last_steps(self, standing: Standing) -> None:
        """What a worker does last and may have been killed in: marking finished stats, burying a popped run."""
        record = standing.record
        if record is None or record.generation != standing.trace.top:
            return
        if record.state == "popped" and not self._is_tombstone(record.generation):
            message = f"run {self.key} was popped, but its empty stats were never written, so it is still shown"
            self._note("unfinished", layout.stats(self.key, record.generation), message, "bury")
        if record.state == "done":
            self._check_done(record)

    def _is_tombstone(self, generation: int) -> bool:
        return generation in self._stats and not self._stats[generation].commits

    def _check_done(self, record: ClaimRecord) -> None:
        generation = record.generation - 1
        if record.task and record.generation in self._stats:
            return  # killed after its own stats, which were marked done from the first moment
        if record.task:  # by gc, which may have left the stats to be those from before its claim
            generation = max((each for each in self._stats if each < record.generation), default=generation)
        name, stats = layout.stats(self.key, generation), self._stats.get(generation)
        if stats is None:
            if name not in self._listed:
                by = layout.claim(self.key, record.generation)
                self._note("missing", name, f"{by} declares the run done by them, but they are not there")
            return
        if stats.digest() != record.stats:
            message = f"they are not what {layout.claim(self.key, record.generation)} declared done"
            self._note("mismatch", name, message)
            return
        if not stats.done:
            self._note("unfinished", name, "the run was declared done, but its stats were not marked", "mark")
        whole = [self._whole.get((generation, commit.number), False) for commit in stats.commits]
        if whole and not whole[-1]:
            if self._has_whole_commit(generation):
                message = f"run {self.key} is finished, but its last commit is not whole; training goes on from before"
                self._note("damaged", name, message, "retry")
            else:
                message = f"run {self.key} is finished, but none of its commits is whole: restore its files or pop it"
                self._note("damaged", name, message)

    def _has_whole_commit(self, top: int) -> bool:
        return any(whole for (generation, _), whole in self._whole.items() if generation <= top)

    def _is_over(self, generation: int) -> bool:
        """Whether the owner of ``generation`` can name no more files: it ended by itself, or is provably dead."""
        record = self._claims.get(generation)
        if record is None:
            return False
        successor = self._claims.get(generation + 1)
        if record.state != "held" or (successor and successor.state == "done" and successor.token == record.token):
            return True
        if record.owner.is_same_process(this_process()):
            return not is_live(record.token)
        return is_provably_dead(record.owner)


def _digest_of(store: Store, key: str) -> str:
    try:
        return strict.read_config(store.files, key)[0]
    except (DamagedRecord, UnreadableRecord, StoreTooNew):
        return ""  # a finding of its own


def _reason(error: Exception, name: str) -> str:
    """The part of the message that does not repeat the name, and without advice to run what is running."""
    text = str(error).removeprefix(f"damaged record {name}: ").removeprefix(f"damaged file {name}: ")
    return text.partition("; run 'jimmy check'")[0]
