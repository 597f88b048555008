"""The base of modules with a table that a formula gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class ComputedTable(nn.Module):
    """A module whose buffer ``table`` is computed, never learned, and in no ``state_dict``.

    It moves with the module. Whenever it is converted it is computed anew, so that ``.double()`` gives the table in
    float64 and not its float32 values, and a module made on the meta device gets its values by ``to_empty``. Subclasses
    define `compute_table` and call `fill_table` at the end of their constructor.
    """

    table: Tensor
    at_least_float32 = False

    @abstractmethod
    def compute_table(self) -> Tensor:
        """Return the table in float64, on the CPU."""

    def fill_table(self) -> None:
        """Register the table in torch's default dtype on its default device."""
        like = torch.empty(0)
        self.register_buffer("table", self.compute_table().to(like.device, self._dtype_for(like)), persistent=False)

    def _dtype_for(self, like: Tensor) -> torch.dtype:
        return torch.promote_types(like.dtype, torch.float32) if self.at_least_float32 else like.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.table
        super()._apply(fn, recurse)
        after = self.table
        if after is not before:
            self.table = self.compute_table().to(after.device, self._dtype_for(after))
        return self
