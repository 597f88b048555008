"""What a process knows of the Slurm job that it runs in, and how it asks Slurm to run that job again.

Whatever Slurm is asked goes through `ask`: with a time limit, in plain English, and unmoved by a person's ``SQUEUE_``
settings. ``sacct`` is never asked, as many clusters have none.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jimmy_manager.errors import ConfigError, SlurmError

_DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
_ENDLESS = ("UNLIMITED", "NOT_SET", "PARTITION_LIMIT")
# Every task of an array may ask for its requeue at one moment; nothing else is left to do by then.
_REQUEUE_TIMEOUT_S = 60.0


class Job(NamedTuple):
    """The job of a process; ``id`` is another one for each task of an array, and stays the same when it is requeued.

    ``restarts`` counts how often Slurm has started it before. What the environment does not tell is ``""`` or None.
    """

    id: int
    array_job: int | None = None
    array_task: int | None = None
    restarts: int = 0
    node: str = ""
    user: str = ""
    cluster: str = ""

    @property
    def name(self) -> str:
        """What ``scontrol`` and ``squeue`` call exactly this one; the bare id of one task may mean its whole array.

        >>> Job(13, array_job=12, array_task=3).name, Job(12).name
        ('12_3', '12')
        """
        is_task = self.array_job is not None and self.array_task is not None
        return f"{self.array_job}_{self.array_task}" if is_task else str(self.id)


def this_job(environ: Mapping[str, str] | None = None) -> Job | None:
    """The job that this process belongs to, as ``environ`` (by default its own) tells; None outside of Slurm."""
    given = os.environ if environ is None else environ
    number = _number(given.get("SLURM_JOB_ID"))
    if number is None:
        return None
    return Job(
        number, _number(given.get("SLURM_ARRAY_JOB_ID")), _number(given.get("SLURM_ARRAY_TASK_ID")),
        _number(given.get("SLURM_RESTART_COUNT")) or 0, given.get("SLURMD_NODENAME", ""),
        given.get("SLURM_JOB_USER", ""), given.get("SLURM_CLUSTER_NAME", ""),
    )  # fmt: skip


def time_left_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds until Slurm ends this job, never below 0; None outside of a job and where it has no time limit.

    Slurm before 23.02 does not tell its jobs, so there ``squeue`` is asked, once. ``SlurmError`` where that fails.
    """
    given = os.environ if environ is None else environ
    job = this_job(given)
    if job is None:
        return None
    if (end := _number(given.get("SLURM_JOB_END_TIME"))) is not None:
        return max(0.0, end - time.time())
    told = ask(["squeue", "--noheader", f"--jobs={job.name}", "--format=%L"]).strip()
    if told in _ENDLESS:
        return None
    if told == "INVALID":  # so squeue calls what is below zero
        return 0.0
    try:
        return parse_duration(told)
    except ConfigError as error:
        raise SlurmError(f"squeue told {told!r} as the time that job {job.name} has left, which is no time") from error


def requeue(job: Job) -> None:
    """Have exactly this job, or task of an array, run again from its beginning; Slurm then ends this process.

    ``SlurmError`` where Slurm refuses, as it does for a job submitted with ``--no-requeue``.
    """
    try:
        ask(["scontrol", "requeue", job.name], timeout_s=_REQUEUE_TIMEOUT_S)
    except _Ended:
        return  # by the very signal that ends the job
    except SlurmError as error:
        raise SlurmError(f"job {job.name} was not requeued, so submit it again: {error}") from error


def ask(command: Sequence[str], *, timeout_s: float = 10.0) -> str:
    """What a command of Slurm prints; ``SlurmError`` where it is absent, fails, or does not answer in time."""
    settings = ("SQUEUE_", "SLURM_CLUSTERS", "LC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    try:
        answer = subprocess.run(
            command, env=environment | {"LC_ALL": "C"}, capture_output=True, text=True, errors="replace",
            timeout=timeout_s, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]!r} here: Slurm's commands are not in PATH") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{' '.join(command)!r} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise SlurmError(f"cannot run {command[0]!r}: {error.strerror or error}") from error
    if answer.returncode < 0:
        raise _Ended(f"{' '.join(command)!r} was ended by signal {-answer.returncode}")
    if answer.returncode:
        said = " ".join(answer.stderr.split()) or "it said nothing"
        raise SlurmError(f"{' '.join(command)!r} failed with exit code {answer.returncode}: {said}")
    return answer.stdout


def parse_duration(text: str) -> float:
    """Seconds, of a time as ``sbatch --time`` takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    >>> [parse_duration(text) for text in ('90', '1:30', '4:00:00', '1-12', '1-02:03:04')]
    [5400.0, 90.0, 14400.0, 129600.0, 93784.0]
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no time; write minutes, or [days-]hours:minutes:seconds such as '4:00:00'")
    days, *parts = found.groups()
    given = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = (*given, 0, 0)[:3]
    elif len(given) == 3:
        hours, minutes, seconds = given
    else:
        hours, (minutes, seconds) = 0, (*given, 0)[:2]
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)


class _Ended(SlurmError):
    """A command was ended by a signal."""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
