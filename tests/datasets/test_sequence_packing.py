"""Batches chosen by length hold each sample once within their bounds, and packing loses nothing."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from jimmy_manager.datasets.sequence_packing import packByLength, packSequences, unpackSequences
from jimmy_manager.errors import ConfigError, DatasetError

all_lengths = st.lists(st.integers(0, 20), max_size=40)


@st.composite
def ragged(draw: st.DrawFn) -> list[Tensor]:
    """Sequences of distinct numbers that differ in nothing but their length."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    shape = draw(st.sampled_from([(), (2,), (3, 2)]))
    dtype = draw(st.sampled_from([torch.bool, torch.int64, torch.float32]))
    numbers = torch.arange(sum(lengths) * math.prod(shape)).reshape(-1, *shape)
    return list(numbers.to(dtype).split(lengths))


def padded_size(batch: Tensor, lengths: list[int]) -> int:
    return len(batch) * max(lengths[i] for i in batch.tolist())


@given(
    lengths=all_lengths,
    batch_size=st.none() | st.integers(1, 9),
    max_elements=st.none() | st.integers(20, 60),
    shuffle=st.booleans(),
    bucket_size=st.none() | st.integers(1, 15),
)
def test_each_sample_is_in_one_batch_and_no_batch_exceeds_its_bounds(
    lengths: list[int], batch_size: int | None, max_elements: int | None, shuffle: bool, bucket_size: int | None
) -> None:
    if batch_size is None and max_elements is None:
        batch_size = 4
    batches = packByLength(lengths, batch_size, max_elements=max_elements, shuffle=shuffle, bucket_size=bucket_size)
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 0 < len(batch) <= (batch_size or len(lengths))
        assert max_elements is None or padded_size(batch, lengths) <= max_elements
        assert batch.dtype == torch.int64


