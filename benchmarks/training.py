"""What a training step costs beside a hand-written PyTorch loop, and a batch beside indexing: measured in one run.

    python benchmarks/training.py [--quick] [--rounds N]

Everybody trains the same network from the same weights with Adam on the same batches of 64 in the same order, on one
thread, and adds up the loss on the device to read it at the end of each epoch. That all end at the same loss is
checked in every round, so nobody is measured at less work. The rounds are alternated, each in another order; of a run
counts what lies between the first forward pass and the last one, an end of an epoch included, set-up not.

Each line gives median, p90, p99 and maximum of the single steps of all rounds, from one forward pass to the next. The
ratio is that of the mean step of a run to that of the bare loop in the same round: its median over the rounds, its
quartiles, and the median of the same ratio by the CPU time of the process, which neighbours disturb less.

Lightning runs in its ``barebones`` mode, and JimmyTrainer as anybody has it who switches the display off; one line has
it with the table on a terminal, which is only imitated, and TensorBoard. What the peers lose in torch's DataLoader and
what in their own loop is told apart by lines that feed them the very batches of the bare loop.

Passes over data in memory are timed without any training, on rows like those of MNIST and on rows so short that there
is next to nothing to copy. The aim is not about these: there a dictionary and a function call alone cost 5 %.

It cannot show what a slow terminal, disk or network costs, nor what loaders with worker processes gain where a sample
must be decoded first; the larger the model, the closer is every ratio to 1. Look at the quartiles before believing a
ratio on a machine that others use.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import math
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from jimmy_manager.datasets import DictDataset, JimmyDataset, MultiThreadLoader
from jimmy_manager.models import JimmyModel
from jimmy_manager.training.jimmy_trainer import JimmyTrainer

BATCH = 64
EPOCHS = 2
SHORT = 16
SEED = 1
INSTALL = "pip install -e '.[bench]'"

Note = Callable[[], None]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """What all train: ``layers()`` on the rows of ``x`` (N, ...) and their classes ``y`` (N,), N a multiple of 64."""

    name: str
    layers: Callable[[], nn.Module]
    x: Tensor
    y: Tensor

    @property
    def n_batches(self) -> int:
        return len(self.x) // BATCH

    def to(self, device: str) -> Task:
        return replace(self, name=f"{self.name}, {device}", x=self.x.to(device), y=self.y.to(device))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(16 * 49, 10))


def data_of(count: int, *shape: int) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(count, *shape, generator=draw), torch.randint(0, 10, (count,), generator=draw)


# How batches come


class Indexed:
    """Passes over batches as a hand-written loop makes them; with ``as_rows``, over the numbers of the rows alone."""

    def __init__(self, x: Tensor, y: Tensor, as_rows: bool = False) -> None:
        self._x, self._y, self._as_rows = x, y, as_rows
        self._draw = torch.Generator().manual_seed(SEED)

    def __len__(self) -> int:
        return len(self._x) if self._as_rows else len(self._x) // BATCH

    def __iter__(self) -> Iterator[Any]:
        # Drawn when the first batch is asked for: Lightning makes an iterator that it never uses.
        order = torch.randperm(len(self._x), generator=self._draw)
        if self._as_rows:
            yield from order.tolist()
            return
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            yield self._x[rows], self._y[rows]


def loader_of(x: Tensor, y: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), BATCH, sampler=Indexed(x, y, as_rows=True))


class Own(JimmyDataset):
    """A dataset as its users write one."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__("train", BATCH, shuffle=True)
        self.x, self.y, self.n_samples = x, y, len(x)

    def __getitem__(self, idx: int) -> dict[str, Tensor]:
        rows = self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]
        return {"data": self.x[rows], "target": self.y[rows]}


def own_set(x: Tensor, y: Tensor) -> JimmyDataset:
    return Own(x, y).manual_seed(SEED)


def dict_set(x: Tensor, y: Tensor) -> JimmyDataset:
    return DictDataset({"data": x, "target": y}, BATCH, shuffle=True).manual_seed(SEED)


# Who trains. Each calls ``note`` in every forward pass and returns the mean loss of the last epoch.


class Network(nn.Module):
    """The network of the bare loop and of accelerate."""

    def __init__(self, task: Task, note: Note) -> None:
        super().__init__()
        self.layers, self.note = task.layers(), note
        self.to(task.x.device)

    def forward(self, x: Tensor) -> Tensor:
        self.note()
        return self.layers(x)


