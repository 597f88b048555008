"""The index: what a list of all runs shows, kept on this node so that only what has changed is read again.

It advises, the archives decide: the file lies in this node's own cache directory, is shared with nobody, and can be
deleted at any time. A file that is damaged or of another version is made anew, and where none can be used the archives
are read as if there were no index.

::

    directory of a shard changed?  (its mtime, or it was met less than 2 s after it changed)
        configs, claims: names that came and went       each such run is read again
        stats: names, mtimes, sizes, inodes             (claims and stats are replaced, never written in place)
    run held by a worker, lost, or damaged?             is read every time: its claim changes without a new name

A row that another process changes while this one brings the cache up to date may be older than what this one has read:
then it begins anew. Whoever asks again for what has not changed since is told so, and nothing is read.

Not noticed: a file that was changed in place, which no writer of a store does. ``jimmy check`` reads everything.
"""

from __future__ import annotations

import gc
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives import layout
from jimmy_manager.archives.cache import Cache, Seen, Unavailable
from jimmy_manager.archives.cells import Broken
from jimmy_manager.archives.columns import Columns, Indexed
from jimmy_manager.archives.listing import Listed, read_all, read_shard
from jimmy_manager.nesting import flattened

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

_WATCHED = ("configs", "claims", "stats")
_LASTING = ("new", "released", "retry", "failed", "done")
_TICK_S = 2.0
"""The coarsest time stamps of a file system: two changes within it may leave one mtime."""
_PAGE = 2_000
_TRIES = 5
"""So often a cache that another process changes meanwhile is brought up to date anew."""
_LONG_AGO_S = 60.0
"""An mtime this old by this node's clock is of an earlier tick, however wrong the clocks are."""


def read_columns(store: Store) -> Columns:
    """Every run of ``store`` that was not popped, by key; through the index where that is possible."""
    found = read_changed(store, "")[1]
    assert found is not None, "nothing was known before"
    return found


def read_changed(store: Store, known: str) -> tuple[str, Columns | None]:
    """``read_columns``, and what is to be given as ``known`` next time: then None says that nothing has changed.

    It is empty where the runs may be others the next time although nothing is written: while one is held, say.
    ``store.yaml`` is read again: two views by different schemas would make the whole index anew in turn.
    """
    store.refresh()
    path = cache_path(store)
    for _ in range(2 if path else 0):
        try:
            return _through(store, str(path), known)
        except Unavailable:
            break
        except Broken:
            _forget(str(path))
    return "", Columns.of(read_plainly(store))


def read_rows(store: Store) -> list[Indexed]:
    """The same run by run."""
    with _collector_paused():
        return list(read_columns(store).rows())


def read_plainly(store: Store) -> list[Indexed]:
    """The same from the archives alone."""
    return [indexed(run) for run in read_all(store)]


def cache_path(store: Store) -> str | None:
    """The file of the index; None for a store in memory and where there is no place for a cache."""
    if store.directory is None or not store.exists:
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    # A home directory may be shared by nodes, and a copy of a store has its id as well.
    real = os.path.realpath(store.directory)
    place = hashlib.sha256(f"{socket.gethostname()}\0{real}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    name = re.sub(r"[^0-9a-zA-Z]", "_", store.info.id)[:64]
    try:
        (folder / "jimmy_manager").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder / "jimmy_manager" / f"{name}-{place}.sqlite")


def indexed(run: Listed) -> Indexed:
    """A run as the index holds it."""
    commit, config = run.commit, dict(flattened(run.config))
    done = run.stats is not None and (run.stats.done or run.state == "done")
    row = Indexed(run.key, run.state, None, None, None, None, None, done, config, run.preview, run.damage)
    if commit is None:
        return row
    return row._replace(
        epoch=commit.epoch, step=commit.step, at=commit.at, train_s=commit.train_s, eval_s=commit.eval_s
    )


def _through(store: Store, path: str, known: str) -> tuple[str, Columns | None]:
    cache = Cache(path)
    try:
        for _ in range(_TRIES):
            meta = {"ledger": repr(store.ledger)}
            if cache.meta() != meta:
                cache.clear(meta)
            before = cache.begin()
            with _collector_paused():
                fresh, is_written = _refresh(store, cache)
                if known and not fresh and not is_written and before == known:
                    return known, None
                columns = cache.columns()
                if columns is not None:
                    return "" if fresh else cache.state, columns.updated(fresh)
        raise Unavailable("others change it all the time")
    finally:
        cache.close()


def _refresh(store: Store, cache: Cache) -> tuple[dict[str, Indexed | None], bool]:
    """Bring the cache up to date; return by key what is not kept there, and whether anything was written.

    Not kept are runs that a worker holds, and whatever could not be written; None stands for a run that is gone.
    """
    root = Path(store.directory or "")
    changed = _Changes(root, cache)
    live: dict[str, set[str]] = {}
    for key in cache.live():
        live.setdefault(key[:2], set()).add(key)
    fresh: dict[str, Indexed | None] = {}
    pages = _Pages(cache)
    for shard in sorted({*changed.shards(), *live}):
        known = live.get(shard, set())
        dirty, scanned = changed.scan(shard)
        read = {run.key: indexed(run) for run in read_shard(store, shard, dirty | known)}
        lasting = {key for key in known - dirty if key not in read or not _is_live(read[key])}
        fresh.update({key: read.get(key) for key in known - dirty - lasting})
        pages.add({key: read.get(key) for key in dirty | lasting}, scanned)
    pages.write()
    return fresh | pages.lost, pages.is_written


