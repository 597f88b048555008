"""``jimmy stop``: workers as processes that save and leave when they are asked to, and only then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jimmy_manager import Store
from jimmy_manager.archives.audit import audit
from tests.archives.runs import attempt_at

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 180.0
JOB = """
import os, time
from pathlib import Path
from jimmy_manager import Manager
from jimmy_manager.manager import waiting

waiting.PACE_S = 0.1
wait = waiting.Waiting.wait

def mark(what):
    Path(f"{what}-{os.getpid()}").touch()

def tell_and_wait(self, stop):
    mark("waiting")
    return wait(self, stop)

waiting.Waiting.wait = tell_and_wait

class Long(Manager):
    num_epochs = 1000
    choices = {"seed": [0, 1]}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, heartbeat_s=0.5, lease_s=300.0, **kwargs)

    def train(self):
        mark("training")
        mark(f"training-{self.key}")
        time.sleep(0.05)

    def eval(self):
        return {"loss": 1.0}
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start the command line as a process of its own, in ``tmp_path``."""
    (tmp_path / "long.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JIMMY_STORE", "own")
    started = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    def begin(*arguments: str, by_itself: bool = False) -> subprocess.Popen[str]:
        return run(*arguments) if by_itself else run("-P", "-m", "jimmy_manager.cli", *arguments)

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def until(condition: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def is_at(folder: Path, what: str, process: subprocess.Popen[str]) -> Callable[[], bool]:
    return (folder / f"{what}-{process.pid}").exists


def held(folder: Path) -> dict[str, int]:
    """The generations that are held, by key."""
    store = Store(folder / "own", read_only=True)
    standings = [store.standing(key) for key in store.registry]
    return {standing.key: standing.trace.top for standing in standings if standing.state == "held"}


def test_the_worker_of_a_run_saves_and_leaves_and_the_others_stay(start: Start, tmp_path: Path) -> None:
    first = start("sweep", "long.py", "seed=0", "-q")
    second = start("sweep", "long.py", "seed=1", "-q")
    for process in (first, second):
        until(is_at(tmp_path, "training", process), process)
    key = next(k for k in held(tmp_path) if Store(tmp_path / "own", read_only=True).config(k).seed == 0)
    code, out, err = finish(start("stop", key[:6], "--wait", "170"))
    assert (code, err) == (0, "")
    assert re.search(rf"run {key}: \S+:{first.pid} is asked to save and leave\n", out)
    assert f"run {key}: " in out.splitlines()[-1]
    assert out.endswith("has left\n")
    assert finish(first) == (0, "", "")
    store = Store(tmp_path / "own", read_only=True)
    assert store.standing(key).state == "released"
    assert store.committed(key).commits[-1].epoch > 0  # type: ignore[union-attr]
    assert second.poll() is None
    assert audit(store) == [], "no request is left behind"


def test_a_successor_is_not_stopped_by_what_was_asked_of_its_predecessor(start: Start, tmp_path: Path) -> None:
    first = start("sweep", "long.py", "seed=0", "-q")
    until(is_at(tmp_path, "training", first), first)
    ((key, generation),) = held(tmp_path).items()
    first.send_signal(signal.SIGSTOP)  # it will never see the request
    assert finish(start("stop", key))[0] == 0
    first.kill()
    finish(first)
    second = start("sweep", "long.py", "seed=0", "-q")
    until(is_at(tmp_path, "training", second), second)
    beats = Store(tmp_path / "own", read_only=True).claims
    until(lambda: beats.read(key, generation + 1).beat >= 4, second)
    assert second.poll() is None
    code, out, _ = finish(start("stop", key, "--wait", "170"))
    assert (code, "has left" in out) == (0, True)
    assert finish(second)[0] == 0


def test_all_workers_leave_also_those_that_only_wait_and_later_ones_are_not_asked(
    start: Start, tmp_path: Path
) -> None:
    training = start("sweep", "long.py", "seed=0", "-q")
    until(is_at(tmp_path, "training", training), training)
    waiting = start("sweep", "long.py", "seed=0", "--wait", "-q")
    until(is_at(tmp_path, "waiting", waiting), waiting)
    code, out, err = finish(start("stop", "--all", "--wait", "170"))
    assert (code, err) == (0, "")
    assert f":{training.pid} is asked to save and leave" in out
    assert "workers that hold no run" in out
    assert [finish(each) for each in (training, waiting)] == [(0, "", "")] * 2
    later = start("sweep", "long.py", "seed=0", "-q")
    until(is_at(tmp_path, "training", later), later)
    ((key, generation),) = held(tmp_path).items()
    claims = Store(tmp_path / "own", read_only=True).claims
    until(lambda: claims.read(key, generation).beat >= 4, later)
    assert later.poll() is None


def test_a_pool_of_workers_ends_with_exit_code_0_and_starts_none_again(start: Start, tmp_path: Path) -> None:
    pool = start("sweep", "long.py", "--workers", "2", "-q")
    until(lambda: len(list(tmp_path.glob("training-*"))) >= 4, pool)
    assert finish(start("stop", "--all", "--wait", "170"))[0] == 0
    code, _, err = finish(pool)
    assert code == 0, err
    assert "started again" not in err


SHORT = """
import os, sys, time
from pathlib import Path
from jimmy_manager import Manager

