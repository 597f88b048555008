"""`plotTraj`: trajectories on a matplotlib axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from jimmy_manager.datasets.sequence_checks import Lengths, require_lengths
from jimmy_manager.datasets.trajectories import BatchTraj, Traj, require_trajs
from jimmy_manager.errors import DatasetError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection


def plotTraj(
    ax: Axes,
    trajs: BatchTraj | Traj | Sequence[Traj],
    traj_lengths: Lengths | None = None,
    color: Any = "blue",
    linewidth: float = 1,
    markersize: float = 1,
    *,
    alpha: float | None = None,
    ends: bool = False,
    geo: bool = False,
    label: str | None = None,
) -> LineCollection:
    """Draw trajectories as lines with a dot at each point, and return the lines.

    Takes a batch, a trajectory or a list of trajectories; the padding behind ``traj_lengths`` is not drawn, and a point
    that is not finite interrupts its line. ``color`` is one colour for all, or a sequence of one for each trajectory.
    ``linewidth`` and ``markersize`` are in points of the figure; ``markersize=0`` leaves the dots out. Without
    ``alpha``, the more trajectories there are the more transparent each is, so that the roads they share stand out.

    ``ends`` marks where each begins (hollow circle) and ends (square). ``geo`` is for degrees: it names the axes, and
    stretches them so that east and north have one scale at the mean latitude.
    """
    from matplotlib.collections import LineCollection

    paths = _paths(trajs, traj_lengths)
    colors = _colors(color, len(paths))
    if alpha is None:
        # Judged by eye from 1 to 10 000 random walks; below 0.02 a single line of 8-bit colour is no longer seen.
        alpha = max(0.02, min(1.0, (10 / max(len(paths), 1)) ** 0.6))
    lines = LineCollection(
        paths, colors=colors, linewidths=linewidth, alpha=alpha, label=label, capstyle="round", joinstyle="round"
    )
    ax.add_collection(lines)
    points = np.concatenate(paths) if paths else np.empty((0, 2))
    if markersize > 0:
        # A dot no wider than its line adds nothing but ink, except where no line passes.
        shown = [np.full(len(path), True) if markersize > linewidth else _is_alone(path) for path in paths]
        each = colors if len(colors) == 1 else np.repeat(colors, [mask.sum() for mask in shown], axis=0)
        dots = points[np.concatenate([*shown, np.empty(0, bool)])]
        ax.scatter(dots[:, 0], dots[:, 1], s=markersize**2, c=each, alpha=alpha, linewidths=0)
    if ends:
        _mark_ends(ax, paths, colors, linewidth)
    if geo:
        _as_map(ax, points)
    ax.autoscale_view()
    return lines


def _paths(trajs: BatchTraj | Traj | Sequence[Traj], traj_lengths: Lengths | None) -> list[np.ndarray]:
    """Return the real points of each trajectory, ``(L_i, 2)`` float64."""
    if isinstance(trajs, Tensor):
        require_trajs("plotTraj", trajs)
        lengths: Any = [trajs.shape[-2]] * (len(trajs) if trajs.ndim == 3 else 1)
        if traj_lengths is not None:
            lengths = require_lengths("plotTraj", traj_lengths, trajs, trajs.ndim == 3).reshape(-1).tolist()
        batch = trajs.detach().cpu().double().numpy()
        batch = batch if trajs.ndim == 3 else batch[None]
        return [path[: max(length, 0)] for path, length in zip(batch, lengths, strict=True)]
    if traj_lengths is not None:
        raise DatasetError("plotTraj takes traj_lengths only beside a tensor: those of a list are its own")
    return [path for traj in trajs for path in _paths(require_trajs("plotTraj", traj), None)]


def _is_alone(path: np.ndarray) -> np.ndarray:
    """Tell for each point of a path whether it is finite and has no finite neighbour, so that no line shows it."""
    finite = np.isfinite(path).all(-1)
    framed = np.concatenate([[False], finite, [False]])
    return finite & ~framed[:-2] & ~framed[2:]


def _colors(color: Any, count: int) -> np.ndarray:
    """Return ``color`` as ``(1, 4)`` or ``(count, 4)`` RGBA."""
    from matplotlib.colors import to_rgba_array

    colors = to_rgba_array(color)
    if len(colors) not in (1, count):
        raise DatasetError(f"plotTraj got {len(colors)} colors for {count} trajectories; give one for each, or one")
    return colors


def _mark_ends(ax: Axes, paths: list[np.ndarray], colors: np.ndarray, linewidth: float) -> None:
    """Mark where each trajectory begins and ends, above all lines."""
    drawn = [index for index, path in enumerate(paths) if len(path)]
    if not drawn:
        return
    edge: Any = colors if len(colors) == 1 else colors[drawn]
    size = (3 + 2 * linewidth) ** 2
    first, last = (np.stack([paths[index][end] for index in drawn]) for end in (0, -1))
    ax.scatter(first[:, 0], first[:, 1], s=size, facecolors="white", edgecolors=edge, linewidths=1, zorder=4)
    ax.scatter(last[:, 0], last[:, 1], s=size, marker="s", c=edge, edgecolors="white", linewidths=0.5, zorder=4)


def _as_map(ax: Axes, points: np.ndarray) -> None:
    """Name the axes, write their degrees in full, and give east and north one scale."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    for axis, name in ((ax.xaxis, "longitude (°)"), (ax.yaxis, "latitude (°)")):
        axis.set_label_text(name)
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    finite = points[np.isfinite(points).all(-1)]
    if len(finite):
        # Near the poles a degree of longitude shrinks to nothing; there the map stays finite instead.
        ax.set_aspect(1 / max(math.cos(math.radians(finite[:, 1].mean())), 0.01))
