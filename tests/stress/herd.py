"""A herd of workers, forked from one process that has imported torch, at which signals are thrown.

Run as a program of its own (``python -m tests.stress.herd '{"store": ...}'``), because a test process has threads, and
prints one line of JSON. Kills and stops are counted by what ``waitpid`` tells, not by what was sent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jimmy_manager.archives import owner
from jimmy_manager.manager import waiting
from jimmy_manager.manager.schedule import Shuffled
from tests.stress import twins
from tests.stress.plan import Plan
from tests.stress.witness import Witness, configurations, read_journals, read_lines

_POLL_S = 0.005
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUTS = 0x04000000


class Sheep(NamedTuple):
    """One worker: when it was born, and its place among the mounts."""

    born: float
    place: int


class Stop(NamedTuple):
    """Until when a worker is stopped: then once it was overtaken, and at the latest."""

    until: float
    latest: float


class Herd:
    """The workers of a plan: kept alive until the work is done."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._alive: dict[int, Sheep] = {}
        self._stopped: dict[int, Stop] = {}
        self._started = time.monotonic()
        self._due = self._started + plan.pace_s
        self._disturbance: subprocess.Popen[bytes] | None = None
        self.report: dict[str, Any] = {"kills": 0, "stops": 0, "forks": 0, "failures": [], "exits": 0}

    def run(self) -> dict[str, Any]:
        """Work until every worker has ended by itself, throwing signals until all of them have hit."""
        for place in range(self._plan.workers):
            self._fork(place)
        throw = self._kill_one if self._plan.signal == "KILL" else self._stop_one
        while self._alive:
            if time.monotonic() - self._started > self._plan.deadline_s:
                self._give_up()
                break
            self._continue_stopped()
            self._reap()
            self._disturb()
            if self._alive and time.monotonic() >= self._due and self._is_behind():
                throw()
                self._due = time.monotonic() + self._plan.pace_s * self._random.uniform(0.5, 1.5)
            time.sleep(min(0.1, self._random.expovariate(1 / _POLL_S)))
        if self._disturbance is not None:
            self._disturbance.wait()
            self._disturb()
        return self.report | {"seconds": round(time.monotonic() - self._started, 1)}

    def _is_behind(self) -> bool:
        """Whether fewer have been hit than the progress of the work asks for: hits are spread over all of it."""
        hits: int = self.report["kills"] + self.report["stops"] + len(self._stopped)
        progress = self._plan.progress
        # By nine tenths of the work all have hit, so that the end cannot come too early for the last ones.
        return hits < self._plan.hits and hits <= self._plan.hits * (progress / 0.9) + self._plan.workers

    def _count(self, hits: str) -> None:
        self.report[hits] += 1
        with open(self._plan.hit, "ab", buffering=0) as file:
            file.write(b".")

    def _disturb(self) -> None:
        """Start the disturbance once a fifth of the work is done, and note how much is when it ends."""
        if self._disturbance is None:
            if self._plan.disturbance and self._plan.progress >= 0.2:
                self._disturbance = subprocess.Popen(["bash", "-ec", self._plan.disturbance], stdout=sys.stderr)
        elif "disturbed" not in self.report and (status := self._disturbance.poll()) is not None:
            self.report["disturbed"] = {"status": status, "progress": self._plan.progress}

    def _fork(self, place: int) -> None:
        self.report["forks"] += 1
        pid = os.fork()
        if pid == 0:
            os._exit(work(self._plan, self.report["forks"], place))
        self._alive[pid] = Sheep(time.monotonic(), place)

    def _kill_one(self) -> None:
        # Those of one mount after those of the other, so that some who live longer watch from the other one.
        victims = self._of_mount(self.report["kills"] * len(self._plan.mounts) // max(1, self._plan.hits), self._alive)
        # The longer it has lived the likelier it is hit: of those that have just begun nearly none holds a claim.
        ages = [time.monotonic() - self._alive[pid].born for pid in victims]
        pid = self._random.choices(victims, ages)[0]
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed = self._alive.pop(pid)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self._count("kills")
            self._fork(killed.place)
        else:
            self._note_exit(pid, status)

    def _of_mount(self, mount: int, pids: Iterable[int]) -> list[int]:
        """The workers in one of the mounts; all where none is there."""
        everybody = list(pids)
        mounts = len(self._plan.mounts) or 1
        return [pid for pid in everybody if self._alive[pid].place % mounts == mount] or everybody

    def _stop_one(self) -> None:
        awake = sorted(self._alive.keys() - self._stopped.keys())
        if len(awake) <= self._plan.workers // 3:
            return
        # All of one mount first, as when a host freezes: then those of another one take over.
        pid = self._random.choice(self._of_mount(0, awake))
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            until = time.monotonic() + self._plan.lease * self._random.uniform(1.2, 2.5)
            self._stopped[pid] = Stop(until, until + 3 * self._plan.lease if self._plan.hosts else until)
        else:
            del self._alive[pid]
            self._note_exit(pid, status)

    def _continue_stopped(self) -> None:
        for pid, stop in list(self._stopped.items()):
            now = time.monotonic()
            if stop.until <= now < stop.latest and not self._is_overtaken(pid):
                self._stopped[pid] = stop._replace(until=now + 0.5)
            elif now >= stop.until:
                os.kill(pid, signal.SIGCONT)
                del self._stopped[pid]
                self._count("stops")
                _, status = os.waitpid(pid, os.WCONTINUED)
                if not os.WIFCONTINUED(status):  # and it has ended already
                    del self._alive[pid]
                    self._note_exit(pid, status)

    def _is_overtaken(self, pid: int) -> bool:
        """Whether what a worker held was claimed by another one, or it held nothing."""
        own = [line for path in self._plan.journals.glob(f"{pid}.*") for line in read_lines(path)]
        if not own or own[-1].event == "finished":
            return True
        held = own[-1]
        lines = read_journals(self._plan.journals)
        return any(line.key == held.key and line.generation > held.generation for line in lines)

    def _reap(self) -> None:
        for pid in sorted(self._alive.keys() - self._stopped.keys()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._alive[pid]
                self._note_exit(pid, status)

    def _note_exit(self, pid: int, status: int) -> None:
        self.report["exits"] += 1
        if status != 0:
            self.report["failures"].append(f"worker {pid} ended with status {status}")

    def _give_up(self) -> None:
        self.report["failures"].append(f"not done after {self._plan.deadline_s:g} s")
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def work(plan: Plan, number: int, place: int) -> int:
    """What one worker does; its exit status."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.nice(10)  # the herdsman comes first, or on a machine with few cores hardly anybody is hit
        waiting.PACE_S = 0.02
        manager = _manager(plan, number, place)
        whole = configurations(plan.configs)
        group = plan.group or plan.configs
        for first in range(0, plan.configs, group):
            part = whole[first : first + group]
            ordered = part if plan.twin else Shuffled(part, random.Random(plan.seed + number))
            report = manager.batch(ordered, plan.epochs, wait=True, max_errors=math.inf)
            if report.busy or report.failed or report.stopped:
                print(f"worker {os.getpid()}: {report}", file=sys.stderr)
                return 3
        return 0
    except BaseException:  # noqa: BLE001  # a forked child ends here, whatever happened
        traceback.print_exc()
        return 2


def _manager(plan: Plan, number: int, place: int) -> Witness:
    """The Manager of the worker at ``place``, in its mount and on the host that it pretends to be."""
    mount = place % len(plan.mounts) if plan.mounts else 0
    if plan.uts:
        _enter_uts(plan.uts[mount])
    if plan.hosts:
        boot = f"{owner._boot_id()} {plan.hosts} {mount if plan.hosts == 'mount' else number}"
        owner._boot_id = lambda: boot
        owner._owner_of.cache_clear()
    options = {"max_crashes": 10**9, "lease_s": plan.lease, "heartbeat_s": plan.lease / 5, "durable": plan.durable}
    manager = Witness(
        f"{plan.mounts[mount]}/store" if plan.mounts else plan.store, plan.journals, pause=plan.pause,
        finished=plan.finished, stale_s=plan.stale_s, syncs_journal=plan.syncs_journals, **options,
    )
    twins.apply(plan.twin, manager)
    return manager


def _enter_uts(namespace: str) -> None:
    """Take the host name of ``namespace``, as whoever runs a command on that host does."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace) as file:
        if libc.setns(file.fileno(), _CLONE_NEWUTS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    plan.journals.mkdir(parents=True, exist_ok=True)
    warm_up(Path(plan.folder))
    gc.freeze()  # or every child's first collection copies the pages that it shares with this process
    print(json.dumps(Herd(plan).run()))


def warm_up(folder: Path) -> None:
    """Train once below ``folder``, so that children find everything imported, and git asked, that a run needs."""
    own = Path(tempfile.mkdtemp(dir=folder, prefix="warm-up"))
    Witness(f"{own}/store", own).process(configurations(1)[0], 1)


if __name__ == "__main__":
    main()
