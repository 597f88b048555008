"""Jobs for several ranks, with faults: $FAULT is "RANK STEP ACTION", e.g. "1 7 kill"; of several, parted by commas.

A fault strikes once in a store: what is started again goes on without it.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from jimmy_manager import Manager, TrainedManager
from jimmy_manager.manager import rank_follower

RANK = int(os.environ.get("RANK", "0"))
CONFIG = {
    "data": {"_target_": "rank_job.load_data"},
    "model": {"_target_": "rank_job.build_model"},
    "optim": {"_target_": "torch.optim.Adam", "lr": 0.02},
    "batch_size": 8,
}
SEEDS = {"seed": [3, 4]}


def load_data():
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(57, 6, generator=draw, dtype=torch.float64)
    return {"train": (inputs, (inputs[:, 0] > 0).long()), "valid": (inputs[:21], (inputs[:21, 0] > 0).long())}


def build_model():
    dropout = float(os.environ.get("DROPOUT", "0"))
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)).double()


def strike(folder, step):
    for fault in filter(None, os.environ.get("FAULT", "").split(",")):
        rank, due, action = fault.split()
        mark = Path(folder) / f"fault {fault}"
        if (int(rank), int(due)) == (RANK, step) and not mark.exists():
            mark.touch()
            act(action)


def act(action):
    if action == "raise":
        raise ValueError("a bad batch, which only one rank saw")
    if action == "sleep":
        time.sleep(600)
    elif action == "orphan":  # as a data loader's process, which keeps open what its parent has
        if os.fork() == 0:
            os.closerange(0, 3)
            time.sleep(60)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit":
        os._exit(0)
    else:
        os.kill(os.getpid(), getattr(signal, f"SIG{action.upper()}"))


class Pair(TrainedManager):
    """Trains what one process would, each rank its rows."""

    name = "Ranks"
    targets = ("rank_job", "torch.optim")
    num_epochs = 4
    choices = CONFIG | SEEDS

    def setup(self, config):
        super().setup(config)
        self.steps = 0

    def loss(self, output, targets):
        if self.model.training:
            self.steps += 1
            strike(self.store.directory, self.steps + 100 * (self.config.seed - 3))
            time.sleep(float(os.environ.get("STEP_S", "0")))
        return super().loss(output, targets)


class Own(Manager):
    """A loop of one's own: each rank draws numbers, and all sum them up."""

    name = "Ranks"
    num_epochs = 4
    choices = SEEDS

    def setup(self, config):
        super().setup(config)
        self.weight = nn.Linear(3, 1)
        self.state = ("weight",)

    def train(self):
        for step in range(1, 4):
            strike(self.store.directory, 3 * self.epoch + step + 100 * (self.config.seed - 3))
            time.sleep(float(os.environ.get("STEP_S", "0")))
            noise = torch.randn(3)
            if dist.is_initialized():
                dist.all_reduce(noise)
            with torch.no_grad():
                self.weight.weight += noise

    def eval(self):
        return {"loss": self.weight.weight.sum().item(), "rank": RANK}


if __name__ == "__main__":
    kind, store, *options = sys.argv[1:]
    import rank_job

    if "forget" in options:  # the broken twin: every rank goes on with the random states of rank 0
        rank_follower.Follower.own = lambda self, states, key: states
    manager = getattr(rank_job, kind)(store, device="cpu", lease_s=60.0, heartbeat_s=1.0)
    report = manager.sweep(order="given", max_errors=9, wait="wait" in options)
    (Path(store) / f"report-{RANK}.txt").write_text(str(report))
    sys.exit(bool(report.stopped or report.failed))
