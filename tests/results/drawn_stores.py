"""Stores with runs to draw, made by the real classes; and what a figure writes where."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pandas as pd
from matplotlib.text import Text

from jimmy_manager import Store
from jimmy_manager.archives import claims
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.owner import Owner
from tests.archives.runs import attempt_at, commit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGUN = 1_790_000_000.0
HOSTILE = "evil$_{x}$\x1b[2J\u202e训练 \\frac"


class SetClock(Clock):
    """A clock that shows what it is set to."""

    time = BEGUN

    def now(self) -> float:
        return self.time


def trained(configs: Sequence[Mapping[str, Any]], result: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Store:
    """A store in memory where each of ``configs`` is done with what ``result`` makes of it."""
    store = Store(None, clock=SetClock())
    for config in configs:
        attempt = attempt_at(store, config)
        commit(attempt, 1, **result(config))
        attempt.finish()
    return store


def product_of(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def loss_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plausible loss and accuracy, with noise that depends on the configuration alone."""
    noise = random.Random(repr(sorted(config.items()))).gauss(0, 1)
    off = (math.log10(config.get("lr", 1e-2)) + 2.3) ** 2 + 8 / config.get("width", 32)
    loss = 0.2 + 0.25 * off + 0.04 * noise + 0.05 * (config.get("arch", "cnn") == "mlp")
    return {"loss": loss, "acc": 1 / (1 + loss), "seconds": 3.0 + config.get("width", 32) / 8 + abs(noise)}


def grid_store() -> Store:
    """60 runs: 4 learning rates, 3 widths, 5 seeds."""
    return trained(product_of(lr=[1e-4, 1e-3, 1e-2, 1e-1], width=[16, 32, 64], seed=range(5)), loss_of)


def random_store(count: int = 500) -> Store:
    """Runs of a random search over four fields, conditional ones among them."""
    draw = random.Random(7)
    configs = []
    for seed in range(count):
        arch = draw.choice(["cnn", "mlp", "transformer"])
        config = {"arch": arch, "lr": 10 ** draw.uniform(-4, -1), "width": draw.choice([16, 32, 64, 128]), "seed": seed}
        configs.append(config | ({"heads": draw.choice([1, 2, 4, 8])} if arch == "transformer" else {}))
    return trained(configs, loss_of)


def logged(
    store: Store, tags: Sequence[str] = ("loss",), epochs: int = 30,
    value: Callable[[Mapping[str, Any], int, str], float] | None = None,
) -> pd.DataFrame:
    """What ``store.curves`` gives for runs that logged ``tags`` after each epoch."""

    def falling(config: Mapping[str, Any], epoch: int, tag: str) -> float:
        noise = random.Random(f"{sorted(config.items())}{epoch}{tag}").gauss(0, 0.03)
        level, speed = loss_of(config)["loss"], 2 + 3 * abs(math.log10(config.get("lr", 0.01)) + 2)
        loss = level + math.exp(-epoch / speed) + noise
        return 1 / (1 + loss) if "acc" in tag else loss

    rows = [
        (key, tag, epoch * 10, epoch, (value or falling)(store.config(key), epoch, tag), BEGUN + epoch)
        for key in list(store.keys()) for tag in tags for epoch in range(1, epochs + 1)
    ]
    return pd.DataFrame(rows, columns=["key", "tag", "step", "epoch", "value", "at"])


def put_curves(store: Store, frame: pd.DataFrame) -> Store:
    """``store`` with ``frame`` as what was logged."""

    def curves(keys: Any = None, tags: Any = None, where: Any = None) -> pd.DataFrame:
        kept = frame[frame["key"].isin(store.table(where).index)]
        if tags is not None:
            kept = kept[kept["tag"].isin([tags] if isinstance(tags, str) else list(tags))]
        return kept if keys is None else kept[kept["key"].isin([keys] if isinstance(keys, str) else list(keys))]

    store.curves = curves  # type: ignore[method-assign]
    return store


def swept(runs: int = 200, workers: int = 16, nodes: int = 4, slurm: bool = False) -> Store:
    """A sweep of ``workers`` on ``nodes``: most runs done, some failed, paused and continued, lost, and running."""
    store, clock, draw = Store(None, clock=SetClock()), SetClock(), random.Random(3)
    store.claims.clock = clock
    free = [(BEGUN + 20 * worker / workers, worker) for worker in range(workers)]
    for index in range(runs):
        at, worker = min(free)
        clock.time = at
        with worker_of(worker, nodes, slurm=slurm):
            attempt = attempt_at(store, {"lr": 0.01 * (index + 1), "seed": index})
            epochs = 1 + int(draw.expovariate(0.4))
            for epoch in range(1, epochs + 1):
                clock.time += draw.uniform(60, 200)
                commit(attempt, epoch, loss=1.0 / epoch)
            _end(attempt, draw.random(), is_last=index >= runs - workers // 2)
        free[free.index((at, worker))] = (clock.time + draw.uniform(2, 12), worker)
    return store


def _end(attempt: Any, chance: float, *, is_last: bool) -> None:
    if is_last:
        return
    if chance < 0.06:
        attempt.claim.fail({"type": "ValueError", "message": "no luck", "traceback": ""})
    elif chance < 0.10:
        attempt.claim.release()
    else:
        attempt.finish()


@contextmanager
def worker_of(worker: int, nodes: int, *, slurm: bool = False) -> Iterator[None]:
    """Work as another process, perhaps of a Slurm job, on another machine."""
    node = f"node{worker % nodes + 1:02d}"
    job = f"SLURM_JOB_ID={100 + worker},SLURM_ARRAY_JOB_ID=99,SLURM_ARRAY_TASK_ID={worker},SLURMD_NODENAME={node}"
    owner = Owner(node, 4000 + worker, 1, node, node, job if slurm else "")
    with patch.object(claims, "this_worker", lambda: owner), patch.object(claims, "this_process", lambda: owner):
        yield


def written(figure: Figure) -> list[tuple[str, Any]]:
    """Every text that is really drawn, with its box in pixels."""
    found: list[tuple[str, Any]] = []
    draw = Text.draw

    def noted(text: Text, renderer: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, renderer)

    with patch.object(Text, "draw", noted):
        figure.draw_without_rendering()
    return found


def faults(figure: Figure) -> list[str]:
    """Which texts of ``figure`` overlap or leave it."""
    texts = written(figure)
    width, height = figure.bbox.size
    found = [
        f"{text!r} leaves the figure" for text, box in texts
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > width + 0.5 or box.y1 > height + 0.5
    ]  # fmt: skip
    for index, (text, box) in enumerate(texts):
        for other, there in texts[:index]:
            # Half a pixel: boxes that only touch.
            wide = min(box.x1, there.x1) - max(box.x0, there.x0)
            high = min(box.y1, there.y1) - max(box.y0, there.y0)
            if wide > 0.5 and high > 0.5:
                found.append(f"{text!r} overlaps {other!r}")
    return found
