"""What the functions on sequences and trajectories demand of their arguments, and say where they do not get it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from jimmy_manager.errors import DatasetError

Lengths = Tensor | Sequence[int] | int
"""How many elements of each sequence are real: ``(B,)`` integers for a batch, one integer for a single sequence."""


def require_dims(function: str, sequences: Tensor, at_least: int) -> None:
    """Refuse what is no tensor, or one of too few dimensions, in the name of ``function``."""
    if not isinstance(sequences, Tensor):
        raise DatasetError(
            f"{function} needs a tensor, not {type(sequences).__name__}; convert it with torch.as_tensor"
        )
    if sequences.ndim < at_least:
        shape = "(B, L, ...)" if at_least == 2 else "(L, ...)"
        raise DatasetError(f"{function} needs sequences of shape {shape}, not {tuple(sequences.shape)}")


def require_count(function: str, name: str, value: int, least: int) -> None:
    """Refuse a number of elements that is no int of ``least`` or more."""
    if not isinstance(value, Integral) or value < least:
        raise DatasetError(f"{function} needs a {name} of {least} or more, not {value!r}")


def require_alike(function: str, sequences: Sequence[Tensor]) -> None:
    """Refuse sequences that cannot be joined along their length, naming the first that differs."""
    if len(sequences) == 0:
        raise DatasetError(f"{function} needs at least one sequence, and got none")
    for index, sequence in enumerate(sequences):
        require_dims(function, sequence, 1)
        for what in ("dtype", "device"):
            if getattr(sequence, what) != getattr(sequences[0], what):
                raise DatasetError(
                    f"{function} got sequence {index} of {what} {getattr(sequence, what)} where the first is of "
                    f"{getattr(sequences[0], what)}; bring them to one {what}"
                )
        if sequence.shape[1:] != sequences[0].shape[1:]:
            raise DatasetError(
                f"{function} got sequence {index} of shape {tuple(sequence.shape)}, which differs in more than its "
                f"length from the first, {tuple(sequences[0].shape)}"
            )


def require_lengths(function: str, lengths: Lengths, sequences: Tensor, batched: bool = True) -> Tensor:
    """Return ``lengths`` as a tensor where they lie; refuse any shape but ``(B,)``, or ``()`` for a single sequence."""
    lengths = as_integers(lengths)
    wanted = sequences.shape[:1] if batched else torch.Size()
    if lengths.shape != wanted or lengths.is_floating_point():
        raise DatasetError(
            f"{function} needs integer lengths of shape {tuple(wanted)} for data of shape {tuple(sequences.shape)}, "
            f"not {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    return lengths


def as_integers(integers: Lengths) -> Tensor:
    """Return integers as a tensor where they lie; of no numbers as int64, where torch would take them for floats."""
    tensor = torch.as_tensor(integers)
    return tensor if tensor.numel() else tensor.to(torch.int64)


def to_device(integers: Lengths, device: torch.device) -> Tensor:
    """Return integers as int64 on ``device``; from pinned memory, so that the host need not wait for the copy."""
    tensor = as_integers(integers).to(torch.int64)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
