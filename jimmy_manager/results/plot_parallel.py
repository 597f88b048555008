"""Parallel coordinates: an axis for each field and metric, a line for each run, coloured by the first metric."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection

from jimmy_manager.better import is_more_better
from jimmy_manager.errors import ConfigError, KeyNotFound
from jimmy_manager.results import plot_data as data
from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_data import Runs
from jimmy_manager.results.plot_text import SIZE, SMALL, counted, fitted, label, number, wide

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

MOST_AXES = 12
_LEAST, _MOST = 1.45, 2.6
"""Inches from one axis to the next: what is written beside it must end before."""
_NAME_POINTS, _TICK_POINTS = _LEAST * 72 - 8, _MOST * 72 - 26
_ABSENT = -0.09


class _Axis(NamedTuple):
    """``places`` of the runs from 0 to 1, below 0 where the field is missing; ``ticks`` with their texts."""

    name: str
    places: list[float]
    ticks: list[tuple[float, str]]

    @property
    def room(self) -> float:
        """The inches that it takes with what is written beside it."""
        return max(_LEAST, min(_MOST, max(wide(text) for _, text in self.ticks) / 72 + 0.35))


def draw(
    store: Store, metrics: Iterable[str] | str | None, fields: Iterable[str] | str | None, where: Condition,
    ax: Axes | None,
) -> Figure | Axes:
    """See ``Plots.parallel``."""
    measured = [metrics] if isinstance(metrics, str) else list(metrics or ())
    chosen = [fields] if isinstance(fields, str) else list(fields) if fields is not None else None
    runs = data.read(store, None if chosen is None or not measured else [*chosen, *measured], where)
    if not measured:
        if not runs.numbers:
            raise KeyNotFound(f"no run in {store} has a number to colour the lines by")
        measured = [next((name for name in runs.numbers if not data.is_counter(name)), runs.numbers[0])]
    elif chosen is None:
        runs.columns.update(data.read(store, measured, where).columns)
    notes: list[str] = []
    if chosen is None:
        # A seed is no choice, but it is one when nothing else varies, as are fields that do not.
        varying = runs.varying()
        varying = [name for name in varying if name.rpartition(".")[2] != "seed"] or varying
        varying = varying or list(runs.fields[:5])
        chosen = varying[: MOST_AXES - len(measured)]
        if len(chosen) < len(varying):
            notes.append(f"{len(varying) - len(chosen)} more fields not shown")
    names = [*(name for name in dict.fromkeys(chosen) if name not in measured), *reversed(measured)]
    if len(names) > 2 * MOST_AXES:
        raise ConfigError(f"{len(names)} axes are too many to be read; name at most {2 * MOST_AXES} fields and metrics")
    runs, more = data.finite(runs, measured)
    given = ax
    if not runs.keys:
        ax = style.begin(ax)
        style.say(ax, f"no run has a finite {label(measured[0])}")
        return style.end(ax, given, [*notes, *more])
    axes = [_axis(runs, name) for name in names]
    xs = [sum(axis.room for axis in axes[:index]) for index in range(len(axes))]
    ax = _framed(ax, xs[-1] + axes[-1].room, max(len(axis.ticks) for axis in axes))
    best = _draw_lines(ax, xs, axes, runs, measured[0])
    for x, axis in zip(xs, axes, strict=True):
        _draw_axis(ax, x, axis)
    _draw_scale(ax, xs[-1], runs.columns[measured[0]])
    value = number(runs.columns[measured[0]][best])
    ax.set_title(counted(len(runs.keys)), loc="left", fontsize=SIZE, color=style.ink(ax), fontweight="bold")
    told = f"best: {runs.keys[best]}, {label(measured[0], 24)} {value}"
    ax.set_title(told, loc="right", fontsize=SIZE, color=style.ACCENT, fontweight="bold")
    return style.end(ax, given, [*notes, *more])


def _framed(ax: Axes | None, length: float, ticks: int) -> Axes:
    """Axes without a frame of their own, measured in inches; each coordinate gets a line."""
    ax = style.begin(ax, max(4.6, length + 0.9), max(4.2, min(9.0, 1.3 + 0.24 * ticks)))
    ax.set(xlim=(-0.6, max(length, 3.6)), ylim=(-0.12, 1.14), xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _axis(runs: Runs, name: str) -> _Axis:
    field = data.field(runs, name)
    if not field.is_numeric:
        steps = max(1, len(field.levels) - 1)
        at = [0.5] if len(field.levels) == 1 else [1 - place / steps for place in range(len(field.levels))]
        ticks = list(zip(at, fitted(field.levels, _TICK_POINTS), strict=True))
        return _Axis(name, [at[place] for place in field.places], ticks)
    values = [float(value) if value is not None else np.nan for value in runs.columns[name]]
    levels = [float(level) for level in field.levels if level is not None]
    is_log = style.spans_decades(levels, 8 if name in runs.fields else 30)
    low, high = min(levels), max(levels)

    def place(value: float) -> float:
        if low == high:
            return 0.5
        return float(np.log(value / low) / np.log(high / low) if is_log else (value - low) / (high - low))

    marks = levels if len(levels) <= style.FEW_TICKS else _marks(low, high, is_log=is_log)
    ticks = [(place(mark), number(mark, 3)) for mark in marks]
    if any(value is None for value in runs.columns[name]):
        ticks.insert(0, (_ABSENT, "none"))
    return _Axis(name, [_ABSENT if np.isnan(value) else place(value) for value in values], ticks)


def _marks(low: float, high: float, *, is_log: bool) -> list[float]:
    """Round values between ``low`` and ``high``, and these two."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    locator = LogLocator(numticks=6) if is_log else MaxNLocator(5)
    inner = [float(mark) for mark in locator.tick_values(low, high) if low < mark < high]
    return [low, *inner, high]


