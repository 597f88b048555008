"""A ready `Manager`: everything is built from the configuration, and a `JimmyTrainer` trains it and resumes exactly."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jimmy_manager.config import Config
from jimmy_manager.datasets import DictDataset, JimmyDataset
from jimmy_manager.errors import CheckpointError, ConfigError, UnknownField
from jimmy_manager.manager.manager import Manager
from jimmy_manager.models import JimmyModel
from jimmy_manager.targets import find_target
from jimmy_manager.training.call_signature import CallSignature, nearest
from jimmy_manager.training.jimmy_trainer import JimmyTrainer, open_log
from jimmy_manager.training.tensorboard_manager import TensorBoardManager

_log = logging.getLogger(__name__)

# What else a trainer takes is the Manager's own business: how long, when to save, where to log.
_TRAINER_FIELDS = ("on_nan", "moving_avg", "early_stop_lr", "scheduler_interval")


_FIELDS = ("data", "model", "optim", "scheduler", "trainer", "batch_size", "seed")
_OTHER_NAMES = {"optimizer": "optim", "lr_scheduler": "scheduler", "dataset": "data", "datasets": "data"}


class TrainedManager(Manager):
    """Train ``config.model`` on ``config.data`` with ``config.optim``, each of them built from its ``_target_``.

    Fields of a configuration::

        data:       {_target_: ..., ...}    a JimmyDataset class, built for each of ``splits``; or a function for
                                            {'train': (inputs, targets), 'valid': (inputs, targets), ...}
        model:      {_target_: ..., ...}    a JimmyModel, which knows its losses; or any nn.Module, see `loss`
        optim:      {_target_: torch.optim.AdamW, lr: ..., ...}     called with the model's parameters
        scheduler:  {_target_: torch.optim.lr_scheduler...., ...}   optional; one step an epoch, else see ``trainer``
        trainer:    {on_nan: skip, ...}     optional: also moving_avg, early_stop_lr and scheduler_interval
        batch_size: 64
        seed:       0                       of the weights, of the order of the samples and of whatever a hook draws

    The preview holds the mean of each loss over the samples, by its name without ``Train/`` or ``Eval/``, in small
    letters and followed by the split; the main loss is called ``loss``: ``Train/Main`` becomes ``loss_train``,
    ``Eval/Acc`` ``acc_valid``. Those of ``train`` are gathered while the weights change, during the epoch that ended
    last; the others are evaluations. The first split after ``train`` is logged for TensorBoard, under ``logs/`` of the
    store, with the configuration as its hyperparameters.

    A stop signal is heeded at the next step: the run is saved in the middle of its epoch and goes on there.

    Started by ``torchrun``, several ranks train one run together: each takes its rows of every batch, and what comes of
    it is what one process makes of the same batches, but for what `ProcessGroup` names.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "eval")
    """For which a JimmyDataset is built; a function names its splits itself."""

    pauses: ClassVar[bool] = True

    data: Mapping[str, Any]
    model: nn.Module
    trainer: JimmyTrainer

    def setup(self, config: Config) -> None:
        """Build data, model, optimizer, scheduler and trainer on ``self.device``."""
        super().setup(config)
        self._check_fields()
        self.data = self._build_data()
        self.model = self._build("model").to(self.device)
        model = self.model if isinstance(self.model, JimmyModel) else Supervised(self.model, self)
        if self.config.get("optim") or model is not self.model:
            optim = self._target("optim").asdict()
            model.optimizer_cls = find_target(optim.pop("_target_"), self.allowed_targets())
            model.optimizer_args = optim
        model.initialize()
        scheduler = self._build("scheduler", model.optimizer) if self.config.get("scheduler") else None
        sets = iter(self.data.values())
        arguments = dict(self.config.get("trainer") or {})
        if unknown := [name for name in arguments if name not in _TRAINER_FIELDS]:
            advice = nearest(unknown[0], _TRAINER_FIELDS) or f"; there are {', '.join(_TRAINER_FIELDS)}"
            raise UnknownField(f"the configuration has trainer.{unknown[0]}, which is no option of the trainer{advice}")
        self._evaluated: tuple[int, dict[str, float]] | None = None
        self.trainer = JimmyTrainer(
            next(sets), next(sets, None), model, scheduler, show_progress=False, stop=self.stop,
            distributed=self._team.place.size > 1, **arguments,
        )  # fmt: skip
        parts = self.trainer.parts | {"model": self.model}
        for name, part in parts.items():
            setattr(self, name, part)
        self.state = tuple(parts)

    def load_ckpt(self) -> None:
        """Load everything; where nothing is to be trained, the rest beside the weights as far as it fits.

        So a model can be fetched whose trainer had another state, as that of an earlier version has.
        """
        whole = self.state
        if not self.is_training:
            self.state = tuple(name for name in whole if name in ("model", "ema"))
        try:
            super().load_ckpt()
        finally:
            self.state, rest = whole, [name for name in whole if name not in self.state]
        for name in rest:
            try:
                getattr(self, name).load_state_dict(self.ckpt.pop(name, {}))
            except (CheckpointError, KeyError, ValueError) as error:
                _log.info("the %s of run %s is not restored: %s", name, self.key, error)
        self.trainer.after_loading()

    def train(self) -> None:
        """One epoch over the training split, or the rest of one that a stop signal has ended."""
        is_told = self.trainer.is_first and self.trainer.tm is None
        if is_told and (place := self.store.logs(self.key)) is not None:
            self.trainer.tm = self._open_log(Path(place))
        if self.trainer.loop.has_ended:
            return  # stopped early: the epochs that are left change nothing
        is_whole = self.trainer.train_epoch()
        self.step = self.trainer.loop.step
        if not is_whole:
            if (group := self.trainer.group) is not None:  # they agreed on it, but one alone may know why
                self.stop.set(next(filter(None, group.gathered(self.stop.reason)), "a stop signal"))
            self.pause()

    def save_ckpt(self) -> None:
        """Save everything; of several ranks, the averages of batch norms that rank 0 has, which is evaluated."""
        if (group := self.trainer.group) is not None:
            group.spread(self.trainer.model.buffers())
        super().save_ckpt()

    def eval(self) -> dict[str, float]:
        """Return the mean losses of the last training epoch and those of every other split."""
        step = self.trainer.loop.step
        if self._evaluated is None or self._evaluated[0] != step:
            self._evaluated = step, self._evaluate()
        return dict(self._evaluated[1])

    def end_run(self, is_done: bool) -> None:
        """Close the log."""
        if hasattr(self, "trainer"):
            self.trainer.close(is_finished=is_done)

    def fetch(self, key: str, device: str | None = None) -> Any:
        """The trained model of ``key`` in eval mode, with the averaged weights where it keeps some."""
        model = super().fetch(key, device)
        if (average := self.trainer.model.ema) is not None:
            average.settle()
        return model

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return what a plain model minimises, a mean over the batch: cross-entropy of logits (B, C), classes (B,)."""
        return F.cross_entropy(output, targets)

    def metrics(self, output: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return what else is recorded of a plain model, each (B,) or a mean: ``acc``, the share classified rightly."""
        return {"acc": (output.argmax(1) == targets).float().mean()}

    def _open_log(self, place: Path) -> TensorBoardManager:
        try:
            log = open_log(place, self.trainer.model, self.trainer.loop.step)
        except ConfigError as error:  # the store can be written; a log that cannot is no reason to fail the run
            _log.warning("%s; the run is trained without a log", error)
            return open_log(None, self.trainer.model, 0)
        log.log_hparams(self.config)
        return log

    def _evaluate(self) -> dict[str, float]:
        averages = self.trainer.averages
        record = self._named("train", averages.epoch()) if averages.samples else {}
        for place, (split, dataset) in enumerate(list(self.data.items())[1:]):
            losses = self.trainer.evaluate(dataset) if place else self.trainer.eval_epoch()
            record |= self._named(split, losses)
        return record

    def _build_data(self) -> dict[str, Any]:
        """Return a dataset for each split, ``train`` first."""
        target, size = self._target("data"), self.config.get("batch_size", 64)
        kind = find_target(target["_target_"], self.allowed_targets())
        sets: dict[str, Any] = {}
        if isinstance(kind, type) and issubclass(kind, JimmyDataset):
            takes = CallSignature(kind).takes
            for split in self.splits:
                is_train = split == "train"
                order = {"shuffle": target.get("shuffle", True)} if is_train else {"shuffle": False, "drop_last": False}
                given = {
                    "set_name": split, "batch_size": target.get("batch_size", size), "device": self.device, **order
                }  # fmt: skip
                sets[split] = target.instantiate(**{name: value for name, value in given.items() if takes(name)})
        else:
            for split, each in target.instantiate().items():
                sets[split] = self._as_dataset(each, size, is_train=split == "train")
        if "train" not in sets:
            raise ConfigError(f"data of {type(self).__name__} has the splits {sorted(sets)}, but no 'train'")
        sets["train"].manual_seed(self.seed(self.config))  # one made before this run may have drawn orders already
        return {"train": sets.pop("train"), **sets}

    def _as_dataset(self, split: Any, size: int, is_train: bool) -> Any:
        if not isinstance(split, tuple):
            return split
        inputs, targets = split
        return DictDataset({"data": inputs.to(self.device), "target": targets.to(self.device)}, size, shuffle=is_train)

    def _named(self, split: str, losses: Mapping[str, float]) -> dict[str, float]:
        """Name losses as the preview does."""
        main = next((name for name in losses if name.endswith("/Main")), next(iter(losses), None))
        named = {"loss" if name == main else _plain(name): value for name, value in losses.items()}
        if len(named) < len(losses):
            raise ConfigError(f"two of the losses {list(losses)} would have one name in the preview, {list(named)}")
        return {f"{name}_{split}": value for name, value in named.items()}

    def _check_fields(self) -> None:
        """Refuse what looks like a field of ours and would be passed over; others are taken for the user's own."""
        if self.strict is False:
            return
        for name in self.config:
            meant = _OTHER_NAMES.get(name) or next(iter(get_close_matches(name, _FIELDS, 1, cutoff=0.8)), name)
            if name not in _FIELDS and meant != name:
                raise UnknownField(
                    f"{type(self).__name__} reads no field {name!r}; did you mean {meant!r}? If it is your own, set "
                    f"strict = False in {type(self).__name__}"
                )

    def _target(self, field: str) -> Config:
        """Return a field that has a ``_target_``, or say which field is missing."""
        target = self.config.get(field)
        if not isinstance(target, Config) or "_target_" not in target:
            raise ConfigError(
                f"{type(self).__name__} builds {field!r} from its '_target_', but the configuration has"
                f" {field}={target!r}; name a class or function there, e.g. in the defaults"
            )
        return target

    def _build(self, field: str, *args: Any) -> Any:
        target = self._target(field)
        kind = find_target(target["_target_"], self.allowed_targets())
        given = {name: value for name, value in target.items() if name != "_target_"}
        signature = CallSignature(functools.partial(kind, *args) if args else kind)
        signature.check(given)
        try:
            return target.instantiate(*args)
        except TypeError as error:
            if (better := signature.explained(error, given)) is not None:
                raise better from error
            raise


