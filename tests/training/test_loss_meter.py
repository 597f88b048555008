"""Losses are gathered without a wait, read back together, and averaged by samples."""

import math

import pytest
import torch

from jimmy_manager.errors import CheckpointError, HookError
from jimmy_manager.training.loss_meter import Averages, LossMeter


def meter(*names: str, **options) -> LossMeter:
    return LossMeter(names or ("Train/Main",), "Net.trainStep", "train_loss_names", **options)


def test_rows_come_back_in_the_order_of_the_names_whatever_a_step_returned_them_in():
    each = meter("Train/Main", "Train/Acc", "Train/Count")
    each.add(({"Train/Acc": 0.5, "Train/Main": torch.tensor(2.0), "Train/Count": 3}, {}))
    each.add(({"Train/Main": torch.tensor(1.0), "Train/Count": 4, "Train/Acc": torch.tensor(True)}, {}))
    assert len(each) == 2
    assert each.read() == [[2.0, 0.5, 3.0], [1.0, 1.0, 4.0]]
    assert len(each) == 0
    assert each.read() == []


def test_float64_losses_keep_their_digits_beside_float32_ones():
    each = meter("Train/Main", "Train/Acc")
    value = 1 + 2.0**-40
    each.add(({"Train/Main": torch.tensor(value, dtype=torch.float64), "Train/Acc": torch.tensor(0.25)}, {}))
    assert each.read() == [[value, 0.25]]


def test_of_a_loss_for_each_sample_the_mean_counts():
    each = meter()
    each.add(({"Train/Main": torch.tensor([1.0, 2.0, 6.0])}, {}))
    assert each.read() == [[3.0]]


def test_a_loss_that_waits_does_not_keep_its_graph_alive():
    each, freed = meter(), []

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.held = Held()
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    class Held:
        def __del__(self):
            freed.append(True)

    each.add(({"Train/Main": Doubled.apply(torch.ones(2, requires_grad=True)).sum()}, {}))
    assert freed == [True]
    assert each.read() == [[4.0]]


def test_the_main_loss_is_the_one_that_says_so_or_the_first():
    assert meter("Train/Acc", "Train/Main").main == "Train/Main"
    assert meter("Train/Loss", "Train/Acc").main == "Train/Loss"


def test_it_is_due_after_so_many_steps_or_so_much_time():
    by_count, by_time = meter(read_every=2, read_every_s=1e9), meter(read_every=10**9, read_every_s=0.0)
    assert not by_count.is_due
    assert by_time.is_due
    for _ in range(2):
        by_count.add(({"Train/Main": 1.0}, {}))
    assert by_count.is_due
    by_count.read()
    assert not by_count.is_due


def test_no_declared_loss_is_an_error_that_says_what_to_do():
    with pytest.raises(HookError, match=r"Net\.trainStep has no main loss: train_loss_names is empty; name one"):
        LossMeter([], "Net.trainStep", "train_loss_names")


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (({"Train/Loss": 1.0}, {}), r"returned the losses \['Train/Loss'\], but train_loss_names declares \['Train/M"),
        ({"Train/Main": 1.0}, r"returned an object of type dict; it must return \(losses, outputs\)"),
        (None, "returned an object of type NoneType"),
        ((1.0, {}), r"returned a tuple of \['float', 'dict'\]"),
        (({}, {}, {}), r"returned a tuple of \['dict', 'dict', 'dict'\]"),
    ],
)
def test_what_is_no_step_is_refused_with_the_name_of_the_hook(step, complaint):
    with pytest.raises(HookError, match=rf"Net\.trainStep {complaint}"):
        meter().add(step)


def test_a_loss_that_is_no_number_is_refused_by_name_when_it_is_read():
    each = meter()
    each.add(({"Train/Main": "low"}, {}))
    with pytest.raises(HookError, match=r"Net\.trainStep returned 'Train/Main' of type str"):
        each.read()


def test_a_loss_that_nobody_declared_is_passed_over_with_one_warning(caplog):
    each = meter()
    for _ in range(3):
        each.add(({"Train/Main": 1.0, "Train/Extra": 2.0}, {}))
    assert each.read() == [[1.0]] * 3
    assert caplog.text.count("Train/Extra") == 1
    assert "declare it in self.train_loss_names" in caplog.text


def test_averages_of_an_epoch_are_weighted_by_samples_and_those_of_the_window_are_not():
    averages = Averages(["Main", "Acc"], "Main", window=2)
    averages.extend([[8.0, 1.0], [4.0, 0.0], [2.0, 0.5]], [4, 4, 1])
    assert averages.epoch() == {"Main": (8 * 4 + 4 * 4 + 2) / 9, "Acc": (4 + 0.5) / 9}
    assert averages.moving() == {"Main": 3.0, "Acc": 0.25}
    averages.restart()
    assert math.isnan(averages.epoch()["Main"])
    assert averages.moving() == {"Main": 3.0, "Acc": 0.25}


def test_a_step_that_is_not_finite_counts_in_no_average():
    averages = Averages(["Main", "Acc"], "Main", window=3)
    averages.extend([[1.0, 0.5], [math.nan, 0.0], [math.inf, 0.0], [3.0, 1.0]], [2, 2, 2, 2])
    assert averages.epoch() == {"Main": 2.0, "Acc": 0.75}
    assert averages.moving() == {"Main": 2.0, "Acc": 0.75}


def test_in_how_many_parts_the_rows_come_makes_no_difference_to_a_bit():
    draw = torch.Generator().manual_seed(0)
    rows = torch.rand(50, 2, generator=draw, dtype=torch.float64).tolist()
    whole, parts = Averages(["Main", "Acc"], "Main", 20), Averages(["Main", "Acc"], "Main", 20)
    whole.extend(rows, [7] * 50)
    for first in range(0, 50, 3):
        parts.extend(rows[first : first + 3], [7] * len(rows[first : first + 3]))
    assert whole.state_dict() == parts.state_dict()


@pytest.mark.parametrize("name", ["windows", "sums", "samples"])
def test_averages_name_what_their_state_lacks(name):
    averages = Averages(["Main"], "Main", 2)
    averages.extend([[1.0]], [1])
    state = averages.state_dict()
    again = Averages(["Main"], "Main", 2)
    again.load_state_dict(state)
    assert again.state_dict() == state
    del state[name]
    with pytest.raises(CheckpointError, match=f"lacks '{name}'"):
        again.load_state_dict(state)
