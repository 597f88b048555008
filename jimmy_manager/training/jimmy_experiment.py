"""``JimmyExperiment``: builds datasets, model and scheduler from their configurations, trains and tests."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import UninitializedParameter

from jimmy_manager import random_state
from jimmy_manager.devices import DEVICE
from jimmy_manager.errors import ConfigError, HookError
from jimmy_manager.models.jimmy_model import JimmyModel
from jimmy_manager.models.load_report import LoadReport
from jimmy_manager.state_files import load_state
from jimmy_manager.training.dynamic_config import DynamicConfig
from jimmy_manager.training.evaluation import sample_losses
from jimmy_manager.training.experiment_sets import (
    build_set,
    build_train_and_eval,
    check_config,
    class_name,
    configured_name,
    in_data_order,
)
from jimmy_manager.training.jimmy_trainer import JimmyTrainer
from jimmy_manager.training.process_group import ProcessGroup
from jimmy_manager.training.run_directory import (
    agreed,
    discard_empty,
    held,
    last_in,
    make_directory,
    make_unused,
    named,
)
from jimmy_manager.training.trainer_arguments import check_set
from jimmy_manager.training.trainer_settings import trainer_settings

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)

_CONFIGS = ("dataset_cfg", "train_set_cfg", "eval_set_cfg", "test_set_cfg", "model_cfg", "lr_scheduler_cfg")
_PLACES = ("save_dir", "log_dir")
_ATTRIBUTES = (*_CONFIGS, "comments", "dir_name", "constants", "trainer_type", "load_report")


class JimmyExperiment:
    """One training, described by attributes and started by `start`.

    ::

        exp = JimmyExperiment('a first try', dir_name='baseline')
        exp.dataset_cfg = DynamicConfig(MyDataset, batch_size=64, shuffle=True)
        exp.model_cfg = DynamicConfig(MyModel, optimizer_args={'lr': 1e-3})
        exp.lr_scheduler_cfg = DynamicConfig(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=20)
        exp.constants = {'n_epochs': 20, 'seed': 1}
        trainer = exp.start()
        exp.test(trainer.model).to_csv(trainer.save_dir / 'test.csv')

    Attributes:
        dataset_cfg: of the data. Its ``set_name`` is ``'train'``, ``'eval'`` or ``'test'`` as needed, and the latter
            two are built with ``shuffle`` and ``drop_last`` False. Where its class takes no ``set_name``, in the older
            form, training and evaluation have the same data.
        train_set_cfg, eval_set_cfg, test_set_cfg: in the place of it; each is built as it is.
        model_cfg: of a `JimmyModel`.
        lr_scheduler_cfg: of a scheduler, whose first argument, the optimizer, it is given; None for a constant rate.
        constants: arguments of the trainer, which has defaults for them all, and ``seed``, from which Python, numpy and
            torch are seeded before anything is built. A ``save_dir`` replaces the directory that is made otherwise.
        trainer_type: called with the datasets, the model, the scheduler and the constants.
        load_report: what was loaded of the weights that the last `start` was given.

    Directories are ``Runs/{dataset class}/{model class}/{dir_name}``, by default named after the time. Besides the
    files of the trainer they hold ``comments.txt``, the comment and the configuration, and ``model_arch.txt``. `start`
    changes no other attribute than ``load_report``.

    """

    dataset_cfg: DynamicConfig | None = None
    train_set_cfg: DynamicConfig | None = None
    eval_set_cfg: DynamicConfig | None = None
    test_set_cfg: DynamicConfig | None = None
    model_cfg: DynamicConfig | None = None
    lr_scheduler_cfg: DynamicConfig | None = None
    trainer_type: Any = JimmyTrainer

    def __init__(self, comments: str = "", dir_name: str | None = None) -> None:
        self.comments = comments
        self.dir_name = dir_name
        self.constants: dict[str, Any] = dict(getattr(self, "constants", {}))
        self.load_report: LoadReport | None = None

    def start(self, checkpoint: str | os.PathLike[str] | None = None) -> Any:
        """Build everything, train, and return the trainer.

        ``checkpoint`` is a ``last.pth``, or the directory of one, with which its run goes on, bit by bit and there; or
        a file of weights, such as ``best.pth``, from which a new run begins, see ``load_report``; or ``'auto'``: the
        ``last.pth`` of the directory that ``dir_name`` or ``save_dir`` names, and a new run where there is none. Raises
        ConfigError where the directory of a new run holds one already, or another process trains in it, and for
        ``'auto'`` without such a name; CheckpointError where a directory has no ``last.pth``; and ``Stopped`` after a
        stop signal.
        """
        settings = self._checked()
        group = ProcessGroup.current() if settings.get("distributed") else None
        expected = self._fixed_directory(settings) if checkpoint == "auto" else None
        if expected is not None:
            last = expected / "last.pth"
            is_there = last.is_file() if group is None else group.first_of(last.is_file())
            checkpoint = last if is_there else None
        elif checkpoint is not None and Path(checkpoint).is_dir():
            checkpoint = last_in(Path(checkpoint))
        state = None if checkpoint is None else load_state(checkpoint)
        resumed = Path(checkpoint) if checkpoint is not None and {"loop", "model"} <= set(state or ()) else None
        origin = self._seeded(None if resumed is None else (state or {}).get("origin"))
        train_set, eval_set = build_train_and_eval(self.dataset_cfg, self.train_set_cfg, self.eval_set_cfg)
        model = self._build_model(checkpoint if resumed is None else None)
        scheduler = self._build_scheduler(model)
        kind = f"{class_name(train_set)}/{type(model).__name__}"
        directory = agreed(group, lambda: self._directory(settings, resumed, kind, expected))
        try:
            settings.update({name: directory for name in _PLACES if name in settings and settings[name] is None})
            trainer = self.trainer_type(
                train_set=train_set, eval_set=eval_set, model=model, lr_scheduler=scheduler, **settings
            )
            trainer.origin = origin
            if resumed is not None:
                trainer.load_state_dict(state)
                if trainer.is_finished:
                    reason = "early_stop_lr was reached" if trainer.loop.has_ended else "for more, raise n_epochs"
                    log.warning("%s has ended after %d epochs; %s", resumed, trainer.loop.epoch, reason)
        except BaseException:
            discard_empty(directory)
            raise
        with ExitStack() as until_end:
            agreed(group, lambda: until_end.enter_context(held(directory, is_new=resumed is None)))
            if group is None or group.is_first:
                self._describe(directory, settings, model, checkpoint)
            trainer.start()
        return trainer

    def test(self, model: JimmyModel, test_set: Any = None) -> DataFrame:
        """Return the evaluation losses of each sample: a row a sample, in the order of the data, a column a loss.

        All samples are judged, whatever ``shuffle`` and ``drop_last`` of the set say, by ``testStep``: at once where it
        returns (B,) losses, else as batches of one. By default the set is built from the configuration.
        """
        from pandas import DataFrame, RangeIndex

        if not isinstance(model, JimmyModel):
            raise HookError(f"model is of type {type(model).__name__}; it must be a JimmyModel, e.g. trainer.model")
        if test_set is None:
            test_set = build_set("test", self.test_set_cfg, self.dataset_cfg)
        check_set("test_set", test_set)
        with in_data_order(test_set):
            losses = sample_losses(model, test_set)
        count = len(next(iter(losses.values())))
        return DataFrame(losses, index=RangeIndex(count, name="sample"), dtype=float)

    def _checked(self) -> dict[str, Any]:
        """Return all arguments of the trainer; raise what can be told before anything is built."""
        for name in _CONFIGS:
            if getattr(self, name) is not None:
                check_config(name, getattr(self, name))
        if self.train_set_cfg is None:
            check_config("dataset_cfg", self.dataset_cfg)
        check_config("model_cfg", self.model_cfg)
        if not isinstance(self.constants, Mapping):
            raise ConfigError(f"constants is {self.constants!r}; it must be a dict, e.g. {{'n_epochs': 10}}")
        constants = dict(self.constants)
        seed = constants.pop("seed", None)
        if seed is not None and type(seed) is not int:
            raise ConfigError(f"constants['seed'] is {seed!r}; it must be an integer, or None for no seeding")
        settings = trainer_settings(self.trainer_type, constants)
        self._tell_of_unread((*settings, "seed"))
        return settings

    def _tell_of_unread(self, constants: Collection[str]) -> None:
        """Warn of attributes that were set in vain; a subclass may read others, unless they are nearly one of ours."""
        for name in vars(self):
            if name in _ATTRIBUTES or name.startswith("_") or hasattr(type(self), name):
                continue
            near = get_close_matches(name, _ATTRIBUTES, 1, cutoff=0.8)
            if name in constants:
                advice = f"; {name!r} is a constant: exp.constants[{name!r}]"
            elif near:
                advice = f"; is {near[0]!r} meant?"
            elif type(self) is JimmyExperiment:
                advice = ""
            else:
                continue
            log.warning("nobody reads the attribute %r of the experiment%s", name, advice)

    def _seeded(self, origin: Mapping[str, Any] | None) -> dict[str, Any]:
        """Seed, or draw again from where the run that goes on had its numbers; return that, for who resumes this run.

        Or a set that is drawn or split at random as it is built would be another one, with samples to evaluate on that
        have been trained on.
        """
        seed = self.constants.get("seed")
        if seed is not None:
            if origin is not None and seed != origin["seed"]:
                then = origin["seed"]
                log.warning("the run began with seed %s, not %s: data that are drawn at random differ", then, seed)
            random_state.seed(seed)
        elif origin is not None:
            random_state.restore(origin["random"], "")
        return {"seed": seed, "random": random_state.take()}

    def _build_model(self, weights: str | os.PathLike[str] | None) -> JimmyModel:
        config: Any = self.model_cfg
        model = config.build()
        if not isinstance(model, JimmyModel):
            raise HookError(f"model_cfg builds an object of type {type(model).__name__}; it must be a JimmyModel")
        model.to(DEVICE)
        # Before initialize(), which takes the present weights for the first of their average.
        self.load_report = None if weights is None else model.loadFrom(weights)
        model.initialize()
        return model

    def _build_scheduler(self, model: JimmyModel) -> Any:
        if self.lr_scheduler_cfg is None:
            return None
        config = self.lr_scheduler_cfg.clone()
        config.cls = functools.partial(config.cls, model.optimizer)
        return config.build()

    def _directory(
        self, settings: Mapping[str, Any], resumed: Path | None, kind: str, expected: Path | None
    ) -> Path:
        own = settings.get("save_dir")
        if expected is not None and own is None and expected != Path("Runs", kind, self.dir_name or ""):
            raise ConfigError(
                f"checkpoint='auto' goes on from {expected}, but what was built belongs into Runs/{kind}; give "
                "constants['save_dir']"
            )
        if resumed is not None and (own is None or Path(own).resolve() == resumed.parent.resolve()):
            return resumed.parent
        return make_directory(Path("Runs", kind), self.dir_name) if own is None else make_unused(Path(own))

    def _fixed_directory(self, settings: Mapping[str, Any]) -> Path:
        """Return the directory that every start has, told from the configuration, before anything is built."""
        own = settings.get("save_dir")
        if own is not None:
            return Path(own)
        if self.dir_name is None:
            raise ConfigError("checkpoint='auto' needs a directory that has the same name at each start; give dir_name")
        model_type: Any = getattr(self.model_cfg, "cls", None)
        data = configured_name(self.train_set_cfg or self.dataset_cfg)
        if data is None or not isinstance(model_type, type):
            raise ConfigError(
                "checkpoint='auto' cannot tell the directory where a function makes the dataset or the model; give "
                "constants['save_dir']"
            )
        return named(Path("Runs", data, model_type.__name__), self.dir_name)

    def _describe(
        self, directory: Path, settings: Mapping[str, Any], model: JimmyModel, checkpoint: str | os.PathLike[str] | None
    ) -> None:
        """Write ``comments.txt``, to which a resumed run adds, and ``model_arch.txt``."""
        now = time.strftime("%Y-%m-%d %H:%M:%S %z")
        lines = [self.comments, "", f"started on {now} with torch {torch.__version__} on {DEVICE}"]
        if checkpoint is not None:
            lines.append(f"from {os.fspath(checkpoint)}" + (f": {self.load_report}" if self.load_report else ""))
        lines += [f"{name} = {getattr(self, name)!r}" for name in _CONFIGS if getattr(self, name) is not None]
        constants = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        constants["seed"] = self.constants.get("seed")
        lines += ["constants = {", *(f"    {name!r}: {value!r}," for name, value in constants.items()), "}", ""]
        comments = directory / "comments.txt"
        with comments.open("a", encoding="utf-8") as file:
            file.write(("\n" if file.tell() else "") + "\n".join(lines))
        known = [each for each in model.parameters() if not isinstance(each, UninitializedParameter)]
        lazy = ", and those of lazy modules" if len(known) < len(list(model.parameters())) else ""
        text = f"{model}\n\n{sum(each.numel() for each in known):,} parameters{lazy}\n"
        (directory / "model_arch.txt").write_text(text, encoding="utf-8")
