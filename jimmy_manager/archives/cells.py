"""The cells of the index's table: how a value of Python is kept in SQLite, and how columns of them come back.

Integers, floats and text are SQLite's own; whatever else JSON can say (true, null, a list, NaN, an integer of more than
64 bits) is a blob of JSON, so that no two values are confused. An empty cell is a field that the run does not have.
"""

from __future__ import annotations

import json
import math
import sqlite3
from array import array
from collections.abc import Iterable
from typing import Any

from jimmy_manager.archives.columns import LACKS, OWN, Cells, Indexed

_SINGLE = {b"null": None, b"true": True, b"false": False}
_NONE = type(None)
_ARRAYS = {float: "d", int: "q"}
"""As objects, numbers take four times as much memory."""
_CHUNK = 2_000
"""So many rows are taken at a time: as tuples all of them would need more memory than what is made of them."""
_MOST_TEXTS = 1_000
"""Of a column with no more texts than these, each text is kept once."""


class Broken(Exception):
    """The file is no cache of this version: make it anew."""


def values_of(row: Indexed, is_live: bool, numbers: dict[tuple[str, str], int | None], kept: int) -> list[Any]:
    """The cells of ``row``, in the order of ``numbers``; fields without one as JSON."""
    fields: Iterable[Any] = (*row.config.values(), *row.preview.values())
    more: dict[str, dict[str, Any]] = {}
    if kept < len(numbers):
        for ((side, path), number), value in zip(numbers.items(), fields, strict=True):
            if number is None:
                more.setdefault(side, {})[path] = value
        fields = (v for v, number in zip(fields, numbers.values(), strict=True) if number is not None)
    damage = json.dumps(row.damage) if row.damage else None
    own = (*row[: len(OWN) - 1], damage, is_live, json.dumps(more) if more else None)
    return [*own, *map(encoded, fields)]


class Gathered:
    """A column while its rows come in."""

    def __init__(self) -> None:
        self.values: list[Any] | array[Any] = []
        self.kinds: set[type] = set()
        self._texts: dict[Any, Any] = {}

    def add(self, values: tuple[Any, ...]) -> None:
        """Append ``values``."""
        kinds = set(map(type, values))
        code = _ARRAYS.get(kinds.copy().pop()) if len(kinds) == 1 else None
        if not self.kinds and code:
            self.values = array(code)
        elif isinstance(self.values, array) and self.values.typecode != code:
            self.values = self.values.tolist()
        self.kinds |= kinds
        # Of texts alone: as keys of a dict, 1 and 1.0 are one.
        is_text = str in kinds and kinds <= {str, _NONE} and len(self._texts) < _MOST_TEXTS
        self.values.extend(map(self._texts.setdefault, values, values) if is_text else values)

    def cells(self) -> Cells:
        """The values that were put."""
        if not self.kinds & {bytes, _NONE}:
            return Cells(self.values, frozenset(self.kinds))
        return Cells.of(
            _from_blob(value) if type(value) is bytes else LACKS if value is None else value for value in self.values
        )


def gathered_from(rows: sqlite3.Cursor, count: int) -> list[Gathered]:
    """The ``count`` columns of ``rows``."""
    gathered = [Gathered() for _ in range(count)]
    while chunk := rows.fetchmany(_CHUNK):
        for column, values in zip(gathered, zip(*chunk, strict=True), strict=True):
            column.add(values)
    return gathered


def _from_blob(blob: bytes) -> Any:
    return _SINGLE[blob] if blob in _SINGLE else from_json(blob)


def spread(texts: Iterable[str | None], found: dict[str, dict[str, Cells]]) -> None:
    """Add the fields that have no column of their own."""
    mores = [None if text is None else from_json(text) for text in texts]
    columns: dict[tuple[str, str], list[Any]] = {}
    for place, more in enumerate(mores):
        if more is None:
            continue
        expect([more, *more.values()] if isinstance(more, dict) else [more], dict)
        for side, has in found.items():
            for path, value in more.get(side, {}).items():
                if (side, path) not in columns:
                    cells = has.get(path)
                    columns[side, path] = [LACKS] * len(mores) if cells is None else list(cells.values)
                columns[side, path][place] = value
    for (side, path), values in columns.items():
        found[side][path] = Cells.of(values)


def texts_of(damage: str | None) -> tuple[str, ...]:
    """What was noted of the damage of a run."""
    if damage is None:
        return ()
    texts = from_json(damage)
    expect([texts], list)
    return tuple(texts)


def expect(values: Iterable[Any], *kinds: type) -> None:
    """What SQLite hands over has no checksum; that it is of the right type is the least."""
    if not set(map(type, values)) <= set(kinds):
        raise Broken("it holds values of another type")


def encoded(value: Any) -> Any:
    """What SQLite is given for ``value``."""
    kind = type(value)
    if kind is float and math.isfinite(value):
        return value
    is_native = (kind is int and -(1 << 63) <= value < 1 << 63) or (kind is str and is_text(value))
    return value if is_native else json.dumps(value, separators=(",", ":")).encode("ascii")


def is_text(value: str) -> bool:
    """Whether ``value`` has no lone surrogates, which no database takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def from_json(text: str | bytes) -> Any:
    """What ``text`` says; ``Broken`` where that is no JSON."""
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise Broken(str(error)) from error
