from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import MLP, FCLayers
from tests.models.block_contract import check_block


def test_it_is_linear_layers_with_the_activation_between_them() -> None:
    torch.manual_seed(0)
    block = FCLayers([3, 5, 4, 2], nn.ReLU()).double()
    x = torch.randn(7, 6, 3, dtype=torch.float64)
    y = x.numpy()
    for i, layer in enumerate(each for each in block if isinstance(each, nn.Linear)):
        y = y @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        y = np.maximum(y, 0) if i < 2 else y
    np.testing.assert_allclose(block(x).detach().numpy(), y, rtol=0, atol=1e-10)


def test_it_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_block(lambda: FCLayers([3, 5, 2], nn.PReLU(), nn.Tanh()), torch.randn(4, 3, dtype=torch.float64))


def test_the_final_activation_follows_the_last_layer() -> None:
    assert [type(each) for each in FCLayers([2, 3, 1], nn.GELU(), nn.Sigmoid())] == [
        nn.Linear,
        nn.GELU,
        nn.Linear,
        nn.Sigmoid,
    ]
    assert len(FCLayers([2, 1], nn.GELU())) == 1


def test_an_activation_with_parameters_learns_them_per_layer() -> None:
    act = nn.PReLU()
    slopes = [each.weight for each in FCLayers([2, 3, 3, 1], act) if isinstance(each, nn.PReLU)]
    assert len({id(each) for each in [*slopes, act.weight]}) == 3


def test_its_other_name_is_the_same_class() -> None:
    assert MLP is FCLayers


def test_a_slice_shares_the_layers() -> None:
    block = FCLayers([2, 3, 1], nn.ReLU())
    assert list(block[:-1]) == [block[0], block[1]]


@pytest.mark.parametrize("widths", [[], [4]])
def test_too_few_widths_are_refused(widths: list[int]) -> None:
    with pytest.raises(ConfigError, match="makes no layer"):
        FCLayers(widths, nn.ReLU())


def test_an_activation_that_is_no_module_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="act=<class"):
        FCLayers([2, 1], nn.ReLU)
    with pytest.raises(ConfigError, match="final_act="):
        FCLayers([2, 1], nn.ReLU(), torch.tanh)
