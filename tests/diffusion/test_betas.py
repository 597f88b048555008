"""The three schedules, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jimmy_manager.diffusion.betas import beta_schedule
from jimmy_manager.errors import ConfigError


def by_numpy(first: float, last: float, steps: int, mode: str) -> np.ndarray:
    k = np.arange(steps) / max(steps - 1, 1)
    if mode == "linear":
        return first + (last - first) * k
    if mode == "quadratic":
        return (np.sqrt(first) * (1 - k) + np.sqrt(last) * k) ** 2
    return first * (last / first) ** k


@pytest.mark.parametrize("mode", ["linear", "quadratic", "log"])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_mode_follows_its_closed_form(mode: str, steps: int) -> None:
    betas = beta_schedule(3e-5, 0.4, steps, mode)  # type: ignore[arg-type]
    assert betas.dtype == torch.float64
    np.testing.assert_allclose(betas.numpy(), by_numpy(3e-5, 0.4, steps, mode), rtol=1e-13)


def test_the_modes_differ_between_the_ends() -> None:
    middle = [float(beta_schedule(0.01, 0.09, 3, mode)[1]) for mode in ("linear", "quadratic", "log")]  # type: ignore[arg-type]
    assert middle == pytest.approx([0.05, 0.04, 0.03], rel=1e-12)


def test_equal_ends_make_a_constant_schedule() -> None:
    assert beta_schedule(0.25, 0.25, 3, "log").tolist() == pytest.approx([0.25] * 3)


@pytest.mark.parametrize(("first", "last"), [(0, 0.1), (-0.1, 0.1), (0.1, 1), (0.2, 0.1), (float("nan"), 0.1)])
def test_betas_outside_zero_to_one_or_falling_are_refused(first: float, last: float) -> None:
    with pytest.raises(ConfigError, match=r"min_beta=.* and max_beta=.* make no schedule"):
        beta_schedule(first, last, 10)


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown scale_mode 'cosine'; choose one of 'linear', 'quadratic', 'log'"):
        beta_schedule(1e-4, 0.1, 10, "cosine")  # type: ignore[arg-type]
