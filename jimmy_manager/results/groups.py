"""What repetitions of one configuration have in common: statistics of the results over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jimmy_manager.archives.columns import LACKS
from jimmy_manager.errors import ConfigError
from jimmy_manager.results.column import Array
from jimmy_manager.results.damage import warn_of
from jimmy_manager.results.frame import series_of
from jimmy_manager.results.runs import Runs, read_runs
from jimmy_manager.results.student import t_of_95
from jimmy_manager.results.table import listed

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

STATS = ("n", "mean", "std", "min", "max", "ci95")


def group(
    store: Store, by: str | Iterable[str] | None = None, over: str | Iterable[str] = "seed", where: Condition = None,
    metrics: Iterable[str] | None = None,
) -> pd.DataFrame:
    """A row for each combination of the fields ``by`` (by default all that vary, but ``over``), columns metric by stat.

    ``n`` counts the runs with a number there, NaN not among them; ``std`` is that of a sample (n - 1); ``ci95`` is half
    the width of the 95 % interval of the mean by Student's t, so the interval is mean - ci95 to mean + ci95. Both are
    NaN for a single run. By default ``metrics`` are all numbers of the previews.
    """
    runs = read_runs(store)
    warn_of(runs.damage)
    return group_of(runs, by, over, where, metrics)


def group_of(
    runs: Runs, by: str | Iterable[str] | None = None, over: str | Iterable[str] = "seed", where: Condition = None,
    metrics: Iterable[str] | None = None,
) -> pd.DataFrame:
    """``group`` of ``runs``."""
    # A job without seeds is no mistake.
    left_out = [name if name == "seed" else runs.full(name) for name in _names(over)]
    chosen = None if by is None else _names(by)
    wanted = None if metrics is None else _names(metrics)
    runs.check([*(chosen or ()), *(wanted or ())])
    runs = runs.where(where)
    fields = [name for name in runs.varying() if name not in left_out] if chosen is None else chosen
    return statistics_of(runs, fields, runs.numeric() if wanted is None else wanted)


def _names(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def statistics_of(runs: Runs, fields: list[str], metrics: Iterable[str]) -> pd.DataFrame:
    """The statistics of ``metrics`` over the runs that are equal in all ``fields``."""
    if not len(runs):
        nothing: dict[str, Array] = {metric: np.array([]) for metric in metrics}
        return _framed(pd.DataFrame(nothing), np.array([], dtype=np.int64), _index([[] for _ in fields], fields))
    groups, first = _groups(runs, fields)
    values = pd.DataFrame({metric: _numbers(runs, metric) for metric in metrics}, index=range(len(runs)))
    return _framed(values, groups, _index([_labels(runs, name, first) for name in fields], fields))


def _numbers(runs: Runs, metric: str) -> Array:
    numbers = runs[metric].numbers()
    if not runs.is_numeric(metric):
        raise ConfigError(f"{metric!r} is a number in no run; numbers are {listed(runs.numeric()) or 'in none'}")
    return numbers


def _groups(runs: Runs, fields: list[str]) -> tuple[Array, Array]:
    """The number of each run's group, and the place of the first run of each group."""
    groups = np.zeros(len(runs), dtype=np.int64)
    for name in fields:
        codes, values = runs[name].codes()
        # Made dense again at once: the product over all fields may not fit.
        groups = np.unique(groups * len(values) + codes, return_inverse=True)[1]
    return groups, np.unique(groups, return_index=True)[1]


def _labels(runs: Runs, name: str, places: Array) -> Any:
    column = runs[name].take(places)
    if column.is_text or column.values.dtype != object:
        return series_of(name, column)
    values = [None if value is LACKS else value for value in column.cells()]
    # Labels are looked up, and 1 and True would be found for each other.
    kinds = (list, dict, bool) if {int, float} & set(map(type, values)) else (list, dict)
    return [json.dumps(value) if isinstance(value, kinds) else value for value in values]


def _index(labels: list[Any], names: list[str]) -> Any:
    if not names:
        return pd.Index(["all"], name="runs")
    if len(names) > 1:
        return pd.MultiIndex.from_arrays(labels, names=names)
    return pd.Index(labels[0], name=names[0])


def _framed(values: pd.DataFrame, groups: Array, index: Any) -> pd.DataFrame:
    grouped = values.groupby(groups)
    found = {"n": grouped.count(), "mean": grouped.mean(), "std": grouped.std(ddof=1)}
    found |= {"min": grouped.min(), "max": grouped.max()}
    found["ci95"] = found["std"] * found["n"].map(lambda n: t_of_95(n - 1) / math.sqrt(n) if n > 1 else math.nan)
    columns = {(metric, stat): found[stat][metric].to_numpy() for metric in values for stat in STATS}
    frame = pd.DataFrame(columns, index=index if len(groups) else index[:0])
    frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["metric", "stat"])
    return frame
