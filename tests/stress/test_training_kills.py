"""Trainings that are killed and stopped at random moments, and go on: they end in the bytes of one that nobody touched.

What no failure bounds: with N signals, after none of which a training ended otherwise, a fault that shows at a random
moment has, with 95 % confidence, a probability of at most 3/N a signal. The twin, whose random numbers are
forgotten, shows that this harness sees faults at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from jimmy_manager import Store
from jimmy_manager.state_files import load_state
from tests.stress.kill_storm import INTERRUPTED, STOPPED, Plan

_ROOT = Path(__file__).parents[2]
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_ALL = ["SIGKILL", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"]
# SIGTERM and SIGINT end a process that has not begun to listen, or does no more.
_HANDLED = {"0", str(STOPPED), str(INTERRUPTED), "SIGKILL", "SIGTERM", "SIGINT"}


def _storms(*plans: Plan) -> list[dict[str, dict[str, int]]]:
    # Into files: a worker of torch's that a killed training leaves behind would keep a pipe open.
    told = Path(plans[0].folder).with_suffix(".told")
    with open(told, "w+") as out, open(told.with_suffix(".errors"), "w+") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "tests.stress.kill_storm", json.dumps([plan._asdict() for plan in plans])],
            cwd=_ROOT, env=os.environ | _ONE_THREAD, stdout=out, stderr=errors,
            timeout=sum(plan.deadline_s for plan in plans) + 60,
        )  # fmt: skip
        lines = [file.seek(0) or file.read() for file in (out, errors)]
    print(lines[0], lines[1][-8000:], sep="\n")
    assert done.returncode == 0
    return [json.loads(line) for line in lines[0].splitlines()]


def _values(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a state, to the bit."""
    if isinstance(state, dict | list | tuple):
        for name, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _values(value, f"{path}.{name}")
    elif isinstance(state, Tensor | np.ndarray):
        array = np.asarray(state)
        yield path, (str(array.dtype), array.shape, array.tobytes())
    else:
        yield path, repr(state)


def _differing(plan: Plan) -> list[str]:
    """What is not in the storm as it is without, by its path."""
    found = [dict(_results(plan, name)) for name in ("whole", "storm")]
    assert len(found[0]) > 60
    return sorted(path for path in found[0].keys() | found[1].keys() if found[0].get(path) != found[1].get(path))


def _results(plan: Plan, name: str) -> Iterator[tuple[str, Any]]:
    folder = Path(plan.folder, name)
    if plan.kind != "manager":
        for file in ("last.pth", "best.pth"):
            yield from _values(load_state(folder / "run" / file), file)
        return
    store = Store(folder / "store", read_only=True)
    keys = list(store.registry)
    assert len(keys) == 4
    for key in keys:
        yield f"{key} is", store.standing(key).state
        yield from _values(store.ckpts[key], key)
        yield from _values(dict(store.previews[key]), f"{key} shows")


def _hits(report: dict[str, dict[str, int]], *ends: str | int) -> int:
    return sum(report["storm"].get(str(end), 0) for end in ends)


def _assert_untouched(plan: Plan, report: dict[str, dict[str, int]]) -> None:
    assert set(report["storm"]) <= _HANDLED
    assert _differing(plan) == []


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Plan, dict[str, dict[str, int]]]]:
    """All quick storms from one program, because that has much to import."""
    folder = tmp_path_factory.mktemp("storms")
    plans = {
        "killed": Plan(str(folder / "killed"), "experiment", hits=12, signals=["SIGKILL"], seed=1, epochs=25),
        "stopped": Plan(str(folder / "stopped"), "loader", hits=6, signals=_ALL, seed=2, epochs=20),
        "workers": Plan(
            str(folder / "workers"), "manager", hits=7, signals=["SIGKILL", "SIGTERM"], seed=3, epochs=8, workers=2
        ),
        "twin": Plan(str(folder / "twin"), "forgetful", hits=12, signals=["SIGKILL"], seed=4, epochs=25),
    }
    reports = _storms(*plans.values())
    return dict(zip(plans, zip(plans.values(), reports, strict=True), strict=True))


def test_an_experiment_that_is_killed_again_and_again_ends_in_the_same_bytes(quick: Any) -> None:
    plan, report = quick["killed"]
    assert _hits(report, "SIGKILL") >= 8
    _assert_untouched(plan, report)


def test_an_experiment_with_forked_workers_that_is_stopped_by_every_signal_ends_in_the_same_bytes(quick: Any) -> None:
    plan, report = quick["stopped"]
    assert _hits(report, STOPPED, INTERRUPTED, "SIGKILL") >= 5
    _assert_untouched(plan, report)


def test_two_workers_on_one_store_that_are_killed_and_stopped_leave_the_same_results(quick: Any) -> None:
    plan, report = quick["workers"]
    assert _hits(report, STOPPED, "SIGKILL") >= 6
    _assert_untouched(plan, report)


def test_a_training_that_forgets_its_random_numbers_is_caught(quick: Any) -> None:
    plan, report = quick["twin"]
    assert _hits(report, "SIGKILL") >= 8
    assert "last.pth.model.net.0.weight" in _differing(plan)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["experiment", "loader"])
@pytest.mark.parametrize("signals", [["SIGKILL"], _ALL], ids=["killed", "all signals"])
def test_an_experiment_survives_to_be_ended_forty_times(kind: str, signals: list[str], tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), kind, hits=40, signals=signals, seed=5, epochs=120)
    (report,) = _storms(plan)
    assert _hits(report, STOPPED, INTERRUPTED, "SIGKILL") >= 40
    _assert_untouched(plan, report)


@pytest.mark.nightly
@pytest.mark.parametrize("signals", [["SIGKILL"], ["SIGTERM"], _ALL], ids=["killed", "stopped", "all signals"])
def test_three_workers_on_one_store_survive_to_be_ended_a_hundred_times(signals: list[str], tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), "manager", hits=100, signals=signals, seed=6, epochs=80, workers=3)
    (report,) = _storms(plan)
    assert _hits(report, STOPPED, INTERRUPTED, "SIGKILL") >= 100
    _assert_untouched(plan, report)
