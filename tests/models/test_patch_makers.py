from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import PatchMaker1D, PatchMaker2D
from tests.models.block_contract import check_block


def windows_1d(x: Tensor, size: int, stride: int) -> Tensor:
    """(B, L, D) -> (B, N, P, D), one window after another."""
    starts = [start for start in range(x.shape[1]) if start % stride == 0 and start + size <= x.shape[1]]
    return torch.stack([x[:, start : start + size] for start in starts], dim=1)


def vectors_2d(x: Tensor, size: int, stride: int) -> Tensor:
    """(B, C, H, W) -> (B, P*P*C, nh, nw), one number after another."""
    batch, channels, height, width = x.shape
    rows = [top for top in range(0, height, stride) if top + size <= height]
    columns = [left for left in range(0, width, stride) if left + size <= width]
    result = torch.empty(batch, size * size * channels, len(rows), len(columns), dtype=x.dtype)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            entry = 0
            for ph in range(size):
                for pw in range(size):
                    for channel in range(channels):
                        result[:, entry, i, j] = x[:, channel, top + ph, left + pw]
                        entry += 1
    return result


sizes = {
    "size": st.integers(1, 4),
    "stride": st.integers(1, 5),
    "more": st.tuples(st.integers(0, 5), st.integers(0, 5)),
}


@settings(max_examples=40)
@given(**sizes)
def test_sequences_are_cut_as_by_a_loop(size: int, stride: int, more: tuple[int, int]) -> None:
    x = torch.randn(2, size + more[0], 3)
    expected = windows_1d(x, size, stride)
    assert torch.equal(PatchMaker1D(size, stride, patch_as_vector=False)(x), expected)
    assert torch.equal(PatchMaker1D(size, stride)(x), expected.flatten(2))


@settings(max_examples=40)
@given(**sizes)
def test_images_are_cut_as_by_a_loop(size: int, stride: int, more: tuple[int, int]) -> None:
    x = torch.randn(2, 3, size + more[0], size + more[1])
    expected = vectors_2d(x, size, stride)
    assert torch.equal(PatchMaker2D(size, stride, flatten=False)(x), expected)
    assert torch.equal(PatchMaker2D(size, stride)(x), expected.flatten(2))


def test_patches_that_are_no_vectors_keep_row_column_and_channel_apart() -> None:
    x = torch.randn(2, 3, 8, 6)
    vectors = PatchMaker2D(2, 2, flatten=False)(x)
    apart = PatchMaker2D(2, 2, patch_as_vector=False, flatten=False)(x)
    assert apart.shape == (2, 2, 2, 3, 4, 3)
    assert torch.equal(apart.flatten(1, 3), vectors)
    assert torch.equal(PatchMaker2D(2, 2, patch_as_vector=False)(x), apart.flatten(-2))
    assert torch.equal(apart[:, 1, 0, 2, 3, 1], x[:, 2, 3 * 2 + 1, 1 * 2 + 0])


def test_the_same_numbers_as_unfold_in_another_order() -> None:
    x = torch.randn(2, 3, 6, 6)
    ours = PatchMaker2D(3, 2)(x).reshape(2, 9, 3, -1).transpose(1, 2).flatten(1, 2)
    assert torch.equal(ours, nn.functional.unfold(x, 3, stride=2))


@pytest.mark.parametrize("as_vector", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
def test_both_keep_the_contract(as_vector: bool, flatten: bool) -> None:
    check_block(lambda: PatchMaker1D(2, 2, as_vector), torch.randn(2, 4, 3, dtype=torch.float64))
    check_block(lambda: PatchMaker2D(2, 2, as_vector, flatten), torch.randn(2, 3, 4, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("maker", "shape", "complaint"),
    [
        (PatchMaker1D(4), (2, 3, 5), "no room for a patch of size 4"),
        (PatchMaker2D(4), (2, 3, 8, 3), "no room for a patch of size 4"),
        (PatchMaker1D(1), (2, 3), r"\(B, L, D\), but the input has shape \(2, 3\)"),
        (PatchMaker2D(1), (2, 3, 4), r"\(B, C, H, W\), but the input has shape"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(maker: nn.Module, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        maker(torch.zeros(shape))


@pytest.mark.parametrize("kind", [PatchMaker1D, PatchMaker2D])
@pytest.mark.parametrize(("size", "stride"), [(0, 1), (1, 0), (2, -1)])
def test_sizes_below_one_are_refused(kind: type[nn.Module], size: int, stride: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        kind(size, stride)
