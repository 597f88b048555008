"""Claims: the right to write one generation of a run. The only place where workers meet.

A claim is a file ``claims/ab/KEY.gN.json`` that is created once, exclusively, and never removed or reused,
so generation N belongs to one worker for ever. Its owner alone replaces it::

            create N (one winner)         renew (beat + 1)
     free ───────────────────────► held ◄───────────────┐
                                    │ └─────────────────┘
          ┌──────────────┬──────────┼──────────────┬────────────────────────┐
          ▼              ▼          ▼              ▼                        ▼
      released        failed    (finishes)   dead: provably;         lost: a higher claim is there,
      claim N+1    until a claim  creates    silent for its lease;   or its lease ran out unrenewed;
       at once    N+1 = retry   N+1 = done   ended, says Slurm:      it writes nothing more
                                                claim N+1

``retry``, ``done`` and ``popped`` are claims born in their last state. Whoever wants to go on claims the next
number, which is one more than the highest seen among claims *and* stats.

``gc`` holds a claim, too, while it writes a run again with less, and so does an import (``task``): whoever trains stays
away from it. They train nothing, so their death changes nothing: a run that was at rest (done, failed, released, retry)
then stands where it stood ``after``; any other is free, and no crash is counted.

Slurm's word that a job has ended ends its lease alone: processes were seen to go on for 13 s after it. So the successor
still waits until all that they may have committed can be seen (``settle``), and no crash is counted.

Not promised: that no two workers execute one run at once. A worker that stalls past its lease may be
overtaken; generations make its late writes harmless, and the listing after each commit tells it so.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from jimmy_manager.archives import layout
from jimmy_manager.archives.claim import Claim, is_live
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.files import Files, unreadable
from jimmy_manager.archives.owner import Owner, is_provably_dead, this_process, this_worker
from jimmy_manager.archives.record import seal, unseal
from jimmy_manager.archives.stops import Stops
from jimmy_manager.errors import DamagedRecord
from jimmy_manager.slurm_queue import Queue

log = logging.getLogger(__name__)

_CUT_SHORT = 3
"""From so many attempts on that were stopped and killed unsaved, whoever takes the run is told what to do."""

_AT_REST = ("done", "failed", "released", "retry")
"""States in which a run stays until somebody wants something of it; in any other it is as free as a released one."""

LONGEST_LEASE_S = 86_400.0
"""Doubling stops here: a day of silence is enough for any file system."""


class Trace(NamedTuple):
    """What one listing shows of a run: its generations with a claim, with stats, with a request to stop; ascending."""

    claims: tuple[int, ...] = ()
    stats: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()

    @property
    def top(self) -> int:
        """The highest generation seen, 0 for none."""
        return max((*self.claims[-1:], *self.stats[-1:]), default=0)


class ClaimRecord(NamedTuple):
    """One claim as it stands on disk. ``at`` (seconds since 1970) is for people, never compared.

    ``view`` is the mount through which its owner saw the store; ``stopping`` that it was asked to stop. ``task`` is
    ``gc`` or ``import`` where it trains nothing; then ``error`` and ``stats`` are those of the claim before.
    """

    key: str
    generation: int
    digest: str
    token: str
    state: str
    beat: int
    lease_s: float
    owner: Owner
    at: float
    after: str = "new"
    settle: bool = False
    error: dict[str, Any] | None = None
    stats: str = ""
    view: str = ""
    stopping: bool = False
    task: str = ""

    @property
    def found_at_rest(self) -> str:
        """The state to which a task that came to nothing gives the run back."""
        return self.after if self.after in _AT_REST else "released"

    def seal(self) -> bytes:
        """The bytes of the claim file."""
        data = {name: value for name, value in self._asdict().items() if value not in (None, "") and value is not False}
        return seal("claim", data | {"owner": self.owner.as_record()})

    @classmethod
    def unseal(cls, raw: bytes, name: str) -> ClaimRecord:
        """The claim in the file ``name``."""
        data = unseal("claim", raw, name)
        try:
            record = cls(**(data | {"owner": Owner.of_record(data["owner"])}))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRecord(f"damaged record {name}: it is sealed, but not a claim: {error!r}") from error
        written_as = layout.claim(record.key, record.generation)
        if written_as != name:
            raise DamagedRecord(f"damaged record {name}: it was written as {written_as}")
        return record


class Standing(NamedTuple):
    """Where a run stands, judged from this process at this moment.

    ``state`` is ``new`` (never claimed), ``held`` (by a worker that may be alive), ``dead`` (its process is
    provably gone), ``silent`` (no heartbeat for its lease), ``ended`` (Slurm says so of its job), ``released``,
    ``retry``, ``failed``, ``done`` or ``popped``; ``dropped`` is a claim that this very process gave up, after a stall
    say. ``record`` is the highest claim, None where there is none or it is damaged.
    """

    key: str
    state: str
    trace: Trace
    record: ClaimRecord | None = None

    @property
    def is_free(self) -> bool:
        """Whether a worker may claim the next generation without being asked by a person."""
        return self.state in ("new", "dead", "dropped", "silent", "ended", "released", "retry", "popped")


class _Sighting(NamedTuple):
    """The content of a claim file, since when it is that, and when the claim was first seen, on this host's clock."""

    raw: bytes
    since: float
    first: float


