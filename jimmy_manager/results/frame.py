"""The table of runs as a pandas DataFrame, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from jimmy_manager.archives.columns import LACKS
from jimmy_manager.better import is_more_better
from jimmy_manager.errors import ConfigError, KeyNotFound
from jimmy_manager.results.column import Array, Column
from jimmy_manager.results.damage import warn_of
from jimmy_manager.results.runs import Runs, read_runs
from jimmy_manager.results.table import TIMES

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

_LATEST_S = 9e9
"""Beyond it (the year 2255) pandas has no time in nanoseconds."""


def table(
    store: Store, where: Condition = None, columns: Iterable[str] | None = None, sort: str | None = None
) -> pd.DataFrame:
    """The runs of ``store`` by key; see ``Looking.table``.

    Numbers are int64 where every run has an integer there, else float64, with NaN for runs without one; an integer
    that no float holds exactly makes its column one of objects. Truth values that some runs lack, lists and mixed
    values are objects, None where there is none. What cannot be read is told in one ``UserWarning``, by file name.
    """
    runs = read_runs(store).where(where)
    warn_of(runs.damage)
    if sort is not None:
        runs = runs.ordered(sort)
    return frame_of(runs, columns)


def frame_of(runs: Runs, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """``runs`` with the names ``columns``, as they are given; by default state, epoch, what varies, results, times."""
    if columns is None:
        names = ["state", "epoch", *runs.varying(), *runs.metrics, *TIMES]
    else:
        names = [columns] if isinstance(columns, str) else [name for name in dict.fromkeys(columns) if name != "key"]
        runs.check(names)
    # Of an empty store any name may be right.
    index = pd.Index(runs.keys(), name="key", dtype="str")
    cells = {name: series_of(runs.full(name), runs[name]) if name in runs else [] for name in names}
    # A Series keeps its type; of a bare array of objects that are all text pandas makes text.
    cells = {name: cell.set_axis(index) if isinstance(cell, pd.Series) else cell for name, cell in cells.items()}
    return pd.DataFrame(cells, index=index)


def series_of(name: str, column: Column) -> Any:
    """What pandas is given of a column."""
    if name == "saved_at":
        return _times(column.numbers())
    if name in ("epoch", *TIMES) and column.values.dtype == object:  # there is no number in it
        return column.numbers()
    column = column.narrowed()
    if column.values.dtype != object:
        return column.values
    values = column.values.copy()
    for place, value in enumerate(values) if not column.is_text or LACKS in values else ():
        values[place] = None if value is LACKS else deepcopy(value)  # lists are kept for the next table
    # Left to pandas, texts become its own kind of text, where it has one.
    is_text = column.is_text and _is_text(values)
    return values if is_text else pd.Series(values, dtype=object if len(values) else "str")


def _is_text(values: Array) -> bool:
    """Whether there is text in ``values`` and all of it has bytes, which a lone surrogate has not."""
    texts = {value for value in values if value is not None}
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return bool(texts)


def best(store: Store, metric: str, mode: Literal["min", "max"] | None = None, where: Condition = None) -> str:
    """The key of the best run of ``store``; see ``best_of``."""
    runs = read_runs(store)
    warn_of(runs.damage)
    return best_of(runs, metric, mode, where)


def best_of(runs: Runs, metric: str, mode: Literal["min", "max"] | None = None, where: Condition = None) -> str:
    """The key of the run with the lowest ``metric``, or the highest; of equal ones the first key.

    Without ``mode`` the words of its name decide, see ``is_more_better``; where they do not tell, the lowest wins.
    Runs whose value is NaN, infinite or missing are passed over; ``KeyNotFound`` where no other is left.
    """
    if mode not in (None, "min", "max"):
        raise ConfigError(f"mode {mode!r} is neither 'min' nor 'max'")
    metric = runs.full(metric)
    runs = runs.where(where)
    values = runs[metric].numbers() if metric in runs else np.array([])
    is_finite = np.isfinite(values)
    if not is_finite.any():
        raise KeyNotFound(f"no run has a finite number {metric!r}{_why_none(values, len(runs))}")
    is_max = mode == "max" if mode else bool(is_more_better(metric))
    scores = np.where(is_finite, values, -math.inf if is_max else math.inf)
    return runs.keys()[int(scores.argmax() if is_max else scores.argmin())]


def _why_none(values: Array, count: int) -> str:
    if not count:
        return "; there are no such runs"
    nans, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    return f": of {count} runs {nans} have NaN or nothing there, {infinite} are infinite"


def _times(seconds: Array) -> Any:
    """Seconds since 1970 as UTC times, to the microsecond; NaT for what is no such number."""
    is_time = np.abs(seconds) < _LATEST_S  # false for NaN
    micros = np.round(np.where(is_time, seconds, 0) * 1e6).astype(np.int64)
    times = (micros * 1000).view("datetime64[ns]")
    times[~is_time] = np.datetime64("NaT")
    return pd.Series(times).dt.tz_localize("UTC").array
