"""Working through configurations beside other workers: what next, when to stop, what to report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

from jimmy_manager import keys, slurm
from jimmy_manager.archives.claims import Claims, Standing
from jimmy_manager.archives.owner import this_process
from jimmy_manager.archives.stops import Stops
from jimmy_manager.config import Config
from jimmy_manager.errors import DamagedRecord, HookError, RunBusy, RunFailed, Stopped
from jimmy_manager.manager.admission import Admission
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.manager.waiting import Waiting
from jimmy_manager.manager.worker import Outcome, Worker
from jimmy_manager.slurm_queue import Queue

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_SLURM_ANSWERS_S = 10.0


class Batch:
    """One call of ``process``, ``batch`` or ``sweep``."""

    def __init__(self, manager: Manager, admission: Admission, worker: Worker) -> None:
        if manager.is_training:
            raise HookError(
                "process(), batch() and sweep() were called in a hook of the same Manager, which holds one run at a "
                "time; use a second Manager for the other run"
            )
        self._manager = manager
        self._admission = admission
        self._worker = worker
        self._report = BatchReport()
        self._noted: set[tuple[str, str]] = set()
        self._claims = _listening(manager.store.claims)
        self._waiting = Waiting(self._claims)

    def one(self, config: Mapping[str, Any], *, wait: bool = False) -> str:
        """Train one configuration and return its key; every other end is an error."""
        stop = self._manager.stop
        whole = next(self._admission.whole([config]))
        entry = self._admission.register(whole)
        if self._is_asked_to_leave():
            raise Stopped(f"{self._told(stop.reason)} came before run {entry.key} was begun")
        while (outcome := self._worker.work_on(entry, whole)).state == "busy" and wait and not stop:
            self._waiting.add(outcome.key, outcome.standing)
            self._waiting.wait(stop)
        if outcome.state in ("done", "skipped"):
            return outcome.key
        if outcome.error is not None:
            raise outcome.error
        if outcome.state == "failed":
            raise RunFailed(_failed_before(outcome))
        if outcome.state == "stopped":
            reason = self._told(stop.reason) or "a stop signal"
            raise Stopped(f"{reason} came; run {outcome.key} can be continued by anybody")
        if stop:
            raise Stopped(f"{self._told(stop.reason)} came while run {outcome.key} was held by another worker")
        raise RunBusy(_busy(outcome))

    def all(
        self, configs: Iterable[Mapping[str, Any]], *, count: int = 0, wait: bool = False, max_errors: float = 0,
        max_in_a_row: int | None = None,
    ) -> BatchReport:
        """Train what can be had of ``configs``, then look once more at what was busy."""
        progress, report, stop = self._manager.progress, self._report, self._manager.stop
        progress.begin_batch(len(configs) if isinstance(configs, Sized) else None)
        errors = in_a_row = 0
        busy: dict[str, tuple[Config, Standing | None]] = {}

        def deal_with(config: Config) -> bool:
            """Whether to go on after this one."""
            nonlocal errors, in_a_row
            outcome = self._outcome(config)
            if outcome.state == "busy":
                busy[outcome.key] = config, outcome.standing
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

        def try_again(keys: Iterable[str]) -> bool:
            """Whether to go on after these, which were busy."""
            again = [(key, busy.pop(key)[0]) for key in keys]
            self._forget_busy(key for key, _ in again)
            return all(deal_with(config) for _, config in again)

        goes_on = all(deal_with(config) for config in self._until_asked_to_leave(configs)) and not stop
        while goes_on and busy:
            if not wait and self._claims.queue is not None:
                self._claims.queue.wait(_SLURM_ANSWERS_S)  # an answer may free a run at this last look
            before = len(busy)
            goes_on = try_again(list(busy))
            if goes_on and len(busy) == before:
                if not wait:
                    break
                goes_on = self._await_change(busy, try_again)
        report.stopped = self._told(report.stopped or stop.reason)
        progress.end_batch(report)
        return report

    def _await_change(
        self, busy: Mapping[str, tuple[Config, Standing | None]], try_again: Callable[[Iterable[str]], bool]
    ) -> bool:
        """Wait, and try those of the ``busy`` runs that wake, until one of them is dealt with; whether to go on."""
        for key, (_, standing) in busy.items():
            self._waiting.add(key, standing)
        goes_on, count = True, len(busy)
        while goes_on and len(busy) == count:
            woken = self._waiting.wait(self._manager.stop)
            goes_on = bool(woken) and try_again([key for key in woken if key in busy])
            for key in woken:
                if key in busy:
                    self._waiting.add(key, busy[key][1])
                else:
                    self._waiting.forget(key)
        return goes_on

    def _until_asked_to_leave(self, configs: Iterable[Mapping[str, Any]]) -> Iterator[Config]:
        for config in self._admission.whole(configs):
            if self._is_asked_to_leave():
                return
            yield config

    def _is_asked_to_leave(self) -> bool:
        """Whether all workers are; looked for between runs as well, which may be shorter than a heartbeat."""
        if self._claims.stops is not None and self._claims.stops.is_everybody_asked():
            self._manager.stop.set("jimmy stop")
            return True
        return False

    def _told(self, reason: str) -> str:
        """``reason``, which the caller tells of: with it a request to leave is dealt with, and other work may begin."""
        if reason:
            self._claims.stops = None
        return reason

    def _outcome(self, config: Config) -> Outcome:
        try:
            entry = self._admission.register(config)
        except DamagedRecord as error:  # of this configuration alone: the others can be trained
            return Outcome("failed", keys.digest(self._manager.store.key_form(config))[:8], error)
        return self._worker.work_on(entry, config)

    def _note(self, outcome: Outcome) -> None:
        """Put the key into the report, once: several points of a grid may be one configuration."""
        noted = (outcome.state, outcome.key)
        repeats = noted in self._noted or (outcome.state == "skipped" and ("done", outcome.key) in self._noted)
        if outcome.state != "stopped" and not repeats:
            self._noted.add(noted)
            getattr(self._report, outcome.state).append(outcome.key)
            if outcome.state == "failed" and outcome.error is None:
                self._report.failed_before.append(outcome.key)
        self._manager.progress.after_config(self._report)

    def _forget_busy(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._noted.discard(("busy", key))
            self._report.busy.remove(key)


def _listening(claims: Claims) -> Claims:
    """The claims of a worker that hears of ended jobs, and of requests to stop from now on."""
    claims.queue = claims.queue or Queue(slurm.this_job(), this_process().user)
    if claims.stops is None or not claims.stops.hears_on():
        claims.stops = Stops(claims.files, claims.clock, claims.heartbeat_s)
    return claims


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
