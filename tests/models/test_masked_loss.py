from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as func

from jimmy_manager.datasets.sequences import shiftForNextStep
from jimmy_manager.errors import ConfigError
from jimmy_manager.models.losses import RMSE
from jimmy_manager.models.masked_loss import MaskedLoss, SequentialLossWithLength

DOUBLE = torch.float64
BASES = [
    nn.MSELoss,
    nn.L1Loss(reduction="sum"),
    nn.SmoothL1Loss(beta=0.3),
    nn.BCEWithLogitsLoss,
    nn.KLDivLoss(),
    nn.PoissonNLLLoss,
]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE)


def some(*shape: int) -> Tensor:
    """Return a random mask that selects something and leaves something out."""
    mask = torch.rand(shape) < 0.5
    mask.view(-1)[:2] = torch.tensor([True, False])
    return mask


def batch(base: Any, *shape: int) -> tuple[Tensor, Tensor]:
    return randn(*shape).requires_grad_(), torch.rand(shape, dtype=DOUBLE)


def summed(base: Any) -> nn.Module:
    loss = base() if isinstance(base, type) else base
    loss.reduction = "sum"  # not the mean, which KLDivLoss warns about
    return loss


def loop_mean(base: Any, pred: Tensor, target: Tensor, chosen: list[tuple[int, ...]]) -> float:
    """Mean over chosen positions of the base loss of that position alone, one after the other."""
    one = summed(base)
    return float(np.mean([one(pred[at].detach(), target[at]).item() for at in chosen]))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("mask_shape", [(4,), (4, 5), (4, 5, 3), (1, 5), (4, 5, 1)])
def test_the_mean_is_taken_over_what_the_mask_selects(base: Any, mask_shape: tuple[int, ...]) -> None:
    loss = MaskedLoss(base)
    pred, target = batch(base, 4, 5, 3)
    mask = some(*mask_shape)
    whole = mask.reshape(mask.shape + (1,) * (3 - mask.ndim)).expand(4, 5, 3)
    expected = loop_mean(base, pred, target, [tuple(at) for at in whole.nonzero().tolist()])
    for form in (mask, mask.int(), mask.double()):
        assert loss(pred, target, form).item() == pytest.approx(expected, rel=1e-10, abs=1e-13)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), pred)


@pytest.mark.parametrize("base", BASES, ids=str)
def test_with_everything_selected_it_is_the_base_loss(base: Any) -> None:
    pred, target = batch(base, 3, 4)
    loss = MaskedLoss(base)(pred, target, torch.ones(3, 4))
    torch.testing.assert_close(loss, summed(base)(pred, target) / 12, rtol=1e-12, atol=1e-15)


def test_the_given_instance_is_left_as_it_was() -> None:
    base = nn.MSELoss(reduction="sum")
    MaskedLoss(base)
    assert base.reduction == "sum"


@pytest.mark.parametrize("base", [*BASES, nn.CrossEntropyLoss], ids=str)
@pytest.mark.parametrize("kind", [MaskedLoss, SequentialLossWithLength])
def test_an_empty_selection_costs_nothing_and_pulls_nowhere(base: Any, kind: Callable[..., nn.Module]) -> None:
    pred = randn(2, 3, 4).requires_grad_()
    target = torch.zeros(2, 4).long() if base is nn.CrossEntropyLoss else torch.rand(2, 3, 4)
    none = torch.zeros(2, 4 if base is nn.CrossEntropyLoss else 3) if kind is MaskedLoss else torch.zeros(2)
    loss = kind(base)(pred, target, none)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("rubbish", [float("nan"), float("inf")])
