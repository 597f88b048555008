"""What a process knows of its Slurm job, asked of programs that stand in for Slurm's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager import slurm
from jimmy_manager.errors import ConfigError, SlurmError
from jimmy_manager.slurm import Job, ask, job_of, parse_duration, requeue, this_job, time_left_s

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


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be task 3 of job 12, as far as the environment tells."""
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)


def test_a_job_is_read_from_the_variables_that_it_is_written_to() -> None:
    job = Job(13, 12, 3, 2, "n1", "eva", "lab")
    assert job_of(TASK) == job
    assert job.variables == TASK
    assert job_of({"SLURM_JOB_ID": "12"}) == Job(12, restarts=0)
    assert Job(12).variables == {"SLURM_JOB_ID": "12"}


@pytest.mark.parametrize("number", [None, "", "none", "²"])
def test_outside_of_a_job_there_is_none(number: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if number is not None:
        monkeypatch.setenv("SLURM_JOB_ID", number)
    assert this_job() is None
    assert time_left_s() is None


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("told", "array", "restarts"),
    [
        ("13|12|3|2|1:00|", (12, 3), 2),
        ("13|12|3|0|1:00|", (12, 3), 0),
        ("13|13|N/A|0|1:00|", (None, None), 0),  # a task of 12 has submitted it
        ("14|12|4|0|1:00|\n13|13|7|1|1:00|\n", (13, 7), 1),
        ("13|12|3|3|1:00|", (12, 3), 2),  # it was taken away from this process in the meantime
    ],
)
def test_what_a_job_may_have_inherited_slurm_is_asked_for_once(
    program: Program, told: str, array: tuple[int | None, int | None], restarts: int
) -> None:
    calls = program("squeue", f"echo '{told}'")
    for _ in range(2):
        assert this_job() == Job(13, *array, restarts, "n1", "eva", "lab", is_told=True)
    assert time_left_s() is not None
    assert len(calls.read_text().splitlines()) == 1
    assert "--jobs=13 " in calls.read_text()


@pytest.mark.usefixtures("task")
def test_a_job_that_has_no_restarts_of_its_own_is_given_none(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    program("squeue", "echo '13|12|3|1|1:00|'")
    job = this_job()
    assert job is not None
    assert job.restarts == 0, "this process belongs to the attempt before"


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("script", ["exit 1", "echo 'no such option'", "echo '14|12|4|0|1:00|'"])
def test_a_slurm_that_does_not_answer_is_not_asked_again_for_a_while(
    program: Program, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    calls = program("squeue", script)
    for _ in range(2):
        assert this_job() == Job(13, 12, 3, 2, "n1", "eva", "lab")
        with pytest.raises(SlurmError):
            time_left_s()
    assert len(calls.read_text().splitlines()) == 1
    monkeypatch.setattr(slurm, "_SILENCE_S", 0.0)
    slurm._silent.clear()
    assert [this_job() == this_job()] == [True]
    assert len(calls.read_text().splitlines()) == 3


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("script", ["", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"])
def test_a_process_whose_job_slurm_does_not_know_is_outside(
    program: Program, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    program("squeue", script)
    assert this_job() is None
    assert "taken for one outside of Slurm" in caplog.text


@pytest.mark.usefixtures("task")
def test_newer_slurms_tell_the_end_in_the_environment(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1000))
    left = time_left_s()
    assert left is not None
    assert 900 < left <= 1000
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")
    assert time_left_s() == 0.0


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("told", "left"),
    [("1-02:03:04", 93784.0), ("59:30", 3570.0), ("0:00", 0.0), ("INVALID", 0.0), ("UNLIMITED", None)],
)
def test_squeue_tells_the_time_left(
    program: Program, monkeypatch: pytest.MonkeyPatch, told: str, left: float | None
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    program("squeue", f"echo '13|12|3|0|{told}|'")
    assert time_left_s() == left
    monkeypatch.setattr(time, "monotonic", lambda: 25.0)
    assert time_left_s() == (left and left - 20.0)


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("told", ["", "soon", "1:00 2:00", "-1:00"])
def test_an_answer_that_is_no_time_is_an_error(program: Program, told: str) -> None:
    program("squeue", f"echo '13|12|3|0|{told}|'")
    with pytest.raises(SlurmError, match=r"squeue told .* job 13"):
        time_left_s()


def test_a_requeue_names_exactly_its_task(program: Program) -> None:
    program("squeue", "echo '13|12|3|0|1:00|'; echo '14|14|N/A|0|1:00|'")
    calls = program("scontrol", "")
    requeue(Job(13, 12, 3))
    requeue(Job(14, 12, 3))
    assert calls.read_text() == "requeue 12_3\nrequeue 14\n"


def test_nothing_is_requeued_where_slurm_does_not_tell_what_it_would_be(program: Program) -> None:
    program("squeue", "exit 1")
    calls = program("scontrol", "")
    with pytest.raises(SlurmError, match=r"job 13 was not requeued, so submit it again: 'squeue.* failed"):
        requeue(Job(13, 12, 3))
    assert not calls.exists()
    program("squeue", "echo '13|12|4|0|1:00|'")
    requeue(Job(13, 12, 3))
    assert calls.read_text() == "requeue 12_4\n", "it is asked again, however short ago that was"


def test_a_refused_requeue_says_why(program: Program) -> None:
    program("scontrol", "echo 'Requested operation is presently disabled for job 12' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"job 12 was not requeued, so submit it again: .* presently disabled"):
        requeue(Job(12, is_told=True))


def test_a_requeue_whose_command_is_ended_with_the_job_was_heard(program: Program) -> None:
    program("scontrol", "kill -TERM $$")
    requeue(Job(12, is_told=True))
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
