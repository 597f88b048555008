"""Compare what ``jobs/trajectories.py`` has trained with straight lines, and draw what the best run finds.

python jobs/trajectories_report.py STORE [PICTURE.png]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jimmy_manager.datasets import plotTraj
from jimmy_manager.models import Tensor, torch

if __package__:  # as jobs.trajectories_report, or else from its own folder
    from .gps_tracks import UNIT_M, distance_to_lines, draw_streets, to_degrees
    from .trajectories import Tracks, TrajectoryManager, errors
else:
    from gps_tracks import UNIT_M, distance_to_lines, draw_streets, to_degrees
    from trajectories import Tracks, TrajectoryManager, errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"straight lines": "#d1495b", "model": "#1f77b4", "true way, constant speed": "#777777"}
SHOWN = (0.2, 0.5, 0.8, 0.95)  # tracks with these quantiles of the model's error: no choice by hand


class Found(NamedTuple):
    """One track: the points given (M + 1, 2); of each place asked for (M * every, 2) the truth and what is found."""

    given: Tensor
    true: Tensor
    found: dict[str, Tensor]

    def mean_error(self, name: str) -> float:
        return float(errors(self.found[name], self.true).mean())


def print_table(manager: TrajectoryManager) -> None:
    """Print one line a run, the best on the evaluation split first."""
    fields, results = ("model.layers", "optim.lr"), ("metres_eval", "metres_test", "straight_test")
    print("key      ", *(f"{name:>14}" for name in (*fields, *results)))
    for key in sorted(manager.completed(1), key=lambda key: manager.previews[key]["metres_eval"]):
        print(key, " ", *(f"{manager.configs[key][name]:14}" for name in fields), end=" ")
        print(*(f"{manager.previews[key][name]:14.1f}" for name in results))


@torch.no_grad()
def recover(manager: TrajectoryManager, key: str) -> list[Found]:
    """Let the model of ``key`` recover each track of the test split."""
    model, config = manager.fetch(key), manager.configs[key]
    test = Tracks("test", 500, n_train=config["data.n_train"], device=manager.device)
    tracks = []
    for batch in test:
        given, true, gaps, mask = model.task(batch)
        found, straight = model(given, gaps), model.straight(given)
        for row, count in enumerate(mask.sum(1).tolist()):
            points, ends = true[row, :count].cpu(), batch["clean"][row, : count + 1].cpu()
            tracks.append(Found(given[row, : count // model.every + 1].cpu(), points, {
                "straight lines": straight[row, :count].cpu(),
                "model": found[row, :count].cpu(),
                "true way, constant speed": constant_speed(ends, model.every),
            }))  # fmt: skip
    return tracks


def constant_speed(true: Tensor, every: int) -> Tensor:
    """Return who knows the way (M * every + 1, 2) and each ``every``th place, but not where the car stood still."""
    parts = []
    for start in range(0, len(true) - 1, every):
        gap = true[start : start + every + 1]
        metres = torch.cat([torch.zeros(1), gap.diff(dim=0).norm(dim=-1).cumsum(0)])
        wanted = metres[-1] * torch.arange(every) / every
        after = torch.searchsorted(metres, wanted, right=True).clamp(1, every)
        share = (wanted - metres[after - 1]) / (metres[after] - metres[after - 1]).clamp(min=1e-9)
        parts.append(gap[after - 1] + share[:, None] * (gap[after] - gap[after - 1]))
    return torch.cat(parts)


def off_way(found: Tensor, true: Tensor) -> Tensor:
    """Return how far each place (L, 2) is from the nearest of the lines between the true places (N, 2), in metres."""
    return distance_to_lines(found, torch.stack([true[:-1], true[1:]], 1)) * UNIT_M


def plot(tracks: list[Found], picture: Path) -> None:
    """Draw a few tracks as given, true and found, and how the errors of all are distributed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 6.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    order = sorted(tracks, key=lambda track: track.mean_error("model"))
    for axes, share in zip(left.subplots(2, 2).flat, SHOWN, strict=True):
        track = order[int(share * len(order))]
        draw_track(axes, track)
        model, straight = (track.mean_error(name) for name in ("model", "straight lines"))
        place = f"of {len(tracks)} tracks {share:.0%} go better than this one"
        axes.set_title(f"model {model:.0f} m off, straight lines {straight:.0f} m;\n{place}", size=8, loc="left")
    handles, labels = left.axes[0].get_legend_handles_labels()
    left.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    upper, lower = right.subplots(2, 1)
    at_place = {name: torch.cat([errors(each.found[name], each.true) for each in tracks]) for name in COLORS}
    draw_shares(upper, at_place, "distance to the true place")
    beside = {name: torch.cat([off_way(each.found[name], each.true) for each in tracks]) for name in list(COLORS)[:2]}
    draw_shares(lower, beside, "distance to the true way")
    figure.savefig(picture, dpi=110)


def draw_track(axes: Axes, track: Found) -> None:
    """Draw one track in the middle of a square piece of the map."""
    plotTraj(axes, to_degrees(track.true), color="black", linewidth=4.5, alpha=0.2, geo=True, label="true")
    for name in list(COLORS)[:2]:
        places = to_degrees(track.found[name])
        plotTraj(axes, places, color=COLORS[name], linewidth=1.1, markersize=2.6, alpha=1, label=name)
    axes.scatter(*to_degrees(track.given).T, s=26, color="white", edgecolors="black", zorder=5, label="given")
    low, high = (getattr(track.true, end)(0) for end in ("amin", "amax"))
    half = (high - low).amax() * 0.6
    corners = to_degrees(torch.stack([(low + high) / 2 - half, (low + high) / 2 + half]))
    axes.axis(corners.T.flatten().tolist())
    draw_streets(axes)
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")


def draw_shares(axes: Axes, metres: dict[str, Tensor], title: str) -> None:
    """Draw which share of places is at most so far off."""
    for name, values in metres.items():
        shares = torch.linspace(0, 100, len(values))
        axes.plot(values.sort().values, shares, color=COLORS[name], label=f"{name}: {values.mean():.0f} m in the mean")
    axes.set_xlim(0, 200)
    axes.set_ylim(0, 100)
    axes.set_xlabel("metres", size=8)
    axes.set_title(f"{title}: % of places within", loc="left", size=9)
    axes.legend(fontsize=7.5, loc="lower right", frameon=False)
    axes.grid(color="#eeeeee")
    axes.tick_params(labelsize=8)


def main() -> None:
    """Report on the store that the command line names."""
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    manager = TrajectoryManager(sys.argv[1], read_only=True)
    print_table(manager)
    best = manager.best_work("metres_eval")
    preview = manager.previews[best]
    print(f"best on the evaluation split: run {best}; on the test split {preview['metres_test']:.1f} m from the true")
    print(f"place in the mean of all tracks, where straight lines are {preview['straight_test']:.1f} m off")
    if len(sys.argv) == 3:
        plot(recover(manager, best), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
