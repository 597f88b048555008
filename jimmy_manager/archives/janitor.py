"""The janitor: takes away what no reader and no successor can need again.

What may go is decided by what is *committed*, never by claims: a claim says who may write, not that
anything was written. The floor of a run is its highest generation whose stats and files are whole, read to
the last byte and seen unchanged for ``2 stale_s``, so that every host lists it by then. Generations
strictly below the floor go; a tombstone is whole as it is. Requests to stop go when nobody holds the generation
that they ask. Never touched are configurations and claims (their numbers would be used again), the code of jobs (a
worker writes it before it names it), and whatever stands at or above the floor, named by stats or not (its owner may be
about to name it).

The lowest generation goes first and in it the stats, before the files that they name. A janitor that is
killed in between leaves files that nobody names, which the next sweep takes; the other way round it would
leave stats that name missing files, which readers would report as damage should the floor ever be damaged.
Whoever still reads those stats in an old listing finds a file missing, reads again, and meets the floor.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from jimmy_manager.archives import layout, stops
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Files, store_error
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, ReadOnlyStore, StoreError, StoreTooNew, UnreadableRecord

T = TypeVar("T")
log = logging.getLogger(__name__)

SWEPT_ARCHIVES = ("stats", "ckpts", "previews")
"""In the order in which the files of one generation go."""

SCRATCH_AGE_S = 3600.0
"""How long a scratch file must not have grown before it counts as left behind.

