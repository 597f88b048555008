"""What can be asked of trained runs, by a ``Store`` and by a ``Manager`` alike; nothing here loads a checkpoint.

The one door from the archives up to ``results``: each method calls the function of its name there, imported when it is
called, so that a store that is only written to pays for none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.archives.store import Store
    from jimmy_manager.results.differences import Difference
    from jimmy_manager.results.gallery import Gallery
    from jimmy_manager.results.plots import Plots
    from jimmy_manager.results.run_results import RunResults
    from jimmy_manager.results.runs_by_key import RunsByKey

Condition = str | Mapping[str, Any] | Callable[[Mapping[str, object]], bool] | None
"""Which runs: a filter text, dotted names with values, lists of values or callables, or a function of a row."""


class Looking:
    """The questions; whoever inherits them says of which store they are asked."""

    def _looked_at(self) -> Store:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        from jimmy_manager.results.summary import summary

        return summary(self._looked_at(), type(self).__name__, getattr(self, "defaults", None))

    def table(
        self, where: Condition = None, columns: Iterable[str] | None = None, sort: str | None = None
    ) -> pd.DataFrame:
        """The runs as a DataFrame by key: state, epoch, the fields that vary, numbers and texts of previews, times."""
        from jimmy_manager.results import frame

        return frame.table(self._looked_at(), where, columns, sort)

    def group(
        self, by: str | Iterable[str] | None = None, *, over: str | Iterable[str] = "seed", where: Condition = None,
        metrics: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Count, mean, deviation, least, greatest and 95 % interval of each metric over ``over``, by ``by``."""
        from jimmy_manager.results import groups

        return groups.group(self._looked_at(), by, over, where, metrics)

    def best(self, metric: str, mode: Literal["min", "max"] | None = None, where: Condition = None) -> str:
        """The key of the run with the lowest ``metric``; with the highest where ``mode`` or a word of its name says so.

        Words such as acc, accuracy, return, reward, auc, f1 or score do. What no word tells of is minimised.
        """
        from jimmy_manager.results import frame

        return frame.best(self._looked_at(), metric, mode, where)

    def compare(self, keys: Iterable[str]) -> pd.DataFrame:
        """What differs between the runs ``keys``: a row each field or result, a column each run."""
        from jimmy_manager.results import differences

        return differences.compare(self._looked_at(), keys)

    def diff(self, a: str, b: str) -> Difference:
        """What differs between two runs: configuration, code version, environment, preview."""
        from jimmy_manager.results import differences

        return differences.diff(self._looked_at(), a, b)

    def curves(
        self, keys: Iterable[str] | str | None = None, tags: Iterable[str] | str | None = None,
        where: Condition = None,
    ) -> pd.DataFrame:
        """What was logged while runs were trained, a row each value: key, tag, step, epoch, value, at."""
        from jimmy_manager.results import curves

        return curves.curves(self._looked_at(), keys, tags, where)

    def run(self, key: str) -> RunResults:
        """One run, by its key or any unique prefix of it."""
        from jimmy_manager.results.run_results import RunResults

        return RunResults(self, self._looked_at().resolve(key))

    @cached_property  # for the same reason as ``plot``
    def runs(self) -> RunsByKey:
        """All runs as a mapping, ``runs[key]`` being ``run(key)``; a notebook completes the keys."""
        from jimmy_manager.results.runs_by_key import RunsByKey

        return RunsByKey(self)

    def gallery(
        self, where: Condition = None, columns: Iterable[str] | None = None, sort: str | None = None
    ) -> Gallery:
        """The ``table`` of those runs that have figures in their previews, for a notebook, with a thumbnail of each."""
        from jimmy_manager.results import gallery

        return gallery.gallery(self._looked_at(), where, columns, sort)

    @cached_property  # and no property: a job may have an attribute of that name
    def plot(self) -> Plots:
        """Figures of the runs: ``plot.curves``, ``metric``, ``parallel``, ``pareto`` and ``timeline``."""
        from jimmy_manager.results.plots import Plots

        return Plots(self._looked_at())
