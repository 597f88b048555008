"""Filters over whole columns: what ``conditions`` says run by run, for all runs at once.

Where an array of numpy compares as Python does, it compares; all else goes by the same function as the rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jimmy_manager.archives.columns import LACKS
from jimmy_manager.results.column import EXACT, Array, Column
from jimmy_manager.results.conditions import Chain, Every, Field, Is, Not, Passes, Some, Tree, compare

if TYPE_CHECKING:
    from jimmy_manager.results.runs import Runs

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}


def mask(tree: Tree, runs: Runs) -> Array:
    """Of which ``runs`` ``tree`` holds."""
    match tree:
        case Not():
            return ~mask(tree.part, runs)
        case Every():
            return _all(tree.parts, runs)
        case Some():
            return ~_all(tuple(map(Not, tree.parts)), runs)
        case Is():
            return _each(runs, tree.field, bool)
        case Passes():
            return _each(runs, tree.field, tree.function)
        case Chain():
            found = np.ones(len(runs), dtype=bool)
            for left, sign, right in tree.pairs():
                found &= _compared(runs, left, sign, right)
            return found
    return np.fromiter((bool(tree(row)) for row in runs.rows()), bool, len(runs))


def _all(parts: tuple[Any, ...], runs: Runs) -> Array:
    found = np.ones(len(runs), dtype=bool)
    for part in parts:
        found &= mask(part, runs)
    return found


def _each(runs: Runs, name: str, test: Callable[[Any], object]) -> Array:
    if name not in runs:
        return np.zeros(len(runs), dtype=bool)
    return runs[name].each(lambda value: value is not LACKS and test(value))


def _compared(runs: Runs, left: object, sign: str, right: object) -> Array:
    for value in (left, right):
        if isinstance(value, Field) and value.name not in runs:
            return np.zeros(len(runs), dtype=bool)
    if isinstance(left, Field) and isinstance(right, Field):
        return _two_columns(runs[left.name], sign, runs[right.name])
    if isinstance(left, Field):
        return _with_constant(runs[left.name], sign, right)
    if isinstance(right, Field):
        turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)
        if turned in _OPERATORS:
            return _with_constant(runs[right.name], turned, left)
        return runs[right.name].each(lambda value: compare(left, sign, value))
    return np.full(len(runs), compare(left, sign, right))


def _with_constant(column: Column, sign: str, constant: Any) -> Array:
    if sign == "in" and isinstance(constant, list) and column.is_number:
        among = np.zeros(len(column.values), dtype=bool)
        for item in constant:
            among |= _with_constant(column, "==", item)
        return among
    if sign not in _OPERATORS or not _is_exact(column, constant):
        return column.each(lambda value: compare(value, sign, constant))
    found: Array = _OPERATORS[sign](column.values, constant)
    return found if column.lacks is None else found & ~column.lacks


def _is_exact(column: Column, constant: Any) -> bool:
    """Whether numpy, which may compare as floats, and Python are of one mind."""
    if type(constant) not in (int, float) or not column.is_number:
        return False
    kinds = {column.values.dtype.kind, "i" if type(constant) is int else "f"}
    if kinds == {"i"}:
        return True
    return kinds == {"f"} or (_is_small(column) if type(constant) is float else abs(constant) <= EXACT)


def _is_small(column: Column) -> bool:
    values = column.values
    return values.dtype.kind == "f" or not len(values) or bool(values.min() >= -EXACT and values.max() <= EXACT)


def _two_columns(left: Column, sign: str, right: Column) -> Array:
    is_plain = all(column.is_number and column.nones is None for column in (left, right))
    if sign in _OPERATORS and is_plain and _is_small(left) and _is_small(right):
        found: Array = _OPERATORS[sign](left.values, right.values)
        for column in (left, right):
            found = found if column.lacks is None else found & ~column.lacks
        return found
    pairs = zip(left.cells(), right.cells(), strict=True)
    return np.fromiter((compare(a, sign, b) for a, b in pairs), bool, len(left.values))
