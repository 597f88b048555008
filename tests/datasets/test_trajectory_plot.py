"""What `plotTraj` draws: the real points, readable however many there are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch import Tensor

from jimmy_manager.datasets.trajectory_plot import plotTraj
from jimmy_manager.errors import DatasetError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@pytest.fixture
def ax() -> Axes:
    """An axis of a figure that no window and no global state knows of."""
    return Figure(dpi=50).subplots()


def walk(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, 2, generator=generator).cumsum(-2) * 1e-3 + torch.tensor([104.06, 30.66])


def pixels(ax: Axes) -> np.ndarray:
    """The rendered figure, rows x columns x RGBA."""
    canvas = FigureCanvasAgg(ax.figure)  # type: ignore[arg-type]
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_each_trajectory_is_one_line_through_its_points(ax: Axes) -> None:
    trajs = walk(3, 7)
    lines = plotTraj(ax, trajs)
    assert [path.vertices.tolist() for path in lines.get_paths()] == trajs.double().tolist()
    (low_x, high_x), (low_y, high_y) = ax.get_xlim(), ax.get_ylim()
    assert low_x < trajs[..., 0].min() < trajs[..., 0].max() < high_x
    assert low_y < trajs[..., 1].min() < trajs[..., 1].max() < high_y
    pixels(ax)


@pytest.mark.parametrize("padding", [0.0, math.nan])
def test_padding_is_not_drawn_and_does_not_widen_the_axes(ax: Axes, padding: float) -> None:
    trajs, lengths = walk(3, 7), torch.tensor([7, 3, 0])
    trajs[torch.arange(7) >= lengths[:, None]] = padding
    lines = plotTraj(ax, trajs, lengths, markersize=3, ends=True)
    assert [len(path.vertices) for path in lines.get_paths()] == [7, 3, 0]
    assert ax.get_xlim()[0] > 100
    pixels(ax)


def test_a_single_trajectory_and_a_list_of_different_lengths_are_drawn(ax: Axes) -> None:
    traj = walk(5)
    assert len(plotTraj(ax, traj).get_paths()) == 1
    assert len(plotTraj(ax, traj, 3).get_paths()[0].vertices) == 3
    lines = plotTraj(ax, [traj, traj[:2]])
    assert [len(path.vertices) for path in lines.get_paths()] == [5, 2]


def test_tensors_with_gradients_and_of_half_precision_are_drawn_and_left_alone(ax: Axes) -> None:
    traj = walk(5).requires_grad_()
    before = traj.detach().clone()
    plotTraj(ax, traj)
    plotTraj(ax, traj.bfloat16())
    assert torch.equal(traj, before)


def test_color_width_and_label_are_those_asked_for(ax: Axes) -> None:
    lines = plotTraj(ax, walk(3, 7), color="crimson", linewidth=2.5, alpha=0.5, label="walks")
    assert tuple(lines.get_color()[0]) == to_rgba("crimson", 0.5)
    assert lines.get_linewidth() == [2.5]
    assert ax.get_legend_handles_labels()[1] == ["walks"]
    assert tuple(plotTraj(ax, walk(4)).get_color()[0]) == to_rgba("blue")


def test_each_trajectory_may_have_its_color_with_its_dots(ax: Axes) -> None:
    colors = ["red", "green", "blue"]
    lines = plotTraj(ax, walk(3, 7), [7, 2, 0], color=colors, markersize=4, ends=True)
    assert [tuple(color) for color in lines.get_color()] == [to_rgba(color) for color in colors]
    dots = ax.collections[1]
    assert [tuple(color) for color in dots.get_facecolor()] == [to_rgba("red")] * 7 + [to_rgba("green")] * 2
    with pytest.raises(DatasetError, match="2 colors for 3 trajectories"):
        plotTraj(ax, walk(3, 7), color=["red", "green"])


def test_many_trajectories_are_drawn_more_transparent_than_few(ax: Axes) -> None:
    alphas = [plotTraj(ax, walk(count, 3)).get_alpha() for count in (1, 10, 100, 1000, 100_000)]
    assert alphas[:2] == [1, 1]
    assert 1 > alphas[2] > alphas[3] > alphas[4] >= 0.02


def test_ten_thousand_trajectories_leave_dense_and_sparse_places_apart(ax: Axes) -> None:
    ax.set_axis_off()
    plotTraj(ax, walk(10_000, 20))
    blue = 255 - pixels(ax)[..., 0].astype(int)
    assert blue.max() > 200
    # Drawn opaque, nearly every pixel that is not white would be as dark as can be.
    assert (blue[blue > 5] < 128).mean() > 0.3


@pytest.mark.parametrize(("markersize", "dots"), [(3, 5), (1, 0), (0, 0)])
def test_dots_are_drawn_where_they_show_beside_their_line(ax: Axes, markersize: float, dots: int) -> None:
    plotTraj(ax, walk(5), markersize=markersize)
    assert sum(len(each.get_offsets()) for each in ax.collections[1:]) == dots


def test_a_point_without_neighbours_gets_its_dot_in_any_size(ax: Axes) -> None:
    traj = walk(6)
    traj[[1, 3]] = math.nan
    plotTraj(ax, [traj, walk(1)])
    dots = np.asarray(ax.collections[1].get_offsets())
    assert dots.tolist() == [traj[0].tolist(), traj[2].tolist(), walk(1)[0].tolist()]
    pixels(ax)


def test_a_point_that_is_not_finite_interrupts_the_line(ax: Axes) -> None:
    ax.set_axis_off()
    ax.set(xlim=(-1, 11), ylim=(-1, 1))
    traj = torch.stack([torch.linspace(0, 10, 11), torch.zeros(11)], -1)
    traj[5] = math.nan
    plotTraj(ax, traj, linewidth=4)
    columns = (pixels(ax)[..., 0] < 128).any(0).nonzero()[0]
    assert (np.diff(columns) > 5).sum() == 1


def test_ends_mark_the_first_and_the_last_real_point(ax: Axes) -> None:
    trajs = walk(2, 6)
    plotTraj(ax, trajs, [6, 4], markersize=0, ends=True)
    first, last = (np.asarray(each.get_offsets()).tolist() for each in ax.collections[1:])
    assert first == trajs[:, 0].double().tolist()
    assert last == [trajs[0, 5].tolist(), trajs[1, 3].tolist()]


def test_a_map_has_one_scale_in_both_directions_at_its_latitude(ax: Axes) -> None:
    plotTraj(ax, torch.tensor([[10.0, 59.0], [11.0, 61.0]]), geo=True)
    assert ax.get_aspect() == pytest.approx(2)
    assert "longitude" in ax.get_xlabel()
    assert "latitude" in ax.get_ylabel()


def test_a_map_writes_its_degrees_in_full(ax: Axes) -> None:
    plotTraj(ax, torch.tensor([[104.0660, 30.65], [104.0661, 30.66]], dtype=torch.float64), geo=True)
    pixels(ax)
    assert not ax.xaxis.get_offset_text().get_text()
    assert ax.get_xticklabels()[0].get_text().startswith("104.06")


@pytest.mark.parametrize("trajs", [torch.zeros(0, 2), torch.zeros(0, 5, 2), torch.zeros(3, 0, 2), []])
def test_nothing_is_drawn_of_nothing(ax: Axes, trajs: Tensor) -> None:
    plotTraj(ax, trajs, markersize=3, ends=True, geo=True)
    pixels(ax)


def test_what_is_no_trajectory_is_refused(ax: Axes) -> None:
    with pytest.raises(DatasetError, match=r"plotTraj .* \(4, 3\)"):
        plotTraj(ax, torch.zeros(4, 3))
    with pytest.raises(DatasetError, match="plotTraj needs a tensor, not ndarray"):
        plotTraj(ax, [np.zeros((4, 2))])  # type: ignore[list-item]
    with pytest.raises(DatasetError, match=r"plotTraj needs integer lengths of shape \(3,\)"):
        plotTraj(ax, walk(3, 4), torch.tensor([4]))
    with pytest.raises(DatasetError, match="plotTraj takes traj_lengths only beside a tensor"):
        plotTraj(ax, [walk(4)], [4])
