"""A training in a process of its own, which signals end again and again, and which goes on each time.

Run as a program (``python -m tests.stress.kill_storm '[{"folder": ...}, ...]'``), because what forks should have no
threads; it prints a line of JSON for each plan. Trainings are forked from a process that has imported everything, so
that signals hit training and not imports; what they hit is told by ``waitpid``.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from jimmy_manager import TrainedManager, random_state
from jimmy_manager.datasets import JimmyDataset, TorchDataset
from jimmy_manager.errors import Stopped
from jimmy_manager.manager import waiting
from jimmy_manager.models import JimmyModel
from jimmy_manager.training import DynamicConfig, JimmyExperiment, JimmyTrainer

STOPPED, INTERRUPTED = 3, 4


class Plan(NamedTuple):
    """Of ``workers`` processes that run the program ``kind``, ``hits`` are ended by ``signals``; others follow them."""

    folder: str
    kind: str
    hits: int
    signals: list[str]
    seed: int = 0
    epochs: int = 6
    workers: int = 1
    deadline_s: float = 300.0


# What is trained: random numbers of every kind, state of every kind, and short steps


class Points(JimmyDataset):
    def __init__(self, set_name: str, batch_size: int, drop_last: bool = False, shuffle: bool = False) -> None:
        super().__init__(set_name, batch_size, drop_last, shuffle)
        self.x = torch.randn(157 if set_name == "train" else 40, 6)  # drawn anew by each process, unless that is seeded
        self.n_samples = len(self.x)

    def __getitem__(self, idx: int) -> dict[str, Tensor]:
        x = self.x[self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]]
        time.sleep(0.001)
        noise = torch.randn_like(x) * (0.1 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return {"data": x + noise, "target": (x[:, 0] > 0).long()}


class Samples(Dataset[tuple[Tensor, int]]):
    def __init__(self) -> None:
        self.x = torch.randn(157, 6)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.x[index, 0] > 0)


def loaded(batch_size: int) -> Any:
    """A set whose batches are made by a process that is forked for it."""
    return TorchDataset(DataLoader(Samples(), batch_size, shuffle=True, num_workers=1))


class Net(JimmyModel):
    def __init__(self, width: int = 32, **arguments: Any) -> None:
        super().__init__(**{"ema_decay": 0.9, "clip_grad": 1.0, **arguments})
        self.net = nn.Sequential(
            nn.Linear(6, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def evalStep(self, data_dict: Any) -> Any:  # noqa: N802
        losses, _ = self._plain_step({**data_dict, "data": data_dict["data"] + torch.randn(6)})
        return losses, {}


class Storm(TrainedManager):
    name = "storm"
    targets = (__name__, "torch.optim")


class Forgetful(JimmyTrainer):
    """What the storm must notice: random numbers that are not those of the run."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        random_state.seed(5)


def experiment(
    folder: Path, epochs: int, with_workers: bool = False, trainer_type: type[JimmyTrainer] = JimmyTrainer
) -> None:
    """Train one experiment, from wherever it stands."""
    os.chdir(folder)
    exp = JimmyExperiment()
    exp.trainer_type = trainer_type
    exp.dataset_cfg = DynamicConfig(Points, batch_size=8, shuffle=True)
    if with_workers:
        exp.train_set_cfg = DynamicConfig(loaded, batch_size=8)
    exp.model_cfg = DynamicConfig(Net)
    exp.lr_scheduler_cfg = DynamicConfig(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=1)
    exp.constants = {
        "n_epochs": epochs, "save_steps": 7, "save_interval": 2, "moving_avg": 9, "show_progress": False,
        "save_dir": "run",
    }  # fmt: skip
    exp.start("auto")


def sweep(folder: Path, epochs: int) -> None:
    """Train four configurations of a Manager, as far as other workers leave them."""
    waiting.PACE_S = 0.01
    choices = {
        "data": {"_target_": f"{__name__}.Points"}, "model": {"_target_": f"{__name__}.Net", "width": [8, 16]},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": epochs},
        "batch_size": 8, "seed": [0, 1],
    }  # fmt: skip
    manager = Storm(folder / "store", device="cpu", verbose=False, max_crashes=10**9, stale_s=0.0)
    report = manager.sweep(choices, num_epochs=epochs, wait=True)
    if report.stopped:
        raise Stopped(report.stopped)


