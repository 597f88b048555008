"""Every scheduler behind one interface: the same rates as plain use, and the same continuation from a checkpoint."""

from __future__ import annotations

import io
import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR

from jimmy_manager.errors import CheckpointError, HookError
from jimmy_manager.training.scheduler_adapter import ConstantRate, SchedulerAdapter, adapt_scheduler

STEPS = 17
METRICS = [1.0, 0.9, 0.8, 0.8, 0.8, 0.8, 0.7, 0.7, math.nan, 0.7, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]


class Halving:
    """A callable object, which PyTorch saves by its attributes."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return 0.5**epoch / (1 + 0.01 * self.calls)


MAKERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda epoch: 0.9**epoch, Halving()]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 9, 12], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.25, 10),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 12),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 4), lr_scheduler.MultiStepLR(o, [2, 5], 0.5)], [4]
    ),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 7, 1e-4),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.MultiStepLR(o, [8, 11])]
    ),
    "ReduceLROnPlateau": lambda o: ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=1, min_lr=1e-3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "CyclicLR, own scale": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, scale_fn=lambda x: 0.9**x),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 1e-4),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], 20, three_phase=True),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10, 2.0),
    "SWALR": lambda o: SWALR(o, 0.05, 6),
}


def two_groups(kind: type[Optimizer] = SGD) -> Optimizer:
    first, second = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    more = {"momentum": 0.9} if kind is SGD else {}
    return kind([{"params": [first]}, {"params": [second], "lr": 0.02}], lr=0.1, **more)  # type: ignore[call-arg]


def settings(optimizer: Optimizer) -> list[Any]:
    """Return everything that a scheduler may have changed in the optimizer."""
    groups = optimizer.state_dict()["param_groups"]
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def go(optimizer: Optimizer, step: Callable[[float], Any], metrics: list[float]) -> list[Any]:
    seen = []
    for metric in metrics:
        optimizer.step()
        step(metric)
        seen.append(settings(optimizer))
    return seen


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_every_scheduler_of_pytorch_is_tried() -> None:
    assert set(lr_scheduler.__all__) - {"LRScheduler"} <= set(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_the_rates_are_those_of_plain_use(name: str) -> None:
    plain, adapted = two_groups(), two_groups()
    scheduler = MAKERS[name](plain)
    adapter = adapt_scheduler(MAKERS[name](adapted))
    takes_metric = isinstance(scheduler, ReduceLROnPlateau)
    wanted = go(plain, lambda metric: scheduler.step(metric) if takes_metric else scheduler.step(), METRICS)
    assert go(adapted, adapter.update, METRICS) == wanted
    assert adapter.optimizer is adapted
    assert len({str(each) for each in wanted}) > 1, "this scheduler never moved, so nothing was compared"


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("name", MAKERS)
def test_from_a_checkpoint_it_goes_on_as_if_never_stopped(name: str, kind: type[Optimizer]) -> None:
    for stop in (0, 1, 2, 4, 9):
        optimizer = two_groups(kind)
        adapter = adapt_scheduler(MAKERS[name](optimizer))
        go(optimizer, adapter.update, METRICS[:stop])
        saved = through_a_file({"scheduler": adapter.state_dict(), "optimizer": optimizer.state_dict()})
        resumed = two_groups(kind)
        again = adapt_scheduler(MAKERS[name](resumed))
        again.load_state_dict(saved["scheduler"])
        resumed.load_state_dict(saved["optimizer"])
        assert again.state_dict() == adapter.state_dict()
        assert go(resumed, again.update, METRICS[stop:]) == go(optimizer, adapter.update, METRICS[stop:]), stop


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_is_of_plain_values_and_nothing_that_moves_on(name: str) -> None:
    optimizer = two_groups()
    adapter = adapt_scheduler(MAKERS[name](optimizer))
    state = adapter.state_dict()
    before = repr(state)
    go(optimizer, adapter.update, METRICS)
    adapter.load_state_dict(state)
    go(optimizer, adapter.update, METRICS)
    assert repr(state) == before
    assert types_in(state) <= {dict, list, tuple, str, bool, int, float, type(None)}


def types_in(value: Any) -> set[type]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {type(value)}.union(*map(types_in, inner))


@pytest.mark.parametrize("name", MAKERS)
def test_each_entry_that_a_state_lacks_is_named(name: str) -> None:
    state = adapt_scheduler(MAKERS[name](two_groups())).state_dict()
    for entry in state:
        lacking = {key: value for key, value in state.items() if key != entry}
        with pytest.raises(CheckpointError, match=f"no '{entry}'"):
            adapt_scheduler(MAKERS[name](two_groups())).load_state_dict(lacking)


def test_an_entry_that_a_scheduler_in_a_scheduler_lacks_is_named() -> None:
    state = adapt_scheduler(MAKERS["SequentialLR"](two_groups())).state_dict()
    del state["_schedulers"][1]["gamma"]
    with pytest.raises(CheckpointError, match=r"no 'gamma' of SequentialLR\._schedulers\[1\]"):
        adapt_scheduler(MAKERS["SequentialLR"](two_groups())).load_state_dict(state)


def test_milestones_come_back_as_the_counter_that_a_sequence_needs() -> None:
    optimizer = two_groups()
    adapter = adapt_scheduler(lr_scheduler.MultiStepLR(optimizer, [2, 2]))
    adapter.load_state_dict(through_a_file(adapter.state_dict()))
    assert adapter.scheduler.milestones == Counter({2: 2})
    assert type(adapter.scheduler.milestones) is Counter


def test_rates_that_are_tensors_or_numbers_of_numpy_go_on_alike() -> None:
    for rate in (torch.tensor(0.1), np.float32(0.1), np.float64(0.1)):
        parameters = [torch.nn.Parameter(torch.ones(1))]
        optimizers = [SGD(parameters, lr=rate) for _ in range(2)]  # type: ignore[arg-type]
        one, other = (adapt_scheduler(lr_scheduler.CosineAnnealingWarmRestarts(each, 5)) for each in optimizers)
        go(optimizers[0], one.update, METRICS[:3])
        other.load_state_dict(through_a_file(one.state_dict()))
        for optimizer, adapter in zip(optimizers, (one, other), strict=True):
            go(optimizer, adapter.update, METRICS[3:])
        rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        assert rates[0] == rates[1]
        assert type(rates[0]) is type(rates[1])


class Warm(LRScheduler):
    """A user's scheduler around another: by default its state would hold the scheduler, its functions and a deque."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.after = lr_scheduler.StepLR(optimizer, 3, 0.5)
        self.shape = lambda epoch: min(1.0, epoch / 4)
        self.recent: deque[float] = deque(maxlen=3)
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        self.recent.append(self.last_epoch)
        if self.last_epoch < 4:
            return [base * self.shape(self.last_epoch) for base in self.base_lrs]
        self.after.step()
        return [rate / (1 + sum(self.recent)) for rate in self.after.get_last_lr()]


