"""Epochs as a live table on a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jimmy_manager.training.epoch_progress import Standing, duration, percent

# Rules below the heads and above the sum, nothing else.
_RULES = box.Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")
_BAR = 10
_LONGEST_NAME = 18
_AROUND = 7  # lines of the table that are not epochs: two of names, two rules, the sum, the note, the cursor


class Terminal(Console):
    """Standard error, whose loss is an error like any other: rich would end the process on a broken pipe."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError("the terminal has gone away")


class EpochTable:
    """A table that is redrawn in place; what stays when it is closed is its last frame.

    Drawn by whoever calls ``show``, not by a thread: a fork in between can never inherit a lock of the display.
    """

    def __init__(self, names: Sequence[str], show_recent: int, console: Console | None = None) -> None:
        self._names = tuple(names)
        self._recent = show_recent
        self._console = console or Terminal()
        # Whoever sends standard output to a file wants it there, not above the table.
        self._live = Live(
            console=self._console, auto_refresh=False,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )  # fmt: skip
        self._live.start()

    def show(self, standing: Standing) -> None:
        """Draw a frame, of no more epochs than the terminal has lines for: the newest are at the lower end."""
        self._live.update(self._frame(standing, self._console.height - _AROUND), refresh=True)

    def close(self, standing: Standing) -> None:
        """Draw the last frame, with all epochs, and give the terminal back."""
        self._live.update(self._frame(standing))
        self._live.stop()

    def abandon(self) -> None:
        """Give the terminal back as it is."""
        self._live.stop()

    def _frame(self, standing: Standing, room: int | None = None) -> RenderableType:
        recent = self._recent if room is None else max(1, min(self._recent, room))
        standing = standing._replace(rows=standing.rows[-recent:])
        lines = _lines(standing)
        values = [[_value(row.fields.get(name)) for row in standing.rows] for name in self._names]
        layout = fitting(
            self._console.width, [max(map(len, column)) for column in zip(*lines, strict=True)],
            self._names, [max([len("1.234e-05"), *map(len, column)]) for column in values],
        )  # fmt: skip
        table = _empty_table(layout)
        fractions = [*(row.fraction for row in standing.rows), standing.fraction]
        for index, (epoch, done, elapsed, remain) in enumerate(lines[1:]):
            cells: list[RenderableType] = [Text(epoch), Text(done)]
            cells += [ProgressBar(total=1.0, completed=fractions[index])] if layout.has_bar else []
            cells += [Text(elapsed)] if layout.has_elapsed else []
            cells += [Text(remain, "cyan")]
            is_sum = index == len(standing.rows)
            cells += [] if is_sum else [column[index] for column in values[: len(layout.heads)]]
            table.add_row(*cells, end_section=index == len(standing.rows) - 1, style="bold" if is_sum else None)
        hidden = self._names[len(layout.heads) :]
        notes = [Text(standing.note, "yellow")] if standing.note else []
        notes += [Text(f"too narrow for {', '.join(hidden)}", "dim")] if hidden else []
        # While drawing goes on the cursor is in that line, where the ^C that a terminal echoes can break no full one.
        return Group(table, self._below(notes, layout)) if notes or room is not None else table

    def _below(self, notes: Sequence[Text], layout: Layout) -> Text:
        text = Text(" " * (layout.gap - 1), no_wrap=True, overflow="ellipsis")
        text.append_text(Text("; ").join(notes))
        text.truncate(max(1, self._console.width - len("^C^C")), overflow="ellipsis")
        return text


class Layout(NamedTuple):
    """What there is room for: blanks between columns, bar, Elapsed, and the heads of the fields that are shown."""

    gap: int
    has_bar: bool
    has_elapsed: bool
    heads: tuple[str, ...]


def fitting(width: int, fixed: Sequence[int], names: Sequence[str], values: Sequence[int]) -> Layout:
    r"""What fits into ``width`` characters, given the widths of Epoch, Percent, Elapsed and Remain, and of the values.

    What gives way, in this order: names are broken after a slash, columns move together, the bar goes, then Elapsed,
    then the fields from the last one on.

    >>> fitting(80, [5, 7, 7, 7], ['Train/Main'], [9])
    Layout(gap=2, has_bar=True, has_elapsed=True, heads=('Train/Main',))
    >>> fitting(40, [5, 7, 7, 7], ['Train/Main'], [9])
    Layout(gap=1, has_bar=False, has_elapsed=True, heads=('Train/\nMain',))
    """
    broken = tuple(name.replace("/", "/\n") for name in names)
    choices = [Layout(2, True, True, tuple(names)), Layout(2, True, True, broken), Layout(1, True, True, broken)]
    choices += [Layout(1, False, True, broken)]
    choices += [Layout(1, False, False, broken[:count]) for count in range(len(broken), -1, -1)]
    return next((layout for layout in choices if _width(layout, fixed, values) <= width), choices[-1])


def _width(layout: Layout, fixed: Sequence[int], values: Sequence[int]) -> int:
    epoch, done, elapsed, remain = fixed
    widths = [epoch, done, remain, *(max(_head_width(head), n) for head, n in zip(layout.heads, values, strict=False))]
    widths += [_BAR] if layout.has_bar else []
    widths += [elapsed] if layout.has_elapsed else []
    return sum(widths) + layout.gap * len(widths) - 1


def _head_width(head: str) -> int:
    return min(_LONGEST_NAME, max(len(piece) for piece in head.split("\n")))


def _lines(standing: Standing) -> list[tuple[str, str, str, str]]:
    """The columns that are always there, as text: heads, epochs, the sum."""
    lines = [("Epoch", "Percent", "Elapsed", "Remain")]
    for row in standing.rows:
        remain = None if row.fraction >= 1 else row.remain
        name = f"{row.epoch + 1}/{standing.epochs}"
        lines.append((name, percent(row.fraction), duration(row.elapsed), duration(remain)))
    remain = None if standing.fraction >= 1 else standing.remain
    return [*lines, ("all", percent(standing.fraction), duration(standing.elapsed), duration(remain))]


def _empty_table(layout: Layout) -> Table:
    table = Table(
        box=_RULES, show_edge=False, padding=(0, 0, 0, layout.gap - 1), expand=layout.has_bar, header_style=""
    )  # fmt: skip
    table.add_column("Epoch", justify="right", no_wrap=True)
    table.add_column("Percent", justify="right", no_wrap=True)
    if layout.has_bar:
        table.add_column("Progress", ratio=1, min_width=_BAR)
    if layout.has_elapsed:
        table.add_column("Elapsed", justify="right", no_wrap=True)
    table.add_column("Remain", justify="right", no_wrap=True)
    for head in layout.heads:
        table.add_column(Text(head), justify="right", vertical="bottom", no_wrap=True, max_width=_LONGEST_NAME)
    return table


def _value(value: float | None) -> Text:
    """A field of an epoch; what is not finite strikes the eye."""
    if value is None:
        return Text("")
    return Text(f"{value:.3e}", "" if math.isfinite(value) else "bold red")
