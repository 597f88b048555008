"""A metric against one field: a line of means, points, or rows of points; and lines for a second field."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jimmy_manager.results import plot_data as data
from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_data import Field, View
from jimmy_manager.results.plot_text import label, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 14
MOST_ROWS = 30


def draw_lines(view: View, ax: Axes | None) -> Axes:
    """The mean at each value of the first field, a line for each of the second, over the runs as faint dots."""
    count_x = 0 if view.fields[0].is_numeric else len(view.fields[0].levels)
    ax = style.begin(ax, (6.6 if len(view.fields) == 1 else 7.6) + 0.1 * count_x)
    first, second = view.fields[0], view.fields[1] if len(view.fields) == 2 else None
    count = len(second.levels) if second else 1
    colours = style.colours(ax, count, is_ordered=bool(second and second.is_numeric))
    names = labels(second.levels) if second else [""]
    cells = view.cells()
    enough = all(len(cell) >= data.ENOUGH_FOR_AN_INTERVAL for cell in cells.values() if len(cell) > 1)
    is_interval = enough and not style.spans_decades(view.values, 30)
    put = first.levels if first.is_numeric else list(range(len(first.levels)))
    shown = min(count, MOST_LINES)
    # Between categories there is room, so that bars stand beside each other.
    beside = [0.0 if first.is_numeric else 0.5 * ((line + 0.5) / shown - 0.5) for line in range(shown)]
    for line in range(shown):
        mine = {put[place] + beside[line]: cell for (place, other), cell in sorted(cells.items()) if other == line}
        _draw_line(ax, mine, colours[line], style.pattern(line), names[line], is_interval=is_interval)
    if second:
        style.legend(ax, label(second.name), max(0, count - MOST_LINES))
    style.name_axis(ax, "x", first.name)
    _scale_metric(ax, "y", view)
    if first.is_numeric:
        style.scale_axis(ax, "x", first.levels)
    else:
        style.name_levels(ax, "x", first.levels)
    if counts := view.counts():
        meaning = "95 % interval" if is_interval else "least and greatest"
        view.notes.insert(0, f"dots: runs; line: mean of {counts}; bars: {meaning}")
    return ax


def _draw_line(
    ax: Axes, cells: dict[float, list[float]], colour: Any, pattern: str, name: str, *, is_interval: bool
) -> None:
    dots = [(x, value) for x, cell in cells.items() for value in cell if len(cell) > 1]
    xs, ys = [x for x, _ in dots], [y for _, y in dots]
    ax.scatter(xs, ys, s=12, color=colour, alpha=0.35, linewidths=0)
    errors = [_error(cell, is_interval=is_interval) for cell in cells.values()]
    ax.errorbar(
        list(cells), list(map(statistics.fmean, cells.values())),
        list(zip(*errors, strict=True)) if any(map(any, errors)) else None, color=colour, marker="o", markersize=5,
        linewidth=1.6, linestyle=pattern, elinewidth=1.2, capsize=3, label=name,
    )  # fmt: skip


def draw_points(view: View, ax: Axes | None) -> Axes:
    """Every run: over a numeric field where it stands, else in the row of its category."""
    (field,) = view.fields
    if not field.is_numeric:
        return _draw_strips(view, field, ax)
    ax = style.begin(ax)
    xs = [field.levels[place] for place in field.places]
    ax.scatter(xs, view.values, s=22, color=style.CATEGORIES[0], alpha=_alpha(len(xs)), linewidths=0)
    style.scale_axis(ax, "x", field.levels)
    style.name_axis(ax, "x", field.name)
    _scale_metric(ax, "y", view)
    return ax


def _draw_strips(view: View, field: Field, ax: Axes | None) -> Axes:
    """A row for each category, so that its name may be long: its runs, their quartiles and their median."""
    rows: list[list[float]] = [[] for _ in field.levels]
    for place, value in zip(field.places, view.values, strict=True):
        rows[place].append(value)
    kept = sorted(sorted(range(len(rows)), key=lambda row: -len(rows[row]))[:MOST_ROWS])
    if len(kept) < len(rows):
        view.notes.append(f"{len(rows) - len(kept)} more values of {label(field.name)} not shown")
    ax = style.begin(ax, 6.6, 1.6 + 0.3 * max(len(kept), 3))
    for height, row in enumerate(kept):
        values = sorted(rows[row])
        heights = [height + data.aside(index) for index in range(len(values))]
        ax.scatter(
            values, heights if len(values) > 1 else [height], s=18, color=style.CATEGORIES[0],
            alpha=_alpha(len(values) * 3), linewidths=0, zorder=3,
        )  # fmt: skip
        if len(values) > 3:
            low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
            ax.barh(height, high - low, left=low, height=0.72, color="#56B4E9", alpha=0.3, zorder=2)
            ax.plot([middle, middle], [height - 0.36, height + 0.36], color=style.ACCENT, linewidth=2, zorder=4)
    ax.set_yticks(range(len(kept)), labels([field.levels[row] for row in kept]))
    ax.set_ylim(len(kept) - 0.4, -0.6)
    style.name_axis(ax, "y", field.name)
    _scale_metric(ax, "x", view)
    if any(len(values) > 3 for values in rows):
        view.notes.insert(0, "bars: the middle half of the runs; line: median")
    return ax


def _error(cell: Sequence[float], *, is_interval: bool) -> tuple[float, float]:
    """How far the bar of a mean reaches below and above it."""
    if len(cell) < 2:
        return 0.0, 0.0
    mean = statistics.fmean(cell)
    if is_interval:
        half = data.interval(statistics.stdev(cell), len(cell))
        return half, half
    return max(0.0, mean - min(cell)), max(0.0, max(cell) - mean)  # three times 0.1 have a mean above 0.1


def _alpha(count: int) -> float:
    return max(0.15, min(0.85, 12 / math.sqrt(max(count, 1))))


def _scale_metric(ax: Axes, which: str, view: View) -> None:
    if style.spans_decades(view.values, 30):
        ax.set(**{f"{which}scale": "log"})
    style.name_axis(ax, which, view.metric)
