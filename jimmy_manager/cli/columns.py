"""Tables for people: aligned columns that fit the terminal; without rich, whose import costs as much as listing."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from jimmy_manager.manager.plain_text import plain

GAP = "  "
_WIDEST = 32


def shown(value: Any) -> str:
    """A cell for people: four digits of a float, one line, no control characters.

    >>> shown(0.123456), shown(True), shown([1, 2]), shown(None)
    ('0.1235', 'true', '[1, 2]', '')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return text(value)


def text(value: Any) -> str:
    r"""A cell for programs: the whole value on one line, without tabs or control characters.

    >>> text(0.123456), text('a\tb'), text(None)
    ('0.123456', 'a\\tb', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain(json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value)


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, 'run'), counted(2, 'run')
    ('1 run', '2 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def width(cell: str) -> int:
    """How many columns of a terminal ``cell`` takes."""
    if cell.isascii():
        return len(cell)
    return sum(
        0 if unicodedata.combining(char) or char == "\u200d" else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in cell
    )


def clipped(cell: str, most: int = _WIDEST) -> str:
    """``cell`` in at most ``most`` columns, an ellipsis for what is left out.

    >>> clipped('digits.build_network', 10)
    'digits.bu…'
    """
    if width(cell) <= most:
        return cell
    kept = cell[: most - 1]
    while width(kept) > most - 1:
        kept = kept[:-1]
    return f"{kept}…"


def headings(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names where no two are alike, else the whole.

    >>> headings(['optim.lr', 'model.width', 'data.width'])
    ['lr', 'model.width', 'data.width']
    """
    last = [name.rpartition(".")[2] for name in names]
    return [plain(short if last.count(short) == 1 else name) for short, name in zip(last, names, strict=True)]


class Columns:
    """Rows laid out in columns: numbers to the right, everything else to the left."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, widest: int = _WIDEST) -> None:
        self.names = list(names)
        self.rows = rows
        self._cells = {name: [clipped(shown(row.get(name)), widest) for row in rows] for name in names}

    def widths(self) -> dict[str, int]:
        """The columns that each name takes, its heading included."""
        titles = dict(zip(self.names, headings(self.names), strict=True))
        return {
            name: max(width(titles[name]), *map(width, self._cells[name]), 1) if self.rows else width(titles[name])
            for name in self.names
        }

    def total(self) -> int:
        """The width of a line."""
        return sum(self.widths().values()) + len(GAP) * max(0, len(self.names) - 1)

    def drop(self, name: str) -> None:
        """Leave a column out."""
        self.names.remove(name)

    def lines(self) -> list[list[str]]:
        """The padded cells of each line, that of the headings first."""
        widths = self.widths()
        right = {name: self._is_numeric(name) for name in self.names}
        titles = headings(self.names)
        lines = [[_padded(title, widths[n], right[n]) for title, n in zip(titles, self.names, strict=True)]]
        for index in range(len(self.rows)):
            lines.append([_padded(self._cells[name][index], widths[name], right[name]) for name in self.names])
        return lines

    def _is_numeric(self, name: str) -> bool:
        values = [row.get(name) for row in self.rows]
        return all(value is None or type(value) in (int, float) for value in values)


def _padded(cell: str, to: int, right: bool) -> str:
    blanks = " " * (to - width(cell))
    return blanks + cell if right else cell + blanks
