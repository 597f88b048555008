"""Residual connections around a module or around the ``forward`` of a class."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from jimmy_manager.errors import ConfigError

Forward = TypeVar("Forward", bound=Callable[..., Tensor])


def makeItResidual(forward_func: Forward) -> Forward:
    """Decorate a ``forward(self, x, ...)`` so that it returns ``x + forward(self, x, ...)``.

    Raises ``ConfigError`` where the shapes of the two differ: broadcasting one to the other is hardly ever meant.
    """

    @functools.wraps(forward_func)
    def residual(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _add(x, forward_func(self, x, *args, **kwargs), self)

    return cast("Forward", residual)


class ResWrapper(nn.Module):
    """Add to its first input what ``module`` makes of it: ``x + module(x, ...)``, of the shape of ``x``.

    Raises ``ConfigError`` where ``module`` changes the shape.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _add(x, self.module(x, *args, **kwargs), self.module)


def _add(x: Tensor, change: Tensor, module: nn.Module) -> Tensor:
    if change.shape != x.shape:
        raise ConfigError(
            f"{type(module).__name__} turned shape {tuple(x.shape)!r} into {tuple(change.shape)!r}, "
            "so its input cannot be added to its output; keep the shape, or project the input yourself"
        )
    return x + change
