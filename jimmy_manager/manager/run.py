"""One run in the hands of this worker, and the loop that calls the hooks for it."""

from __future__ import annotations

import copy
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jimmy_manager import random_state
from jimmy_manager.archives import checkpoints, previews
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.eval_log import EvalLog
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.store import Store
from jimmy_manager.config import Config
from jimmy_manager.errors import CheckpointError, DamagedRecord, HookError, NoRecord
from jimmy_manager.manager import shares
from jimmy_manager.manager.deadline import Pace
from jimmy_manager.manager.provenance import Provenance
from jimmy_manager.manager.schedule import blended, is_due
from jimmy_manager.packing import pack
from jimmy_manager.signals import TIME_LIMIT

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

log = logging.getLogger(__name__)


class EpochPaused(BaseException):
    """Thrown by ``Manager.pause``: an epoch ends in between.

    No ``Exception``, lest a hook that catches all of those catch this one, too.
    """



class Run:
    """What ``Manager`` may do with a run while this worker holds its claim."""

    def __init__(
        self, store: Store, claim: Claim, provenance: Provenance, *, resume: bool = True, pace: Pace | None = None,
    ) -> None:
        self.key = claim.key
        self.claim = claim
        self.train_s = 0.0
        self.eval_s = 0.0
        self.saves = 0
        self.evals = EvalLog(store.logs(claim.key), claim.generation)
        self.pace = pace or Pace(claim.claims.clock.monotonic)
        self.pen = threading.Lock()
        """Held while something is committed: another thread that ends the claim waits for it."""
        self._attempt = Attempt(store.history, claim)
        self._provenance = provenance
        self._resume = resume

    @property
    def newest(self) -> Commit | None:
        """What a load gives: the newest commit of this generation, else what it adopted."""
        return self._attempt.newest

    def adopt(self) -> None:
        """Take over what was committed before, unless the run is to start from nothing."""
        if not self._resume:
            self._attempt.start_afresh()
        else:
            commit = self._attempt.adopt()
            self.train_s, self.eval_s = (commit.train_s, commit.eval_s) if commit else (0.0, 0.0)

    def commit(self, ckpt: Mapping[str, Any], preview: Mapping[str, Any], epoch: int, step: int = 0) -> None:
        """Save one state; nothing is written where a value cannot be stored."""
        shown, figures = previews.save(preview, self.key)
        packed = pack(ckpt)
        with self.pen:
            self._attempt.describe(self._provenance.facts())
            self._attempt.commit(
                epoch=epoch, step=step, train_s=self.train_s, eval_s=self.eval_s, preview=shown, figures=figures,
                checkpoint=lambda file: checkpoints.save_packed(packed, file),
            )
        self.saves += 1

    @property
    def is_saved(self) -> bool:
        """Whether this generation has a commit of its own."""
        return self.saves > 0

    @property
    def settled_at(self) -> float:
        """Until when the next commit waits for those of a predecessor to be seen, on the monotonic clock; or 0."""
        claim = self.claim
        return claim.taken_at + 2 * claim.claims.stale_s if claim.record.settle and not self.is_saved else 0.0

    def finish(self) -> None:
        """Declare the run done with its newest commit."""
        with self.pen:
            self._attempt.finish()


def drive(manager: Manager, run: Run, config: Config, total: int) -> str:
    """Call the hooks until ``total`` epochs are behind the model; return ``done``, or ``stopped`` after a signal."""
    manager._run = run
    state = ""
    try:
        while True:
            try:
                state = _drive_once(manager, run, config, total, functools.partial(manager._team.do, manager, run))
                return state
            except NewerCommit as newer:
                log.info("%s; it is taken over instead", newer)
    finally:
        try:
            manager._team.do(manager, run, "end", is_done=state == "done")
        finally:
            manager._run = None
            run.evals.close()


def _drive_once(manager: Manager, run: Run, config: Config, total: int, do: Callable[[str], Any]) -> str:
    manager.config = config
    with run.pace.measured("setup"):
        do("setup")
        run.adopt()
        is_loaded = do("load")
    do = functools.partial(_do_timed, manager, run, do)
    if not is_loaded:
        do("init")
        do("evaluate")
        do("save")
    manager.progress.begin_run(run.key, config, manager.epoch, total)
    saved_at = manager.epoch
    while manager.epoch < total:
        if not _has_time(manager, run, total):
            break
        run.claim.check()
        if not do("train"):
            do("save")
            return "stopped"
        if is_due(manager.epoch, manager.eval_interval, total):
            do("evaluate")
        if is_due(manager.epoch, manager.save_interval, total):
            do("save")
            saved_at = manager.epoch
        manager.progress.after_epoch(run.key, manager.epoch, total, manager.preview)
    if saved_at != manager.epoch or (manager.epoch >= total and not run.is_saved):
        do("save")
    if manager.epoch < total:
        return "stopped"
    run.finish()
    return "done"


