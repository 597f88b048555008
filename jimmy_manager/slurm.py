"""What a process knows of the Slurm job that it runs in, and how it asks Slurm to run that job again.

``sbatch`` hands on the environment of whoever submits. So a job that was submitted from within another has variables of
that one: its place in an array, its restarts, wherever Slurm has nothing to put in their place. ``SLURM_JOB_ID`` alone
is never inherited; what belongs to it Slurm is asked for, once a process.

Whatever Slurm is asked goes through `ask`: with a time limit, in plain English, and unmoved by a person's ``SQUEUE_``
settings. ``sacct`` is never asked, as many clusters have none.
"""

from __future__ import annotations

import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jimmy_manager.errors import ConfigError, SlurmError

log = logging.getLogger(__name__)

_DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
_ENDLESS = ("UNLIMITED", "NOT_SET", "PARTITION_LIMIT")
# Every task of an array may ask for its requeue at one moment; nothing else is left to do by then.
_REQUEUE_TIMEOUT_S = 60.0
_FIELDS = "JobID:|,ArrayJobID:|,ArrayTaskID:|,RestartCnt:|,TimeLeft:|"
_SILENCE_S = 60.0
"""How long a Slurm that did not answer is left alone, where one can do without."""


class Job(NamedTuple):
    """The job of a process; ``id`` is another one for each task of an array, and stays the same when it is requeued.

    ``restarts`` counts how often Slurm has started it before. What is not known is ``""`` or None. Where Slurm itself
    has not told them (``is_told``), array and restarts may be inherited from another job; the restarts of this one are
    then not more.
    """

    id: int
    array_job: int | None = None
    array_task: int | None = None
    restarts: int = 0
    node: str = ""
    user: str = ""
    cluster: str = ""
    is_told: bool = False

    @property
    def name(self) -> str:
        """What ``scontrol`` and ``squeue`` call exactly this one; the bare id of one task may mean its whole array.

        >>> Job(13, array_job=12, array_task=3).name, Job(12).name
        ('12_3', '12')
        """
        is_task = self.array_job is not None and self.array_task is not None
        return f"{self.array_job}_{self.array_task}" if is_task else str(self.id)


    @property
    def variables(self) -> dict[str, str]:
        """What `job_of` makes this job of; nothing for what is unknown."""
        values = (self.cluster, self.id, self.array_job, self.array_task, self.restarts or "", self.node, self.user)
        return {name: str(value) for name, value in zip(_VARIABLES, values, strict=True) if value not in ("", None)}


_VARIABLES = (
    "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME", "SLURM_JOB_USER",
)  # fmt: skip


def job_of(variables: Mapping[str, str]) -> Job | None:
    """The job of which an environment tells, whether or not all of it is the job's own; None without one."""
    number = _number(variables.get("SLURM_JOB_ID"))
    if number is None:
        return None
    return Job(
        number, _number(variables.get("SLURM_ARRAY_JOB_ID")), _number(variables.get("SLURM_ARRAY_TASK_ID")),
        _number(variables.get("SLURM_RESTART_COUNT")) or 0, variables.get("SLURMD_NODENAME", ""),
        variables.get("SLURM_JOB_USER", ""), variables.get("SLURM_CLUSTER_NAME", ""),
    )  # fmt: skip


def this_job() -> Job | None:
    """The job that this process belongs to; None outside of Slurm, and where Slurm says that there is no such job.

    Slurm is asked once. Where it does not answer, the job is what the environment says, and not ``is_told``.
    """
    job = job_of(os.environ)
    if job is None:
        return None
    try:
        return _corrected(job, _line_of(job.id))
    except _NoSuchJob as error:
        log.warning("this process is taken for one outside of Slurm: %s", error)
        return None
    except SlurmError as error:
        log.info("what is known of job %d may be inherited: %s", job.id, error)
        return job


def told(job: Job) -> Job:
    """``job`` with the place in an array and the restarts that Slurm itself tells; ``SlurmError`` without an answer."""
    return job if job.is_told else _corrected(job, _line_of(job.id, insists=True))


