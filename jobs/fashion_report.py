"""Compare what ``jobs/fashion.py`` has trained: a table, and a picture of how the best network learned and errs.

python jobs/fashion_report.py STORE [PICTURE.png]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jimmy_manager.datasets import Tensor, torch

if __package__:  # as jobs.fashion_report, or else from its own folder
    from .fashion import CLASSES, Fashion, FashionManager, predict
else:
    from fashion import CLASSES, Fashion, FashionManager, predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISTAKES = 12


def print_table(manager: FashionManager) -> None:
    """Print one line a run, the best on the evaluation split first."""
    fields = ("model.width", "model.blocks", "acc_train", "acc_eval", "acc_test")
    print("key      ", *(f"{name:>12}" for name in fields))
    keys = [key for key in manager.completed() if "acc_eval" in manager.previews[key]]
    for key in sorted(keys, key=lambda key: -manager.previews[key]["acc_eval"]):
        shares = [f"{100 * manager.previews[key].get(name, torch.nan):11.2f}%" for name in fields[2:]]
        print(key, "", *(f"{manager.configs[key][name]:12}" for name in fields[:2]), *shares)


def confusion(targets: Tensor, chosen: Tensor) -> Tensor:
    """Return which share of each class (row) was taken for which (column), (C, C)."""
    counts = torch.bincount(targets * len(CLASSES) + chosen, minlength=len(CLASSES) ** 2)
    counts = counts.reshape(len(CLASSES), -1).double()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def plot(manager: FashionManager, key: str, picture: Path) -> None:
    """Draw the learning curves of ``key``, what it confuses on the test split, and its most confident mistakes."""
    from matplotlib.figure import Figure

    network, (test,) = manager.fetch(key), Fashion("test", 10**6, device=manager.device)
    images, targets = test["data"], test["target"]
    probabilities = predict(network, images)
    certainty, chosen = probabilities.max(-1)

    figure = Figure(figsize=(10.4, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.5])
    upper, lower = left.subfigures(2, 1, height_ratios=[1, 1.3])
    plot_curves(upper.subplots(), manager.ckpt["eval_records"])
    plot_confusion(right.subplots(), confusion(targets, chosen).cpu())
    lower.suptitle("the most confident mistakes on the test split", size=9, x=0.02, ha="left")
    wrong = torch.where(chosen != targets, certainty, 0).topk(MISTAKES).indices
    for axes, row in zip(lower.subplots(2, MISTAKES // 2).flat, wrong.tolist(), strict=True):
        axes.imshow(images[row, 0].cpu().numpy(), cmap="gray_r")
        axes.set_title(f"{CLASSES[targets[row]]},\ntaken for\n{CLASSES[chosen[row]]}", size=6.5)
        axes.axis("off")
    figure.savefig(picture, dpi=110)


def plot_curves(axes: Axes, records: dict[int, dict[str, float]]) -> None:
    """Draw the share of errors after each epoch, the one before training left out."""
    epochs = sorted(epoch for epoch in records if epoch)
    for split, color in (("train", "#bbbbbb"), ("eval", "#1f77b4"), ("test", "#d62728")):
        errors = [100 - 100 * records[epoch][f"acc_{split}"] for epoch in epochs]
        axes.plot(epochs, errors, "o-", color=color, markersize=3.5, label=f"{split} {errors[-1]:.1f}")
    axes.legend(fontsize=8, frameon=False, title="at the end", title_fontsize=8)
    axes.set_xticks(epochs)
    axes.set_xlabel("epoch", size=8)
    axes.set_title("errors, %", loc="left", size=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def plot_confusion(axes: Axes, shares: Tensor) -> None:
    """Draw a matrix (C, C) of shares, the diagonal left pale so that the mistakes stand out."""
    mistakes = shares.clone().fill_diagonal_(0)
    axes.imshow(mistakes.numpy(), cmap="Reds", vmin=0, vmax=max(float(mistakes.max()), 0.01) * 1.3)
    for (row, column), share in ((place, float(shares[place])) for place in pairs(len(shares))):
        if round(100 * share):
            weight = "bold" if row == column else "normal"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", size=8, weight=weight)
    accuracy = float(shares.diagonal().mean())
    axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=40, ha="right", size=8)
    axes.set_yticks(range(len(CLASSES)), CLASSES, size=8)
    axes.set_title(f"what (row) was taken for what (column), % of the row; {accuracy:.2%} right", loc="left", size=9)


def pairs(count: int) -> list[tuple[int, int]]:
    """Return all places of a square matrix."""
    return [(row, column) for row in range(count) for column in range(count)]


def main() -> None:
    """Report on the store that the command line names."""
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    manager = FashionManager(sys.argv[1], read_only=True)
    print_table(manager)
    best = manager.best_work("acc_eval")
    print(f"best on the evaluation split: run {best}; {manager.previews[best]['acc_test']:.2%} right on the test split")
    if len(sys.argv) == 3:
        plot(manager, best, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
