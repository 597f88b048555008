"""The share of this machine that one worker may use: CPU threads and a device.

Three workers at torch's default of one thread a core were nine times slower on two cores.
"""

from __future__ import annotations

import os
import sys

from jimmy_manager.errors import ConfigError

THREADS = "JIMMY_THREADS"
DEVICE = "JIMMY_DEVICE"


def threads(asked: int | None) -> int | None:
    """How many CPU threads to use: what was asked for, this worker's share, Slurm's; None leaves torch's default."""
    if asked is not None:
        return asked
    for name, sharers in ((THREADS, "1"), ("SLURM_CPUS_PER_TASK", os.environ.get("LOCAL_WORLD_SIZE", "1"))):
        if text := os.environ.get(name, ""):
            if not text.isdecimal() or text == "0":
                raise ConfigError(f"${name} is {text!r}, it must be a number of CPU threads from 1")
            return max(1, int(text) // int(sharers))  # the ranks of one torchrun are one task
    return None


def apply_threads(count: int | None) -> None:
    """Hold torch, loaded or not, to ``count`` threads; None changes nothing."""
    if count is None:
        return
    # Read when torch is first imported; what comes after it needs the call.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)


def device(asked: str | None) -> str:
    """The device to train on: what was asked for, this worker's or this rank's share, the first GPU, the CPU."""
    if asked or os.environ.get(DEVICE):
        return asked or os.environ[DEVICE]
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def environments(workers: int, cores: int, gpus: int) -> list[dict[str, str]]:
    """The environment of each of ``workers`` on a machine: a share of the cores, the GPUs in turn.

    >>> environments(3, cores=8, gpus=2)[2]
    {'JIMMY_THREADS': '2', 'JIMMY_DEVICE': 'cuda:0'}
    """
    share = {THREADS: str(max(1, cores // workers))}
    return [share | ({DEVICE: f"cuda:{worker % gpus}"} if gpus else {}) for worker in range(workers)]
