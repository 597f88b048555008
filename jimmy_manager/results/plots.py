"""Figures of the runs of a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store


class Plots:
    """The figures of one store; each method draws one and reads no checkpoint.

    A method returns a new ``Figure``, which a notebook shows and ``savefig`` writes; given ``ax``, it draws there and
    returns that. Pyplot is not used, so nothing is left open and any thread may draw. ``where`` is that of ``table``.
    Runs whose metric is missing, NaN or infinite are left out, and a note below the picture counts them.

    ``UnknownField`` for a name that no run has, ``KeyNotFound`` where there is no run to draw.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def curves(
        self, tags: Iterable[str] | str | None = None, by: Iterable[str] | str | None = None,
        over: Iterable[str] | str = "seed", keys: Iterable[str] | str | None = None, where: Condition = None,
        ax: Axes | None = None,
    ) -> Figure | Axes:
        """Learning curves: a panel for each tag, a line for each group of runs: their mean.

        Runs with the same values of ``by`` are one group; by default of every field that varies but ``over``. The band
        is the 95 % interval of the mean, or from least to greatest where a group has fewer than 4 runs or the axis is
        logarithmic; the legend says which. Of more than 14 groups the 7 that end best on the first tag are coloured.
        """
        from jimmy_manager.results import plot_curves

        return plot_curves.draw(self._store, tags, by, over, keys, where, ax)

    def metric(
        self, metric: str, by: str, by2: str | None = None,
        kind: Literal["line", "points", "heat"] | None = None, where: Condition = None, ax: Axes | None = None,
    ) -> Figure | Axes:
        """A metric against the field ``by``, or against two fields.

        By default a line of means with bars over a numeric field, rows of points over another one, and a heat map over
        two fields. Fields of more than 30 values get points. ``kind="line"`` with ``by2`` draws a line for each of its
        values.
        """
        from jimmy_manager.results import plot_metric

        return plot_metric.draw(self._store, metric, by, by2, kind, where, ax)

    def parallel(
        self, metrics: Iterable[str] | str | None = None, fields: Iterable[str] | str | None = None,
        where: Condition = None, ax: Axes | None = None,
    ) -> Figure | Axes:
        """Parallel coordinates of ``fields`` (default: those that vary) and ``metrics``.

        The first metric (default: the first number of the previews) colours the lines; the best run is highlighted.
        """
        from jimmy_manager.results import plot_parallel

        return plot_parallel.draw(self._store, metrics, fields, where, ax)

    def pareto(
        self, x: str, y: str, modes: Sequence[Literal["min", "max"]] | None = None, where: Condition = None,
        ax: Axes | None = None,
    ) -> Figure | Axes:
        """Two metrics of each run, and the front: the runs that no other beats in both, with their keys.

        ``modes`` says of each metric whether ``min`` or ``max`` is better; by default the words of its name
        tell, as for ``best``.
        """
        from jimmy_manager.results import plot_pareto

        return plot_pareto.draw(self._store, x, y, modes, where, ax)

    def timeline(self, where: Condition = None, ax: Axes | None = None) -> Figure | Axes:
        """Who trained what when: a row for each worker, a bar from each claim to its last commit, coloured by state.

        Times are those of the workers' own clocks. A run that is held fades out towards the latest time known.
        """
        from jimmy_manager.results import plot_timeline

        return plot_timeline.draw(self._store, where, ax)
