"""Tasks whose time is too short for the sweep: Slurm warns them by a signal, and they save and ask for another turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster
from tests.cluster.sweep import ROOT, Sweep
from tests.stress.plan import Plan
from tests.stress.witness import read_journals

_SAVE_INTERVAL = 10


@pytest.mark.nightly  # Slurm's time limits are minutes
def test_tasks_save_when_their_time_is_up_and_go_on_in_another_turn(cluster: Cluster, tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), workers=4, configs=12, hits=4, signal="", seed=6, epochs=60, lease_s=60.0, pause_s=0.4)
    sweep = Sweep(cluster, plan)
    script = (ROOT / "jobs" / "worker.sbatch").read_text("utf-8").partition("\nexec ")[0]
    worker = sweep.worker("--requeue", f"--save-interval={_SAVE_INTERVAL}")
    sweep.submit("--time=1", "--signal=B:USR2@20", script=f"{script}\nexec {worker}\n")
    cluster.wait_for("all tasks at work", lambda: len(sweep.at_work()) == plan.workers)
    sweep.count("warned", sweep.await_restart(cluster.tasks()))
    sweep.end()
    assert sweep.violations() == []
    assert set(sweep.ended.values()) == {"COMPLETED 0:0"}, sweep.said()
    assert sweep.takeovers()["released"] >= 2
    saved = [line.epoch for line in read_journals(plan.journals) if line.event == "acknowledged"]
    assert sum(epoch % _SAVE_INTERVAL > 0 for epoch in saved) >= 2, "nobody saved between two intervals"
