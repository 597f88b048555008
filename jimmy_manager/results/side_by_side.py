"""What differs between runs as text: a line each name, a column each run, grouped under headings."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jimmy_manager.plain_text import plain

Sections = Mapping[str, Mapping[str, Sequence[Any]]]
"""Heading -> name -> one value for each run; None where a run has none."""

_GAP = "  "
_WIDEST = 36
_NARROWEST = 12
_SMALL = 8
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class _Row(NamedTuple):
    heading: str
    name: str
    cells: list[str]
    is_long: bool = False


def text(keys: Sequence[str], sections: Sections, wide: int = 0) -> str:
    """The sections as aligned lines; where ``wide`` is given, as many blocks below each other as runs fit in a line.

    Values that no column has room for stand below their name, a line each run.
    """
    rows = [
        _Row(heading, plain(name), cells(values))
        for heading, named in sections.items()
        for name, values in named.items()
    ]
    first = max([width(row.name) for row in rows], default=0) + len(_GAP)
    widest = min(_WIDEST, max(_NARROWEST, (wide - first) // 2 - len(_GAP))) if wide else _WIDEST  # two runs fit
    rows = [row._replace(is_long=any(width(cell) > widest for cell in row.cells)) for row in rows]
    narrow = [row for row in rows if not row.is_long]
    columns = [max(width(cell) for cell in [key, *(row.cells[n] for row in narrow)]) for n, key in enumerate(keys)]
    blocks = list(_blocks(first, columns, wide))
    lines = []
    for number, block in enumerate(blocks):
        is_last = number == len(blocks) - 1
        shown = [row for row in rows if is_last or not row.is_long]
        lines += ["", *_block(keys, shown, block, first, columns)]
    return "\n".join(lines[1:])


def cells(values: Sequence[Any]) -> list[str]:
    """One cell a value; floats to four digits, commits and digests to twelve, unless unlike ones would look alike then.

    >>> cells([0.123456, 0.2]), cells([0.123456, 0.123457]), cells([True, None, "a" * 40])
    (['0.1235', '0.2'], ['0.123456', '0.123457'], ['true', '', 'aaaaaaaaaaaa'])
    """
    short = [_short(value) for value in values]
    full = [whole(value) for value in values]
    return short if len(set(short)) == len(set(full)) else full


def whole(value: Any) -> str:
    r"""A value with all its digits, on one line, without control characters.

    >>> whole('a\tb'), whole([1, 2]), whole(False), whole(None)
    ('a\\tb', '[1, 2]', 'false', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        small = f": {value.tolist()}" if value.size <= _SMALL else ""
        return f"array of {value.dtype}, shape {tuple(value.shape)}{small}"
    return plain(json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = whole(value)
    return text[:12] if _DIGEST.fullmatch(text) else text


def width(cell: str) -> int:
    """How many columns of a terminal ``cell`` takes."""
    if cell.isascii():
        return len(cell)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in cell)


def terminal_width() -> int:
    """How many columns the terminal has."""
    return shutil.get_terminal_size().columns


def _blocks(first: int, columns: Sequence[int], wide: int) -> Iterator[range]:
    """Which runs stand beside each other."""
    begin, used = 0, first
    for number, column in enumerate(columns):
        if wide and number > begin and used + len(_GAP) + column > wide:
            yield range(begin, number)
            begin, used = number, first
        used += len(_GAP) + column
    yield range(begin, len(columns))


def _block(
    keys: Sequence[str], rows: Sequence[_Row], block: range, first: int, columns: Sequence[int]
) -> Iterator[str]:
    yield _line("", [keys[n] for n in block], first, [columns[n] for n in block])
    before = ""
    for row in rows:
        if row.heading != before:
            yield row.heading
            before = row.heading
        if row.is_long:
            yield f"{_GAP}{row.name}"
            yield from (f"{_GAP * 2}{key}{_GAP}{cell}".rstrip() for key, cell in zip(keys, row.cells, strict=True))
        else:
            yield _line(f"{_GAP}{row.name}", [row.cells[n] for n in block], first, [columns[n] for n in block])


def _line(name: str, values: Sequence[str], first: int, columns: Sequence[int]) -> str:
    padded = [value + " " * (column - width(value)) for value, column in zip(values, columns, strict=True)]
    return _GAP.join([name + " " * (first - width(name)), *padded]).rstrip()
