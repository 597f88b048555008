"""What a process knows of its Slurm job, asked of programs that stand in for Slurm's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager.errors import ConfigError, SlurmError
from jimmy_manager.slurm import Job, ask, parse_duration, requeue, this_job, time_left_s

TASK = {
    "SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2",
    "SLURMD_NODENAME": "n1", "SLURM_JOB_USER": "eva", "SLURM_CLUSTER_NAME": "lab",
}  # fmt: skip

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a shell script into ``PATH`` under a name; it notes how it was called in the file that is returned."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, script: str) -> Path:
        path, calls = folder / name, tmp_path / f"{name}.calls"
        path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
        path.chmod(0o755)
        return calls

    return write


def test_a_job_is_read_from_the_environment() -> None:
    assert this_job(TASK) == Job(13, 12, 3, 2, "n1", "eva", "lab")
    assert this_job({"SLURM_JOB_ID": "12"}) == Job(12, restarts=0)


@pytest.mark.parametrize("environ", [{}, {"SLURM_JOB_ID": ""}, {"SLURM_JOB_ID": "none"}, {"SLURM_JOB_ID": "²"}])
def test_outside_of_a_job_there_is_none(environ: dict[str, str]) -> None:
    assert this_job(environ) is None
    assert time_left_s(environ) is None


def test_newer_slurms_tell_the_end_in_the_environment(program: Program) -> None:
    left = time_left_s(TASK | {"SLURM_JOB_END_TIME": str(int(time.time()) + 1000)})
    assert left is not None
    assert 900 < left <= 1000
    assert time_left_s(TASK | {"SLURM_JOB_END_TIME": "1000"}) == 0.0


@pytest.mark.parametrize(
    ("told", "left"),
    [("1-02:03:04", 93784.0), ("59:30", 3570.0), ("0:00", 0.0), ("INVALID", 0.0), ("UNLIMITED", None)],
)
def test_older_slurms_are_asked_for_the_time_left(program: Program, told: str, left: float | None) -> None:
    calls = program("squeue", f"echo {told}")
    assert time_left_s(TASK) == left
    assert calls.read_text() == "--noheader --jobs=12_3 --format=%L\n"  # 12, or 13, would mean the whole array


@pytest.mark.parametrize("told", ["", "soon", "1:00 2:00", "-1:00"])
def test_an_answer_that_is_no_time_is_an_error(program: Program, told: str) -> None:
    program("squeue", f"echo '{told}'")
    with pytest.raises(SlurmError, match=r"squeue told .* job 12_3"):
        time_left_s(TASK)


def test_a_requeue_names_exactly_its_task(program: Program) -> None:
    calls = program("scontrol", "")
    requeue(Job(13, 12, 3))
    requeue(Job(13))
    assert calls.read_text() == "requeue 12_3\nrequeue 13\n"


def test_a_refused_requeue_says_why(program: Program) -> None:
    program("scontrol", "echo 'Requested operation is presently disabled for job 12' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"job 12 was not requeued, so submit it again: .* presently disabled"):
        requeue(Job(12))


def test_a_requeue_whose_command_is_ended_with_the_job_was_heard(program: Program) -> None:
    program("scontrol", "kill -TERM $$")
    requeue(Job(12))
    with pytest.raises(SlurmError, match="ended by signal 15"):
        ask(["scontrol"])


def test_a_command_that_hangs_or_is_absent_is_an_error_of_one_line(program: Program) -> None:
    program("squeue", "exec /bin/sleep 60")
    with pytest.raises(SlurmError, match=r"'squeue -h' did not answer within 0.2 s"):
        ask(["squeue", "-h"], timeout_s=0.2)
    with pytest.raises(SlurmError, match="there is no 'sinfo' here"):
        ask(["sinfo"])


def test_the_settings_of_a_person_do_not_change_an_answer(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SLURM_CONF", "/etc/own.conf")
    program("squeue", 'echo "$SQUEUE_STATES|$LC_ALL|$SLURM_CONF"')
    assert ask(["squeue"]) == "|C|/etc/own.conf\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("1", 60), ("0:05", 5), ("100:00", 6000), ("1-0", 86400), ("2-1:30", 178200)]
)
def test_a_duration_is_read_as_sbatch_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-5", "4h", "1:2:3:4", "1.5", "1-", ":30", "\u0661", "infinite", "1-2:3:4:5"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no time; write minutes, or .* '4:00:00'"):
        parse_duration(text)
