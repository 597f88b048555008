"""One configuration in the hands of one worker: claimed, trained, and ended so that others know what came of it.

================================  =============================================================
what ended the training           what becomes of the claim
================================  =============================================================
the last epoch was committed      ``done``
a stop signal, or the time limit  ``released``: anybody goes on at once
an exception of a hook            ``failed`` with its traceback, until somebody asks for a retry
an exception after a stop signal  ``released``: what stops a job breaks its helpers, too
a file system that refused        ``released``, and the error ends the worker: no run is to blame
Ctrl-C, twice                     ``released``, and the interrupt goes on
another worker's higher claim     nothing is written
================================  =============================================================
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives import checkpoints
from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.claims import Standing
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.owner import this_process
from jimmy_manager.archives.registry import Registered
from jimmy_manager.config import Config
from jimmy_manager.errors import (
    CheckpointError,
    ClaimLost,
    DamagedRecord,
    HookError,
    RecordError,
    Stopped,
    StoreError,
    UnreadableRecord,
)
from jimmy_manager.manager.progress import duration
from jimmy_manager.manager.provenance import Provenance
from jimmy_manager.manager.run import Run, drive
from jimmy_manager.signals import TIME_LIMIT

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

log = logging.getLogger(__name__)

_LONGEST_TRACEBACK = 20_000


class Outcome(NamedTuple):
    """How it went with one configuration: ``done``, ``skipped``, ``busy``, ``failed``, ``stopped`` or ``postponed``.

    ``error`` is what failed now; a run that had failed before has none.
    """

    state: str
    key: str
    error: Exception | None = None
    standing: Standing | None = None


class Worker:
    """Trains configurations to ``total`` epochs for a Manager; tries one that fails ``retries`` times more.

    It claims nothing that it could not advance by a save before its time is up: where the run's own pace tells that,
    the run is postponed; where that of the runs before it does, the time limit is taken to have come.
    """

    def __init__(
        self, manager: Manager, total: int, *, retries: int = 0, resume: bool = True, postpones: bool = True
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._total = total
        self._retries = retries
        self._resume = resume
        self._postpones = postpones
        self._janitor = Janitor(manager.store)
        self._untidy: set[str] = set()
        self._hidden: dict[tuple[str, int], float] = {}
        self._afresh: set[str] = set()
        self.saves = 0
        self.has_begun = False
        self.shortage = ""
        """What a run would need of a time that is too short for it, the worst of them; empty where there was none."""
        self.is_hopeless = False
        """Whether that run needs more than all the time that there ever was."""

    def work_on(self, entry: Registered, config: Config) -> Outcome:
        """Claim and train one configuration, if it is to be had and not complete."""
        while True:
            outcome = self._try(entry, config)
            if outcome.error is None or self._manager.stop or not self._may_retry(entry.key):
                return outcome

    def _try(self, entry: Registered, config: Config) -> Outcome:
        try:
            claim = self._claim(entry)
        except (DamagedRecord, CheckpointError) as error:  # of this run alone: the others can be trained
            return Outcome("failed", entry.key, error)
        return claim if isinstance(claim, Outcome) else self._train(claim, config)

    def _claim(self, entry: Registered) -> Claim | Outcome:
        claims = self._store.claims
        standing = claims.standing(entry.key)
        newest = self._newest(standing) if self._resume else None
        if newest is not None and self._is_complete(standing, newest):
            return Outcome("skipped", entry.key)
        if standing.state == "held" or self._is_hidden(standing):
            return Outcome("busy", entry.key, standing=standing)
        if standing.state == "failed" and self._failures(standing) > self._retries:
            return Outcome("failed", entry.key, standing=standing)
        if standing.record is not None and not entry.digest.startswith(standing.record.digest):
            reason = "was claimed for a configuration other than the one in its record"
            raise DamagedRecord(f"run {entry.key} {reason}; run 'jimmy check'")
        self._afresh.discard(entry.key)
        if newest is not None and not newest.has_ckpt:
            self._check_afresh(entry.key)
            newest = None
        if (outcome := self._out_of_time(standing, newest)) is not None:
            return outcome
        claim = claims.take(standing, entry.digest, max_crashes=self._manager.max_crashes)
        if claim is None:
            standing = claims.standing(entry.key)
            return Outcome("failed" if standing.state == "failed" else "busy", entry.key, standing=standing)
        return claim

    def _check_afresh(self, key: str) -> None:
        """Note that a run begins from nothing: it had failed, gc took its checkpoint, and a retry was asked for."""
        stats = self._store.committed(key)
        run = stats.run if stats is not None else {}
        if stats is None or self._store.is_done(stats) or checkpoints.GC not in run:
            raise checkpoints.left_out(key, run)
        self._afresh.add(key)

    def _out_of_time(self, standing: Standing, newest: Commit | None) -> Outcome | None:
        """How it ends without a claim, where no state could be saved in time; None where one can."""
        manager, key, deadline = self._manager, standing.key, self._manager._time
        manager.stop.end_at(deadline.moment)
        if manager.stop:
            self.shortage = self.shortage or f"run {key} was not even begun"
            return Outcome("stopped", key)
        pace = manager._pace.of_next(**_known_pace(newest) if newest else {})
        need_s = pace.to_claim_s(
            newest.epoch if newest else None, self._total, eval_interval=manager.eval_interval, pauses=manager.pauses,
            settle_s=self._settle_s(standing),
        )  # fmt: skip
        left_s, whole_s = deadline.left_s, deadline.whole_s
        if need_s <= left_s:
            manager._pace = pace
            return None
        if not self.is_hopeless:
            self.is_hopeless = pace.is_own and need_s > whole_s
            self.shortage = (
                f"run {key} needs about {duration(need_s)} until its next save, but {duration(max(0.0, left_s))} of "
                f"{duration(whole_s)} are left for it; give it a longer time limit"
            )
        if pace.is_own and self._postpones:
            return Outcome("postponed", key)
        manager.stop.set(TIME_LIMIT)
        return Outcome("stopped", key)

    def _settle_s(self, standing: Standing) -> float:
        """How long after a claim at most the first commit waits for those of a predecessor to be listed."""
        record = standing.record
        if standing.state == "new" or (record is not None and record.owner.is_same_host(this_process())):
            return 0.0
        return 2 * self._store.claims.stale_s

    def _train(self, claim: Claim, config: Config) -> Outcome:
        manager, key = self._manager, claim.key
        state, message, error = "stopped", "", None
        try:
            claim.start_heartbeat(lambda: bool(manager.stop), lambda: manager.stop.set("jimmy stop"))
            origin = Provenance(manager)
            self.has_begun = True
            resume = self._resume and key not in self._afresh
            run = Run(self._store, claim, origin, resume=resume, pace=self._manager._pace)
            try:
                state = drive(manager, run, config, self._total)
            finally:
                self.saves += run.saves
            if state == "stopped":
                claim.release()
        except ClaimLost as lost:
            state, message = "lost", str(lost)
        except (StoreError, UnreadableRecord) as refused:
            _end(claim.release, refused)
            raise
        except (Exception, SystemExit) as raised:  # noqa: BLE001  # whatever a hook of the user's raises is the run's failure
            state, message, error = self._fail(claim, raised)
        except BaseException as interrupt:
            _end(claim.release, interrupt)
            raise
        finally:
            manager.stop.end_at(manager._time.moment)  # what comes next may need less time than this run
            claim.drop()
        manager.progress.end_run(key, state, message)
        if state == "done" and claim.generation > 1:
            self._tidy(key)
        return Outcome("busy" if state == "lost" else state, key, error)

    def _fail(self, claim: Claim, raised: Exception | SystemExit) -> tuple[str, str, Exception | None]:
        description = describe(raised)
        message = f"{description['type']}: {description['message']}"
        if self._manager.stop.was_signalled or isinstance(raised, Stopped):
            log.warning("run %s was stopped, and not saved at the end: %s", claim.key, message)
            _end(claim.release, raised)
            return "stopped", message, None
        _end(lambda: claim.fail(description), raised)
        if isinstance(raised, SystemExit):  # as it is, it would end the worker as if nothing had happened
            error = HookError(f"a hook of run {claim.key} left by sys.exit({raised.code!r})")
            error.__cause__ = raised
            return "failed", message, error
        return "failed", message, raised

    def _tidy(self, key: str) -> None:
        """Sweep the superseded files of finished runs; where listings lag that takes more than one look."""
        self._untidy.add(key)
        try:
            self._untidy -= {each for each in self._untidy if self._janitor.tidy(each)}
        except (StoreError, RecordError) as error:  # the run is done all the same, and 'jimmy prune' can do it later
            log.warning("%s", error)

    def _newest(self, standing: Standing) -> Commit | None:
        """The newest commit of a run, None where there is none."""
        if not standing.trace.stats:
            return None
        try:
            stats: Stats | None = self._store.history.read_stats(standing.key, standing.trace.stats[-1])
        except DamagedRecord:  # or changing at this moment: read it by the careful rules
            stats = self._store.committed(standing.key)
        return stats.commits[-1] if stats is not None and stats.commits else None

    def _is_complete(self, standing: Standing, newest: Commit) -> bool:
        # Trained to the end by a worker that died, or may have died, before it said so: somebody has to say it.
        is_open = standing.state in ("held", "dead", "dropped", "silent", "ended", "released", "retry")
        return newest.epoch > self._total or (newest.epoch == self._total and not is_open)

    def _is_hidden(self, standing: Standing) -> bool:
        """Whether a run was declared done by stats that are not listed here yet; a finished run stays as it is."""
        if standing.state != "done" or not self._resume or standing.trace.top - 1 in standing.trace.stats:
            return False
        claims = self._store.claims
        since = self._hidden.setdefault((standing.key, standing.trace.top), claims.clock.monotonic())
        return claims.clock.monotonic() < since + 2 * claims.stale_s

    def _may_retry(self, key: str) -> bool:
        standing = self._store.standing(key)
        return standing.state == "failed" and self._failures(standing) <= self._retries

    def _failures(self, standing: Standing) -> int:
        """How many of the newest generations in a row failed."""
        failures, record = 0, standing.record
        while record is not None and (record.state == "failed" or (record.task and record.state == "held")):
            failures += not record.task
            below = record.generation - 1
            record = self._store.claims.read(standing.key, below) if below in standing.trace.claims else None
        return failures


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as a claim keeps it: ``type``, ``message`` and ``traceback``."""
    try:
        message = str(error)
    except Exception as worse:  # noqa: BLE001  # a user's exception may fail at anything
        message = f"(its text cannot be had: {type(worse).__name__})"
    text = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": message[:2000], "traceback": text[-_LONGEST_TRACEBACK:]}


def _known_pace(commit: Commit) -> dict[str, float]:
    """What a commit tells of the seconds that parts of its run take."""
    step_s = commit.train_s * commit.epoch / commit.step if commit.step else 0.0
    return {"train": commit.train_s, "evaluate": commit.eval_s, "step": step_s}


def _end(end: Callable[[], None], cause: BaseException) -> None:
    try:
        end()
    except (StoreError, RecordError) as error:
        cause.add_note(f"its claim could not be ended either: {error}")
