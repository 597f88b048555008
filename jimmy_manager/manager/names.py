"""Misspelt fields: a configuration with ``optm.lr`` would train with the default of ``optim.lr`` and look different."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jimmy_manager.errors import UnknownField

_ALIKE = 0.8


def check_names(config: Mapping[str, Any], defaults: Mapping[str, Any], job: str, path: str = "") -> None:
    """Raise ``UnknownField`` for a field that the defaults do not have, but nearly.

    A new field whose name resembles none beside it is taken as meant, and so is one beside its lookalike.
    """
    for name, value in config.items():
        if name not in defaults:
            near = _nearest(name, tuple(defaults))
            if near and near not in config:
                raise UnknownField(
                    f"unknown field '{path}{name}'; did you mean '{path}{near}'? If both are meant, set strict = False "
                    f"in {job}, or give the new one a default"
                )
        elif isinstance(value, Mapping) and isinstance(below := defaults[name], Mapping) and _is_alike(value, below):
            check_names(value, below, job, f"{path}{name}.")


def _is_alike(value: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    return "_target_" not in value or value["_target_"] == below.get("_target_")


@functools.lru_cache(maxsize=4096)  # asked for each configuration of a sweep
def _nearest(name: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1, cutoff=_ALIKE)), "")