class Supervised(JimmyModel):
    """Any module that maps inputs to outputs, trained by the ``loss`` and ``metrics`` of a `TrainedManager`."""

    def __init__(self, module: nn.Module, manager: TrainedManager) -> None:
        super().__init__()
        self.module = module
        self._loss: Callable[[Tensor, Tensor], Tensor] = manager.loss
        self._metrics: Callable[[Tensor, Tensor], dict[str, Tensor]] = manager.metrics
        metrics = self._metric_names(manager.data["train"])
        self.train_loss_names = ["Train/Main", *(f"Train/{name}" for name in metrics)]
        self.eval_loss_names = ["Eval/Main", *(f"Eval/{name}" for name in metrics)]

    def forward(self, data: Tensor) -> Tensor:
        return self.module(data)

    def trainStep(self, data_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        losses = self._judged(data_dict, "Train")
        self.backwardOptimize(losses["Train/Main"])
        return losses, {}

    @torch.no_grad()
    def evalStep(self, data_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self._judged(data_dict, "Eval"), {}

    def _judged(self, data_dict: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
        output, targets = self.module(data_dict["data"]), data_dict["target"]
        with torch.no_grad():
            metrics = {f"{kind}/{name}": each for name, each in self._metrics(output, targets).items()}
        return {f"{kind}/Main": self._loss(output, targets), **metrics}

    def _metric_names(self, dataset: Any) -> list[str]:
        """What `metrics` calls its results, tried on two samples, without a trace in any random state."""
        state = dataset.state_dict()
        with torch.random.fork_rng(), torch.no_grad():
            batch = next(dataset.batches())
            if not {"data", "target"} <= set(batch):
                raise ConfigError(
                    f"{type(self.module).__name__} is trained on batches with 'data' and 'target', but those of "
                    f"{type(dataset).__name__} have {sorted(batch)}; write a JimmyModel with a trainStep for them"
                )
            inputs, targets = batch["data"][:2], batch["target"][:2]
            names = list(self._metrics(self.module.eval()(inputs), targets))
        self.module.train()
        dataset.load_state_dict(state)
        return names


def _plain(name: str) -> str:
    """Return the name of a loss as fields of a preview are called.

    >>> _plain('Eval/Acc'), _plain('Train/Top-5 Acc')
    ('acc', 'top_5_acc')
    """
    return re.sub(r"\W+", "_", name.rpartition("/")[2]).lower()
