"""Configurations that kill their worker or raise: they end as failed, and the sweep around them finishes.

Attempts that die are forks of one process that has imported torch (a program of its own: a test process has threads).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Config, Manager, Store
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.errors import RunFailed

GRID = [{"x": x} for x in range(4)]
POISON = GRID[1]


class Job(Manager):
    """Poisoned where ``x == 1``; what the poison does, and in which hook, is the subclasses' business."""

    name = "poison"
    num_epochs = 2

    def __init__(self, store: Any, **options: Any) -> None:
        super().__init__(store, device="cpu", verbose=False, **options)
        self.trained: list[int] = []

    def train(self) -> None:
        self.trained.append(self.config["x"])

    def eval(self) -> dict[str, Any]:
        return {"x": self.config["x"]}


class DeadlyAtOnce(Job):
    def init_ckpt(self) -> None:
        super().init_ckpt()
        if self.config["x"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class DeadlyInTraining(Job):
    def train(self) -> None:
        if self.config["x"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        super().train()


class Raising(Job):
    def train(self) -> None:
        super().train()
        if self.config["x"] == 1:
            raise ZeroDivisionError("the poisoned one")


class Interrupted(Job):
    def init_ckpt(self) -> None:
        raise KeyboardInterrupt


class Stopped(Job):
    def train(self) -> None:
        super().train()
        os.kill(os.getpid(), signal.SIGTERM)


def sweep(job: type[Job], store: Path, *, workers: int = 12, **batch: Any) -> int:
    """Sweep with one worker after the other until one comes to the end of the grid; how many died by SIGKILL."""
    plan = json.dumps({"job": job.__name__, "store": str(store), "workers": workers, "batch": batch})
    command = [sys.executable, "-m", "tests.manager.test_poison", plan]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    statuses: list[int] = json.loads(done.stdout)
    died = [status for status in statuses if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL]
    assert [status for status in statuses if status not in died] in ([], [0]), done.stderr
    return len(died)


def _sweep_in_children(job: str, store: str, workers: int, batch: dict[str, Any]) -> list[int]:
    import numpy  # noqa: F401
    import torch  # noqa: F401

    statuses: list[int] = []
    while len(statuses) < workers and (not statuses or os.WIFSIGNALED(statuses[-1])):
        if (pid := os.fork()) == 0:
            try:
                globals()[job](store).batch(GRID, max_errors=math.inf, **batch)
            except BaseException as error:  # noqa: BLE001  # a forked child ends here, whatever happened
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        statuses.append(os.waitpid(pid, 0)[1])
    return statuses


def states(directory: Path) -> list[str]:
    store = Store(directory, read_only=True)
    return [store.standing(key).state for config in GRID if (key := store.find(Config(config)))]


def claims(directory: Path) -> list[ClaimRecord]:
    """All claims of the poisoned run."""
    store = Store(directory, read_only=True)
    key = store.find(Config(POISON))
    assert key is not None
    return [store.claims.read(key, generation) for generation in store.claims.look(key).claims]


def test_what_kills_its_worker_each_time_ends_as_crashed_after_five(tmp_path: Path) -> None:
    assert sweep(DeadlyAtOnce, tmp_path) == 5
    assert states(tmp_path) == ["done", "failed", "done", "done"]
    error = claims(tmp_path)[-1].error
    assert error is not None
    assert error["type"] == "crashed"
    assert "its last 5 attempts died without saving anything" in error["message"]
    with pytest.raises(RunFailed, match="is marked failed: crashed: its last 5 attempts"):
        Job(tmp_path).process(POISON)
    assert len(claims(tmp_path)) == 6


def test_an_attempt_that_saved_something_before_it_died_is_not_one_of_the_five(tmp_path: Path) -> None:
    assert sweep(DeadlyInTraining, tmp_path) == 6
    assert states(tmp_path) == ["done", "failed", "done", "done"]
    committed = Store(tmp_path, read_only=True).committed(claims(tmp_path)[-1].key)
    assert committed is not None
    assert (committed.generation, committed.commits[-1].epoch) == (1, 0)


def test_a_crashed_run_is_left_alone_until_somebody_asks(tmp_path: Path) -> None:
    sweep(DeadlyAtOnce, tmp_path)
    assert sweep(DeadlyAtOnce, tmp_path) == 0
    assert len(claims(tmp_path)) == 6
    assert sweep(DeadlyAtOnce, tmp_path, retries=1) == 5
    report = Job(tmp_path).batch(GRID, retries=2)
    assert (len(report.done), len(report.skipped)) == (1, 3)
    assert states(tmp_path) == ["done"] * 4


def test_deaths_before_a_retry_that_somebody_asked_for_are_forgiven(tmp_path: Path) -> None:
    sweep(DeadlyAtOnce, tmp_path)
    assert [record.after for record in claims(tmp_path)] == ["new"] + ["dead"] * 5
    store = Job(tmp_path).store
    key = claims(tmp_path)[-1].key
    assert store.claims.mark(store.standing(key), claims(tmp_path)[-1].digest, "retry")
    assert sweep(DeadlyAtOnce, tmp_path) == 5


def test_what_raises_is_failed_with_its_traceback_and_the_sweep_goes_on(tmp_path: Path) -> None:
    manager = Raising(tmp_path)
    report = manager.batch(GRID, max_errors=math.inf)
    assert (len(report.done), len(report.failed)) == (3, 1)
    assert states(tmp_path) == ["done", "failed", "done", "done"]
    error = claims(tmp_path)[-1].error
    assert error is not None
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "the poisoned one")
    assert 'raise ZeroDivisionError("the poisoned one")' in error["traceback"]


def test_what_raised_is_not_retried_unasked(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Raising(tmp_path).process(POISON)
    again = Job(tmp_path)
    report = again.batch([POISON], max_errors=math.inf)
    assert (report.done, len(report.failed), again.trained) == ([], 1, [])
    with pytest.raises(RunFailed, match="ZeroDivisionError: the poisoned one"):
        again.process(POISON)
    assert len(claims(tmp_path)) == 1


def test_retries_let_a_failed_run_try_again_as_often_as_they_say(tmp_path: Path) -> None:
    for _ in range(5):
        Raising(tmp_path).batch([POISON], max_errors=math.inf, retries=2)
    assert [record.state for record in claims(tmp_path)] == ["failed"] * 3
    assert len(Job(tmp_path).batch([POISON], retries=3).done) == 1


def test_a_retry_that_somebody_asked_for_lets_it_run_once_more(tmp_path: Path) -> None:
    Raising(tmp_path).batch([POISON], max_errors=math.inf)
    for job, state in ((Raising, "failed"), (Job, "done")):
        store = Store(tmp_path)
        standing = store.standing(claims(tmp_path)[-1].key)
        assert store.claims.mark(standing, claims(tmp_path)[-1].digest, "retry")
        job(tmp_path).batch([POISON], max_errors=math.inf)
        assert claims(tmp_path)[-1].state == state


def test_interrupts_are_no_crashes_and_end_a_row_of_them(tmp_path: Path) -> None:
    for _ in range(2):
        assert sweep(DeadlyAtOnce, tmp_path, workers=4) == 4
        with pytest.raises(KeyboardInterrupt):
            Interrupted(tmp_path).process(POISON)
    assert [record.state for record in claims(tmp_path)] == [*["held"] * 4, "released"] * 2
    Job(tmp_path).process(POISON)
    assert claims(tmp_path)[-1].state == "done"


def test_more_interrupts_than_max_crashes_leave_a_run_free(tmp_path: Path) -> None:
    for _ in range(7):
        with pytest.raises(KeyboardInterrupt):
            Interrupted(tmp_path).process(POISON)
    assert [record.state for record in claims(tmp_path)] == ["released"] * 7
    Job(tmp_path).process(POISON)
    assert claims(tmp_path)[-1].state == "done"


def test_more_stops_by_signal_than_max_crashes_leave_a_run_free(tmp_path: Path) -> None:
    for _ in range(7):
        assert Stopped(tmp_path).batch([POISON], 9).stopped == "SIGTERM"
    assert [record.state for record in claims(tmp_path)] == ["released"] * 7
    Job(tmp_path).process(POISON, 9)
    assert claims(tmp_path)[-1].state == "done"


if __name__ == "__main__":
    print(json.dumps(_sweep_in_children(**json.loads(sys.argv[1]))))


def test_stalls_that_a_living_worker_noticed_itself_are_no_crashes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entry = store.register({"a": 1})
    for _ in range(7):
        claim = store.claims.take(store.standing(entry.key), entry.digest, max_crashes=5)
        assert claim is not None
        claim.drop()
    assert store.standing(entry.key).state == "dropped"
