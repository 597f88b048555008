"""Rotary position encoding (Su et al. 2021, "RoFormer", equation 34)."""

from __future__ import annotations

import torch
import torch.nn.functional as func
from torch import Tensor

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.computed_table import ComputedTable
from jimmy_manager.models.position_encoders import check_length, position_angles

_INTEGERS = (torch.int32, torch.int64)


class PosEncoderRotary(ComputedTable):
    """Turn each pair of neighbouring features by an angle proportional to the position; shape and norms stay.

    Features 2i and 2i + 1 at position p turn by p / base**(2i / dim) radians. Apply it to queries and keys: their dot
    products then depend on the two positions through the difference alone.

    Cosines and sines are kept in float32 at least, also in a module of half precision, in float64 after ``.double()``.
    The output has the dtype of the input.

    Raises ``ConfigError`` for an odd ``dim``.
    """

    at_least_float32 = True

    def __init__(self, dim: int, max_len: int = 5000, base: float = 1e4) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ConfigError(f"dim={dim!r} must be even: features are turned in pairs")
        if max_len < 1:
            raise ConfigError(f"max_len={max_len!r} must be at least 1")
        self.dim = dim
        self.max_len = max_len
        self.base = base
        self.fill_table()

    def compute_table(self) -> Tensor:
        angles = position_angles(self.max_len, self.dim, self.base)
        return torch.cat((angles.cos(), angles.sin()), dim=-1)  # (max_len, dim)

    def forward(self, x: Tensor, seq_dim: int = -2, offset: int = 0, positions: Tensor | None = None) -> Tensor:
        """Return ``x``, of shape (..., dim), turned along the sequence axis ``seq_dim``.

        The default suits (B, L, dim) and (B, H, L, dim); give ``seq_dim=1`` for (B, L, H, dim). The sequence begins at
        position ``offset``, which is the number of cached steps when decoding. ``positions``, integers (L,) or (B, L)
        below ``max_len``, replace the count where it is not regular; one out of range is an ``IndexError``, on a GPU a
        failed device assertion, as in any look-up there.

        Raises ``ConfigError`` for shapes that do not fit and for a sequence that ends beyond ``max_len``.
        """
        axis = self._sequence_axis(x, seq_dim)
        rows = self._rows(x.shape[axis], offset, positions)
        cos, sin = _spread(rows, x, axis).chunk(2, dim=-1)
        return _turn(x, cos, sin)

    def extra_repr(self) -> str:
        return f"{self.dim}, max_len={self.max_len}, base={self.base}"

    def _sequence_axis(self, x: Tensor, seq_dim: int) -> int:
        axis = seq_dim % x.ndim if -x.ndim <= seq_dim < x.ndim else x.ndim
        if axis >= x.ndim - 1 or x.shape[-1] != self.dim:
            raise ConfigError(
                f"an input of shape {tuple(x.shape)!r} does not fit seq_dim={seq_dim!r} and dim={self.dim!r}: "
                "the features stand last, and the sequence is another axis"
            )
        return axis

    def _rows(self, length: int, offset: int, positions: Tensor | None) -> Tensor:
        if positions is None:
            if offset < 0:
                raise ConfigError(f"offset={offset!r} must not be negative")
            check_length(offset + length, self.max_len)
            return self.table[offset : offset + length]
        if positions.dtype not in _INTEGERS or positions.ndim not in (1, 2) or positions.shape[-1] != length:
            raise ConfigError(
                f"positions of shape {tuple(positions.shape)!r} and {positions.dtype} do not fit a sequence of "
                f"{length!r} steps; give integers of shape (L,) or (B, L)"
            )
        if offset:
            raise ConfigError(f"offset={offset!r} has no meaning beside positions; add it to them")
        # Not self.table[positions], which takes a negative position from the end.
        return func.embedding(positions, self.table)


def _spread(rows: Tensor, x: Tensor, axis: int) -> Tensor:
    """Give ``rows``, (L, dim) or (B, L, dim), the axes of length 1 that they need beside ``x``."""
    shape = [1] * (x.ndim - 1) + [rows.shape[-1]]
    shape[axis] = rows.shape[-2]
    if rows.ndim == 3:
        if axis == 0 or rows.shape[0] not in (1, x.shape[0]):
            raise ConfigError(
                f"positions of shape {tuple(rows.shape[:2])!r} do not fit an input of shape {tuple(x.shape)!r} "
                f"with its sequence on axis {axis!r}; the batch stands first in both"
            )
        shape[0] = rows.shape[0]
    return rows.reshape(shape)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # Multiplying by the table lifts half precision to float32, and the last step brings it back.
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)
