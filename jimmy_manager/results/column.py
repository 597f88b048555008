"""One column of a table as an array of numpy, with what tells a value that is None from one that is not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jimmy_manager.archives.columns import LACKS, Cells, Lacks
from jimmy_manager.results.conditions import equal
from jimmy_manager.results.table import rank

Array = NDArray[Any]
EXACT = 1 << 53
"""Up to here every integer is a float as well."""
_NONE = type(None)


class Column(NamedTuple):
    """The values of one name, as the narrowest of int64, float64 and bool that holds all of them exactly, else objects.

    Of an int64 or bool array every run has a value. In one of floats NaN stands for whatever is no number, and the
    masks say which of them are None and which are missing. In one of objects (``is_text``: str, None and ``LACKS``
    only) all values are as they were. ``is_whole``: integers as floats, as some runs have none.
    """

    values: Array
    nones: Array | None = None
    lacks: Array | None = None
    is_text: bool = False
    is_whole: bool = False

    @classmethod
    def of(cls, cells: Cells) -> Column:
        """The column of ``cells``."""
        values, kinds = cells
        if kinds == {bool}:
            return cls(np.array(values, dtype=bool))
        if kinds == {int}:
            return cls(np.array(values, dtype=np.int64)) if _fits(values, 1 << 63) else cls(_objects(values))
        numbers = kinds - {_NONE, Lacks}
        if numbers and numbers <= {int, float}:
            if int in numbers and not _fits((value for value in values if type(value) is int), EXACT):
                return cls(_objects(values))
            return _of_floats(values, kinds)
        return cls(_objects(values), is_text=numbers <= {str})

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers, None or missing."""
        return self.values.dtype.kind in "if"

    def take(self, places: Array) -> Column:
        """The rows of an array of places, or of a mask."""
        nones, lacks = (None if mask is None else mask[places] for mask in (self.nones, self.lacks))
        return self._replace(values=self.values[places], nones=nones, lacks=lacks)

    def narrowed(self) -> Column:
        """The same after a selection: integers again, say, where those that lacked one are gone."""
        is_narrow = self.values.dtype.kind in "bi" or self.is_text or not (self.is_whole or self.values.dtype == object)
        return self if is_narrow else Column.of(Cells.of(self.cells()))

    def cells(self) -> list[Any]:
        """The values as Python has them, None and ``LACKS`` among them."""
        values = self.values
        if self.is_whole:
            values = np.where(np.isnan(values), 0, values).astype(np.int64)
        for mask, value in ((self.nones, None), (self.lacks, LACKS)):
            if mask is not None:
                values = values.astype(object)
                values[mask] = value
        found: list[Any] = values.tolist()
        return found

    def numbers(self) -> Array:
        """As floats; NaN for whatever is no number."""
        if self.values.dtype.kind in "bif":
            return self.values.astype(np.float64)
        is_number = (type(value) in (int, float) for value in self.values)
        return np.array([_float(v) if ok else np.nan for v, ok in zip(self.values, is_number, strict=True)])

    def each(self, test: Callable[[Any], object]) -> Array:
        """What ``test`` says of each value, once of equal texts."""
        if self.values.dtype == bool:
            return np.where(self.values, bool(test(True)), bool(test(False)))
        cells = self.cells()
        if self.is_text:
            told = {value: bool(test(value)) for value in dict.fromkeys(cells)}
            return np.fromiter(map(told.__getitem__, cells), bool, len(cells))
        return np.fromiter((bool(test(value)) for value in cells), bool, len(cells))

    def varies(self) -> bool:
        """Whether the runs differ here; as for keys 1 and 1.0 are one value, and True is not 1."""
        for mask in (self.nones, self.lacks):
            if mask is not None and mask.any():
                return not mask.all()
        if self.values.dtype != object:
            return bool((self.values != self.values[:1]).any())
        first = self.values[0] if len(self.values) else None
        return not all(value is first or equal(value, first) for value in self.values)

    def order(self, *, reverse: bool = False) -> Array:
        """The places of the rows in the order of a sorted list: numbers, text, NaN, what is missing or None."""
        values = self.values
        if self.values.dtype == object:
            return _order_of_objects(self.cells(), reverse=reverse)
        if reverse:
            values = -values if values.dtype.kind == "f" else ~values  # of the least integer there is no negative
        places = np.argsort(values, kind="stable")
        is_last = np.zeros(len(self.values), dtype=bool)
        for mask in (self.nones, self.lacks):
            is_last |= False if mask is None else mask
        return np.concatenate([places[~is_last[places]], np.flatnonzero(is_last)])

    def codes(self) -> tuple[Array, list[Any]]:
        """A number for each value, equal for equal ones, and the values of these numbers, in their order."""
        if self.values.dtype != object and self.nones is None and self.lacks is None:
            uniques, codes = np.unique(self.values, return_inverse=True)
            return codes, uniques.tolist()
        cells = self.cells()
        found: dict[Any, Any] = {}
        names = [_name(value) for value in cells]
        for name, value in zip(names, cells, strict=True):
            found.setdefault(name, value)
        values = list(found.values())
        order = sorted(range(len(values)), key=lambda place: rank(None if values[place] is LACKS else values[place]))
        code_of = {name: code for code, name in enumerate(list(found)[place] for place in order)}
        return np.fromiter(map(code_of.__getitem__, names), np.int64, len(names)), [values[place] for place in order]


def _of_floats(values: Sequence[Any], kinds: frozenset[type]) -> Column:
    nones = _where(values, None) if _NONE in kinds else None
    lacks = _where(values, LACKS) if Lacks in kinds else None
    if nones is None and lacks is None:
        return Column(np.array(values, dtype=np.float64))
    is_whole = float not in kinds
    numbers = [np.nan if value is None or value is LACKS else value for value in values]
    return Column(np.array(numbers, dtype=np.float64), nones, lacks, is_whole=is_whole)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if value > 0 else -math.inf


def _where(values: Sequence[Any], wanted: Any) -> Array:
    return np.fromiter((value is wanted for value in values), bool, len(values))


def _fits(values: Any, most: int) -> bool:
    values = list(values)
    return not values or (-most <= min(values) and max(values) < most)


def _objects(values: Sequence[Any]) -> Array:
    return np.fromiter(values, dtype=object, count=len(values))


def _name(value: Any) -> Any:
    """What can be a key of a dict, and is equal for equal values alone: ``True`` is not ``1``."""
    if isinstance(value, list):
        return (list, *map(_name, value))
    if isinstance(value, (bool, dict)) or value != value:
        return (type(value), repr(value))
    return value


def _order_of_objects(cells: list[Any], *, reverse: bool) -> Array:
    ranks = [rank(None if value is LACKS else value) for value in cells]
    parts: dict[int, list[int]] = {}
    for place, (part, _) in enumerate(ranks):
        parts.setdefault(part, []).append(place)
    ordered = (sorted(parts[part], key=lambda place: ranks[place][1], reverse=reverse) for part in sorted(parts))
    return np.array([place for part in ordered for place in part], dtype=np.int64)
