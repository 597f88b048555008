"""A Slurm of four nodes for one test: the lab's, in a folder and at ports of its own.

Nothing here sleeps for a fixed time; waits are for what Slurm tells, and give up far later than an idle machine needs.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

NODES = 4
CPUS = 4
_PORTS = 11 + NODES
_LONGEST_S = 900.0

T = TypeVar("T")


class Task(NamedTuple):
    """One task of an array as ``squeue`` tells it; ``name`` is what scontrol and scancel take, e.g. ``12_3``."""

    name: str
    job: int
    state: str
    node: str
    restarts: int


class Cluster:
    """Slurm's commands against one cluster of the lab; see the lab's README for what it does when."""

    def __init__(self, script: Path, folder: Path, port: int) -> None:
        self._script = script
        self.environ = os.environ | {
            "SLURM_LAB": str(folder), "PORT": str(port), "NODES": str(NODES), "CPUS": str(CPUS), "KEEP": "0",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def lab(self, *arguments: str) -> None:
        """Call the lab's own script: ``start``, ``stop``, ``kill-node N``, ``start-node N``."""
        _run([str(self._script), *arguments], self.environ)

    def run(self, *command: str) -> str:
        """One command of Slurm; what it printed."""
        return _run(list(command), self.environ)

    def sbatch(self, *arguments: str, script: str, environ: dict[str, str] | None = None) -> int:
        """Submit ``script`` and return the number of the job; without ``--output`` what it prints is lost."""
        command = ["sbatch", "--parsable", "--requeue", "--open-mode=append", "--output=/dev/null", *arguments]
        return int(_run(command, self.environ | (environ or {}), script).partition(";")[0])

    def tasks(self, *states: str) -> list[Task]:
        """The tasks in the queue, of ``states`` alone where given, e.g. ``R``; finished ones are not among them."""
        form = "ArrayJobID:|,ArrayTaskID:|,JobID:|,StateCompact:|,NodeList:|,RestartCnt:|"
        lines = [line.split("|") for line in self.run("squeue", "-h", "-r", "-O", form).splitlines()]
        found = []
        for array, index, job, state, node, restarts, *_ in (map(str.strip, line) for line in lines):
            name = f"{array}_{index}" if index.isdecimal() else job
            found.append(Task(name, int(job), state, node, int(restarts or 0)))
        return [task for task in found if not states or task.state in states]

    def states(self, job: int) -> dict[str, str]:
        """How the tasks of ``job`` ended, e.g. ``{'1_0': 'COMPLETED 0:0'}``; Slurm forgets it after five minutes."""
        found = {}
        for line in self.run("scontrol", "show", "job", "-o", str(job)).splitlines():
            fields = dict(word.partition("=")[::2] for word in line.split())
            array, index = fields.get("ArrayJobId", str(job)), fields.get("ArrayTaskId")
            found[f"{array}_{index}" if index else fields["JobId"]] = f"{fields['JobState']} {fields['ExitCode']}"
        return found

    def has_ended(self, job: int) -> bool:
        """Whether no task of ``job`` is in the queue any more."""
        return not any(task.name.partition("_")[0] == str(job) for task in self.tasks())

    def node_state(self, node: str) -> str:
        """For example ``idle``, ``mixed`` or ``down*``."""
        return self.run("sinfo", "-h", "-N", "-p", "low", "-n", node, "-o", "%T").strip()

    def wait_for(self, what: str, found: Callable[[], T], longest_s: float = _LONGEST_S) -> T:
        """Ask until ``found`` returns something true, and return that."""
        return wait_for(what, found, longest_s, self.queue)

    def queue(self) -> str:
        """The queue and the nodes as people see them, for messages."""
        return self.run("squeue", "-r") + self.run("sinfo", "-N", "-l")


def wait_for(
    what: str, found: Callable[[], T], longest_s: float = _LONGEST_S, told: Callable[[], str] = lambda: ""
) -> T:
    """Ask four times a second until ``found`` returns something true; AssertionError after ``longest_s``."""
    deadline = time.monotonic() + longest_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what}: not in {longest_s:g} s\n{told()}"
        time.sleep(0.25)
    return value


@contextmanager
def running(script: Path) -> Iterator[Cluster]:
    """A cluster for the time of the block, by the lab's ``slurm.sh``."""
    with ExitStack() as stack:
        # Not below pytest's folder: the path of munged's socket would be too long.
        folder = Path(tempfile.mkdtemp(prefix="jimmy-slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = Cluster(script, folder, free_ports(_PORTS))
        stack.callback(cluster.lab, "stop")
        cluster.lab("start")
        yield cluster


def requeued(then: str) -> str:
    """A batch script of a task of an array that requeues itself, and then does something, once in its folder."""
    again = 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"; sleep 60'
    # On a busy machine two submissions were seen, as if it had been started a third time.
    return f"#!/bin/bash\nif [ -z $SLURM_RESTART_COUNT ]; then {again}; fi\nmkdir once && {then}\n"


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody listens at; below those that the system hands out itself."""
    for _ in range(100):
        first = random.SystemRandom().randrange(20_000, 32_000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise RuntimeError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _run(command: list[str], environ: dict[str, str], stdin: str = "") -> str:
    # To files: the daemons that the lab starts would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as given:
        given.write(stdin)
        given.seek(0)
        status = subprocess.run(command, env=environ, stdin=given, stdout=out, stderr=out, timeout=120).returncode
        out.seek(0)
        said = out.read()
    assert status == 0, f"{command}: exit code {status}\n{said}"
    return said
