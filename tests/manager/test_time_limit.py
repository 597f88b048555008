"""A `TrainedManager` whose time is up: it stops at a step, is saved in time, and goes on exactly there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jimmy_manager import TrainedManager
from jimmy_manager.archives.clock import Clock

CONFIG = {
    "data": {"_target_": f"{__name__}.load_data"},
    "model": {"_target_": f"{__name__}.build_model"},
    "optim": {"_target_": "torch.optim.Adam", "lr": 0.02},
    "batch_size": 4,
}


def load_data() -> dict[str, Any]:
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    return {"train": (inputs, (inputs[:, 0] > 0).long()), "valid": (inputs[:9], (inputs[:9, 0] > 0).long())}


def build_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 2))


class Steps(Clock):
    time = 0.0

    def monotonic(self) -> float:
        return self.time


class Slow(TrainedManager):
    """Each step takes a second; ten make an epoch."""

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.store.claims.clock.time += 1.0  # type: ignore[attr-defined]
        return super().loss(output, targets)


def slow(tmp_path: Path, name: str, seconds: float | None = None) -> Slow:
    limit = None if seconds is None else timedelta(seconds=seconds)
    return Slow(tmp_path / name, time_limit=limit, verbose=False, device="cpu", threads=1, clock=Steps())


def test_a_training_stops_at_a_step_in_time_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = slow(tmp_path, "whole")
    key = whole.process(CONFIG, num_epochs=4)
    ends = []
    for _ in range(9):
        manager = slow(tmp_path, "cut", 8.0)
        report = manager.batch([CONFIG], num_epochs=4)
        ends.append((manager.store.claims.clock.monotonic(), manager.stats[key]["epoch"]))
        if report.done:
            break
    assert report.done == [key], ends
    assert max(seconds for seconds, _ in ends) <= 8.0
    assert ends[0] == (8.0, 0)  # in the middle of the first epoch
    assert len(ends) >= 5
    found, expected = manager.ckpts[key], whole.ckpts[key]
    assert found["eval_records"] == expected["eval_records"]
    assert all(torch.equal(found["model"][name], value) for name, value in expected["model"].items())


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_less_than_a_few_steps_are_not_begun_where_the_steps_are_known(tmp_path: Path, seconds: float) -> None:
    manager = slow(tmp_path, "store", 20.0)
    manager.process(CONFIG, num_epochs=1)
    manager._deadline = None
    manager._limit_s = seconds
    before = manager.store.claims.clock.monotonic()
    assert manager.batch([CONFIG | {"seed": 1}], num_epochs=4).stopped == "time limit"
    assert manager.store.claims.clock.monotonic() == before
    assert len(manager.stats) == 1
