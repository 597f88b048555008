"""The table of runs as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from jimmy_manager.errors import KeyNotFound
from jimmy_manager.results.table import Table, read_table
from jimmy_manager.results.where import check_fields, parse

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store


def table(
    store: Store, where: Condition = None, columns: Iterable[str] | None = None, sort: str | None = None
) -> pd.DataFrame:
    """The runs of ``store`` by key; see ``Looking.table``."""
    import pandas as pd

    found = chosen(read_table(store), where)
    if sort is not None:
        found = found.ordered(sort)
    names = list(columns) if columns is not None else ["state", "epoch", *found.varying(), *found.metrics]
    found.check(names)
    frame = pd.DataFrame(found.rows, columns=["key", *(name for name in names if name != "key")])
    return frame.set_index("key")


def best(store: Store, metric: str, mode: Literal["min", "max"] | None = None, where: Condition = None) -> str:
    """The key of the run with the lowest ``metric``, or the highest; names in acc or return are maximised."""
    frame = table(store, where, [metric])[metric].dropna()
    if frame.empty:
        raise KeyNotFound(f"no run has a number {metric!r}")
    is_max = mode == "max" if mode else metric.rpartition(".")[2].startswith(("acc", "return"))
    return str(frame.idxmax() if is_max else frame.idxmin())


def chosen(found: Table, where: Condition) -> Table:
    """The rows that meet ``where``."""
    if where is None:
        return found
    if isinstance(where, str):
        condition = parse(where)
        if found.rows:
            check_fields(condition, found.names)
        return found.filtered(condition)
    test: Callable[[Mapping[str, Any]], bool]
    if callable(where):
        test = where
    else:
        wanted = dict(where)

        def test(row: Mapping[str, Any]) -> bool:
            return all(name in row and row[name] == value for name, value in wanted.items())

    return found.filtered(test)
