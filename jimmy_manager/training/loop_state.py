"""Where a training loop stands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jimmy_manager.errors import CheckpointError

log = logging.getLogger(__name__)

_OF_LOOP = ("epoch", "batch", "step", "best", "eval_losses", "top_rate", "has_ended")
_OF_SETS = ("n_samples", "n_batches", "order", "eval_order")


@dataclass
class LoopState:
    """Where training stands: ``epoch`` passes are behind the model, and ``batch`` batches of the one in progress.

    ``step`` counts the batches since the start, ``best`` is the lowest main loss of an evaluation, ``eval_losses`` are
    those of the last one, ``has_ended`` tells of an early stop, ``top_rate`` is the highest learning rate so far.
    ``order`` is what gives the pass in progress its order. Between passes the orders to come are those that the sets
    tell of when they are asked.
    """

    train_set: Any = field(repr=False)
    eval_set: Any = field(default=None, repr=False)
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    eval_losses: dict[str, float] = field(default_factory=dict)
    top_rate: float = 0.0
    has_ended: bool = False
    order: Mapping[str, Any] | None = field(default=None, repr=False)
    _restored: Mapping[str, Any] | None = field(default=None, repr=False)

    def state_dict(self) -> dict[str, Any]:
        order = self.order if self.batch else self.train_set.state_dict()
        eval_order = None if self.eval_set is None else self.eval_set.state_dict()
        of_sets = (_samples_of(self.train_set), self.train_set.n_batches, order, eval_order)
        return {name: getattr(self, name) for name in _OF_LOOP} | dict(zip(_OF_SETS, of_sets, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the loop where it stood; ``CheckpointError`` names what is missing. `restore_orders` has to follow."""
        for name in (*_OF_LOOP, *_OF_SETS):
            if name not in state:
                raise CheckpointError(f"the checkpoint does not say {name!r} of the loop, so it cannot be resumed")
        for name in _OF_LOOP:
            setattr(self, name, state[name])
        self.order, self._restored = state["order"], state

    def restore_orders(self) -> None:
        """Give the sets the orders that `load_state_dict` told of, or that of the pass in progress.

        Changes torch's global generator where a set draws from it. Raises ``CheckpointError`` where in the middle of a
        pass the training set is of another size than then: others of its samples would be left out.
        """
        state, self._restored = self._restored, None
        if state is not None and self.eval_set is not None and state["eval_order"] is not None:
            self.eval_set.load_state_dict(state["eval_order"])
        if self.order is not None:
            self.train_set.load_state_dict(self.order)
        if state is not None:
            self._check_size(state)

    def _check_size(self, state: Mapping[str, Any]) -> None:
        sizes = {"batches": self.train_set.n_batches, "samples": _samples_of(self.train_set)}
        for unit, now in sizes.items():
            then = state[f"n_{unit}"]
            if now != then and self.batch:
                raise CheckpointError(
                    f"the checkpoint was saved after batch {self.batch} of a pass of {then} {unit}, but a pass over "
                    f"this training set has {now}; resume with the same data, batch_size and drop_last"
                )
            if now != then:
                log.warning("a pass has %s %s, not %s as in the checkpoint, so it is another training", now, unit, then)
                return


def _samples_of(dataset: Any) -> int:
    """The number of samples; ``len`` of a loader that reads ahead is that of its batches."""
    return int(dataset.n_samples if hasattr(dataset, "n_samples") else len(dataset))
