"""The posterior of DDPM, against Bayes' rule on Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jimmy_manager.diffusion import DDPM


def bayes(x_t: np.ndarray, x0: np.ndarray, betas: np.ndarray, t: int, s: int) -> tuple[np.ndarray, float]:
    """Mean and standard deviation of x_s given x_t and x0: two Gaussians, prior and likelihood, multiplied."""
    bar_s, alpha = np.prod(1 - betas[: s + 1]), np.prod(1 - betas[s + 1 : t + 1])
    prior, likelihood = 1 / (1 - bar_s), alpha / (1 - alpha)
    mean = (prior * np.sqrt(bar_s) * x0 + likelihood * x_t / np.sqrt(alpha)) / (prior + likelihood)
    return mean, (prior + likelihood) ** -0.5


@pytest.fixture
def ddpm() -> DDPM:
    return DDPM(1e-3, 0.3, 30, "cpu", "log")


@pytest.mark.parametrize(("t", "s"), [(1, 0), (7, 6), (29, 28), (29, 0), (20, 3)])
def test_mean_and_variance_follow_bayes_rule_over_one_step_and_over_many(ddpm: DDPM, t: int, s: int) -> None:
    x_t, x0 = torch.randn(2, 5, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
    mean, std = ddpm.posterior(x_t, t, s, x0)
    expected_mean, expected_std = bayes(x_t.numpy(), x0.numpy(), ddpm.betas[:, 0].numpy(), t, s)
    np.testing.assert_allclose(mean.numpy(), expected_mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(std.numpy(), np.full((1, 1, 1), expected_std), rtol=1e-10)


def test_single_steps_follow_equation_seven_as_printed(ddpm: DDPM) -> None:
    x_t, x0 = torch.randn(2, 29, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, beta, bar = torch.arange(1, 30), ddpm.betas, ddpm.alpha_bars
    mean, std = ddpm.posterior(x_t, t, t - 1, x0)
    by_paper = (bar[t - 1].sqrt() * beta[t] * x0 + (1 - beta[t]).sqrt() * (1 - bar[t - 1]) * x_t) / (1 - bar[t])
    torch.testing.assert_close(mean, by_paper, rtol=0, atol=1e-10)
    torch.testing.assert_close(std.square(), (1 - bar[t - 1]) / (1 - bar[t]) * beta[t], rtol=1e-10, atol=0)


def test_equal_steps_come_from_the_noise_form_of_the_mean(ddpm: DDPM) -> None:
    """Ho et al. 2020, eq. 11: the mean written with the noise instead of the data."""
    x_t, eps = torch.randn(2, 30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.arange(30)
    by_paper = (x_t - ddpm.betas / (1 - ddpm.alpha_bars).sqrt() * eps) / ddpm.alphas.sqrt()
    mean, _ = ddpm.posterior(x_t, t, t - 1, ddpm.extract_x0(x_t, t, eps))
    torch.testing.assert_close(mean, by_paper, rtol=0, atol=1e-10)


def test_a_step_is_the_mean_and_its_share_of_the_drawn_noise(ddpm: DDPM) -> None:
    x_t, x0 = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    t, t_prev = torch.tensor([29, 9, 1, 0]), torch.tensor([28, 3, 0, -1])
    mean, std = ddpm.posterior(x_t, t, t_prev, x0)
    noise = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x_prev = ddpm.denoiseStep(x_t, t, t_prev, x0, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(x_prev, mean + std * noise, rtol=0, atol=1e-12)
    assert (std > 0).flatten().tolist() == [True, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_mixed_steps_has_the_posteriors_of_its_samples(ddpm: DDPM, dtype: torch.dtype) -> None:
    x_t, x0 = torch.randn(2, 4, 3, dtype=dtype, generator=torch.Generator().manual_seed(3))
    pairs = [(29, 28), (9, 3), (1, 0), (0, -1)]
    mean, std = ddpm.posterior(x_t, torch.tensor(pairs)[:, 0], torch.tensor(pairs)[:, 1], x0)
    for i, (t, t_prev) in enumerate(pairs):
        alone_mean, alone_std = ddpm.posterior(x_t[i : i + 1], t, t_prev, x0[i : i + 1])
        assert torch.equal(mean[i : i + 1], alone_mean)
        assert torch.equal(std[i : i + 1], alone_std)


def test_float32_steps_are_as_exact_as_float32(ddpm: DDPM) -> None:
    x_t, x0 = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(4))
    t = torch.arange(30)
    mean, _ = ddpm.posterior(x_t, t, t - 1, x0)
    exact, _ = ddpm.posterior(x_t.double(), t, t - 1, x0.double())
    assert mean.dtype == torch.float32
    assert (mean - exact).abs().max() < 1e-6


def test_the_posterior_of_the_chain_joins_into_the_forward_marginal(ddpm: DDPM) -> None:
    """Averaged over x_t, the posterior of x_s is q(x_s | x0): the two directions are of one process."""
    zero, one = torch.zeros(29, 1, dtype=torch.float64), torch.ones(29, 1, dtype=torch.float64)
    t = torch.arange(1, 30)
    of_data, std = ddpm.posterior(zero, t, t - 1, one)
    of_x_t, _ = ddpm.posterior(one, t, t - 1, zero)
    mean = of_data + of_x_t * ddpm.sqrt_alpha_bars[t]
    variance = std.square() + (of_x_t * ddpm.sqrt_one_minus_alpha_bars[t]).square()
    torch.testing.assert_close(mean, ddpm.sqrt_alpha_bars[:-1], rtol=1e-10, atol=0)
    torch.testing.assert_close(variance, 1 - ddpm.alpha_bars[:-1], rtol=1e-10, atol=0)