def _draw_lines(ax: Axes, xs: Sequence[float], axes: Sequence[_Axis], runs: Runs, metric: str) -> int:
    """Every run, the best one last and thick; its place."""
    values = [float(value) for value in runs.columns[metric]]
    best = int(np.argmax(values) if is_more_better(metric) else np.argmin(values))
    paths = np.array([axis.places for axis in axes]).T
    # The good ones on top: they are what is looked for.
    order = np.argsort(values)[:: 1 if is_more_better(metric) else -1]
    lines = LineCollection(
        [np.column_stack([xs, paths[index]]) for index in order], cmap=style.values_map(),
        norm=style.scale_of(values), linewidths=1.1, alpha=max(0.12, min(0.85, 8 / np.sqrt(len(values)))), zorder=1,
        rasterized=len(values) > 2000,
    )  # fmt: skip
    lines.set_array(np.array(values)[order])
    ax.add_collection(lines, autolim=False)
    ax.plot(xs, paths[best], color="white", linewidth=4.5, zorder=2)
    ax.plot(xs, paths[best], color=style.ACCENT, linewidth=2.4, marker="o", markersize=5, zorder=3)
    return best


def _draw_axis(ax: Axes, x: float, axis: _Axis) -> None:
    ax.plot([x, x], [0, 1], color=style.ink(ax), linewidth=1.0, zorder=4)
    (name,) = fitted([axis.name], _NAME_POINTS)
    ax.text(x, 1.06, name, ha="center", va="bottom", fontsize=SMALL, color=style.ink(ax), fontweight="bold")
    ticks = sorted(axis.ticks)
    ground = ax.get_facecolor()
    for which in style.apart(ax, "y", [place for place, _ in ticks], [text for _, text in ticks]):
        place, text = ticks[which]
        if place >= 0:
            ax.plot([x - 0.03, x + 0.03], [place, place], color=style.ink(ax), linewidth=1.0, zorder=4)
        ax.text(
            x + 0.08, place, text, ha="left", va="center", fontsize=SMALL - 0.5,
            color=style.ink(ax), zorder=5, bbox={"facecolor": ground, "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def _draw_scale(ax: Axes, x: float, values: Sequence[float]) -> None:
    """The colours along the metric's own axis, which saves a bar for them."""
    steps = np.linspace(0, 1, 65)
    norm, low, high = style.scale_of(values), min(values), max(values)
    is_log = style.spans_decades(values, 30)
    middles = (steps[:-1] + steps[1:]) / 2
    levels = low * (high / low) ** middles if is_log else low + (high - low) * middles
    pieces = [[(x, start), (x, stop)] for start, stop in itertools.pairwise(steps)]
    colours = style.values_map()(norm(levels))
    ax.add_collection(LineCollection(pieces, colors=colours, linewidths=6, capstyle="butt", zorder=4), autolim=False)
