"""One interface for every scheduler of the learning rate: ``update(metric)``, ``state_dict``, ``load_state_dict``."""

from __future__ import annotations

import copy
import inspect
import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from jimmy_manager.errors import CheckpointError, HookError

_PLAIN = (type(None), bool, int, float, str, bytes)
# What a scheduler holds but does not own: code, which its constructor gives again, and what is saved elsewhere.
_NOT_STATE = (type, FunctionType, BuiltinFunctionType, MethodType, partial, Optimizer, nn.Module)
_METRIC_NAMES = ("metric", "metrics")
_SCALED_IN_GROUPS = ("initial_lr", "max_lr", "min_lr", "swa_lr")
_SCALED_IN_SCHEDULERS = ("base_lrs", "max_lrs")


def adapt_scheduler(scheduler: Any, optimizer: Optimizer | None = None) -> Any:
    """Return an object with ``update(metric)``, ``state_dict()``, ``load_state_dict(state)``.

    None is a constant rate of ``optimizer``. What has an ``update``, such as JimmyLRScheduler, is returned as it is.
    Anything with a ``step``, such as every scheduler of ``torch.optim.lr_scheduler``, becomes a `SchedulerAdapter`.
    Raises HookError for what is neither, or could not be resumed.
    """
    if scheduler is None:
        return ConstantRate(optimizer)
    if isinstance(scheduler, type):
        raise HookError(f"the scheduler is the class {scheduler.__name__}, not an instance; call it with the optimizer")
    if hasattr(scheduler, "update"):
        missing = [name for name in ("state_dict", "load_state_dict") if not hasattr(scheduler, name)]
        if missing:
            raise HookError(
                f"{type(scheduler).__name__} has update(), but no {' or '.join(missing)}(), so training could not be "
                "resumed; add them (a scheduler without state returns {})"
            )
        return scheduler
    if not hasattr(scheduler, "step"):
        raise HookError(f"{type(scheduler).__name__} is no scheduler: it has neither update(metric) nor step()")
    return SchedulerAdapter(scheduler)


class ConstantRate:
    """The scheduler where there is none: the rates of ``optimizer`` stay what they are."""

    takes_metric = False

    def __init__(self, optimizer: Optimizer | None = None) -> None:
        self.optimizer = optimizer

    def update(self, metric: float | Tensor) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the rates are part of the optimizer's state."""


