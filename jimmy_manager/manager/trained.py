"""A ready `Manager`: everything is built from the configuration, and a plain loop trains it and resumes exactly.

It asks four things of its collaborators, and nothing else of this module knows how they work: `data` maps split names
to tensors, `batches` yields pairs, `loss` and `metrics` judge an output. Whoever has data that do not fit into memory
overrides `batches`; whoever trains by another rule overrides `train`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jimmy_manager.config import Config
from jimmy_manager.errors import ConfigError
from jimmy_manager.manager.manager import Manager


class TrainedManager(Manager):
    """Train ``config.model`` on ``config.data`` with ``config.optim``, each of them built from its ``_target_``.

    Fields of a configuration::

        data:       {_target_: ..., ...}    -> {'train': (inputs, targets), 'valid': (inputs, targets), ...}
        model:      {_target_: ..., ...}    -> nn.Module
        optim:      {_target_: torch.optim.AdamW, lr: ..., ...}     called with the model's parameters
        scheduler:  {_target_: torch.optim.lr_scheduler...., ...}   optional; one step an epoch, without a metric
        batch_size: 64
        seed:       0                       of the weights, of the order of the samples and of whatever a hook draws

    The preview holds, for each split, ``loss_SPLIT`` and what `metrics` returns, each a mean over samples. Those of
    ``train`` are gathered while the weights change, during the epoch that ended last; the others are evaluations.

    Exact resume covers this loop. A `batches` of one's own resumes exactly if it draws from ``self.generator`` or from
    the random states that the checkpoint holds anyway. On a GPU it is as exact as the operations of the model are.
    """

    state: tuple[str, ...] = ("model", "optimizer", "scheduler", "generator")

    data: Mapping[str, tuple[Tensor, Tensor]]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    generator: SeededGenerator

    def setup(self, config: Config) -> None:
        """Build data, model, optimizer and scheduler on ``self.device``."""
        super().setup(config)
        # Of its own, and on the CPU: the order of the samples then depends on the seed alone, not on how many numbers
        # the model has drawn, and a run trained on a GPU can be loaded where there is none.
        self.generator = SeededGenerator(self.seed(config))
        self.data = {
            name: (inputs.to(self.device), targets.to(self.device))
            for name, (inputs, targets) in self._build("data").items()
        }
        self.model = self._build("model").to(self.device)
        self.optimizer = self._build("optim", self.model.parameters())
        self.scheduler = self._build("scheduler", self.optimizer) if self.config.get("scheduler") else None
        self.train_means: dict[str, float] = {}
        self.state = tuple(name for name in type(self).state if name != "scheduler" or self.scheduler)

    def train(self) -> None:
        """One epoch over the training split."""
        self.model.train()
        means = RunningMeans(self.device)
        for inputs, targets in self.batches("train", shuffle=True):
            output = self.model(inputs)
            loss = self.loss(output, targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            means.add(len(inputs), loss=loss, **self.metrics(output, targets))
        if self.scheduler:
            self.scheduler.step()
        self.train_means = means.read("train")

    @torch.no_grad()
    def eval(self) -> dict[str, float]:
        """Return the means of the last training epoch and those of every other split."""
        self.model.eval()
        record = dict(self.train_means)
        for split in self.data:
            if split == "train":
                continue
            means = RunningMeans(self.device)
            for inputs, targets in self.batches(split):
                output = self.model(inputs)
                means.add(len(inputs), loss=self.loss(output, targets), **self.metrics(output, targets))
            record |= means.read(split)
        return record

    def batches(self, split: str, shuffle: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, ...) and targets (B, ...) of a split once; the last batch may be shorter."""
        inputs, targets = self.data[split]
        size = self.config.get("batch_size", 64)
        if not shuffle:
            yield from zip(inputs.split(size), targets.split(size), strict=True)
            return
        order = torch.randperm(len(inputs), generator=self.generator).to(self.device)  # (N,), one transfer an epoch
        for chosen in order.split(size):
            yield inputs[chosen], targets[chosen]

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return what is minimised, a mean over the batch: cross-entropy of logits (B, C) and classes (B,)."""
        return F.cross_entropy(output, targets)

    def metrics(self, output: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return what else is recorded, each (B,) or a mean over the batch: ``acc``, the share classified rightly."""
        return {"acc": output.argmax(1) == targets}

    def _build(self, field: str, *args: Any) -> Any:
        """Instantiate the ``_target_`` of a field, or say which field is missing."""
        target = self.config.get(field)
        if not isinstance(target, Config) or "_target_" not in target:
            raise ConfigError(
                f"{type(self).__name__} builds {field!r} from its '_target_', but the configuration has"
                f" {field}={target!r}; name a class or function there, e.g. in the defaults"
            )
        return target.instantiate(*args)


class SeededGenerator(torch.Generator):
    """A generator of random numbers on the CPU that a ``state`` may name like a model."""

    # torch.Generator takes its arguments when it is created, so a seed in __init__ alone would be refused there.
    def __new__(cls, seed: int) -> SeededGenerator:
        generator = super().__new__(cls)
        generator.manual_seed(seed % 2**63)  # as `random_state.seed` does: any int will do
        return generator

    def state_dict(self) -> dict[str, Tensor]:
        return {"random": self.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.set_state(state["random"])


class RunningMeans:
    """Means over samples of named values, gathered on the device and read back once."""

    def __init__(self, device: torch.device | str) -> None:
        # A long sum of float32 loses digits; MPS has nothing wider.
        self._dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, count: int, **values: Tensor) -> None:
        """Count a batch of ``count`` samples; each value is (B, ...) or already the mean of the batch."""
        self._count += count
        for name, value in values.items():
            part = value.detach().to(self._dtype).mean() * count
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def read(self, split: str) -> dict[str, float]:
        """Return ``{NAME_SPLIT: mean}``; the one place that waits for the device."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        return {f"{name}_{split}": total / self._count for name, total in zip(self._sums, sums, strict=True)}
