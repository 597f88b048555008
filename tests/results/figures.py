"""Every kind of figure, of every kind of store that has ever spoiled one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jimmy_manager import Store
from tests.results import drawn_stores as stores

LONG = [f"encoder.blocks.{index}.attention.with.a.long.name" for index in range(29)]


@cache
def store(name: str) -> Store:
    return STORES[name]()


def _chance(config: Mapping[str, Any]) -> float:
    return random.Random(repr(sorted(config.items()))).random()


def _some_nan(config: Mapping[str, Any]) -> dict[str, Any]:
    if config["seed"] == 1:
        return {"loss": math.nan}
    return {"loss": math.inf if config["seed"] == 2 and config["lr"] == 0.1 else 10 ** (-4 * _chance(config))}


def _logged(name: str, *tags: str, **how: Any) -> Store:
    made = STORES[name]()
    return stores.put_curves(made, stores.logged(made, tags or ("loss",), **how))


def _falling(config: Mapping[str, Any], epoch: int, _: str) -> float:
    return math.nan if config["lr"] == 0.1 and epoch > 12 else 10 ** (-epoch / 8) * (1 + 0.3 * config["seed"])


STORES: dict[str, Callable[[], Store]] = {
    "grid": stores.grid_store,
    "random": stores.random_store,
    "few": lambda: stores.trained(
        stores.product_of(arch=["cnn", "mlp", "transformer"], opt=["adam", "sgd"], seed=range(8)), stores.loss_of
    ),
    "one": lambda: stores.trained([{"lr": 0.1, "seed": 0}], stores.loss_of),
    "two": lambda: stores.trained(stores.product_of(lr=[0.1, 0.01], seed=[0]), stores.loss_of),
    "constant": lambda: stores.trained(
        stores.product_of(lr=[0.1, 0.01], seed=range(3)), lambda _: {"loss": 0.5, "acc": 1.0}
    ),
    "nan": lambda: stores.trained(
        stores.product_of(lr=[0.1, 0.01], seed=range(3)), lambda _: {"loss": math.nan, "acc": 0.5}
    ),
    "some nan": lambda: stores.trained(stores.product_of(lr=[1e-3, 1e-2, 1e-1], seed=range(4)), _some_nan),
    "names": lambda: stores.trained(
        stores.product_of(**{"name": [*LONG, stores.HOSTILE], stores.HOSTILE * 3: [0, "W" * 90, None]}),
        lambda config: {"loss": _chance(config), stores.HOSTILE * 3: _chance(config)},
    ),
    "cells": lambda: stores.trained(
        stores.product_of(a=range(12), b=[f"category_{index}" for index in range(20)]),
        lambda config: {"loss": (config["a"] - 5) ** 2 * 100.0 + len(config["b"])},
    ),
    "front": lambda: stores.trained(
        [{"i": index} for index in range(60)], lambda config: {"a": config["i"] / 60, "b": 1 - config["i"] / 60}
    ),
    "columns": lambda: stores.trained(
        [{f"field_{name}": name + run for name in range(1000)} for run in range(3)], lambda _: {"loss": 0.1}
    ),
    "swept": stores.swept,
    "slurm": lambda: stores.swept(30, 4, 2, slurm=True),
    "many workers": lambda: stores.swept(150, 100, 4),
    "one worker": lambda: stores.swept(1, 1, 1),
    "logged grid": lambda: _logged("grid", "Eval/loss", "Eval/acc"),
    "logged few": lambda: _logged("few", "a", "b", "c", "acc", stores.HOSTILE),
    "few random": lambda: stores.random_store(120),
    "logged random": lambda: _logged("few random", epochs=8),
    "logged one": lambda: _logged("one"),
    "logged two": lambda: _logged("two", epochs=1),
    "logged names": lambda: _logged("names", epochs=3, value=lambda config, epoch, _: len(config["name"]) / epoch),
    "logged nan": lambda: _logged("grid", value=_falling),
    "logged nothing": lambda: _logged("nan", value=lambda *_: math.nan, epochs=3),
}

FIGURES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "metric-line": ("grid", lambda plot: plot.metric("loss", "lr")),
    "metric-lines": ("grid", lambda plot: plot.metric("loss", "lr", "width", kind="line")),
    "metric-heat": ("grid", lambda plot: plot.metric("loss", "lr", "width")),
    "metric-cells": ("cells", lambda plot: plot.metric("loss", "a", "b")),
    "metric-rows": ("few", lambda plot: plot.metric("loss", "arch")),
    "metric-heat-of-words": ("few", lambda plot: plot.metric("loss", "arch", "opt")),
    "metric-line-of-words": ("few", lambda plot: plot.metric("loss", "arch", "opt", kind="line")),
    "metric-points": ("random", lambda plot: plot.metric("loss", "lr")),
    "metric-colours": ("random", lambda plot: plot.metric("loss", "lr", "heads", kind="points")),
    "metric-colours-of-words": ("random", lambda plot: plot.metric("loss", "lr", "arch")),
    "metric-one": ("one", lambda plot: plot.metric("loss", "lr")),
    "metric-one-cell": ("one", lambda plot: plot.metric("loss", "lr", "seed")),
    "metric-two": ("two", lambda plot: plot.metric("loss", "lr")),
    "metric-constant": ("constant", lambda plot: plot.metric("loss", "lr")),
    "metric-constant-heat": ("constant", lambda plot: plot.metric("loss", "lr", "seed")),
    "metric-nan": ("nan", lambda plot: plot.metric("loss", "lr")),
    "metric-some-nan": ("some nan", lambda plot: plot.metric("loss", "lr")),
    "metric-names": ("names", lambda plot: plot.metric(stores.HOSTILE * 3, "name")),
    "metric-names-line": ("names", lambda plot: plot.metric("loss", "name", stores.HOSTILE * 3, kind="line")),
    "metric-names-heat": ("names", lambda plot: plot.metric(stores.HOSTILE * 3, "name", stores.HOSTILE * 3)),
    "metric-names-upright": ("names", lambda plot: plot.metric("loss", stores.HOSTILE * 3, "name", kind="points")),
    "parallel": ("random", lambda plot: plot.parallel("loss")),
    "parallel-two-metrics": ("grid", lambda plot: plot.parallel(["loss", "acc"])),
    "parallel-one": ("one", lambda plot: plot.parallel()),
    "parallel-two": ("two", lambda plot: plot.parallel()),
    "parallel-constant": ("constant", lambda plot: plot.parallel("loss")),
    "parallel-nan": ("nan", lambda plot: plot.parallel("loss")),
    "parallel-names": ("names", lambda plot: plot.parallel(stores.HOSTILE * 3)),
    "parallel-columns": ("columns", lambda plot: plot.parallel("loss")),
    "pareto": ("random", lambda plot: plot.pareto("seconds", "acc")),
    "pareto-min": ("random", lambda plot: plot.pareto("seconds", "loss")),
    "pareto-max": ("random", lambda plot: plot.pareto("acc", "seconds", ["max", "max"])),
    "pareto-one": ("one", lambda plot: plot.pareto("seconds", "loss")),
    "pareto-constant": ("constant", lambda plot: plot.pareto("loss", "acc")),
    "pareto-nan": ("nan", lambda plot: plot.pareto("loss", "acc")),
    "pareto-front": ("front", lambda plot: plot.pareto("a", "b")),
    "pareto-names": ("names", lambda plot: plot.pareto("loss", stores.HOSTILE * 3)),
    "timeline": ("swept", lambda plot: plot.timeline()),
    "timeline-slurm": ("slurm", lambda plot: plot.timeline()),
    "timeline-many": ("many workers", lambda plot: plot.timeline()),
    "timeline-one": ("one worker", lambda plot: plot.timeline()),
    "curves": ("logged grid", lambda plot: plot.curves("Eval/loss")),
    "curves-by": ("logged grid", lambda plot: plot.curves(by="lr")),
    "curves-panels": ("logged few", lambda plot: plot.curves()),
    "curves-many": ("logged random", lambda plot: plot.curves()),
    "curves-one": ("logged one", lambda plot: plot.curves()),
    "curves-one-epoch": ("logged two", lambda plot: plot.curves()),
    "curves-names": ("logged names", lambda plot: plot.curves()),
    "curves-log": ("logged nan", lambda plot: plot.curves(by="width")),
    "curves-nan": ("logged nothing", lambda plot: plot.curves()),
}


def figure(name: str) -> Any:
    """Draw the figure ``name`` anew."""
    of, draw = FIGURES[name]
    return draw(store(of).plot)


@cache
def drawn(name: str) -> Any:
    """The figure ``name``, for those who only look at it."""
    return figure(name)