def test_nothing_leaks_from_what_is_not_selected(base: Any, rubbish: float) -> None:
    pred, target = batch(base, 4, 5, 3)
    mask = some(4, 5)
    clean = MaskedLoss(base)(pred, target, mask)
    (expected,) = torch.autograd.grad(clean, pred)
    bad_pred = pred.detach().clone()
    bad_pred[~mask] = rubbish
    bad_target = target.clone()
    bad_target[~mask] = rubbish
    loss = MaskedLoss(base)(bad_pred.requires_grad_(), bad_target, mask)
    loss.backward()
    assert loss.item() == clean.item()
    assert torch.equal(bad_pred.grad, expected)
    # Selecting among the losses alone, which must not pass for it:
    bad_pred.grad = None
    torch.where(mask[..., None], func.mse_loss(bad_pred, bad_target, reduction="none"), 0).sum().backward()
    assert bad_pred.grad.isnan().any()


def test_what_is_wrong_where_it_counts_is_not_hidden() -> None:
    pred = randn(2, 3)
    pred[0, 0] = torch.nan
    assert MaskedLoss(nn.MSELoss)(pred, randn(2, 3), torch.ones(2, 3)).isnan()


WEIGHT = torch.rand(4, dtype=DOUBLE) + 0.1


@pytest.mark.parametrize(
    "base",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=WEIGHT),
        nn.CrossEntropyLoss(ignore_index=2, label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=0),
        nn.NLLLoss(weight=WEIGHT),
    ],
    ids=str,
)
def test_a_cross_entropy_has_its_classes_in_dimension_1(base: nn.Module) -> None:
    logits, classes, mask = randn(3, 4, 6).requires_grad_(), torch.randint(4, (3, 6)), some(3, 6)
    loss = MaskedLoss(base)(logits, classes, mask)
    # What is left when everything else is cut out is what torch's own mean is taken over.
    torch.testing.assert_close(loss, base(logits.mT[mask], classes[mask]), rtol=1e-10, atol=0)
    lengths = torch.tensor([6, 0, 3])
    first = torch.arange(6) < lengths[:, None]
    by_length = SequentialLossWithLength(base)(logits, classes, lengths)
    torch.testing.assert_close(by_length, base(logits.mT[first], classes[first]), rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(lambda p: MaskedLoss(base)(p, classes, mask), logits)


def test_classes_that_are_not_selected_may_be_anything() -> None:
    logits, classes, mask = randn(3, 4, 6), torch.randint(4, (3, 6)), some(3, 6)
    loss = MaskedLoss(nn.CrossEntropyLoss)
    assert loss(logits, classes.masked_fill(~mask, 77), mask).item() == loss(logits, classes, mask).item()


def test_targets_of_a_cross_entropy_may_be_probabilities() -> None:
    logits, target, mask = randn(3, 4, 6), torch.rand(3, 4, 6, dtype=DOUBLE).softmax(1), some(3, 6)
    expected = nn.CrossEntropyLoss()(logits.mT[mask], target.mT[mask])
    torch.testing.assert_close(MaskedLoss(nn.CrossEntropyLoss)(logits, target, mask), expected, rtol=1e-10, atol=0)
    listed = MaskedLoss(nn.CrossEntropyLoss)(list(logits.mT), list(target.mT), mask)
    torch.testing.assert_close(listed, expected, rtol=1e-10, atol=0)


def test_a_single_label_a_sample_needs_a_mask_a_sample() -> None:
    logits, classes, mask = randn(5, 4), torch.randint(4, (5,)), torch.tensor([True, False, True, True, False])
    expected = func.cross_entropy(logits[mask], classes[mask])
    torch.testing.assert_close(MaskedLoss(nn.CrossEntropyLoss)(logits, classes, mask), expected, rtol=1e-10, atol=0)


def test_a_list_of_whole_tensors_is_their_stack() -> None:
    pred, target, mask = randn(4, 5, 3), randn(4, 5, 3), some(4, 5)
    loss = MaskedLoss(nn.MSELoss)
    expected = loss(pred, target, mask).item()
    for p in (pred, list(pred), tuple(pred)):
        for t in (target, list(target), tuple(target)):
            assert loss(p, t, mask).item() == pytest.approx(expected, rel=1e-12)


def test_a_list_of_tensors_may_end_before_the_mask_does() -> None:
    pred, mask, rows = randn(3, 5, 2).requires_grad_(), torch.zeros(3, 5, dtype=torch.bool), [4, 0, 5]
    mask[0, [0, 3]] = True  # two of four rows, so these are rows by their position
    mask[1, 2] = True  # where its tensor has ended
    mask[2] = True
    target = [randn(n, 2) for n in rows]
    errors = [(pred[0, 0] - target[0][0]), (pred[0, 3] - target[0][3]), *(pred[2] - target[2])]
    expected = torch.cat(errors).square().mean()
    loss = MaskedLoss(nn.MSELoss)
    torch.testing.assert_close(loss(pred, target, mask), expected, rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), pred)


