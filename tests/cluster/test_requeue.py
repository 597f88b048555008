"""A job that is shorter than its training requeues itself, exactly itself, until the training is done."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Manager, Store
from tests.cluster.slurm import Cluster

ROOT = Path(__file__).resolve().parents[2]
JOB = '''
import os, random, time
from jimmy_manager import Manager

class Slow(Manager):
    """Writes down each epoch that it trains; its result depends on the random states that are resumed."""

    num_epochs = 30
    choices = {"seed": [1]}

    def init_ckpt(self):
        super().init_ckpt()
        self.ckpt["sum"] = 0.0

    def train(self):
        with open("epochs", "a") as file:
            file.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {self.epoch + 1}\\n")
        time.sleep(float(os.environ.get("EPOCH_S", 0)))
        self.ckpt["sum"] = self.ckpt["sum"] * 0.9 + random.random()

    def eval(self):
        return {"sum": self.ckpt["sum"]}
'''


def python(*arguments: str) -> str:
    """The last line of a batch script: this Python with this package, in place of the script."""
    return f"export PYTHONPATH={shlex.quote(str(ROOT))}\nexec {shlex.join([sys.executable, *arguments])}\n"


def worker(*options: str) -> str:
    return python("-P", "-m", "jimmy_manager.cli", "worker", "slow.py", "--requeue", *options)


def result(folder: Path) -> dict[str, Any]:
    store = Store(folder / "store", read_only=True)
    key = next(iter(store.registry))
    assert store.standing(key).state == "done"
    return {name: value for name, value in store.ckpts[key].items() if name in ("sum", "eval_records")}


def undisturbed(folder: Path) -> dict[str, Any]:
    """The result of the same job, trained here in one go."""
    folder.mkdir()
    scope: dict[str, Any] = {"__name__": "slow"}
    exec(JOB, scope)
    manager: Manager = scope["Slow"](folder / "store", verbose=False)
    before = Path.cwd()
    os.chdir(folder)
    try:
        manager.sweep()
    finally:
        os.chdir(before)
    return result(folder)


def epochs(folder: Path) -> list[tuple[int, int]]:
    """The epochs that were trained, each with the restart of the job in which that was."""
    path = folder / "epochs"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(restart), int(epoch)) for restart, epoch in map(str.split, lines)]


@pytest.mark.parametrize(
    ("slurm", "own", "epoch_s"),
    [
        pytest.param([], ["--time-limit", "0:20"], 0.75, id="its own limit"),
        pytest.param(["--time=1"], [], 3.0, id="that of Slurm", marks=pytest.mark.nightly),
    ],
)
def test_a_job_requeues_itself_when_its_time_is_up_and_ends_as_an_undisturbed_one(
    cluster: Cluster, tmp_path: Path, slurm: list[str], own: list[str], epoch_s: float
) -> None:
    (tmp_path / "slow.py").write_text(JOB)
    script = "#!/bin/sh\n" + worker(*own)
    job = cluster.sbatch(
        f"--chdir={tmp_path}", "--output=out", *slurm, script=script, environ={"EPOCH_S": str(epoch_s)}
    )
    cluster.wait_for("the end of the job", lambda: cluster.has_ended(job))
    said = (tmp_path / "out").read_text()
    assert list(cluster.states(job).values()) == ["COMPLETED 0:0"], said
    trained = epochs(tmp_path)
    assert [epoch for _, epoch in trained] == list(range(1, 31)), said  # none was lost, and none trained twice
    assert trained[-1][0] >= 1, said
    assert said.count("stopped by time limit") == trained[-1][0]
    assert result(tmp_path) == undisturbed(tmp_path / "undisturbed")


def test_a_signal_requeues_exactly_its_task_of_an_array(cluster: Cluster, tmp_path: Path) -> None:
    for task in ("0", "1"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "slow.py").write_text(JOB)
    script = "#!/bin/sh\ncd $SLURM_ARRAY_TASK_ID\n" + worker()
    job = cluster.sbatch(
        f"--chdir={tmp_path}", "--array=0-1", "--output=out-%a", script=script, environ={"EPOCH_S": "0.2"}
    )
    cluster.wait_for("some epochs", lambda: min(len(epochs(tmp_path / task)) for task in ("0", "1")) > 2)
    cluster.run("scancel", "--batch", "--signal=USR2", f"{job}_1")
    cluster.wait_for("the end of the array", lambda: cluster.has_ended(job))
    assert list(cluster.states(job).values()) == ["COMPLETED 0:0"] * 2
    assert {restart for restart, _ in epochs(tmp_path / "0")} == {0}
    assert {restart for restart, _ in epochs(tmp_path / "1")} == {0, 1}
    assert result(tmp_path / "0") == result(tmp_path / "1")


def test_each_task_of_an_array_is_told_its_own_name_and_time(cluster: Cluster, tmp_path: Path) -> None:
    code = "from jimmy_manager.slurm import this_job, time_left_s; print(this_job().name, round(time_left_s()))"
    script = "#!/bin/sh\n" + python("-c", code)
    job = cluster.sbatch(f"--chdir={tmp_path}", "--array=3-4", "--time=7", "--output=out-%a", script=script)
    cluster.wait_for("the end of the array", lambda: cluster.has_ended(job))
    for task in ("3", "4"):
        name, left = (tmp_path / f"out-{task}").read_text().split()
        assert name == f"{job}_{task}"
        assert 300 < int(left) <= 420


def test_a_job_that_a_task_of_an_array_submitted_is_told_its_own_name_and_requeues_itself(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(JOB)
    code = "from jimmy_manager.slurm import this_job, time_left_s; print(this_job().name, round(time_left_s()))"
    told = shlex.join([sys.executable, "-c", code])
    (tmp_path / "inner.sh").write_text(f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} {told}\n" + worker())
    submit = "sbatch --parsable --requeue --open-mode=append --time=7 --output=out inner.sh >job"
    outer = cluster.sbatch(
        f"--chdir={tmp_path}", "--array=3", script=f"#!/bin/sh\n{submit}\nwhile ! [ -e over ]; do sleep 0.2; done\n",
        environ={"EPOCH_S": "0.2"},
    )
    cluster.wait_for("some epochs", lambda: len(epochs(tmp_path)) > 2)
    inner = int((tmp_path / "job").read_text())
    cluster.run("scancel", "--batch", "--signal=USR2", str(inner))
    cluster.wait_for("the end of the inner job", lambda: cluster.has_ended(inner))
    assert [(task.name, task.state, task.restarts) for task in cluster.tasks()] == [(f"{outer}_3", "R", 0)]
    assert list(cluster.states(inner).values()) == ["COMPLETED 0:0"]
    assert {restart for restart, _ in epochs(tmp_path)} == {0, 1}
    name, left = (tmp_path / "out").read_text().split()[:2]
    assert name == str(inner)
    assert 300 < int(left) <= 420
    (tmp_path / "over").touch()
    cluster.wait_for("the end of the outer job", lambda: cluster.has_ended(outer))


def test_processes_of_one_step_refuse_to_requeue_and_what_they_submit_does_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(JOB)
    (tmp_path / "inner.sh").write_text("#!/bin/sh\n" + worker("--wait", "--num-epochs=2"))
    command = shlex.join([sys.executable, "-P", "-m", "jimmy_manager.cli", "sweep", "slow.py", "--requeue"])
    script = f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(ROOT))}\nsrun -n2 --output=step-%t {command}\n"
    script += "srun -n2 sh -c '[ $SLURM_PROCID = 0 ] && sbatch --parsable -n1 --output=inner inner.sh >job; true'\n"
    script += worker("--wait", "--num-epochs=1")
    outer = cluster.sbatch(f"--chdir={tmp_path}", "-n2", "--output=out", script=script)
    cluster.wait_for("the end of all", lambda: not cluster.tasks())
    for task in ("0", "1"):
        assert "one of 2 processes of a step" in (tmp_path / f"step-{task}").read_text()
    assert list(cluster.states(outer).values()) == ["COMPLETED 0:0"], (tmp_path / "out").read_text()
    inner = int((tmp_path / "job").read_text())
    assert list(cluster.states(inner).values()) == ["COMPLETED 0:0"], (tmp_path / "inner").read_text()
    assert [epoch for _, epoch in epochs(tmp_path)] == [1, 2]
