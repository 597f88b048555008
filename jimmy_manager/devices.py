"""Where tensors live and in which precision they are computed: what datasets and models share."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from jimmy_manager.errors import ConfigError


def _own_device() -> torch.device:
    if share := os.environ.get("JIMMY_DEVICE"):
        return torch.device(share)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if "LOCAL_RANK" in os.environ else torch.device("cuda")


DEVICE = _own_device()
"""This process's share: ``$JIMMY_DEVICE``, which workers are given; its GPU under ``torchrun``; the first; the CPU."""

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def getAutoCast(sample_tensor: Tensor, mixed_precision: bool | str) -> AbstractContextManager[object]:
    """Return the context in which a forward pass on the device of ``sample_tensor`` runs.

    ``mixed_precision`` is False (a context that changes nothing), ``'bf16'``, ``'fp16'``, or True for the one of the
    two that `autocast_dtype` chooses.
    """
    dtype = autocast_dtype(sample_tensor.device, mixed_precision)
    return nullcontext() if dtype is None else torch.autocast(sample_tensor.device.type, dtype=dtype)


def autocast_dtype(device: torch.device | str, mixed_precision: bool | str) -> torch.dtype | None:
    """Return what ``mixed_precision`` means on ``device``: None, ``torch.bfloat16`` or ``torch.float16``.

    True is bfloat16, whose range is that of float32 so that no gradient needs scaling, except on GPUs without it.

    >>> autocast_dtype('cpu', True)
    torch.bfloat16
    """
    if mixed_precision in _PRECISIONS:
        return _PRECISIONS[str(mixed_precision)]
    if not isinstance(mixed_precision, bool):
        raise ConfigError(f"mixed_precision is {mixed_precision!r}; it must be True, False, 'bf16' or 'fp16'")
    if not mixed_precision:
        return None
    if torch.device(device).type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
