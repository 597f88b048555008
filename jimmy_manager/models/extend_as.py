"""``extendAs``: line a tensor up with another one from the left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jimmy_manager.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def extendAs(a: Tensor, b: Tensor) -> Tensor:
    """Return a view of ``a`` with as many dimensions as ``b``, by singleton dimensions after its own.

    What broadcasts from the left where torch broadcasts from the right: a value a sample (B,) over (B, L, D). Raises
    ``ConfigError`` where ``a`` has more dimensions than ``b``.

    >>> import torch
    >>> extendAs(torch.zeros(4), torch.zeros(4, 7, 2)).shape
    torch.Size([4, 1, 1])
    """
    missing = b.ndim - a.ndim
    if missing < 0:
        raise ConfigError(f"cannot extend shape {tuple(a.shape)} to the fewer dimensions of {tuple(b.shape)}")
    return a[(..., *(None,) * missing)]