def test_a_scheduler_of_the_user_around_another_is_saved_through_it() -> None:
    optimizer, resumed = two_groups(), two_groups()
    adapter, again = adapt_scheduler(Warm(optimizer)), adapt_scheduler(Warm(resumed))
    go(optimizer, adapter.update, METRICS[:7])
    again.load_state_dict(through_a_file(adapter.state_dict()))
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert go(resumed, again.update, METRICS[7:]) == go(optimizer, adapter.update, METRICS[7:])
    assert again.scheduler.recent == adapter.scheduler.recent
    assert again.scheduler.recent.maxlen == 3


class Opaque(LRScheduler):
    def __init__(self, optimizer: Optimizer) -> None:
        self.odd = {"inner": [object()]}
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return list(self.base_lrs)


def test_what_a_checkpoint_cannot_hold_is_refused_by_name_before_training() -> None:
    with pytest.raises(CheckpointError, match=r"Opaque\.odd\.inner\[0\] is of type object"):
        adapt_scheduler(Opaque(two_groups()))
    with pytest.raises(CheckpointError, match=r"LambdaLR cannot give its state .* lambda"):
        adapt_scheduler(lr_scheduler.LambdaLR(two_groups(), math.exp))


class Recorder:
    """A scheduler of the user, with any signature of ``step``."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class NoMetric(Recorder):
    def step(self, *args: Any, epoch: int | None = None, **kwargs: Any) -> None:
        self.got.append((args, epoch, kwargs))


class Optional(Recorder):
    def step(self, epoch: int | None = None, metrics: float | None = None) -> None:
        self.got.append((epoch, metrics))


class Keyword(Recorder):
    def step(self, *, loss: float) -> None:
        self.got.append(loss)


class Positional(Recorder):
    def step(self, loss: float, /) -> None:
        self.got.append(loss)


@pytest.mark.parametrize(
    ("kind", "got"), [(NoMetric, ((), None, {})), (Optional, (None, 0.5)), (Keyword, 0.5), (Positional, 0.5)]
)
def test_the_metric_goes_where_step_asks_for_it_and_never_into_the_epoch(kind: type[Any], got: Any) -> None:
    scheduler = kind()
    adapt_scheduler(scheduler).update(0.5)
    assert scheduler.got == [got]


def test_a_step_that_asks_for_more_than_a_metric_is_refused() -> None:
    class Timm(Recorder):
        def step(self, epoch: int) -> None: ...

    class Two(Recorder):
        def step(self, loss: float, accuracy: float) -> None: ...

    with pytest.raises(HookError, match=r"Timm\.step requires epoch"):
        adapt_scheduler(Timm())
    with pytest.raises(HookError, match=r"Two\.step requires loss, accuracy"):
        adapt_scheduler(Two())


def test_none_is_a_constant_rate() -> None:
    optimizer = two_groups()
    before = settings(optimizer)
    constant = adapt_scheduler(None, optimizer)
    constant.update(1.0)
    constant.load_state_dict(constant.state_dict())
    assert isinstance(constant, ConstantRate)
    assert constant.optimizer is optimizer
    assert settings(optimizer) == before


def test_what_has_an_update_is_taken_as_it_is_if_it_can_be_resumed() -> None:
    class Own(Recorder):
        def update(self, metric: float) -> None: ...

    class Forgetful:
        def update(self, metric: float) -> None: ...

    own = Own()
    assert adapt_scheduler(own) is own
    with pytest.raises(HookError, match=r"Forgetful has update\(\), but no state_dict or load_state_dict"):
        adapt_scheduler(Forgetful())


def test_what_is_no_scheduler_is_refused() -> None:
    with pytest.raises(HookError, match="float is no scheduler"):
        adapt_scheduler(0.1)
    with pytest.raises(HookError, match="the class StepLR, not an instance"):
        adapt_scheduler(lr_scheduler.StepLR)


def test_an_adapter_is_adapted_only_once() -> None:
    adapter = SchedulerAdapter(lr_scheduler.StepLR(two_groups(), 3))
    assert adapt_scheduler(adapter) is adapter
