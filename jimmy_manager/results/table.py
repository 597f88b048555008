"""The runs of a store as plain rows: one flat dict a run, without pandas.

A row holds ``key``, ``state``, ``epoch``, the configuration by dotted path and the scalars of the preview. Where two of
them claim one name, the first of this order keeps it, and the other is ``config.NAME`` or ``preview.NAME``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives.cache import Indexed
from jimmy_manager.archives.index import read_rows
from jimmy_manager.errors import UnknownField

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

STATES = {"held": "running", "released": "paused", "dead": "lost", "dropped": "lost", "silent": "lost", "ended": "lost"}
"""How a list calls the states of claims that people have no other word for; ``new``, ``done``, ``failed``, ... stay."""

_OWN = ("key", "state", "epoch")
_MISSING: Any = object()


class Table(NamedTuple):
    """Rows, and which of their names come from where, each in the order of its first use."""

    rows: list[dict[str, Any]]
    fields: tuple[str, ...]
    metrics: tuple[str, ...]
    damage: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a row may have."""
        return (*_OWN, *self.fields, *self.metrics)

    def varying(self) -> tuple[str, ...]:
        """The fields of the configurations that do not have one value in all rows."""
        return tuple(name for name in self.fields if _varies(self.rows, name))

    def numeric(self) -> tuple[str, ...]:
        """Those metrics that are numbers."""
        return tuple(name for name in self.metrics if any(_is_number(row.get(name)) for row in self.rows))

    def filtered(self, where: Callable[[Mapping[str, object]], bool]) -> Table:
        """The rows that ``where`` accepts."""
        return self._replace(rows=[row for row in self.rows if where(row)])

    def ordered(self, by: str) -> Table:
        """Sorted by the name ``by``, descending for ``-NAME``: numbers, then text, then NaN, then what is missing."""
        name, reverse = by.removeprefix("-"), by.startswith("-")
        self.check([name])
        parts: dict[int, list[dict[str, Any]]] = {}
        for row in self.rows:
            parts.setdefault(_rank(row.get(name))[0], []).append(row)
        rows: list[dict[str, Any]] = []
        for _, part in sorted(parts.items()):
            rows += sorted(part, key=lambda row: _rank(row.get(name))[1], reverse=reverse)
        return self._replace(rows=rows)

    def check(self, names: Iterable[str]) -> None:
        """Raise UnknownField, with the nearest name, for one that no row has; without rows any name may be right."""
        for name in names if self.rows else ():  # of no runs nothing is known
            if name not in self.names:
                from difflib import get_close_matches

                near = get_close_matches(name, self.names, n=1)
                advice = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(self.names)}"
                raise UnknownField(f"no run has a field {name!r}{advice}")


def read_table(store: Store) -> Table:
    """The table of all runs of ``store`` that were not popped, by key."""
    return table_of(read_rows(store))


def table_of(runs: Sequence[Indexed]) -> Table:
    """The table of ``runs``."""
    rows: list[dict[str, Any]] = []
    fields: dict[str, None] = {}
    metrics: dict[str, None] = {}
    damage: list[str] = []
    for run in runs:
        fields |= dict.fromkeys(run.config)
        damage += run.damage
    field_names = {name: name if name not in _OWN else f"config.{name}" for name in fields}
    taken = {*_OWN, *field_names.values()}
    for run in runs:
        row: dict[str, Any] = {"key": run.key, "state": STATES.get(run.state, run.state)}
        row["epoch"] = run.epoch
        row |= {field_names[name]: value for name, value in run.config.items()}
        shown = {name if name not in taken else f"preview.{name}": value for name, value in run.preview.items()}
        metrics |= dict.fromkeys(shown)
        rows.append(row | shown)
    return Table(rows, tuple(field_names.values()), tuple(metrics), tuple(damage))


def _varies(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [row.get(name, _MISSING) for row in rows]
    first = values[0] if values else _MISSING
    # As for keys: 1 and 1.0 are one value, True is not 1.
    return any(value != first or isinstance(value, bool) != isinstance(first, bool) for value in values)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rank(value: object) -> tuple[int, Any]:
    """A class of values that are comparable with each other, in the order of a sorted list, and the value there."""
    if value is None:
        return 3, 0
    if isinstance(value, float) and math.isnan(value):
        return 2, 0
    if isinstance(value, (int, float)):
        return 0, value
    return 1, str(value)
