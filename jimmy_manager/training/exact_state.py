"""The state of a whole training in one dictionary, which nothing can be missing from unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from jimmy_manager import random_state
from jimmy_manager.errors import CheckpointError
from jimmy_manager.state_files import leaves
from jimmy_manager.training.process_group import ProcessGroup

FORMAT = 1
# The file of the rate is where the log is, and with the first of several processes only.
_OPTIONAL = ("rate",)


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
    """Raise ValueError for what would be loaded without a word: another optimizer's state, or a scheduler's by none."""
    if isinstance(part, Optimizer):
        if missing := [name for name in part.defaults if name not in saved["param_groups"][0]]:
            raise ValueError(f"it has no {missing[0]!r}, which {type(part).__name__} needs")
    elif saved and not part.state_dict():
        raise ValueError("this training has none")
