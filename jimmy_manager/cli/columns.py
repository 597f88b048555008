"""Tables for people: aligned columns that fit the terminal; without rich, whose import costs as much as listing."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jimmy_manager.cli.numbers import aligned
from jimmy_manager.plain_text import plain

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
    return len(cell) if cell.isascii() else _wide_width(cell)


@lru_cache(4096)  # a column of states holds few different cells
def _wide_width(cell: str) -> int:
    return sum(map(_char_width, cell))


def _char_width(char: str) -> int:
    if char.isascii():
        return 1
    # Marks that are drawn onto the letter before, and joiners; a soft hyphen is the one of them that is drawn.
    if unicodedata.category(char) in ("Mn", "Me", "Cf") and char != "\xad":
        return 0
    return 1 + (unicodedata.east_asian_width(char) in "WF")


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


def packed(head: str, items: Sequence[str], wide: int, *, most: int = 2) -> list[str]:
    """``head`` and ``items`` in at most ``most`` lines of ``wide`` columns, with the number of those left out.

    >>> packed('no room for:', ['alpha', 'beta', 'gamma', 'delta'], 36, most=1)
    ['no room for: alpha, beta, and 2 more']
    """
    lines = [head]
    for number, item in enumerate(items):
        left = len(items) - number - 1
        text = clipped(item, max(8, wide - 20)) + ("," if left else "")
        tail = len(f" and {left} more") if left and len(lines) == most else 0
        if width(lines[-1]) + 1 + width(text) + tail > wide:
            if len(lines) == most:
                return [*lines[:-1], f"{lines[-1]} and {left + 1} more"]
            lines.append(f"  {text}")
        else:
            lines[-1] += f" {text}"
    return lines


def headings(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names where no two are alike, else the whole.

    >>> headings(['optim.lr', 'model.width', 'data.width'])
    ['lr', 'model.width', 'data.width']
    """
    last = [name.rpartition(".")[2] for name in names]
    return [plain(short if short and last.count(short) == 1 else name) for short, name in zip(last, names, strict=True)]


class _Column(NamedTuple):
    """One column: cells, how wide it is, its heading included, and on which side heading and cells stand."""

    title: str
    cells: list[str]
    width: int
    is_right: bool
    is_title_right: bool


class Columns:
    """Rows laid out in columns: numbers below each other by their points, everything else to the left.

    ``titles`` are the headings of names, by default their last parts; ``show`` makes the cells of names that have
    their own way. A column is laid out when it is asked for, so that those that no line has room for cost little.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, widest: int = _WIDEST,
        titles: Mapping[str, str] | None = None, show: Mapping[str, Callable[[Any], str]] | None = None,
    ) -> None:
        self.names = list(names)
        self.rows = rows
        self._widest = widest
        self._titles = titles or dict(zip(names, headings(names), strict=True))
        self._show = show or {}
        self._made: dict[str, _Column] = {}

    def width(self, name: str) -> int:
        """The columns of the terminal that ``name`` takes, its heading included."""
        return self._column(name).width

    def heading(self, name: str) -> str:
        """What stands above the column ``name``; of a long name its end."""
        title = plain(self._titles[name])
        return clipped(title[::-1], self._widest)[::-1]

    def total(self) -> int:
        """The width of a line."""
        return sum(map(self.width, self.names)) + len(GAP) * max(0, len(self.names) - 1)

    def drop(self, name: str) -> None:
        """Leave a column out."""
        self.names.remove(name)

    def lines(self) -> list[list[str]]:
        """The padded cells of each line, that of the headings first."""
        columns = [self._column(name) for name in self.names]
        head = [_padded(column.title, column.width, column.is_title_right) for column in columns]
        padded = [[_padded(cell, column.width, column.is_right) for cell in column.cells] for column in columns]
        return [head, *map(list, zip(*padded, strict=True))] if self.rows else [head]

    def _column(self, name: str) -> _Column:
        if name not in self._made:
            self._made[name] = self._laid_out(name)
        return self._made[name]

    def _laid_out(self, name: str) -> _Column:
        values = [row.get(name) for row in self.rows]
        title, show = self.heading(name), self._show.get(name)
        is_numeric = show is None and all(value is None or type(value) in (int, float) for value in values)
        if is_numeric:
            cells = [clipped(cell, self._widest) for cell in aligned(values)]
        else:
            cells = [clipped((show or shown)(value), self._widest) for value in values]
        wide = max(1, width(title), *map(width, cells)) if cells else max(1, width(title))
        # Where cells end in blanks below their points, the heading stands above the digits before them.
        return _Column(title, cells, wide, is_numeric, is_numeric and not any(cell.endswith(" ") for cell in cells))


def _padded(cell: str, to: int, right: bool) -> str:
    blanks = " " * (to - width(cell))
    return blanks + cell if right else cell + blanks
