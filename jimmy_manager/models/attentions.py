"""Multi-head attention (Vaswani et al. 2017, section 3.2), batch first, on torch's fused kernels.

Two masks say who may attend to whom, alone or together and with ``causal=True``:

- ``key_padding_mask`` (B, S): over the S keys of each sample;
- ``attn_mask`` (L, S) or (B, L, S): over the keys for each of the L queries.

**True means: may attend.** That is the convention of ``scaled_dot_product_attention``; ``nn.MultiheadAttention`` and
``nn.TransformerEncoder`` mean the opposite. A floating-point mask is added to the scores instead, -inf forbids.
``causal=True`` lets query i attend to keys 0 to i. A query that may attend to no key at all gives zeros, the bias of
the last projection left out, and neither receives a gradient nor causes one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as func
from torch import Tensor, nn

from jimmy_manager.errors import ConfigError

Rotary = Callable[[Tensor], Tensor]


class _MultiHead(nn.Module):
    """What all attentions share: heads, dropout, masks and the last projection."""

    def __init__(self, d_in: int, num_heads: int, dropout: float, rotary: Rotary | None) -> None:
        super().__init__()
        if num_heads < 1 or d_in % num_heads:
            raise ConfigError(f"d_in={d_in!r} is not divisible by num_heads={num_heads!r}; each head is a part of it")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout={dropout!r} is no probability; give one in [0, 1)")
        self.num_heads = num_heads
        self.dropout = dropout
        self.rotary = rotary
        self.out = nn.Linear(d_in, d_in)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, dropout={self.dropout}"

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Take (B, L, parts * D) apart into as many tensors (B, H, L, D / H)."""
        return projected.unflatten(-1, (parts, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None, causal: bool
    ) -> Tensor:
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        dropout = self.dropout if self.training else 0.0
        mask = _joined(key_padding_mask, attn_mask, causal, q, k)
        if mask is None:
            mixed = func.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
            return self.out(mixed.transpose(1, 2).flatten(2))
        has_no_key = ~(mask if mask.dtype == torch.bool else mask > -torch.inf).any(dim=-1, keepdim=True)
        # Some kernels make NaN of a row without keys. It may attend to all of them, for nobody uses what comes out.
        mask = mask.masked_fill(has_no_key, True if mask.dtype == torch.bool else 0.0)
        mixed = func.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2)).masked_fill(has_no_key.squeeze(1), 0.0)


class MHSA(_MultiHead):
    """Multi-head self-attention: (B, L, d_in) -> (B, L, d_in); see the module for its masks.

    ``dropout`` is that of the attention weights, in training only. ``rotary`` encodes positions: anything that takes
    and returns (B, H, L, d_in / num_heads), such as a ``PosEncoderRotary(d_in // num_heads)``; it is applied to queries
    and keys. Raises ``ConfigError`` where ``d_in`` is not divisible by ``num_heads``.
    """

    def __init__(self, d_in: int, num_heads: int, dropout: float = 0.0, *, rotary: Rotary | None = None) -> None:
        super().__init__(d_in, num_heads, dropout, rotary)
        self.qkv = nn.Linear(d_in, 3 * d_in)

    def forward(
        self, x: Tensor, key_padding_mask: Tensor | None = None, attn_mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Mix the L positions of each sample: (B, L, d_in) -> (B, L, d_in).

        ``key_padding_mask`` (B, L) and ``attn_mask`` (L, L) or (B, L, L) are booleans, True where a query may attend,
        or scores to add; ``causal`` lets position i attend to 0 to i. Raises ``ConfigError`` for a mask of other shape.
        """
        q, k, v = self._heads(self.qkv(x), 3)
        return self._attend(q, k, v, key_padding_mask, attn_mask, causal)


class MHCA(_MultiHead):
    """Multi-head attention of a sequence to a condition of other width: (B, L, d_in), (B, S, d_cond) -> (B, L, d_in).

    Masks, ``dropout``, ``rotary`` and errors are as for `MHSA`, keys and values being those of the condition.
    """

    def __init__(
        self, d_in: int, d_cond: int, num_heads: int, dropout: float = 0.0, *, rotary: Rotary | None = None
    ) -> None:
        super().__init__(d_in, num_heads, dropout, rotary)
        self.q = nn.Linear(d_in, d_in)
        self.kv = nn.Linear(d_cond, 2 * d_in)

    def forward(
        self,
        x: Tensor,
        cond: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Let the L positions of ``x`` attend to the S of ``cond``: (B, L, d_in), (B, S, d_cond) -> (B, L, d_in).

        ``key_padding_mask`` (B, S) and ``attn_mask`` (L, S) or (B, L, S) are booleans, True where a query may attend,
        or scores to add; ``causal`` lets query i attend to keys 0 to i. Raises ``ConfigError`` for a mask of other
        shape.
        """
        (q,), (k, v) = self._heads(self.q(x), 1), self._heads(self.kv(cond), 2)
        return self._attend(q, k, v, key_padding_mask, attn_mask, causal)


class CrossAttention(MHCA):
    """`MHCA` between sequences of one width: (B, L, d_in) and (B, S, d_in) -> (B, L, d_in)."""

    def __init__(self, d_in: int, num_heads: int, dropout: float = 0.0, *, rotary: Rotary | None = None) -> None:
        super().__init__(d_in, d_in, num_heads, dropout, rotary=rotary)

    def forward(
        self,
        query: Tensor,
        key_value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Let ``query`` attend to ``key_value``: (B, L, d_in), (B, S, d_in) -> (B, L, d_in); masks as for `MHCA`."""
        return super().forward(query, key_value, key_padding_mask, attn_mask, causal)


def _joined(
    key_padding_mask: Tensor | None, attn_mask: Tensor | None, causal: bool, q: Tensor, k: Tensor
) -> Tensor | None:
    """Join the masks to one (B or 1, 1, L or 1, S), boolean if both are; None where the kernel needs none."""
    batch, length, keys = len(q), q.shape[-2], k.shape[-2]
    masks = []
    if key_padding_mask is not None:
        _check("key_padding_mask", key_padding_mask, {2: (batch, keys)})
        masks.append(key_padding_mask[:, None, None, :])
    if attn_mask is not None:
        _check("attn_mask", attn_mask, {2: (length, keys), 3: (batch, length, keys)})
        masks.append((attn_mask if attn_mask.ndim == 3 else attn_mask[None])[:, None])
    if not masks:
        return None
    if causal:
        masks.append(q.new_ones(length, keys, dtype=torch.bool).tril())
    if all(each.dtype == torch.bool for each in masks):
        return reduce(operator.and_, masks)
    return reduce(operator.add, (_added(each, q.dtype) for each in masks))


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -torch.inf)


def _check(name: str, mask: Tensor, shapes: dict[int, tuple[int, ...]]) -> None:
    if shapes.get(mask.ndim) != tuple(mask.shape):
        wanted = " or ".join(map(str, shapes.values()))
        raise ConfigError(f"{name} has shape {tuple(mask.shape)}; give one of shape {wanted}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ConfigError(f"{name} is of {mask.dtype}; give booleans, True where a query may attend, or scores to add")
