"""The ``NAME=VALUE`` arguments of ``sweep`` and ``process``, and whether the job knows their names.

A misspelt field changes nothing but the key: without this check ``learnign_rate=3`` would train with the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jimmy_manager.config import Config, from_cli
from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.grid import grid
from jimmy_manager.nesting import nest_names

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager


class Fields(NamedTuple):
    """What the arguments set, and those names that were written ``+NAME``, as meant to be new."""

    values: Config
    new: tuple[str, ...]


def read(arguments: Sequence[str]) -> Fields:
    """Read ``NAME=VALUE`` and ``+NAME=VALUE``; anything else is a wrong command line.

    >>> read(['lr=1e-3', '+optim.warmup=5'])
    Fields(values=Config({'lr': 0.001, 'optim': {'warmup': 5}}), new=('optim.warmup',))
    """
    try:
        values = from_cli([each.lstrip("+") for each in arguments])
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    return Fields(values, tuple(each.lstrip("+").partition("=")[0] for each in arguments if each.startswith("+")))


def check(fields: Fields, manager: Manager, choices: str | None = None, *, is_sweep: bool) -> None:
    """Refuse a field that neither the job's defaults nor its choices have, and that its ``get_config`` does not set.

    Nothing is refused where there are no defaults (for a sweep: nor choices), nor with ``strict = False``.
    """
    if not fields.values or manager.strict is False or not (manager.defaults or is_sweep):
        return
    own = {} if manager.choices is None else _loaded(manager._own_choices())
    swept = own if choices is None else _loaded(choices)
    known = reduce(_merged, map(_shape, (manager.defaults, own, swept)))
    if not known:
        return
    known = reduce(_merged, [nest_names({name: None}) for name in fields.new], known)
    if _unknown(fields.values, known) is None:
        return
    points = grid(swept) if is_sweep else ()
    try:
        filled = manager.get_config(points[0] if points else Config())
    except Exception:  # noqa: BLE001  # a hook that needs the fields: it will say itself what it thinks of them
        return
    if (error := _unknown(fields.values, _merged(known, _shape(filled)))) is not None:
        raise click.UsageError(f"{error} (write +NAME=VALUE for a new field)")


def _unknown(fields: Config, known: Mapping[str, Any]) -> UnknownField | None:
    try:
        fields.clone().fill(known, strict=True)
    except UnknownField as error:
        return error
    return None


def _loaded(choices: Any) -> Any:
    if not isinstance(choices, (str, os.PathLike)):
        return choices
    from jimmy_manager import yaml12

    return yaml12.load(choices)


def _shape(choices: Any) -> Any:
    """The fields of a configuration, or of all that choices stand for, as nested mappings; None for a single value.

    >>> _shape({'lr': [0.1, 0.2], 'optim': [{'name': 'sgd'}, {'name': 'adam', 'beta': 0}], 'mixed': [0, {'a': 1}]})
    {'lr': None, 'optim': {'name': None, 'beta': None}, 'mixed': None}
    """
    if isinstance(choices, Mapping):
        return {name: _shape(item) or None for name, item in nest_names(dict(choices)).items()}
    if isinstance(choices, (list, tuple)) and choices and all(isinstance(item, Mapping) for item in choices):
        return reduce(_merged, map(_shape, choices))
    return None


def _merged(one: Any, other: Any) -> Any:
    """The fields of both; what is a single value in one of them may be anything."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return None
    both = {name: _merged(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **both}