class _Pages:
    """What a refresh has to write, some thousand runs at a time: a transaction a shard costs as much as the rows."""

    def __init__(self, cache: Cache) -> None:
        self.lost: dict[str, Indexed | None] = {}
        self.is_written = False
        self._cache = cache
        self._can_write = True
        self._rows: dict[str, Indexed | None] = {}
        self._shards: dict[tuple[str, str], tuple[Seen, dict[str, Any]] | None] = {}

    def add(
        self, rows: dict[str, Indexed | None], shards: Mapping[tuple[str, str], tuple[Seen, dict[str, Any]] | None]
    ) -> None:
        """Write ``rows`` (None for a run that is gone) and what the directories of ``shards`` looked like, soon."""
        self._rows |= rows
        self._shards |= shards
        if len(self._rows) > _PAGE:
            self.write()

    def write(self) -> None:
        """Write what was added; where that fails, it is ``lost`` to the cache, and so is all that comes after."""
        if self._can_write and (self._rows or self._shards):
            try:
                kept = [(row, _is_live(row)) for row in self._rows.values() if row is not None]
                self._cache.put(kept, [key for key, row in self._rows.items() if row is None], self._shards)
                self.is_written = True
            except Unavailable:  # another process writes the same just now, or the disk is full
                self._can_write = False
        if not self._can_write:
            self.lost |= self._rows
        self._rows, self._shards = {}, {}


def _is_live(row: Indexed) -> bool:
    """Whether a row may change without a change of names: its claim is renewed, or its files are restored."""
    return row.state not in _LASTING or bool(row.damage)


class _Changes:
    """The shard directories that have changed since the cache read them."""

    def __init__(self, root: Path, cache: Cache) -> None:
        self._root = root
        self._cache = cache
        self._now = time.time()
        known = cache.shards()
        found = {(archive, shard): mtime for archive in _WATCHED for shard, mtime in _mtimes(root / archive)}
        self._changed: dict[str, dict[str, tuple[int | None, Seen | None]]] = {}
        for place in {*known, *found}:
            mtime, seen = found.get(place), known.get(place)
            if seen is None or not seen.is_settled or seen.mtime != mtime:
                self._changed.setdefault(place[1], {})[place[0]] = (mtime, seen)

    def shards(self) -> Iterable[str]:
        return self._changed

    def scan(self, shard: str) -> tuple[set[str], Mapping[tuple[str, str], tuple[Seen, dict[str, Any]] | None]]:
        """The keys in ``shard`` whose files have changed, and what the directories look like now."""
        dirty: set[str] = set()
        scanned: dict[tuple[str, str], tuple[Seen, dict[str, Any]] | None] = {}
        for archive, (mtime, seen) in self._changed.get(shard, {}).items():
            before = self._cache.names(archive, shard)
            after = _names(self._root / archive / shard, with_signatures=archive == "stats")
            here = {
                parsed.key for name in before.keys() | after.keys()
                if (before.get(name) != after.get(name) or _is_recent(after[name], mtime))
                and (parsed := layout.parse(archive, name)) is not None
            }
            dirty |= here
            now = None if mtime is None else self._seen(mtime, seen)
            # Looked at once more within one tick, and nothing came of it: there is nothing to keep.
            if here or now != seen or now is None:
                scanned[archive, shard] = (now, after) if now is not None else None
        return dirty, scanned

    def _seen(self, mtime: int, before: Seen | None) -> Seen:
        since = before.seen if before is not None and before.mtime == mtime else self._now
        is_older = 0 <= since <= self._now - _TICK_S or mtime / 1e9 < self._now - _LONG_AGO_S
        return Seen(mtime, since, is_older)


def _is_recent(signature: list[int], mtime: int | None) -> bool:
    """Whether a file changed in the tick of its directory, so that it may have changed again without a trace."""
    return bool(signature) and mtime is not None and signature[0] >= mtime - _TICK_S * 1e9


def _mtimes(folder: Path) -> Iterator[tuple[str, int]]:
    """The shards in ``folder``, each with when it changed, taken before it is read."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in filter(layout.is_shard, names):
        try:
            yield name, os.stat(folder / name).st_mtime_ns
        except FileNotFoundError:
            continue


def _names(folder: Path, *, with_signatures: bool) -> dict[str, list[int]]:
    """The files in ``folder``; where their content may change, with what tells one content from the next."""
    try:
        if not with_signatures:
            return {name: [] for name in os.listdir(folder)}
        with os.scandir(folder) as entries:
            return {entry.name: _signature(entry) for entry in entries}
    except FileNotFoundError:
        return {}


def _signature(entry: os.DirEntry[str]) -> list[int]:
    try:
        stat = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # replaced since it was listed: it changes with every look
        return [time.time_ns(), 0, 0]
    return [stat.st_mtime_ns, stat.st_size, stat.st_ino]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Several objects a run, all of them kept: the collector would walk them again and again and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _forget(path: str) -> None:
    for name in (path, f"{path}-journal"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
        except OSError:  # not ours to remove: then it stays unusable, and the archives are read
            return
