"""An array of eight tasks works through two hundred configurations while tasks are cancelled, killed and requeued."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.slurm import Cluster
from tests.cluster.sweep import Sweep
from tests.stress.plan import Plan


def test_each_configuration_is_done_once_while_tasks_are_requeued_cancelled_and_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    plan = Plan(str(tmp_path), workers=8, configs=200, hits=11, signal="", seed=1, epochs=4, lease_s=8.0, pause_s=0.05)
    sweep = Sweep(cluster, plan)
    sweep.submit()
    gone = set()
    for _ in range(3):
        sweep.hit_one("requeued", lambda task: cluster.run("scontrol", "requeue", task.name))
    for _ in range(3):
        gone.add(sweep.hit_one("cancelled", lambda task: cluster.run("scancel", task.name)).name)
        sweep.hit_one("requeued", lambda task: cluster.run("scontrol", "requeue", task.name))
    for _ in range(2):
        gone.add(sweep.hit_one("killed", sweep.kill).name)
    sweep.end()
    assert sweep.violations() == []
    assert {name for name, state in sweep.ended.items() if not state.startswith("COMPLETED 0:0")} == gone
    takeovers = sweep.takeovers()
    assert takeovers.total() - takeovers["released"] >= sweep.hits["killed"]
    assert takeovers.total() >= 5
    assert sweep.resumed() >= 5


def test_attempts_that_do_not_resume_are_noticed(cluster: Cluster, tmp_path: Path) -> None:
    plan = Plan(
        str(tmp_path), workers=3, configs=12, hits=4, signal="", seed=2, epochs=8, lease_s=8.0, pause_s=0.2,
        twin="never resume",
    )
    sweep = Sweep(cluster, plan)
    sweep.submit()
    for _ in range(plan.hits):
        sweep.hit_one("requeued", lambda task: cluster.run("scontrol", "requeue", task.name))
    sweep.end()
    assert any(violation.startswith("outranked") for violation in sweep.violations())
