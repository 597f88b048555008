"""Who holds a claim, and whether that process is provably dead.

A pid says nothing across hosts or containers, whose host names, pids and even boot ids may be alike. A verdict is
given only where boot id, pid namespace and time namespace are ours: that is one kernel, which numbers and dates its
processes once, and then a missing process, a zombie or another start time proves death. Everywhere else, and where
``/proc`` shows another namespace than our own, the answer is "not proven", and the lease or Slurm decides.

Not told apart: machines that were resumed from one snapshot of a running machine's memory.
"""

from __future__ import annotations

import functools
import os
import pwd
import socket
from pathlib import Path
from typing import Any, NamedTuple

from jimmy_manager import slurm as slurm_jobs

_PROC = Path("/proc")
_FIRST_TIME_NAMESPACE = "4026531834"
"""The number that every kernel gives to the time namespace it boots with."""


class Owner(NamedTuple):
    """One process, told apart from every other on any host.

    ``start`` is the process's start time in clock ticks since boot, 0 where the system does not tell. ``pidns`` names
    the pid namespace, and after a slash the time namespace where that is not the first one. ``slurm`` holds those
    variables of Slurm that tell which job it is.
    """

    host: str
    pid: int
    start: int
    boot: str
    pidns: str
    slurm: str = ""
    user: str = ""

    @classmethod
    def of_record(cls, data: dict[str, Any]) -> Owner:
        """The owner as a claim's record spells it."""
        boot, pidns, slurm, user = (str(data.get(name, "")) for name in ("boot", "pidns", "slurm", "user"))
        return cls(str(data["host"]), int(data["pid"]), int(data["start"]), boot, pidns, slurm, user)

    def as_record(self) -> dict[str, Any]:
        """The fields as a claim's record spells them; empty ones are left out."""
        return {name: value for name, value in self._asdict().items() if value != ""}

    def is_same_process(self, other: Owner) -> bool:
        """Whether both name one process for certain (the host's name and Slurm's variables do not decide)."""
        return self.start != 0 and self.is_same_host(other) and self[1:3] == other[1:3]

    def is_same_host(self, other: Owner) -> bool:
        """Whether both see the store through one kernel, so that what one wrote the other lists at once."""
        return bool(self.boot and self.pidns) and (self.boot, self.pidns) == (other.boot, other.pidns)

    @property
    def job(self) -> slurm_jobs.Job | None:
        """The Slurm job it belongs to; None where it is in none."""
        return _job(self.slurm)

    @property
    def node(self) -> str:
        """What people call its machine: Slurm's name for the node, else the host's."""
        return (self.job.node if self.job else "") or self.host

    def __str__(self) -> str:
        return f"{self.node}:{self.pid}" + (f" (job {self.job.name})" if self.job else "")


def this_process() -> Owner:
    """The calling process, without its Slurm job; a forked child is another owner than its parent."""
    return _owner_of(os.getpid())


def this_worker() -> Owner:
    """The calling process as a claim names it: with its Slurm job, for which Slurm itself may be asked, once."""
    job = slurm_jobs.this_job()
    told = ",".join(f"{name}={value}" for name, value in job.variables.items()) if job else ""
    return this_process()._replace(slurm=told)


def is_provably_dead(owner: Owner) -> bool:
    """Whether ``owner`` can never run another instruction; False also means "no way to tell from here"."""
    here = this_process()
    if owner.start == 0 or not owner.is_same_host(here):
        return False
    start = _start_ticks(owner.pid)
    if start == 0 and not _is_gone(owner.pid):
        return False
    return start != owner.start


@functools.lru_cache(maxsize=4)
def _owner_of(pid: int) -> Owner:
    if not _is_proc_ours():
        return Owner(socket.gethostname(), pid, 0, "", "", user=_user())
    return Owner(socket.gethostname(), pid, _start_ticks(pid), _boot_id(), _namespaces(), user=_user())


@functools.lru_cache(maxsize=1024)
def _job(slurm: str) -> slurm_jobs.Job | None:
    return slurm_jobs.job_of(dict(each.partition("=")[::2] for each in slurm.split(",")))


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container knows no name for the number it was started with
        return str(os.getuid())


def _is_proc_ours() -> bool:
    """Whether the numbers in /proc are those that this process sees.

    In a new pid namespace with the old /proc (``unshare --pid`` without ``--mount-proc``) a number means another
    process there: a stranger's end would pass for a proof of death.
    """
    try:
        status = (_PROC / "self/status").read_text("utf-8", "replace")
    except OSError:
        return False
    return f"\nNSpid:\t{os.getpid()}\n" in status


# A child may get the number of a process that an ancestor of it once was.
os.register_at_fork(after_in_child=_owner_of.cache_clear)


def _start_ticks(pid: int) -> int:
    """The start time of a running process, -1 for a zombie, 0 where nothing can be read."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return 0
    # The command name may hold spaces and brackets; what follows its last bracket does not.
    fields = stat[stat.rindex(")") + 2 :].split()
    # A zombie with threads is a process whose first thread ended: the others may be alive, or stuck in a write.
    is_zombie = fields[0] in "ZXx" and int(fields[17]) <= 1
    return -1 if is_zombie else int(fields[19])


def _is_gone(pid: int) -> bool:
    # With /proc mounted hidepid=2 the processes of other users are invisible there, yet alive.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _namespaces() -> str:
    """The pid namespace; another time namespace than the first shifts the start times that it shows in /proc."""
    pid, time = _namespace("pid"), _namespace("time")
    return f"{pid}/{time}" if pid and time not in ("", _FIRST_TIME_NAMESPACE) else pid


def _namespace(kind: str) -> str:
    try:
        return str((_PROC / "self/ns" / kind).readlink()).strip(f"{kind}:[]")
    except OSError:
        return ""
