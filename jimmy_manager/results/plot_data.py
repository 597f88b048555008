"""What figures are drawn from: columns of runs, what is left out of them and why, groups and their spread."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.errors import KeyNotFound, UnknownField
from jimmy_manager.results.names import Names
from jimmy_manager.results.plot_text import counted, label, shown
from jimmy_manager.results.student import t_of_95
from jimmy_manager.results.table import TIMES, read_table

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

ENOUGH_FOR_AN_INTERVAL = 4
"""Of two runs the interval is nine times as wide as the runs are apart: of fewer than these their range says more."""


class Runs(NamedTuple):
    """Some columns of runs, and which of a store's columns are fields and which are numbers."""

    keys: list[str]
    columns: dict[str, list[Any]]
    fields: tuple[str, ...]
    numbers: tuple[str, ...]

    def only(self, indices: Iterable[int]) -> Runs:
        """The runs at ``indices``."""
        kept = list(indices)
        columns = {name: [values[index] for index in kept] for name, values in self.columns.items()}
        return self._replace(keys=[self.keys[index] for index in kept], columns=columns)

    def varying(self) -> list[str]:
        """The columns read that are fields and do not have one value in all runs."""
        known = set(self.fields)
        return [name for name, values in self.columns.items() if name in known and len(set(map(identity, values))) > 1]


class Field(NamedTuple):
    """One column as an axis: its distinct values in order, and the place of each run among them.

    ``is_numeric`` where every value that is there is a number.
    """

    name: str
    levels: list[Any]
    places: list[int]
    is_numeric: bool


class View(NamedTuple):
    """A metric of runs and the fields it is drawn against; ``notes`` are added to as it is drawn."""

    metric: str
    values: list[float]
    fields: list[Field]
    notes: list[str]

    def cells(self) -> dict[tuple[int, int], list[float]]:
        """The values of the runs that share their levels of the fields."""
        cells: dict[tuple[int, int], list[float]] = {}
        others = self.fields[1].places if len(self.fields) == 2 else [0] * len(self.values)
        for first, second, value in zip(self.fields[0].places, others, self.values, strict=True):
            cells.setdefault((first, second), []).append(float(value))
        return cells

    def counts(self) -> str:
        """How many runs share their levels, from least to most; empty where it is always one."""
        found = sorted({len(cell) for cell in self.cells().values()})
        if found == [1]:
            return ""
        return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def read(store: Store, names: Iterable[str] | None, where: Condition) -> Runs:
    """The columns ``names`` (None: every field and number) of the runs that meet ``where``, None for what is missing.

    ``KeyNotFound`` where there is none, ``UnknownField`` for a name that no run has.
    """
    table = read_table(store)
    fields, numbers = table.fields, table.numeric()
    wanted = list(dict.fromkeys(names if names is not None else (*fields, *numbers)))
    frame = store.table(where, wanted)
    if not len(frame.index):
        meeting = " that meets the filter" if where is not None and table.rows else ""
        raise KeyNotFound(f"there is nothing to plot: no run in {store}{meeting}")
    keys = [str(key) for key in frame.index]
    # A frame knows no difference between a number that is missing and one that is NaN.
    rows = {row["key"]: row for row in table.rows}
    known = Names(table.known)
    full = {name: known.full(name) for name in wanted if table.rows}
    full = {name: each for name, each in full.items() if each not in TIMES}
    columns = {
        name: [rows[key].get(full[name]) if key in rows else None for key in keys] if name in full
        else frame[name].tolist()
        for name in wanted
    }  # fmt: skip
    fields = tuple(dict.fromkeys([*fields, *(name for name in full if full[name] in fields)]))
    return Runs(keys, columns, fields, numbers)


