"""``jimmy submit``, ``jobs/worker.sbatch`` and a script of one's own against a real Slurm."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager import Store
from jimmy_manager.cluster.submission import TEMPLATE, fill, make_output_folders
from jimmy_manager.errors import ConfigError
from tests.cluster.slurm import Cluster, requeued

ROOT = Path(__file__).resolve().parents[2]
JOB = """
from jimmy_manager import Manager

class Digits(Manager):
    num_epochs = 2
    choices = {"lr": [0.1, 0.2, 0.3], "seed": [0, 1]}

    def train(self):
        print("trains", self.key, flush=True)

    def eval(self):
        return {"loss": self.config.lr}

if __name__ == "__main__":
    Digits.main()
"""
# What must be ignored where a worker starts, told by a program in its place.
IGNORED = "import signal as s; print(*(s.Signals(n).name for n in (1, 10, 12, 15) if s.getsignal(n) == s.SIG_IGN))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job in a place whose name is awkward for every shell on the way."""
    place = tmp_path / """it's "the" $HOME dir"""
    (place / "jobs").mkdir(parents=True)
    (place / "jobs" / "digits.py").write_text(JOB)
    (place / "jobs" / "digits.yaml").write_text("{lr: [0.1, 0.2], seed: [0, 1]}")
    return place


