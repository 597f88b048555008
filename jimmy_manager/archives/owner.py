"""Who holds a claim, and whether that process is provably dead.

A pid says nothing across hosts or containers. A verdict is given only where boot id and pid namespace are
ours: then a missing process, a zombie or another start time proves death. Everywhere else the answer is
"not proven", and the lease decides.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

_PROC = Path("/proc")
_SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME")


class Owner(NamedTuple):
    """One process, told apart from every other on any host.

    ``start`` is the process's start time in clock ticks since boot, 0 where the system does not tell.
    """

    host: str
    pid: int
    start: int
    boot: str
    pidns: str
    slurm: str = ""

    @classmethod
    def of_record(cls, data: dict[str, Any]) -> Owner:
        """The owner as a claim's record spells it."""
        boot, pidns, slurm = (str(data.get(name, "")) for name in ("boot", "pidns", "slurm"))
        return cls(str(data["host"]), int(data["pid"]), int(data["start"]), boot, pidns, slurm)

    def as_record(self) -> dict[str, Any]:
        """The fields as a claim's record spells them; empty ones are left out."""
        return {name: value for name, value in self._asdict().items() if value != ""}

    def is_same_process(self, other: Owner) -> bool:
        """Whether both name one process for certain (the host's name and Slurm's variables do not decide)."""
        return self.start != 0 and self.is_same_host(other) and self[1:3] == other[1:3]

    def is_same_host(self, other: Owner) -> bool:
        """Whether both see the store through one kernel, so that what one wrote the other lists at once."""
        return bool(self.boot and self.pidns) and (self.boot, self.pidns) == (other.boot, other.pidns)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}" + (f" ({self.slurm})" if self.slurm else "")


def this_process() -> Owner:
    """The calling process; a forked child is another owner than its parent."""
    return _owner_of(os.getpid())


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
    slurm = ",".join(f"{name}={os.environ[name]}" for name in _SLURM if name in os.environ)
    return Owner(socket.gethostname(), pid, _start_ticks(pid), _boot_id(), _pid_namespace(), slurm)


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


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return ""