def test_a_list_may_hold_the_selected_rows_only() -> None:
    pred, mask = randn(3, 5, 2), some(3, 5)
    target = [randn(int(each.sum()), 2) for each in mask]
    expected = func.mse_loss(pred[mask], torch.cat(target)).item()
    assert MaskedLoss(nn.MSELoss)(pred, target, mask).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", ["tensors", "lists", "mixed"])
def test_padding_does_not_dilute_the_loss_of_sequences(kind: str) -> None:
    lengths = [5, 1, 0, 3]
    pred, target = randn(4, 5, 2), randn(4, 5, 2)
    expected = func.mse_loss(
        torch.cat([p[:n] for p, n in zip(pred, lengths, strict=True)]),
        torch.cat([t[:n] for t, n in zip(target, lengths, strict=True)]),
    )
    p = [each[:n].clone() for each, n in zip(pred, lengths, strict=True)] if kind == "lists" else pred
    t = target if kind == "tensors" else [each[:n].clone() for each, n in zip(target, lengths, strict=True)]
    for form in (lengths, torch.tensor(lengths), torch.tensor(lengths, dtype=torch.int32)):
        loss = SequentialLossWithLength(nn.MSELoss)(p, t, form)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    longer = torch.cat([pred, randn(4, 7, 2)], 1), torch.cat([target, randn(4, 7, 2)], 1)
    torch.testing.assert_close(SequentialLossWithLength(nn.MSELoss)(*longer, lengths), expected, rtol=1e-10, atol=0)


def test_gradients_of_sequences_are_right_and_stop_at_their_ends() -> None:
    pred, target, lengths = randn(3, 4, 2).requires_grad_(), randn(3, 4, 2), torch.tensor([4, 2, 0])
    loss = SequentialLossWithLength(nn.SmoothL1Loss)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, lengths), pred)
    (gradient,) = torch.autograd.grad(loss(pred, target, lengths), pred)
    after = torch.arange(4) >= lengths[:, None]
    assert (gradient[after] == 0).all()
    assert (gradient[~after] != 0).all()


@pytest.mark.parametrize("form", [list, torch.tensor])
def test_a_length_beyond_the_sequences_is_refused_with_what_to_give_after_a_shift(form: Callable[..., Any]) -> None:
    sequences, loss = randn(2, 4, 2), SequentialLossWithLength(nn.MSELoss)
    inputs, targets, mask = shiftForNextStep(sequences, torch.tensor([4, 2]))
    says = r"largest of the lengths is 4, but the sequences have 3 positions; after shiftForNextStep use its mask"
    for target in (targets, list(targets)):
        with pytest.raises(ConfigError, match=says):
            loss(inputs, target, form([4, 2]))
    with pytest.raises(ConfigError, match=says):
        loss(list(inputs), list(targets), form([4, 2]))
    by_mask = MaskedLoss(nn.MSELoss)(inputs, targets, mask)
    torch.testing.assert_close(loss(inputs, targets, form([3, 1])), by_mask, rtol=1e-12, atol=0)


def test_lengths_that_lie_on_another_device_are_not_looked_at() -> None:
    pred = torch.zeros(2, 3, device="meta")  # a look at its values would raise
    assert SequentialLossWithLength(nn.MSELoss)(pred, pred, torch.tensor([9, 3], device="meta")).shape == ()


