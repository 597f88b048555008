"""The constants of an experiment: what its trainer takes, with a value for each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.training.call_signature import nearest, short_name

# For trainers that have no defaults of their own.
_DEFAULTS = {
    "n_epochs": 100,
    "moving_avg": 100,
    "eval_interval": 1,
    "early_stop_lr": 0.0,
    "save_dir": None,
    "log_dir": None,
}
_GIVEN_BY_EXPERIMENT = ("self", "train_set", "eval_set", "model", "lr_scheduler")
_EMPTY = inspect.Parameter.empty


def trainer_settings(trainer_type: Any, constants: Mapping[str, Any]) -> dict[str, Any]:
    """Return every argument of ``trainer_type`` but datasets, model and scheduler: from ``constants``, or its default.

    Raises UnknownField, which suggests the nearest name, for a constant that it does not take, and ConfigError for one
    that it lacks.
    """
    settings = {name: value for name, value in _arguments(trainer_type).items() if name not in _GIVEN_BY_EXPERIMENT}
    for name, value in constants.items():
        if name not in settings:
            names = ", ".join([*settings, "seed"])
            advice = nearest(str(name), [*settings, "seed"]) or f"; there are: {names}"
            raise UnknownField(f"constants has {name!r}, which {short_name(trainer_type)} does not take{advice}")
        settings[name] = value
    for name, value in settings.items():
        if value is _EMPTY:
            if name not in _DEFAULTS:
                raise ConfigError(f"{short_name(trainer_type)} needs {name!r}; set constants[{name!r}]")
            settings[name] = _DEFAULTS[name]
    return settings


def _arguments(target: Any) -> dict[str, Any]:
    """Return the defaults of all arguments, also of those that ``**kwargs`` hands on to the class above."""
    found: dict[str, Any] = {}
    for each in target.__mro__[:-1] if isinstance(target, type) else (target,):
        parameters = inspect.signature(each).parameters.values()
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                found.setdefault(one.name, one.default)
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return found
