"""Losses over a part of the elements: those a mask selects, or those before the end of each sequence."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from jimmy_manager.datasets.sequence_checks import as_integers, to_device
from jimmy_manager.errors import ConfigError
from jimmy_manager.models.extend_as import extendAs


class MaskedLoss(nn.Module):
    """Mean of a loss over the elements that a mask selects, 0-d: ``MaskedLoss(nn.MSELoss)(pred, target, mask)``.

    ``base`` is a loss of ``torch.nn`` or one of the same kind: its class, or an instance, of which a copy is taken.
    Its own ``reduction`` does not matter. `RMSE` is no such loss; take the root of a masked ``nn.MSELoss``.

    With everything selected it is the base loss with ``reduction="mean"``, class weights and ``ignore_index`` of a
    cross-entropy included; with nothing selected it is 0, and so are all gradients. What is not selected may be NaN:
    it reaches neither the loss nor a gradient. Nothing waits for the device.
    """

    def __init__(self, base: type[nn.Module] | nn.Module) -> None:
        super().__init__()
        self.base = _element_wise(base)

    def forward(self, pred: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], mask: Tensor) -> Tensor:
        """Return the mean over the elements where ``mask`` is True, or not 0.

        ``pred`` and ``target`` are (B, L, ...) of one shape, or what a cross-entropy takes: logits (B, C, L, ...) and
        indices (B, L, ...) or probabilities of the classes. ``mask`` has the first dimensions of the element-wise
        losses, as (B, L) over (B, L, D), or all of them; sizes of 1 broadcast.

        Either may be a list of B tensors (L_i, ...), for classes (L_i, C), with a mask (B, L). One that has as many
        rows as the mask selects of its sample holds these, in their order. Any other one holds the rows from position
        0 on, and where it has ended nothing is selected.

        Raises ``ConfigError`` for shapes that do not belong together.
        """
        mask = mask.bool()
        laid_pred, has_pred = _laid_out(pred, mask, of_classes=self._has_classes)
        of_classes = self._has_classes and target[0].is_floating_point()
        laid_target, has_target = _laid_out(target, mask, of_classes=of_classes)
        return self._mean(laid_pred, laid_target, has_pred & has_target)

    @property
    def _has_classes(self) -> bool:
        return isinstance(self.base, nn.CrossEntropyLoss | nn.NLLLoss)

    def _mean(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        self._check(pred, target, mask)
        over_pred = mask.unsqueeze(1) if self._has_classes else mask
        pred = _blanked(pred, over_pred)
        target = _blanked(target, over_pred if target.shape == pred.shape else mask)
        losses = self.base(pred, target)
        if losses.ndim < mask.ndim:
            raise ConfigError(f"{self.base} gives losses of shape {tuple(losses.shape)}, less than the mask's "
                              f"{tuple(mask.shape)}; give a mask over its losses")
        selected = extendAs(mask, losses).expand_as(losses)
        # At least float32: a count beyond 65 504 would be infinite in half precision.
        dtype = torch.promote_types(losses.dtype, torch.float32)
        total = losses.masked_fill(~selected, 0).sum(dtype=dtype)
        weight = (selected * self._weights(target)).sum(dtype=dtype)
        return total / torch.where(weight > 0, weight, 1)

    def _weights(self, target: Tensor) -> Tensor | bool:
        """How much each element counts in the mean of the base loss."""
        if not isinstance(self.base, nn.CrossEntropyLoss | nn.NLLLoss) or target.is_floating_point():
            return True
        counts = target != self.base.ignore_index
        return counts if self.base.weight is None else self.base.weight[target.masked_fill(~counts, 0)] * counts

    def _check(self, pred: Tensor, target: Tensor, mask: Tensor) -> None:
        elements = (*pred.shape[:1], *pred.shape[2:]) if self._has_classes else tuple(pred.shape)
        if target.shape != pred.shape and target.shape != elements:
            hint = "give logits (B, C, L) and classes (B, L)" if self._has_classes else "make them the same"
            raise ConfigError(f"prediction {tuple(pred.shape)} and target {tuple(target.shape)} do not fit; {hint}")
        fits = all(ours in (1, theirs) for ours, theirs in zip(mask.shape, elements, strict=False))
        if mask.ndim > len(elements) or not fits:
            raise ConfigError(f"a mask {tuple(mask.shape)} does not select from elements {elements}; "
                              "give their first dimensions")


class SequentialLossWithLength(MaskedLoss):
    """Mean of a loss over the elements of sequences before their ends, 0-d: ``(pred, target, lengths)``.

    All elements of all sequences count the same: padding does not dilute the mean, and a long sequence weighs more
    than a short one. Everything else is as for `MaskedLoss`.
    """

    def forward(
        self, pred: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], lengths: Tensor | Sequence[int]
    ) -> Tensor:
        """Return the mean over the first ``lengths[i]`` positions of each sequence i.

        ``pred`` and ``target`` are as for `MaskedLoss`; time is dimension 1, that of logits or probabilities (B, C, L)
        dimension 2. ``lengths`` are (B,), ints up to L.

        Raises ``ConfigError`` for a length beyond L, but not where the lengths lie on a GPU: to look at them there
        would be a wait, so such a length counts all L positions.
        """
        time, device = self._time(pred, target), pred[0].device
        _check_ends(lengths, time)
        ends = to_device(lengths, device)
        if ends.shape != (len(pred),):
            raise ConfigError(f"lengths have shape {tuple(ends.shape)} for {len(pred)} sequences; give one for each")
        return super().forward(pred, target, torch.arange(time, device=device) < ends.unsqueeze(1))

    def _time(self, pred: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> int:
        for each in (pred, target):
            if isinstance(each, Tensor):
                return each.shape[2 if self._has_classes and (each is pred or each.is_floating_point()) else 1]
        return max(map(len, (*pred, *target)))


def _check_ends(lengths: Tensor | Sequence[int], time: int) -> None:
    if isinstance(lengths, Tensor) and lengths.device.type != "cpu":
        return
    ends = as_integers(lengths)
    if ends.numel() and (longest := int(ends.max())) > time:
        raise ConfigError(f"the largest of the lengths is {longest}, but the sequences have {time} positions; after "
                          "shiftForNextStep use its mask with MaskedLoss, or lengths - steps")


def _element_wise(base: type[nn.Module] | nn.Module) -> nn.Module:
    loss = base() if isinstance(base, type) else copy.deepcopy(base)
    if not isinstance(getattr(loss, "reduction", None), str):
        raise ConfigError(f"{base!r} has no reduction to switch off; give a loss like nn.MSELoss, or one of its kind")
    loss.reduction = "none"  # type: ignore[assignment]
    return loss


def _blanked(values: Tensor, mask: Tensor) -> Tensor:
    """Put 0 where nothing is selected, so that no NaN enters the loss: its gradient times 0 would be NaN."""
    return values.masked_fill(~extendAs(mask, values), 0)


def _laid_out(values: Tensor | Sequence[Tensor], mask: Tensor, *, of_classes: bool) -> tuple[Tensor, Tensor]:
    """Lay B tensors (L_i, ...) out as one (B, L, ...), and return with it what of ``mask`` they have values for."""
    if isinstance(values, Tensor):
        return values, mask
    rows = [len(each) for each in values]
    if mask.ndim != 2 or not rows or len(rows) != len(mask) or max(rows) > mask.shape[1]:
        raise ConfigError(f"a list of tensors with {rows!r} rows does not lie under a mask {tuple(mask.shape)}; "
                          "give a mask (B, L) with L not below the longest")
    longest = values[0].new_zeros(mask.shape[1], *values[0].shape[1:])
    padded = pad_sequence([*values, longest], batch_first=True)[:-1]
    have = to_device(rows, mask.device).unsqueeze(1)
    position = torch.arange(mask.shape[1], device=mask.device)
    is_packed = mask.sum(dim=1, keepdim=True) == have
    row = torch.where(is_packed, (mask.cumsum(dim=1) - 1).clamp(min=0), position)
    laid = padded.gather(1, extendAs(row, padded).expand_as(padded))
    return laid.movedim(-1, 1) if of_classes else laid, mask & (is_packed | (position < have))