@pytest.fixture
def call(cluster: Cluster, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in the job's folder, where ``jimmy`` is this very package and Slurm the lab's."""
    program = folder.parent / "bin" / "jimmy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m jimmy_manager.cli "$@"\n')
    program.chmod(0o755)
    environ = cluster.environ | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def run(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env=environ, input=given, capture_output=True, text=True, timeout=300
        )

    return run


def done(store: Path) -> int:
    return sum(stats["done"] for stats in Store(store, read_only=True).stats.values()) if store.exists() else 0


def test_workers_that_were_submitted_train_the_grid_and_leave_their_output(
    cluster: Cluster, folder: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = ("submit", "jobs/digits.py", "--choices", "jobs/digits.yaml", "--store", "a store", "--time=20")
    told = call("jimmy", *words, "--array=3", "seed=7", "--", "--comment", "it's", "--cpus-per-task=1")
    assert told.returncode == 0, told.stderr
    job = int(told.stdout)
    cluster.wait_for("the end of the workers", lambda: not cluster.tasks())
    assert set(cluster.states(job).values()) == {"COMPLETED 0:0"}, told.stderr
    assert done(folder / "a store") == 2
    outputs = sorted((folder / "slurm").iterdir())
    assert [path.name for path in outputs] == [f"digits-{job}_{task}.out" for task in (1, 2, 3)]
    assert sum(path.read_text().count("trains") for path in outputs) == 4

    # What --dry-run prints is a script for sbatch.
    script = call("jimmy", *words, "--array=2", "--dry-run", "--", "--cpus-per-task=1").stdout
    again = int(call("sbatch", "--parsable", given=script).stdout)
    cluster.wait_for("the end of the workers", lambda: not cluster.tasks())
    assert set(cluster.states(again).values()) == {"COMPLETED 0:0"}
    assert done(folder / "a store") == 6

    # What Slurm refuses is Slurm's to tell.
    refused = call("jimmy", *words, "--array=5000")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Invalid job array specification" in refused.stderr
    assert call("jimmy", *words, "--", "--partition=none").returncode == 1
    assert not cluster.tasks()


def test_workers_that_a_requeued_task_of_an_array_submitted_leave_each_other_their_runs(
    cluster: Cluster, folder: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    job = folder / "jobs" / "digits.py"
    slow = "import os, time; time.sleep(4); print('of', os.environ.get('SLURM_RESTART_COUNT'), flush=True)"
    job.write_text(JOB.replace('print("trains", self.key, flush=True)', slow))
    submit = "jimmy submit jobs/digits.py --choices jobs/digits.yaml --store own --array=3 lr=0.1 >told"
    words = ("sbatch", "--parsable", "--requeue", "--array=2", "--ntasks=2", "--output=outer", "--open-mode=append")
    outer = call(*words, given=requeued(submit))
    assert outer.returncode == 0, outer.stderr
    cluster.wait_for("the end of all", lambda: not cluster.tasks())
    inner = int((folder / "told").read_text())
    assert set(cluster.states(inner).values()) == {"COMPLETED 0:0"}
    printed = "".join(path.read_text() for path in (folder / "slurm").iterdir())
    assert printed.count("of None") == 4, printed
    store = Store(folder / "own", read_only=True)
    for key in store.registry:
        assert list(store.claims.look(key).claims) == [1, 2], "somebody took it from its holder"
        held = store.claims.read(key, 1).owner.job
        assert held is not None
        assert (held.array_job == int(outer.stdout), held.restarts) == (False, 0)


def test_the_script_in_the_repository_works_as_it_stands(
    cluster: Cluster, folder: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    told = call("sbatch", "--parsable", str(ROOT / "jobs" / "worker.sbatch"))
    assert told.returncode == 0, told.stderr
    cluster.wait_for("the end of the workers", lambda: not cluster.tasks())
    assert set(cluster.states(int(told.stdout)).values()) == {"COMPLETED 0:0"}
    assert done(folder / "store") == 4
    assert len(list(folder.glob("worker-*.out"))) == 8


def test_a_script_of_ones_own_needs_no_command_of_ours(
    cluster: Cluster, folder: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (folder / "sweep.py").write_text("from jobs.digits import Digits\nprint(Digits('own').sweep(wait=True))\n")
    script = f"#!/bin/bash\n#SBATCH --array=1-3\nexec {sys.executable} sweep.py\n"
    told = call("sbatch", "--parsable", "--output=own-%a", given=script)
    assert told.returncode == 0, told.stderr
    cluster.wait_for("the end of the tasks", lambda: not cluster.tasks())
    assert set(cluster.states(int(told.stdout)).values()) == {"COMPLETED 0:0"}
    assert done(folder / "own") == 6
    reports = [path.read_text().splitlines()[-1] for path in folder.glob("own-*")]
    assert sum(int(report.split()[0]) for report in reports) == 6, reports


@pytest.mark.parametrize(("trap", "ignored"), [("trap '' USR1 USR2", "SIGUSR1 SIGUSR2"), ("true", "")])
def test_a_signal_that_comes_too_early_cannot_kill_the_worker(trap: str, ignored: str) -> None:
    own = TEMPLATE.read_text("utf-8")
    assert own.count("\ntrap '' USR1 USR2\n") == 1
    script = fill(own.replace("trap '' USR1 USR2", trap), {}, [], [sys.executable, "-c", IGNORED])
    told = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=60)
    assert (told.stdout.strip(), told.returncode) == (ignored, 0)


def test_the_worker_takes_the_place_of_the_shell_that_slurm_sends_its_signals_to() -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    script = fill(TEMPLATE.read_text("utf-8"), {}, [], [sys.executable, "-c", code])
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        try:
            assert shell.stdout is not None
            assert int(shell.stdout.readline()) == shell.pid
        finally:
            shell.send_signal(signal.SIGKILL)


def test_the_last_of_equal_options_is_the_one_that_counts(folder: Path) -> None:
    script = fill("#SBATCH -o a/%j\nexec jimmy sweep x\n", {"chdir": str(folder)}, ["--output", "b c/%j"], ["true"])
    make_output_folders(script)
    assert (folder / "b c").is_dir()
    assert not (folder / "a").exists()


def test_a_line_with_several_options_keeps_those_that_are_not_given() -> None:
    lines = "#SBATCH --array=1-3 --requeue\n#SBATCH --time 9  # hours\n#SBATCH --exclusive\nexec jimmy sweep x"
    assert fill(lines, {"array": "1-9", "time": "2"}, [], ["true"]).splitlines() == [
        "#SBATCH --array=1-3 --requeue", "#SBATCH --time=2", "#SBATCH --exclusive", "#SBATCH --array=1-9", "exec true",
    ]  # fmt: skip


def test_a_folder_that_only_slurm_can_name_is_left_to_it(folder: Path) -> None:
    make_output_folders(fill("exec jimmy sweep x\n", {"chdir": str(folder), "output": "%x/%j"}, [], ["true"]))
    assert sorted(each.name for each in folder.iterdir()) == ["jobs"]


@pytest.mark.parametrize("script", ["#!/bin/sh\n", "# exec jimmy sweep x\n", "jimmy\nsweep x", "notjimmy sweep x"])
def test_a_script_that_starts_no_worker_is_refused(script: str) -> None:
    with pytest.raises(ConfigError, match="no line with 'jimmy sweep JOB'"):
        fill(script, {}, [], ["true"])


def test_an_option_of_two_lines_is_refused() -> None:
    for own, further in (({"chdir": "a\nb"}, []), ({}, ["--comment=a\nb"])):
        with pytest.raises(ConfigError, match="cannot hold"):
            fill("exec jimmy sweep x", own, further, ["true"])


def test_the_script_in_the_repository_is_the_one_that_is_filled_in() -> None:
    assert (ROOT / "jobs" / "worker.sbatch").samefile(TEMPLATE)


def test_an_installed_package_has_the_script(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "jimmy_manager").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = tree / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    built = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        assert package.read("jimmy_manager/cluster/worker.sbatch") == TEMPLATE.read_bytes()


def test_the_words_of_a_command_come_through_the_shell() -> None:
    words = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "it's", '"', "$HOME", "a b", "", "`x`", "*"]
    script = fill(TEMPLATE.read_text("utf-8"), {}, [], words)
    told = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=60)
    assert told.stdout == f"{words[3:]}\n", shlex.join(words)
