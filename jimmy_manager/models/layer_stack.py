"""The base of blocks that are a sequence of layers and build these layers themselves."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn


class LayerStack(nn.Sequential):
    """An ``nn.Sequential`` whose subclasses build their layers from arguments of their own.

    A slice is a plain ``nn.Sequential`` that shares the layers. ``nn.Sequential`` itself would make it by calling the
    constructor of the subclass, which takes no layers.
    """

    def __getitem__(self, idx: int | slice) -> Any:
        if isinstance(idx, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[idx]))
        return super().__getitem__(idx)
