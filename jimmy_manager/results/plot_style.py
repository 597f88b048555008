"""How figures look: colours, axes, legends, and what a caller gets.

Nothing here goes through pyplot or changes ``rcParams``: both belong to the whole process, and a figure may be drawn in
any thread. So every colour and size that matters is set on the figure itself.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from jimmy_manager.results.plot_text import SIZE, SMALL, fitted, labels, number, wide, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which the colour-blind tell apart, but black, which is that of the texts, and yellow, too
light for a line on white."""
LINES = ("-", "--", "-.", ":")
ACCENT = "#D55E00"
INK, FAINT, PALE = "#222222", "#6b6b6b", "#d9d9d9"
FEW_TICKS = 10


class Plot(Figure):
    """A figure that a notebook shows whether or not pyplot was ever imported there."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def begin(ax: Axes | None, width: float = 6.6, height: float = 4.2) -> Axes:
    """``ax`` as it is, or one of a new figure of ``width`` by ``height`` inches."""
    return ax if ax is not None else dressed(blank(width, height).add_subplot())


def blank(width: float, height: float) -> Figure:
    """A new figure without axes; what is put into it later finds its place when it is drawn."""
    figure = Plot(figsize=(width, height), dpi=100, facecolor="white", edgecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    return figure


def dressed(ax: Axes) -> Axes:
    """``ax`` of a figure of ours in our colours, whatever ``rcParams`` say."""
    ax.set_facecolor("white")
    ax.set_axisbelow(True)
    ax.grid(True, color="#ececec", linewidth=0.8, linestyle="-")
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color="#9a9a9a", linewidth=0.8)
    ax.tick_params(which="both", colors=INK, labelsize=SMALL, color="#9a9a9a", direction="out")
    for text in (ax.xaxis.label, ax.yaxis.label):
        text.set(color=INK, fontsize=SIZE)
    return ax


def end(ax: Axes, given: Axes | None, notes: Iterable[str] = ()) -> Figure | Axes:
    """What the caller gets: the figure, or the axes that it gave; ``notes`` go below the picture."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    note = "; ".join(notes)
    if note and given is None:
        figure.supxlabel(wrapped(note, figure.get_figwidth()), x=0.99, ha="right", fontsize=SMALL, color=FAINT)
    elif note:
        ax.set_xlabel("\n".join(filter(None, [ax.get_xlabel(), note])))
    without_tex(figure if given is None else ax)
    return figure if given is None else ax


def without_tex(artist: Figure | Axes) -> None:
    """Have every text set by matplotlib itself: LaTeX, where a user has chosen that, stumbles over ``a_b``."""
    for text in artist.findobj(Text):
        text.set_usetex(False)


def titled(ax: Axes, title: str, above: float = 6) -> None:
    """Put ``title`` above ``ax``, at its left end, ``above`` points higher."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    lines = textwrap.wrap(title, max(20, int(figure.get_figwidth() * 10.5)), break_on_hyphens=False)
    ax.set_title("\n".join(lines), loc="left", fontsize=SIZE, color=ink(ax), fontweight="bold", pad=above)


def say(ax: Axes, message: str) -> None:
    """Show a message where there is nothing to draw."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.text(0.5, 0.5, message, ha="center", va="center", transform=ax.transAxes, color=FAINT, fontsize=SIZE)


def ink(ax: Axes) -> Any:
    """The colour of what is written on ``ax``, which may be on a dark ground of the user's."""
    return ax.xaxis.label.get_color()


def colours(ax: Axes, count: int, *, is_ordered: bool) -> list[Any]:
    """A colour for each of ``count`` groups: along a scale where they are ordered, else the palette in turn."""
    if is_ordered and count > 1:
        scale = values_map()
        return [scale(0.88 * index / (count - 1)) for index in range(count)]
    palette = (*CATEGORIES, ink(ax))
    return [palette[index % len(palette)] for index in range(count)]


