"""The older scheduler: its three phases by their formulas, through any metric, and on from a checkpoint."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD

from jimmy_manager.errors import CheckpointError, ConfigError
from jimmy_manager.training.jimmy_lr_scheduler import JimmyLRScheduler
from jimmy_manager.training.runtime_params import set_rate
from jimmy_manager.training.scheduler_adapter import adapt_scheduler

PEAK, FLOOR = 0.2, 1e-3


def scheduler(warmup_count: int = 5, rates: tuple[float, ...] = (0.1,), **more: Any) -> JimmyLRScheduler:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates]
    arguments = {"peak_lr": PEAK, "min_lr": FLOOR, "window_size": 4, "patience": 3, **more}
    return JimmyLRScheduler(SGD(groups, lr=0.1), warmup_count=warmup_count, **arguments)


def go(each: JimmyLRScheduler, metrics: list[float]) -> list[float]:
    rates = []
    for metric in metrics:
        each.update(metric)
        rates.append(each.lr)
    return rates


def test_the_warm_up_is_a_sine_squared_that_reaches_the_peak_exactly() -> None:
    each = scheduler(warmup_count=7)
    assert each.lr == FLOOR
    rates = go(each, [1.0] * 7)
    wanted = PEAK * np.sin(np.pi / 2 * np.arange(1, 8) / 7) ** 2
    np.testing.assert_allclose(rates, np.maximum(FLOOR, wanted), rtol=1e-12)
    assert rates[-1] == PEAK
    assert rates == sorted(rates)


@pytest.mark.parametrize("warmup_count", [0, 1, 3])
def test_it_warms_up_until_the_peak_and_no_longer(warmup_count: int) -> None:
    each = scheduler(warmup_count)
    for _ in range(warmup_count):
        assert each.is_warming_up
        each.update(1.0)
    assert not each.is_warming_up
    assert each.lr == PEAK


def test_while_the_metric_falls_the_rate_is_only_modulated() -> None:
    each = scheduler(2)
    rates = go(each, list(np.linspace(2, 1, 30)))
    k = np.arange(0, 29)
    np.testing.assert_allclose(rates[1:], PEAK * (0.05 * np.cos(np.pi * k / 4) ** 2 + 0.95), rtol=1e-12)
    assert min(rates[1:]) == pytest.approx(0.95 * PEAK)


@pytest.mark.parametrize("metric", [1.0, 0.1, 0.0, math.nan, math.inf, 1e308])
def test_on_a_plateau_the_base_decays_every_patience_updates_down_to_the_floor(metric: float) -> None:
    each = scheduler(0, decay_rate=0.5)
    bases = []
    for _ in range(60):
        each.update(metric)
        bases.append(each.base_lr)
        assert FLOOR <= each.lr <= PEAK
    # The window is full after 4 metrics, and it takes 3 that did not fall; one that is not finite counts at once.
    first = 2 if not math.isfinite(metric) else 5
    assert bases[first - 1] == PEAK
    assert [bases[first + 3 * i] for i in range(5)] == [PEAK / 2 ** (i + 1) for i in range(5)]
    assert each.lr == bases[-1] == FLOOR


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 10), min_size=20, max_size=40))
def test_the_base_follows_the_sign_of_an_independent_fit(metrics: list[float]) -> None:
    each = scheduler(3)
    base, bad, steep = PEAK, 0, True
    for i, metric in enumerate(metrics):
        each.update(metric)
        if i >= 3:
            slope = float(np.polyfit(range(4), metrics[i - 3 : i + 1], 1)[0])
            steep = steep and (abs(slope) > 1e-6)
            bad = 0 if slope < 0 else bad + 1
            if bad == 3:
                base, bad = max(FLOOR, base * 0.9), 0
        if steep:
            assert each.base_lr == pytest.approx(base, rel=1e-12)


def test_an_improvement_starts_the_patience_anew() -> None:
    each = scheduler(0)
    go(each, [1.0] * 6)
    each.update(0.0)
    go(each, [1.0])
    assert each.base_lr == PEAK * 0.9
    each = scheduler(0)
    go(each, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert each.base_lr == PEAK


def test_a_plateau_in_the_warm_up_does_not_decay() -> None:
    each = scheduler(20)
    go(each, [1.0] * 20)
    assert each.lr == each.base_lr == PEAK


def test_all_groups_keep_their_ratio() -> None:
    each = scheduler(3, rates=(0.1, 0.01, 0.3))
    for metric in [1.0] * 30:
        each.update(metric)
        rates = [group["lr"] for group in each.optimizer.param_groups]
        assert rates == pytest.approx([each.lr, each.lr / 10, each.lr * 3])


def test_a_rate_that_is_a_tensor_stays_one() -> None:
    rate = torch.tensor(0.5)
    each = JimmyLRScheduler(SGD([torch.nn.Parameter(torch.ones(1))], lr=rate), PEAK, FLOOR, 0)
    assert each.optimizer.param_groups[0]["lr"] is rate
    each.update(torch.tensor(1.0))
    assert float(rate) == pytest.approx(PEAK * (0.05 * math.cos(math.pi / 10) ** 2 + 0.95))


@pytest.mark.parametrize("stop", [0, 2, 5, 9, 14, 21])
def test_from_a_checkpoint_it_goes_on_as_if_never_stopped(stop: int) -> None:
    metrics = [1.0, 0.9, 0.8, math.nan, 0.8, 0.8, 0.8, 0.7, *[0.7] * 20]
    each, again = scheduler(rates=(0.1, 0.03)), scheduler(rates=(0.1, 0.03))
    go(each, metrics[:stop])
    buffer = io.BytesIO()
    torch.save({"scheduler": each.state_dict(), "optimizer": each.optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again.optimizer.load_state_dict(saved["optimizer"])
    again.load_state_dict(saved["scheduler"])
    assert again.lr == each.lr
    assert go(again, metrics[stop:]) == go(each, metrics[stop:])
    assert again.state_dict() == each.state_dict()


def test_each_entry_that_a_state_lacks_is_named() -> None:
    state = scheduler().state_dict()
    for entry in state:
        with pytest.raises(CheckpointError, match=f"no '{entry}'"):
            scheduler().load_state_dict({key: value for key, value in state.items() if key != entry})


def test_an_edit_after_the_warm_up_becomes_the_base() -> None:
    each = scheduler(0)
    go(each, [2.0, 1.5])
    set_rate(each.optimizer, 0.05, each)
    base = each.base_lr
    each.update(1.0)
    assert each.lr == pytest.approx(base * (0.05 * math.cos(math.pi * 3 / 4) ** 2 + 0.95))
    assert 0.05 <= base <= 0.05 / 0.95


@pytest.mark.parametrize("min_lr", [FLOOR, 0.0])
def test_an_edit_in_the_warm_up_ends_it(min_lr: float) -> None:
    each = scheduler(50, min_lr=min_lr)
    set_rate(each.optimizer, 0.05, each)
    assert not each.is_warming_up
    rates = go(each, list(np.linspace(2, 1, 8)))
    assert 0.0475 <= min(rates) <= max(rates) <= 0.05


def test_an_edit_below_the_floor_stays() -> None:
    each = scheduler(0)
    set_rate(each.optimizer, FLOOR / 10, each)
    assert go(each, [1.0] * 30) == pytest.approx([FLOOR / 10] * 30)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"peak_lr": 0.0}, "peak_lr is 0.0"),
        ({"peak_lr": math.nan}, "peak_lr is nan"),
        ({"min_lr": 0.3}, "min_lr is 0.3; it must lie between 0 and peak_lr, which is 0.2"),
        ({"min_lr": -1.0}, "min_lr is -1.0"),
        ({"warmup_count": -1}, "warmup_count is -1"),
        ({"warmup_count": 1.5}, "warmup_count is 1.5"),
        ({"window_size": 1}, "window_size is 1; it must be an int of at least 2"),
        ({"patience": 0}, "patience is 0"),
        ({"decay_rate": 0.0}, "decay_rate is 0.0"),
        ({"decay_rate": 1.1}, "decay_rate is 1.1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        scheduler(**wrong)


def test_its_docstring_says_that_the_schedulers_of_pytorch_are_preferred() -> None:
    assert "Prefer the schedulers of PyTorch" in str(JimmyLRScheduler.__doc__)


def test_the_trainer_takes_it_as_it_is() -> None:
    each = scheduler()
    assert adapt_scheduler(each) is each
