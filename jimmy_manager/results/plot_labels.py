"""Labels beside points, none over another: places are tried around each point, the near ones first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.patheffects import withStroke

from jimmy_manager.results.plot_style import ink, settle, without_tex
from jimmy_manager.results.plot_text import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

# By turns to either side of the direction that is tried first.
_TURNS = tuple(math.pi / 8 * step * side for step in range(9) for side in (1, -1))
_REACHES = (1.0, 1.6, 2.5, 4.0, 6.0, 9.0)


class Box(NamedTuple):
    """A rectangle in pixels, its corners lower left and upper right."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def holds(self, other: Box) -> bool:
        """Whether ``other`` lies within this one."""
        return self.x0 <= other.x0 and other.x1 <= self.x1 and self.y0 <= other.y0 and other.y1 <= self.y1


def spread(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], inside: Box,
    taken: Sequence[Box] = (), gap: float = 6.0, towards: tuple[float, float] = (1.0, 0.0),
) -> list[Box | None]:
    """A box of each of ``sizes`` near its point, within ``inside`` and clear of ``taken`` and of each other.

    ``towards`` is the direction tried first. None for a point about which there is no room: better no label than an
    illegible one.

    >>> boxes = spread([(50, 50), (52, 50)], [(20, 10), (20, 10)], Box(0, 0, 100, 100))
    >>> None not in boxes and not boxes[0].overlaps(boxes[1])
    True
    """
    placed: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        used = [*taken, *(box for box in placed if box is not None)]
        free = (
            box for box in _boxes_near(point, size, gap, towards)
            if inside.holds(box) and not any(box.overlaps(other) for other in used)
        )
        placed.append(next(free, None))
    return placed


def _boxes_near(
    point: tuple[float, float], size: tuple[float, float], gap: float, towards: tuple[float, float]
) -> Iterator[Box]:
    (x, y), (width, height) = point, size
    first = math.atan2(towards[1], towards[0])
    for reach in _REACHES:
        for turn in _TURNS:
            right, up = math.cos(first + turn), math.sin(first + turn)
            middle_x, middle_y = x + right * (gap * reach + width / 2), y + up * (gap * reach + height / 2)
            yield Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)


def annotate(
    ax: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], *, crowd: Sequence[Any] = (),
    line: Sequence[tuple[float, float]] = (), is_post: bool = True, towards: tuple[float, float] = (1.0, 0.0),
) -> int:
    """Write each text near its point in data coordinates; how many found room.

    They are clear of all points, of those of ``crowd``, and of the steps along ``line`` (``post`` or ``pre``). The
    layout of the figure must not change afterwards, or the labels may meet again.
    """
    settle(ax)
    scale = ax.figure.dpi / 72
    written: list[Annotation] = [
        ax.annotate(text, point, fontsize=SMALL, color=ink(ax), annotation_clip=False)
        for text, point in zip(texts, points, strict=True)
    ]
    for each in written:
        each.set_in_layout(False)
        # Among grey points a label stands out by a rim of the ground's colour.
        each.set_path_effects([withStroke(linewidth=2.5, foreground=ax.get_facecolor())])
    without_tex(ax)
    boxes = [each.get_window_extent() for each in written]
    sizes = [(box.width + 2 * scale, box.height + 2 * scale) for box in boxes]
    at: list[tuple[float, float]] = [tuple(ax.transData.transform(point)) for point in points]
    taken = [_mark(ax.transData.transform(point), 4 * scale) for point in (*points, *crowd)]
    taken += _steps([ax.transData.transform(point) for point in line], scale, is_post=is_post)
    places = spread(at, sizes, Box(*ax.get_window_extent().extents), taken, 6 * scale, towards)
    for each, place, point in zip(written, places, at, strict=True):
        if place is None:
            each.remove()
        else:
            _move(ax, each, place, point, scale)
    return sum(place is not None for place in places)


def _steps(line: Sequence[Any], scale: float, *, is_post: bool) -> list[Box]:
    """What a line that goes in steps covers."""
    covered = []
    for (x0, y0), (x1, y1) in pairwise(line):
        level, edge = (y0, x1) if is_post else (y1, x0)
        covered.append(Box(x0 - scale, level - scale, x1 + scale, level + scale))
        covered.append(Box(edge - scale, min(y0, y1) - scale, edge + scale, max(y0, y1) + scale))
    return covered


def _move(ax: Axes, text: Annotation, place: Box, point: tuple[float, float], scale: float) -> None:
    """Write at ``place``, in points from the data's place, so that the label follows it to any resolution."""
    middle = ((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2)
    offset = ((middle[0] - point[0]) / scale, (middle[1] - point[1]) / scale)
    text.set(ha="center", va="center", anncoords="offset points")
    text.set_position(offset)
    nearest = (min(max(point[0], place.x0), place.x1), min(max(point[1], place.y0), place.y1))
    if math.dist(nearest, point) > 9 * scale:
        end = ((nearest[0] - point[0]) / scale, (nearest[1] - point[1]) / scale)
        line = ax.annotate(
            "", text.xy, end, textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": "#9a9a9a", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
        )
        line.set_in_layout(False)


def _mark(place: Any, radius: float) -> Box:
    x, y = place
    return Box(x - radius, y - radius, x + radius, y + radius)