def test_half_precision_survives_many_elements() -> None:
    pred, target = torch.ones(70_000, 2, dtype=torch.float16), torch.zeros(70_000, 2, dtype=torch.float16)
    loss = MaskedLoss(nn.MSELoss)(pred, target, torch.ones(70_000))
    assert (loss.item(), loss.dtype) == (1.0, torch.float32)


def test_a_loss_of_whole_rows_takes_a_mask_of_rows() -> None:
    pred, target = randn(4, 3), torch.randint(2, (4, 3)).double()
    mask = torch.tensor([True, False, False, True])
    base = nn.MultiLabelSoftMarginLoss()
    torch.testing.assert_close(MaskedLoss(base)(pred, target, mask), base(pred[mask], target[mask]))
    with pytest.raises(ConfigError, match=r"losses of shape \(4,\)"):
        MaskedLoss(base)(pred, target, torch.ones(4, 3))


@pytest.mark.parametrize(
    ("pred", "target", "mask", "says"),
    [
        ((2, 3, 1), (2, 3), (2, 3), "make them the same"),
        ((2, 3), (2, 3), (3,), r"mask \(3,\) does not select from elements \(2, 3\)"),
        ((2, 3), (2, 3), (2, 3, 1), "does not select"),
        ((2, 3, 4), (2, 3, 4), (3, 4), "first dimensions"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(
    pred: tuple[int, ...], target: tuple[int, ...], mask: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        MaskedLoss(nn.MSELoss)(torch.zeros(pred), torch.zeros(target), torch.ones(mask))


def test_classes_in_the_last_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"give logits \(B, C, L\)"):
        MaskedLoss(nn.CrossEntropyLoss)(torch.zeros(2, 6, 4), torch.zeros(2, 6).long(), torch.ones(2, 6))


@pytest.mark.parametrize("mask", [(2,), (2, 3), (3, 4)])
def test_a_list_that_does_not_lie_under_the_mask_is_refused(mask: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"\[4, 1\] rows does not lie under"):
        MaskedLoss(nn.MSELoss)(torch.zeros(2, 4), [torch.zeros(4), torch.zeros(1)], torch.ones(mask))


def test_lengths_of_other_sequences_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(3,\) for 2 sequences"):
        SequentialLossWithLength(nn.MSELoss)(torch.zeros(2, 4), torch.zeros(2, 4), [1, 2, 3])


@pytest.mark.parametrize("base", [RMSE, RMSE(), nn.Linear(2, 2)], ids=str)
def test_what_has_no_element_wise_form_is_refused(base: Any) -> None:
    with pytest.raises(ConfigError, match="no reduction to switch off"):
        MaskedLoss(base)


def test_weights_of_the_base_are_saved_with_the_model() -> None:
    assert set(MaskedLoss(nn.CrossEntropyLoss(weight=WEIGHT)).state_dict()) == {"base.weight"}


def test_no_value_is_read_back() -> None:
    with torch.device("meta"):  # whose tensors have no values to read
        pred, target, mask = torch.zeros(2, 3, 4, requires_grad=True), torch.zeros(2, 3, 4), torch.ones(2, 3)
        classes, rows = torch.zeros(2, 4).long(), [torch.zeros(3, 4), torch.zeros(1, 4)]
    losses = [
        MaskedLoss(nn.MSELoss)(pred, target, mask),
        MaskedLoss(nn.MSELoss)(pred, rows, mask),
        SequentialLossWithLength(nn.MSELoss)(pred, target, [3, 1]),
        SequentialLossWithLength(nn.CrossEntropyLoss(weight=torch.zeros(3, device="meta")))(pred, classes, [3, 1]),
    ]
    torch.stack(losses).sum().backward()
    assert pred.grad.shape == pred.shape
    with pytest.raises(NotImplementedError):
        pred[mask.bool()]
