"""Crop, pad, mask, window and shift sequences: batch first, of any dtype, on any device.

A batch is ``(B, L, ...)`` with the real elements of each sequence at its head and padding behind them; ``lengths``
``(B,)`` counts the real ones. Nothing here writes into its arguments, and nothing makes the host wait for the device
but where its docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from jimmy_manager.datasets.sequence_checks import (
    Lengths,
    as_integers,
    require_alike,
    require_count,
    require_dims,
    require_lengths,
    to_device,
)
from jimmy_manager.errors import DatasetError


def cropPadSequence(sequence: Tensor, target_len: int, pad_value: float = 0, dim: int = 0) -> Tensor:
    """Return a copy of ``sequence`` that has exactly ``target_len`` elements, cropped or padded at its tail.

    ``sequence`` is ``(L, ...)``; for a batch ``(B, L, ...)`` pass ``dim=1``.

    >>> cropPadSequence(torch.tensor([1, 2, 3]), 5, pad_value=-1)
    tensor([ 1,  2,  3, -1, -1])
    >>> cropPadSequence(torch.tensor([[1, 2, 3]]), 2, dim=1)
    tensor([[1, 2]])
    """
    require_dims("cropPadSequence", sequence, 1)
    require_count("cropPadSequence", "target_len", target_len, 0)
    length = sequence.shape[dim]
    if target_len <= length:
        return sequence.narrow(dim, 0, target_len).clone()
    shape = list(sequence.shape)
    shape[dim] = target_len - length
    # Not functional.pad: it takes its value through a float, which changes large integers.
    return torch.cat([sequence, sequence.new_full(shape, pad_value)], dim)


def cropSequences(sequences: Tensor, target_len: int, starts: Tensor | int = 0) -> Tensor:
    """Copy ``target_len`` consecutive elements out of each sequence: ``(B, L, ...)`` -> ``(B, target_len, ...)``.

    ``starts`` is one position for all, or ``(B,)`` integers; drawn with ``torch.randint(L - target_len + 1, (B,))``
    they give random crops. A tensor of starts is not checked, which would make the host wait: those outside
    ``[0, L - target_len]`` are moved to its nearest end.

    >>> cropSequences(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), 2, starts=torch.tensor([0, 2]))
    tensor([[1, 2],
            [7, 8]])
    """
    require_dims("cropSequences", sequences, 2)
    require_count("cropSequences", "target_len", target_len, 0)
    spare = sequences.shape[1] - target_len
    if spare < 0:
        raise DatasetError(
            f"cropSequences cannot cut {target_len!r} elements out of sequences of shape {tuple(sequences.shape)}; "
            "use cropPadSequence, which pads"
        )
    if not isinstance(starts, Tensor):
        if not 0 <= starts <= spare:
            raise DatasetError(f"cropSequences starts at {starts!r}, which is outside 0 ... L - target_len = {spare}")
        return sequences.narrow(1, starts, target_len).clone()
    starts = to_device(require_lengths("cropSequences", starts, sequences), sequences.device).clamp(0, spare)
    rows = torch.arange(len(sequences), device=sequences.device)
    columns = torch.arange(target_len, device=sequences.device)
    return sequences[rows[:, None], starts[:, None] + columns]


def padSequences(
    sequences: Sequence[Tensor], target_len: int | None = None, pad_value: float = 0
) -> tuple[Tensor, Tensor]:
    """Stack sequences of different lengths to a padded batch ``(B, L, ...)`` and its lengths ``(B,)`` int64.

    ``L`` is ``target_len``, which crops longer sequences at their tail, or that of the longest. The sequences
    ``(L_i, ...)`` must agree in all but the length.

    >>> padSequences([torch.tensor([1, 2, 3]), torch.tensor([4])])
    (tensor([[1, 2, 3],
            [4, 0, 0]]), tensor([3, 1]))
    """
    require_alike("padSequences", sequences)
    if target_len is not None:
        require_count("padSequences", "target_len", target_len, 0)
        sequences = [sequence[:target_len] for sequence in sequences]
    lengths = to_device([len(sequence) for sequence in sequences], sequences[0].device)
    batch = pad_sequence(list(sequences), batch_first=True, padding_value=pad_value)
    if target_len is not None and batch.shape[1] < target_len:
        batch = cropPadSequence(batch, target_len, pad_value, dim=1)
    return batch, lengths


def lengthsToMask(lengths: Lengths, max_len: int | None = None) -> Tensor:
    """Return the mask that is True on the real elements: lengths ``(...,)`` -> bool ``(..., max_len)``.

    Without ``max_len`` it is the greatest length, and reading that from a device makes the host wait.

    >>> lengthsToMask(torch.tensor([2, 0, 3]))
    tensor([[ True,  True, False],
            [False, False, False],
            [ True,  True,  True]])
    """
    lengths = as_integers(lengths)
    if max_len is None:
        max_len = int(lengths.max()) if lengths.numel() else 0
    require_count("lengthsToMask", "max_len", max_len, 0)
    return torch.arange(max_len, device=lengths.device) < lengths[..., None]


def lengthsFromMask(mask: Tensor) -> Tensor:
    """Count the real elements of each sequence: mask ``(..., L)``, True where real -> int64 ``(...,)``.

    The inverse of `lengthsToMask`; of a mask with holes it is the number of elements, not the end of the last.

    >>> lengthsFromMask(torch.tensor([[True, True, False], [False, False, False]]))
    tensor([2, 0])
    """
    require_dims("lengthsFromMask", mask, 1)
    return (mask != 0).sum(-1)


def slidingWindows(
    sequences: Tensor, window: int, stride: int = 1, *, keep_rest: bool = False, pad_value: float = 0, dim: int = 1
) -> Tensor:
    """Return all windows of ``window`` elements, ``stride`` apart: ``(B, L, ...)`` -> ``(B, N, window, ...)``.

    ``N`` is ``(L - window) // stride + 1``, or 0 for sequences shorter than a window. With ``keep_rest`` the elements
    behind the last full window come in one more, padded with ``pad_value``. Sliding a mask alike (``pad_value=False``)
    tells which elements are real. For a single sequence ``(L, ...)`` pass ``dim=0``.

    The result is a view in which windows share memory: clone it before writing into it.

    >>> slidingWindows(torch.tensor([[1, 2, 3, 4, 5]]), 2, stride=2, keep_rest=True)
    tensor([[[1, 2],
             [3, 4],
             [5, 0]]])
    """
    require_dims("slidingWindows", sequences, 1 + dim)
    require_count("slidingWindows", "window", window, 1)
    require_count("slidingWindows", "stride", stride, 1)
    length = sequences.shape[dim]
    count = max((length - window) // stride + 1, 0)
    covered = (count - 1) * stride + window if count else 0
    # One more where elements are left over, unless the stride jumps past all of them.
    if keep_rest and covered < length and count * stride < length:
        sequences = cropPadSequence(sequences, count * stride + window, pad_value, dim)
    elif count == 0:
        return sequences.new_empty([*sequences.shape[:dim], 0, window, *sequences.shape[dim + 1 :]])
    return sequences.unfold(dim, window, stride).movedim(-1, dim + 1)


@overload
def shiftForNextStep(sequences: Tensor, lengths: None = None, steps: int = 1) -> tuple[Tensor, Tensor]: ...
@overload
def shiftForNextStep(sequences: Tensor, lengths: Lengths, steps: int = 1) -> tuple[Tensor, Tensor, Tensor]: ...
def shiftForNextStep(sequences: Tensor, lengths: Lengths | None = None, steps: int = 1) -> tuple[Tensor, ...]:
    """Return inputs and targets for predicting what comes ``steps`` later.

    ``(B, L, ...)`` becomes two views ``(B, L - steps, ...)`` of it. With ``lengths`` a third tensor follows, bool
    ``(B, L - steps)``, True where the target is a real element.

    >>> shiftForNextStep(torch.tensor([[1, 2, 3, 0]]), lengths=torch.tensor([3]))
    (tensor([[1, 2, 3]]), tensor([[2, 3, 0]]), tensor([[ True,  True, False]]))
    """
    require_dims("shiftForNextStep", sequences, 2)
    require_count("shiftForNextStep", "steps", steps, 1)
    length = sequences.shape[1] - steps
    if length < 0:
        raise DatasetError(
            f"shiftForNextStep cannot look {steps!r} steps ahead in sequences of shape {tuple(sequences.shape)}"
        )
    shifted = sequences[:, :length], sequences[:, steps:]
    if lengths is None:
        return shifted
    lengths = to_device(require_lengths("shiftForNextStep", lengths, sequences), sequences.device)
    return *shifted, lengthsToMask(lengths - steps, length)
