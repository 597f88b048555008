"""Starting the jobs of ``rank_job.py`` on several ranks, and reading what they left in their store."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jimmy_manager import Store

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
    """What it printed, once it has ended, or been ended with all of its processes."""
    try:
        return process.communicate(timeout=PATIENCE_S)[0]
    finally:
        if process.poll() is None:
            process.terminate()  # which torchrun hands on
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=60)
            process.kill()
            process.wait()


def run(
    store: Path, kind: str = "Pair", *given: str, ranks: int = 2, restarts: int = 0, fault: str = "", **env: str
) -> str:
    """Start the job on so many ranks, and return what it printed."""
    options = ("--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}")
    launcher = torchrun(*options) if ranks > 1 else [sys.executable]
    return ended(start([*launcher, str(JOB), kind, str(store), *given], FAULT=fault, **env))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
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
    return {opened.configs[key].seed: dict(leaves(opened.ckpts[key])) for key in opened.configs}


def key_of(store: Path, seed: int) -> str:
    opened = Store(store, read_only=True)
    return next(key for key in opened.configs if opened.configs[key].seed == seed)


def claims(store: Path, seed: int) -> list[str]:
    """The states of the generations of a run."""
    opened = Store(store, read_only=True)
    key = key_of(store, seed)
    return [opened.claims.read(key, generation).state for generation in opened.claims.look(key).claims]
