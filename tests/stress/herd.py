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
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from jimmy_manager.manager import waiting
from jimmy_manager.manager.schedule import Shuffled
from tests.stress import twins
from tests.stress.witness import Witness, configurations

_PAUSE_S = 0.005
_PR_SET_PDEATHSIG = 1


class Plan(NamedTuple):
    """One run of the herd. ``signal`` is KILL or STOP, ``hits`` how many of them, ``twin`` what is wrong on purpose.

    ``group`` configurations are worked on at a time, each group to its end: then a stopped worker's are waited for.
    """

    folder: str
    workers: int
    configs: int
    hits: int
    signal: str
    seed: int
    epochs: int = 3
    group: int = 0
    lease_s: float = 120.0
    pause_s: float = 0.0
    twin: str = ""
    deadline_s: float = 600.0

    @property
    def store(self) -> str:
        return f"{self.folder}/store"

    @property
    def journals(self) -> Path:
        return Path(self.folder) / "journals"

    @property
    def finished(self) -> str:
        return f"{self.folder}/finished"

    @property
    def hit(self) -> str:
        return f"{self.folder}/hit"

    def pause(self) -> None:
        """Hold a worker back that is about to train while the work is ahead of the hits, on a fast machine."""
        time.sleep(self.pause_s)
        for _ in range(50):
            if _size(self.hit) / self.hits >= min(1.0, _size(self.finished) / self.configs):
                return
            time.sleep(0.01)


class Herd:
    """The workers of a plan: kept alive until the work is done."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._alive: dict[int, float] = {}
        self._stopped: dict[int, float] = {}
        self._started = time.monotonic()
        self.report: dict[str, Any] = {"kills": 0, "stops": 0, "forks": 0, "failures": [], "exits": 0}

    def run(self) -> dict[str, Any]:
        """Work until every worker has ended by itself, throwing signals until all of them have hit."""
        for _ in range(self._plan.workers):
            self._fork()
        throw = self._kill_one if self._plan.signal == "KILL" else self._stop_one
        while self._alive:
            if time.monotonic() - self._started > self._plan.deadline_s:
                self._give_up()
                break
            self._continue_stopped()
            self._reap()
            if self._alive and self._is_behind():
                throw()
            time.sleep(min(0.1, self._random.expovariate(1 / _PAUSE_S)))
        return self.report | {"seconds": round(time.monotonic() - self._started, 1)}

    def _is_behind(self) -> bool:
        """Whether fewer have been hit than the progress of the work asks for: hits are spread over all of it."""
        hits: int = self.report["kills"] + self.report["stops"] + len(self._stopped)
        progress = _size(self._plan.finished) / self._plan.configs
        # By nine tenths of the work all have hit, so that the end cannot come too early for the last ones.
        return hits < self._plan.hits and hits <= self._plan.hits * (progress / 0.9) + self._plan.workers

    def _count(self, hits: str) -> None:
        self.report[hits] += 1
        with open(self._plan.hit, "ab", buffering=0) as file:
            file.write(b".")

    def _fork(self) -> None:
        self.report["forks"] += 1
        pid = os.fork()
        if pid == 0:
            os._exit(_work(self._plan, self.report["forks"]))
        self._alive[pid] = time.monotonic()

    def _kill_one(self) -> None:
        # The longer it has lived the likelier it is hit: of those that have just begun nearly none holds a claim.
        ages = [time.monotonic() - born for born in self._alive.values()]
        pid = self._random.choices(list(self._alive), ages)[0]
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        del self._alive[pid]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self._count("kills")
            self._fork()
        else:
            self._note_exit(pid, status)

    def _stop_one(self) -> None:
        awake = sorted(self._alive.keys() - self._stopped.keys())
        if len(awake) <= self._plan.workers // 3:
            return
        pid = self._random.choice(awake)
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            self._stopped[pid] = time.monotonic() + self._plan.lease_s * self._random.uniform(1.2, 2.5)
        else:
            del self._alive[pid]
            self._note_exit(pid, status)

    def _continue_stopped(self) -> None:
        for pid, until in list(self._stopped.items()):
            if time.monotonic() >= until:
                os.kill(pid, signal.SIGCONT)
                del self._stopped[pid]
                self._count("stops")
                _, status = os.waitpid(pid, os.WCONTINUED)
                if not os.WIFCONTINUED(status):  # and it has ended already
                    del self._alive[pid]
                    self._note_exit(pid, status)

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


def _work(plan: Plan, number: int) -> int:
    """What one worker does; its exit status."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.nice(10)  # the herdsman comes first, or on a machine with few cores hardly anybody is hit
        waiting.PACE_S = 0.02
        options = {"max_crashes": 10**9, "lease_s": plan.lease_s, "heartbeat_s": plan.lease_s / 5, "stale_s": 0.0}
        manager = Witness(plan.store, plan.journals, pause=plan.pause, finished=plan.finished, **options)
        twins.apply(plan.twin, manager)
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


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    plan.journals.mkdir(parents=True)
    warm_up(Path(plan.folder) / "warm-up")
    gc.freeze()  # or every child's first collection copies the pages that it shares with this process
    print(json.dumps(Herd(plan).run()))


def warm_up(folder: Path) -> None:
    """Train once, so that children find everything imported, and git asked, that a run needs."""
    folder.mkdir()
    Witness(f"{folder}/store", folder).process(configurations(1)[0], 1)


if __name__ == "__main__":
    main()
