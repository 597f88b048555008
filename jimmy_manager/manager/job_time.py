"""How much time a worker has, and what becomes of its Slurm job when that is over."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable
from datetime import timedelta

from jimmy_manager import slurm
from jimmy_manager.errors import ConfigError, SlurmError
from jimmy_manager.manager.rank_line import here
from jimmy_manager.signals import TIME_LIMIT, StopFlag

log = logging.getLogger(__name__)

TimeLimit = str | float | timedelta | None
Requeue = bool | Callable[[slurm.Job], None]

_GOES_ON_AFTER = ("SIGUSR1", "SIGUSR2", TIME_LIMIT)
ENDS_A_JOB = ("SIGTERM", "SIGINT")
"""After these, first or not, a job is never requeued: scancel sends SIGTERM, and a requeue would undo it; preemption
sends it, too, and Slurm requeues by itself then."""


def limit_s(limit: TimeLimit) -> float:
    """Seconds, of a time as ``sbatch --time`` takes it, of minutes or of a timedelta; infinity for None.

    >>> limit_s('4:00:00'), limit_s(90), limit_s(None)
    (14400.0, 5400.0, inf)
    """
    if limit is None:
        return math.inf
    if isinstance(limit, timedelta):
        seconds = limit.total_seconds()
    elif isinstance(limit, str):
        seconds = slurm.parse_duration(limit)
    else:
        seconds = float(limit) * 60
    if not 0 < seconds < math.inf:
        raise ConfigError(f"the time limit is {limit!r}, it must be more than nothing; leave it out for no limit")
    return seconds


def left_s(limit: float) -> float:
    """Seconds that are left from now: the limit, or what is left of the Slurm job where that is less."""
    try:
        told = slurm.time_left_s()
    except SlurmError as error:
        if math.isinf(limit):
            log.warning("nobody knows when this job will end, so give it a time limit: %s", error)
        return limit
    return limit if told is None else min(limit, told)


def random_order() -> random.Random:
    """What shuffles a sweep: in a Slurm job alike each time, so that one that is requeued comes to the run it left."""
    job = slurm.this_job()
    return random.Random(f"{job.name}.{os.environ.get('SLURM_PROCID', '0')}" if job else None)


def check_requeue(requeue: Requeue) -> None:
    """``ConfigError`` where the first process to requeue the job would end others of it before they have saved.

    The ranks that torchrun starts are no others: they are one worker, for which rank 0 speaks.
    """
    if requeue and here().size == 1 and (count := slurm.step_size()) > 1:
        raise ConfigError(
            f"this is one of {count} processes of a step of Slurm, and the first to requeue their job would end the "
            "others before they have saved; start one, with 'jimmy sweep --workers N', or leave out --requeue"
        )


def hand_on(requeue: Requeue, stop: StopFlag, reason: str, *, saves: int, shortage: str = "") -> None:
    """Requeue the Slurm job of this process, where asked for and where work was left for ``reason``.

    ``SlurmError`` where the job has saved nothing, as it would come back for ever (``shortage`` tells why), and where
    Slurm does not tell which job this is.
    """
    if not requeue or reason not in _GOES_ON_AFTER or not stop.caught.isdisjoint(ENDS_A_JOB):
        return
    if (job := slurm.this_job()) is None:
        log.info("nothing is requeued after %s, as this is no Slurm job", reason)
        return
    if not saves:
        why = shortage or "give it more time"
        raise SlurmError(f"job {job.name} is not requeued after {reason}, as it saved nothing since it began: {why}")
    log.info("job %s is requeued after %s", job.name, reason)
    if requeue is True:
        slurm.requeue(job)
    else:
        requeue(slurm.told(job))
