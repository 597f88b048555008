"""How much noise each diffusion step adds, rising from the first to the last: one formula a function.

All return (T,) float64 on the CPU.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from jimmy_manager.errors import ConfigError

ScaleMode: TypeAlias = Literal["linear", "quadratic", "log"]


def linear_betas(min_beta: float, max_beta: float, steps: int) -> Tensor:
    """Evenly spaced betas (Ho et al. 2020, section 4)."""
    return _evenly(min_beta, max_beta, steps)


def quadratic_betas(min_beta: float, max_beta: float, steps: int) -> Tensor:
    """Betas whose square roots are evenly spaced."""
    return _evenly(sqrt(min_beta), sqrt(max_beta), steps).square()


def log_betas(min_beta: float, max_beta: float, steps: int) -> Tensor:
    """Betas whose logarithms are evenly spaced."""
    return _evenly(log(min_beta), log(max_beta), steps).exp()


SCALE_MODES = {"linear": linear_betas, "quadratic": quadratic_betas, "log": log_betas}


def beta_schedule(min_beta: float, max_beta: float, steps: int, scale_mode: ScaleMode = "linear") -> Tensor:
    """Return the betas (T,) from ``min_beta`` to ``max_beta`` in float64 on the CPU; one step is ``min_beta`` alone.

    Raises ConfigError unless 0 < min_beta <= max_beta < 1, and for an unknown ``scale_mode``.

    >>> [round(float(beta_schedule(0.01, 0.09, 3, mode)[1]), 9) for mode in ('linear', 'quadratic', 'log')]
    [0.05, 0.04, 0.03]
    """
    if scale_mode not in SCALE_MODES:
        raise ConfigError(f"unknown scale_mode {scale_mode!r}; choose one of {', '.join(map(repr, SCALE_MODES))}")
    if not 0 < min_beta <= max_beta < 1:  # also false for NaN
        raise ConfigError(
            f"min_beta={min_beta!r} and max_beta={max_beta!r} make no schedule; choose 0 < min_beta <= max_beta < 1"
        )
    return SCALE_MODES[scale_mode](min_beta, max_beta, steps)


def _evenly(first: float, last: float, steps: int) -> Tensor:
    # The device is named because a user's default device must not decide how a schedule is rounded.
    return torch.linspace(first, last, steps, dtype=torch.float64, device="cpu")
