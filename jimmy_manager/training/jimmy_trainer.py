"""``JimmyTrainer``: the loop that trains a `JimmyModel` on a dataset, evaluates it, logs, saves and resumes exactly."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal, NoReturn

from jimmy_manager import random_state
from jimmy_manager.errors import ConfigError, NonFiniteLoss, Stopped
from jimmy_manager.models.jimmy_model import JimmyModel
from jimmy_manager.signals import StopFlag
from jimmy_manager.state_files import load_state, save_state
from jimmy_manager.training import exact_state
from jimmy_manager.training.evaluation import evaluating, mean_losses, meter_of, sample_losses
from jimmy_manager.training.loop_state import LoopState
from jimmy_manager.training.loss_meter import Averages, LossMeter, Row
from jimmy_manager.training.process_group import ProcessGroup
from jimmy_manager.training.progress_manager import ProgressManager
from jimmy_manager.training.runtime_params import RuntimeParams, set_rate
from jimmy_manager.training.scheduler_adapter import adapt_scheduler
from jimmy_manager.training.tensorboard_manager import TensorBoardManager
from jimmy_manager.training.trainer_arguments import (
    check_choice,
    check_counts,
    check_eval_set,
    check_loss_names,
    check_pace,
    check_rate,
    check_set,
    check_train_set,
    check_trained,
    checked_optimizer,
    versions,
)

log = logging.getLogger(__name__)

SHOWN_EPOCHS = 8
_ON_ITS_WAY_S = 0.1  # a signal that others of a job have got already


class JimmyTrainer:
    """Trains ``model`` for ``n_epochs`` passes over ``train_set``.

    After each epoch the scheduler is given the moving average of the main training loss. Every ``eval_interval``
    epochs, and after the last one, the model is evaluated and the state saved: ``last.pth``, from which `resume`
    continues bit by bit, and ``best.pth``, the weights of the lowest main evaluation loss. Losses are read back from
    the device about twice a second, never once a step.

    Args:
        train_set, eval_set: a `JimmyDataset`, a `MultiThreadLoader` or an adapter; no evaluation where it is None.
        model: initialised, so that it has its optimizer.
        lr_scheduler: a `JimmyLRScheduler`, any scheduler of PyTorch, or None for a constant rate.
        log_dir: for TensorBoard and ``runtime_param_buffer.yaml``, whose ``LR`` may be edited while training; or None.
        save_dir: for ``last.pth`` and ``best.pth``; or None.
        moving_avg: over how many steps training losses are averaged.
        early_stop_lr: end once the learning rate has fallen below it.
        on_nan: what to do where the main loss is not finite: ``'stop'`` with `NonFiniteLoss`, ``'warn'`` and go on, or
            ``'skip'`` the step, which waits for the device in each.
        save_interval: save ``last.pth`` every so many epochs, if not with each evaluation; the first ``best.pth`` is
            never without one.
        save_steps: save it every so many steps as well, or once the gradients of these are not accumulating any more;
            0 for never.
        scheduler_interval: ``'step'`` for schedulers that count batches, such as ``OneCycleLR``; one that takes the
            metric waits for the device in each step.
        stop: a flag to stop at the next step; signals set the trainer's own during `start`.
        distributed: train together with the other processes of a ``torchrun``, see `ProcessGroup`.

    """

    def __init__(
        self, train_set: Any, eval_set: Any, model: JimmyModel, lr_scheduler: Any = None,
        log_dir: str | os.PathLike[str] | None = None, save_dir: str | os.PathLike[str] | None = None,
        n_epochs: int = 100, moving_avg: int = 100, eval_interval: int = 1, early_stop_lr: float = 0.0, *,
        on_nan: Literal["stop", "warn", "skip"] = "stop", save_interval: int | None = None, save_steps: int = 0,
        scheduler_interval: Literal["epoch", "step"] = "epoch", show_progress: bool = True,
        stop: StopFlag | None = None, distributed: bool = True,
    ) -> None:
        save_interval = eval_interval if save_interval is None else save_interval
        check_counts(n_epochs=(n_epochs, 0), moving_avg=(moving_avg, 1), eval_interval=(eval_interval, 1),
                     save_interval=(save_interval, 1), save_steps=(save_steps, 0))  # fmt: skip
        check_rate("early_stop_lr", early_stop_lr)
        check_choice("on_nan", on_nan, ("stop", "warn", "skip"))
        check_choice("scheduler_interval", scheduler_interval, ("epoch", "step"))
        check_train_set(train_set)
        if eval_set is not None:
            check_eval_set(eval_set)
        self._optimizer = checked_optimizer(model)
        check_loss_names(model)
        self.train_set, self.eval_set, self.model = train_set, eval_set, model
        self.lr_scheduler = adapt_scheduler(lr_scheduler, self._optimizer)
        check_pace(lr_scheduler, scheduler_interval, n_epochs)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.save_dir = None if save_dir is None else Path(save_dir)
        self.n_epochs, self.eval_interval, self.save_interval = n_epochs, eval_interval, save_interval
        self.early_stop_lr, self.on_nan, self.save_steps = early_stop_lr, on_nan, save_steps
        self.scheduler_interval, self.show_progress = scheduler_interval, show_progress
        self.stop = StopFlag() if stop is None else stop
        self.group = ProcessGroup.current() if distributed else None
        # Processes read their losses together, so at counted steps and not at moments; see `_keep_pace`.
        pace: dict[str, Any] = {"read_every": 1, "read_every_s": inf} if self.group else {}
        self.meter = LossMeter(model.train_loss_names, f"{type(model).__name__}.trainStep", "train_loss_names", **pace)
        if eval_set is not None:
            meter_of(model)  # says what is wrong with eval_loss_names
        self.averages = Averages(self.meter.names, self.meter.main, moving_avg)
        self.origin: Mapping[str, Any] | None = None
        """What whoever built all this had the random numbers from, for building it alike when it is resumed."""
        self._has_agreed_to_stop = self._is_cut = False
        self._is_save_due = False
        self.read_within_s = 1.0
        self._told_skips = 0
        self._untrained: list[int] | None = None
        self.is_first = self.group is None or self.group.is_first
        self.rate: RuntimeParams | None = None
        if self.log_dir is not None and self.is_first:
            self.rate = RuntimeParams(self.log_dir / "runtime_param_buffer.yaml")
        self.pm: ProgressManager | None = None
        self.tm: TensorBoardManager | None = None
        model.skip_non_finite = on_nan == "skip"
        model.peers = self.group
        if self.group is not None:
            self.group.align(model, train_set, eval_set)
        self.loop = LoopState(train_set, eval_set)

    def start(self) -> None:
        """Train to the end; a stop signal saves at the next step and raises ``Stopped``, and `resume` goes on there."""
        with self.stop.installed(), self._shown():
            while not self.is_finished:
                if not self.train_epoch():
                    self._leave()
                if self._is_due(self.eval_interval):
                    self.eval_epoch()
                if self._is_due(self.save_interval) or self._has_only_best:
                    self.save()
                if self._is_stopping and not self.is_finished:
                    self._leave()

    def train_epoch(self) -> bool:
        """Train one pass, or the rest of one, and update the rate; False where a stop flag ended it in between."""
        self._begin_epoch()
        loop, meter, step = self.loop, self.meter, self.model.trainStep
        for batch in self._fetched(loop.batch):
            meter.add(step(batch))
            loop.batch += 1
            loop.step += 1
            if meter.is_due:
                self._read_losses()
            if self.scheduler_interval == "step":
                self._update_rate()
            if self.save_steps:
                self._save_between_steps()
            if self._is_stopping and loop.batch < self.train_set.n_batches and not self.model.is_accumulating:
                self._read_losses()
                return False
        if self._is_cut:
            self._read_losses()
            return False
        self._end_epoch()
        return True

    def eval_epoch(self) -> dict[str, float]:
        """Evaluate, log, and keep ``best.pth`` where the main loss is the lowest so far; return the mean losses."""
        if self.eval_set is None:
            return {}
        if self.group is not None:
            self.group.spread(self.model.buffers())
        losses = self.loop.eval_losses = self.evaluate(self.eval_set, pm=self.pm, tm=self.tm)
        main = losses[next((name for name in losses if name.endswith("/Main")), next(iter(losses)))]
        if not isfinite(main):
            self._meet_non_finite(f"the main evaluation loss is {main} {self.place}", "training goes on")
        if self.tm:
            self.tm.log(self.loop.step, **losses)
        # A loss that is not finite is never the best, but the first evaluation leaves a file in any case.
        if self.loop.best is None or (isfinite(main) and main < self.loop.best):
            self.loop.best = main if isfinite(main) else inf
            self._save_best(losses)
        self._display(losses)
        return losses

    def evaluate(
        self, dataset: Any, compute_avg: bool = True, pm: ProgressManager | None = None,
        tm: TensorBoardManager | None = None,
    ) -> dict[str, Any]:
        """Return the mean of each evaluation loss over the samples, or with ``compute_avg=False`` each sample's own.

        The means are those of ``evalStep``; its first output ``fig`` goes to ``tm``. Samples are judged by
        ``testStep``, see `sample_losses`.
        """
        check_set("dataset", dataset)
        if not compute_avg:
            return sample_losses(self.model, dataset)
        on_figure = partial(self._log_figure, tm) if tm else None
        with pm.pause() if pm else nullcontext():
            return mean_losses(self.model, dataset, on_figure, self.group)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are behind the model, or it was stopped early."""
        return self.loop.has_ended or self.loop.epoch >= self.n_epochs

    @property
    def eval_losses(self) -> dict[str, float]:
        """The mean losses of the last evaluation, also of one before training was resumed."""
        return self.loop.eval_losses

    @property
    def place(self) -> str:
        """Where training stands, in words."""
        loop = self.loop
        if not loop.batch:
            return f"after {loop.epoch} of {self.n_epochs} epochs (step {loop.step})"
        done = f"after {loop.batch} of {self.train_set.n_batches} batches (step {loop.step})"
        return f"in epoch {loop.epoch + 1} of {self.n_epochs}, {done}"

    # Saving and resuming

    @property
    def parts(self) -> dict[str, Any]:
        """Everything with a state that training needs to go on, but for the random states, by name."""
        model = self.model
        parts = {
            "model": model, "optimizer": model.optimizer, "scaler": model.scaler, "ema": model.ema,
            "scheduler": self.lr_scheduler, "averages": self.averages, "rate": self.rate, "loop": self.loop,
            **{f"model.{name}": each for name, each in model.stateful_attributes().items()},
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact continuation needs: the state of each of `parts`, and the random states."""
        if len(self.meter):
            self._read_losses()
        origin = {} if self.origin is None else {"origin": self.origin}
        return exact_state.collect(self.parts, self.group) | origin

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken.

        Raises ``CheckpointError`` that names what is missing, or of which part of the program it does not fit; of a
        trainer that refused a state, make a new one.
        """
        random = exact_state.restore(self.parts, state, self.group)
        self.origin = state.get("origin", self.origin)
        self.after_loading()
        random_state.restore(random, "")

    def after_loading(self) -> None:
        """Bring into line what follows from the `parts`; for who loads them one by one."""
        self.loop.restore_orders()
        # An early stop is lifted by a lower threshold.
        self.loop.has_ended = self.loop.has_ended and self.model.lr < self.early_stop_lr

    def save(self) -> None:
        """Save ``last.pth``, where there is a ``save_dir``."""
        if self.save_dir is None:
            return
        if self.group is not None:
            self.group.spread(self.model.buffers())
        state = self.state_dict()
        if self.is_first:
            save_state(state, self.save_dir / "last.pth")

    def resume(self, path: str | os.PathLike[str] | None = None) -> None:
        """Load a ``last.pth``, the one in ``save_dir`` by default; `start` goes on from there, bit by bit."""
        if path is None:
            if self.save_dir is None:
                raise ConfigError("resume what? give the path of a last.pth, or a save_dir to the trainer")
            path = self.save_dir / "last.pth"
        self.load_state_dict(load_state(path))

    def close(self, is_finished: bool | None = None) -> None:
        """Close the progress display and the log, which tells whether training `is_finished`."""
        if self.pm is not None:
            self.pm.close()
        if self.tm is not None:
            self.tm.close(is_finished=self.is_finished if is_finished is None else is_finished)
        self.pm = self.tm = None

    # One epoch

    def _fetched(self, start: int) -> Iterator[Any]:
        """Yield the batches of a pass; where a stop signal has ended the processes that make them, too, no more."""
        self._is_cut, before = False, random_state.take()
        try:
            yield from self._batches(start)
        except Exception as error:
            time.sleep(_ON_ITS_WAY_S)
            if not self.stop or self.group is not None or self.model.is_accumulating:
                raise
            log.warning("no more batches after %s: %s: %s", self.stop.reason, type(error).__name__, error)
            self._is_cut = True
            if self.loop.batch == start:  # nothing was trained since the order was drawn: that is to be done again
                self.train_set.load_state_dict(self.loop.order or {})
                random_state.restore(before, "")

    def _batches(self, start: int) -> Iterator[Any]:
        if start:
            # A DataLoader may draw its order from the global generators, which stand where the step left them.
            random = random_state.take()
            self.loop.restore_orders()
            batches = self.train_set.batches(start)
            random_state.restore(random, "")
        else:
            batches = self.train_set.batches()
        if self.group is None:
            return batches
        return self.group.shares(batches, map(self.train_set.samples_in, range(start, self.train_set.n_batches)))

    @property
    def _is_stopping(self) -> bool:
        if self.group is None:
            return bool(self.stop)
        # All processes have to stop at the same step; they ask each other only where they wait for each other anyway.
        if not self._has_agreed_to_stop and not len(self.meter):
            self._has_agreed_to_stop = self.group.any(bool(self.stop))
        return self._has_agreed_to_stop

    def _begin_epoch(self) -> None:
        self.model.train()
        if self.loop.batch:
            return
        self.averages.restart()
        self._untrained = versions(self.model) if self.loop.step == 0 else None
        # Whoever gives a trainer other sets does it between two epochs.
        self.loop.train_set, self.loop.eval_set = self.train_set, self.eval_set
        if self.group is not None:  # one that draws its order from torch's generator has another on each process
            self.train_set.load_state_dict(self.group.first_of(self.train_set.state_dict()))
        self.loop.order = self.train_set.state_dict()
        edited = self.rate.read(self._optimizer, self.lr_scheduler) if self.rate else None
        if self.group is not None:
            edited = self.group.first_of(edited)
            if edited is not None and not self.is_first:
                set_rate(self._optimizer, edited, self.lr_scheduler)
        self.loop.top_rate = max(self.loop.top_rate, self.model.lr)

    def _save_between_steps(self) -> None:
        self._is_save_due |= self.loop.step % self.save_steps == 0
        if self._is_save_due and not self.model.is_accumulating:
            self._is_save_due = False
            self.save()

    def _leave(self) -> NoReturn:
        self.save()
        reason = self.stop.reason or "a signal to another process"
        raise Stopped(f"{reason}: stopped {self.place}; {self._where_saved()}")

    def _end_epoch(self) -> None:
        loop = self.loop
        self.model.finish_accumulation()
        self._read_losses()
        if self._untrained is not None:
            check_trained(self.model, self._untrained)
        loop.batch = 0
        loop.epoch += 1
        if self.scheduler_interval == "epoch":
            self._update_rate()
        # A rate that has never been above it is still warming up.
        loop.has_ended = self.model.lr < self.early_stop_lr <= loop.top_rate
        if self.rate:
            self.rate.write(self._optimizer)

    def _update_rate(self) -> None:
        if len(self.meter) and getattr(self.lr_scheduler, "takes_metric", True):
            self._read_losses()  # or the metric, and so the rate, would depend on how fast the machine is
        self.lr_scheduler.update(self.averages.moving()[self.meter.main])
        self.loop.top_rate = max(self.loop.top_rate, self.model.lr)

    def _read_losses(self) -> None:
        if self.group is not None and len(self.meter):
            self._keep_pace(self.group)
        rows = self.meter.read()
        first = self.loop.batch - len(rows)
        samples = [self.train_set.samples_in(first + i) for i in range(len(rows))]
        if self.group is not None:
            rows = self.group.mean(rows, samples)
        self._check_finite(rows, first)
        self.averages.extend(rows, samples)
        self._show()

    def _keep_pace(self, group: ProcessGroup) -> None:
        """Agree on how many steps take about a second: so soon a stop is heeded, and so often losses are exchanged."""
        ((seconds,),) = group.sum([[self.meter.waiting_s / group.size]])
        steps = len(self.meter) * self.read_within_s / seconds
        self.meter.read_every = max(1, min(50, int(steps)))

    def _check_finite(self, rows: list[Row], first: int) -> None:
        main = self.meter.names.index(self.meter.main)
        bad = [i for i, row in enumerate(rows) if not isfinite(row[main])]
        if bad:
            step = self.loop.step - len(rows) + bad[0]
            more = f" ({len(bad)} such steps in all since the last look)" if len(bad) > 1 else ""
            self._meet_non_finite(
                f"{self.meter.main} is {rows[bad[0]][main]} in epoch {self.loop.epoch}, step {step}, batch "
                f"{first + bad[0]} of {self.train_set.n_batches}, counted from 0{more}",
                "the step was skipped" if self.on_nan == "skip" else "training goes on",
            )
        if (others := self.model.skipped_steps - self._told_skips - len(bad)) > 0:
            log.warning("%d steps up to step %d were skipped: their gradients were not finite", others, self.loop.step)
        self._told_skips = self.model.skipped_steps

    def _meet_non_finite(self, what: str, then: str) -> None:
        if self.on_nan == "stop":
            raise NonFiniteLoss(
                f"{what}; {self._where_saved()}; try a lower learning rate, clip_grad=1.0, or on_nan='skip'"
            )
        log.warning("%s; %s", what, then)

    # Showing and logging

    @contextmanager
    def _shown(self) -> Iterator[None]:
        names = dict.fromkeys([*self.meter.names, *self.model.eval_loss_names, "LR"])
        if self.show_progress and self.is_first:
            self.pm = ProgressManager(self.train_set.n_batches, self.n_epochs, SHOWN_EPOCHS, custom_fields=names)
            self.pm.begin(self.loop.epoch, self.loop.batch)
        if self.log_dir is not None and self.is_first:
            self.tm = open_log(self.log_dir, self.model, self.loop.step)
        try:
            yield
        finally:
            self.close()

    def _show(self) -> None:
        shown = {"LR": self.model.lr, **self.averages.moving()}
        if self.tm:
            self.tm.log(self.loop.step, **shown)
        self._display(shown)

    def _display(self, fields: Mapping[str, float]) -> None:
        if self.pm:
            done = self.loop.batch or self.train_set.n_batches  # between two epochs, all of the one before
            epoch = self.loop.epoch if self.loop.batch else self.loop.epoch - 1
            self.pm.update(epoch, done - 1, **fields)

    def _log_figure(self, tm: TensorBoardManager, figure: Any) -> None:
        tm.log(self.loop.step, Visualization=figure)

    def _is_due(self, interval: int) -> bool:
        return self.is_finished or self.loop.epoch % interval == 0

    @property
    def _has_only_best(self) -> bool:
        """Whether a kill would leave a directory that holds a result, and nothing to go on from."""
        here = self.save_dir
        return here is not None and (here / "best.pth").exists() and not (here / "last.pth").exists()

    def _save_best(self, losses: Mapping[str, float]) -> None:
        if self.save_dir is None or not self.is_first:
            return
        with evaluating(self.model):  # the averaged weights, where there are some: what has been evaluated
            weights = self.model.state_dict()
            at = {"epoch": self.loop.epoch, "step": self.loop.step, "losses": dict(losses)}
            save_state({"model": weights, **at}, self.save_dir / "best.pth")

    def _where_saved(self) -> str:
        last = self.save_dir / "last.pth" if self.save_dir else None
        return f"{last} has the newest saved state" if last and last.exists() else "nothing was saved"


def open_log(log_dir: Path | None, model: JimmyModel, step: int) -> TensorBoardManager:
    """Return a log for the losses of ``model``, its rate and its figures; what was logged after ``step`` is dropped.

    Without a ``log_dir`` nothing is written.
    """
    scalars = dict.fromkeys([*model.train_loss_names, *model.eval_loss_names, "LR"], "scalar")
    tags = {**scalars, "Visualization": "figure"}
    return TensorBoardManager(log_dir, list(tags), list(tags.values()), purge_step=step + 1 if step else None)
