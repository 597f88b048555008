"""Apply a function to every tensor of a batch, however it is nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Apply ``function`` to the tensors in dicts, lists and tuples, and leave everything else as it is.

    >>> import torch
    >>> map_tensors({'data': torch.ones(2), 'more': [torch.ones(3), 'text']}, len)
    {'data': 2, 'more': [3, 'text']}
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: map_tensors(item, function) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [map_tensors(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
