"""Dotted names: a dot in the name of a field always means nesting, wherever the name is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jimmy_manager.errors import ConfigError
from jimmy_manager.values import MAX_DEPTH, join_path, normalize, normalize_text


def split_path(path: object) -> list[str]:
    """Return the names along a dotted path.

    >>> split_path('optim.lr')
    ['optim', 'lr']
    """
    if not isinstance(path, str):
        raise ConfigError(f"field {path!r} is of type {type(path).__name__}; names must be str, write {str(path)!r}")
    names = normalize_text(path).split(".")
    if not all(names):
        raise ConfigError(f"field {path!r} has an empty name; a dot separates the names of nested fields")
    if len(names) > MAX_DEPTH:
        raise ConfigError(f"field {path[:40]!r}... is nested deeper than {MAX_DEPTH} levels")
    return names


def cleaned(value: object, path: str = "") -> Any:
    """Return a normalised copy of ``value`` with every dotted name in its mappings turned into nested mappings.

    >>> cleaned({'optim.lr': 0.1, 'optim': {'betas': (0.9, 0.99)}})
    {'optim': {'lr': 0.1, 'betas': [0.9, 0.99]}}
    """
    plain = normalize(value, path)
    # Nesting may have made it deeper than is allowed.
    return normalize(_nest(plain, path), path) if _needs_nesting(plain) else plain


def nest_names(fields: dict[Any, Any], path: str = "") -> dict[str, Any]:
    """Return ``fields`` with its dotted names turned into nested mappings; the values stay as they are.

    Raises ConfigError where a field is then given twice, because which one counts would depend on their order.

    >>> nest_names({'optim.lr': (1, 2), 'optim': {'name': 'sgd'}})
    {'optim': {'lr': (1, 2), 'name': 'sgd'}}
    """
    nested: dict[str, Any] = {}
    for dotted, value in fields.items():
        branch: Any = value
        for name in reversed(split_path(dotted)):
            branch = {name: branch}
        _merge_once(nested, branch, path)
    return nested


def flattened(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested ``fields`` by dotted path; lists and empty mappings are leaves.

    >>> dict(flattened({'optim': {'lr': 0.1, 'betas': [0.9, 0.99]}, 'extra': {}}))
    {'optim.lr': 0.1, 'optim.betas': [0.9, 0.99], 'extra': {}}
    """
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _needs_nesting(value: object) -> bool:
    """Say whether a name in ``value`` has a dot, or is empty and so to be refused."""
    if isinstance(value, dict):
        for name, item in value.items():
            if "." in name or not name or (isinstance(item, dict | list) and _needs_nesting(item)):
                return True
        return False
    return isinstance(value, list) and any(isinstance(item, dict | list) and _needs_nesting(item) for item in value)


def _nest(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_nest(item, join_path(path, index)) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {name: _nest(item, join_path(path, name)) for name, item in nest_names(value, path).items()}
    return value


def _merge_once(into: dict[str, Any], fields: dict[str, Any], above: str) -> None:
    for name, value in fields.items():
        path = join_path(above, name)
        if name not in into:
            # A copy, because the mapping belongs to the caller and the next name may be merged into it.
            into[name] = dict(value) if isinstance(value, dict) else value
        elif isinstance(into[name], dict) and isinstance(value, dict):
            _merge_once(into[name], value, path)
        else:
            raise ConfigError(f"field {path!r} is given twice; drop one")
