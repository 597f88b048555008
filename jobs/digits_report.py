"""Compare what ``jobs/digits.py`` has trained: a table of means over seeds, the best run, and a picture.

python jobs/digits_report.py STORE [PICTURE.png]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from math import log10
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from jimmy_manager import Store

TONES = {"cnn": "Blues", "mlp": "Oranges"}


class Run(NamedTuple):
    """One trained configuration, with what a comparison needs of its preview."""

    key: str
    arch: str
    width: int
    lr: float
    weight_decay: float
    seed: int
    acc_valid: float
    loss_valid: float
    acc_test: float

    @property
    def merit(self) -> tuple[float, float]:
        """What runs are chosen by: accuracy on the validation split, and of equals the lower loss there."""
        return self.acc_valid, -self.loss_valid


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    arch: str
    width: int
    lr: float
    weight_decay: float
    runs: list[Run]

    def mean(self, field: str) -> float:
        return fmean(getattr(run, field) for run in self.runs)


def read_runs(store: Store) -> list[Run]:
    """Return every run that has results, the best by validation first."""
    runs = []
    for key, preview in store.previews.items():
        config = store.configs[key]
        fields = (config["model.arch"], config["model.width"], config["optim.lr"], config["optim.weight_decay"])
        results = (preview["acc_valid"], preview["loss_valid"], preview["acc_test"])
        runs.append(Run(key, *fields, config["seed"], *results))
    return sorted(runs, key=lambda run: run.merit, reverse=True)


def group_seeds(runs: Iterable[Run]) -> list[Group]:
    """Return the runs by all but their seed, the best mean by validation first."""
    groups: dict[tuple[str, int, float, float], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arch, run.width, run.lr, run.weight_decay].append(run)
    made = [Group(*fields, runs) for fields, runs in groups.items()]
    return sorted(made, key=lambda group: (group.mean("acc_valid"), -group.mean("loss_valid")), reverse=True)


def print_table(runs: Iterable[Run]) -> None:
    """Print one line a group, in at most 80 columns: means over its seeds, the range of the validation accuracy."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    caption = "means over seeds, best first; in brackets the worst seed and the best"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False)
    table.add_column("arch")
    for name in ("width", "lr", "decay", "runs", "validation %", "loss", "test %"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in group_seeds(runs):
        scores = [100 * run.acc_valid for run in group.runs]
        table.add_row(
            group.arch, str(group.width), f"{group.lr:g}", f"{group.weight_decay:g}", str(len(scores)),
            f"{fmean(scores):.2f} ({min(scores):.1f}-{max(scores):.1f})",
            f"{group.mean('loss_valid'):.3f}", f"{100 * group.mean('acc_test'):.2f}",
        )  # fmt: skip
    Console().print(table)


def plot(runs: Iterable[Run], picture: Path) -> None:
    """Draw validation accuracy against learning rate: a line a network, bars from its worst seed to its best."""
    from matplotlib.figure import Figure

    groups = group_seeds(runs)
    places = place_columns(groups)
    figure = Figure(figsize=(8.4, 5), layout="constrained")
    axes = figure.subplots()
    networks = color_networks(groups)
    labels = []
    for i, (network, color) in enumerate(networks.items()):
        mine = {(g.lr, g.weight_decay): [100 * run.acc_valid for run in g.runs] for g in groups if g[:2] == network}
        dodge = 0.018 * ((len(networks) - 1) / 2 - i)  # side by side, the bars of one column can be told apart
        for is_decayed, style in ((False, "o-"), (True, "D")):
            columns = sorted((places[pair], pair) for pair in mine if bool(pair[1]) == is_decayed)
            if not columns:
                continue
            means = [fmean(mine[pair]) for _, pair in columns]
            below = [mean - min(mine[pair]) for mean, (_, pair) in zip(means, columns, strict=True)]
            above = [max(mine[pair]) - mean for mean, (_, pair) in zip(means, columns, strict=True)]
            axes.errorbar(
                [place + dodge for place, _ in columns], means, [below, above], fmt=style, color=color, linewidth=2,
                elinewidth=1.3, capsize=2.5, markersize=6, markerfacecolor="white" if is_decayed else color,
            )  # fmt: skip
            last = means[-1]
        labels.append((last, f"{network[0].upper()}, width {network[1]}", color))
    low, high = axes.get_ylim()
    right = max(places.values())
    height = float("inf")
    for mean, text, color in sorted(labels, reverse=True):
        # The labels of two lines that end together stand one below the other.
        height = min(mean, height - 0.045 * (high - low))
        axes.text(right + 0.07, height, text, color=color, va="center", weight="bold", backgroundcolor="white")
    axes.set_xticks(list(places.values()), [f"{lr:g}" + (f"\nweight decay {wd:g}" if wd else "") for lr, wd in places])
    axes.set_xlim(min(places.values()) - 0.08, right + 0.38)
    axes.set_xlabel("learning rate of AdamW")
    axes.set_ylabel("accuracy on the validation split, %")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    count = sum(len(group.runs) for group in groups)
    axes.set_title(
        f"Handwritten digits: {count} runs, means over seeds, bars from the worst seed to the best", loc="left", size=11
    )
    figure.savefig(picture, dpi=150)


def place_columns(groups: Iterable[Group]) -> dict[tuple[float, float], float]:
    """Place each pair of learning rate and weight decay: no decay on a log scale, the others right of it."""
    pairs = {(group.lr, group.weight_decay) for group in groups}
    places = {pair: log10(pair[0]) for pair in sorted(pairs) if not pair[1]}
    right = max(places.values(), default=0.0)
    return places | {pair: right + 0.4 * (i + 1) for i, pair in enumerate(sorted(pairs - places.keys()))}


def color_networks(groups: Iterable[Group]) -> dict[tuple[str, int], tuple[float, ...]]:
    """Give each network a color: one hue an architecture, the wider the darker; in the order of the best groups."""
    from matplotlib import colormaps

    networks = list(dict.fromkeys((group.arch, group.width) for group in groups))
    colors = {}
    for arch, width in networks:
        widths = sorted(w for a, w in networks if a == arch)
        share = (widths.index(width) + 1) / len(widths)
        colors[arch, width] = colormaps[TONES.get(arch, "Greys")](0.2 + 0.7 * share)
    return colors


def main() -> None:
    """Report on the store that the command line names."""
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    runs = read_runs(Store(sys.argv[1], read_only=True))
    if not runs:
        raise SystemExit(f"no run in {sys.argv[1]} has results yet")
    print_table(runs)
    best = runs[0]
    print(f"best by validation: run {best.key} with {best.acc_valid:.2%}; {best.acc_test:.2%} on the test split")
    if len(sys.argv) == 3:
        plot(runs, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
