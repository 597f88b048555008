"""DDIM step by step, against a sampler in plain numpy that shares nothing with it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from jimmy_manager.diffusion import DDIM, DDPM
from jimmy_manager.errors import ConfigError

FORMS = ("x0", "eps", "v")


def network(x: np.ndarray, t: int) -> np.ndarray:
    """Any function of x and t will do: the samplers must agree whatever it says."""
    return np.tanh(1.3 * x[..., ::-1] - 0.2 * x + 0.05 * t)


def numpy_ddim(
    x: np.ndarray, betas: np.ndarray, skip: int, form: str, eta: float, noises: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield x after each step of Song et al. 2021, eq. 12 with eq. 16, for a network that predicts ``form``."""
    bars = np.cumprod(1 - betas)
    t = len(betas) - 1
    while t >= 0:
        s = t - skip
        bar_t, bar_s = bars[t], bars[s] if s >= 0 else 1.0
        said = network(x, t)
        if form == "x0":
            x0, eps = said, (x - bar_t**0.5 * said) / (1 - bar_t) ** 0.5
        elif form == "eps":
            x0, eps = (x - (1 - bar_t) ** 0.5 * said) / bar_t**0.5, said
        else:
            x0, eps = bar_t**0.5 * x - (1 - bar_t) ** 0.5 * said, (1 - bar_t) ** 0.5 * x + bar_t**0.5 * said
        sigma = eta * np.sqrt((1 - bar_s) / (1 - bar_t)) * np.sqrt(1 - bar_t / bar_s)
        x = bar_s**0.5 * x0 + np.sqrt(1 - bar_s - sigma**2) * eps
        if sigma > 0:
            x = x + sigma * next(noises)
        yield x
        t = s


def drawn(shape: tuple[int, ...], seed: int) -> Iterator[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(shape, generator=generator, dtype=torch.float64).numpy()


def said_by_network(x_t: Tensor, t: int, form: str) -> tuple[Tensor | None, ...]:
    said = torch.from_numpy(network(x_t.numpy(), t).copy())
    return tuple(said if name == form else None for name in FORMS)


def differences(ddim: DDIM, form: str, eta: float) -> list[float]:
    """The largest difference from the numpy sampler after each step."""
    x_t = torch.randn(3, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    generator = torch.Generator().manual_seed(9)
    betas = ddim.betas[:, 0].numpy()
    reference = numpy_ddim(x_t.numpy(), betas, ddim.skip_step, form, eta, drawn((3, 6, 2), 9))
    found = []
    for (t, t_prev), expected in zip(ddim.steps(), reference, strict=True):
        x_t = ddim.denoiseStep(x_t, t, t_prev, *said_by_network(x_t, t, form), generator=generator)
        found.append(np.abs(x_t.numpy() - expected).max())
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("steps", "skip"), [(1, 1), (20, 1), (20, 3), (20, 5), (20, 64)])
def test_every_step_agrees_with_the_numpy_sampler(steps: int, skip: int, eta: float, form: str) -> None:
    ddim = DDIM(1e-3, 0.2, steps, "cpu", "quadratic", skip, eta)
    assert max(differences(ddim, form, eta)) < 1e-10


def test_the_comparison_with_numpy_notices_another_eta_and_another_schedule() -> None:
    assert max(differences(DDIM(1e-3, 0.2, 20, "cpu", eta=0.6), "eps", eta=0.6)) < 1e-10
    assert max(differences(DDIM(1e-3, 0.2, 20, "cpu", eta=0.6), "eps", eta=0.601)) > 1e-6
    for change in (1 + 1e-6, 1 - 1e-6):
        ddim = DDIM(1e-3, 0.2, 20, "cpu")
        ddim.betas = ddim.betas * change  # what the reference reads, but not what the steps are made of
        assert max(differences(ddim, "eps", eta=0.0)) > 1e-10


@pytest.mark.parametrize("skip", [1, 6])
def test_the_whole_loop_is_its_steps(skip: int) -> None:
    ddim = DDIM(1e-3, 0.2, 20, "cpu", "log", skip)
    x = torch.randn(3, 6, 2, dtype=torch.float64)
    *_, expected = numpy_ddim(x.numpy(), ddim.betas[:, 0].numpy(), skip, "v", 0.0, iter(()))
    data = ddim.denoise(x, lambda x_t, t: said_by_network(x_t, int(t[0]), "v"))
    np.testing.assert_allclose(data.numpy(), expected, rtol=0, atol=1e-10)


def test_with_eta_one_a_step_is_that_of_ddpm() -> None:
    ddim, ddpm = DDIM(1e-3, 0.2, 20, "cpu", eta=1.0), DDPM(1e-3, 0.2, 20, "cpu")
    x_t, eps = torch.randn(2, 20, 3, dtype=torch.float64)
    t = torch.arange(20)
    for t_prev in (t - 1, (t - 4).clamp(min=-1)):
        steps = (
            p.denoiseStep(x_t, t, t_prev, epsilon_pred=eps, generator=torch.Generator().manual_seed(0))
            for p in (ddim, ddpm)
        )
        torch.testing.assert_close(*steps, rtol=0, atol=1e-10)


def test_near_pure_noise_eta_one_is_finite() -> None:
    ddim = DDIM(0.9, 0.99, 40, "cpu", eta=1.0, skip_step=13)
    x_t = torch.randn(4, 2, dtype=torch.float64)
    assert all(ddim.denoiseStep(x_t, t, t_prev, x_t).isfinite().all() for t, t_prev in ddim.steps())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_mixed_steps_equals_its_samples_one_by_one(form: str, dtype: torch.dtype) -> None:
    ddim = DDIM(1e-3, 0.2, 20, "cpu")
    x_t, said = torch.randn(2, 4, 3, 2, dtype=dtype)
    predictions = [said if name == form else None for name in FORMS]
    pairs = torch.tensor([(19, 18), (9, 3), (1, 0), (0, -1)])
    together = ddim.denoiseStep(x_t, pairs[:, 0], pairs[:, 1], *predictions)
    for i, (t, t_prev) in enumerate(pairs.tolist()):
        alone = ddim.denoiseStep(x_t[i : i + 1], t, t_prev, *(p if p is None else p[i : i + 1] for p in predictions))
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize(("steps", "skip"), [(1, 1), (10, 1), (10, 3), (10, 4), (10, 10), (10, 50)])
def test_steps_start_at_the_noise_end_at_the_data_and_join(steps: int, skip: int) -> None:
    walked = DDIM(max_diffusion_step=steps, device="cpu", skip_step=skip).steps()
    assert walked[0][0] == steps - 1
    assert walked[-1][1] == -1
    assert all(before[1] == after[0] for before, after in pairwise(walked))
    assert all(t - t_prev == skip for t, t_prev in walked[:-1])
    assert 1 <= walked[-1][0] - walked[-1][1] <= skip


@pytest.mark.parametrize("skip", [0, -1, 1.5, None])
def test_a_skip_that_is_no_number_of_steps_is_refused(skip: object) -> None:
    with pytest.raises(ConfigError, match=r"skip_step=.* must be a whole number of at least 1"):
        DDIM(device="cpu", skip_step=skip)  # type: ignore[arg-type]


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_eta_outside_zero_to_one_is_refused(eta: float) -> None:
    with pytest.raises(ConfigError, match=r"eta=.* must be between 0 \(no noise\) and 1"):
        DDIM(device="cpu", eta=eta)
