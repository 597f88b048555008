"""Means over the last values, of one loss or of several, without making a training step wait for the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any, NoReturn

import torch
from torch import Tensor

from jimmy_manager.errors import CheckpointError, ConfigError, HookError


class MovingAvg:
    """The mean of the last ``window_size`` values.

    Tensors stay on their device until somebody reads; then all that wait are copied to the host together. What
    happens to a tensor after ``update`` does not matter, because a detached copy is kept. Values that are not finite
    count like any other: the mean is NaN or infinite until they leave the window.

    >>> average = MovingAvg(2)
    >>> average.extend([1.0, 2.0, 4.0])
    >>> average.get(), len(average), average.toList()
    (3.0, 2, [2.0, 4.0])
    """

    def __init__(self, window_size: int) -> None:
        if isinstance(window_size, bool) or not isinstance(window_size, int) or window_size < 1:
            raise ConfigError(f"window_size is {window_size!r}; an average is over an int of at least 1 value")
        self.window_size = window_size
        self._read: deque[float] = deque(maxlen=window_size)
        self._waiting: deque[float | Tensor] = deque(maxlen=window_size)

    def update(self, value: float | Tensor) -> None:
        """Add a number, or a tensor of one element on any device, without reading it."""
        self._waiting.append(_kept(value))

    def extend(self, values: Iterable[float | Tensor]) -> None:
        """Add several, the oldest first."""
        self._waiting.extend([_kept(value) for value in values])

    def get(self) -> float:
        """Return the mean of the window, NaN while it is empty."""
        _read_all([self])
        return self._mean()

    def __len__(self) -> int:
        """Return how many values are in the window now."""
        return min(self.window_size, len(self._read) + len(self._waiting))

    def toList(self) -> list[float]:
        """Return the values of the window, the oldest first."""
        _read_all([self])
        return list(self._read)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.toList()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the saved values over, the newest of them where this window is smaller than the saved one."""
        if "values" not in state:
            raise CheckpointError("the saved moving average has no 'values', so training cannot be resumed exactly")
        self._waiting.clear()
        self._read = deque(map(float, state["values"]), maxlen=self.window_size)

    def _mean(self) -> float:
        # Not fsum, which raises where the window holds both infinities.
        return sum(self._read) / len(self._read) if self._read else nan


class MovingAvgGroup:
    """A moving average for each of ``names``, all read with one copy from the device.

    >>> averages = MovingAvgGroup(['Train/Main', 'Train/MAE'], window_size=100)
    >>> averages.update({'Train/Main': 1.0, 'Train/MAE': 2.0})
    >>> averages.extend([(3.0, 6.0)])
    >>> averages.get()
    {'Train/Main': 2.0, 'Train/MAE': 4.0}
    """

    def __init__(self, names: Iterable[str], window_size: int) -> None:
        self._averages = {name: MovingAvg(window_size) for name in names}
        self.names = tuple(self._averages)
        self.window_size = window_size

    def update(self, values: Mapping[str, float | Tensor] | None = None, /, **more: float | Tensor) -> None:
        """Add one value for each of the names; ``HookError`` tells which are missing or unknown, and nothing is added.

        Names that are identifiers may be given as keyword arguments too.
        """
        row = {**(values or {}), **more}
        if row.keys() != self._averages.keys():
            self._refuse(row)
        kept = {name: _kept(value) for name, value in row.items()}
        for name, value in kept.items():
            self._averages[name]._waiting.append(value)

    def extend(self, rows: Iterable[Mapping[str, float | Tensor] | Sequence[float | Tensor]]) -> None:
        """Add several rows, the oldest first: each a mapping, or the values in the order of ``names``."""
        for row in rows:
            self.update(row if isinstance(row, Mapping) else self._named(row))

    def get(self) -> dict[str, float]:
        """Return the means of the windows, NaN while they are empty."""
        _read_all(self._averages.values())
        return {name: average._mean() for name, average in self._averages.items()}

    def __len__(self) -> int:
        """Return how many rows are in the window now."""
        return max(map(len, self._averages.values()), default=0)

    def toList(self) -> dict[str, list[float]]:
        """Return the values of each window, the oldest first."""
        _read_all(self._averages.values())
        return {name: average.toList() for name, average in self._averages.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.toList()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the saved values over; ``CheckpointError`` names an average that the state lacks."""
        saved = state.get("values", {})
        for name in self.names:
            if name not in saved:
                raise CheckpointError(
                    f"the saved moving averages have no {name!r}, so training cannot be resumed exactly"
                )
        for name, average in self._averages.items():
            average.load_state_dict({"values": saved[name]})

    def _named(self, row: Sequence[float | Tensor]) -> dict[str, float | Tensor]:
        if len(row) != len(self.names):
            raise HookError(f"a row of {len(row)} values for the {len(self.names)} averages {list(self.names)}")
        return dict(zip(self.names, row, strict=True))

    def _refuse(self, row: Mapping[str, Any]) -> NoReturn:
        missing = [name for name in self.names if name not in row]
        unknown = [name for name in row if name not in self._averages]
        raise HookError(f"averages are kept of {list(self.names)}; missing are {missing}, unknown are {unknown}")


def _kept(value: float | Tensor) -> float | Tensor:
    if not isinstance(value, Tensor):
        return float(value)
    if value.numel() != 1:
        raise HookError(f"a moving average takes one number at a time, not a tensor of shape {tuple(value.shape)}")
    # A copy: `loss /= 4` or a replayed CUDA graph would change it before it is read.
    return value.detach().clone() if value.ndim == 0 else value.detach().reshape(()).clone()


def _read_all(averages: Iterable[MovingAvg]) -> None:
    """Turn what waits in ``averages`` into floats, with one copy for each device."""
    waiting: dict[torch.device, list[Tensor]] = {}
    averages = list(averages)
    for average in averages:
        for value in average._waiting:
            if isinstance(value, Tensor):
                waiting.setdefault(value.device, []).append(value)
    numbers = {device: iter(torch.stack(tensors).tolist()) for device, tensors in waiting.items()}
    for average in averages:
        for value in average._waiting:
            average._read.append(float(next(numbers[value.device])) if isinstance(value, Tensor) else value)
        average._waiting.clear()
