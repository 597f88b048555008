"""The 48 convolution blocks, of both orders."""

from __future__ import annotations

import re
from itertools import product
from math import sqrt
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf, expit
from torch import nn

import jimmy_manager.models as models
from jimmy_manager.errors import ConfigError
from jimmy_manager.models import conv_blocks, preact_conv_blocks
from tests.models.block_contract import check_block

ACTS = ("ReLU", "LeakyReLU", "GELU", "SiLU")
NORMS = ("Bn", "In", "Gn")
GRID = list(product((1, 2), NORMS, ACTS))
POST = [f"Conv{n}D{norm}{act}" for n, norm, act in GRID]
PRE = [f"{norm}{act}Conv{n}D" for n, norm, act in GRID]
Array = NDArray[np.float64]


def parts(name: str) -> tuple[int, str, str]:
    """Read dimensions, normalisation and activation from the name of a block."""
    dims = int(re.findall(r"Conv(\d)D", name)[0])
    norm, act = re.findall(r"(Bn|In|Gn)([A-Za-z]+?)(?:Conv|$)", name)[0]
    return dims, norm, act


def batch(name: str, channels: int) -> torch.Tensor:
    return torch.randn(3, channels, *(7, 5)[: parts(name)[0]], dtype=torch.float64)


def randomised(block: nn.Module) -> nn.Module:
    """Give the scales and shifts of the normalisation values that show: they begin as one and zero."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return block.double()


def convolve(x: Array, layer: nn.Module) -> Array:
    """Convolve by the definition, one output value after another."""
    weight = layer.weight.detach().numpy()  # (c_out, c_in / groups, *k)
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    sizes = [
        (length - d * (k - 1) - 1) // s + 1
        for length, k, s, d in zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
    ]
    result = np.zeros((x.shape[0], weight.shape[0], *sizes))
    for c_out, *place in np.ndindex(result.shape[1:]):
        group = c_out // (weight.shape[0] // groups)
        channels = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        for tap in np.ndindex(weight.shape[2:]):
            at = tuple(i * s + t * d for i, s, t, d in zip(place, stride, tap, dilation, strict=True))
            result[(slice(None), c_out, *place)] += x[(slice(None), channels, *at)] @ weight[(c_out, slice(None), *tap)]
    if layer.bias is not None:
        result += layer.bias.detach().numpy().reshape(-1, *[1] * len(sizes))
    return result


def normalise(x: Array, layer: nn.Module, norm: str) -> Array:
    rest = tuple(range(2, x.ndim))
    if norm == "Gn":
        split = x.reshape(x.shape[0], layer.num_groups, -1)
        mean, var = split.mean(2, keepdims=True), split.var(2, keepdims=True)
        y = ((split - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    else:
        axes = (0, *rest) if norm == "Bn" else rest
        y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    if layer.weight is not None:
        shape = (-1, *[1] * len(rest))
        y = y * layer.weight.detach().numpy().reshape(shape) + layer.bias.detach().numpy().reshape(shape)
    return y


def activate(x: Array, act: str) -> Array:
    return {
        "ReLU": lambda: np.maximum(x, 0),
        "LeakyReLU": lambda: np.where(x > 0, x, 0.01 * x),
        "GELU": lambda: x * (1 + erf(x / sqrt(2))) / 2,
        "SiLU": lambda: x * expit(x),
    }[act]()


def test_the_grid_is_complete_and_nothing_else_is_listed() -> None:
    assert sorted(POST) == sorted(blocks_in(conv_blocks, conv_blocks.ConvNormAct))
    assert sorted(PRE) == sorted(blocks_in(preact_conv_blocks, preact_conv_blocks.NormActConv))
    assert len({*POST, *PRE} & set(models.__all__)) == 48


def blocks_in(module: ModuleType, base: type) -> list[str]:
    kinds = {name: each for name, each in vars(module).items() if isinstance(each, type) and issubclass(each, base)}
    return [name for name, each in kinds.items() if each is not base]


@pytest.mark.parametrize("name", POST + PRE)
def test_a_block_is_the_layers_that_its_name_says_in_that_order(name: str) -> None:
    dims, norm, act = parts(name)
    kinds = [
        getattr(nn, f"Conv{dims}d"),
        getattr(nn, {"Bn": f"BatchNorm{dims}d", "In": f"InstanceNorm{dims}d", "Gn": "GroupNorm"}[norm]),
        getattr(nn, act),
    ]
    block = getattr(models, name)(8, 16, 3)
    assert isinstance(block, nn.Sequential)
    assert [type(block[i]) for i in range(3)] == (kinds if name in POST else [*kinds[1:], kinds[0]])
    assert len(block) == 3
    assert (type(block).__name__, type(block).__qualname__) == (name, name)
    assert (
        type(block).__doc__
        == ", ".join(type(each).__name__ for each in block).replace(f"Conv{dims}d,", f"Conv{dims}d without bias,") + "."
    )


@pytest.mark.parametrize("name", POST + PRE)
def test_every_block_keeps_the_contract(name: str) -> None:
    torch.manual_seed(1)
    check_block(lambda: getattr(models, name)(4, 6, 3, p=1, gn_groups=2), batch(name, 4))


@pytest.mark.parametrize("name", POST + PRE)
def test_every_block_computes_the_formula(name: str) -> None:
    torch.manual_seed(2)
    _, norm, act = parts(name)
    block = randomised(getattr(models, name)(4, 6, 3, 2, 1, 2, 2, gn_groups=2))
    x = batch(name, 4)
    if name in POST:
        expected = activate(normalise(convolve(x.numpy(), block[0]), block[1], norm), act)
    else:
        expected = convolve(activate(normalise(x.numpy(), block[0], norm), act), block[2])
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["Conv2DGnReLU", "GnReLUConv2D"])
def test_the_reference_notices_another_number_of_groups(name: str) -> None:
    torch.manual_seed(3)
    x = batch(name, 4)
    outputs = []
    for groups in (1, 2):
        torch.manual_seed(4)
        outputs.append(randomised(getattr(models, name)(4, 6, 3, gn_groups=groups))(x))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", POST)
def test_the_convolution_before_a_normalisation_has_no_bias(name: str) -> None:
    assert getattr(models, name)(8, 8, 1)[0].bias is None


@pytest.mark.parametrize("name", PRE)
def test_the_convolution_at_the_end_has_a_bias_unless_refused(name: str) -> None:
    assert getattr(models, name)(8, 8, 1)[2].bias is not None
    assert getattr(models, name)(8, 8, 1, bias=False)[2].bias is None


@pytest.mark.parametrize("name", ["Conv1DGnReLU", "GnSiLUConv2D"])
@pytest.mark.parametrize("groups", [8, 0, -1])
def test_groups_that_do_not_divide_the_channels_are_refused_by_name(name: str, groups: int) -> None:
    c_in, c_out = (5, 12) if name in POST else (12, 5)
    with pytest.raises(ConfigError, match=rf"gn_groups={groups} does not divide the 12 channels that {name} norm"):
        getattr(models, name)(c_in, c_out, 3, gn_groups=groups)


def test_sizes_may_differ_between_the_dimensions_and_padding_may_be_a_word() -> None:
    block = models.Conv2DBnReLU(1, 2, (3, 1), p="same")
    assert block(torch.zeros(2, 1, 6, 5)).shape == (2, 2, 6, 5)


def test_a_slice_of_a_block_is_a_plain_sequence_of_the_same_layers() -> None:
    block = models.Conv1DBnReLU(1, 2, 3)
    head = block[:2]
    assert type(head) is nn.Sequential
    assert list(head) == [block[0], block[1]]


def test_a_class_derived_from_a_block_keeps_its_kinds() -> None:
    class Halving(models.Conv2DGnSiLU):
        def __init__(self, c_in: int, c_out: int) -> None:
            super().__init__(c_in, c_out, 3, s=2, p=1)

    block = Halving(3, 8)
    assert [type(each) for each in block] == [nn.Conv2d, nn.GroupNorm, nn.SiLU]
    assert block(torch.zeros(1, 3, 8, 8)).shape == (1, 8, 4, 4)
