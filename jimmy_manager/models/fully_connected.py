"""Fully connected layers with activations between them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.layer_stack import LayerStack


class FCLayers(LayerStack):
    """Linear layers through the widths of ``channel_list``: (..., channel_list[0]) -> (..., channel_list[-1]).

    ``act`` is an instance, such as ``nn.ReLU()``; it stands after each layer but the last, which ``final_act`` follows
    if given. Each place gets a copy of its own, so that an activation with parameters (``nn.PReLU()``) learns them per
    layer; the instance passed in stays outside.

    Raises ``ConfigError`` for fewer than two widths and for an activation that is no module.

    >>> FCLayers([2, 8, 1], nn.ReLU(), final_act=nn.Sigmoid())
    FCLayers(
      (0): Linear(in_features=2, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=1, bias=True)
      (3): Sigmoid()
    )
    """

    def __init__(self, channel_list: Sequence[int], act: nn.Module, final_act: nn.Module | None = None) -> None:
        if len(channel_list) < 2:
            raise ConfigError(
                f"channel_list={channel_list!r} makes no layer; give the width of input and output at least"
            )
        _check_activation("act", act)
        if final_act is not None:
            _check_activation("final_act", final_act)
        super().__init__(*_layers(channel_list, act, final_act))


MLP = FCLayers
"""The other name of `FCLayers`."""


def _layers(channel_list: Sequence[int], act: nn.Module, final_act: nn.Module | None) -> Iterator[nn.Module]:
    for position, (c_in, c_out) in enumerate(pairwise(channel_list)):
        if position:
            yield copy.deepcopy(act)
        yield nn.Linear(c_in, c_out)
    if final_act is not None:
        yield copy.deepcopy(final_act)


def _check_activation(name: str, act: object) -> None:
    if not isinstance(act, nn.Module):
        raise ConfigError(f"{name}={act!r} is not an instance of nn.Module; pass one, such as nn.ReLU()")
