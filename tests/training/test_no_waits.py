"""Nothing in a training step waits for the device; the trainer does where it reads the losses, and nowhere else."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from jimmy_manager.datasets import DEVICE, DictDataset, JimmyDataset, MultiThreadLoader
from jimmy_manager.models import JimmyModel, SampleCNN
from jimmy_manager.training.jimmy_trainer import JimmyTrainer

N_BATCHES = 7
X = torch.randn(8 * N_BATCHES - 3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
Y = (X.mean((1, 2, 3)) > 0).long()

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# Fused, as JimmyModel chooses by itself for fp16 on a GPU: for others torch's scaler looks at the gradients.
SGD = {"optimizer_cls": torch.optim.SGD, "optimizer_args": {"lr": 0.01, "momentum": 0.9, "fused": True}}

STEPS = {
    "plain": {},
    "clipped": {"clip_grad": 0.1},
    "accumulated": {"accumulate": 3},
    "averaged": {"ema_decay": 0.9},
    "bf16": {"mixed_precision": "bf16"},
    "fp16": {"mixed_precision": "fp16"},
    "everything": {"mixed_precision": "fp16", "clip_grad": 0.1, "accumulate": 3, "ema_decay": 0.9},
}


class Net(JimmyModel):
    def __init__(self, **options):
        super().__init__(**options)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(676, 2))

    def forward(self, x):
        return self.net(x)


class Own(JimmyDataset):
    def __init__(self, x, y):
        super().__init__("train", 8, shuffle=True)
        self.x, self.y, self.n_samples = x, y, len(x)

    def __getitem__(self, idx):
        rows = self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]
        return {"data": self.x[rows], "target": self.y[rows]}


DATA = {
    "dict": lambda x, y: DictDataset({"data": x, "target": y}, 8, shuffle=True),
    "in order": lambda x, y: DictDataset({"data": x, "target": y}, 8),
    "own": Own,
    "threads": lambda x, y: MultiThreadLoader(Own(x, y), num_workers=2, device=x.device),
}


def trainer_of(model: JimmyModel, data: str = "dict", device: object = "cpu", **options) -> JimmyTrainer:
    model.to(device)
    model.initialize()
    train_set = DATA[data](X.to(device), Y.to(device))
    return JimmyTrainer(train_set, DATA["in order"](X.to(device), Y.to(device)), model, show_progress=False, **options)


# ---- On the CPU: every way to read a tensor is counted

METHODS = ("item", "tolist", "cpu", "numpy", "__array__", "__bool__", "__float__", "__int__", "__index__")
OPERATORS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")


class Operators(TorchDispatchMode):
    """Notes the operators that need a value, or whose result has a shape that only the device knows."""

    def __init__(self, waits: list[str]):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        indices = args[1] if name == "index" else ()
        if name in OPERATORS or any(each is not None and each.dtype == torch.bool for each in indices):
            self.waits.append(name)
        return operator(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[list[str]]:
    """The list of what waits inside of this block; a method counts, the operator beneath it then does not."""
    waits: list[str] = []

    def watched(name: str):
        method = getattr(torch.Tensor, name)

        def call(*args, **kwargs):
            before = len(waits)
            value = method(*args, **kwargs)
            waits[before:] = [name]
            return value

        return call

    with pytest.MonkeyPatch.context() as patch, Operators(waits):
        for name in METHODS:
            patch.setattr(torch.Tensor, name, watched(name))
        yield waits


def waits_of_an_epoch(trainer: JimmyTrainer) -> list[str]:
    trainer.train_epoch()  # the first one is free to set things up
    trainer.meter.read_every_s = math.inf  # on a slow machine it would read in between as well
    with counted() as waits:
        trainer.train_epoch()
    return waits


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_a_built_in_step_reads_nothing_and_the_trainer_reads_the_losses_of_an_epoch_at_once(options):
    assert waits_of_an_epoch(trainer_of(Net(**SGD, **options))) == ["tolist"]


def test_the_steps_of_the_sample_cnn_read_nothing_either():
    trainer = trainer_of(SampleCNN(**SGD))
    assert waits_of_an_epoch(trainer) == ["tolist"]
    with counted() as waits:
        trainer.eval_epoch()
    assert waits == ["tolist"]


@pytest.mark.parametrize("data", DATA)
def test_no_dataset_reads_anything(data):
    assert waits_of_an_epoch(trainer_of(Net(**SGD), data)) == ["tolist"]


def test_an_evaluation_reads_once():
    trainer = trainer_of(Net(**SGD, ema_decay=0.9))
    trainer.eval_epoch()
    with counted() as waits:
        trainer.eval_epoch()
    assert waits == ["tolist"]


def test_losses_are_read_each_time_that_so_many_have_gathered():
    trainer = trainer_of(Net(**SGD))
    trainer.meter.read_every = 2
    assert waits_of_an_epoch(trainer) == ["tolist"] * 4


def test_only_a_trainer_that_skips_bad_steps_looks_at_each():
    assert waits_of_an_epoch(trainer_of(Net(**SGD), on_nan="warn")) == ["tolist"]
    assert len(waits_of_an_epoch(trainer_of(Net(**SGD), on_nan="skip"))) > N_BATCHES


def test_without_a_fused_optimizer_the_scaler_of_fp16_looks_at_each_step():
    model = Net(optimizer_cls=torch.optim.SGD, optimizer_args={"lr": 0.01}, mixed_precision="fp16")
    assert waits_of_an_epoch(trainer_of(model)) == ["item"] * N_BATCHES + ["tolist"]


# Steps that wait, as anybody might write them: each has to be caught, or the tests above say nothing.
WAITING = {
    "item": lambda loss, output: loss.item(),
    "float": lambda loss, output: float(loss),
    "if": lambda loss, output: 1 if loss > 0 else 2,
    "int": lambda loss, output: int(output.argmax()),
    "cpu": lambda loss, output: loss.cpu(),
    "numpy": lambda loss, output: loss.detach().numpy(),
    "list": lambda loss, output: output.tolist(),
    "mask": lambda loss, output: output[output > 0].sum(),
    "nonzero": lambda loss, output: torch.nonzero(output).sum(),
    "unique": lambda loss, output: output.unique().sum(),
    "equal": lambda loss, output: torch.equal(output, output + 1),
}


def waiting(look, **options) -> JimmyModel:
    class Waiting(Net):
        def trainStep(self, data_dict):
            losses, outputs = super().trainStep(data_dict)
            look(losses["Train/Main"], outputs["output"])
            return losses, outputs

    return Waiting(**options)


@pytest.mark.parametrize("look", WAITING.values(), ids=WAITING)
def test_a_step_that_waits_is_caught(look):
    waits = waits_of_an_epoch(trainer_of(waiting(look, **SGD)))
    assert len(waits) == N_BATCHES + 1


# ---- On a GPU: torch raises where the host waits for it


def train_without_waits(trainer: JimmyTrainer) -> None:
    """Train an epoch in which nothing but the read-out of the losses may wait for the GPU."""
    trainer.train_epoch()  # the first one is free to set things up
    read = trainer.meter.read

    def reading_allowed():
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read()
        finally:
            torch.cuda.set_sync_debug_mode("error")

    trainer.meter.read = reading_allowed
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_no_built_in_step_waits_for_the_gpu(options):
    train_without_waits(trainer_of(Net(**options), device=DEVICE))


@needs_gpu
@pytest.mark.parametrize("data", ["dict", "in order", "own"])
def test_no_dataset_waits_for_the_gpu(data):
    train_without_waits(trainer_of(Net(), data, DEVICE))


@needs_gpu
@pytest.mark.parametrize("look", [WAITING[name] for name in ("item", "if", "mask", "nonzero")])
def test_a_step_that_waits_for_the_gpu_is_caught(look):
    with pytest.raises(RuntimeError, match="synchroniz"):
        train_without_waits(trainer_of(waiting(look), device=DEVICE))
