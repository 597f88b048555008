"""Several ranks under a real torchrun are one worker, whatever becomes of one of them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from jimmy_manager import Manager, Store
from jimmy_manager.cli.main import main
from jimmy_manager.errors import HookError
from jimmy_manager.manager import rank_line, rank_states
from jimmy_manager.manager.ranks import Alone, failure_of
from jimmy_manager.manager.rank_line import Line, Place, here, lines

ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).with_name("rank_job.py")
PATIENCE_S = 240


def start(command: list[str], **env: str) -> subprocess.Popen:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{JOB.parent}", "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options]


def ended(process: subprocess.Popen) -> str:
    """What it printed, once it has ended; its processes are ended with it."""
    try:
        return process.communicate(timeout=PATIENCE_S)[0]
    finally:
        if process.poll() is None:
            process.terminate()  # which torchrun hands on
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=60)
            process.kill()
            process.wait()


def run(store: Path, kind: str = "Pair", *, ranks: int = 2, restarts: int = 0, fault: str = "", **env: str) -> str:
    """Start the job on so many ranks, and return what it printed."""
    options = ("--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}")
    launcher = torchrun(*options) if ranks > 1 else [sys.executable]
    return ended(start([*launcher, str(JOB), kind, str(store)], FAULT=fault, **env))


def leaves(value, path=""):
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from leaves(each, f"{path}.{number}")
    elif isinstance(value, torch.Tensor | np.ndarray):
        yield path, (str(value.dtype), np.asarray(value).tobytes())
    else:
        yield path, value


def results(store: Path) -> dict[int, dict]:
    """Everything in the last checkpoint of each run, random states of all ranks included, by seed."""
    opened = Store(store, read_only=True)
    return {opened.configs[key].seed: dict(leaves(opened.ckpts[key])) for key in opened.keys()}


def key_of(store: Path, seed: int) -> str:
    opened = Store(store, read_only=True)
    return next(key for key in opened.keys() if opened.configs[key].seed == seed)


def claims(store: Path, seed: int) -> list[str]:
    """The states of the generations of a run."""
    opened = Store(store, read_only=True)
    key = key_of(store, seed)
    return [opened.claims.read(key, generation).state for generation in opened.claims.look(key).claims]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("pair")
    printed = run(store)
    assert "2 done, 0 complete before" in printed
    return store


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("own")
    assert "2 done, 0 complete before" in run(store, "Own")
    return store


def test_two_ranks_train_what_one_process_would_as_one_worker(pair, tmp_path):
    run(tmp_path, ranks=1)
    alone, together = Store(tmp_path, read_only=True), Store(pair, read_only=True)
    assert sorted(alone.keys()) == sorted(together.keys())
    for key in alone.keys():
        one, two = alone.ckpts[key]["model"], together.ckpts[key]["model"]
        assert all(torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-9) for name in one)
        assert dict(together.previews[key]) == pytest.approx(dict(alone.previews[key]), rel=1e-6)
        assert together.stats[key]["step"] == alone.stats[key]["step"] == 4 * 8
    for seed in (3, 4):
        assert claims(pair, seed) == ["held", "done"]  # one generation, and the mark of its end
    reports = [(pair / f"report-{rank}.txt").read_text() for rank in (0, 1)]
    assert reports == ["2 done, 0 complete before"] * 2


def test_a_killed_rank_costs_what_was_not_saved_and_its_job_goes_on_to_the_same_bytes(own, tmp_path):
    printed = run(tmp_path, "Own", restarts=1, fault="1 8 kill")
    assert "the loss of rank 1 of 2" in printed
    assert "goes on after epoch 2/4" in printed
    assert claims(tmp_path, 3) == ["released", "held", "done"]
    assert claims(tmp_path, 4) == ["held", "done"]
    assert results(tmp_path) == results(own)
    numbers = [name for name in results(own)[3] if name.startswith(".random_state.others.0.")]
    assert any(results(own)[3][name] != results(own)[3][name.replace("others.0.", "")] for name in numbers)


def test_what_one_rank_raises_fails_the_run_by_its_name_and_the_next_run_is_trained(pair, tmp_path):
    printed = run(tmp_path, fault="1 10 raise")
    assert "RankFailed: rank 1 of 2 raised ValueError: a bad batch" in printed
    assert "1 done, 0 complete before, 1 failed" in printed
    assert claims(tmp_path, 3) == ["failed"]
    error = Store(tmp_path, read_only=True).standing(key_of(tmp_path, 3)).record.error
    assert "on rank 1 of 2:" in error["traceback"]
    assert 'raise ValueError("a bad batch, which only one rank saw")' in error["traceback"]
    assert results(tmp_path)[4] == results(pair)[4]


def test_a_stop_signal_to_one_rank_stops_all_at_one_step_and_the_rest_ends_in_the_same_bytes(pair, tmp_path):
    printed = run(tmp_path, fault="1 10 term", STEP_S="0.3")  # about once a second they ask each other
    assert "0 done, 0 complete before; stopped by SIGTERM" in printed
    assert claims(tmp_path, 3) == ["released"]
    commit = Store(tmp_path, read_only=True).stats[key_of(tmp_path, 3)]
    assert (commit["epoch"], 10 <= commit["step"] < 16) == (1, True)  # within its second epoch
    assert "2 done, 0 complete before" in run(tmp_path)
    assert results(tmp_path) == results(pair)