@given(all_lengths, st.integers(1, 9), st.booleans())
def test_batches_of_samples_sorted_by_length_do_not_overlap_in_length(
    lengths: list[int], batch_size: int, shuffle: bool
) -> None:
    batches = packByLength(torch.tensor(lengths, dtype=torch.int32), batch_size, shuffle=shuffle)
    sorted_batches = sorted([sorted(lengths[i] for i in batch.tolist()) for batch in batches])
    assert all(shorter[-1] <= longer[0] for shorter, longer in pairwise(sorted_batches))
    assert sum(map(len, sorted_batches)) == len(lengths)
    assert len(batches) == -(-len(lengths) // batch_size)


@given(all_lengths, st.integers(20, 60))
def test_a_batch_ends_only_where_one_more_sample_would_exceed_the_bound(lengths: list[int], max_elements: int) -> None:
    batches = packByLength(lengths, max_elements=max_elements)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * lengths[following[0]] > max_elements


def test_sorting_by_length_pads_less_than_the_given_order() -> None:
    lengths = torch.randint(1, 200, (1000,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(batches: list[Tensor]) -> int:
        return sum(padded_size(batch, lengths) for batch in batches) - sum(lengths)

    generator = torch.Generator().manual_seed(1)
    in_order = padding(list(torch.arange(1000).split(20)))
    bucketed = padding(packByLength(lengths, 20, shuffle=True, bucket_size=200, generator=generator))
    fully_sorted = padding(packByLength(lengths, 20, shuffle=True, generator=generator))
    assert fully_sorted < 0.05 * in_order
    assert fully_sorted < bucketed < 0.2 * in_order


def test_shuffling_mixes_batches_and_equal_lengths_and_follows_its_generator() -> None:
    lengths = [1, 2] * 50

    def packed(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [batch.tolist() for batch in packByLength(lengths, 10, shuffle=True, generator=generator)]

    assert packed(0) == packed(0)
    assert packed(0) != packed(1)
    # The batches of short and of long samples come mixed, and the samples within a length too.
    assert [lengths[batch[0]] for batch in packed(0)] != sorted(lengths[batch[0]] for batch in packed(0))
    assert any(batch != sorted(batch) for batch in packed(0))
    assert packByLength(lengths, 10)[0].tolist() == list(range(0, 20, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: packByLength([1, 2]), ConfigError, "needs batch_size, max_elements or both"),
        (lambda: packByLength([1, 2], 0), DatasetError, "batch_size of 1 or more, not 0"),
        (lambda: packByLength([1, 2], 2, bucket_size=0), DatasetError, "bucket_size of 1 or more, not 0"),
        (lambda: packByLength([1, 9], max_elements=8), DatasetError, "length 9, which is more than max_elements=8"),
        (lambda: packByLength([[1]], 2), DatasetError, r"integer lengths of shape \(N,\), .* \(1, 1\)"),
        (lambda: packByLength([1.5], 2), DatasetError, "integer lengths .* torch.float32"),
        (lambda: packSequences(torch.zeros(2, 3)), DatasetError, r"lengths of a padded batch of shape \(2, 3\)"),
        (lambda: packSequences(torch.zeros(2, 3), [3]), DatasetError, r"packSequences needs .* \(2,\)"),
        (lambda: packSequences([torch.zeros(3)], [3]), DatasetError, "lengths only beside a padded tensor"),
        (lambda: packSequences([]), DatasetError, "packSequences needs at least one sequence"),
        (lambda: unpackSequences(torch.zeros(3), torch.tensor([0, 2])), DatasetError, "end at 2 for 3 elements"),
        (lambda: unpackSequences(torch.zeros(3), torch.tensor([])), DatasetError, r"offsets of shape \(B \+ 1,\)"),
        (lambda: unpackSequences(torch.zeros(3), torch.tensor([0, 3]), -1), DatasetError, "max_len of 0 or more"),
    ],
)
def test_what_cannot_be_packed_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@given(ragged())
def test_packing_joins_the_sequences_and_offsets_find_them(sequences: list[Tensor]) -> None:
    flat, offsets = packSequences(sequences)
    assert offsets.dtype == torch.int64
    assert offsets[0] == 0
    assert offsets[-1] == len(flat)
    for sequence, (start, stop) in zip(sequences, pairwise(offsets.tolist()), strict=True):
        assert torch.equal(flat[start:stop], sequence)


@given(ragged(), st.integers(0, 3), st.booleans())
def test_a_padded_batch_packs_to_the_same_and_unpacks_again(sequences: list[Tensor], wider: int, as_list: bool) -> None:
    batch = pad_sequence(sequences, batch_first=True)
    lengths: Any = [len(sequence) for sequence in sequences]
    flat, offsets = packSequences(batch, lengths if as_list else torch.tensor(lengths))
    expected, expected_offsets = packSequences(sequences)
    assert torch.equal(flat, expected)
    assert torch.equal(offsets, expected_offsets)
    again, same_lengths = unpackSequences(flat, offsets)
    assert torch.equal(again, batch)
    assert same_lengths.tolist() == lengths
    longer, _ = unpackSequences(flat, offsets, batch.shape[1] + wider, pad_value=1)
    assert longer.shape[1] == batch.shape[1] + wider
    assert (longer[:, batch.shape[1] :] == 1).all()


def test_lengths_beyond_the_batch_count_what_is_there() -> None:
    flat, offsets = packSequences(torch.tensor([[1, 2], [3, 4]]), [5, -1])
    assert flat.tolist() == [1, 2]
    assert offsets.tolist() == [0, 2, 2]


@given(ragged(), st.integers(0, 7))
def test_unpacking_to_a_length_crops_what_is_longer(sequences: list[Tensor], max_len: int) -> None:
    batch, lengths = unpackSequences(*packSequences(sequences), max_len)
    assert lengths.tolist() == [min(len(sequence), max_len) for sequence in sequences]
    for row, sequence, length in zip(batch, sequences, lengths.tolist(), strict=True):
        assert torch.equal(row[:length], sequence[:max_len])
        assert not row[length:].any()


def test_gradients_go_through_packing_and_back_past_padding_that_is_nan() -> None:
    batch = torch.tensor([[1.0, 2.0], [3.0, float("nan")]], requires_grad=True)
    again, _ = unpackSequences(*packSequences(batch, [2, 1]), 3)
    again.sum().backward()
    assert batch.grad is not None
    assert batch.grad.tolist() == [[1, 1], [1, 0]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_packing_waits_for_the_gpu_only_where_lengths_lie_on_it() -> None:
    batch, lengths = torch.arange(12).reshape(3, 4).cuda(), torch.tensor([4, 1, 2])
    torch.cuda.set_sync_debug_mode("error")
    try:
        flat, offsets = packSequences(batch, lengths)
        again, _ = unpackSequences(flat, offsets, 4)
        joined, _ = packSequences(list(batch.unbind()))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert flat.tolist() == [0, 1, 2, 3, 4, 8, 9]
    assert again.tolist() == [[0, 1, 2, 3], [4, 0, 0, 0], [8, 9, 0, 0]]
    assert torch.equal(joined, batch.flatten())
    assert torch.equal(packSequences(batch, lengths.cuda())[0], flat)
