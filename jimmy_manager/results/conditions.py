"""What a filter is once it was read: a tree of conditions, each of which says of a flat row whether it holds.

``masks`` evaluates the same tree over whole columns. Every comparison with a missing field is false, ``!=`` and
``not in`` too; between unlike types only these two hold. ``True`` is not ``1``, ``1`` is ``1.0``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from jimmy_manager.archives.columns import LACKS

Row = Mapping[str, object]
Tree: TypeAlias = "Chain | Is | Passes | Not | Every | Some | Callable[[Row], bool]"

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Field(NamedTuple):
    """In the place of a value: what the row has under this name."""

    name: str


class Chain(NamedTuple):
    """``values[0] signs[0] values[1] signs[1] values[2]``, as in Python."""

    values: tuple[object, ...]
    signs: tuple[str, ...]

    def pairs(self) -> Iterable[tuple[object, str, object]]:
        """The comparisons of two values each that must all hold."""
        return zip(self.values, self.signs, self.values[1:], strict=False)

    def __call__(self, row: Row) -> bool:
        return all(compare(_look(row, left), sign, _look(row, right)) for left, sign, right in self.pairs())


class Is(NamedTuple):
    """The field is there and neither empty, zero, false nor none."""

    field: str

    def __call__(self, row: Row) -> bool:
        return bool(row.get(self.field))


class Passes(NamedTuple):
    """The field is there, and the user's function says yes to its value."""

    field: str
    function: Callable[[Any], object]

    def __call__(self, row: Row) -> bool:
        return self.field in row and bool(self.function(row[self.field]))


class Not(NamedTuple):
    """The condition does not hold."""

    part: Tree

    def __call__(self, row: Row) -> bool:
        return not self.part(row)


class Every(NamedTuple):
    """All conditions hold."""

    parts: tuple[Tree, ...]

    def __call__(self, row: Row) -> bool:
        return all(part(row) for part in self.parts)


class Some(NamedTuple):
    """At least one of the conditions holds."""

    parts: tuple[Tree, ...]

    def __call__(self, row: Row) -> bool:
        return any(part(row) for part in self.parts)


def of_mapping(wanted: Mapping[str, Any]) -> Every:
    """The condition that each dotted name has the value given for it, or one of a list of them, or one that passes.

    >>> of_mapping({"lr": [0.1, 0.2], "seed": lambda seed: seed < 3})({"lr": 0.2, "seed": 0})
    True
    """
    return Every(tuple(_of_one(name, value) for name, value in wanted.items()))


def _of_one(name: str, wanted: Any) -> Tree:
    if callable(wanted):
        return Passes(name, wanted)
    choices = [_plain(wanted)]
    if isinstance(choices[0], list):  # a field that holds the very list, too
        choices += choices[0]
    return Some(tuple(Chain((Field(name), choice), ("==",)) for choice in choices))


def _plain(value: Any) -> Any:
    """``value`` with what numpy and pandas make of numbers and lists turned back; without importing them."""
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [_plain(item) for item in value]
    # An array gives a list, a scalar of numpy Python's own, a Series or an Index a list.
    return value.tolist() if hasattr(value, "tolist") else value


def compare(left: object, sign: str, right: object) -> bool:
    """Whether ``left sign right`` holds; ``LACKS`` stands for what a run does not have."""
    if left is LACKS or right is LACKS:
        return False
    if sign in ("==", "!="):
        return equal(left, right) == (sign == "==")
    if sign in ("in", "not in"):
        return _holds(right, left) == (sign == "in")
    if _kind(left) != _kind(right) or _kind(left) not in (float, str):
        return False
    return _ORDER[sign](left, right)


def _look(row: Row, value: object) -> object:
    return row.get(value.name, LACKS) if isinstance(value, Field) else value


def equal(left: object, right: object) -> bool:
    """Whether two values are one, as for keys: ``1`` and ``1.0`` are, ``1`` and ``True`` are not, however deep."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return _kind(left) == _kind(right) and left == right


def _holds(container: object, value: object) -> bool:
    if isinstance(container, list | tuple):
        return any(equal(value, item) for item in container)
    return isinstance(container, str) and isinstance(value, str) and value in container


def _kind(value: object) -> type:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float
    return str if isinstance(value, str) else type(value)
