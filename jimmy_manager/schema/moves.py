"""The three edits of a configuration that a ledger is made of; each is undone exactly by its counterpart.

Three rules make them so: a container that a leaving field empties goes with it and comes back with the field; a field
never enters a container that is there and empty (nor one that is no mapping), because on its way out it would take that
along; a move whose destination is taken does nothing. ``into`` says how many containers, from the outermost, are there
without the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jimmy_manager.errors import ConfigError
from jimmy_manager.keys import canonical
from jimmy_manager.values import MAX_DEPTH, Plain

Path = tuple[str, ...]
Tree = dict[str, Plain]


class _Absent:
    __slots__ = ()


ABSENT: Final = _Absent()


def copy_tree(tree: Mapping[str, object]) -> Tree:
    """Return ``tree``, which holds plain values, with every container copied."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"a configuration is a mapping, not {type(tree).__name__}")
    return {name: copy_value(value, 1) for name, value in tree.items()}


def copy_value(value: object, depth: int = 0) -> Plain:
    """Return the plain ``value`` with every container copied; ConfigError beyond the depth that is ever written."""
    if not isinstance(value, dict | list):
        return value  # type: ignore[return-value]
    if depth >= MAX_DEPTH:
        raise ConfigError(f"a stored configuration is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {name: copy_value(item, depth + 1) for name, item in value.items()}
    return [copy_value(item, depth + 1) for item in value]


def get(tree: Tree, path: Path) -> Plain | _Absent:
    """Return the value at ``path``, or ABSENT.

    >>> get({'optim': {'lr': 0.1}}, ('optim', 'lr'))
    0.1
    """
    place: Plain | _Absent = tree
    for name in path:
        if not isinstance(place, dict):
            return ABSENT
        place = place.get(name, ABSENT)
    return place


def put(tree: Tree, path: Path, value: Plain, into: int = 0) -> bool:
    """Put a copy of ``value`` where ``path`` is absent, and say whether it could enter.

    >>> tree = {'aug': {}}
    >>> put(tree, ('aug', 'flip'), False), put(tree, ('aug', 'flip'), False, into=1), tree
    (False, True, {'aug': {'flip': False}})
    """
    place, missing = tree, len(path) - 1
    for depth, name in enumerate(path[:-1]):
        inner = place.get(name, ABSENT)
        if inner is ABSENT:
            missing = depth
            break
        if not isinstance(inner, dict) or (not inner and depth + 1 != into):
            return False
        place = inner
    if missing < into or (missing == len(path) - 1 and path[-1] in place):
        return False
    for name in path[missing:-1]:
        inner = place[name] = {}
        place = inner
    place[path[-1]] = copy_value(value)
    return True


def take(tree: Tree, path: Path, into: int = 0) -> Plain | _Absent:
    """Take the value at ``path`` out, with the containers that this empties, and return it, or ABSENT.

    >>> tree = {'optim': {'lr': 0.1}, 'seed': 1}
    >>> take(tree, ('optim', 'lr')), tree
    (0.1, {'seed': 1})
    """
    places = [tree]
    for name in path[:-1]:
        inner = places[-1].get(name)
        if not isinstance(inner, dict):
            return ABSENT
        places.append(inner)
    value = places[-1].pop(path[-1], ABSENT)
    if value is ABSENT:
        return ABSENT
    for depth in range(len(path) - 1, into, -1):
        if places[depth]:
            break
        del places[depth - 1][path[depth - 1]]
    return value


def drop_equal(tree: Tree, path: Path, value: Plain, into: int = 0) -> bool:
    """Take the value at ``path`` out where it equals ``value``, and say whether it did.

    >>> tree = {'amp': True}
    >>> drop_equal(tree, ('amp',), 1), drop_equal(tree, ('amp',), True), tree
    (False, True, {})
    """
    there = get(tree, path)
    if isinstance(there, _Absent) or canonical(there) != canonical(value):
        return False
    take(tree, path, into)
    return True


def move(tree: Tree, source: Path, target: Path) -> bool:
    """Move what is at ``source`` to ``target`` where that can be entered, and say whether it did.

    >>> tree = {'lr': 0.1}
    >>> move(tree, ('lr',), ('optim', 'lr')), tree
    (True, {'optim': {'lr': 0.1}})
    """
    value = take(tree, source)
    if isinstance(value, _Absent):
        return False
    if put(tree, target, value):
        return True
    put(tree, source, value)
    return False
