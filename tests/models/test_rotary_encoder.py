from __future__ import annotations

import cmath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import PosEncoderRotary
from tests.models.block_contract import check_block


def rotated(x: Tensor, axis: int, base: float = 1e4) -> np.ndarray:
    """Multiply the pairs, as complex numbers, by powers of e**i: one number after another."""
    result = x.numpy().copy()
    dim = x.shape[-1]
    for index in np.ndindex(*x.shape[:-1]):
        for i in range(dim // 2):
            pair = complex(*result[(*index, slice(2 * i, 2 * i + 2))])
            turned = pair * cmath.exp(1j * index[axis] * base ** (-2 * i / dim))
            result[(*index, slice(2 * i, 2 * i + 2))] = turned.real, turned.imag
    return result


@pytest.mark.parametrize(
    ("shape", "seq_dim", "axis"),
    [
        ((2, 7, 6), -2, 1),
        ((7, 6), -2, 0),
        ((2, 3, 7, 6), -2, 2),
        ((2, 7, 3, 6), 1, 1),
        ((2, 7, 3, 6), -3, 1),
        ((7, 2, 6), 0, 0),
    ],
)
def test_any_layout_of_heads_is_turned_as_complex_numbers_are(shape: tuple[int, ...], seq_dim: int, axis: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    for base in (1e4, 100.0):
        turned = PosEncoderRotary(6, max_len=7, base=base).double()(x, seq_dim=seq_dim)
        np.testing.assert_allclose(turned.numpy(), rotated(x, axis, base), rtol=0, atol=1e-10)


def test_the_layout_with_heads_first_and_with_heads_last_agree() -> None:
    x = torch.randn(2, 3, 7, 6)
    encoder = PosEncoderRotary(6)
    torch.testing.assert_close(encoder(x), encoder(x.transpose(1, 2), seq_dim=1).transpose(1, 2))
    wrong = encoder(x.transpose(1, 2)).transpose(1, 2)  # the axis of heads taken for the sequence
    assert (encoder(x) - wrong).abs().max() > 0.1


@settings(max_examples=25)
@given(first=st.integers(0, 400), second=st.integers(0, 400), shift=st.integers(0, 500), seed=st.integers(0, 2**32 - 1))
def test_products_depend_on_the_distance_alone_and_norms_stay(first: int, second: int, shift: int, seed: int) -> None:
    torch.manual_seed(seed)
    encoder = PosEncoderRotary(8, max_len=1000).double()
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    here = encoder(q, offset=first) @ encoder(k, offset=second).T
    there = encoder(q, offset=first + shift) @ encoder(k, offset=second + shift).T
    torch.testing.assert_close(here, there, rtol=0, atol=1e-10)
    torch.testing.assert_close(encoder(q, offset=first).norm(), q.norm(), rtol=0, atol=1e-10)


def test_other_distances_give_other_products() -> None:
    torch.manual_seed(0)
    encoder = PosEncoderRotary(8).double()
    q, k = torch.randn(2, 1, 8, dtype=torch.float64)
    assert (encoder(q, offset=3) @ encoder(k).T - encoder(q, offset=4) @ encoder(k).T).abs().item() > 1e-3


def test_it_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_block(lambda: PosEncoderRotary(4, 5), torch.randn(2, 3, 5, 4, dtype=torch.float64))


def test_an_offset_goes_on_where_a_cached_sequence_ended() -> None:
    x = torch.randn(2, 3, 7, 6)
    encoder = PosEncoderRotary(6)
    parts = (encoder(x[..., :4, :]), encoder(x[..., 4:, :], offset=4))
    torch.testing.assert_close(torch.cat(parts, dim=-2), encoder(x))


def test_positions_may_be_given_for_all_sequences_or_for_each() -> None:
    x = torch.randn(2, 3, 4, 6)
    encoder = PosEncoderRotary(6)
    torch.testing.assert_close(encoder(x, positions=torch.arange(4)), encoder(x))
    each = torch.tensor([[0, 1, 2, 3], [7, 2, 2, 9]])
    turned = encoder(x, positions=each)
    torch.testing.assert_close(turned[0], encoder(x)[0])
    for step, position in enumerate([7, 2, 2, 9]):
        torch.testing.assert_close(turned[1, :, step, None], encoder(x[1, :, step, None], offset=position))
    heads_last = encoder(x.transpose(1, 2), seq_dim=1, positions=each)
    torch.testing.assert_close(heads_last.transpose(1, 2), turned)


def test_half_precision_computes_its_angles_in_full_at_far_positions() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 64, dtype=torch.float64).bfloat16()
    encoder = PosEncoderRotary(64, max_len=100_000).bfloat16()
    turned = encoder(x, offset=99_990)
    exact = PosEncoderRotary(64, max_len=100_000).double()(x.double(), offset=99_990)
    assert turned.dtype == torch.bfloat16
    # 2**-8 is the rounding of the result itself; angles in bfloat16 would be wrong by hundreds of radians.
    torch.testing.assert_close(turned.double(), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "kwargs", "complaint"),
    [
        ((1, 9, 6), {}, "positions go up to 9, but the encoder has max_len=8"),
        ((1, 4, 6), {"offset": 5}, "positions go up to 9"),
        ((1, 4, 6), {"offset": -1}, "offset=-1 must not be negative"),
        ((1, 4, 4), {}, "dim=6"),
        ((6,), {}, "seq_dim=-2"),
        ((1, 4, 6), {"seq_dim": 2}, "seq_dim=2"),
        ((1, 4, 6), {"seq_dim": -1}, "seq_dim=-1"),
        ((1, 4, 6), {"seq_dim": 3}, "seq_dim=3"),
        ((1, 4, 6), {"positions": torch.arange(3)}, r"positions of shape \(3,\)"),
        ((1, 4, 6), {"positions": torch.arange(4.0)}, "torch.float32"),
        ((1, 4, 6), {"positions": torch.ones(4, dtype=torch.bool)}, "torch.bool"),
        ((1, 4, 6), {"positions": torch.arange(4), "offset": 1}, "offset=1 has no meaning"),
        ((3, 4, 6), {"positions": torch.zeros(2, 4, dtype=torch.int64)}, r"positions of shape \(2, 4\)"),
        ((4, 3, 6), {"positions": torch.zeros(4, 4, dtype=torch.int64), "seq_dim": 0}, "on axis 0"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], kwargs: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        PosEncoderRotary(6, max_len=8)(torch.zeros(shape), **kwargs)


@pytest.mark.parametrize("position", [-1, 8])
def test_a_position_out_of_the_table_is_an_index_error(position: int) -> None:
    with pytest.raises(IndexError):
        PosEncoderRotary(6, max_len=8)(torch.zeros(1, 1, 6), positions=torch.tensor([position]))


@pytest.mark.parametrize(("dim", "max_len"), [(5, 8), (0, 8), (4, 0)])
def test_wrong_arguments_are_refused(dim: int, max_len: int) -> None:
    with pytest.raises(ConfigError):
        PosEncoderRotary(dim, max_len)
