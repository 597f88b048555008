"""Workers that outlive their slurmd: Slurm starts their tasks again elsewhere while they are still there to save.

Two are held in the middle of an epoch, one with its heartbeat going on, the other stopped altogether, until their runs
have been taken over; then they go on. The lease is longer than the test, so that only Slurm's word can have ended it.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster, Task, wait_for
from tests.cluster.sweep import Sweep
from tests.stress.plan import Plan


def test_nothing_that_a_zombie_writes_after_the_takeover_counts(cluster: Cluster, tmp_path: Path) -> None:
    sweep = sweep_with_zombies(cluster, tmp_path)
    assert sweep.violations() == []
    assert set(sweep.ended.values()) == {"COMPLETED 0:0"}
    assert sweep.takeovers()["ended"] >= 2
    assert sweep.resumed() >= 2


@pytest.mark.nightly
def test_zombies_that_never_look_whether_they_were_replaced_are_noticed(cluster: Cluster, tmp_path: Path) -> None:
    sweep = sweep_with_zombies(cluster, tmp_path, twin="never check")
    assert any(violation.startswith("late") for violation in sweep.violations())


def sweep_with_zombies(cluster: Cluster, folder: Path, twin: str = "") -> Sweep:
    plan = Plan(
        str(folder), workers=6, configs=30, hits=2, signal="", seed=5, epochs=6, lease_s=1000.0, pause_s=0.1, twin=twin,
    )
    sweep = Sweep(cluster, plan)
    sweep.submit()
    tasks = cluster.wait_for("two tasks at work on one node", lambda: two_on_a_node(sweep))
    pids = [sweep.pid_of(task) for task in tasks]
    runs = [sweep.hold(pid) for pid in pids]
    cluster.lab("kill-node", tasks[0].node.removeprefix("n"))
    os.kill(pids[0], signal.SIGSTOP)
    sweep.await_restart(tasks)
    for run in runs:
        cluster.wait_for(f"the takeover of {run}", lambda run=run: sweep.is_taken_over(*run))
    assert all(map(is_alive, pids)), "no zombie is left"
    for pid in pids:
        sweep.let_go(pid)
    os.kill(pids[0], signal.SIGCONT)
    sweep.count("outlived their slurmd", len(pids))
    sweep.end()
    wait_for("the end of the zombies", lambda: not any(map(is_alive, pids)))
    return sweep


def two_on_a_node(sweep: Sweep) -> list[Task]:
    """Two tasks at work that one slurmd has started; nothing where there are none."""
    by_node = defaultdict(list)
    for task in sweep.at_work():
        by_node[task.node].append(task)
    return next((tasks for tasks in by_node.values() if len(tasks) == 2), [])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
