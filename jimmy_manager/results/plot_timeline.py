"""The timeline of a sweep: a row for each worker, a bar for each time that it held a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from matplotlib import dates
from matplotlib.patches import Patch

from jimmy_manager.errors import KeyNotFound
from jimmy_manager.results import plot_style as style
from jimmy_manager.results.plot_text import SMALL, counted, label, labels, wide
from jimmy_manager.results.stretches import Stretch, read_stretches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

COLOURS = {"done": "#009E73", "running": "#56B4E9", "paused": "#0072B2", "failed": "#D55E00", "lost": "#E69F00"}
MOST_ROWS = 40
_HIGH = 0.7
_DAY_S = 86_400.0


def draw(store: Store, where: Condition, ax: Axes | None) -> Figure | Axes:
    """See ``Plots.timeline``."""
    states = store.table(where, ["state"])["state"]
    stretches, damage = read_stretches(store, dict(zip(map(str, states.index), states.tolist(), strict=True)))
    if not stretches:
        raise KeyNotFound(f"there is nothing to plot: no run in {store} was trained yet")
    notes = [f"not read: {label(damage[0], 100)}"] if damage else []
    if len(damage) > 1:
        notes[0] += f" and {len(damage) - 1} more"
    rows = lanes(stretches)
    given, ax = ax, style.begin(ax, 9.0, min(14.0, 1.5 + 0.3 * max(len(rows), 3)))
    first, last = stretches[0].start, max(stretch.end for stretch in stretches)
    least = max(last - first, 1.0) * 0.002
    for row, members in enumerate(rows.values()):
        _draw_row(ax, row, members, last, least)
    _name_rows(ax, rows)
    _date(ax, first, max(last, first + 10.0))
    told = f"{counted(len({each.key for each in stretches}))} by {_workers(stretches)}"
    style.titled(ax, f"{told} in {_duration(last - first)}", above=20)
    _explain(ax, stretches)
    style.end(ax, given, notes)
    _write_keys(ax, rows, last)
    return style.end(ax, given)


def lanes(stretches: Sequence[Stretch]) -> dict[str, list[Stretch]]:
    """The rows from top to bottom, by their names: a worker each, or of many workers those of a node one by one."""
    by_worker: dict[tuple[str, str], list[Stretch]] = {}
    for stretch in stretches:
        by_worker.setdefault((stretch.node, stretch.worker), []).append(stretch)
    workers = sorted(by_worker.items(), key=lambda item: (item[0][0], item[1][0].start, item[0][1]))
    if len(workers) <= MOST_ROWS:
        return {worker: members for (_, worker), members in workers}
    packed: dict[str, list[list[list[Stretch]]]] = {}
    for (node, _), members in workers:
        here = packed.setdefault(node, [])
        lane = next((lane for lane in here if max(each.end for each in lane[-1]) <= members[0].start), None)
        if lane is None:
            here.append([members])
        else:
            lane.append(members)
    return {
        _lane_name(node, index, lane): [each for members in lane for each in members]
        for node, here in packed.items() for index, lane in enumerate(here)
    }  # fmt: skip


def _lane_name(node: str, index: int, lane: list[list[Stretch]]) -> str:
    return f"{node} #{index + 1}" + (f" ({len(lane)} workers)" if len(lane) > 1 else "")


def _draw_row(ax: Axes, row: int, members: Sequence[Stretch], last: float, least: float) -> None:
    # One collection a row: a patch for each of thousands of bars takes a minute and more.
    bars = [(each.start / _DAY_S, max(each.end - each.start, least) / _DAY_S) for each in members]
    colours = [COLOURS.get(each.state, style.FAINT) for each in members]
    place = (row - _HIGH / 2, _HIGH)
    ax.broken_barh(bars, place, facecolors=colours, edgecolors="white", linewidth=0.5, zorder=2)
    rests = [
        (each.end / _DAY_S, (end - each.end) / _DAY_S, COLOURS.get(each.state, style.FAINT))
        for each, end in _ends(members, last) if end > each.end
    ]  # fmt: skip
    if rests:
        fading = [colour for _, _, colour in rests]
        ax.broken_barh([rest[:2] for rest in rests], place, facecolors=fading, alpha=0.35, linewidth=0, zorder=1)


def _ends(members: Sequence[Stretch], last: float) -> list[tuple[Stretch, float]]:
    """Each stretch with where its bar ends: of one that is open where its worker began another, or at ``last``."""
    begun = [*(stretch.start for stretch in members[1:]), last]
    return [
        (stretch, max(stretch.end, after) if stretch.is_open else stretch.end)
        for stretch, after in zip(members, begun, strict=True)
    ]


def _name_rows(ax: Axes, rows: dict[str, list[Stretch]]) -> None:
    """The workers on the left, how many runs each had on the right; of very many rows every second, third, ..."""
    names, every = labels(list(rows)), -(-len(rows) // 60)
    ax.set_yticks(range(0, len(names), every), names[::every])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(False, axis="y")
    for row, members in list(enumerate(rows.values()))[::every]:
        count = counted(len({each.key for each in members}))
        ax.annotate(
            count, (1.0, row), (5, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points", va="center",
            fontsize=SMALL, color=style.ink(ax), alpha=0.7,
        )  # fmt: skip


def _date(ax: Axes, first: float, last: float) -> None:
    margin = (last - first) * 0.01
    ax.set_xlim((first - margin) / _DAY_S, (last + margin) / _DAY_S)
    locator = dates.AutoDateLocator(tz=UTC, minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    formats = ["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S"]
    zeros = ["", "%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M"]
    written = dates.ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator, tz=UTC, formats=formats, zero_formats=zeros, show_offset=False
    )
    ax.xaxis.set_major_formatter(written)
    day = datetime.fromtimestamp(first, UTC)
    ax.set_xlabel(f"time (UTC), from {day:%Y-%m-%d %H:%M}")


def _explain(ax: Axes, stretches: Sequence[Stretch]) -> None:
    counts = Counter(stretch.state for stretch in stretches)
    handles: list[Any] = [
        Patch(color=COLOURS.get(state, style.FAINT), label=f"{state} ({counts[state]})")
        for state in (*COLOURS, *sorted(counts.keys() - COLOURS.keys())) if counts[state]
    ]  # fmt: skip
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(handles), frameon=False,
        fontsize=SMALL, labelcolor=style.ink(ax), borderaxespad=0.2, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip


def _write_keys(ax: Axes, rows: dict[str, list[Stretch]], last: float) -> None:
    """The key on every bar that is long enough, once the layout says how long that is."""
    style.settle(ax)
    low, high = ax.get_xlim()
    points = style.length(ax, "x") / (high - low) / _DAY_S
    tall = style.length(ax, "y") / max(len(rows), 1) * _HIGH
    size = min(SMALL, tall * 0.75)
    if size < 5:
        return
    for row, members in enumerate(rows.values()):
        free = low * _DAY_S
        for stretch, end in _ends(members, last):
            long = (end - stretch.start) * points
            # The first look is cheap: most of thousands of bars are too short anyway.
            if stretch.start >= free and long > size * 3 and long > wide(stretch.key, size) + 4:
                free = end
                text = ax.text(
                    (stretch.start + end) / 2 / _DAY_S, row, stretch.key, ha="center", va="center", fontsize=size,
                    color="white" if stretch.state in ("done", "paused", "failed") else "black", zorder=3,
                )  # fmt: skip
                text.set_in_layout(False)


def _workers(stretches: Sequence[Stretch]) -> str:
    workers, nodes = len({each.worker for each in stretches}), len({each.node for each in stretches})
    return counted(workers, "worker") + (f" on {nodes} nodes" if nodes > 1 else "")


def _duration(seconds: float) -> str:
    for unit, length in (("d", _DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
