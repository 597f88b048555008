"""One sweep by the tasks of an array, what befalls them, and what is judged afterwards."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jimmy_manager import Store
from tests.cluster.slurm import Cluster, Task
from tests.stress.plan import Plan
from tests.stress.witness import Line, configurations, read_journals, violations

PLAN = "WITNESS_PLAN"
ROOT = Path(__file__).parents[2]
_TAKEN_OVER = ("released", "dead", "silent", "dropped", "ended")


def mark_of(plan: Plan, job: int, restarts: int) -> Path:
    """The file with the pid of this attempt of a task, there once it trains: who is hit before that loses nothing."""
    return Path(plan.folder) / "at-work" / f"{job}.{restarts}"


def hold_of(plan: Plan, pid: int, state: str) -> Path:
    """The file by which a worker is ``asked`` to stay where it is, which it renames to that by which it is ``held``."""
    return Path(plan.folder) / f"{state}.{pid}"


class Sweep:
    """An array of Slurm over the configurations of ``plan``, whose ``hits`` are thrown in step with its progress."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self.cluster = cluster
        self.plan = plan
        self.ended: dict[str, str] = {}
        self.hits: Counter[str] = Counter()
        self._random = random.Random(plan.seed)
        self._folder = Path(plan.folder)
        for name in ("journals", "at-work", "out"):
            (self._folder / name).mkdir()

    def submit(self, *options: str, script: str = "") -> None:
        """Start the array: ``plan.workers`` tasks of two cores each, so that eight of them fill the cluster."""
        self.job = self.cluster.sbatch(
            f"--array=0-{self.plan.workers - 1}", "--cpus-per-task=2", f"--output={self._folder}/out/%a", *options,
            script=script or f"#!/bin/bash\nexec {self.worker()}\n", environ=self._environ(),
        )

    def worker(self, *options: str) -> str:
        """The command of one worker, as a shell takes it."""
        job = str(ROOT / "tests" / "cluster" / "job.py")
        command = [sys.executable, "-m", "jimmy_manager.cli", "sweep", job, "--store", self.plan.store, "--wait", "-q"]
        return shlex.join([*command, "--threads=1", *options])

    def _environ(self) -> dict[str, str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {PLAN: json.dumps(self.plan._asdict()), "PYTHONPATH": str(ROOT), **threads}

    def at_work(self) -> list[Task]:
        """The tasks that run and have begun to train in this attempt; AssertionError where all tasks have ended."""
        tasks = self.cluster.tasks()
        assert tasks, f"all tasks ended after {dict(self.hits)} at {self.plan.progress:.0%}\n{self.said()}"
        return [task for task in tasks if task.state == "R" and mark_of(self.plan, task.job, task.restarts).exists()]

    def hit_one(self, what: str, throw: Callable[[Task], None]) -> Task:
        """Wait until the sweep's progress is due for another hit and a task is at work, and throw at a random one."""
        task = self.await_task()
        throw(task)
        self.count(what)
        return task

    def kill(self, task: Task) -> None:
        """SIGKILL for the worker of ``task`` in the middle of an epoch, behind Slurm's back."""
        pid = self.pid_of(task)
        self.hold(pid)
        os.kill(pid, signal.SIGKILL)

    def pid_of(self, task: Task) -> int:
        """The worker's process of a task that is at work."""
        return int(mark_of(self.plan, task.job, task.restarts).read_text())

    def hold(self, pid: int) -> tuple[str, int]:
        """Hold a worker in the middle of an epoch, its heartbeat going on; the key and generation that it holds."""
        hold_of(self.plan, pid, "asked").touch()
        self.cluster.wait_for(f"{pid} to be held", hold_of(self.plan, pid, "held").exists)
        journal = next((self._folder / "journals").glob(f"{pid}.*"))
        took = [line for line in map(Line.parse, journal.read_text().splitlines()) if line.event == "took"]
        return took[-1].key, took[-1].generation

    def let_go(self, pid: int) -> None:
        """Let a worker that is held go on."""
        hold_of(self.plan, pid, "held").unlink()

    def is_taken_over(self, key: str, generation: int) -> bool:
        """Whether a later generation of the run has been claimed."""
        return self._store().claims.look(key).top > generation

    def count(self, what: str, hits: int = 1) -> None:
        """Note hits, here and for the workers, which hold back while their progress is ahead of the hits."""
        self.hits[what] += hits
        self._note_ends()
        with (self._folder / "hit").open("ab") as file:
            file.write(b"." * hits)

    def await_task(self) -> Task:
        """A random task at work, once the sweep's progress is due for another hit."""
        due = min(self.hits.total() / self.plan.hits, 0.9)
        what = f"progress of {due:.0%} after {dict(self.hits)}"
        return self._random.choice(self.cluster.wait_for(what, lambda: self.plan.progress >= due and self.at_work()))

    def tasks_on(self, node: str) -> list[Task]:
        """The tasks at work on ``node``."""
        return [task for task in self.at_work() if task.node == node]

    def await_restart(self, tasks: list[Task]) -> int:
        """Wait until Slurm has taken each of ``tasks`` from this attempt, to start it again; how many they are."""

        def are_restarted() -> bool:
            now = {task.name: task.restarts for task in self.cluster.tasks()}
            return all(now.get(task.name, -1) > task.restarts for task in tasks)

        self.cluster.wait_for(f"{[task.name for task in tasks]} to be taken away", are_restarted)
        return len(tasks)

    def end(self) -> None:
        """Wait until no task is left in the queue; ``ended`` then tells how each of them ended."""
        while (left := len(self.cluster.tasks())) > 0:
            self._note_ends()
            self.cluster.wait_for("the end of a task", lambda left=left: len(self.cluster.tasks()) < left)
        self._note_ends()
        assert len(self.ended) == self.plan.workers

    def _note_ends(self) -> None:
        # Slurm forgets a task five minutes after its end, and a slow machine may take longer than that for a sweep.
        self.ended |= self.cluster.states(self.job)

    def violations(self) -> list[str]:
        """What the judge finds, after a line of figures for whoever reads the failure."""
        lines = read_journals(self.plan.journals)
        print(dict(self.hits), Counter(line.event for line in lines), self.takeovers(), f"{self.resumed()} resumed")
        return violations(self._store(), lines, configurations(self.plan.configs), self.plan.epochs)

    def takeovers(self) -> Counter[str]:
        """How many claims were made after one that had been given up, by what had become of that one."""
        store = self._store()
        records = (store.claims.read(key, number) for key in store.registry for number in store.claims.look(key).claims)
        return Counter(record.after for record in records if record.after in _TAKEN_OVER)

    def resumed(self) -> int:
        """How many results contain commits of more than one attempt."""
        results = (ckpt["lineage"] for ckpt in self._store().ckpts.values())
        return sum(len({mark.partition(":")[0] for mark in lineage}) > 1 for lineage in results)

    def said(self) -> str:
        """What the tasks printed, for messages."""
        files = sorted((self._folder / "out").iterdir())
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in files)

    def _store(self) -> Store:
        return Store(self.plan.store, read_only=True)
