"""Tasks that Slurm itself takes away, by preemption or with their node, go on where they were, in the same array."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.slurm import CPUS, Cluster
from tests.cluster.sweep import Sweep
from tests.stress.plan import Plan

_UP = ("idle", "mixed", "allocated")
_NOTHING = "#!/bin/sh\nexec sleep 1\n"


def test_tasks_that_were_preempted_or_lost_their_node_go_on_where_they_were(cluster: Cluster, tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), workers=8, configs=100, hits=6, signal="", seed=3, epochs=4, lease_s=8.0, pause_s=0.1)
    sweep = Sweep(cluster, plan)
    sweep.submit()
    preempt(sweep)
    lose_node(sweep)
    preempt(sweep)
    assert sweep.hits["preempted"] >= 2
    assert sweep.hits["lost with a node"] >= 1
    sweep.end()
    assert sweep.violations() == []
    assert set(sweep.ended.values()) == {"COMPLETED 0:0"}
    assert sweep.takeovers().total() >= 2
    assert sweep.resumed() >= 2


def preempt(sweep: Sweep) -> None:
    """Have a job of higher priority take a whole node from the tasks on it, for a moment."""
    node = sweep.await_task().node
    before = sweep.tasks_on(node)
    high = sweep.cluster.sbatch("--partition=high", f"--nodelist={node}", f"--cpus-per-task={CPUS}", script=_NOTHING)
    sweep.cluster.wait_for("the end of the job of higher priority", lambda: sweep.cluster.has_ended(high))
    sweep.count("preempted", sweep.await_restart(before))


def lose_node(sweep: Sweep) -> None:
    """Set the node of a task down: Slurm kills the tasks on it and requeues them."""
    node = sweep.await_task().node
    before = sweep.tasks_on(node)
    sweep.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    # It comes back by itself once its slurmd reports, as the lab's configuration asks for.
    sweep.cluster.wait_for(f"{node} to come back", lambda: sweep.cluster.node_state(node) in _UP)
    sweep.count("lost with a node", sweep.await_restart(before))
