"""Where a training loop stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jimmy_manager.errors import CheckpointError


@dataclass
class LoopState:
    """Where training stands: ``epoch`` passes are behind the model, and ``batch`` batches of the one in progress.

    A pass has ``n_batches``. ``step`` counts the batches since the start, ``best`` is the lowest main loss of an
    evaluation, ``has_ended`` tells of an early stop, ``top_rate`` is the highest learning rate so far. ``order`` is
    what gives the pass in progress, or else the next one, its order.
    """

    n_batches: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    top_rate: float = 0.0
    has_ended: bool = False
    order: Mapping[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the loop where it stood; ``CheckpointError`` names what is missing."""
        for each in fields(self):
            if each.name not in state:
                raise CheckpointError(f"the checkpoint does not say {each.name!r} of the loop, so it cannot be resumed")
        if state["batch"] and state["n_batches"] != self.n_batches:
            raise CheckpointError(
                f"the checkpoint was saved after batch {state['batch']} of {state['n_batches']}, but a pass over this "
                f"training set has {self.n_batches}; resume with the same data, batch_size and drop_last"
            )
        for each in fields(self):
            if each.name != "n_batches":
                setattr(self, each.name, state[each.name])
