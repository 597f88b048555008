from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.losses import RMSE, KLDLoss

DOUBLE = torch.float64


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape, dtype=DOUBLE, requires_grad=True), torch.randn(shape, dtype=DOUBLE, requires_grad=True)


@pytest.mark.parametrize("shape", [(1,), (7,), (4, 3), (2, 5, 3)])
def test_rmse_is_the_root_of_the_mean_squared_error_without_epsilon(shape: tuple[int, ...]) -> None:
    pred, target = pair(*shape)
    difference = (pred - target).detach().numpy()
    assert RMSE()(pred, target).item() == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-12)
    assert torch.autograd.gradcheck(RMSE(), (pred, target))


def test_rmse_has_a_finite_gradient_at_zero_error() -> None:
    pred = torch.randn(4, 3, requires_grad=True)
    loss = RMSE()(pred, pred.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(pred.grad, torch.zeros(4, 3))
    # The plain formula, which must not pass for it:
    pred.grad = None
    nn.MSELoss()(pred, pred.detach()).sqrt().backward()
    assert pred.grad.isnan().all()


@pytest.mark.parametrize("error", [1e-30, 1e-20, 1e-10, 1.0, 1e10])
def test_the_gradient_of_rmse_is_no_longer_than_its_formula_says(error: float) -> None:
    pred = torch.full((5,), error, requires_grad=True)
    RMSE()(pred, torch.zeros(5)).backward()
    assert pred.grad.isfinite().all()
    assert pred.grad.norm() <= 1.01 / 5**0.5


def test_kld_is_the_divergence_of_torch_distributions() -> None:
    mu, logvar = pair(6, 4, 3)
    reference = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    torch.testing.assert_close(KLDLoss()(mu, logvar), reference.sum(-1).mean(), rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(KLDLoss(), (mu, logvar))


def test_kld_is_exact_near_the_standard_normal() -> None:
    logvar = torch.full((1,), 1e-9, dtype=DOUBLE)
    assert KLDLoss()(torch.zeros(1, dtype=DOUBLE), logvar).item() == pytest.approx(0.25e-18, rel=1e-2, abs=0)
    assert 0.5 * (logvar.exp() - 1 - logvar).item() != pytest.approx(0.25e-18, rel=1e-2, abs=0)


def test_free_bits_are_a_floor_under_every_element_before_the_sum() -> None:
    mu, logvar = pair(5, 4)
    for floor in (-6.0, 0.3, 1.0):
        total = 0.0
        for m, v in zip(mu.tolist(), logvar.tolist(), strict=True):
            total += sum(max(0.5 * (a * a + np.exp(b) - b - 1), floor) for a, b in zip(m, v, strict=True))
        assert KLDLoss(floor)(mu, logvar).item() == pytest.approx(total / 5, rel=1e-12)
    assert KLDLoss()(mu, logvar).item() == KLDLoss(0.0)(mu, logvar).item()


def test_an_element_below_the_floor_feels_no_gradient() -> None:
    mu = torch.tensor([[0.1, 3.0]], requires_grad=True)
    KLDLoss(free_bits=0.5)(mu, torch.zeros(1, 2)).backward()
    assert mu.grad.tolist() == [[0.0, 3.0]]


@pytest.mark.parametrize("loss", [RMSE(), KLDLoss()])
def test_shapes_that_would_broadcast_are_refused(loss: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"make them the same"):
        loss(torch.zeros(4, 1), torch.zeros(4))
