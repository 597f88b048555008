"""submitit's executors over ``manager.sweep``: in processes of this machine, and on a real Slurm with its signals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Store
from tests.cluster.slurm import Cluster

pytest.importorskip("submitit", reason="submitit is not installed; pip install 'jimmy_manager[slurm]'")

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import os, sys, time
from pathlib import Path
import submitit
from jimmy_manager import Manager

def build(lr):
    return lr

class Sent(Manager):
    num_epochs = 3
    default_config = "sent.yaml"
    choices = {"model": {"lr": [0.1, 0.2, 0.3]}}

    def setup(self, config):
        super().setup(config)
        self.lr = config.model.instantiate()

    def train(self):
        attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
        with open("epochs", "a") as file:
            file.write(f"{self.key} {self.epoch} {attempt}\\n")
        if Path("wait").exists() and attempt == "0" and self.epoch == 1:
            Path("at-work").touch()
            while not self.stop:
                time.sleep(0.05)

    def eval(self):
        return {"loss": self.lr}

if __name__ == "__main__":
    kind, requeue, tasks = sys.argv[1:]
    executor = submitit.AutoExecutor(folder="out/%j", cluster=kind)
    executor.update_parameters(timeout_min=20, cpus_per_task=1, name="sent")
    manager = Sent("store", requeue=requeue == "requeue", device="cpu", threads=1)
    jobs = executor.map_array(manager.sweep, [None] * int(tasks))
    print(*(job.job_id for job in jobs), flush=True)
    if not Path("wait").exists():
        for job in jobs:
            print("report:", job.result(), flush=True)  # submitit says things on stdout, too
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sent_job.py").write_text(JOB)
    (tmp_path / "sent.yaml").write_text("model: {_target_: sent_job.build, lr: 0.1}")
    return tmp_path


def start(folder: Path, environ: dict[str, str], *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "sent_job.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=400,
        env=environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def trained(told: list[str]) -> int:
    return sum(int(line.split()[1]) for line in told if line.startswith("report:"))


def finished(folder: Path) -> int:
    return sum(stats["done"] for stats in Store(folder / "store", read_only=True).stats.values())


def reports(folder: Path) -> list[Any]:
    results = [pickle.loads(path.read_bytes()) for path in folder.glob("out/*/*_result.pkl")]
    assert all(state == "success" for state, _ in results), results
    return [report for _, report in results]


def check_each_epoch_was_trained_once(folder: Path) -> None:
    epochs = [line.split()[:2] for line in (folder / "epochs").read_text().splitlines()]
    assert len(epochs) == len({tuple(each) for each in epochs}) == 9


def test_map_array_over_sweep_trains_the_grid_by_processes_of_this_machine(folder: Path) -> None:
    told = start(folder, dict(os.environ), "local", "no", "2")
    assert trained(told) == 3
    assert finished(folder) == 3
    check_each_epoch_was_trained_once(folder)


def test_map_array_over_sweep_trains_the_grid_by_an_array_of_slurm(cluster: Cluster, folder: Path) -> None:
    told = start(folder, cluster.environ, "slurm", "no", "3")
    assert len(told[0].split()) == 3
    assert trained(told) == 3
    assert finished(folder) == 3
    check_each_epoch_was_trained_once(folder)


def signalled(cluster: Cluster, folder: Path, requeue: str, throw: Callable[[str], object]) -> None:
    (folder / "wait").touch()
    (task,) = start(folder, cluster.environ, "slurm", requeue, "1")
    cluster.wait_for("a worker in the middle of its run", (folder / "at-work").exists)
    throw(task)
    cluster.wait_for("the end of the worker", lambda: not cluster.tasks())


def test_submitits_signal_saves_and_ends_the_sweep_whose_report_tells_it(cluster: Cluster, folder: Path) -> None:
    signalled(cluster, folder, "no", lambda task: cluster.run("scancel", "--signal=USR2", task))
    (report,) = reports(folder)
    assert (report.stopped, report.done) == ("SIGUSR2", [])
    assert finished(folder) == 0
    assert [stats["epoch"] for stats in Store(folder / "store", read_only=True).stats.values()] == [2]


def test_submitits_signal_requeues_the_task_of_a_manager_that_is_told_so(cluster: Cluster, folder: Path) -> None:
    signalled(cluster, folder, "requeue", lambda task: cluster.run("scancel", "--signal=USR2", task))
    (report,) = reports(folder)
    assert (report.stopped, len(report.done)) == ("", 3)
    assert finished(folder) == 3
    check_each_epoch_was_trained_once(folder)


def test_a_task_that_slurm_requeues_goes_on_where_it_was(cluster: Cluster, folder: Path) -> None:
    signalled(cluster, folder, "no", lambda task: cluster.run("scontrol", "requeue", task))
    (report,) = reports(folder)
    assert (report.stopped, len(report.done)) == ("", 3)
    assert finished(folder) == 3
    check_each_epoch_was_trained_once(folder)