PROGRAMS: dict[str, Callable[[Path, int], None]] = {
    "experiment": experiment,
    "loader": partial(experiment, with_workers=True),
    "forgetful": partial(experiment, trainer_type=Forgetful),
    "manager": sweep,
}


# The storm


class KillStorm:
    """Keeps the workers of a plan alive, or rather does not, until all have ended by themselves."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._random = random.Random(plan.seed)
        self._alive: dict[int, float] = {}
        self._forks = 0
        self.ends: Counter[str] = Counter()

    def run(self, hits: int) -> None:
        """Fork until every worker has ended by itself; throw signals at them until ``hits`` were ended by one.

        Not so many signals: on a busy machine several meet one process, or one that is not listening yet.
        """
        started = time.monotonic()
        for _ in range(self._plan.workers):
            self._fork()
        while self._alive:
            if time.monotonic() - started > self._plan.deadline_s:
                self._give_up()
            for pid, when in list(self._alive.items()):
                if hits > 0 and time.monotonic() > when:
                    self._hit(pid)
            hits -= self._reap()
            time.sleep(0.002)

    def _fork(self) -> None:
        self._forks += 1
        pid = os.fork()
        if pid == 0:
            os._exit(_train(self._plan, self._folder, self._forks))
        # Soon, so that a training is ended in each of its parts, the first ones too, and is not done before all hit.
        self._alive[pid] = time.monotonic() + self._random.choice((0.1, 0.3, 0.6)) * self._random.random()

    def _hit(self, pid: int) -> None:
        number = getattr(signal, self._random.choice(self._plan.signals))
        os.kill(pid, number)
        if number == signal.SIGINT and self._random.random() < 0.5:
            os.kill(pid, number)
        # Once more, as a scheduler does that loses its patience, or because it came before anybody listened.
        self._alive[pid] = time.monotonic() + self._random.choice((0.02, 0.2, 0.5))

    def _reap(self) -> int:
        """Replace those that have ended; how many of these were ended in the middle of a training."""
        met = 0
        for pid in list(self._alive):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._alive[pid]
                code = os.waitstatus_to_exitcode(status)
                self.ends[signal.Signals(-code).name if code < 0 else str(code)] += 1
                met += code in (STOPPED, INTERRUPTED, -signal.SIGKILL)
                if code != 0:
                    self._fork()
        return met

    def _give_up(self) -> None:
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise TimeoutError(f"not done after {self._plan.deadline_s} s: {self.ends}")


def _train(plan: Plan, folder: Path, number: int) -> int:
    """What a worker does; its exit status."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Nothing is seeded by the program, but a run begins with the numbers with which the whole one began.
        random_state.seed(number if list(folder.glob("run/last.pth")) else 0)
        PROGRAMS[plan.kind](folder, plan.epochs)
    except Stopped:
        return STOPPED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:  # noqa: BLE001  # a forked child ends here, whatever happened
        traceback.print_exc()
        return 1
    return 0


def _warm_up() -> None:
    """Import what is imported late, or each fork would."""
    model = Net()
    model.initialize()
    torch.optim.lr_scheduler.ReduceLROnPlateau(model.optimizer)
    importlib.import_module("torch.utils.tensorboard")


def main() -> None:
    # What a child begins with: SIGINT ends it until it listens, those of Slurm do not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for each in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    _warm_up()
    for each in json.loads(sys.argv[1]):
        plan = Plan(**each)
        report: dict[str, Any] = {}
        for name, hits in (("whole", 0), ("storm", plan.hits)):
            folder = Path(plan.folder, name)
            folder.mkdir(parents=True)
            storm = KillStorm(plan, folder)
            storm.run(hits)
            report[name] = storm.ends
        print(json.dumps(report), flush=True)
    # A worker of torch's whose training was killed while it started takes process 1 for its parent, and waits for ever.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    # By the name under which configurations and checkpoints know what is defined here.
    from tests.stress import kill_storm

    kill_storm.main()
