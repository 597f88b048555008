"""A learning rate that warms up, is gently modulated, and decays where the loss no longer falls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jimmy_manager.errors import CheckpointError, ConfigError
from jimmy_manager.training.scheduler_adapter import assign_rates

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_STATE = ("updates", "base_lr", "bad_updates", "window", "ratios")
# Only to tell rounding from a trend: the sums over a constant window are rarely exactly 0.
_ROUNDING = 1e-9


class JimmyLRScheduler:
    """The rate of older programs in three phases. Prefer the schedulers of PyTorch, which every trainer here takes.

    After update number n, with k = n - ``warmup_count``:

    1. n < ``warmup_count``: ``peak_lr * sin(pi/2 * n / warmup_count)**2``, which is ``peak_lr`` when it ends;
    2. after that: ``base * (0.05 * cos(pi * k / window_size)**2 + 0.95)``, where base begins as ``peak_lr``;
    3. whenever the last ``window_size`` metrics did not fall for ``patience`` updates in a row, by the sign of their
       least-squares slope: ``base = max(min_lr, base * decay_rate)``.

    The rate is never below ``min_lr``, not even in the warm-up or by the modulation, and is set for n = 0 when the
    scheduler is made. Several parameter groups keep the ratios of their rates; the numbers above are those of the
    first. A metric that is not finite counts as one that did not fall and stays out of the window; before the window
    is full, nothing else counts. An edited rate (see `RuntimeParams`) becomes the new base and ends a warm-up; it may
    lie below ``min_lr``, and then stays there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        peak_lr: float,
        min_lr: float,
        warmup_count: int,
        window_size: int = 10,
        patience: int = 10,
        decay_rate: float = 0.9,
    ) -> None:
        _check_rates(peak_lr, min_lr, decay_rate)
        for name, count, least in (
            ("warmup_count", warmup_count, 0),
            ("window_size", window_size, 2),
            ("patience", patience, 1),
        ):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ConfigError(f"{name} is {count!r}; it must be an int of at least {least}")
        self.optimizer = optimizer
        self.peak_lr, self.min_lr, self.decay_rate = peak_lr, min_lr, decay_rate
        self.warmup_count, self.window_size, self.patience = warmup_count, window_size, patience
        self.base_lr = float(peak_lr)
        self._updates = self._bad_updates = 0
        self._window: deque[float] = deque(maxlen=window_size)
        self._ratios = _ratios_of(optimizer)
        self.phaseWarmUP()

    def update(self, metric: float | Tensor) -> None:
        """Move on by one update; ``metric`` is better the lower it is. Reads a tensor back, once."""
        self._updates += 1
        self._observe(float(metric))
        if self._updates <= self.warmup_count:
            self.phaseWarmUP()
        else:
            self.phaseDecay()
            self.phaseCosine()

    @property
    def lr(self) -> float:
        """The present rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def is_warming_up(self) -> bool:
        """Whether the rate has yet to reach its peak, so that a low one is no reason to stop."""
        return self._updates < self.warmup_count

    def phaseWarmUP(self) -> float:
        """Set the rate of the warm-up after so many updates and return it; the base where there is no warm-up."""
        part = min(1.0, self._updates / self.warmup_count) if self.warmup_count else 1.0
        return self._set(self.base_lr * math.sin(math.pi / 2 * part) ** 2)

    def phaseCosine(self) -> float:
        """Set the modulated base after so many updates and return it."""
        return self._set(self.base_lr * self._modulation())

    def phaseDecay(self) -> float:
        """Lower the base where the metric has not fallen for ``patience`` updates in a row; return the base."""
        if self._bad_updates >= self.patience:
            self._bad_updates = 0
            self.base_lr = max(self._floor(), self.base_lr * self.decay_rate)
        return self.base_lr

    def follow_edit(self, factor: float) -> None:
        """Go on from the rate that somebody has just given the optimizer; ends a warm-up."""
        self._updates = max(self._updates, self.warmup_count)
        self.base_lr = self.lr / self._modulation()

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands; the rates are in the optimizer's state, the arguments in the program."""
        state = (self._updates, self.base_lr, self._bad_updates, list(self._window), list(self._ratios))
        return dict(zip(_STATE, state, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; ``CheckpointError`` names what the state lacks."""
        for name in _STATE:
            if name not in state:
                raise CheckpointError(
                    f"the saved JimmyLRScheduler has no {name!r}, so training cannot be resumed exactly"
                )
        self._updates, self.base_lr, self._bad_updates = (state[name] for name in _STATE[:3])
        self._window = deque(state["window"], maxlen=self.window_size)
        self._ratios = list(state["ratios"])

    def _observe(self, metric: float) -> None:
        is_warming_up = self._updates <= self.warmup_count
        if math.isfinite(metric):
            self._window.append(metric)
            if len(self._window) < self.window_size or _falls(self._window):
                self._bad_updates = 0
                return
        self._bad_updates += not is_warming_up

    def _modulation(self) -> float:
        since_peak = self._updates - self.warmup_count
        return 0.05 * math.cos(math.pi * since_peak / self.window_size) ** 2 + 0.95

    def _floor(self) -> float:
        # Only an edit puts the base below `min_lr`.
        return min(self.min_lr, self.base_lr)

    def _set(self, rate: float) -> float:
        rate = max(self._floor(), rate)
        assign_rates(self.optimizer, [rate * ratio for ratio in self._ratios])
        return rate


def _falls(metrics: Sequence[float]) -> bool:
    """Whether the least-squares line through ``metrics`` goes down; a constant does not."""
    middle = (len(metrics) - 1) / 2
    slope = sum((i - middle) * metric for i, metric in enumerate(metrics))
    size = sum(abs((i - middle) * metric) for i, metric in enumerate(metrics))
    return slope < -_ROUNDING * size


def _ratios_of(optimizer: Optimizer) -> list[float]:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group.setdefault("initial_lr", rate)
    return [rate / rates[0] if rates[0] else 1.0 for rate in rates]


def _check_rates(peak_lr: float, min_lr: float, decay_rate: float) -> None:
    if not 0 < peak_lr < math.inf:
        raise ConfigError(f"peak_lr is {peak_lr!r}; it must be a number above 0")
    if not 0 <= min_lr <= peak_lr:
        raise ConfigError(f"min_lr is {min_lr!r}; it must lie between 0 and peak_lr, which is {peak_lr!r}")
    if not 0 < decay_rate <= 1:
        raise ConfigError(f"decay_rate is {decay_rate!r}; it must lie above 0 and not above 1")
