"""Learning curves: a line for each group of runs, with a band over its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from jimmy_manager.better import is_more_better
from jimmy_manager.errors import ConfigError, KeyNotFound
from jimmy_manager.results import plot_data as data
from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_text import LONGEST, counted, label, labels, numbered

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

MOST_GROUPS = 14
"""More lines than this nobody tells apart: then the best are coloured and the others grey."""
HIGHLIGHTED = 7
MOST_PANELS = 9
MOST_POINTS = 1000


class Curve(NamedTuple):
    """The mean of some runs at ``x``, the band around it, and how many runs there were at most."""

    x: Any
    mean: Any
    low: Any
    high: Any
    runs: int


class _Group(NamedTuple):
    name: str
    keys: frozenset[str]


class _Panel(NamedTuple):
    """One tag: the runs of each group as ``(x, y)`` across epochs or steps."""

    tag: str
    across: str
    lines: list[list[tuple[Any, Any]]]
    is_log: bool


def draw(
    store: Store, tags: Iterable[str] | str | None, by: Iterable[str] | str | None, over: Iterable[str] | str,
    keys: Iterable[str] | str | None, where: Condition, ax: Axes | None,
) -> Figure | Axes:
    """See ``Plots.curves``."""
    frame = store.curves(keys, tags, where)
    if not len(frame):
        raise KeyNotFound(f"there is nothing to plot: no run in {store} has logged what was asked for")
    found = list(dict.fromkeys(frame["tag"]))
    if ax is not None and len(found) > 1:
        raise ConfigError(f"one axes shows one tag; name it with tags=: there are {', '.join(map(repr, found[:9]))}")
    fields, groups = _groups(store, _listed(by), _listed(over), set(frame["key"]), where)
    panels = [_panel(frame[frame["tag"] == tag], tag, groups) for tag in found[:MOST_PANELS]]
    axes = [ax] if ax is not None else _axes(len(panels), has_legend=len(groups) > 1)
    order = _ranked(frame, found[0], groups)
    many = [len(line) for panel in panels for line in panel.lines if len(line) > 1]
    # One legend explains all panels, so all have bands of one kind.
    is_interval = min(many, default=0) >= data.ENOUGH_FOR_AN_INTERVAL and not any(panel.is_log for panel in panels)
    is_ordered = _is_ordered(store, fields, where)
    for each, panel in zip(axes, panels, strict=False):
        _draw_panel(each, panel, groups, order, is_ordered=is_ordered, is_interval=is_interval)
        style.titled(each, label(panel.tag, 40))
    if many:
        told = f"{min(many)}" if min(many) == max(many) else f"{min(many)} to {max(many)}"
        meaning = "95 % interval" if is_interval else "min to max"
        axes[0].fill_between([], [], [], color=style.FAINT, alpha=0.25, label=f"{meaning} of {told} runs")
    if len(groups) > 1 or many:
        beside = axes[min(3, len(panels)) - 1]
        style.legend(beside, ", ".join(map(label, fields)), len(groups) - len(order), axes)
    return style.end(axes[0], ax, _notes(frame, found))


def averaged(runs: Sequence[tuple[Any, Any]], *, is_interval: bool) -> Curve:
    """The mean of curves, each ``(x, y)`` with ascending ``x``, where they have points at all.

    A run counts from its first to its last point, between them linearly: seeds may log at other steps.
    """
    grid = np.unique(np.concatenate([x for x, _ in runs]))
    if len(grid) > MOST_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MOST_POINTS).astype(int)]
    values = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in runs])
    there = np.isfinite(values)
    count = there.sum(0)
    values, grid, there, count = values[:, count > 0], grid[count > 0], there[:, count > 0], count[count > 0]
    mean = np.nansum(values, 0) / count
    if not is_interval:
        return Curve(grid, mean, np.nanmin(values, 0), np.nanmax(values, 0), len(runs))
    squares = np.where(there, (values - mean) ** 2, 0.0).sum(0)
    half = [
        data.interval(math.sqrt(total / (n - 1)), int(n)) if n >= data.ENOUGH_FOR_AN_INTERVAL else np.nan
        for total, n in zip(squares, count, strict=True)
    ]
    return Curve(grid, mean, mean - half, mean + half, len(runs))


def _groups(
    store: Store, by: list[str] | None, over: list[str], keys: set[str], where: Condition
) -> tuple[list[str], list[_Group]]:
    """The fields that tell the groups apart, and the runs of each."""
    runs = data.read(store, by, where)
    runs = runs.only(index for index, key in enumerate(runs.keys) if key in keys)
    fields = by if by is not None else [name for name in runs.varying() if name not in over]
    found = data.grouped(runs, fields)
    most = max(8, LONGEST // max(1, len(fields)))
    columns = [_shortened([values[index] for values, _ in found], most) for index in range(len(fields))]
    names = numbered([", ".join(parts) for parts in zip(*columns, strict=True)] or [""])
    return fields, [
        _Group(name, frozenset(runs.keys[index] for index in members))
        for name, (_, members) in zip(names, found, strict=True)
    ]


def _shortened(values: Sequence[Any], most: int) -> list[str]:
    """Labels, alike for values that are."""
    distinct = {data.identity(value): value for value in values}
    short = dict(zip(distinct, labels(list(distinct.values()), most), strict=True))
    return [short[data.identity(value)] for value in values]


def _ranked(frame: pd.DataFrame, tag: str, groups: list[_Group]) -> list[int]:
    """The groups that get a colour: all, or of too many those that end best."""
    if len(groups) <= MOST_GROUPS:
        return list(range(len(groups)))
    part = frame[(frame["tag"] == tag) & np.isfinite(frame["value"].astype(float))]
    last = part.groupby("key")["value"].last().to_dict()
    ends = {
        index: float(np.mean(held)) for index, group in enumerate(groups)
        if (held := [last[key] for key in group.keys if key in last])
    }  # fmt: skip
    best = sorted(ends, key=lambda index: -ends[index] if is_more_better(tag) else ends[index])
    return best[:HIGHLIGHTED]


def _panel(frame: pd.DataFrame, tag: str, groups: list[_Group]) -> _Panel:
    # TensorBoard knows no epochs, evaluations perhaps no steps.
    across = "epoch" if frame["epoch"].notna().sum() >= frame["step"].notna().sum() else "step"
    curves = _curves_by_key(frame, across)
    lines = [[curves[key] for key in sorted(group.keys) if key in curves] for group in groups]
    return _Panel(tag, across, lines, style.spans_decades((value for _, y in curves.values() for value in y), 30))


def _draw_panel(
    ax: Axes, panel: _Panel, groups: list[_Group], order: list[int], *, is_ordered: bool, is_interval: bool
) -> None:
    if not any(panel.lines):
        style.say(ax, "no finite value")
        return
    ax.set(xlabel=panel.across)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    colours = dict(zip(order, style.colours(ax, len(order), is_ordered=is_ordered), strict=True))
    for index in (*(index for index in range(len(groups)) if index not in colours), *order):
        if not panel.lines[index]:
            continue
        curve = averaged(panel.lines[index], is_interval=is_interval)
        if index not in colours:
            ax.plot(curve.x, curve.mean, color=style.PALE, linewidth=0.8, zorder=1)
            continue
        ax.plot(
            curve.x, curve.mean, color=colours[index], linewidth=1.7, label=groups[index].name, zorder=3,
            linestyle=style.pattern(0 if is_ordered else order.index(index)),
            marker="o" if len(curve.x) == 1 else None,
        )  # fmt: skip
        if curve.runs > 1:
            ax.fill_between(curve.x, curve.low, curve.high, color=colours[index], alpha=0.18, linewidth=0, zorder=2)
    if panel.is_log:
        ax.set_yscale("log")


def _curves_by_key(frame: pd.DataFrame, across: str) -> dict[str, tuple[Any, Any]]:
    """The finite points of each run in order; of several at one place the one written last."""
    part = frame.assign(value=frame["value"].astype(float))
    part = part[np.isfinite(part["value"]) & part[across].notna()].sort_values(["key", across, "at"], kind="stable")
    part = part.drop_duplicates(["key", across], keep="last")
    return {
        str(key): (run[across].to_numpy(float), run["value"].to_numpy(float))
        for key, run in part.groupby("key", sort=False)
    }


def _notes(frame: pd.DataFrame, tags: list[str]) -> list[str]:
    notes = []
    broken = frame[~np.isfinite(frame["value"].astype(float))]
    if len(broken):
        values, runs = counted(len(broken), "value"), counted(broken["key"].nunique())
        notes.append(f"left out: {values} of {runs}, not finite")
    if len(tags) > MOST_PANELS:
        notes.append(f"{len(tags) - MOST_PANELS} more tags not shown")
    return notes


def _axes(count: int, *, has_legend: bool) -> list[Axes]:
    columns = min(count, 3)
    rows = -(-count // 3)
    wide = (5.4, 8.4, 11.4)[columns - 1] + 1.6 * has_legend
    figure = style.blank(wide, 3.9 if count == 1 else 3.0 * rows)
    return [style.dressed(figure.add_subplot(rows, columns, index + 1)) for index in range(count)]


def _is_ordered(store: Store, fields: list[str], where: Condition) -> bool:
    return len(fields) == 1 and data.field(data.read(store, fields, where), fields[0]).is_numeric


def _listed(names: Iterable[str] | str | None) -> Any:
    return names if names is None else [names] if isinstance(names, str) else list(names)
