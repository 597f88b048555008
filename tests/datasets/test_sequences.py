"""Sequences are cropped, padded, masked, windowed and shifted as plain loops over lists do it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence, unpad_sequence

from jimmy_manager.datasets.sequences import (
    cropPadSequence,
    cropSequences,
    lengthsFromMask,
    lengthsToMask,
    padSequences,
    shiftForNextStep,
    slidingWindows,
)
from jimmy_manager.errors import DatasetError

DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]

dtypes = st.sampled_from(DTYPES)
features = st.sampled_from([(), (2,), (3, 2)])


def numbers(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Distinct numbers, as far as the dtype can tell them apart."""
    return (torch.arange(int(np.prod(shape))) + 1).reshape(shape).to(dtype)


@st.composite
def ragged(draw: st.DrawFn, min_len: int = 0) -> list[Tensor]:
    """Sequences that differ in nothing but their length."""
    lengths = draw(st.lists(st.integers(min_len, 7), min_size=1, max_size=5))
    shape, dtype = draw(features), draw(dtypes)
    return [numbers(length, *shape, dtype=dtype) for length in lengths]


@given(st.integers(0, 6), st.integers(0, 9), features, dtypes, st.integers(0, 1), st.integers(0, 1))
def test_crop_and_pad_give_exactly_the_length_and_keep_the_head(
    length: int, target_len: int, shape: tuple[int, ...], dtype: torch.dtype, pad_value: int, dim: int
) -> None:
    sequence = numbers(*(3,) * dim, length, *shape, dtype=dtype)
    before, result = sequence.clone(), cropPadSequence(sequence, target_len, pad_value, dim)
    expected = [
        sequence.select(dim, i) if i < length else torch.full_like(result.select(dim, i), pad_value)
        for i in range(target_len)
    ]
    assert result.dtype == dtype
    assert result.shape == (*(3,) * dim, target_len, *shape)
    assert all(torch.equal(result.select(dim, i), each) for i, each in enumerate(expected))
    result.fill_(1)
    assert torch.equal(sequence, before)


def test_padding_with_a_large_integer_keeps_all_its_digits() -> None:
    assert cropPadSequence(torch.tensor([1]), 2, 2**60 + 1).tolist() == [1, 2**60 + 1]


@given(st.integers(1, 4), st.integers(0, 6), features, dtypes, st.data())
def test_crops_start_where_they_are_told_to(
    batch: int, length: int, shape: tuple[int, ...], dtype: torch.dtype, data: st.DataObject
) -> None:
    sequences, target_len = numbers(batch, length, *shape, dtype=dtype), data.draw(st.integers(0, length))
    starts = data.draw(st.lists(st.integers(0, length - target_len), min_size=batch, max_size=batch))
    result = cropSequences(sequences, target_len, torch.tensor(starts))
    rows = [row[start : start + target_len] for row, start in zip(sequences, starts, strict=True)]
    assert torch.equal(result, torch.stack(rows))
    assert torch.equal(
        cropSequences(sequences, target_len, starts[0]), sequences[:, starts[0] : starts[0] + target_len]
    )


def test_starts_of_a_tensor_are_moved_into_range_and_a_number_is_refused() -> None:
    sequences = numbers(2, 5)
    assert cropSequences(sequences, 2, torch.tensor([-4, 9])).tolist() == [[1, 2], [9, 10]]
    for start in (-1, 4):
        with pytest.raises(DatasetError, match=f"cropSequences starts at {start}, which is outside 0 ... .* = 3"):
            cropSequences(sequences, 2, start)
    with pytest.raises(DatasetError, match=r"cannot cut 6 elements out of sequences of shape \(2, 5\)"):
        cropSequences(sequences, 6)
    with pytest.raises(DatasetError, match=r"cropSequences needs integer lengths of shape \(2,\)"):
        cropSequences(sequences, 2, torch.tensor([1]))


@given(ragged(), st.integers(0, 1))
def test_padded_batches_are_those_of_torch(sequences: list[Tensor], pad_value: int) -> None:
    batch, lengths = padSequences(sequences, pad_value=pad_value)
    assert torch.equal(batch, pad_sequence(sequences, batch_first=True, padding_value=pad_value))
    assert batch.dtype == sequences[0].dtype
    assert lengths.tolist() == [len(sequence) for sequence in sequences]
    assert lengths.dtype == torch.int64