class SchedulerAdapter:
    """A scheduler with a ``step``, in the interface of this package.

    ``update`` hands the metric on only where ``step`` requires an argument or has one named ``metric`` or ``metrics``;
    the optional ``epoch`` of PyTorch never receives it.

    ``state_dict`` holds plain values and tensors only. Functions in the state are left to the constructor, as PyTorch
    does with lambdas; objects with a state of their own, such as a scheduler in a scheduler, are saved through it.
    Raises CheckpointError, when the adapter is made and not after the first epoch, where the scheduler's state holds
    anything else. The rates themselves stand in the optimizer's state, without which no schedule resumes.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._call = _call_of(scheduler)
        self.state_dict()

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer whose rates are scheduled."""
        return self.scheduler.optimizer

    @property
    def takes_metric(self) -> bool:
        """Whether the metric is of any use to the scheduler."""
        return self._call.takes_metric or self._call.keyword is not None

    def update(self, metric: float | Tensor) -> None:
        """Take one step."""
        positional = (metric,) if self._call.takes_metric else ()
        named = {self._call.keyword: metric} if self._call.keyword else {}
        self.scheduler.step(*positional, **named)

    def state_dict(self) -> dict[str, Any]:
        return _plain(_state_of(self.scheduler), type(self.scheduler).__name__)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the scheduler back; ``CheckpointError`` names an entry that the state lacks."""
        # Into copies: CyclicLR takes entries out of the state that it is given.
        self.scheduler.load_state_dict(_revived(state, _state_of(self.scheduler), type(self.scheduler).__name__))

    def follow_edit(self, factor: float) -> None:
        """Multiply the rest of the schedule by ``factor``, as the present rates were; absolute floors stay.

        An infinite factor (the rate was 0) changes nothing.
        """
        if math.isinf(factor):
            return
        for group in self.optimizer.param_groups:
            for name in _SCALED_IN_GROUPS:
                if name in group:
                    group[name] = group[name] * factor
        _scale(self.scheduler, factor)


def assign_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Give each parameter group its learning rate, in place where it is a tensor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class _Call(NamedTuple):
    """How ``step`` wants the metric: as its only required argument, by a keyword, or not at all."""

    takes_metric: bool = False
    keyword: str | None = None


def _call_of(scheduler: Any) -> _Call:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [p for p in inspect.signature(scheduler.step).parameters.values() if p.kind not in variadic]
    required = [p for p in parameters if p.default is p.empty]
    if len(required) > 1 or any(p.name == "epoch" for p in required):
        raise HookError(
            f"{type(scheduler).__name__}.step requires {', '.join(p.name for p in required)}; a scheduler gets at most "
            "the metric: give yours an update(metric), state_dict() and load_state_dict()"
        )
    if required and required[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        return _Call(takes_metric=True)
    return _Call(
        keyword=next((p.name for p in [*required, *parameters] if p in required or p.name in _METRIC_NAMES), None)
    )


def _scale(scheduler: Any, factor: float) -> None:
    for name in _SCALED_IN_SCHEDULERS:
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * factor for rate in getattr(scheduler, name)])
    for inner in getattr(scheduler, "_schedulers", ()):
        _scale(inner, factor)


def _state_of(scheduler: Any) -> dict[str, Any]:
    try:
        return scheduler.state_dict()
    except AttributeError as error:
        raise CheckpointError(
            f"{type(scheduler).__name__} cannot give its state ({error}); wrap the function given to it in a lambda"
        ) from error


def _is_stateful(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _plain(value: Any, path: str) -> Any:
    """Return a copy of ``value`` of plain values and tensors; ``path`` is where it stands, for the message."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, _NOT_STATE):
        return None
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        items = [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if _is_stateful(value):
        return _plain(value.state_dict(), path)
    owner = path.partition(".")[0]
    raise CheckpointError(
        f"{path} is of type {type(value).__name__}, which a checkpoint cannot hold; give {owner} a state_dict() and "
        "load_state_dict() of plain values"
    )


def _revived(saved: Any, here: Any, path: str) -> Any:
    """Return a copy of ``saved`` in the types of ``here``, which stands at the same place of a scheduler just made."""
    if isinstance(here, _NOT_STATE):
        return here
    if _is_stateful(here):
        here.load_state_dict(_revived(saved, here.state_dict(), path))
        return here
    if isinstance(here, dict) and isinstance(saved, Mapping):
        return _revived_dict(saved, here, path)
    if isinstance(here, list | tuple | deque) and isinstance(saved, list | tuple):
        pairs = zip(saved, here, strict=True) if len(saved) == len(here) else [(item, None) for item in saved]
        items = [_revived(item, old, f"{path}[{index}]") for index, (item, old) in enumerate(pairs)]
        return deque(items, here.maxlen) if isinstance(here, deque) else type(here)(items)
    if isinstance(here, np.generic):
        return type(here)(saved)
    if isinstance(saved, Tensor):
        return saved.to(here.device, copy=True) if isinstance(here, Tensor) else saved.clone()
    return copy.deepcopy(saved)


def _revived_dict(saved: Mapping[Any, Any], here: dict[Any, Any], path: str) -> dict[Any, Any]:
    # A dict of a scheduler's attributes has them all; one that counts or maps (a Counter) holds what it holds.
    missing = [key for key in here if key not in saved] if type(here) is dict else []
    if missing:
        raise CheckpointError(
            f"the saved scheduler has no {missing[0]!r} of {path}, so training cannot be resumed exactly"
        )
    revived = copy.copy(here)
    revived.clear()
    revived.update({key: _revived(item, here.get(key), f"{path}.{key}") for key, item in saved.items()})
    return revived
