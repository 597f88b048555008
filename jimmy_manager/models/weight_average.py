"""An exponential moving average of a model's weights, kept beside the model."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jimmy_manager.errors import CheckpointError

# Not kept by the average: a closure, with which no model could be pickled.
_blend_of = functools.cache(get_ema_multi_avg_fn)


class WeightAverage:
    """``average = decay * average + (1 - decay) * weight`` for every trained parameter, from the weights of the start.

    Buffers are not averaged: in evaluation those of the model itself are used.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        self._names = [name for name, _ in named]
        self._weights = [each for _, each in named]
        self._averages = [each.detach().clone() for each in self._weights]
        self._decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """Blend the present weights in; called after each step of the optimizer."""
        _blend_of(self._decay)(self._averages, self._weights, 0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with the averages inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again from the present weights."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.copy_(weight)

    @torch.no_grad()
    def settle(self) -> None:
        """Give the model the averages for good."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.copy_(average)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self._names, self._averages, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the averages over; ``CheckpointError`` names one that is missing or of another shape."""
        for name, average in zip(self._names, self._averages, strict=True):
            if name not in state:
                raise CheckpointError(f"the checkpoint has no average of the weight {name!r}")
            if state[name].shape != average.shape:
                raise CheckpointError(
                    f"the average of {name!r} has shape {tuple(state[name].shape)}, not {tuple(average.shape)}"
                )
            average.copy_(state[name])

    def _swap(self) -> None:
        for place, weight in enumerate(self._weights):
            weight.data, self._averages[place] = self._averages[place], weight.data