class Model(JimmyModel):
    """The same network with the steps that every `JimmyModel` has."""

    def __init__(self, task: Task, note: Note, **options: Any) -> None:
        super().__init__(**options)
        self.layers, self.note = task.layers(), note
        self.to(task.x.device)
        self.initialize()

    def forward(self, x: Tensor) -> Tensor:
        self.note()
        return self.layers(x)


def bare(task: Task, note: Note) -> float:
    model, criterion = Network(task, note), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    draw, mean = torch.Generator().manual_seed(SEED), math.nan
    x, y = task.x, task.y
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=draw).to(x.device)
        total = torch.zeros((), device=x.device)
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            data, target = x[rows], y[rows]
            optimizer.zero_grad()
            loss = criterion(model(data), target)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        mean = total.item() / task.n_batches
    return mean


def bare_with_loader(task: Task, note: Note) -> float:
    model = Network(task, note)
    return loop_over(loader_of(task.x, task.y), model, torch.optim.Adam(model.parameters()), Tensor.backward)


def loop_over(batches: Any, model: nn.Module, optimizer: Any, backward: Callable[[Tensor], None]) -> float:
    criterion, mean = nn.CrossEntropyLoss(), math.nan
    for _ in range(EPOCHS):
        total = torch.zeros(())
        for data, target in batches:
            optimizer.zero_grad()
            loss = criterion(model(data), target)
            backward(loss)
            optimizer.step()
            total += loss.detach()
        mean = total.item() / len(batches)
    return mean


def jimmy(task: Task, note: Note, data: Callable[[Tensor, Tensor], Any], **options: Any) -> float:
    arguments = {"n_epochs": EPOCHS, "show_progress": False} | options
    trainer = JimmyTrainer(data(task.x, task.y), None, Model(task, note), **arguments)
    trainer.start()
    return trainer.averages.epoch()["Train/Main"]


class ImitatedTerminal(io.StringIO):
    """Takes what would be drawn."""

    def isatty(self) -> bool:
        return True


def jimmy_shown(task: Task, note: Note) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="jimmy-bench-") as folder,
        contextlib.redirect_stderr(ImitatedTerminal()),
        mock.patch.dict(os.environ, TERM="xterm-256color", COLUMNS="120", LINES="40"),
    ):
        return jimmy(task, note, own_set, log_dir=folder, show_progress=True)


def accelerated(task: Task, note: Note, feed: Callable[[Tensor, Tensor], Any]) -> float:
    from accelerate import Accelerator

    accelerator, model, batches = Accelerator(cpu=True), Network(task, note), feed(task.x, task.y)
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    if isinstance(batches, DataLoader):
        batches = accelerator.prepare(batches)
    return loop_over(batches, model, optimizer, accelerator.backward)


def lightning(task: Task, note: Note, feed: Callable[[Tensor, Tensor], Any]) -> float:
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.note, self.criterion = task.layers(), note, nn.CrossEntropyLoss()
            self.total, self.mean = torch.zeros(()), math.nan

        def forward(self, x: Tensor) -> Tensor:
            self.note()
            return self.layers(x)

        def training_step(self, batch: Batch, number: int) -> Tensor:
            loss = self.criterion(self(batch[0]), batch[1])
            self.total.add_(loss.detach())
            return loss

        def on_train_epoch_end(self) -> None:
            self.mean = self.total.item() / task.n_batches
            self.total.zero_()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        module = Module()
        trainer = Trainer(barebones=True, max_epochs=EPOCHS, accelerator="cpu", devices=1)
        trainer.fit(module, feed(task.x, task.y))
    return module.mean


def contestants() -> dict[str, Callable[[Task, Note], float]]:
    """Everybody who can run here, by the name of the line, the bare loop first."""
    found: dict[str, Callable[[Task, Note], float]] = {
        "bare loop": bare,
        "JimmyTrainer, own JimmyDataset": partial(jimmy, data=own_set),
        "JimmyTrainer, DictDataset": partial(jimmy, data=dict_set),
        "JimmyTrainer, table and TensorBoard": jimmy_shown,
        "bare loop, DataLoader": bare_with_loader,
    }
    for name, run in (("Lightning", lightning), ("accelerate", accelerated)):
        if find_spec(name.lower()) is None:
            print(f"{name} is not installed and not compared: {INSTALL}")
            continue
        found[f"{name}, the bare loop's batches"] = partial(run, feed=Indexed)
        found[f"{name}, DataLoader"] = partial(run, feed=loader_of)
    return found


# Measuring


