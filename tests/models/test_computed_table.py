from __future__ import annotations

import pytest
import torch
from torch import nn

from jimmy_manager.models import PosEncoderRotary, PosEncoderSinusoidal
from jimmy_manager.models.computed_table import ComputedTable


def makers() -> list[type[ComputedTable]]:
    return [PosEncoderSinusoidal, PosEncoderRotary]


@pytest.mark.parametrize("kind", makers())
def test_the_table_follows_the_module_that_holds_it(kind: type[ComputedTable]) -> None:
    encoder = kind(4, 10)
    holder = nn.Sequential(nn.Linear(4, 4), encoder)
    assert encoder.table.dtype == torch.float32
    assert holder.to(torch.float64)[1].table.dtype == torch.float64
    assert holder.to("meta")[1].table.device.type == "meta"


@pytest.mark.parametrize("kind", makers())
def test_a_conversion_loses_no_digits(kind: type[ComputedTable]) -> None:
    exact = kind(6, 100).compute_table()
    there_and_back = kind(6, 100).bfloat16().double()
    torch.testing.assert_close(there_and_back.table, exact, rtol=0, atol=0)
    assert (kind(6, 100).table.double() - exact).abs().max() > 0


@pytest.mark.parametrize("kind", makers())
def test_a_module_made_without_storage_gets_its_table_with_the_storage(kind: type[ComputedTable]) -> None:
    with torch.device("meta"):
        encoder = kind(6, 100)
    assert encoder.table.is_meta
    torch.testing.assert_close(encoder.to_empty(device="cpu").table, kind(6, 100).table, rtol=0, atol=0)


@pytest.mark.parametrize("kind", makers())
def test_the_table_is_in_no_state_so_max_len_may_change(kind: type[ComputedTable]) -> None:
    assert kind(4, 10).state_dict() == {}


@pytest.mark.parametrize("kind", makers())
def test_a_model_of_another_default_type_has_its_table_in_full(kind: type[ComputedTable]) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        encoder = kind(6, 100)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(encoder.table, encoder.compute_table(), rtol=0, atol=0)


def test_rotations_stay_in_float32_in_a_module_of_half_precision() -> None:
    assert PosEncoderRotary(4).bfloat16().table.dtype == torch.float32
    assert PosEncoderSinusoidal(4).bfloat16().table.dtype == torch.bfloat16
