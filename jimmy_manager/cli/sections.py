"""Names with their values below a title, folded at the edge of a terminal; whole lines where there is none."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import Any

import click

from jimmy_manager.cli.columns import GAP, text, width
from jimmy_manager.plain_text import plain

_INDENT = "  "
_WIDEST_SHARE = 2
_SHORTEST = 20


def print_section(title: str, items: Iterable[tuple[str, Any]]) -> None:
    """Print ``title`` and a line each item, its value below where its name is much longer than others may be."""
    cells = [(plain(name), text(value)) for name, value in items]
    if not cells:
        return
    click.secho(f"\n{title}", bold=True)
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    longest = max(width(name) for name, _ in cells)
    if wide is not None:
        most = max(wide // _WIDEST_SHARE, _SHORTEST)
        longest = max((width(name) for name, _ in cells if width(name) <= most), default=0)
    for name, value in cells:
        click.echo("\n".join(_item(name, value, longest, wide)))


def _item(name: str, value: str, longest: int, wide: int | None) -> list[str]:
    blanks = " " * (longest - width(name))
    if wide is None:
        return [f"{_INDENT}{name}{blanks}{GAP}{value}".rstrip()]
    below = _INDENT + " " * longest + GAP if longest else 2 * _INDENT
    values = folded(value, wide - len(below))
    if width(name) <= longest:
        return [f"{_INDENT}{name}{blanks}{GAP}{values[0]}".rstrip(), *(below + line for line in values[1:])]
    return [*(_INDENT + line for line in folded(name, wide - len(_INDENT))), *(below + line for line in values if line)]


def folded(line: str, wide: int) -> list[str]:
    """``line`` in lines of at most ``wide`` columns, broken at blanks where there are some.

    >>> folded('one two three-four-five', 9)
    ['one two', 'three-fou', 'r-five']
    """
    wide = max(wide, _SHORTEST // 4)
    lines = [""]
    for number, word in enumerate(line.split(" ")):
        tried = f"{lines[-1]} {word}" if number and lines[-1] else word
        if width(tried) <= wide:
            lines[-1] = tried
            continue
        if lines[-1]:
            lines.append("")
        rest = word
        while width(rest) > wide:
            size = _fitting(rest, wide)
            lines[-1], rest = rest[:size], rest[size:]
            lines.append("")
        lines[-1] = rest
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]


def _fitting(text: str, wide: int) -> int:
    """How many characters from the start take at most ``wide`` columns; one at least."""
    size = min(len(text), wide)
    while size > 1 and width(text[:size]) > wide:
        size -= 1
    return size
