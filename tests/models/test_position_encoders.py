from __future__ import annotations

from math import cos, sin

import numpy as np
import pytest
import torch

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import PosEncoderLearned, PosEncoderSinusoidal
from tests.models.block_contract import check_block


def sinusoid(position: int, column: int, dim: int) -> float:
    """One entry of the table, by the definition."""
    angle = position / 10000 ** (2 * (column // 2) / dim)
    return cos(angle) if column % 2 else sin(angle)


def test_the_sines_and_cosines_are_those_of_the_paper_and_odd_widths_work() -> None:
    for dim in (1, 2, 5, 8):
        encoder = PosEncoderSinusoidal(dim, max_len=300).double()
        expected = [[sinusoid(p, c, dim) for c in range(dim)] for p in range(300)]
        encoding = encoder(torch.zeros(2, 300, dim, dtype=torch.float64))
        np.testing.assert_allclose(encoding[1].numpy(), expected, rtol=0, atol=1e-10)


def test_adding_keeps_the_features_and_appending_puts_the_encoding_behind_them() -> None:
    x = torch.randn(2, 4, 6)
    encoding = PosEncoderSinusoidal(6)(torch.zeros(1, 4, 6))
    torch.testing.assert_close(PosEncoderSinusoidal(6)(x), x + encoding)
    both = PosEncoderSinusoidal(6, merge_mode="concat")(x)
    torch.testing.assert_close(both, torch.cat((x, encoding.expand(2, -1, -1)), dim=-1))


@pytest.mark.parametrize(("d_pe", "width"), [(None, 12), (3, 9), (8, 14)])
def test_the_width_of_an_appended_encoding_can_be_chosen(d_pe: int | None, width: int) -> None:
    x = torch.zeros(2, 4, 6)
    out = PosEncoderSinusoidal(6, merge_mode="concat", d_pe=d_pe)(x)
    assert out.shape == (2, 4, width)
    assert out[0, 1, 6].item() == pytest.approx(sin(1))


@pytest.mark.parametrize("merge_mode", ["add", "concat"])
def test_both_encoders_keep_the_contract(merge_mode: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    check_block(lambda: PosEncoderSinusoidal(5, 9, merge_mode), x)
    check_block(lambda: PosEncoderLearned(5, 4, merge_mode), x)


def test_learned_vectors_are_added_or_appended() -> None:
    x = torch.randn(2, 3, 4)
    added, appended = PosEncoderLearned(4, 7), PosEncoderLearned(4, 7, "concat")
    torch.testing.assert_close(added(x) - x, added.pe.weight[:3].expand(2, -1, -1))
    assert appended(x).shape == (2, 3, 8)
    torch.testing.assert_close(appended(x)[1], torch.cat((x[1], appended.pe.weight[:3]), dim=-1))


def test_positions_that_did_not_occur_receive_no_gradient() -> None:
    encoder = PosEncoderLearned(4, 7)
    encoder(torch.zeros(2, 3, 4)).sum().backward()
    assert encoder.pe.weight.grad.sum(1).tolist() == [8, 8, 8, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", [PosEncoderSinusoidal, PosEncoderLearned])
def test_an_input_longer_than_the_table_is_refused(kind: type[torch.nn.Module]) -> None:
    encoder = kind(4, 3)
    encoder(torch.zeros(1, 3, 4))
    with pytest.raises(ConfigError, match=r"positions go up to 4, but the encoder has max_len=3"):
        encoder(torch.zeros(1, 4, 4))


@pytest.mark.parametrize("kind", [PosEncoderSinusoidal, PosEncoderLearned])
def test_adding_to_other_features_is_refused_instead_of_broadcast(kind: type[torch.nn.Module]) -> None:
    with pytest.raises(ConfigError, match=r"\(1, 3, 1\) .* dim=4"):
        kind(4)(torch.zeros(1, 3, 1))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="merge_mode='sum'"):
        PosEncoderSinusoidal(4, merge_mode="sum")
    with pytest.raises(ConfigError, match="merge_mode='sum'"):
        PosEncoderLearned(4, merge_mode="sum")
    with pytest.raises(ConfigError, match="d_pe=3"):
        PosEncoderSinusoidal(4, d_pe=3)
    with pytest.raises(ConfigError, match="max_len=0"):
        PosEncoderLearned(4, 0)


def test_an_input_of_half_precision_stays_so_in_a_module_of_full_precision() -> None:
    x = torch.zeros(1, 3, 4, dtype=torch.bfloat16)
    assert PosEncoderSinusoidal(4)(x).dtype == torch.bfloat16
    assert PosEncoderLearned(4)(x).dtype == torch.bfloat16