A scratch file has no counter to watch, and its mtime is another host's clock. So its size is watched on this
host's monotonic clock. A wrong guess costs its writer one more write, never a commit, so an hour is plenty.
"""


class Swept(NamedTuple):
    """What a sweep removed, or would remove: names in order, and their sizes in bytes (a hard link counts whole)."""

    names: tuple[str, ...] = ()
    size: int = 0


class Janitor:
    """Sweeps one store; remembers from sweep to sweep what it saw, and for how long."""

    def __init__(self, store: Store) -> None:
        self._files = store.files
        self._history = store.history
        self._clock = store.claims.clock
        self._settled_s = 2 * store.claims.stale_s
        self._whole: dict[str, tuple[Stats, float]] = {}
        self._scratch: dict[str, tuple[int, float]] = {}

    def sweep(self, *, dry_run: bool = False, offline: bool = False, wait: bool = False) -> Swept:
        """Remove what this janitor has seen to be superseded for ``2 stale_s``.

        On a local disk that is decided within the call, elsewhere by an earlier call or, with ``wait``, by
        sleeping. ``offline`` says that nobody else uses the store now: scratch files go at any age.
        Two sweeps at once are harmless; only to save work the second of them removes nothing.
        """
        with _alone(self._files) as is_alone:
            if not is_alone:
                return Swept()
            if wait or self._settled_s == 0:
                self._superseded()
                self._clock.sleep(self._settled_s)
            return self._remove([*self._superseded(), *self._answered(), *self._abandoned(offline)], dry_run)

    def tidy(self, key: str) -> bool:
        """Sweep the superseded files of one run; return False where that is not decided yet, and call again later.

        What a worker does with a run that it has finished, so that a store at rest needs no sweep.
        """
        return self.sweep_run(key) is not None

    def sweep_run(self, key: str) -> Swept | None:
        """Remove the superseded files of one run; None where that is not decided yet.

        It holds no lock: a second janitor only finds less to remove.
        """
        if len(self.files_of(key)) < 2:
            return Swept()
        looks = 2 if self._settled_s == 0 else 1
        if not any(self._floor(key) for _ in range(looks)):
            return None
        return self._remove(self._superseded(key), dry_run=False)

    def files_of(self, key: str) -> dict[int, list[str]]:
        """The files of one run that may ever be swept, by generation, each in the order in which they go."""
        return self._list(key).get(key, {})

    def scratch(self) -> list[str]:
        """Every scratch file, of whatever age: left behind, where nobody else uses the store."""
        return self._abandoned(offline=True)

    def remove(self, names: Iterable[str]) -> Swept:
        """Remove files that the caller knows to be needed by nobody."""
        return self._remove(list(names), dry_run=False)

    def _superseded(self, of: str | None = None) -> list[str]:
        """The files of every run (or of one) that may go, each run's in the order in which they go."""
        names = []
        for key, generations in self._list(of).items():
            if len(generations) > 1:
                floor = self._floor(key)
                for generation in sorted(generations):
                    if _may_go(generation, floor):
                        names.extend(generations[generation])
        return names

    def _list(self, key: str | None = None) -> dict[str, dict[int, list[str]]]:
        """Every file of the swept archives (or those of one run) by key and generation."""
        found: dict[str, dict[int, list[str]]] = {}
        for archive in SWEPT_ARCHIVES:
            for folder in self._shards(archive) if key is None else [layout.shard(archive, key)]:
                for name in sorted(self._files.names(folder)):
                    if (parsed := layout.parse(archive, name)) and key in (None, parsed.key):
                        found.setdefault(parsed.key, {}).setdefault(parsed.generation, []).append(f"{folder}/{name}")
        return found

    def _floor(self, key: str) -> int:
        """The highest whole generation of ``key``, 0 until it was seen unchanged for long enough."""
        try:
            stats = self._highest_whole(key)
        except (UnreadableRecord, StoreTooNew) as error:  # it may be whole: nothing below it is superseded for certain
            log.warning("%s", error)
            stats = None
        if stats is None:
            self._whole.pop(key, None)
            return 0
        return stats.generation if self._age(self._whole, key, stats) >= self._settled_s else 0

    def _highest_whole(self, key: str) -> Stats | None:
        for generation in reversed(self._history.claims.look(key).stats):
            try:
                stats = self._history.read_stats(key, generation)
                for newest in stats.commits[-1:]:
                    self._history.verify(newest)
                return stats
            except DamagedRecord as error:
                log.warning("%s", error)
        return None

    def _age(self, memory: dict[str, tuple[T, float]], name: str, seen: T) -> float:
        """For how long ``name`` was seen as it is now; below 0 at first sight."""
        now = self._clock.monotonic()
        before, since = memory.get(name, (None, now))
        if before != seen:
            memory[name] = (seen, now)
            return -1.0
        return now - since

    def _answered(self) -> list[str]:
        """The requests to stop that ask nobody any more."""
        claims = self._history.claims
        found = ((folder, last) for folder in self._shards("claims") for last in sorted(self._files.names(folder)))
        named = ((f"{folder}/{last}", layout.parse_stop(last)) for folder, last in found)
        return [name for name, stop in named if stop and stops.is_over(claims, stop.key, stop.generation)]

    def _abandoned(self, offline: bool) -> list[str]:
        """The scratch files whose writers are gone, to all appearance."""
        names, present = [], set()
        archives = (*layout.ARCHIVES, layout.CODE)
        for folder in ["", *(shard for archive in archives for shard in self._shards(archive))]:
            for last in sorted(self._files.names(folder)):
                if layout.scratch_target(last) is None:
                    continue
                name = f"{folder}/{last}" if folder else last
                try:
                    age = self._age(self._scratch, name, self._files.size(name))
                except FileNotFoundError:  # renamed meanwhile
                    continue
                present.add(name)
                if offline or age >= max(SCRATCH_AGE_S, self._settled_s):
                    names.append(name)
        self._scratch = {name: seen for name, seen in self._scratch.items() if name in present}
        return names

    def _remove(self, names: list[str], dry_run: bool) -> Swept:
        removed, total = [], 0
        for name in names:
            try:
                size = self._files.size(name)
                if dry_run or self._files.remove(name):
                    removed.append(name)
                    total += size
            except FileNotFoundError:
                continue
            except ReadOnlyStore:
                raise
            except StoreError as error:  # another user's file, say; the rest can go all the same
                log.warning("%s", error)
        return Swept(tuple(removed), total)

    def _shards(self, archive: str) -> list[str]:
        return [f"{archive}/{name}" for name in sorted(filter(layout.is_shard, self._files.names(archive)))]


def _may_go(generation: int, floor: int) -> bool:
    """Whether the files of ``generation`` are superseded by the whole generation ``floor``."""
    return generation < floor


@contextmanager
def _alone(files: Files) -> Iterator[bool]:
    """Hold the janitor's lock, or yield False; where locks do not work two janitors do the same work twice."""
    if not isinstance(files, Disk) or not os.path.isdir(files.root):
        yield True
        return
    import filelock

    lock = files.lock(".janitor.lock", 0.0)
    try:
        lock.acquire()
    except filelock.Timeout:
        log.info("another janitor is sweeping %s", files.root)
        yield False
        return
    except OSError as error:
        raise store_error("lock", lock.lock_file, error) from error
    try:
        yield True
    finally:
        lock.release()
