"""Loading the weights that fit, and saying which did not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jimmy_manager.errors import CheckpointError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight: ``skipped`` says why, ``missing`` are those of the model that kept their values."""

    loaded: tuple[str, ...]
    skipped: Mapping[str, str]
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every weight of the model was loaded and nothing was left over."""
        return not self.skipped and not self.missing

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded, {len(self.skipped)} skipped, {len(self.missing)} missing"]
        lines += [f"skipped {name}: {why}" for name, why in self.skipped.items()]
        lines += [f"missing {name}" for name in self.missing]
        return "\n  ".join(lines)


def load_matching(model: nn.Module, weights: Mapping[str, Any], source: str) -> LoadReport:
    """Load every weight whose name and shape fit; raise ``CheckpointError`` where none does."""
    own = model.state_dict()
    skipped = {name: why for name, value in weights.items() if (why := _misfit(own.get(name), value))}
    fitting = {name: value for name, value in weights.items() if name not in skipped}
    if not fitting and own:
        raise CheckpointError(
            f"nothing in {source!r} fits {type(model).__name__}: it has {_some(weights)}, the model {_some(own)}; "
            "build the model with the arguments that it was trained with"
        )
    model.load_state_dict(fitting, strict=False)
    report = LoadReport(tuple(fitting), skipped, tuple(name for name in own if name not in fitting))
    log.log(logging.INFO if report.is_complete else logging.WARNING, "weights from %s: %s", source, report)
    return report


def _misfit(own: Tensor | None, value: Any) -> str:
    if own is None:
        return "the model has no such weight"
    if not isinstance(value, torch.Tensor):
        return f"it is {type(value).__name__}, not a tensor"
    if own.shape != value.shape:
        return f"its shape is {tuple(value.shape)}, the model's {tuple(own.shape)}"
    return ""


def _some(names: Mapping[str, Any]) -> str:
    first = ", ".join(map(str, list(names)[:3]))
    return f"{first}, ... ({len(names)} in all)" if len(names) > 3 else first or "nothing"
