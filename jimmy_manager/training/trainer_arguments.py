"""What a trainer must be given; each check says what is wrong, and what to do."""

from __future__ import annotations

import logging
import re
from typing import Any

from torch.optim import Optimizer

from jimmy_manager.errors import ConfigError, DatasetError, HookError
from jimmy_manager.models.jimmy_model import JimmyModel

log = logging.getLogger(__name__)

_TAKEN = ("LR", "Visualization", "epoch", "step", "self")
_GROWS = re.compile(r"acc|accuracy|f1|auc|auroc|precision|recall|iou|miou|psnr|ssim|reward", re.IGNORECASE)
_PROTOCOL = ("n_batches", "batches", "samples_in", "state_dict", "load_state_dict")


def check_counts(**counts: tuple[Any, int]) -> None:
    """Each is a value and the least that it may be."""
    for name, (value, least) in counts.items():
        if type(value) is not int or value < least:
            raise ConfigError(f"{name} is {value!r}; it must be an integer from {least}")


def check_rate(name: str, value: Any) -> None:
    """A learning rate, or 0 for none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"{name} is {value!r}; it must be a number from 0")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_set(name: str, dataset: Any) -> None:
    """A dataset is whatever has the protocol of `JimmyDataset`."""
    # Of the class: an attribute of the instance may be missing for a reason that it tells itself.
    if missing := [each for each in _PROTOCOL if not hasattr(type(dataset), each)]:
        raise DatasetError(
            f"{name} is of type {type(dataset).__name__}, which has no {missing[0]}; make it a JimmyDataset, or wrap a "
            "Dataset or DataLoader of PyTorch: TorchDataset(dataset, batch_size=64)"
        )
    len(dataset)  # says what is wrong with n_samples


def check_eval_set(dataset: Any) -> None:
    """A dataset with something to judge."""
    check_set("eval_set", dataset)
    if not dataset.n_batches:
        raise DatasetError(
            f"eval_set has no batches, of {len(dataset)} samples; give it more, or drop_last=False, or eval_set=None"
        )


def check_train_set(dataset: Any) -> None:
    """A dataset with something to train on."""
    check_set("train_set", dataset)
    if not dataset.n_batches:
        raise DatasetError(
            f"train_set has no batches, of {len(dataset)} samples; give it more, or a smaller batch_size, or "
            "drop_last=False"
        )


def check_loss_names(model: JimmyModel) -> None:
    """Names that are not taken by what is shown and logged beside the losses."""
    if taken := [name for name in (*model.train_loss_names, *model.eval_loss_names) if name in _TAKEN]:
        raise HookError(f"{type(model).__name__} has a loss named {taken[0]!r}, which is taken; rename it")
    for attribute in ("train_loss_names", "eval_loss_names"):
        names = getattr(model, attribute)
        if not names or isinstance(names, str):  # refused by whoever reads the losses
            continue
        has_main = any(name.endswith("/Main") for name in names)
        if not has_main and _GROWS.fullmatch(names[0].rpartition("/")[2]):
            log.warning(
                "%r is taken for the main loss of %s, as the first of %s, so the lowest counts as the best; put a loss "
                "there, or call one .../Main", names[0], type(model).__name__, attribute,
            )  # fmt: skip


def check_pace(scheduler: Any, scheduler_interval: str, n_epochs: int) -> None:
    """A scheduler that counts to a known end, which it would not reach."""
    total = getattr(scheduler, "total_steps", None)
    if scheduler_interval == "epoch" and isinstance(total, int) and total > n_epochs:
        log.warning(
            "%s has total_steps=%d, but is asked once an epoch, %d times in all; if it counts batches, give "
            "scheduler_interval='step'", type(scheduler).__name__, total, n_epochs,
        )  # fmt: skip


def versions(model: JimmyModel) -> list[int]:
    """Return for each weight that can be trained how often it was written; costs no look at the weights."""
    return [weight._version for weight in model.parameters() if weight.requires_grad]


def check_trained(model: JimmyModel, before: list[int]) -> None:
    """A model of which an epoch of steps, since ``before``, has changed something."""
    if versions(model) == before:
        log.warning(
            "no weight of %s has changed in its first epoch; does trainStep call self.backwardOptimize(loss)?",
            type(model).__name__,
        )


def checked_optimizer(model: Any) -> Optimizer:
    """Return the optimizer of a `JimmyModel` that has been initialised."""
    if not isinstance(model, JimmyModel):
        raise HookError(f"model is of type {type(model).__name__}; it must be a JimmyModel")
    if model.optimizer is None:
        raise HookError(f"{type(model).__name__} has no optimizer; call model.initialize() before training it")
    if left := _left_out(model, model.optimizer):
        log.warning(
            "%d weights of %s, %s first, are in no optimizer and stay as they are; make or replace layers before "
            "initialize(), or say that it is meant: requires_grad_(False)", len(left), type(model).__name__, left[0],
        )  # fmt: skip
    return model.optimizer


def _left_out(model: JimmyModel, first: Optimizer) -> list[str]:
    """Return the names of weights that could be trained, and are not."""
    optimizers = [first, *(each for each in model.stateful_attributes().values() if isinstance(each, Optimizer))]
    known = {id(weight) for each in optimizers for group in each.param_groups for weight in group["params"]}
    return [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in known]
