"""The runs of a store column by column: what a DataFrame is made of, and what is filtered and sorted before it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from jimmy_manager.archives.columns import LACKS, Cells, Columns
from jimmy_manager.archives.index import read_changed
from jimmy_manager.errors import ConfigError
from jimmy_manager.results.column import Array, Column
from jimmy_manager.results.masks import mask
from jimmy_manager.results.names import Names, check_names
from jimmy_manager.results.table import OWN, STATES, TIMES, shown_names
from jimmy_manager.results.unlike import doubts, kinds_in
from jimmy_manager.results.where import where_of

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store


class Runs:
    """A selection of the runs in ``columns``, in some order, under the names that ``Table`` has for them.

    ``columns`` are used up.
    """

    def __init__(self, columns: Columns) -> None:
        own, self._count = columns.own, columns.height
        fields, metrics = shown_names(columns.config, columns.preview)
        self.fields = tuple(fields.values())
        self.metrics = tuple(metrics.values())
        self.names = (*OWN, *self.fields, *self.metrics, *TIMES)
        self.damage = tuple(text for texts in own["damage"].values for text in texts)
        states = [STATES.get(state, state) for state in own["state"].values]
        cells = {"key": own["key"], "state": Cells.of(states), "epoch": own["epoch"]}
        cells |= {fields[path]: column for path, column in columns.config.items()}
        cells |= {metrics[path]: column for path, column in columns.preview.items()}
        cells |= {"saved_at": own["at"], "train_s": own["train_s"], "eval_s": own["eval_s"]}
        for taken in columns:
            taken.clear()  # as values of Python a column takes several times its array
        self._columns = {name: Column.of(cells.pop(name)) for name in tuple(cells)}
        self._known = Names(self.names)
        self._places: Array | None = None

    def __len__(self) -> int:
        return self._count if self._places is None else len(self._places)

    def __contains__(self, name: str) -> bool:
        """Whether ``name`` is one of ``names``, or the last parts of one alone."""
        return len(self._known.meant(name)) == 1

    def __getitem__(self, name: str) -> Column:
        """The column of one of ``names``, which may be given by its last parts."""
        column = self._columns[self._known.full(name)]
        return column if self._places is None else column.take(self._places)

    def keys(self) -> list[str]:
        """The keys."""
        return self["key"].cells()

    def rows(self) -> Iterator[dict[str, Any]]:
        """A dict for each run, without the fields that it lacks."""
        columns = {name: self[name].cells() for name in self.names}
        for values in zip(*columns.values(), strict=True):
            yield {name: value for name, value in zip(columns, values, strict=True) if value is not LACKS}

    def varying(self) -> tuple[str, ...]:
        """The fields of the configurations that do not have one value in all of these runs."""
        return tuple(name for name in self.fields if self[name].varies())

    def numeric(self) -> tuple[str, ...]:
        """Those results that are numbers in some of these runs."""
        return tuple(name for name in self.metrics if self.is_numeric(name) and self[name].values.dtype != bool)

    def is_numeric(self, name: str) -> bool:
        """Whether some of these runs have a number there, or a truth value where all have one."""
        column = self[name]
        return column.values.dtype != object or any(type(value) in (int, float) for value in column.values)

    def full(self, name: str) -> str:
        """The one of ``names`` that ``name`` stands for, see ``Names.full``; without runs itself."""
        return self._known.full(name) if self._count else name

    def check(self, names: Iterable[str]) -> None:
        """Raise UnknownField, with advice, for one that no run has or that may be several; without runs for none."""
        for name in names:
            self.full(name)

    def where(self, condition: Condition) -> Runs:
        """Those that meet ``condition``; UnknownField where it asks for what no run has."""
        if condition is None:
            return self
        where = where_of(condition)
        if self._count:
            check_names(where, self._known)
            for doubt in doubts(where, self._kinds):
                warnings.warn(doubt, stacklevel=4)
        return self._taken(mask(where.tree, self).nonzero()[0])

    def ordered(self, by: str) -> Runs:
        """Sorted by the name ``by``, descending for ``-NAME``; NaN and then what is missing come last."""
        if not isinstance(by, str):
            raise ConfigError(f"cannot sort by {by!r}: give one name, such as 'loss' or '-loss'")
        name = by.removeprefix("-")
        self.check([name])
        return self._taken(self[name].order(reverse=by.startswith("-"))) if self._count else self

    def _kinds(self, name: str) -> set[type]:
        values = self[name].values
        if values.dtype != object:
            return {float} if values.dtype.kind in "if" else {bool}
        return kinds_in(value for value in values if value is not LACKS)

    def _taken(self, places: Array) -> Runs:
        taken = object.__new__(Runs)
        taken.__dict__ = self.__dict__ | {"_places": places if self._places is None else self._places[places]}
        return taken


_KEPT: WeakKeyDictionary[Store, tuple[str, Runs]] = WeakKeyDictionary()
"""What was read last of each store that is open, with what tells whether it still holds; a few numbers a run."""


def read_runs(store: Store) -> Runs:
    """The runs of ``store`` that were not popped, by key; those read before where nothing has changed since."""
    known, kept = _KEPT.get(store, ("", None))
    state, columns = read_changed(store, known)
    if columns is None and kept is not None:
        return kept
    assert columns is not None, "nothing was known before"
    runs = Runs(columns)
    if state:
        _KEPT[store] = (state, runs)
    else:
        _KEPT.pop(store, None)
    return runs
