from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import SELayer1D, SELayer2D
from tests.models.block_contract import check_block

KINDS = [(SELayer1D, (5,)), (SELayer2D, (3, 4))]


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_channels_are_weighted_by_the_formula(kind: type[nn.Module], size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = kind(12, reduction=4).double()
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    narrow, wide = (each.detach().numpy().reshape(each.shape[:2]) for each in layer.parameters())
    assert (narrow.shape, wide.shape) == ((3, 12), (12, 3))
    hidden = x.numpy().reshape(2, 12, -1).mean(-1) @ narrow.T
    gate = expit(np.where(hidden > 0, hidden, 0.01 * hidden) @ wide.T)
    expected = x.numpy() * gate.reshape(2, 12, *[1] * len(size))
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "size"), KINDS)
@pytest.mark.parametrize("channels", [1, 6, 16, 40])
def test_any_number_of_channels_works_also_below_the_reduction(
    kind: type[nn.Module], size: tuple[int, ...], channels: int
) -> None:
    layer, x = kind(channels), torch.randn(2, channels, *size)
    y = layer(x)
    assert y.shape == x.shape
    assert ((y / x > 0) & (y / x < 1)).all()


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_they_keep_the_contract(kind: type[nn.Module], size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    check_block(lambda: kind(6, 2), torch.randn(2, 6, *size, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_a_reduction_below_one_is_refused(kind: type[nn.Module], size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="reduction=0"):
        kind(6, 0)
