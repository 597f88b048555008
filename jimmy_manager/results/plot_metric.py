"""A metric against one field or two: a line, points, a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jimmy_manager.errors import ConfigError
from jimmy_manager.results import plot_data as data
from jimmy_manager.results import plot_one_field, plot_two_fields
from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_data import View
from jimmy_manager.results.plot_text import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

KINDS = ("line", "points", "heat")
MOST_LEVELS = 30


def draw(
    store: Store, metric: str, by: str, by2: str | None, kind: str | None, where: Condition, ax: Axes | None
) -> Figure | Axes:
    """See ``Plots.metric``."""
    if kind not in (None, *KINDS):
        raise ConfigError(f"there is no kind {kind!r} of figure; there are {', '.join(KINDS)}")
    if kind == "heat" and by2 is None:
        raise ConfigError("a heat map needs a second field, by2")
    names = [by] if by2 is None else [by, by2]
    runs, notes = data.finite(data.read(store, [metric, *names], where), [metric])
    for name in names:
        if data.field(runs, name).is_numeric:
            runs, more = data.having(runs, name)
            notes += more
    title = f"{label(metric)} by {' and '.join(map(label, names))}"
    if not runs.keys:
        given, ax = ax, style.begin(ax)
        style.titled(ax, title)
        style.say(ax, f"no run has a finite {label(metric)}")
        return style.end(ax, given, notes)
    view = View(metric, runs.columns[metric], [data.field(runs, name) for name in names], notes)
    kind = kind or _kind(view)
    if kind == "line":
        drawn = plot_one_field.draw_lines(view, ax)
    elif kind == "heat":
        drawn = plot_two_fields.draw_heat(view, ax)
    else:
        drawn = (plot_two_fields if by2 is not None else plot_one_field).draw_points(view, ax)
    style.titled(drawn, title)
    return style.end(drawn, ax, notes)


def _kind(view: View) -> str:
    is_small = [len(field.levels) <= MOST_LEVELS for field in view.fields]
    if len(view.fields) == 2:
        return "heat" if all(is_small) else "points"
    return "line" if view.fields[0].is_numeric and is_small[0] else "points"
