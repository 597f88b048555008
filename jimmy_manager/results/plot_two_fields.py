"""A metric against two fields: as cells of a heat map, or as the colour of points."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_data import View, aside
from jimmy_manager.results.plot_text import SMALL, labels, number, wide

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_points(view: View, ax: Axes | None) -> Axes:
    """Two fields as axes, the metric as colour."""
    first, second = view.fields
    ax = style.begin(ax, 7.0, 4.6 if second.is_numeric else max(4.6, 1.6 + 0.24 * len(second.levels)))
    order = sorted(range(len(view.values)), key=view.values.__getitem__)
    rank = dict(zip(order, range(len(order)), strict=True))
    places = [
        [
            field.levels[place] if field.is_numeric else place + aside(rank[run])
            for run, place in enumerate(field.places)
        ]
        for field in view.fields
    ]
    norm = style.scale_of(view.values)
    drawn = ax.scatter(
        places[0], places[1], s=30, c=view.values, cmap=style.values_map(), norm=norm, edgecolors="white",
        linewidths=0.4,
    )  # fmt: skip
    style.colour_bar(ax, drawn, view.values)
    for which, field in (("x", first), ("y", second)):
        style.name_axis(ax, which, field.name)
        if field.is_numeric:
            style.scale_axis(ax, which, field.levels)
        else:
            style.name_levels(ax, which, field.levels)
    return ax


def draw_heat(view: View, ax: Axes | None) -> Axes:
    """The mean of each pair of values as a cell with its number."""
    first, second = view.fields
    columns, high = len(first.levels), len(second.levels)
    cells = {place: statistics.fmean(cell) for place, cell in view.cells().items()}
    texts = _alike(cells)
    longest = max(map(len, texts.values()))
    cell = 0.24 + 0.075 * longest
    upright = max(map(wide, labels(first.levels, 24))) / 72
    below = upright if upright + 0.1 > max(cell, 1.9 / columns) else 0.0
    ax = style.begin(ax, max(4.8, 2.9 + columns * cell), max(3.0, 1.5 + high * 0.34) + below)
    norm = style.scale_of(list(cells.values()))
    grid = [[cells.get((x, y), math.nan) for x in range(columns)] for y in range(high)]
    drawn = ax.imshow(grid, cmap=style.values_map(), norm=norm, aspect="auto", interpolation="nearest")
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_xticks([edge - 0.5 for edge in range(1, columns)], minor=True)
    ax.set_yticks([edge - 0.5 for edge in range(1, high)], minor=True)
    ax.grid(True, which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="minor", length=0)
    for (x, y), text in texts.items():
        red, green, blue, _ = style.values_map()(norm(cells[x, y]))
        # Relative luminance as WCAG weighs it, roughly: either ink then has a contrast of 4.5 or nearly so.
        is_light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
        ax.text(x, y, text, ha="center", va="center", fontsize=SMALL, color="black" if is_light else "white")
    if second.is_numeric:
        ax.invert_yaxis()
    style.colour_bar(ax, drawn, list(cells.values()))
    style.name_axis(ax, "x", first.name)
    for which, field in (("x", first), ("y", second)):
        style.name_levels(ax, which, field.levels)
    style.name_axis(ax, "y", second.name)
    if counts := view.counts():
        view.notes.insert(0, f"each cell: mean of {counts} runs")
    return ax


def _alike(cells: dict[tuple[int, int], float]) -> dict[tuple[int, int], str]:
    """Each number in three digits, with as many decimals as the others where that is short."""
    largest = max(map(abs, cells.values()))
    smallest = min((abs(value) for value in cells.values() if value), default=1.0)
    if smallest >= 1e-3 and largest < 1e4 and largest / smallest < 1e3:
        if all(value == int(value) for value in cells.values()):
            return {place: f"{value:.0f}" for place, value in cells.items()}
        decimals = min(4, max(0, 2 - math.floor(math.log10(largest))))
        return {place: f"{value:.{decimals}f}" for place, value in cells.items()}
    return {place: number(value, 3) for place, value in cells.items()}
