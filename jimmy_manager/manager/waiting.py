"""Waiting for runs that others hold, at no more than one file operation a second in all, however many they are.

::

    every 0.5 s, without the store   its process is gone (same host); Slurm says that its job has ended
    in turn, as the budget allows    stat the claim file:     moved, and longer   ──► read it: held still?
                                                              moved               ──► its owner lives
                                     stat its folder:         not by a heartbeat  ──► list it: a higher claim?
    when its lease ends              read the claim file, stat it again: did not move since it was first seen so?

Where listings may be old the times of files may be, too, so there silence is judged by the content alone: with few runs
each heartbeat is read, with many a claim is read once it has not moved for a quarter of its lease, which begins then.

Each of these only wakes: what becomes of the run is decided by `Claims.standing`, from the store. A look is paid for
afterwards: one that took five operations is followed by five seconds without any, but for a glance on credit where the
runs are few: seen late, the last sign of a lost owner would let its lease end late. Nothing is promised about how soon
a release on another host is noticed among hundreds of runs; alone it takes a few seconds.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import NamedTuple

from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import ClaimRecord, Claims, Standing
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.owner import Owner, is_provably_dead, this_process
from jimmy_manager.errors import DamagedRecord, RecordError, StoreTooNew
from jimmy_manager.signals import StopFlag

log = logging.getLogger(__name__)

PACE_S = 1.0
"""Seconds for each file operation."""
_PROBE_S = 0.5
_TICK_S = 0.1
_LISTED_AGAIN_S = 30.0
_ASKED_AGAIN_S = 30.0
"""How often to look whether all workers are asked to stop: what that costs would leave little for the runs."""
_SAME_MOMENT_NS = 50_000_000
"""A heartbeat's rename changes the claim file and its folder at one moment; what changed the folder later was none."""
_FEW = 3
"""Of so many runs each heartbeat can be seen, and even read, within the budget."""
_GLANCE_S = 4.0
"""After so many seconds one of few is looked at even where the look before is not paid for yet."""
_PARTS = 4
"""After so much of its lease without a sign the content of a claim is read: two heartbeats, as leases go by default."""
_MORE_DIGITS = range(4)
"""By so many bytes a claim grows whose counter only went on; the words for an end are longer by four at the least."""
_STAT, _READ, _LIST = 1, 4, 5
"""What each look costs: the system calls that it makes."""


class Stamp(NamedTuple):
    """What tells one content of a file from another, without reading it."""

    inode: int
    mtime_ns: int
    size: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str) -> Stamp:
        """The stamp of a file or folder; ``OSError`` where there is none to be had."""
        stat = os.stat(path)
        return cls(stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns)


@dataclass
class Held:
    """One run that another worker holds, and what was seen of its claim file; times are this host's monotonic ones.

    It has not moved since ``since``: by what was read in it, ``raw``, or by its ``stamp``, seen first at ``stamped``.
    """

    key: str
    generation: int
    lease_s: float
    owner: Owner | None
    size: int
    since: float
    looked: float = float("-inf")
    rests_until: float = float("-inf")
    stamp: Stamp | None = None
    stamped: float = float("inf")
    raw: bytes | None = None
    is_ripe: bool = False

    @property
    def unmoved_s(self) -> float:
        """For how long it was seen not to move; 0 where the last look saw that it had."""
        return max(0.0, self.looked - self.stamped)

    @property
    def deadline(self) -> float:
        """When its lease ends, should the claim file not move any more; never while it moves from look to look."""
        return self.since + self.lease_s if self.looked > self.stamped else float("inf")