class Times:
    """What one side took: ``single`` steps, and for each round a mean one, ``wall`` and ``cpu``; all in seconds."""

    def __init__(self) -> None:
        self.single: list[float] = []
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def add(self, stopwatch: Stopwatch) -> None:
        moments, steps = stopwatch.moments, len(stopwatch.moments) - 1
        self.single += [after - before for before, after in itertools.pairwise(moments)]
        self.wall.append((moments[-1] - moments[0]) / steps)
        self.cpu.append((stopwatch.cpu[-1] - stopwatch.cpu[0]) / steps)

    def shown(self) -> str:
        """Median, p90, p99 and maximum of the single steps in microseconds, by nearest rank."""
        ordered = sorted(self.single)
        values = [ordered[math.ceil(share * len(ordered)) - 1] * 1e6 for share in (0.5, 0.9, 0.99, 1)]
        return " ".join(f"{value:7.1f}" if value < 10_000 else f"{value:7.0f}" for value in values)

    def beside(self, floor: Times) -> str:
        """The median over the rounds of the ratio to ``floor``, its quartiles, and the median by CPU time."""
        ratios = [ours / theirs for ours, theirs in zip(self.wall, floor.wall, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        by_cpu = statistics.median(ours / theirs for ours, theirs in zip(self.cpu, floor.cpu, strict=True))
        return f"{middle:6.3f}x {low:6.3f} {high:6.3f}  {by_cpu:6.3f}x"


class Stopwatch:
    """Notes the moments of ``count`` steps, and the CPU time of the first and the last: to ask for it takes longer."""

    def __init__(self, count: int) -> None:
        self.moments: list[float] = []
        self.cpu: list[float] = []
        self._ends = (1, count)

    def note(self) -> None:
        self.moments.append(time.perf_counter())
        if len(self.moments) in self._ends:
            self.cpu.append(time.process_time())


def race(task: Task, runs: dict[str, Callable[[Task, Note], float]], rounds: int, tolerance: float = 1e-5) -> None:
    """Let all train by turns, see that they end at the same loss, and print a line for each; the first is the floor."""
    steps = EPOCHS * task.n_batches
    print(f"\n{task.name}: {rounds} rounds of {steps} steps\n{HEAD}", flush=True)
    times = {name: Times() for name in runs}
    floor, draw = next(iter(runs)), random.Random(0)
    for number in range(-1, rounds):  # one that does not count, for what is imported or allocated only once
        losses = {}
        for name in draw.sample(list(runs), len(runs)):
            stopwatch = Stopwatch(steps)
            losses[name] = runs[name](task, stopwatch.note)
            assert len(stopwatch.moments) == steps, f"{name} made {len(stopwatch.moments)} steps of {steps}"
            if number >= 0:
                times[name].add(stopwatch)
        far = {name: loss for name, loss in losses.items() if not math.isclose(loss, losses[floor], rel_tol=tolerance)}
        assert not far, f"the loss of the {floor} is {losses[floor]}, but that of {far}"
    for name, each in times.items():
        aim = "<= 1.03x" if name.startswith("JimmyTrainer") and "table" not in name else ""
        print(f"{name:36} {each.shown()}  {each.beside(times[floor])}  {aim}".rstrip(), flush=True)


HEAD = f"{'':36} {'us: median, p90, p99, max':^31}  {'ratio, quartiles, by CPU':^30}  aim"


def indexing(x: Tensor, y: Tensor, draw: torch.Generator, note: Note) -> None:
    order = torch.randperm(len(x), generator=draw)
    for start in range(0, len(x), BATCH):
        rows = order[start : start + BATCH]
        data, target = x[rows], y[rows]  # noqa: F841  a step would use them, and lets go of them when it has the next
        note()


def iterating(batches: Iterable[Any], note: Note) -> None:
    for batch in batches:  # noqa: B007  the same
        note()


def reading(count: int, width: int, rounds: int) -> None:
    """Passes over shuffled batches in memory, and no training."""
    x, y = data_of(count, width)
    sides: dict[str, Callable[[Note], None]] = {
        INDEXING: partial(indexing, x, y, torch.Generator().manual_seed(SEED)),
        "JimmyDataset": partial(iterating, own_set(x, y)),
        "DictDataset": partial(iterating, dict_set(x, y)),
        "MultiThreadLoader of a JimmyDataset": partial(iterating, MultiThreadLoader(own_set(x, y), device="cpu")),
        LOADER: partial(iterating, loader_of(x, y)),
    }
    print(f"\n{count} rows of {width} floats in batches of {BATCH}: {rounds} passes\n{READING_HEAD}", flush=True)
    times, draw = {name: Times() for name in sides}, random.Random(0)
    for number in range(-1, rounds):
        for name in draw.sample(list(sides), len(sides)):
            stopwatch = Stopwatch(count // BATCH + 1)
            stopwatch.note()
            sides[name](stopwatch.note)
            assert len(stopwatch.moments) == count // BATCH + 1, f"{name} gave {len(stopwatch.moments) - 1} batches"
            if number >= 0:
                times[name].add(stopwatch)
    for name, each in times.items():
        rate = BATCH / statistics.median(each.wall) / 1e3
        speeds = "  ".join(speed(each, times[other]) for other in (INDEXING, LOADER))
        aim = ">= 0.95x, >= 2.5x" if name == "JimmyDataset" and width > SHORT else ""
        print(f"{name:36} {each.shown()}  {rate:9.0f}  {speeds}  {aim}".rstrip(), flush=True)


INDEXING, LOADER = "direct indexing, x[idx]", "DataLoader(TensorDataset)"
READING_HEAD = (
    f"{'':36} {'us: median, p90, p99, max':^31}  {'k rows/s':>9}  {'x[idx], by CPU':>17}  {'loader, by CPU':>17}  aim"
)


def speed(ours: Times, other: Times) -> str:
    """How many times as many samples a second as ``other``: the median over the rounds, by the clock and by CPU."""
    by_clock = statistics.median(b / a for a, b in zip(ours.wall, other.wall, strict=True))
    by_cpu = statistics.median(b / a for a, b in zip(ours.cpu, other.cpu, strict=True))
    return f"{by_clock:7.3f}x {by_cpu:7.3f}x"


# On a GPU

STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_grad": 1.0},
    "accumulated": {"accumulate": 3},
    "averaged weights": {"ema_decay": 0.99},
    "bf16": {"mixed_precision": "bf16"},
    "fp16, clipped": {"mixed_precision": "fp16", "clip_grad": 1.0},
}


def waits_for_the_gpu(task: Task) -> None:
    """Raise where an epoch of a built-in step waits for the GPU other than to read the losses at its end."""
    for name, options in STEPS.items():
        model = Model(task, lambda: None, **options)
        trainer = JimmyTrainer(dict_set(task.x, task.y), None, model, show_progress=False)
        trainer.train_epoch()
        read = trainer.meter.read

        def reading_allowed(read: Callable[[], Any] = read) -> Any:
            torch.cuda.set_sync_debug_mode("default")
            try:
                return read()
            finally:
                torch.cuda.set_sync_debug_mode("error")

        with mock.patch.object(trainer.meter, "read", reading_allowed):
            torch.cuda.set_sync_debug_mode("error")
            try:
                trainer.train_epoch()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        print(f"no step waits for the GPU: {name}", flush=True)


def on_gpu(tasks: Iterable[Task], rounds: int) -> None:
    if not torch.cuda.is_available():
        print("\nno GPU here: not shown are the times of steps on one, and whether any step waits for it")
        return
    print(f"\non {torch.cuda.get_device_name()}, as the host sees it; it waits for the GPU at the end of each epoch")
    ours = {"own JimmyDataset": own_set, "DictDataset": dict_set}
    runs = {"bare loop": bare} | {f"JimmyTrainer, {name}": partial(jimmy, data=data) for name, data in ours.items()}
    for task in tasks:
        race(task.to("cuda"), runs, rounds, tolerance=1e-2)
        waits_for_the_gpu(task.to("cuda"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little work, to see that it runs")
    parser.add_argument("--rounds", type=int, help="default: 17, with --quick 2; two at least")
    arguments = parser.parse_args()
    rounds = max(2, arguments.rounds or (2 if arguments.quick else 17))
    scale = 10 if arguments.quick else 1
    torch.set_num_threads(1)
    tasks = [
        Task("MLP 784-128-10, batch 64", mlp, *data_of(100 // scale * BATCH, 784)),
        Task("small CNN, 1-8-16 channels, batch 64", small_cnn, *data_of(50 // scale * BATCH, 1, 28, 28)),
    ]
    runs = contestants()
    for task in tasks:
        race(task, runs, rounds)
    reading(60_000 // scale // BATCH * BATCH, 784, rounds)
    reading(60_000 // scale // BATCH * BATCH, SHORT, rounds)
    on_gpu(tasks, rounds)


if __name__ == "__main__":
    main()
