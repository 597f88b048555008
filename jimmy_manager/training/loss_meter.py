"""The losses of steps: gathered on their device, read back together, averaged over the window and over the epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any, NoReturn

import torch
from torch import Tensor

from jimmy_manager.errors import CheckpointError, HookError
from jimmy_manager.training.moving_avg import MovingAvg

log = logging.getLogger(__name__)

Row = list[float]


class LossMeter:
    """Takes what one step after the other returns without waiting for the device, and hands the losses out in rows.

    ``names`` are those that every step must give, ``owner`` (``SampleCNN.trainStep``) and ``declared``
    (``train_loss_names``) are for the messages. A loss that nobody declared is passed over, with one warning.
    """

    def __init__(
        self, names: Sequence[str], owner: str, declared: str, read_every: int = 1024, read_every_s: float = 0.5
    ) -> None:
        if isinstance(names, str):
            raise HookError(f"{owner} has no main loss: {declared} is the string {names!r}; write [{names!r}]")
        if not names:
            raise HookError(f"{owner} has no main loss: {declared} is empty; name one, e.g. ['Train/Main']")
        self.names = tuple(names)
        self.read_every = read_every
        self.read_every_s = read_every_s
        self._owner = owner
        self._declared = declared
        self._has_warned = False
        self._steps: list[list[Any]] = []
        self._read_at = time.monotonic()

    @property
    def main(self) -> str:
        """The loss that drives the scheduler and chooses the best: the one that ends in ``/Main``, else the first."""
        return next((name for name in self.names if name.endswith("/Main")), self.names[0])

    def add(self, step: tuple[Mapping[str, Tensor | float], Any]) -> None:
        """Keep the losses of ``step``, each a number, a 0-d tensor, or (B,) of which the mean counts."""
        try:
            losses, _ = step
            self._steps.append([_kept(losses[name]) for name in self.names])
        except (TypeError, ValueError, KeyError, IndexError):
            self._refuse(step)
        if len(losses) != len(self.names) and not self._has_warned:
            self._warn(losses)

    @property
    def is_due(self) -> bool:
        """Whether enough has gathered, in steps or in time, to be worth a wait for the device."""
        return len(self._steps) >= self.read_every or self.waiting_s > self.read_every_s

    @property
    def waiting_s(self) -> float:
        """Seconds since losses were read last."""
        return time.monotonic() - self._read_at

    def __len__(self) -> int:
        """Return how many steps wait to be read."""
        return len(self._steps)

    def read(self) -> list[Row]:
        """Return a row of floats, in the order of ``names``, for each step since the last call; waits for it."""
        steps, self._steps = self._steps, []
        self._read_at = time.monotonic()
        columns = [self._column(name, [step[i] for step in steps]) for i, name in enumerate(self.names)]
        tensors = [column for column in columns if isinstance(column, Tensor)]
        if len({(each.dtype, each.device) for each in tensors}) == 1:  # as almost always: one transfer for all
            values = iter(torch.stack(tensors).tolist())
        else:
            values = iter([each.tolist() for each in tensors])
        lists = [next(values) if isinstance(column, Tensor) else column for column in columns]
        return [list(row) for row in zip(*lists, strict=True)]

    def _column(self, name: str, values: list[Any]) -> Tensor | list[float]:
        tensors = [value for value in values if isinstance(value, Tensor)]
        try:
            numbers = [float(value) for value in values if not isinstance(value, Tensor)]
        except (TypeError, ValueError):
            wrong = next(value for value in values if not isinstance(value, int | float | Tensor))
            raise HookError(
                f"{self._owner} returned {name!r} of type {type(wrong).__name__}; a loss is a number or a tensor"
            ) from None
        if not tensors:
            return numbers
        column = torch.stack([each if each.is_floating_point() and not each.ndim else _mean(each) for each in tensors])
        if not numbers:
            return column
        # Not numbers as tensors, which would be rounded: how many steps are read at once may change nothing.
        of_tensors, others = iter(column.tolist()), iter(numbers)
        return [next(of_tensors) if isinstance(value, Tensor) else next(others) for value in values]

    def _refuse(self, step: Any) -> NoReturn:
        if not (isinstance(step, tuple) and len(step) == 2 and isinstance(step[0], Mapping)):
            raise HookError(f"{self._owner} returned {_shape(step)}; it must return (losses, outputs), two dicts")
        missing = [name for name in self.names if name not in step[0]]
        raise HookError(
            f"{self._owner} returned the losses {sorted(step[0])}, but {self._declared} declares {missing} too; return "
            f"them, or take them out of self.{self._declared}"
        )

    def _warn(self, losses: Mapping[str, Any]) -> None:
        self._has_warned = True
        extra = sorted(set(losses) - set(self.names))
        log.warning("%s returns %s, which nobody averages; declare it in self.%s", self._owner, extra, self._declared)


class Averages:
    """What is known of the losses of an epoch: means over the last ``window`` steps, and over the samples so far.

    A step whose main loss is not finite counts in neither.
    """

    def __init__(self, names: Sequence[str], main: str, window: int) -> None:
        self._names = tuple(names)
        self._main = self._names.index(main)
        self._windows = [MovingAvg(window) for _ in names]
        self.restart()

    def restart(self) -> None:
        """Begin an epoch; the window goes on."""
        self._sums = [0.0] * len(self._names)
        self.samples = 0

    def extend(self, rows: Sequence[Row], samples: Sequence[int]) -> None:
        """Count steps with so many samples each."""
        good = [(row, count) for row, count in zip(rows, samples, strict=True) if isfinite(row[self._main])]
        for place, window in enumerate(self._windows):
            column = [row[place] for row, _ in good]
            window.extend(column)
            # One after the other, from the sum so far: then it does not matter in how many parts the rows came.
            for value, (_, count) in zip(column, good, strict=True):
                self._sums[place] += value * count
        self.samples += sum(count for _, count in good)

    def moving(self) -> dict[str, float]:
        """The means over the window; NaN before the first step."""
        return {name: window.get() for name, window in zip(self._names, self._windows, strict=True)}

    def epoch(self) -> dict[str, float]:
        """The means over the samples of the epoch so far; NaN before the first step."""
        return {
            name: total / self.samples if self.samples else nan
            for name, total in zip(self._names, self._sums, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        windows = {name: window.state_dict() for name, window in zip(self._names, self._windows, strict=True)}
        return {"windows": windows, "sums": list(self._sums), "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put averages back; ``CheckpointError`` names what is missing, or losses that are not those of this model."""
        for name in ("windows", "sums", "samples"):
            if name not in state:
                raise CheckpointError(f"the checkpoint lacks {name!r} of the averages, so it cannot be resumed exactly")
        if list(state["windows"]) != list(self._names):
            raise CheckpointError(
                f"the checkpoint averages the losses {list(state['windows'])}, the model declares {list(self._names)}"
            )
        for name, window in zip(self._names, self._windows, strict=True):
            window.load_state_dict(state["windows"][name])
        self._sums, self.samples = list(state["sums"]), state["samples"]


def _kept(value: Any) -> Any:
    """Return a loss as it is now, without its graph: a step may change in place what it returned before."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _mean(value: Tensor) -> Tensor:
    return value.mean() if value.is_floating_point() else value.float().mean()


def _shape(step: Any) -> str:
    if isinstance(step, tuple):
        return f"a tuple of {[type(each).__name__ for each in step]}"
    return f"an object of type {type(step).__name__}"