def finite(runs: Runs, metrics: Sequence[str]) -> tuple[Runs, list[str]]:
    """The runs whose ``metrics`` are all finite numbers, and notes that count the others by reason."""
    notes: list[str] = []
    for name in metrics:
        values = runs.columns[name]
        held = [value for value in values if value is not None]
        if held and not any(map(is_number, held)):
            near = ", ".join(runs.numbers[:8])
            raise UnknownField(f"{name!r} holds no numbers" + (f"; there are {near}" if near else ""))
        reasons: dict[str, int] = {}
        for value in values:
            if reason := _why_not(value):
                reasons[reason] = reasons.get(reason, 0) + 1
        if reasons:
            told = ", ".join(f"{reason} in {counted(count)}" for reason, count in reasons.items())
            notes.append(f"left out: {label(name)} is {told}")
        runs = runs.only(index for index, value in enumerate(values) if not _why_not(value))
    return runs, notes


def field(runs: Runs, name: str) -> Field:
    """The column ``name`` as an axis."""
    values = runs.columns[name]
    levels = sorted({identity(value): value for value in values}.values(), key=_rank)
    place = {identity(level): index for index, level in enumerate(levels)}
    held = [level for level in levels if level is not None]
    is_numeric = bool(held) and all(is_number(level) and math.isfinite(level) for level in held)
    return Field(name, levels, [place[identity(value)] for value in values], is_numeric)


def having(runs: Runs, name: str) -> tuple[Runs, list[str]]:
    """The runs that have ``name``, and a note of how many have not."""
    kept = [index for index, value in enumerate(runs.columns[name]) if value is not None]
    lacking = len(runs.keys) - len(kept)
    return (runs.only(kept), [f"left out: {counted(lacking)} without {label(name)}"]) if lacking else (runs, [])


def grouped(runs: Runs, names: Sequence[str]) -> list[tuple[tuple[Any, ...], list[int]]]:
    """Each combination of values of ``names`` with the places of its runs, in order."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index in range(len(runs.keys)):
        groups.setdefault(tuple(identity(runs.columns[name][index]) for name in names), []).append(index)
    found = [(tuple(runs.columns[name][members[0]] for name in names), members) for members in groups.values()]
    return sorted(found, key=lambda group: tuple(map(_rank, group[0])))


def identity(value: object) -> tuple[str, Any]:
    """What two values have in common that count as one: 1 and 1.0 do, 1 and True do not; lists by their content.

    >>> identity(1) == identity(1.0), identity(1) == identity(True), identity([1]) == identity([1])
    (True, False, True)
    """
    if isinstance(value, (list, dict)):
        return "", json.dumps(value, sort_keys=True)
    return ("number", value) if is_number(value) else (type(value).__name__, value)


def is_number(value: object) -> bool:
    """Whether ``value`` is a number, NaN included; True is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_counter(name: str) -> bool:
    """Whether a number of previews counts how far a run is, which is no result.

    >>> is_counter('preview.epoch'), is_counter('loss')
    (True, False)
    """
    return name.rpartition(".")[2] in ("epoch", "step")


def interval(deviation: float, count: int) -> float:
    """Half the width of the 95 % interval of a mean of ``count`` values, by Student's t.

    >>> round(interval(2.0, 4), 1), round(interval(10.0, 100), 2)      # 2.0 * 3.182 / 2, 10.0 * 1.984 / 10
    (3.2, 1.98)
    """
    return t_of_95(count - 1) * deviation / math.sqrt(count)


def aside(index: int) -> float:
    """How far from its row the ``index``-th of its points is drawn.

    Golden steps: neighbours in value lie far apart, and a figure is drawn alike every time.
    """
    return ((index * 0.618034 + 0.5) % 1 - 0.5) * 0.56


def _why_not(value: object) -> str:
    if value is None:
        return "missing"
    if not is_number(value):
        return "not a number" if not isinstance(value, bool) else ""
    assert isinstance(value, (int, float))
    return "NaN" if math.isnan(value) else "infinite" if math.isinf(value) else ""


def _rank(value: Any) -> tuple[int, Any]:
    if value is None:
        return 3, 0
    if is_number(value):
        return (1, 0) if math.isnan(value) else (0, value)
    # As people count: block_10 after block_9.
    parts = re.split(r"([0-9]+)", shown(value))
    return 2, [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]