def pattern(index: int) -> str:
    """The dashes of the ``index``-th line, others for each turn through the palette."""
    return LINES[index // (len(CATEGORIES) + 1) % len(LINES)]


def values_map() -> Colormap:
    """The colours of values: viridis, even to the eye and to the colour-blind."""
    return mpl.colormaps["viridis"]


def scale_of(values: Sequence[float]) -> Normalize:
    """How values become colours; by powers where they span decades."""
    low, high = min(values), max(values)
    if low == high:
        return Normalize(low - 0.5, high + 0.5)
    return LogNorm(low, high) if spans_decades(values, 30) else Normalize(low, high)


def spans_decades(values: Iterable[float], least: float = 8.0) -> bool:
    """Whether a logarithmic axis suits: a ratio of ``least``, and a middle value nearer the geometric mean.

    >>> spans_decades([0.001, 0.01, 0.1]), spans_decades([16, 32, 64, 128]), spans_decades(range(1, 11))
    (True, True, False)
    """
    ordered = sorted(set(values))
    if not ordered or ordered[0] <= 0 or ordered[-1] / ordered[0] < least:
        return False
    low, high, middle = ordered[0], ordered[-1], ordered[len(ordered) // 2]
    middle = (middle + ordered[(len(ordered) - 1) // 2]) / 2
    return abs(middle - math.sqrt(low) * math.sqrt(high)) < abs(middle - (low + high) / 2)


def scale_axis(ax: Axes, which: str, values: Sequence[float], least: float = 8.0) -> None:
    """Let the axis ``which`` (``x`` or ``y``) suit ``values``: by powers or not, few values each with its tick."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    is_log = spans_decades(values, least)
    if is_log:
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    levels = sorted(set(values))
    if len(levels) <= FEW_TICKS:
        put = [math.log(level) for level in levels] if is_log else levels
        kept = apart(ax, which, put, [number(level) for level in levels])
        axis.set_major_locator(FixedLocator([levels[index] for index in kept]))
        axis.set_minor_locator(NullLocator())
    if len(levels) <= FEW_TICKS or is_log:
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.set_minor_formatter(NullFormatter())


def name_levels(ax: Axes, which: str, levels: Sequence[object]) -> None:
    """A tick for each level, or for each second, third, ... where there is no room; called when all else is drawn.

    Names that do not fit beside each other stand upright.
    """
    names, set_ticks = labels(levels, 24), ax.set_xticks if which == "x" else ax.set_yticks
    set_ticks(range(len(names)), names)
    settle(ax)
    room = length(ax, which) * 0.9 / max(1, len(names) - 1)
    if which == "x" and max(map(wide, names)) + 5 <= room:
        return
    if which == "x":
        ax.tick_params(axis="x", labelrotation=90)
    every = math.ceil(SMALL * 1.4 / room)
    set_ticks(range(0, len(names), every), names[::every])


def name_axis(ax: Axes, which: str, name: str, meaning: str = "") -> None:
    """Write ``name`` along an axis, as much of it as fits, and what that means."""
    (short,) = fitted([name], length(ax, which) - wide(meaning, SIZE), SIZE)
    ax.set(**{f"{which}label": short + meaning})


def length(ax: Axes, which: str) -> float:
    """How many points the axis ``which`` is long; a guess until the figure is laid out."""
    box = ax.get_window_extent()
    return (box.width if which == "x" else box.height) / ax.figure.dpi * 72


def settle(ax: Axes) -> None:
    """Lay out the figure, so that what is on it can be measured."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()


def apart(ax: Axes, which: str, put: Sequence[float], texts: Sequence[str]) -> list[int]:
    """Which of ascending places on an axis may all be labelled without touching; the outer ones first."""
    if len(put) < 2 or put[0] == put[-1]:
        return list(range(len(put)))
    long = length(ax, which) * 0.9  # less the margins
    needed = [wide(text) + SMALL if which == "x" else SMALL * 1.5 for text in texts]
    at = [(place - put[0]) / (put[-1] - put[0]) * long for place in put]
    kept: list[int] = []
    for index in sorted(range(len(put)), key=lambda each: (0 < each < len(put) - 1, each)):
        if all(abs(at[index] - at[other]) >= (needed[index] + needed[other]) / 2 for other in kept):
            kept.append(index)
    return sorted(kept)


def colour_bar(ax: Axes, drawn: Any, values: Sequence[float]) -> None:
    """The scale of the colours of ``drawn`` beside ``ax``, whose title says what they mean."""
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(drawn, ax=ax, fraction=0.06, pad=0.02)
    bar.ax.tick_params(which="both", labelsize=SMALL, colors=ink(ax))
    bar.outline.set_visible(False)
    if min(values) == max(values):
        bar.set_ticks([values[0]], labels=[number(values[0])])


def legend(ax: Axes, title: str, more: int = 0, explained: Sequence[Axes] = ()) -> None:
    """What the lines mean on ``ax`` or on all that are ``explained``, beside the picture, where it covers nothing."""
    found: dict[str, Any] = {}
    for each in explained or [ax]:
        found = dict(zip(*reversed(each.get_legend_handles_labels()), strict=True)) | found
    handles, names = list(found.values()), list(found)
    if not handles:
        return
    if more:
        handles.append(ax.plot([], [], color=PALE)[0])
        names.append(f"{more} more")
    ax.legend(
        handles, names, title=title, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, frameon=False,
        fontsize=SMALL, title_fontsize=SMALL, labelcolor=ink(ax), alignment="left",
    )  # fmt: skip
