"""The types of values that can be logged: which values are of a type, and how they are written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_CHANNELS = (1, 3, 4)


class ValueType(NamedTuple):
    """A type of values: its name, what it takes in words, whether a value is one, and how one is written."""

    name: str
    takes: str
    accepts: Callable[[Any], bool]
    write: Callable[[SummaryWriter, str, Any, int], None]


def described(value: Any) -> str:
    """Say what a value is, for an error.

    >>> described(torch.zeros(2, 3)), described('text')
    ('a Tensor of shape (2, 3)', "'text' of type str")
    """
    if hasattr(value, "shape"):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} of type {type(value).__name__}"


def close_figures(value: Any) -> None:
    """Close ``value`` where it is a figure of matplotlib's or a list with some; open ones would fill the memory."""
    if "matplotlib.figure" not in sys.modules:
        return
    for each in value if isinstance(value, list) else (value,):
        if _is_figure(each):
            from matplotlib import pyplot

            pyplot.close(each)


def is_scalar(value: Any) -> bool:
    """Whether ``value`` is one real number, or a 0-d tensor or array of one."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_complex()
    if isinstance(value, np.ndarray | np.generic):
        return value.ndim == 0 and value.dtype.kind in "buif"
    return isinstance(value, Real)


def _is_figure(value: Any) -> bool:
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def _is_figures(value: Any) -> bool:
    return all(map(_is_figure, value)) and bool(value) if isinstance(value, list) else _is_figure(value)


def _is_numbers(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_complex()
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "buif"
    return isinstance(value, list | tuple) and all(map(is_scalar, value))


def _is_image(value: Any) -> bool:
    if not isinstance(value, Tensor | np.ndarray) or not _is_numbers(value):
        return False
    return value.ndim == 2 or (value.ndim in (3, 4) and value.shape[-3] in _CHANNELS)


def _write_scalar(writer: SummaryWriter, tag: str, value: Any, step: int) -> None:
    writer.add_scalar(tag, float(value.item() if hasattr(value, "item") else value), step)


def _write_figure(writer: SummaryWriter, tag: str, value: Any, step: int) -> None:
    writer.add_figure(tag, value, step, close=False)


def _write_histogram(writer: SummaryWriter, tag: str, value: Any, step: int) -> None:
    values = torch.as_tensor(value).detach().to("cpu", torch.float64)
    finite = values[values.isfinite()]
    if not len(finite):
        raise ValueError(f"none of its {values.numel()} values is finite")
    writer.add_histogram(tag, finite, step)


def _write_image(writer: SummaryWriter, tag: str, value: Any, step: int) -> None:
    pixels = torch.as_tensor(value).detach().cpu()
    if pixels.dtype != torch.uint8:
        pixels = pixels.float().nan_to_num(0.0)
    writer.add_image(tag, pixels, step, dataformats={2: "HW", 3: "CHW", 4: "NCHW"}[pixels.ndim])


def _write_text(writer: SummaryWriter, tag: str, value: Any, step: int) -> None:
    writer.add_text(tag, value, step)


TYPES = {
    each.name: each
    for each in (
        ValueType("scalar", "a number or a 0-d tensor", is_scalar, _write_scalar),
        ValueType("figure", "a Figure of matplotlib or a list of them", _is_figures, _write_figure),
        ValueType("histogram", "a tensor, an array or a list of real numbers", _is_numbers, _write_histogram),
        ValueType(
            "image", "a tensor or array (H, W), (C, H, W) or (B, C, H, W) with C of 1, 3 or 4", _is_image, _write_image
        ),
        ValueType("text", "a str", lambda value: isinstance(value, str), _write_text),
    )
}
