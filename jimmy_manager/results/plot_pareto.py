"""Two metrics against each other, with the runs that no other run beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jimmy_manager.better import is_more_better
from jimmy_manager.errors import ConfigError
from jimmy_manager.results import plot_data as data
from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_labels import annotate
from jimmy_manager.results.plot_text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

_Point = tuple[float, float]

MOST_LABELS = 12
# The step between two runs of the front goes through the corner that both beat: what lies beyond it they do not.
_STEPS: dict[tuple[str, ...], Literal["pre", "post"]] = {
    ("min", "min"): "post", ("min", "max"): "post", ("max", "min"): "pre", ("max", "max"): "pre",
}  # fmt: skip


def draw(
    store: Store, x: str, y: str, modes: Sequence[str] | None, where: Condition, ax: Axes | None
) -> Figure | Axes:
    """See ``Plots.pareto``."""
    names = (x, y)
    wanted = tuple(modes) if modes is not None else tuple("max" if is_more_better(name) else "min" for name in names)
    if len(wanted) != 2 or not set(wanted) <= {"min", "max"}:
        raise ConfigError(f"modes are two of 'min' and 'max', one for each metric; there were {modes!r}")
    runs, notes = data.finite(data.read(store, names, where), names)
    given, ax = ax, style.begin(ax, 6.6, 4.8)
    points = [(float(a), float(b)) for a, b in zip(runs.columns[x], runs.columns[y], strict=True)]
    for which, name, mode in zip("xy", names, wanted, strict=True):
        style.name_axis(ax, which, name, f" ({'lower' if mode == 'min' else 'higher'} is better)")
    if not points:
        style.say(ax, "no run has both as finite numbers")
        return style.end(ax, given, notes)
    best = front(points, wanted)
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    ax.scatter(xs, ys, s=20, color="#9a9a9a", alpha=max(0.25, min(0.8, 15 / len(xs) ** 0.5)), linewidths=0, zorder=2)
    edge = sorted({points[index] for index in best})
    front_x, front_y = [point[0] for point in edge], [point[1] for point in edge]
    ax.step(front_x, front_y, where=_STEPS[wanted], color=style.CATEGORIES[0], linewidth=1.4, zorder=3)
    ax.scatter(front_x, front_y, s=38, color=style.CATEGORIES[0], edgecolors="white", linewidths=0.8, zorder=4)
    for which, values in (("x", xs), ("y", ys)):
        if style.spans_decades(values, 30):
            ax.set(**{f"{which}scale": "log"})
    ax.margins(0.1)
    style.titled(ax, f"{counted(len(best))} of {len(points)} that no other beats in both")
    style.end(ax, given, notes)  # before the labels: it moves the picture
    chosen = _far_apart(ax.transData.transform(edge), MOST_LABELS)
    texts = _texts(edge, points, runs.keys)
    towards = tuple(-1.0 if mode == "min" else 1.0 for mode in wanted)
    annotate(
        ax, [edge[index] for index in chosen], [texts[index] for index in chosen], towards=(towards[0], towards[1]),
        crowd=edge if len(points) > 200 else points, line=edge, is_post=_STEPS[wanted] == "post",
    )  # fmt: skip
    return style.end(ax, given)


def front(points: Sequence[_Point], modes: Sequence[str] = ("min", "min")) -> list[int]:
    """The points that no other is at least as good as in both and better in one; equal ones all of them.

    >>> front([(1, 3), (2, 2), (3, 1), (3, 3), (2, 2)])
    [0, 1, 2, 4]
    """
    signs = [1 if mode == "min" else -1 for mode in modes]
    signed = [(signs[0] * a, signs[1] * b) for a, b in points]
    best: list[int] = []
    lowest, last = float("inf"), None
    for index in sorted(range(len(points)), key=signed.__getitem__):
        if signed[index][1] < lowest or signed[index] == last:
            best.append(index)
            lowest, last = signed[index][1], signed[index]
    return sorted(best)


def _texts(edge: Sequence[_Point], points: Sequence[_Point], keys: Sequence[str]) -> list[str]:
    """The keys of the runs at each point of the front; of several the first and how many more."""
    at: dict[_Point, list[str]] = {}
    for point, key in zip(points, keys, strict=True):
        at.setdefault(point, []).append(key)
    return [at[point][0] + (f" +{len(at[point]) - 1}" if len(at[point]) > 1 else "") for point in edge]


def _far_apart(places: Any, most: int) -> list[int]:
    """Some of the places along a line, its ends among them, as evenly as they lie."""
    if len(places) <= most:
        return list(range(len(places)))
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(places, axis=0).T))])
    return sorted({int(np.abs(along - along[-1] * step / (most - 1)).argmin()) for step in range(most)})
