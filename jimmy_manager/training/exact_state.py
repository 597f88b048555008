"""The state of a whole training in one dictionary, which nothing can be missing from unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from jimmy_manager import random_state
from jimmy_manager.errors import CheckpointError
from jimmy_manager.state_files import leaves
from jimmy_manager.training.process_group import ProcessGroup

FORMAT = 1
# The file of the rate is where the log is, and with the first of several processes only. The origin is for who builds.
_OPTIONAL = ("rate", "origin")
# Arguments of optimizers that choose among ways to the same numbers, and what schedulers add to theirs.
_OF_EXECUTION = ("foreach", "fused", "capturable", "differentiable")
_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "swa_lr", "max_momentum", "base_momentum", "param_names")


def collect(parts: Mapping[str, Any], group: ProcessGroup | None = None) -> dict[str, Any]:
    """Return the state of each part, the random states by process, and a list of all values that reveals a loss."""
    state = {name: part.state_dict() for name, part in parts.items()}
    own = random_state.take()
    state["random"] = [own] if group is None else group.gathered(own)
    return {"format": FORMAT, "leaves": leaves(state), **state}


def restore(parts: Mapping[str, Any], state: Mapping[str, Any], group: ProcessGroup | None = None) -> dict[str, Any]:
    """Give each part its state, once nothing is missing; return the random states, which are to be restored last.

    Raises ``CheckpointError`` that names what is missing, or which part does not fit.
    """
    _check_complete(state, parts)
    rank, size = (0, 1) if group is None else (group.rank, group.size)
    if len(state["random"]) != size:
        raise CheckpointError(
            f"the checkpoint holds the random states of {len(state['random'])} processes, this training has {size}; "
            "start as many, or take over the weights alone with model.loadFrom(path)"
        )
    for name, part in parts.items():
        if name in _OPTIONAL and name not in state:
            continue
        try:
            _check_kind(part, state[name])
            part.load_state_dict(state[name])
            if isinstance(part, Optimizer):
                _keep_precision(part, state[name])
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the {name} of the checkpoint does not fit: {' '.join(str(error).split())}; build everything with the "
                "arguments of that training, or take over the weights alone with model.loadFrom(path)"
            ) from error
    random: dict[str, Any] = state["random"][rank]
    return random


def _check_complete(state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    known = ("format", "leaves", *parts, *_OPTIONAL, "random")
    if missing := [name for name in known if name not in state and name not in _OPTIONAL]:
        raise CheckpointError(
            f"the checkpoint has no {missing[0]!r}, so training cannot go on exactly; it has {sorted(state)}; "
            "take over the weights alone with model.loadFrom(path)"
        )
    if state["format"] != FORMAT:
        raise CheckpointError(f"the checkpoint has format {state['format']!r}, this version reads {FORMAT}")
    if left := [name for name in state if name not in known]:
        raise CheckpointError(
            f"the checkpoint has a state of {left[0]!r}, which this training has not; build everything with the "
            "arguments of that training, or take over the weights alone with model.loadFrom(path)"
        )
    present = set(leaves({name: state[name] for name in state if name not in ("format", "leaves")}))
    if lost := [leaf for leaf in state["leaves"] if leaf not in present]:
        raise CheckpointError(f"the checkpoint lost {lost[0]!r} ({len(lost)} of its values in all) after it was saved")


def _check_kind(part: Any, saved: Mapping[str, Any]) -> None:
    """Raise ValueError for what would be loaded without a word, and be another training."""
    if isinstance(part, Optimizer):
        _check_optimizer(part, saved["param_groups"][0])
    elif isinstance(part, nn.Module):
        for name, own in part.state_dict().items():
            kind = getattr(saved.get(name), "dtype", None)
            if isinstance(own, Tensor) and kind not in (None, own.dtype):
                raise ValueError(f"{name} is of {kind}, here it is of {own.dtype}")
    elif saved and not part.state_dict():
        raise ValueError("this training has none")


def _check_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Tell another optimizer by its arguments; the numbers among them are taken from the checkpoint."""
    kind, group = type(optimizer).__name__, optimizer.param_groups[0]
    for name in optimizer.defaults:
        if name not in saved:
            raise ValueError(f"it has no {name!r}, which {kind} needs")
        if isinstance(group[name], bool) and name not in _OF_EXECUTION and saved[name] is not group[name]:
            raise ValueError(f"it has {name}={saved[name]!r}, this {kind} {name}={group[name]!r}")
    if others := [name for name in saved if name not in (*group, *_OF_SCHEDULERS)]:
        raise ValueError(f"it has {others[0]!r}, which {kind} does not know")


def _keep_precision(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Put back what torch rounds as it loads: it gives each state the type of its weight, also a float32 copy."""
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, weight in zip(numbers, weights, strict=True):
        for name, value in saved["state"].get(number, {}).items():
            loaded = optimizer.state[weight].get(name)
            if isinstance(loaded, Tensor) and isinstance(value, Tensor) and loaded.dtype != value.dtype:
                optimizer.state[weight][name] = value.to(loaded.device, copy=True)
