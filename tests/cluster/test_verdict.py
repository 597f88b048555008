"""A real Slurm's word about a job, and what a waiting worker makes of it."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jimmy_manager import Store, slurm_queue
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.owner import this_process
from jimmy_manager.slurm import Job
from jimmy_manager.slurm_queue import Queue
from tests.cluster.slurm import Cluster, requeued
from tests.manager import endless

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
LEASE_S = 1000.0


def submit(cluster: Cluster, folder: Path, *options: str) -> int:
    """A worker that believes to be on a host of its own, as workers on other nodes are."""
    words = [sys.executable, endless.__file__, str(folder), str(LEASE_S)]
    script = f'#!/bin/bash\nexec {shlex.join(words)} "boot of $SLURM_JOB_ID"\n'
    environ = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return cluster.sbatch("--output", str(folder / "out-%j"), *options, script=script, environ=environ)


def claim(folder: Path, generation: int) -> ClaimRecord | None:
    if not (folder / "store" / "store.yaml").exists():
        return None
    store = Store(folder / "store", read_only=True)
    for key in store.registry:
        if generation in store.claims.look(key).claims:
            return store.claims.read(key, generation)
    return None


def test_a_job_that_was_killed_is_succeeded_long_before_its_lease_ends(cluster: Cluster, tmp_path: Path) -> None:
    first = submit(cluster, tmp_path)
    cluster.wait_for("the first worker to train", lambda: list(tmp_path.glob("training-*")))
    submit(cluster, tmp_path)
    cluster.wait_for("the second worker to wait", lambda: list(tmp_path.glob("waiting-*")))
    killed = time.monotonic()
    cluster.run("scancel", "--signal=KILL", "--full", str(first))
    record = cluster.wait_for("the takeover", lambda: claim(tmp_path, 2))
    assert record is not None
    assert time.monotonic() - killed < LEASE_S / 2
    assert (record.after, record.settle, record.lease_s) == ("ended", True, LEASE_S)
    before = claim(tmp_path, 1)
    assert before is not None
    assert (before.state, before.owner.job is not None and before.owner.job.id) == ("held", first)


def test_a_worker_that_a_requeued_task_submitted_is_not_taken_for_an_earlier_attempt(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environ["SLURM_CONF"])
    words = [sys.executable, endless.__file__, str(tmp_path), str(LEASE_S)]
    (tmp_path / "inner.sh").write_text(f"#!/bin/bash\nexec {shlex.join(words)} boot$$\n")
    cluster.sbatch(
        "--array=3", f"--chdir={tmp_path}", script=requeued("sbatch --parsable --requeue --output=out inner.sh >job"),
        environ={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    cluster.wait_for("the worker to train", lambda: list(tmp_path.glob("training-*")))
    record = claim(tmp_path, 1)
    assert record is not None
    job = record.owner.job
    assert job is not None
    inner = (tmp_path / "job").read_text().strip()
    assert (str(job.id), job.name, job.restarts) == (inner, inner, 0)
    queue = Queue(None, this_process().user)

    def has_ended() -> bool:
        return [queue.has_ended(each) for each in (job, job._replace(restarts=1))] != [False, False]

    has_ended()
    queue.wait(60)
    assert not has_ended()
    cluster.run("scontrol", "requeue", inner)  # the first restart of its own, after one that it has inherited
    cluster.wait_for("the second attempt", lambda: len(list(tmp_path.glob("training-*"))) == 2)
    later = claim(tmp_path, 2)
    assert later is not None
    assert later.after == "ended"
    assert later.owner.job == job._replace(restarts=1, node=later.owner.node)


def test_the_queue_tells_the_jobs_that_run_from_those_that_do_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environ["SLURM_CONF"])
    monkeypatch.setattr(slurm_queue, "CALL_EVERY_S", 0.0)
    user = this_process().user
    queue = Queue(None, user)

    def has_ended(job: int, restarts: int = 0) -> bool:
        asked = Job(job, restarts=restarts, user=user, cluster="lab")
        queue.has_ended(asked)
        queue.wait(60)
        return queue.has_ended(asked, is_asked=False)

    array = cluster.sbatch("--array=0-2", script="#!/bin/bash\nsleep 600\n")
    tasks = cluster.wait_for("three tasks", lambda: len(cluster.tasks("R")) == 3 and cluster.tasks("R"))
    pending = cluster.sbatch("--begin=now+1hour", script="#!/bin/bash\nsleep 600\n")
    assert [has_ended(task.job) for task in tasks] == [False] * 3
    assert has_ended(pending), "it was begun and put back, for all that a claim can tell"
    assert has_ended(pending + 1000)
    one, other, third = tasks
    cluster.run("scancel", one.name)
    cluster.wait_for("its end", lambda: has_ended(one.job))
    cluster.run("scontrol", "requeue", other.name)
    cluster.wait_for("the end of the first attempt", lambda: has_ended(other.job))
    cluster.wait_for("the second attempt", lambda: [t for t in cluster.tasks("R") if t.restarts == 1])
    assert not has_ended(other.job, restarts=1)
    assert not has_ended(third.job)
    cluster.run("scancel", str(array))
