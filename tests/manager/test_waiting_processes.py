"""Workers as processes that wait for one another: how soon they take over, and what their waiting costs the store."""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from jimmy_manager import Store
from tests.archives.runs import attempt_at
from tests.manager import endless

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start a worker; ``boot`` makes it believe that it is on another host."""
    started = []

    def run(*, lease_s: float = 120.0, boot: str = "", **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, endless.__file__, str(tmp_path), str(lease_s), boot], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], *, every_s: float = 0.01) -> float:
    """Wait for ``condition``; the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_S, "nothing happened"
        time.sleep(every_s)
    return time.monotonic() - began


def marks(folder: Path, what: str, workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Those of ``workers`` that are ``training`` or ``waiting``."""
    return [each for each in workers if (folder / f"{what}-{each.pid}").exists()]


def takeovers(folder: Path, workers: list[subprocess.Popen[str]]) -> Iterator[float]:
    """Kill whoever trains, again and again; yield how long each takeover took."""
    for generation in range(1, len(workers)):
        until(partial(marks, folder, "training", workers))
        (holder,) = marks(folder, "training", workers)
        workers.remove(holder)
        until(lambda: len(marks(folder, "waiting", workers)) == len(workers))
        holder.kill()
        holder.wait()
        yield until(lambda number=generation + 1: list((folder / "store/claims").rglob(f"*.g{number}.json")))


def test_a_worker_killed_on_this_host_is_succeeded_within_two_seconds(begin: Begin, tmp_path: Path) -> None:
    seconds = list(takeovers(tmp_path, [begin() for _ in range(4)]))
    assert statistics.median(seconds) <= 2.0, seconds


def test_a_worker_on_a_lost_host_is_succeeded_when_its_lease_has_ended(begin: Begin, tmp_path: Path) -> None:
    """Each worker believes to be on a host of its own, so that only silence tells."""
    lease_s = 8.0
    seconds = list(takeovers(tmp_path, [begin(lease_s=lease_s, boot=f"boot {i}") for i in range(4)]))
    assert min(seconds) >= lease_s - lease_s / 8 - 1, seconds
    assert statistics.median(seconds) <= lease_s + 5, seconds


def test_a_waiting_worker_goes_on_as_soon_as_it_may(begin: Begin, tmp_path: Path) -> None:
    first = begin(BRIEF="1")
    until((tmp_path / f"training-{first.pid}").exists)
    second = begin(boot="elsewhere")
    until((tmp_path / f"waiting-{second.pid}").exists)
    first.send_signal(signal.SIGTERM)
    assert first.communicate(timeout=PATIENCE_S)[0].strip() == "SIGTERM"
    assert until((tmp_path / f"training-{second.pid}").exists) < PATIENCE_S / 2


def test_a_waiting_worker_makes_at_most_one_file_operation_a_second(begin: Begin, tmp_path: Path) -> None:
    """Every system call that strace sees with a path in the store is counted, those on open files included."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    holder = attempt_at(Store(tmp_path / "store", durable=False, stale_s=0.0), {"a": 1})
    elsewhere = holder.claim.record.owner._replace(boot="another")
    holder.claim._replace(holder.claim.record._replace(owner=elsewhere))
    holder.claim.start_heartbeat()
    worker = begin()
    until((tmp_path / f"waiting-{worker.pid}").exists)
    seconds, trace = 40.0, tmp_path / "trace"
    command = ["strace", "-f", "-y", "-e", "trace=%file,%desc", "-o", str(trace), "-p", str(worker.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        pytest.skip(f"strace may not attach here: {said.strip()}")
    time.sleep(seconds)
    tracer.send_signal(signal.SIGINT)
    tracer.communicate()
    holder.claim.release()
    calls = [line for line in trace.read_text().splitlines() if f"{tmp_path}/store" in line and "resumed>" not in line]
    kinds = sorted(set(re.findall(r"^\d+\s+(\w+)\(", "\n".join(calls), re.MULTILINE)))
    assert {"newfstatat", "openat", "getdents64"} & set(kinds), "or it did not look at all"
    assert 5 <= len(calls) <= seconds + 12, f"{len(calls)} calls in {seconds:g} s: {kinds}"
