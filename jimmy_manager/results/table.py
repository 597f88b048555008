"""The runs of a store as plain rows: one flat dict a run, without pandas.

A row holds ``key``, ``state``, ``epoch``, when the newest commit was saved (seconds since 1970), what its epoch took in
seconds, the configuration by dotted path and the scalars of the preview. Where two of them claim one name, the first of
this order keeps it, and the other is ``config.NAME`` or ``preview.NAME``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives.columns import Indexed
from jimmy_manager.archives.index import read_rows
from jimmy_manager.errors import UnknownField
from jimmy_manager.results.conditions import equal
from jimmy_manager.results.where import nearest

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

STATES = {"held": "running", "released": "paused", "dead": "lost", "dropped": "lost", "silent": "lost", "ended": "lost"}
"""How a list calls the states of claims that people have no other word for; ``new``, ``done``, ``failed``, ... stay."""

OWN = ("key", "state", "epoch")
TIMES = ("saved_at", "train_s", "eval_s")
_MISSING: Any = object()


class Table(NamedTuple):
    """Rows, and which of their names come from where, each in the order of its first use."""

    rows: list[dict[str, Any]]
    fields: tuple[str, ...]
    metrics: tuple[str, ...]
    damage: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a row may have, but for the times."""
        return (*OWN, *self.fields, *self.metrics)

    @property
    def known(self) -> tuple[str, ...]:
        """Every name, those of the times among them."""
        return (*self.names, *TIMES)

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
            parts.setdefault(rank(row.get(name))[0], []).append(row)
        rows: list[dict[str, Any]] = []
        for _, part in sorted(parts.items()):
            rows += sorted(part, key=lambda row: rank(row.get(name))[1], reverse=reverse)
        return self._replace(rows=rows)

    def check(self, names: Iterable[str]) -> None:
        """Raise UnknownField, with the nearest name, for one that no row has; without rows any name may be right."""
        if self.rows:
            check_names(names, self.known)


def check_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Raise UnknownField, with the nearest name, for one that is not ``known``."""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            advice = f"; did you mean {near!r}?" if near else f"; there are {listed(known)}"
            raise UnknownField(f"no run has a field {name!r}{advice}")


def listed(names: Sequence[str], most: int = 30) -> str:
    """The first of ``names``, and how many there are besides.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def shown_names(fields: Iterable[str], metrics: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What fields and metrics are called in a table: as they are, unless the name is taken.

    >>> shown_names(["lr", "state"], ["loss", "lr"])
    ({'lr': 'lr', 'state': 'config.state'}, {'loss': 'loss', 'lr': 'preview.lr'})
    """
    taken = {*OWN, *TIMES}
    return _labels("config", fields, taken), _labels("preview", metrics, taken)


def _labels(side: str, names: Iterable[str], taken: set[str]) -> dict[str, str]:
    labels = {name: name if name not in taken else f"{side}.{name}" for name in dict.fromkeys(names)}
    own = {name for name, label in labels.items() if name == label}
    taken |= own
    for name in filter(lambda name: name not in own, labels):
        while labels[name] in taken:
            labels[name] = f"{side}.{labels[name]}"
        taken.add(labels[name])
    return labels


def read_table(store: Store) -> Table:
    """The table of all runs of ``store`` that were not popped, by key."""
    return table_of(read_rows(store))


def table_of(runs: Sequence[Indexed]) -> Table:
    """The table of ``runs``."""
    fields: dict[str, None] = {}
    metrics: dict[str, None] = {}
    damage: list[str] = []
    for run in runs:
        fields |= dict.fromkeys(run.config)
        metrics |= dict.fromkeys(run.preview)
        damage += run.damage
    field_names, metric_names = shown_names(fields, metrics)
    rows: list[dict[str, Any]] = []
    for run in runs:
        row: dict[str, Any] = {"key": run.key, "state": STATES.get(run.state, run.state), "epoch": run.epoch}
        row |= {field_names[name]: value for name, value in run.config.items()}
        row |= {metric_names[name]: value for name, value in run.preview.items()}
        rows.append(row | {"saved_at": run.at, "train_s": run.train_s, "eval_s": run.eval_s})
    return Table(rows, tuple(field_names.values()), tuple(metric_names.values()), tuple(damage))


def _varies(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [row.get(name, _MISSING) for row in rows]
    first = values[0] if values else _MISSING
    return not all(equal(value, first) for value in values)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def rank(value: object) -> tuple[int, Any]:
    """A class of values that are comparable with each other, in the order of a sorted list, and the value there."""
    if value is None:
        return 3, 0
    if isinstance(value, float) and math.isnan(value):
        return 2, 0
    if isinstance(value, (int, float)):
        return 0, value
    return 1, str(value)
