from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from jimmy_manager.devices import DEVICE, autocast_dtype, getAutoCast
from jimmy_manager.errors import ConfigError


def test_the_device_is_the_first_gpu_or_the_cpu() -> None:
    assert DEVICE.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.zeros(1).to(DEVICE).device.type == DEVICE.type


@pytest.mark.parametrize(
    ("mixed_precision", "dtype"),
    [(True, torch.bfloat16), ("bf16", torch.bfloat16), ("fp16", torch.float16), (False, torch.float32)],
)
def test_products_inside_have_the_precision_asked_for(mixed_precision: bool | str, dtype: torch.dtype) -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    with getAutoCast(x, mixed_precision):
        assert torch.is_autocast_enabled("cpu") == (dtype != torch.float32)
        y = layer(x)
    assert y.dtype == dtype
    assert not torch.is_autocast_enabled("cpu")
    assert layer(x).dtype == layer.weight.dtype == torch.float32


def test_off_is_a_context_that_changes_nothing() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    with getAutoCast(x, False):
        assert torch.equal(layer(x), func_of(layer, x))
    # Not even an autocast that is on already, so that a step may be called inside one.
    with torch.autocast("cpu", dtype=torch.bfloat16), getAutoCast(x, False):
        assert layer(x).dtype == torch.bfloat16


def func_of(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, layer.weight, layer.bias)


def test_gradients_come_back_in_the_precision_of_the_weights() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    with getAutoCast(x, "bf16"):
        loss = layer(x).sum()
    loss.backward()
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("wrong", ["fp8", "", "float16", 1, 0, None, 0.5, torch.bfloat16])
def test_another_precision_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"it must be True, False, 'bf16' or 'fp16'") as caught:
        getAutoCast(torch.zeros(1), wrong)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_true_is_half_precision_on_a_gpu_without_bfloat16(has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert autocast_dtype("cuda:1", True) == (torch.bfloat16 if has_bf16 else torch.float16)
    assert autocast_dtype(torch.device("cuda"), "bf16") == torch.bfloat16
    assert autocast_dtype("cuda", False) is None
    assert autocast_dtype("cpu", True) == torch.bfloat16