@dataclass
class Rota:
    """Which run to look at next, and when: decisions alone. ``pace_s`` are the seconds for each operation."""

    pace_s: float
    runs: dict[str, Held] = field(default_factory=dict)
    _free_at: float = float("-inf")

    def overdue(self, now: float) -> Held | None:
        """A run whose lease has ended; such a look does not wait for the budget, but is paid for as well."""
        return next((run for run in self.runs.values() if now >= max(run.deadline, run.rests_until)), None)

    def next(self, now: float) -> Held | None:
        """The run that was not looked at for longest, if an operation may be made now."""
        if not self.is_affordable(now) or not self.runs:
            return None
        return min(self.runs.values(), key=lambda run: run.looked)

    def glance(self, now: float) -> Held | None:
        """One of few runs whose last look was seconds ago, lest its last sign be seen late.

        It is paid for as well, and made on credit: with less than a read unpaid, so that the budget holds.
        """
        if not self.runs or len(self.runs) > _FEW or now < self._free_at - _READ * self.pace_s:
            return None
        run = min(self.runs.values(), key=lambda run: run.looked)
        return run if now >= run.looked + _GLANCE_S else None

    def ripe(self, now: float) -> list[Held]:
        """The runs that are worth another try, without those that were tried for nothing a moment ago."""
        return [run for run in self.runs.values() if run.is_ripe and now >= run.rests_until]

    def is_affordable(self, now: float) -> bool:
        """Whether what was done before is paid for."""
        return now >= self._free_at

    def pay(self, now: float, operations: int) -> None:
        """Make no further look for as long as so many operations have to last."""
        self._free_at = max(self._free_at, now) + operations * self.pace_s


