"""What Slurm's queue tells of the jobs of others: that one has ended, so that nobody need wait for its lease.

::

    question ──► waits for a call that begins after it, the next one 15 s after the last at the earliest
                   │
                 ├─ the job is not listed, or has no processes, or was started again ──► it has ended, for ever
                 ├─ it runs ──► no verdict; whoever asks again puts a new question
                 └─ no answer (an error, no squeue, a hang) ──► no verdict; the next call waits longer

One call answers all questions. It is made in the background: a controller that hangs holds nobody up. ``sacct`` is
never asked, as many clusters have none.

A verdict is no proof of death: processes were seen to go on for 13 s after Slurm had given up their node. So it ends
the lease of a claim, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from jimmy_manager import slurm
from jimmy_manager.errors import SlurmError
from jimmy_manager.slurm import Job

log = logging.getLogger(__name__)

CALL_EVERY_S = 15.0
_LONGEST_PAUSE_S = 240.0
_FIELDS = "JobID:|,UserName:|,StateCompact:|,RestartCnt:|"
_COMPLETING = "CG"
_OVER = ("PD", "RD", "RH", "RQ", "SE", "CD", "CA", "F", "TO", "NF", "PR", "BF", "DL", "OOM", "RV")
"""States without a process, in squeue's short form. Of a state that is not known here nothing is concluded."""


class Queue:
    """Slurm's queue as one worker sees it; ``ask`` is `slurm.ask`, the rest is for tests."""

    def __init__(
        self, here: Job | None, user: str, *, ask: Callable[[list[str]], str] = slurm.ask,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._here = here
        self._user = user
        self._ask = ask
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ended: set[Job] = set()
        self._questions: dict[Job, float] = {}
        self._cluster = here.cluster if here else None
        self._next_call = -1.0
        self._pause_s = CALL_EVERY_S
        self._calling: threading.Thread | None = None

    def has_ended(self, job: Job, *, is_asked: bool = True) -> bool:
        """Whether Slurm says that this attempt of ``job`` is over; False as long as it has not answered.

        Without ``is_asked`` only what is known already counts, and Slurm is left alone. A later attempt of the job is
        proof enough of its own start: this process may belong to it.
        """
        if not job.cluster or job in self._ended:
            return job in self._ended
        if self._here is not None and _is_later(self._here, job):
            self._ended.add(job)
            return True
        if is_asked and self._cluster in (None, job.cluster):
            with self._lock:
                self._questions.setdefault(job, self._monotonic())
                self._call_if_due()
        return job in self._ended

    def wait(self, seconds: float) -> None:
        """Wait for the answer to a call that was made, if there is one under way."""
        if (calling := self._calling) is not None:
            calling.join(seconds)

    def _call_if_due(self) -> None:
        now = self._monotonic()
        if now < self._next_call or (self._calling is not None and self._calling.is_alive()):
            return
        self._next_call = now + CALL_EVERY_S
        self._calling = threading.Thread(target=self._call, args=(now,), name="squeue", daemon=True)
        self._calling.start()

    def _call(self, began: float) -> None:
        try:
            if self._cluster is None:
                self._cluster = self._ask_cluster()
            with self._lock:
                asked = {job for job, at in self._questions.items() if at <= began}
            jobs = {job for job in asked if job.cluster == self._cluster}
            answer = self._ask(_command(jobs)) if jobs else ""
            listed = parse(answer)
        except SlurmError as error:
            log.info("Slurm gave no answer: %s", error)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._next_call = began + self._pause_s
            return
        self._pause_s = CALL_EVERY_S
        self._ended |= {job for job in jobs if is_over(job, listed, self._user)}
        with self._lock:
            for job in asked:
                del self._questions[job]

    def _ask_cluster(self) -> str:
        for line in self._ask(["scontrol", "show", "config"]).splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "ClusterName":
                return value.strip()
        raise SlurmError("'scontrol show config' tells no ClusterName")


class Listed(NamedTuple):
    """One job in the answer of squeue."""

    id: int
    user: str
    state: str
    restarts: int


def parse(answer: str) -> dict[int, Listed]:
    r"""The jobs of squeue's ``answer``; ``SlurmError`` for a line that it never prints, as it may be half an answer.

    >>> parse("12|ada|R|0|\n")
    {12: Listed(id=12, user='ada', state='R', restarts=0)}
    """
    listed = {}
    for line in filter(str.strip, answer.splitlines()):
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 5 or not (cells[0].isdecimal() and cells[3].isdecimal()):
            raise SlurmError(f"squeue printed {line!r}, which is no line of a queue")
        listed[int(cells[0])] = Listed(int(cells[0]), cells[1], cells[2], int(cells[3]))
    return listed


def is_over(job: Job, listed: dict[int, Listed], user: str) -> bool:
    """Whether an answer of squeue means that this attempt of ``job`` has no processes any more.

    ``user`` is who asked. Of others a site may show nothing (``PrivateData=jobs``), so that a job of theirs is missed
    only where the answer shows another one.
    """
    found = listed.get(job.id)
    if found is None:
        return bool(job.user) and job.user in (user, *(other.user for other in listed.values()))
    # While a job is completing its processes may still be saving, although it counts as started again already.
    if found.state == _COMPLETING:
        return False
    return found.state in _OVER or found.restarts > job.restarts


def _is_later(here: Job, job: Job) -> bool:
    return here.is_told and (here.id, here.cluster) == (job.id, job.cluster) and here.restarts > job.restarts


def _command(jobs: Iterable[Job]) -> list[str]:
    """All jobs of those users, also in hidden partitions, and each task of an array by itself."""
    users = ",".join(sorted({job.user for job in jobs if job.user}))
    return ["squeue", "--noheader", "--all", "--array", "--local", *([f"--user={users}"] if users else []),
            f"--Format={_FIELDS}"]  # fmt: skip
