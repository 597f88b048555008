"""The rows of the index, and the same turned by a quarter: what all runs have under one name stands in one list.

A hundred thousand dicts cost several times what the values in them do, so whoever wants all runs at once (a DataFrame,
a filter, an average) takes the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple


class Indexed(NamedTuple):
    """One run as a list shows it: ``config`` and ``preview`` by dotted path, the rest as in ``Listed``.

    ``epoch``, ``step``, ``at``, ``train_s`` and ``eval_s`` are those of the newest commit, None where there is none.
    """

    key: str
    state: str
    epoch: int | None
    step: int | None
    at: float | None
    train_s: float | None
    eval_s: float | None
    done: bool
    config: dict[str, Any]
    preview: dict[str, Any]
    damage: tuple[str, ...] = ()


OWN = tuple(name for name in Indexed._fields if name not in ("config", "preview"))


class Lacks:
    """What stands in a column for a run that does not have the field; None is a value like any other."""

    def __repr__(self) -> str:
        return "LACKS"


LACKS: Any = Lacks()


class Cells(NamedTuple):
    """One column: a value a run, or ``LACKS``, and the types of all values."""

    values: Sequence[Any]
    kinds: frozenset[type]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Cells:
        """The column of ``values``."""
        values = list(values)
        return cls(values, frozenset(map(type, values)))


class Columns(NamedTuple):
    """All runs by key: ``own`` has what ``OWN`` names, ``config`` and ``preview`` a column for each dotted path."""

    own: dict[str, Cells]
    config: dict[str, Cells]
    preview: dict[str, Cells]

    @classmethod
    def of(cls, rows: Iterable[Indexed]) -> Columns:
        """The columns of ``rows``."""
        rows = list(rows)
        sides = (_side(rows, attrgetter(side)) for side in ("config", "preview"))
        return cls({name: Cells.of(map(attrgetter(name), rows)) for name in OWN}, *sides)

    @property
    def height(self) -> int:
        """How many runs there are."""
        return len(self.own["key"].values)

    def rows(self) -> Iterator[Indexed]:
        """The same run by run."""
        configs, previews = (_dicts(side, self.height) for side in (self.config, self.preview))
        *first, damage = (self.own[name].values for name in OWN)
        return map(Indexed, *first, configs, previews, damage)

    def updated(self, fresh: Mapping[str, Indexed | None]) -> Columns:
        """With the rows of ``fresh`` in the place of those of the same keys, and without those that are None."""
        if not fresh:
            return self
        added = Columns.of(sorted((row for row in fresh.values() if row is not None), key=attrgetter("key")))
        if all(key in fresh for key in self.own["key"].values):
            return added
        keys = [*self.own["key"].values, *added.own["key"].values]
        stale = {place for place, key in enumerate(self.own["key"].values) if key in fresh}
        order = sorted((place for place in range(len(keys)) if place not in stale), key=keys.__getitem__)
        heights = (self.height, added.height)
        return Columns(*(_joined(old, new, heights, order) for old, new in zip(self, added, strict=True)))


def _joined(
    old: dict[str, Cells], new: dict[str, Cells], heights: tuple[int, int], order: list[int]
) -> dict[str, Cells]:
    """The columns of ``old`` with those of ``new`` below, of which the rows ``order`` are kept."""
    joined = {}
    for name in old | new:
        above = old[name].values if name in old else [LACKS] * heights[0]
        below = new[name].values if name in new else [LACKS] * heights[1]
        joined[name] = Cells.of(_picked([*above, *below], order))
    return joined


def _picked(values: list[Any], order: list[int]) -> Iterable[Any]:
    return itemgetter(*order)(values) if len(order) > 1 else [values[place] for place in order]


def _side(rows: list[Indexed], fields_of: Callable[[Indexed], dict[str, Any]]) -> dict[str, Cells]:
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(fields_of(row))
    return {name: Cells.of(fields_of(row).get(name, LACKS) for row in rows) for name in names}


def _dicts(side: dict[str, Cells], count: int) -> Iterable[dict[str, Any]]:
    """The fields run by run; in C where every run has every field, as a loop of ours would cost as much as the rest."""
    if not side:
        return ({} for _ in range(count))
    cells = zip(*(column.values for column in side.values()), strict=True)
    if any(Lacks in column.kinds for column in side.values()):
        return ({n: value for n, value in zip(side, row, strict=True) if value is not LACKS} for row in cells)
    return map(dict, map(zip, repeat(list(side)), cells))
