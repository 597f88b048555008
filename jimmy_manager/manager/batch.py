"""Working through configurations beside other workers: claim, train, hand on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.claims import Standing
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.registry import Registered
from jimmy_manager.config import Config
from jimmy_manager.errors import (
    ClaimLost,
    DamagedRecord,
    RecordError,
    RunBusy,
    RunFailed,
    Stopped,
    StoreError,
    UnreadableRecord,
)
from jimmy_manager.manager import provenance
from jimmy_manager.manager.admission import Admission
from jimmy_manager.manager.run import Run, drive
from jimmy_manager.manager.schedule import BatchReport

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_POLL_S = 1.0
_LONGEST_TRACEBACK = 20_000


class Outcome(NamedTuple):
    """How it went with one configuration: ``done``, ``skipped``, ``busy``, ``failed`` or ``stopped``."""

    state: str
    key: str
    error: Exception | None = None
    standing: Standing | None = None


class Batch:
    """One call of ``process``, ``batch`` or ``sweep``: ``total`` epochs for each configuration."""

    def __init__(
        self, manager: Manager, admission: Admission, total: int, *, retries: int = 0, resume: bool = True
    ) -> None:
        self._manager = manager
        self._store = manager.store
        self._admission = admission
        self._total = total
        self._retries = retries
        self._resume = resume
        self._report = BatchReport()
        self._janitor = Janitor(manager.store)
        self._untidy: set[str] = set()

    def one(self, config: Mapping[str, Any], *, wait: bool = False) -> str:
        """Train one configuration and return its key; every other end is an error."""
        whole = next(self._admission.whole([config]))
        entry = self._admission.register(whole)
        while (outcome := self._try(entry, whole)).state == "busy" and wait and not self._manager.stop:
            self._pause()
        if outcome.state in ("done", "skipped"):
            return outcome.key
        if outcome.error is not None:
            raise outcome.error
        if outcome.state == "failed":
            raise RunFailed(_failed_before(outcome))
        if outcome.state == "busy" and not self._manager.stop:
            raise RunBusy(_busy(outcome))
        raise Stopped(f"{self._manager.stop.reason} came; run {outcome.key} was saved and can be continued")

    def all(
        self, configs: Iterable[Mapping[str, Any]], *, count: int = 0, wait: bool = False, max_errors: float = 0,
        max_in_a_row: int | None = None,
    ) -> BatchReport:
        """Train what can be had of ``configs``, then look once more at what was busy."""
        progress, report, stop = self._manager.progress, self._report, self._manager.stop
        progress.begin_batch(len(configs) if isinstance(configs, Sized) else None)
        errors = in_a_row = 0
        busy: list[tuple[Registered, Config]] = []

        def deal_with(entry: Registered, config: Config) -> bool:
            """Whether to go on after this one."""
            nonlocal errors, in_a_row
            outcome = self._try(entry, config)
            if outcome.state == "busy":
                busy.append((entry, config))
                report.busy.append(entry.key)
                progress.after_config(report)
                return True
            self._note(outcome)
            if outcome.error is not None:
                if max_errors == 0:
                    raise outcome.error
                errors, in_a_row = errors + 1, in_a_row + 1
                if errors >= max_errors or (max_in_a_row is not None and in_a_row >= max_in_a_row):
                    report.stopped = f"{errors} failures, {in_a_row} of them in a row"
            elif outcome.state == "done":
                in_a_row = 0
            return not (report.stopped or stop or (count and len(report.done) >= count))

        goes_on = all(deal_with(self._admission.register(config), config) for config in self._admission.whole(configs))
        while goes_on and busy:
            before, pending = len(busy), list(busy)
            busy.clear()
            report.busy.clear()
            goes_on = all(deal_with(*item) for item in pending)
            if goes_on and len(busy) == before:
                if not wait:
                    break
                self._pause()
                goes_on = not stop
        report.stopped = report.stopped or stop.reason
        progress.end_batch(report)
        return report

    def _note(self, outcome: Outcome) -> None:
        if outcome.state != "stopped" and outcome.key not in self._report.done:
            getattr(self._report, outcome.state).append(outcome.key)
        self._manager.progress.after_config(self._report)

    def _try(self, entry: Registered, config: Config) -> Outcome:
        """Claim and train one configuration, if it is to be had and not complete."""
        claims = self._store.claims
        standing = claims.standing(entry.key)
        if self._is_complete(standing):
            return Outcome("skipped", entry.key)
        if standing.state == "held":
            return Outcome("busy", entry.key, standing=standing)
        if standing.state == "failed" and self._failures(standing) > self._retries:
            return Outcome("failed", entry.key, standing=standing)
        if standing.record is not None and not entry.digest.startswith(standing.record.digest):
            reason = "was claimed for a configuration other than the one in its record"
            raise DamagedRecord(f"run {entry.key} {reason}; run 'jimmy check'")
        claim = claims.take(standing, entry.digest, max_crashes=self._manager.max_crashes)
        if claim is None:
            standing = claims.standing(entry.key)
            return Outcome("failed" if standing.state == "failed" else "busy", entry.key, standing=standing)
        return self._train(claim, config)

    def _train(self, claim: Claim, config: Config) -> Outcome:
        manager, key = self._manager, claim.key
        try:
            claim.start_heartbeat()
            facts = provenance.of_run(type(manager), manager.device, manager.threads)
            state = drive(manager, Run(self._store, claim, facts, resume=self._resume), config, self._total)
            if state == "stopped":
                claim.release()
            manager.progress.end_run(key, state)
            if state == "done" and claim.generation > 1:
                self._tidy(key)
            return Outcome(state, key)
        except ClaimLost as lost:
            claim.drop()
            manager.progress.end_run(key, "lost", str(lost))
            return Outcome("busy", key)
        except (StoreError, UnreadableRecord) as error:
            # The disk is at fault, not the configuration: nobody should have to ask for a retry.
            self._end(claim.release, error)
            raise
        except Exception as error:  # noqa: BLE001  # whatever a hook of the user's raises is the run's failure
            description = _description(error)
            self._end(lambda: claim.fail(description), error)
            manager.progress.end_run(key, "failed", f"{type(error).__name__}: {error}")
            return Outcome("failed", key, error)
        except BaseException as interrupt:
            self._end(claim.release, interrupt)
            raise

    def _tidy(self, key: str) -> None:
        """Sweep the superseded files of finished runs; where listings lag that takes more than one look."""
        self._untidy.add(key)
        self._untidy -= {each for each in self._untidy if self._janitor.tidy(each)}

    def _end(self, end: Callable[[], None], cause: BaseException) -> None:
        try:
            end()
        except (StoreError, RecordError) as error:
            cause.add_note(f"its claim could not be ended either: {error}")

    def _is_complete(self, standing: Standing) -> bool:
        if not self._resume or not standing.trace.stats:
            return False
        try:
            stats: Stats | None = self._store.history.read_stats(standing.key, standing.trace.stats[-1])
        except DamagedRecord:  # or changing at this moment: read it by the careful rules
            stats = self._store.committed(standing.key)
        if stats is None or not stats.commits:
            return False
        epoch = stats.commits[-1].epoch
        # Trained to the end by a worker that died before it said so: somebody has to say it.
        is_open = standing.state in ("dead", "dropped", "silent", "released", "retry")
        return epoch > self._total or (epoch == self._total and not is_open)

    def _failures(self, standing: Standing) -> int:
        """How many of the newest generations in a row failed."""
        failures, record = 0, standing.record
        while record is not None and record.state == "failed":
            failures += 1
            below = record.generation - 1
            record = self._store.claims.read(standing.key, below) if below in standing.trace.claims else None
        return failures

    def _pause(self) -> None:
        clock = self._store.claims.clock
        deadline = clock.monotonic() + _POLL_S
        while not self._manager.stop and (left := deadline - clock.monotonic()) > 0:
            clock.sleep(min(left, 0.1))


def _description(error: Exception) -> dict[str, Any]:
    text = "".join(traceback.format_exception(error))
    return {
        "type": type(error).__name__, "message": str(error)[:2000], "traceback": text[-_LONGEST_TRACEBACK:],
    }


def _busy(outcome: Outcome) -> str:
    record = outcome.standing.record if outcome.standing else None
    holder = f"{record.owner} since generation {record.generation}" if record else "another worker"
    return f"run {outcome.key} is held by {holder}; use wait=True, or look at 'jimmy workers'"


def _failed_before(outcome: Outcome) -> str:
    error = (outcome.standing.record.error if outcome.standing and outcome.standing.record else None) or {}
    return (
        f"run {outcome.key} is marked failed: {error.get('type', 'unknown')}: {error.get('message', '')}; "
        f"see 'jimmy errors {outcome.key}', and allow another try with 'jimmy retry {outcome.key}'"
    )
