"""What ``jimmy ls`` shows on a terminal: a table that fits it, and below what is not in the table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from os.path import commonprefix
from typing import Any, NamedTuple

import click

from jimmy_manager.cli import states
from jimmy_manager.cli.columns import GAP, Columns, counted, packed, shown
from jimmy_manager.plain_text import plain
from jimmy_manager.results.names import Names
from jimmy_manager.results.table import Table

_METRICS_KEPT = 2
_NARROWEST = 3
_WIDEST = 32
_ALWAYS = ("key", "state", "epoch")


class Page(NamedTuple):
    """A heading, the lines of the table, the notes below it, and the whole in a few words."""

    head: str
    body: list[str]
    foot: list[str]
    summary: str


def page(table: Table, names: Sequence[str], known: Names, keys: Iterable[str], wide: int, *, may_drop: bool) -> Page:
    """The runs of ``table`` for a terminal of ``wide`` columns; ``keys`` are those of all runs of the store.

    With ``may_drop`` without the columns that all runs share or that there is no room for, which the notes tell.
    """
    same = _same(table.rows, table.fields) if may_drop else {}
    columns = Columns(
        table.rows, [name for name in names if name not in same], titles={name: known.short(name) for name in known},
        show={"state": states.marked}, widest=max(12, min(wide // 5, _WIDEST)) if may_drop else _WIDEST,
    )  # fmt: skip
    dropped = _fit(columns, table, wide) if may_drop else []
    head, *lines = columns.lines()
    places = {name: place for place, name in enumerate(columns.names)}
    digits = _digits_needed(keys)
    for cells, row in zip(lines, table.rows, strict=True):
        if (place := places.get("state")) is not None:
            cells[place] = states.coloured(cells[place], row["state"])
        if (place := places.get("key")) is not None:
            cells[place] = _emphasised(cells[place], digits.get(row["key"], 0))
    counts = Counter(row["state"] for row in table.rows)
    total = f"{counted(len(table.rows), 'run')}: "
    return Page(
        click.style(GAP.join(head).rstrip(), bold=True),
        [GAP.join(cells).rstrip() for cells in lines],
        [total + states.told(counts), *_notes(table, columns, known, same, dropped, wide)],
        click.unstyle(total + states.told(counts)),
    )


def _notes(
    table: Table, columns: Columns, known: Names, same: Mapping[str, Any], dropped: Sequence[str], wide: int
) -> list[str]:
    notes = []
    if odd := _not_finite(table.rows, columns.names):
        told = [f"{plain(known.short(name))} in {counted(count, 'run')}" for name, count in odd.items()]
        notes += packed("nan or inf:", told, wide)
    if same:
        alike = "the configuration:" if len(table.rows) == 1 else "the same in all:"
        told = [f"{plain(known.short(name))} = {shown(value)}" for name, value in same.items()]
        notes += packed(alike, told, wide, most=6 if len(table.rows) == 1 else 2)
    if dropped:
        told = [plain(known.short(name)) for name in dropped]
        notes += packed("no room for:", told, wide)
        notes.append("--columns A,B chooses, --all shows all")
    return [click.style(line, dim=True) for line in notes]


def _same(rows: Sequence[Mapping[str, Any]], fields: Iterable[str]) -> dict[str, Any]:
    """The fields that have one value in all rows."""
    first = rows[0]
    return {
        name: first[name] for name in fields
        if name in first and all(name in row and _is_one(row[name], first[name]) for row in rows)
    }  # fmt: skip


def _is_one(value: object, other: object) -> bool:
    # As for keys: 1 and 1.0 are one value, True is not 1.
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _not_finite(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, int]:
    """How many runs have NaN or infinity, by name, where some have."""
    counts = {}
    for name in names:
        values = (row.get(name) for row in rows)
        if odd := sum(isinstance(value, float) and not math.isfinite(value) for value in values):
            counts[name] = odd
    return counts


def _fit(columns: Columns, table: Table, wide: int) -> list[str]:
    """Leave out columns until a line fits, fields before the first results; return them in their order."""
    metrics = [name for name in columns.names if name in set(table.metrics)]
    fields = [name for name in columns.names if name in set(table.fields)]
    wanted = (*fields[:1], *metrics[:_METRICS_KEPT], *fields[1:], *metrics[_METRICS_KEPT:])
    kept = [name for name in columns.names if name not in set(wanted)]
    room = wide + len(GAP) - sum(columns.width(name) + len(GAP) for name in kept)
    for name in wanted:
        if room < _NARROWEST:
            break
        # The heading alone may be too wide, and laying out a column costs a look at every run.
        if len(columns.heading(name)) <= room and columns.width(name) + len(GAP) <= room:
            room -= columns.width(name) + len(GAP)
            kept.append(name)
    dropped = [name for name in columns.names if name not in set(kept)]
    for name in dropped:
        columns.drop(name)
    return dropped


def _digits_needed(keys: Iterable[str]) -> dict[str, int]:
    """How many first digits of each key no other key shares."""
    ordered = sorted(keys)
    shared = [len(commonprefix(pair)) for pair in pairwise(ordered)]  # noqa: RUF071  # keys are no paths
    return {
        key: max(before, after) + 1
        for key, before, after in zip(ordered, [0, *shared], [*shared, 0], strict=True)
    }  # fmt: skip


def _emphasised(cell: str, digits: int) -> str:
    """A key whose first ``digits`` digits, which suffice to type, stand out."""
    return f"{click.style(cell[:digits], bold=True)}{click.style(cell[digits:], dim=True)}"
