"""Ranks on two nodes of a Slurm that preempts them: one worker, which saves, and goes on when its job is requeued."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import NODES, Cluster, free_ports
from tests.manager.rank_runs import JOB, ROOT, claims, results, run

SCRIPT = f"""#!/bin/bash
export PYTHONPATH={ROOT}{os.pathsep}{JOB.parent} OMP_NUM_THREADS=1 STEP_S=0.5
srun {sys.executable} -m torch.distributed.run --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d \\
    --rdzv-endpoint=127.0.0.1:$RENDEZVOUS --rdzv-id=$SLURM_JOB_ID.$SLURM_RESTART_COUNT {JOB} Pair $STORE
"""


@pytest.mark.nightly
def test_ranks_that_slurm_preempts_save_and_go_on_to_the_same_bytes(cluster: Cluster, tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    environ = {"STORE": str(store), "RENDEZVOUS": str(free_ports(1))}
    options = ("--partition=low", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", f"--output={log}")
    job = cluster.sbatch(*options, script=SCRIPT, environ=environ)
    cluster.wait_for("an epoch", lambda: any('"epoch":1' in path.read_text() for path in store.glob("stats/*/*.json")))
    cluster.sbatch("--partition=high", f"--nodes={NODES}", "--exclusive", script="#!/bin/sh\nexec sleep 1\n")
    cluster.wait_for("a requeue", lambda: any(task.restarts for task in cluster.tasks()))
    cluster.wait_for("the end", lambda: cluster.has_ended(job))
    printed = log.read_text()
    assert cluster.states(job) == {str(job): "COMPLETED 0:0"}, printed
    assert "0 done, 0 complete before; stopped by SIGTERM" in printed
    assert "goes on after epoch 1/4" in printed
    assert "2 done, 0 complete before" in printed
    assert claims(store, 3) == ["released", "held", "done"]
    run(tmp_path / "undisturbed")
    assert results(store) == results(tmp_path / "undisturbed")