class Waiting:
    """Watches the runs that a worker found busy, until there may be something to do."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._clock = claims.clock
        self._rota = Rota(PACE_S)
        self._folders: dict[str, tuple[Stamp | None, float]] = {}
        self._woken: dict[tuple[str, int], int] = {}
        self._probed = float("-inf")
        self._asked = self._clock.monotonic()

    def add(self, key: str, standing: Standing | None) -> None:
        """Watch a run that stands like this; None where that is not known."""
        standing = standing or self._claims.standing(key)
        now, record = self._clock.monotonic(), standing.record
        lease_s = max(record.lease_s if record else self._claims.lease_s, self._claims.silence_s)
        generation, size = standing.trace.top, len(record.seal()) if record else 0
        run = Held(key, generation, lease_s, record.owner if record else None, size, now)
        run.raw = record.seal() if record else None
        run.is_ripe = standing.state != "held"  # lost by this very worker, or given up a moment ago
        before = self._rota.runs.get(key)
        if before is not None and before.generation == generation:
            run.stamp, run.stamped, run.since, run.raw = before.stamp, before.stamped, before.since, before.raw
            run.looked, run.size = before.looked, before.size
        # Whoever was woken for nothing sleeps longer the next time.
        if (wakes := self._woken.get((key, generation), 0)) > 0:
            run.rests_until = now + min(2.0**wakes, self._claims.lease_s)
        self._rota.runs[key] = run

    def forget(self, key: str) -> None:
        """Watch a run no more."""
        self._rota.runs.pop(key, None)

    def wait(self, stop: StopFlag) -> list[str]:
        """Sleep until some of the runs are worth another try, and return these; none where ``stop`` was set."""
        while not stop:
            if self._is_asked_to_stop():
                stop.set("jimmy stop")
                break
            self._look()
            if woken := self._rota.ripe(self._clock.monotonic()):
                for run in woken:
                    self._woken[run.key, run.generation] = self._woken.get((run.key, run.generation), 0) + 1
                return [run.key for run in woken]
            self._clock.sleep(_TICK_S)
        return []

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now >= self._probed + _PROBE_S:
            self._probed = now
            for run in self._rota.runs.values():
                run.is_ripe = run.is_ripe or self._is_gone(run)
        if not isinstance(self._claims.files, Disk):  # nothing to save there, and no files to stat
            self._look_at_all(now)
        elif (late := self._rota.overdue(now)) is not None:
            self._look_at_last(late, self._claims.files, now)
        elif (due := self._rota.next(now)) is not None:
            self._look_at(due, self._claims.files, now)
        elif (due := self._rota.glance(now)) is not None:
            self._look_at(due, self._claims.files, now, is_glance=True)

    def _is_gone(self, run: Held) -> bool:
        if run.owner is None:
            return False
        if run.owner.is_same_host(this_process()) and is_provably_dead(run.owner):
            return True
        return self._claims.has_ended(run.owner, run.unmoved_s)

    def _look_at_all(self, now: float) -> None:
        if self._rota.is_affordable(now):
            self._rota.pay(now, 1)
            for run in self._rota.runs.values():
                run.is_ripe = True

    def _look_at(self, run: Held, files: Disk, now: float, *, is_glance: bool = False) -> None:
        """One look at the claim file, and where it did not move one at its folder."""
        operations = _STAT
        run.looked = now
        try:
            stamp = Stamp.of(files.path(layout.claim(run.key, run.generation)))
            if stamp != run.stamp:
                if run.stamp is not None:
                    run.since, run.raw = now, None
                run.stamp, run.stamped = stamp, now
                if stamp.size - run.size not in _MORE_DIGITS or self._reads_heartbeats:
                    operations += _READ
                    run.is_ripe = run.is_ripe or not self._is_held_still(run, files, now)
                run.size = stamp.size
            elif self._claims.stale_s > 0 and run.raw is None and run.unmoved_s >= run.lease_s / _PARTS:
                operations += _READ
                self._keep(run, files.read(layout.claim(run.key, run.generation)), now)
            elif not is_glance:
                shard = layout.shard("claims", run.key)
                operations += _STAT
                folder, listed = Stamp.of(files.path(shard)), self._folders.get(shard, (None, float("-inf")))
                if self._must_list(folder, listed, run.stamp, now):
                    operations += _LIST
                    self._folders[shard] = folder, now
                    self._note_higher_claims(files.names(shard))
        except (OSError, RecordError) as error:  # being replaced just now, or hidden by a cache: the next turn tells
            log.debug("%s", error)
        finally:
            self._rota.pay(now, operations)

    def _must_list(self, folder: Stamp, listed: tuple[Stamp | None, float], claim: Stamp, now: float) -> bool:
        before, at = listed
        is_by_heartbeat = folder.mtime_ns <= claim.ctime_ns + _SAME_MOMENT_NS
        # Within one tick of a coarse clock a change leaves no trace in the time of its folder.
        return before is None or now >= at + _LISTED_AGAIN_S or (folder != before and not is_by_heartbeat)

    @property
    def _reads_heartbeats(self) -> bool:
        return self._claims.stale_s > 0 and len(self._rota.runs) <= _FEW

    def _is_held_still(self, run: Held, files: Disk, now: float) -> bool:
        """Read a claim that has moved; its owner may have ended it, or have been asked to stop."""
        name = layout.claim(run.key, run.generation)
        raw = files.read(name)
        self._keep(run, raw, run.since if raw == run.raw else now)
        try:
            return run.raw is None or ClaimRecord.unseal(run.raw, name).state == "held"
        except (DamagedRecord, StoreTooNew):
            return True

    def _keep(self, run: Held, raw: bytes, since: float) -> None:
        """Remember what was read of a claim, here and for who judges it."""
        run.raw, run.since = raw, since
        self._claims.note_unmoved(run.key, run.generation, raw, since)

    def _note_higher_claims(self, names: list[str]) -> None:
        """What a folder's listing shows of the watched runs: which were taken over, done, or popped."""
        for name in names:
            parsed = layout.parse("claims", name)
            run = self._rota.runs.get(parsed.key) if parsed else None
            if parsed and run and parsed.generation > run.generation:
                run.is_ripe = True

    def _look_at_last(self, run: Held, files: Disk, now: float) -> None:
        """At the end of a lease: let the claims know since when the file has not moved, if it has not."""
        name = layout.claim(run.key, run.generation)
        self._rota.pay(now, _READ + _STAT)
        try:
            raw = files.read(name)
            # Looked at again after it was read, lest what moved in between pass for what was seen before.
            stamp = Stamp.of(files.path(name))
        except OSError as error:  # whether that is for good, the claims have to see
            log.debug("%s", error)
            run.since, run.is_ripe = now, True
            return
        since = now
        if raw == run.raw:
            since = run.since
        elif stamp == run.stamp and self._claims.stale_s == 0:
            since = run.stamped
        self._keep(run, raw, since)
        run.is_ripe = run.is_ripe or now >= run.deadline

    def _is_asked_to_stop(self) -> bool:
        stops, now = self._claims.stops, self._clock.monotonic()
        if stops is None or now < self._asked + _ASKED_AGAIN_S * PACE_S or not self._rota.is_affordable(now):
            return False
        self._asked = now
        self._rota.pay(now, _LIST)
        return stops.is_everybody_asked()
