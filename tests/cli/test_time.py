"""The time limit, the requeue and the stop signals of ``jimmy sweep``, with programs in the place of Slurm's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager import Store

Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.usefixtures("job")
JOB = "jobs/sample_job.py"


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states(directory: Path) -> set[str]:
    store = Store(directory, read_only=True)
    return {store.standing(key).state for key in store.registry}


@pytest.fixture
def requeues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Pretend to be task 3 of job 12; what ``scontrol`` was called with, and how many claims were held then."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    calls.touch()
    held = f"grep -l '\"state\":\"held\"' -r {tmp_path}/own/claims | wc -l"
    for name, script in (("scontrol", f'echo "$@" $({held}) >> {calls}'), ("squeue", "echo '13|12|3|0|UNLIMITED|'")):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    return lambda: calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--time-limit", "0", "it must be more than nothing"), ("--time-limit", "-5", "is no time; write minutes"),
        ("--time-limit", "4h", "is no time; write minutes"), ("--stop-signals", "TERM,KILL", "'KILL' cannot be caught"),
        ("--stop-signals", "", "'' is no signal"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [["sweep"], ["sweep", "--workers", "2"], ["process"]])
def test_what_is_no_time_or_no_signal_is_one_error(
    start: Start, tmp_path: Path, command: list[str], option: str, value: str, says: str
) -> None:
    code, err = finish(start(*command, JOB, option, value))
    assert (code, err.count("Error:"), says in " ".join(err.split())) == (2, 1, True), err
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_time_limit_ends_a_sweep_in_order(start: Start, tmp_path: Path, workers: list[str]) -> None:
    code, err = finish(start("worker", JOB, *workers, "--time-limit", "0:10", "--num-epochs", "100000", "pause=0.1"))
    assert (code, err.count("stopped by time limit")) == (0, max(1, len(workers))), err
    assert states(tmp_path / "own") == {"released"}


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_the_job_is_requeued_once_when_all_have_saved(
    start: Start, tmp_path: Path, requeues: Callable[[], list[str]], workers: list[str]
) -> None:
    process = start("sweep", JOB, *workers, "--requeue", "--num-epochs", "100000", "pause=0.1")
    wait_for(lambda: len(list(tmp_path.glob("training-*"))) == max(1, len(workers)), process)
    process.send_signal(signal.SIGUSR2)
    code, err = finish(process)
    assert (code, requeues()) == (128 + signal.SIGUSR2, ["requeue 12_3 0"]), err
    assert states(tmp_path / "own") == {"released"}


@pytest.mark.parametrize(("options", "number"), [(["--no-requeue"], "SIGUSR2"), (["--requeue"], "SIGTERM")])
def test_without_its_option_and_after_sigterm_nothing_is_requeued(
    start: Start, tmp_path: Path, requeues: Callable[[], list[str]], options: list[str], number: str
) -> None:
    process = start("sweep", JOB, "--workers", "1", *options, "--num-epochs", "100000", "pause=0.1")
    wait_for(lambda: list(tmp_path.glob("training-*")), process)
    process.send_signal(signal.Signals[number])
    assert finish(process)[0] == 128 + signal.Signals[number]
    assert requeues() == []


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_job_that_is_cancelled_while_it_saves_is_not_requeued(
    start: Start, tmp_path: Path, requeues: Callable[[], list[str]], workers: list[str]
) -> None:
    process = start("sweep", JOB, *workers, "--requeue", "--num-epochs", "100000", "pause=1")
    wait_for(lambda: len(list(tmp_path.glob("training-*"))) == max(1, len(workers)), process)
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert requeues() == []
    assert states(tmp_path / "own") == {"released"}


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_one_error_says_that_several_processes_of_a_step_cannot_requeue_their_job(
    start: Start, tmp_path: Path, requeues: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        monkeypatch.setenv(name, "2")
    code, err = finish(start("sweep", JOB, *workers, "--requeue"))
    assert (code, err.count("one of 2 processes of a step")) == (1, 1), err
    assert not list((tmp_path / "own").glob("claims/*/*"))


def test_a_requeue_that_slurm_refuses_is_an_error(
    start: Start, tmp_path: Path, requeues: Callable[[], list[str]]
) -> None:
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'job is not requeueable' >&2\nexit 1\n")
    process = start("process", JOB, "--requeue", "--num-epochs", "100000", "pause=0.1")
    wait_for(lambda: list(tmp_path.glob("training-*")), process)
    process.send_signal(signal.SIGUSR1)
    code, err = finish(process)
    assert (code, "error: job 12_3 was not requeued, so submit it again: " in err) == (1, True), err
    assert states(tmp_path / "own") == {"released"}


def test_a_signal_while_the_job_is_imported_stops_before_anything_is_claimed(start: Start, tmp_path: Path) -> None:
    text = (tmp_path / JOB).read_text()
    caught = "signal.getsignal(signal.SIGUSR2).__self__"
    waiting = f"Path('importing').touch()\nwhile not {caught}:\n    time.sleep(0.01)\n"
    (tmp_path / JOB).write_text(text.replace("class Job", f"{waiting}\nclass Job"))
    process = start("sweep", JOB)
    wait_for((tmp_path / "importing").exists, process)
    process.send_signal(signal.SIGUSR2)
    code, err = finish(process)
    assert (code, "stopped by SIGUSR2" in err) == (128 + signal.SIGUSR2, True), err
    assert not list((tmp_path / "own" / "claims").glob("*/*"))


def test_signals_that_were_not_chosen_are_left_alone(start: Start, tmp_path: Path) -> None:
    process = start("sweep", JOB, "--stop-signals", "USR2", "--num-epochs", "100000", "pause=0.1")
    wait_for(lambda: list(tmp_path.glob("training-*")), process)
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[0] == -signal.SIGUSR1
