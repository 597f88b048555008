"""Batches of sequences of different lengths: chosen by length, or packed into one flat tensor without padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from jimmy_manager.datasets.sequence_checks import (
    Lengths,
    as_integers,
    require_alike,
    require_count,
    require_dims,
    require_lengths,
    to_device,
)
from jimmy_manager.datasets.sequences import lengthsToMask
from jimmy_manager.errors import ConfigError, DatasetError


def packByLength(
    lengths: Tensor | Sequence[int],
    batch_size: int | None = None,
    *,
    max_elements: int | None = None,
    shuffle: bool = False,
    bucket_size: int | None = None,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Split samples into batches of similar length, so that little of a batch is padding: a list of index tensors.

    Each sample is in exactly one batch. A batch has at most ``batch_size`` samples, and at most ``max_elements``
    elements once padded (its samples times its longest length); at least one of the two must be given. Batches go from
    short to long. With ``shuffle`` they come in random order and samples of equal length are mixed; with
    ``bucket_size`` lengths are sorted only within random groups of that many samples, which mixes more and pads more.

    Works on the host: reading ``lengths`` from a device waits for it. The indices are int64 on the CPU.

    >>> packByLength([7, 2, 3, 8, 2], batch_size=2)
    [tensor([1, 4]), tensor([2, 0]), tensor([3])]
    >>> packByLength([7, 2, 3, 8, 2], max_elements=9)
    [tensor([1, 4, 2]), tensor([0]), tensor([3])]
    """
    if batch_size is None and max_elements is None:
        raise ConfigError("packByLength needs batch_size, max_elements or both, which bound a batch")
    for name, bound in (("batch_size", batch_size), ("max_elements", max_elements), ("bucket_size", bucket_size)):
        if bound is not None:
            require_count("packByLength", name, bound, 1)
    lengths = as_integers(lengths).cpu()
    if lengths.ndim != 1 or lengths.is_floating_point():
        raise DatasetError(
            f"packByLength needs integer lengths of shape (N,), not {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    order = torch.randperm(len(lengths), generator=generator) if shuffle else torch.arange(len(lengths))
    batches: list[Tensor] = []
    for bucket in order.split(bucket_size or max(len(order), 1)):
        by_length = bucket[lengths[bucket].argsort(stable=True)]
        cuts = _cuts(lengths[by_length].tolist(), batch_size or len(bucket), max_elements)
        batches.extend(by_length[start:stop] for start, stop in pairwise(cuts))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)] if shuffle else batches


def _cuts(lengths: list[int], batch_size: int, max_elements: int | None) -> list[int]:
    """Return where batches of ascending lengths begin, and where the last ends."""
    if max_elements is None:
        return [*range(0, len(lengths), batch_size), len(lengths)]
    if lengths and lengths[-1] > max_elements:
        raise DatasetError(
            f"packByLength got a sequence of length {lengths[-1]!r}, which is more than max_elements={max_elements!r}; "
            "crop it or raise max_elements"
        )
    cuts = [0]
    for index, length in enumerate(lengths):
        # Lengths ascend, so the newest sample decides to what the whole batch is padded.
        if index - cuts[-1] == batch_size or (index + 1 - cuts[-1]) * length > max_elements:
            cuts.append(index)
    return [*cuts, len(lengths)] if lengths else cuts


def packSequences(sequences: Tensor | Sequence[Tensor], lengths: Lengths | None = None) -> tuple[Tensor, Tensor]:
    """Join sequences without their padding: flat ``(N, ...)`` and int64 offsets ``(B + 1,)``.

    Sequence ``i`` is ``flat[offsets[i]:offsets[i + 1]]``. Takes a padded batch ``(B, L, ...)`` with ``lengths``
    ``(B,)``, or a list of sequences ``(L_i, ...)``. Where ``lengths`` lie on a GPU the host waits for it, as their sum
    decides the shape of the result; lengths on the CPU or in a list avoid that.

    >>> packSequences(torch.tensor([[1, 2, 0], [3, 0, 0]]), torch.tensor([2, 1]))
    (tensor([1, 2, 3]), tensor([0, 2, 3]))
    """
    if not isinstance(sequences, Tensor):
        if lengths is not None:
            raise DatasetError("packSequences takes lengths only beside a padded tensor: those of a list are its own")
        require_alike("packSequences", sequences)
        sizes = torch.tensor([len(sequence) for sequence in sequences])
        return torch.cat(list(sequences)), to_device(_offsets(sizes), sequences[0].device)
    require_dims("packSequences", sequences, 2)
    if lengths is None:
        raise DatasetError(f"packSequences needs the lengths of a padded batch of shape {tuple(sequences.shape)}")
    device = sequences.device
    counts = require_lengths("packSequences", lengths, sequences).clamp(0, sequences.shape[1])
    offsets = _offsets(counts)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    columns = torch.arange(len(rows), device=counts.device) - offsets[rows]
    return sequences[to_device(rows, device), to_device(columns, device)], to_device(offsets, device)


def unpackSequences(
    flat: Tensor, offsets: Tensor | Sequence[int], max_len: int | None = None, pad_value: float = 0
) -> tuple[Tensor, Tensor]:
    """Undo `packSequences`: return the padded batch ``(B, max_len, ...)`` and its lengths ``(B,)``.

    Sequences longer than ``max_len`` are cropped at their tail, and the lengths with them. Without ``max_len`` it is
    the length of the longest, and reading that from a device makes the host wait.

    >>> unpackSequences(torch.tensor([1, 2, 3]), torch.tensor([0, 2, 3]))
    (tensor([[1, 2],
            [3, 0]]), tensor([2, 1]))
    """
    require_dims("unpackSequences", flat, 1)
    offsets = as_integers(offsets)
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.is_floating_point():
        raise DatasetError(
            "unpackSequences needs integer offsets of shape (B + 1,), not "
            f"{offsets.dtype} of shape {tuple(offsets.shape)}"
        )
    # Offsets on a GPU stay unchecked: reading them would make the host wait.
    if offsets.device.type == "cpu" and int(offsets[-1]) != len(flat):
        raise DatasetError(f"unpackSequences got offsets that end at {int(offsets[-1])!r} for {len(flat)!r} elements")
    offsets = to_device(offsets, flat.device)
    lengths = offsets.diff()
    if max_len is None:
        max_len = int(lengths.max()) if len(lengths) else 0
    mask = lengthsToMask(lengths, max_len)
    lengths = lengths.clamp(max=max_len)
    shape = (*mask.shape, *flat.shape[1:])
    if len(flat) == 0:
        return flat.new_full(shape, pad_value), lengths
    positions = offsets[:-1, None] + torch.arange(max_len, device=flat.device)
    gathered = flat[positions.clamp(max=len(flat) - 1)]
    mask = mask.view(*mask.shape, *[1] * (flat.ndim - 1))
    return torch.where(mask, gathered, flat.new_full((), pad_value)), lengths


def _offsets(lengths: Tensor) -> Tensor:
    """Return where each sequence begins in the flat tensor, and where the last ends: ``(B,)`` -> ``(B + 1,)``."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