class Short(Manager):
    num_epochs = 1
    choices = {"seed": list(range(300))}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, heartbeat_s=3.0, lease_s=300.0, **kwargs)

    def train(self):
        Path(f"training-{os.getpid()}").touch()
        time.sleep(0.3)

    def eval(self):
        return {"loss": 1.0}

if __name__ == "__main__":
    manager = Short("own", {}, verbose=False)
    for seed in range(300):
        manager.process({"seed": seed})
"""


@pytest.mark.parametrize("is_sweep", [True, False])
def test_workers_whose_runs_are_shorter_than_a_heartbeat_leave_before_it_is_said_that_they_have(
    start: Start, tmp_path: Path, is_sweep: bool
) -> None:
    (tmp_path / "short.py").write_text(SHORT)
    worker = start("sweep", "short.py", "-q") if is_sweep else start("short.py", by_itself=True)
    until(is_at(tmp_path, "training", worker), worker)
    code, out, err = finish(start("stop", "--all", "--wait", "120"))
    assert (code, err) == (0, "")
    assert f":{worker.pid} has left" in out
    assert worker.wait(5) == (0 if is_sweep else 1), "it had left when that was said"
    assert is_sweep or "Stopped: jimmy stop came" in finish(worker)[2]
    assert len(list((tmp_path / "own" / "stats").rglob("*.json"))) < 100


def test_who_does_not_leave_in_time_is_named(start: Start, tmp_path: Path) -> None:
    attempt = attempt_at(Store(tmp_path / "own", durable=False), {"seed": 0})
    code, out, err = finish(start("stop", attempt.key, "--wait", "0.5"))
    assert code == 1
    assert f"run {attempt.key}: " in out
    assert f"{os.getpid()} has not left in 0.5 s" in err
    code, out, _ = finish(start("stop", attempt.key))
    assert (code, "had been asked before" in out) == (0, True)


def test_who_has_left_already_is_told(start: Start, tmp_path: Path) -> None:
    store = Store(tmp_path / "own", durable=False)
    released, gone, never = (attempt_at(store, {"seed": seed}) for seed in range(3))
    released.claim.release()
    dead = gone.claim.record.owner._replace(pid=2**22 + 1)
    gone.claim._replace(gone.claim.record._replace(owner=dead))
    never.claim.fail({"type": "E", "message": "m", "traceback": ""})
    code, out, err = finish(start("stop", released.key, gone.key, never.key, "--wait", "0"))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"run {released.key}: nobody to ask, it is paused",
        f"run {gone.key}: nobody to ask, its worker is gone",
        f"run {never.key}: nobody to ask, it is failed",
    ]
    assert not list((tmp_path / "own").rglob("*.stop"))


def test_an_unknown_key_is_refused_before_anybody_is_asked(start: Start, tmp_path: Path) -> None:
    attempt = attempt_at(Store(tmp_path / "own", durable=False), {"seed": 0})
    code, out, err = finish(start("stop", attempt.key, "ffff"))
    assert (code, out) == (1, "")
    assert "'ffff'" in err
    assert not list((tmp_path / "own").rglob("*.stop"))


@pytest.mark.parametrize("arguments", [[], ["abcd", "--all"]])
def test_it_has_to_be_said_who_is_meant(start: Start, tmp_path: Path, arguments: list[str]) -> None:
    attempt_at(Store(tmp_path / "own", durable=False), {"seed": 0})
    code, _, err = finish(start("stop", *arguments))
    assert (code, "--all" in err) == (2, True)
    assert not (tmp_path / "own" / "stop.json").exists()
