"""Who holds which run, looked at again and again with little load on the store.

The first look asks the index which runs may be held at all. Each later one asks for the time of every folder of claims,
and lists and reads what has changed in it; a claim that has ended never changes again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import ClaimRecord, Trace
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.index import read_rows
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import RecordError, StoreTooNew

_TICK_S = 2.0
"""The coarsest time stamps of a file system: what changed within it may leave no trace in them."""
_MAYBE_HELD = ("held", "dead", "silent", "dropped", "ended", "unreadable")


class Holder(NamedTuple):
    """One run and who holds it.

    ``state`` is that of a `Standing`, or ``stopping``. ``commit`` is the newest one, None before the first. ``quiet_s``
    is for how long its heartbeat was seen not to move, and ``is_alive`` whether it was seen to move at all.
    """

    key: str
    state: str
    record: ClaimRecord
    commit: Commit | None
    quiet_s: float
    is_alive: bool


@dataclass
class _Seen:
    """The claim of one run as it was last read, since when it is that, and how often it was seen to move."""

    trace: Trace
    raw: bytes
    since: float
    moves: int = 0
    commit: Commit | None = None


class Holders:
    """The held runs of a store; remembers from look to look what need not be read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._claims = store.claims
        self._clock = store.claims.clock
        self._held: dict[str, _Seen] = {}
        self._over: dict[str, int] | None = None
        self._folders: dict[str, tuple[int, float]] = {}

    def look(self) -> list[Holder]:
        """Every run that is held at this moment, by key."""
        changed = {shard: self._list(shard) for shard in self._changed()}
        if self._over is None:
            self._over = self._ended_before(changed)
        for shard, traces in changed.items():
            for key in [key for key in self._held if key[:2] == shard and key not in traces]:
                del self._held[key]
            for key, trace in traces.items():
                if self._over.get(key) != trace.top:
                    self._read(key, trace, self._over)
        return [holder for key in sorted(self._held) if (holder := self._judge(key, self._held[key]))]

    def _changed(self) -> list[str]:
        """The folders of claims that may have changed since they were last listed."""
        shards = sorted(filter(layout.is_shard, self._store.files.names("claims")))
        if self._store.directory is None:
            return shards
        now, changed = self._clock.monotonic(), []
        for shard in shards:
            try:
                stamp = os.stat(os.path.join(self._store.directory, "claims", shard)).st_mtime_ns
            except OSError:  # it is listed, so the listing tells what is wrong
                stamp = -1
            before, since = self._folders.get(shard, (-1, now))
            if stamp != before or now < since + _TICK_S:
                self._folders[shard] = (stamp, since if stamp == before else now)
                changed.append(shard)
        return changed

    def _list(self, shard: str) -> dict[str, Trace]:
        claims = self._generations("claims", shard)
        stats = self._generations("stats", shard)
        return {key: Trace(tuple(sorted(claims[key])), tuple(sorted(stats.get(key, ())))) for key in claims}

    def _generations(self, archive: str, shard: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name in self._store.files.names(f"{archive}/{shard}"):
            if parsed := layout.parse(archive, name):
                found.setdefault(parsed.key, []).append(parsed.generation)
        return found

    def _ended_before(self, listed: dict[str, dict[str, Trace]]) -> dict[str, int]:
        """The highest claim of each run that the index knows to have ended by now."""
        maybe = {row.key for row in read_rows(self._store) if row.state in _MAYBE_HELD}
        return {key: trace.top for traces in listed.values() for key, trace in traces.items() if key not in maybe}

    def _read(self, key: str, trace: Trace, over: dict[str, int]) -> None:
        before = self._held.get(key)
        try:
            raw = self._store.files.read(layout.claim(key, trace.top))
            record = ClaimRecord.unseal(raw, layout.claim(key, trace.top))
        except (OSError, RecordError, StoreTooNew):  # 'jimmy check' tells; perhaps it is being replaced just now
            return
        if record.state != "held":
            over[key] = trace.top
            self._held.pop(key, None)
        elif before is None or before.trace.top != trace.top:
            self._held[key] = _Seen(trace, raw, self._clock.monotonic(), commit=self._commit(key, trace))
        elif before.raw != raw:
            moved = _Seen(trace, raw, self._clock.monotonic(), before.moves + 1, self._commit(key, trace))
            self._held[key] = moved

    def _commit(self, key: str, trace: Trace) -> Commit | None:
        """The newest commit; None where there is none, or it changes at this moment."""
        try:
            stats = self._store.history.read_stats(key, trace.stats[-1]) if trace.stats else None
        except (RecordError, StoreTooNew):
            return None
        return stats.commits[-1] if stats and stats.commits else None

    def _judge(self, key: str, seen: _Seen) -> Holder | None:
        standing = self._claims.judge(key, seen.trace, seen.raw)
        if standing.record is None or (standing.record.task and standing.state != "held"):
            return None
        state = "stopping" if standing.state == "held" and standing.record.stopping else standing.state
        quiet_s = self._clock.monotonic() - seen.since
        return Holder(key, state, standing.record, seen.commit, quiet_s, seen.moves > 0)

