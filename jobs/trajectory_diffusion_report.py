"""Compare the tracks that ``jobs/trajectory_diffusion.py`` has learned to generate with real ones, and draw both.

python jobs/trajectory_diffusion_report.py STORE [PICTURE.png]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jimmy_manager.datasets import Tensor, computeDistance, plotTraj, torch

if __package__:  # as jobs.trajectory_diffusion_report, or else from its own folder
    from .gps_tracks import UNIT_M, distance_to_roads, draw_streets, to_degrees
    from .trajectory_diffusion import EDGE, TrackDiffusionManager, WholeTracks, compare
else:
    from gps_tracks import UNIT_M, distance_to_roads, draw_streets, to_degrees
    from trajectory_diffusion import EDGE, TrackDiffusionManager, WholeTracks, compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 250


def candidates(manager: TrackDiffusionManager) -> dict[str, Tensor]:
    """Return as many tracks (B, L, 2) of each kind: real ones, those of each run and those of two baselines.

    ``real`` are of the test split and what all others are compared with; ``real, other trips`` are of the training
    split: nothing can be expected to be nearer than these. ``Gaussian`` are drawn from the normal distribution that has
    the mean and the covariance of the training split; ``random walk`` starts somewhere and takes real steps at random.
    """
    keys = sorted(manager.completed(1), key=lambda key: manager.previews[key].get("jsd_eval", torch.inf))
    n_train = manager.configs[keys[0]]["data.n_train"]
    train, test = (WholeTracks(name, 10**6, n_train=n_train, device="cpu").track for name in ("train", "test"))
    count = len(test)
    draw = torch.Generator().manual_seed(0)
    shuffled = train[torch.randperm(len(train), generator=draw)]
    sets = {"real": test, "real, other trips": shuffled[:count]}
    for key in keys:
        sets[f"diffusion {key}"] = manager.fetch(key).generate(count).cpu()
    sets["Gaussian"] = gaussian(train, count, draw)
    steps = train.diff(dim=1).reshape(-1, 2)
    walks = steps[torch.randint(len(steps), (count, train.shape[1] - 1), generator=draw)].cumsum(1)
    sets["random walk"] = shuffled[count : 2 * count, :1] + torch.cat([torch.zeros(count, 1, 2), walks], 1)
    return sets


def gaussian(train: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Draw tracks from the normal distribution with the mean and the covariance of ``train`` (B, L, 2)."""
    flat = train.flatten(1).double()
    values, vectors = torch.linalg.eigh(flat.T.cov())
    noise = torch.randn(count, flat.shape[1], generator=draw, dtype=flat.dtype)
    return (flat.mean(0) + noise * values.clamp(min=0).sqrt() @ vectors.T).float().unflatten(1, train.shape[1:])


def measure(sets: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Compare each set with the real tracks, and say how far from the roads its points lie."""
    measured = {}
    for name, tracks in sets.items():
        metres = distance_to_roads(tracks[:DRAWN].reshape(-1, 2))
        measured[name] = {
            **compare(tracks, sets["real"]), "off": float(metres.mean()), "on": float((metres < 15).float().mean())
        }  # fmt: skip
    return measured


def print_table(measured: dict[str, dict[str, float]], manager: TrackDiffusionManager) -> None:
    """Print one line a set."""
    print(f"{'':20} {'map':>10} {'JSD':>7} {'length, km':>11} {'off the roads, m':>17} {'within 15 m':>12}")
    for name, row in measured.items():
        key = name.removeprefix("diffusion ")
        sizes = manager.configs[key]["model.map_sizes"] if key != name else ""
        shown = ",".join(map(str, sizes)) or ("none" if key != name else "")
        print(f"{name:20} {shown:>10} {row['jsd']:7.3f} {row['length']:11.2f} {row['off']:17.1f} {row['on']:12.0%}")


def plot(sets: dict[str, Tensor], measured: dict[str, dict[str, float]], picture: Path) -> None:
    """Draw real and generated tracks, and the distributions by which they are compared."""
    from matplotlib.figure import Figure

    best = next(name for name in sets if name.startswith("diffusion"))
    figure = Figure(figsize=(10.4, 7), layout="constrained")
    rows = figure.subplots(2, 3)
    for axes, name, title in zip(rows[0], ("real", best, "Gaussian"), ("real", "generated", "Gaussian"), strict=True):
        plotTraj(axes, to_degrees(sets[name][:DRAWN]), color="#1f4e8c", linewidth=0.6, alpha=0.3, geo=True)
        axes.axis(to_degrees(torch.tensor([[-EDGE, -EDGE], [EDGE, EDGE]]) * 0.95).T.flatten().tolist())
        draw_streets(axes)
        axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
        axes.set_title(f"{len(sets[name][:DRAWN])} tracks, {title}", loc="left", size=9)
    draw_density(rows[1, 0], sets["real"])
    others = measured["real, other trips"]["jsd"]
    rows[1, 0].set_title(f"where points lie; other real trips: JSD {others:.3f}", loc="left", size=9)
    draw_density(rows[1, 1], sets[best])
    rows[1, 1].set_title(f"where points lie, generated: JSD {measured[best]['jsd']:.3f}", loc="left", size=9)
    draw_lengths(rows[1, 2], {"real": sets["real"], "generated": sets[best], "Gaussian": sets["Gaussian"]})
    figure.savefig(picture, dpi=110)


def draw_density(axes: Axes, tracks: Tensor) -> None:
    """Draw how many points lie in each cell, in the 50 x 50 cells of the JSD."""
    span = [-EDGE, EDGE]
    axes.hist2d(*tracks.reshape(-1, 2).T.numpy(), bins=50, range=[span, span], cmap="magma", norm="asinh")
    axes.set(xticks=[], yticks=[], aspect="equal")


def draw_lengths(axes: Axes, sets: dict[str, Tensor]) -> None:
    """Draw how long the tracks are."""
    for (name, tracks), color in zip(sets.items(), ("#bbbbbb", "#1f77b4", "#d1495b"), strict=True):
        km = computeDistance(tracks) * UNIT_M / 1000
        style = "stepfilled" if name == "real" else "step"
        axes.hist(km.numpy(), bins=30, range=(0, 9), color=color, label=name, linewidth=1.5, histtype=style)
    axes.set_title("length of the tracks, km", loc="left", size=9)
    axes.legend(fontsize=8, frameon=False)
    axes.tick_params(labelsize=8)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    """Report on the store that the command line names."""
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    manager = TrackDiffusionManager(sys.argv[1], read_only=True)
    sets = candidates(manager)
    measured = measure(sets)
    print_table(measured, manager)
    if len(sys.argv) == 3:
        plot(sets, measured, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
