"""Encoders that put positions beside or onto the features of a sequence.

`jimmy_manager.models.rotary_encoder` has the one that turns queries and keys instead.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.computed_table import ComputedTable

MergeMode = Literal["add", "concat"]


def sinusoidal_table(max_len: int, dim: int, base: float = 1e4) -> Tensor:
    """Return (max_len, dim) in float64: column 2i is sin(p / base**(2i / dim)), column 2i + 1 the cosine.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.5. An odd ``dim`` ends with a sine.

    >>> sinusoidal_table(2, 3)
    tensor([[0.0000, 1.0000, 0.0000],
            [0.8415, 0.5403, 0.0022]], dtype=torch.float64)
    """
    angles = position_angles(max_len, dim, base)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :dim]


def position_angles(max_len: int, dim: int, base: float) -> Tensor:
    """Return (max_len, ceil(dim / 2)) in float64, on the CPU: p / base**(2i / dim) in radians."""
    # On the CPU whatever the default device is: some devices have no float64.
    positions = torch.arange(max_len, dtype=torch.float64, device="cpu")
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim
    return positions[:, None] / base**exponents


class PosEncoderSinusoidal(ComputedTable):
    """Add fixed sines and cosines of the position to the features, or append them.

    ``'add'``: (..., L, dim) -> (..., L, dim); ``'concat'``: (..., L, D) -> (..., L, D + d_pe), where ``d_pe`` is
    ``dim`` unless given. The frequencies are those of `sinusoidal_table` with base 10000. The output has the dtype of
    the input; the table, which moves with the module, that of the module.

    Raises ``ConfigError`` for an input longer than ``max_len``.
    """

    def __init__(self, dim: int, max_len: int = 5000, merge_mode: MergeMode = "add", d_pe: int | None = None) -> None:
        super().__init__()
        _check_arguments(dim, max_len, merge_mode)
        if merge_mode == "add" and d_pe not in (None, dim):
            raise ConfigError(f"d_pe={d_pe!r} cannot be added to dim={dim!r} features; leave it out, or use 'concat'")
        self.dim = dim
        self.max_len = max_len
        self.merge_mode = merge_mode
        self.d_pe = dim if d_pe is None else d_pe
        self.fill_table()

    def compute_table(self) -> Tensor:
        return sinusoidal_table(self.max_len, self.d_pe)

    def forward(self, x: Tensor) -> Tensor:
        return _merge(x, self.table, self.merge_mode)

    def extra_repr(self) -> str:
        return f"{self.dim}, max_len={self.max_len}, merge_mode={self.merge_mode!r}, d_pe={self.d_pe}"


class PosEncoderLearned(nn.Module):
    """Add a learned vector for each position to the features, or append it.

    ``'add'``: (..., L, dim) -> (..., L, dim); ``'concat'``: (..., L, dim) -> (..., L, 2*dim). The vectors start from a
    normal distribution of standard deviation 0.02, as in BERT. The output has the dtype of the input.

    Raises ``ConfigError`` for an input longer than ``max_len``.
    """

    def __init__(self, dim: int, max_len: int = 5000, merge_mode: MergeMode = "add") -> None:
        super().__init__()
        _check_arguments(dim, max_len, merge_mode)
        self.dim = dim
        self.max_len = max_len
        self.merge_mode = merge_mode
        self.pe = nn.Embedding(max_len, dim)
        nn.init.normal_(self.pe.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        # A slice, not a look-up: the first L rows need no indices.
        return _merge(x, self.pe.weight, self.merge_mode)

    def extra_repr(self) -> str:
        return f"{self.dim}, max_len={self.max_len}, merge_mode={self.merge_mode!r}"


def _merge(x: Tensor, table: Tensor, merge_mode: MergeMode) -> Tensor:
    max_len, width = table.shape
    check_length(x.shape[-2], max_len)
    encoding = table[: x.shape[-2]].to(x.dtype)  # (L, width)
    if merge_mode == "concat":
        return torch.cat((x, encoding.expand(*x.shape[:-1], width)), dim=-1)
    if x.shape[-1] != width:
        raise ConfigError(f"an input of shape {tuple(x.shape)!r} has not the dim={width!r} features of its encoder")
    return x + encoding


def check_length(length: int, max_len: int) -> None:
    """Raise ``ConfigError`` where positions up to ``length`` are not in a table of ``max_len``."""
    if length > max_len:
        raise ConfigError(
            f"positions go up to {length!r}, but the encoder has max_len={max_len!r}; give it a larger one"
        )


def _check_arguments(dim: int, max_len: int, merge_mode: str) -> None:
    if dim < 1 or max_len < 1:
        raise ConfigError(f"dim={dim!r} and max_len={max_len!r}: both must be at least 1")
    if merge_mode not in get_args(MergeMode):
        raise ConfigError(f"merge_mode={merge_mode!r} must be 'add' or 'concat'")