def _corrected(job: Job, line: _Line) -> Job:
    # Slurm names the restarts to a job that has some. More than that were made since, behind the back of this process.
    restarts = min(job.restarts, line.restarts)
    return job._replace(array_job=line.array_job, array_task=line.array_task, restarts=restarts, is_told=True)


def time_left_s() -> float | None:
    """Seconds until Slurm ends this job, never below 0; None outside of a job and where it has no time limit.

    ``SlurmError`` where neither Slurm nor, from 23.02 on, the environment tells.
    """
    job, end = job_of(os.environ), _number(os.environ.get("SLURM_JOB_END_TIME"))
    if job is None:
        return None
    try:
        line = _line_of(job.id)
    except SlurmError:
        if end is None:
            raise
        return max(0.0, end - time.time())
    if line.left in _ENDLESS:
        return None
    if line.left == "INVALID":  # so squeue calls what is below zero
        return 0.0
    try:
        return max(0.0, parse_duration(line.left) - (time.monotonic() - line.asked))
    except ConfigError as error:
        raise SlurmError(f"squeue told {line.left!r} as the time left to job {job.id}, which is no time") from error


def step_size() -> int:
    """How many processes ``srun`` started as one step with this one; 1 outside of a step, as in a batch script."""
    # A batch script that a step has submitted inherits the numbers of that step, but has tasks per node of its own.
    if os.environ.get("SLURM_STEP_TASKS_PER_NODE") != os.environ.get("SLURM_TASKS_PER_NODE"):
        return 1
    return _number(os.environ.get("SLURM_STEP_NUM_TASKS")) or 1


def requeue(job: Job) -> None:
    """Have exactly this job, or task of an array, run again from its beginning; Slurm then ends this process.

    ``SlurmError`` where Slurm refuses, as it does for a job submitted with ``--no-requeue``, and where it does not tell
    which task this is: the requeue would be that of another.
    """
    name = str(job.id)
    try:
        name = told(job).name
        ask(["scontrol", "requeue", name], timeout_s=_REQUEUE_TIMEOUT_S)
    except _Ended:
        return  # by the very signal that ends the job
    except SlurmError as error:
        raise SlurmError(f"job {name} was not requeued, so submit it again: {error}") from error


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


class _NoSuchJob(SlurmError):
    """Slurm answered, and knows no such job."""


class _Line(NamedTuple):
    """What squeue told of a job; ``asked`` is when, on the monotonic clock."""

    array_job: int | None
    array_task: int | None
    restarts: int
    left: str
    asked: float


_lines: dict[int, _Line] = {}
_silent: dict[int, tuple[float, SlurmError]] = {}


def _line_of(job: int, *, insists: bool = False) -> _Line:
    """The line of a job in squeue's answer, which is asked for once; ``SlurmError`` where there is none.

    A Slurm that did not answer is left alone for a while by whoever does not insist.
    """
    if (line := _lines.get(job)) is not None:
        return line
    until, before = _silent.get(job, (-math.inf, SlurmError()))
    if time.monotonic() < until and not insists:
        raise type(before)(*before.args)
    try:
        return _lines.setdefault(job, _ask_for_line(job))
    except SlurmError as error:
        _silent[job] = time.monotonic() + _SILENCE_S, error
        raise


def _ask_for_line(job: int) -> _Line:
    asked = time.monotonic()
    try:
        # One task of an array has the number of the array, and is then listed with all the others.
        answer = ask(["squeue", "--noheader", "--array", "--local", f"--jobs={job}", f"--Format={_FIELDS}"])
    except SlurmError as error:
        raise (_NoSuchJob if "Invalid job id" in str(error) else SlurmError)(str(error)) from error
    for each in answer.splitlines():
        number, array, task, restarts, left = (*(cell.strip() for cell in each.split("|")), *[""] * 5)[:5]
        if number == str(job) and restarts.isdecimal():
            is_task = _number(task) is not None
            return _Line(_number(array) if is_task else None, _number(task), int(restarts), left, asked)
    if answer.strip():
        raise SlurmError(f"squeue was asked for job {job} and printed {answer!r}")
    raise _NoSuchJob(f"squeue lists no job {job}")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