def _has_time(manager: Manager, run: Run, total: int) -> bool:
    """Whether to begin another epoch: not after a stop, nor one that could not be saved before time is up."""
    evaluates, deadline = is_due(manager.epoch + 1, manager.eval_interval, total), manager._time
    manager.stop.end_at(deadline.moment - run.pace.to_leave_s(pauses=manager.pauses, evaluates=evaluates))
    if run.pace.to_advance_s(pauses=manager.pauses, evaluates=evaluates) > deadline.left_s:
        manager.stop.set(TIME_LIMIT)
    return not manager.stop


def _do_timed(manager: Manager, run: Run, do: Callable[[str], Any], what: str) -> Any:
    """Do it, and note how long it took; a save did nothing while it waited for the commits of a predecessor."""
    monotonic, step = manager.store.claims.clock.monotonic, manager.step
    started = max(monotonic(), run.settled_at if what == "save" else 0.0)
    result = do(what)
    seconds = monotonic() - started
    if what == "train" and manager.step > step:
        run.pace.note("step", seconds / (manager.step - step))
    if result is not False:  # an epoch that was left in between
        run.pace.note(what, seconds)
    return result


def _set_up(manager: Manager, run: Run) -> None:
    config = manager.config
    shares.apply_threads(manager.threads)
    random_state.seed(manager.seed(config))
    # Of the run before nothing may be left, whatever an override does not call.
    manager.key, manager.ckpt, manager.preview = run.key, {}, {}
    manager.epoch = manager.step = 0
    manager.setup(config.clone())
    manager.key = run.key  # whatever setup made of the configuration


def _load(manager: Manager, run: Run) -> bool:
    """Whether there was a checkpoint to load. Only its absence leads to a fresh start, no other failure does."""
    manager._absent = manager._random = None
    try:
        manager.load_ckpt()
    except NoRecord as error:
        if error is not manager._absent:
            raise
        return False
    except DamagedRecord:
        run.claim.check()  # a successor may have taken the files away: then the claim is lost, and nothing is damaged
        raise
    if manager._random is None:
        raise CheckpointError(
            f"the checkpoint of run {run.key} has no random states, or load_ckpt() did not call super().load_ckpt(); "
            "without them it cannot be resumed exactly"
        )
    random_state.restore(manager._team.own(manager._random, run.key), run.key)
    return True


def _train(manager: Manager, run: Run) -> bool:
    """Train an epoch, or the rest of one; False where it was left in between."""
    clock = manager.store.claims.clock
    started = clock.monotonic()
    try:
        manager.train()
    except EpochPaused:
        return False
    manager.epoch += 1
    run.train_s = blended(run.train_s, clock.monotonic() - started)
    return True


def _save(manager: Manager, run: Run) -> None:
    before = run.saves
    manager.save_ckpt()
    if run.saves == before:
        raise HookError(
            f"{type(manager).__name__}.save_ckpt() saved nothing: it has to end with super().save_ckpt(), "
            f"or run {run.key} could never be resumed or fetched"
        )


def _evaluate(manager: Manager, run: Run) -> None:
    clock = manager.store.claims.clock
    started = clock.monotonic()
    record = manager.eval()
    run.eval_s = blended(run.eval_s, clock.monotonic() - started)
    if record is not None:
        if not isinstance(record, Mapping):
            name = type(manager).__name__
            raise HookError(f"{name}.eval() returned {type(record).__name__}, it must be a dict or None")
        manager.preview.update(record)
        manager.ckpt.setdefault("eval_records", {})[manager.epoch] = copy.deepcopy(dict(record))
    shown = record if record is not None else _filled_in(manager)
    run.evals.append(manager.epoch, manager.step, clock.now(), shown)


def _filled_in(manager: Manager) -> dict[Any, Any]:
    """What an ``eval`` that returned nothing has put where results belong, less the records of other epochs."""
    preview, records = manager.preview, manager.ckpt.get("eval_records")
    shown = {name: each for name, each in preview.items() if name != "eval_records"} if preview else {}
    own = records.get(manager.epoch) if isinstance(records, Mapping) else None
    return shown | dict(own) if isinstance(own, Mapping) else shown


STEPS: dict[str, Callable[..., Any]] = {
    "setup": _set_up, "load": _load, "init": lambda manager, _: manager.init_ckpt(), "evaluate": _evaluate,
    "train": _train, "save": _save, "end": lambda manager, _, is_done: manager.end_run(is_done=is_done),
}  # fmt: skip
"""What all ranks of a job do at the same time, each called with the Manager and the run."""