class Claims:
    """The claims of one store as one worker sees them.

    ``stale_s`` bounds how old a listing may be. ``lease_s`` is the shortest lease written into new claims;
    it is raised to four ``stale_s``. Observed heartbeats are remembered on this host's monotonic clock. ``view`` names
    the mount through which this worker sees the store: two mounts on one host may list different things.

    Whoever works sets ``queue``, to hear of ended Slurm jobs, and ``stops``, to hear that all workers are to leave.
    """

    def __init__(
        self, files: Files, clock: Clock, *, stale_s: float = 0.0, lease_s: float = 120.0, heartbeat_s: float = 15.0,
        patience_s: float = LONGEST_LEASE_S, view: Callable[[], str] = lambda: "",
    ) -> None:
        self.files = files
        self.clock = clock
        self.stale_s = stale_s
        self.lease_s = max(min(lease_s, patience_s), 4 * stale_s)
        self.patience_s = max(min(patience_s, LONGEST_LEASE_S), self.lease_s)
        self.view = view
        self.heartbeat_s = min(heartbeat_s, self.lease_s / 4)
        self.queue: Queue | None = None
        self.stops: Stops | None = None
        self._seen: dict[tuple[str, int], _Sighting] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What was heard and seen here is dated by the clock of this host.
        return self.__dict__ | {"queue": None, "stops": None, "_seen": {}}

    @property
    def silence_s(self) -> float:
        """How long a claim file must at least not have moved, whatever its lease, before its owner counts as gone."""
        return 4 * self.stale_s

    def look(self, key: str) -> Trace:
        """List the generations of ``key``: a name that may not exist yet is never opened to find out."""
        claims, stats = (self.files.names(layout.shard(archive, key)) for archive in ("claims", "stats"))
        return Trace(
            _generations(key, claims, partial(layout.parse, "claims")),
            _generations(key, stats, partial(layout.parse, "stats")),
            _generations(key, claims, layout.parse_stop),
        )

    def freshen(self, key: str) -> None:
        """Before a look by which something is promised: have the listings that it takes made anew."""
        for archive in ("claims", "stats"):
            self.files.freshen(layout.shard(archive, key))

    def read(self, key: str, generation: int) -> ClaimRecord:
        """One claim; ``DamagedRecord`` or ``UnreadableRecord`` where it cannot be had."""
        name = layout.claim(key, generation)
        return ClaimRecord.unseal(self._read(name), name)

    def standing(self, key: str) -> Standing:
        """Where ``key`` stands; remembers what it saw, so that a silent owner is found out by the next calls."""
        trace = self.look(key)
        if trace.top == 0:
            return Standing(key, "new", trace)
        # Stats without a claim: it is not listed here yet, or its directory was damaged. Time will tell.
        raw = self._read(layout.claim(key, trace.top)) if trace.top in trace.claims else b""
        return self.judge(key, trace, raw)

    def judge(self, key: str, trace: Trace, raw: bytes) -> Standing:
        """Where ``key`` stands whose highest claim is ``raw`` at this moment."""
        try:
            record = ClaimRecord.unseal(raw, layout.claim(key, trace.top))
        except DamagedRecord:
            return Standing(key, self._judge(key, trace.top, raw, self.lease_s), trace)
        if record.state != "held":
            return Standing(key, record.state, trace, record)
        if record.owner.is_same_process(this_process()):
            state = "held" if is_live(record.token) else "dropped"
        elif is_provably_dead(record.owner):
            state = "dead"
        else:
            state = self._judge(key, trace.top, raw, record.lease_s, record.owner)
        # What was not at rest is judged by the claim itself: "new" would say that nobody may have committed here.
        stands_as_before = record.task and state != "held" and record.after in _AT_REST
        return Standing(key, record.after if stands_as_before else state, trace, record)

    def note_unmoved(self, key: str, generation: int, raw: bytes, since: float) -> None:
        """Take over what a watcher saw: that this claim file has held ``raw`` ever since ``since``."""
        seen = self._seen.get((key, generation))
        self._seen[key, generation] = _Sighting(raw, since, min(since, seen.first) if seen else since)

    def take(self, standing: Standing, digest: str, *, max_crashes: int = 5, task: str = "") -> Claim | None:
        """Claim the generation after ``standing`` for this process, or return None where another was first.

        Not a mutex: see the module's first lines. A run whose last ``max_crashes`` generations died
        without a commit is marked failed instead, and None is returned. ``task`` says that nothing will be trained.
        """
        if standing.state == "dead":
            crashes = self._count_crashes(standing)
            if crashes >= max_crashes:
                self._put(standing, digest, "failed", error=_crashed(crashes, standing))
                return None
        before = standing.record if task else None
        record = self._put(
            standing, digest, "held", error=before.error if before else None, stats=before.stats if before else "",
            task=task,
        )
        if record is not None and not task and (cut := self._count_cut_short(standing)) >= _CUT_SHORT:
            log.warning(
                "run %s: its last %d attempts were asked to stop and killed before they could save anything; give them "
                "more time after the signal, or let train() look at self.stop and pause within its epoch",
                standing.key, cut,
            )
        return Claim(self, record) if record else None

    def mark(self, standing: Standing, digest: str, state: str, *, stats: str = "") -> ClaimRecord | None:
        """Create the next generation in its last state (``retry``, ``popped``); None where another was first."""
        return self._put(standing, digest, state, stats=stats)

    def next_generation(self, standing: Standing) -> int:
        """One more than the highest number seen in claims and in stats, so that no number is used twice."""
        return standing.trace.top + 1

    def _put(
        self, standing: Standing, digest: str, state: str, *, error: dict[str, Any] | None = None, stats: str = "",
        task: str = "",
    ) -> ClaimRecord | None:
        generation = self.next_generation(standing)
        # The token is drawn for each attempt: one drawn before a fork would be shared by all children.
        token, lease_s, at = secrets.token_hex(8), self._lease(standing), round(self.clock.now(), 3)
        record = ClaimRecord(
            standing.key, generation, digest[:32], token, state, 0, lease_s, this_worker(), at, standing.state,
            self._must_settle(standing), error, stats, self.view(), task=task,
        )
        return record if self._create(record) else None

    def _create(self, record: ClaimRecord) -> bool:
        name = layout.claim(record.key, record.generation)
        try:
            return self.files.create(name, record.seal())
        except BaseException as error:
            # It may be there all the same; then nobody may take it for the claim of a worker that crashed.
            try:
                if record.state == "held" and self.files.read(name) == record.seal():
                    ended = record.found_at_rest if record.task else "released"
                    self.files.replace(name, record._replace(state=ended).seal())
            except OSError as left:
                error.add_note(f"if {name} was created it could not be released: {left}")
            raise

    def _must_settle(self, standing: Standing) -> bool:
        """Whether a lower generation may still commit, or have committed what is not listed here yet.

        A predecessor that is proven dead, or that ended by itself, writes no more; but what it committed
        on another host may take ``stale_s`` to be listed here. And one that died before its own first
        commit had a predecessor too, whose silence it had not waited out.
        """
        if standing.state == "new":
            return False
        if standing.state in ("silent", "held", "ended") or standing.record is None:
            return True
        if standing.record.state == "held" and standing.record.task:  # whether it was dead, or silent, is not told
            return True
        if not standing.record.owner.is_same_host(this_process()) or standing.record.view != self.view():
            return True
        return standing.record.settle and standing.trace.top not in standing.trace.stats

    def _lease(self, standing: Standing) -> float:
        """The lease, doubled for each generation in a row that was given up without a commit.

        Where changes take longer to be seen than the lease lasts, healthy workers would otherwise
        overtake each other for ever. Slurm's verdict has nothing to do with that.
        """
        doublings = sum(verdict != "ended" for verdict, _ in self._fruitless(standing))
        return min(self.lease_s * 2.0 ** min(doublings, 40), self.patience_s)

    def _count_crashes(self, standing: Standing) -> int:
        """How many generations in a row died provably without a commit.

        Lost nodes end the row, and so does a worker that was asked to stop and killed before it could save. A task is
        passed over: it says nothing of how the run trains.
        """
        crashes = 0
        for verdict, record in self._fruitless(standing):
            if verdict != "dead" or record.stopping:
                break
            crashes += not record.task
        return crashes

    def _count_cut_short(self, standing: Standing) -> int:
        """How many generations in a row were asked to stop, and ended without a commit: no crashes, but no use."""
        return len(list(itertools.takewhile(lambda each: each[1].stopping, self._fruitless(standing))))

    def _fruitless(self, standing: Standing) -> list[tuple[str, ClaimRecord]]:
        """The highest generations, from the top, that ended neither by themselves nor with a commit, each with how."""
        found: list[tuple[str, ClaimRecord]] = []
        verdict, record = standing.state, standing.record
        while record and record.state == "held" and record.generation not in standing.trace.stats:
            found.append((verdict, record))
            verdict, below = record.after, record.generation - 1
            try:
                record = self.read(standing.key, below) if below in standing.trace.claims else None
            except DamagedRecord:
                break
        return found

    def _judge(self, key: str, generation: int, raw: bytes, lease_s: float, owner: Owner | None = None) -> str:
        """``held``, ``silent`` or ``ended``; the first time it is ``held`` whatever the clock says."""
        now = self.clock.monotonic()
        seen = self._seen.get((key, generation))
        if seen is None or seen.raw != raw:
            self._seen[key, generation] = _Sighting(raw, now, now if seen is None else seen.first)
            return "ended" if self.has_ended(owner, is_asked=seen is None) else "held"
        unmoved_s = now - seen.since
        if unmoved_s >= max(lease_s, self.silence_s):
            return "silent"
        return "ended" if self.has_ended(owner, unmoved_s) else "held"

    def has_ended(self, owner: Owner | None, unmoved_s: float = 0.0, *, is_asked: bool = False) -> bool:
        """Whether Slurm has said that the job of ``owner`` is over, which is asked once its heartbeat is overdue.

        Of a job that gives signs Slurm is asked at first sight alone: a thousand workers would keep it busy otherwise.
        """
        if self.queue is None or owner is None or owner.job is None:
            return False
        return self.queue.has_ended(owner.job, is_asked=is_asked or unmoved_s >= 2 * self.heartbeat_s)

    def _read(self, name: str) -> bytes:
        try:
            return self.files.read(name)
        except FileNotFoundError:
            # Listed, but gone for the moment: its owner is replacing it, or this node's cache lags.
            return b""
        except OSError as error:
            raise unreadable(name, error) from error


def _generations(
    key: str, names: Iterable[str], parse: Callable[[str], layout.Parsed | None]
) -> tuple[int, ...]:
    prefix = f"{key}.g"
    parsed = (parse(name) for name in names if name.startswith(prefix))
    return tuple(sorted(found.generation for found in parsed if found and found.key == key))


def _crashed(crashes: int, standing: Standing) -> dict[str, Any]:
    where = f", the last one as {standing.record.owner}" if standing.record else ""
    return {
        "type": "crashed",
        "message": f"its last {crashes} attempts died without saving anything{where}",
        "traceback": "",
    }
