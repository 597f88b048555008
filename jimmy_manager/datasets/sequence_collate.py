"""`collateSequences`: samples of different lengths to one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jimmy_manager.datasets.sequence_checks import require_dims
from jimmy_manager.datasets.sequences import lengthsToMask, padSequences
from jimmy_manager.errors import DatasetError

_ADDED = ("lengths", "mask")


def collateSequences(
    samples: Sequence[Tensor | np.ndarray | Mapping[str, Any]],
    target_len: int | None = None,
    pad_value: float = 0,
    sequence_keys: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Make one batch of samples: padded sequences ``(B, L, ...)``, their ``lengths`` ``(B,)`` and ``mask`` ``(B, L)``.

    A sample is a dictionary; a bare tensor counts as ``{'data': tensor}``. The fields in ``sequence_keys``, by default
    all tensors and arrays of one dimension or more, are sequences ``(L_i, ...)`` that share the length of their sample;
    they are padded, or cropped to ``target_len``. Of the other fields tensors, arrays and numbers are stacked, and
    anything else is kept as a list. ``mask`` is True on real elements. May be the ``collate_fn`` of a ``DataLoader``.

    >>> batch = collateSequences([{'x': torch.tensor([1., 2.]), 'id': 7}, {'x': torch.tensor([3.]), 'id': 8}])
    >>> batch['x'], batch['id'], batch['lengths']
    (tensor([[1., 2.],
            [3., 0.]]), tensor([7, 8]), tensor([2, 1]))
    """
    if len(samples) == 0:
        raise DatasetError("collateSequences needs at least one sample, and got none")
    rows = [_as_fields(sample) for sample in samples]
    _require_same_fields(rows)
    if sequence_keys is None:
        sequence_keys = [key for key, value in rows[0].items() if isinstance(value, Tensor) and value.ndim > 0]
    _require_one_length(rows, sequence_keys)
    batch: dict[str, Any] = {}
    for key in rows[0]:
        column = [row[key] for row in rows]
        if key in sequence_keys:
            batch[key], batch["lengths"] = padSequences(column, target_len, pad_value)
        else:
            batch[key] = _stack(key, column)
    key = sequence_keys[0]
    batch["mask"] = lengthsToMask(batch["lengths"], batch[key].shape[1])
    return batch


def _as_fields(sample: Tensor | np.ndarray | Mapping[str, Any]) -> dict[str, Any]:
    fields = sample if isinstance(sample, Mapping) else {"data": sample}
    return {key: torch.as_tensor(value) if isinstance(value, np.ndarray) else value for key, value in fields.items()}


def _require_same_fields(rows: Sequence[Mapping[str, Any]]) -> None:
    for index, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise DatasetError(
                f"collateSequences got sample {index} with the fields {sorted(row)!r} where the first has "
                f"{sorted(rows[0])!r}"
            )
    taken = [key for key in _ADDED if key in rows[0]]
    if taken:
        raise DatasetError(f"collateSequences adds the fields {_ADDED!r} itself; rename {taken[0]!r} of the samples")


def _require_one_length(rows: Sequence[Mapping[str, Any]], sequence_keys: Sequence[str]) -> None:
    """Refuse sequence fields that are missing, are no sequences, or differ in length within one sample."""
    unknown = [key for key in sequence_keys if key not in rows[0]]
    if unknown or not sequence_keys:
        raise DatasetError(
            f"collateSequences finds no sequence{f' {unknown[0]!r}' if unknown else ''} in the samples, "
            f"whose fields are {sorted(rows[0])!r}"
        )
    for index, row in enumerate(rows):
        for key in sequence_keys:
            require_dims("collateSequences", row[key], 1)
            if len(row[key]) != len(row[sequence_keys[0]]):
                raise DatasetError(
                    f"collateSequences got sample {index} with {len(row[key])} elements of {key!r} and "
                    f"{len(row[sequence_keys[0]])} of {sequence_keys[0]!r}; name in sequence_keys the fields that are "
                    "sequences of one length"
                )


def _stack(key: str, column: Sequence[Any]) -> Any:
    """Stack tensors or numbers; anything else stays a list."""
    if all(isinstance(value, bool | int | float) for value in column):
        return torch.tensor(column)
    if not all(isinstance(value, Tensor) for value in column):
        return column
    shapes = {tuple(value.shape) for value in column}
    if len(shapes) > 1:
        raise DatasetError(
            f"collateSequences cannot stack field {key!r}, whose shapes differ: {sorted(shapes)!r}; "
            "if it is a sequence, name it in sequence_keys"
        )
    return torch.stack(list(column))