@given(ragged(), st.integers(0, 9), st.integers(0, 1))
def test_padding_to_a_length_crops_and_pads_each_sequence(sequences: list[Tensor], target_len: int, pad: int) -> None:
    batch, lengths = padSequences(sequences, target_len, pad)
    assert torch.equal(batch, torch.stack([cropPadSequence(each, target_len, pad) for each in sequences]))
    assert lengths.tolist() == [min(len(each), target_len) for each in sequences]


@given(ragged())
def test_what_was_padded_comes_back_by_its_lengths(sequences: list[Tensor]) -> None:
    batch, lengths = padSequences(sequences)
    assert all(torch.equal(a, b) for a, b in zip(unpad_sequence(batch, lengths, True), sequences, strict=True))
    mask = lengthsToMask(lengths, batch.shape[1])
    assert torch.equal(batch[mask], torch.cat(sequences))


def test_gradients_flow_through_padding_and_cropping() -> None:
    sequence = torch.ones(3, 2, requires_grad=True)
    padSequences([sequence, sequence[:1]], 4)[0].sum().backward()
    assert sequence.grad is not None
    assert sequence.grad.tolist() == [[2, 2], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "padSequences needs at least one sequence"),
        ([torch.zeros(2), torch.zeros(2, 1)], r"sequence 1 of shape \(2, 1\), .* the first, \(2,\)"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], r"sequence 1 of shape \(2, 4\), .* the first, \(2, 3\)"),
        ([torch.zeros(2), torch.zeros(2).double()], "sequence 1 of dtype torch.float64 .* torch.float32"),
        ([torch.zeros(2), torch.zeros(2, device="meta")], "sequence 1 of device meta .* cpu"),
        ([torch.zeros(2), torch.tensor(1.0)], r"padSequences needs sequences of shape \(L, ...\), not \(\)"),
        ([[1, 2]], "padSequences needs a tensor, not list"),
    ],
)
def test_sequences_that_make_no_batch_are_refused(sequences: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        padSequences(sequences)


@given(
    st.lists(st.integers(-1, 7), max_size=5), st.integers(0, 9), st.sampled_from([torch.int64, torch.int32, torch.int8])
)
def test_a_mask_is_true_below_the_length(lengths: list[int], max_len: int, dtype: torch.dtype) -> None:
    expected = [[position < length for position in range(max_len)] for length in lengths]
    mask = lengthsToMask(torch.tensor(lengths, dtype=dtype), max_len)
    assert mask.dtype == torch.bool
    assert mask.shape == (len(lengths), max_len)
    assert mask.tolist() == expected
    assert torch.equal(lengthsToMask(lengths, max_len), mask)


@given(st.lists(st.integers(0, 7), max_size=5))
def test_lengths_come_back_from_their_mask(lengths: list[int]) -> None:
    mask = lengthsToMask(lengths)
    assert mask.shape == (len(lengths), max(lengths, default=0))
    for kind in (mask, mask.int(), mask.float()):
        assert lengthsFromMask(kind).tolist() == lengths
    assert lengthsFromMask(mask).dtype == torch.int64


def test_masks_of_any_shape_of_lengths_are_made() -> None:
    lengths = torch.tensor([[1, 3], [0, 2]])
    assert lengthsToMask(lengths, 3).shape == (2, 2, 3)
    assert torch.equal(lengthsFromMask(lengthsToMask(lengths, 3)), lengths)
    assert lengthsToMask(2, 3).tolist() == [True, True, False]


@given(
    length=st.integers(0, 12),
    window=st.integers(1, 6),
    stride=st.integers(1, 8),
    shape=features,
    dtype=dtypes,
    dim=st.integers(0, 1),
)
def test_windows_are_the_slices_that_fit(
    length: int, window: int, stride: int, shape: tuple[int, ...], dtype: torch.dtype, dim: int
) -> None:
    sequences = numbers(*(2,) * dim, length, *shape, dtype=dtype)
    result = slidingWindows(sequences, window, stride, dim=dim)
    starts = list(range(0, length - window + 1, stride))
    assert result.shape == (*(2,) * dim, len(starts), window, *shape)
    assert result.dtype == dtype
    for index, start in enumerate(starts):
        assert torch.equal(result.select(dim, index), sequences.narrow(dim, start, window))


@given(st.integers(0, 12), st.integers(1, 6), st.integers(1, 8))
def test_keeping_the_rest_reaches_every_element_that_a_stride_does_not_skip(
    length: int, window: int, stride: int
) -> None:
    sequence = numbers(1, length)
    result = slidingWindows(sequence, window, stride, keep_rest=True, pad_value=-1)[0].tolist()
    expected, start = [], 0
    while start < length and (start == 0 or start - stride + window < length):
        row = sequence[0, start : start + window].tolist()
        expected.append(row + [-1] * (window - len(row)))
        start += stride
    assert result == expected
    real = slidingWindows(torch.ones(1, length, dtype=torch.bool), window, stride, keep_rest=True)[0].tolist()
    assert real == [[element != -1 for element in row] for row in expected]


@given(st.integers(0, 12), st.integers(1, 5))
def test_windows_side_by_side_are_the_sequence(length: int, window: int) -> None:
    sequence = numbers(length, 2)
    rows = slidingWindows(sequence, window, window, keep_rest=True, dim=0)
    assert torch.equal(rows.reshape(-1, 2)[:length], sequence)


def test_full_windows_are_a_view_and_take_no_memory() -> None:
    sequence = torch.zeros(1, 100_000)
    assert slidingWindows(sequence, 1000).untyped_storage().data_ptr() == sequence.untyped_storage().data_ptr()


@given(st.integers(0, 3), st.integers(1, 7), features, dtypes, st.data())
def test_targets_are_what_comes_some_steps_later(
    batch: int, length: int, shape: tuple[int, ...], dtype: torch.dtype, data: st.DataObject
) -> None:
    sequences, steps = numbers(batch, length, *shape, dtype=dtype), data.draw(st.integers(1, length))
    lengths = data.draw(st.lists(st.integers(0, length), min_size=batch, max_size=batch))
    inputs, targets = shiftForNextStep(sequences, steps=steps)
    assert inputs.shape == targets.shape == (batch, length - steps, *shape)
    for position in range(length - steps):
        assert torch.equal(inputs[:, position], sequences[:, position])
        assert torch.equal(targets[:, position], sequences[:, position + steps])
    for given_as in (lengths, torch.tensor(lengths, dtype=torch.int32)):
        *same, mask = shiftForNextStep(sequences, given_as, steps)
        assert torch.equal(same[0], inputs)
        assert torch.equal(same[1], targets)
        assert mask.tolist() == [[at + steps < real for at in range(length - steps)] for real in lengths]


def test_what_cannot_be_counted_is_refused_by_function_and_value() -> None:
    batch = numbers(2, 3)
    refusals: list[tuple[Any, str]] = [
        (lambda: cropPadSequence(batch, -1), "cropPadSequence needs a target_len of 0 or more, not -1"),
        (lambda: padSequences([batch], 1.5), "padSequences needs a target_len of 0 or more, not 1.5"),  # type: ignore[arg-type]
        (lambda: lengthsToMask([1], -1), "lengthsToMask needs a max_len of 0 or more, not -1"),
        (lambda: slidingWindows(batch, 0), "slidingWindows needs a window of 1 or more, not 0"),
        (lambda: slidingWindows(batch, 1, 0), "slidingWindows needs a stride of 1 or more, not 0"),
        (lambda: slidingWindows(batch[0], 1), r"slidingWindows needs sequences of shape \(B, L, ...\), not \(3,\)"),
        (lambda: shiftForNextStep(batch, steps=0), "shiftForNextStep needs a steps of 1 or more, not 0"),
        (lambda: shiftForNextStep(batch, steps=4), r"cannot look 4 steps ahead in sequences of shape \(2, 3\)"),
        (lambda: shiftForNextStep(batch, [3]), r"shiftForNextStep needs integer lengths of shape \(2,\)"),
        (lambda: shiftForNextStep([1, 2]), "shiftForNextStep needs a tensor, not list"),  # type: ignore[call-overload]
        (lambda: lengthsFromMask(torch.tensor(True)), r"lengthsFromMask needs sequences of shape \(L, ...\), not \(\)"),
    ]
    for call, message in refusals:
        with pytest.raises(DatasetError, match=message):
            call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_makes_the_host_wait_for_the_gpu() -> None:
    batch, lengths = numbers(2, 5).cuda(), torch.tensor([5, 3]).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [
            cropPadSequence(batch, 7, dim=1),
            cropSequences(batch, 2, torch.tensor([1, 3])),
            *padSequences(list(batch.unbind()), 4),
            lengthsToMask(lengths, 5),
            lengthsFromMask(batch > 3),
            slidingWindows(batch, 2, 2, keep_rest=True),
            *shiftForNextStep(batch, lengths),
            *shiftForNextStep(batch, [5, 3]),
        ]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(result.device.type == "cuda" for result in results)
    assert results[-1].tolist() == [[True] * 4, [True, True, False, False]]
