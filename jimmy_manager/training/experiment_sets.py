"""The datasets of an experiment, built from one configuration whose ``set_name`` is switched, or from one for each."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jimmy_manager.datasets.dict_dataset import DictDataset
from jimmy_manager.datasets.jimmy_dataset import JimmyDataset
from jimmy_manager.datasets.multi_thread_loader import MultiThreadLoader
from jimmy_manager.datasets.torch_dataset import TorchDataset
from jimmy_manager.errors import ConfigError
from jimmy_manager.training.call_signature import short_name
from jimmy_manager.training.dynamic_config import DynamicConfig

log = logging.getLogger(__name__)


def check_config(name: str, config: Any) -> None:
    """Raise ``ConfigError`` for what stands where a DynamicConfig should."""
    if isinstance(config, DynamicConfig):
        return
    if config is None:
        raise ConfigError(f"the experiment has no {name}; set {name} = DynamicConfig(MyClass, ...)")
    if isinstance(config, type):
        raise ConfigError(f"{name} is the class {config.__name__}; write DynamicConfig({config.__name__}, ...)")
    raise ConfigError(
        f"{name} is an object of type {type(config).__name__}; give the class and its arguments, not an instance: "
        f"DynamicConfig({type(config).__name__}, ...)"
    )


def build_train_and_eval(shared: Any, train_cfg: Any, eval_cfg: Any) -> tuple[Any, Any]:
    """Return the sets to train and to evaluate on; None for the latter where only ``train_cfg`` is given.

    A set without a configuration of its own comes from ``shared``. A dataset of the older form, which takes no
    ``set_name``, has one set only: the same data, without a copy, then serve for both, which a warning says.
    """
    train_set = build_set("train", train_cfg, shared)
    if eval_cfg is None and shared is None:
        return train_set, None
    if train_cfg is None and eval_cfg is None and not _innermost(shared).takes("set_name"):
        name = short_name(_innermost(shared).cls)
        log.warning("%s takes no 'set_name': evaluation uses the training data; for others set eval_set_cfg", name)
        twin = _twin_in_order(train_set)
        if twin is not None:
            return train_set, twin
    return train_set, build_set("eval", eval_cfg, shared)


def build_set(name: str, own: Any, shared: Any) -> Any:
    """Build the set ``name`` from a configuration of its ``own``, as it is, or else from the ``shared`` one.

    Of the latter, only the set ``'train'`` is shuffled or loses its incomplete last batch.
    """
    if own is None:
        if shared is None:
            own_name = f"{name}_set_cfg"
            raise ConfigError(
                f"the experiment has no {own_name} and no dataset_cfg; set {own_name} = DynamicConfig(MyClass, ...)"
            )
        check_config("dataset_cfg", shared)
        config = shared.clone()
        inner = _innermost(config)
        if inner.cls in (DictDataset, TorchDataset):  # but not their subclasses, which know their sets
            raise ConfigError(
                f"dataset_cfg names {short_name(inner.cls)}, which holds the same data whatever its set_name; give "
                "train_set_cfg and eval_set_cfg, each with data of its own"
            )
        changes = {"set_name": name} | ({} if name == "train" else {"shuffle": False, "drop_last": False})
        inner.add(**{argument: value for argument, value in changes.items() if inner.takes(argument)})
    else:
        check_config(f"{name}_set_cfg", own)
        config = own.clone()
        inner = _innermost(config)
        if inner.takes("set_name") and not hasattr(inner, "set_name"):
            inner.set_name = name
    try:
        return config.build()
    except Exception as error:
        error.add_note(f"this is the {name} set of the experiment, {short_name(inner.cls)}")
        raise


def class_name(dataset: Any) -> str:
    """Return the name of the class of a dataset, without what prefetches its batches."""
    return type(_source(dataset)).__name__


def configured_name(config: Any) -> str | None:
    """Return what `class_name` will be of the dataset that ``config`` builds; None where a function makes it."""
    while isinstance(config, DynamicConfig) and config.cls is MultiThreadLoader:
        config = getattr(config, "dataset", None)
    if isinstance(config, DynamicConfig):
        return config.cls.__name__ if isinstance(config.cls, type) else None
    return class_name(config)


@contextmanager
def in_data_order(dataset: Any) -> Iterator[None]:
    """Let passes over a JimmyDataset hold all samples, in the order of the data; others are left as they are."""
    source = _source(dataset)
    if not isinstance(source, JimmyDataset):
        yield
        return
    before = source.shuffle, source.drop_last
    source.shuffle = source.drop_last = False
    try:
        yield
    finally:
        source.shuffle, source.drop_last = before


def _innermost(config: DynamicConfig) -> DynamicConfig:
    """The configuration of the data, where that of a `MultiThreadLoader` is around it."""
    inner = getattr(config, "dataset", None)
    return _innermost(inner) if isinstance(inner, DynamicConfig) else config


def _source(dataset: Any) -> Any:
    while isinstance(dataset, MultiThreadLoader):
        dataset = dataset.dataset
    return dataset


def _twin_in_order(dataset: Any) -> Any:
    """The same data in a dataset that is not shuffled; None where nobody knows how to make one."""
    if isinstance(dataset, MultiThreadLoader):
        twin = _twin_in_order(dataset.dataset)
        return twin and MultiThreadLoader(twin, dataset.num_workers, dataset.queue_size, device=dataset.device)
    if not isinstance(dataset, JimmyDataset):
        return None
    twin = copy.copy(dataset)
    twin.shuffle = twin.drop_last = False
    return twin
