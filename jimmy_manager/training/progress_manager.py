"""The progress of a training: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.training.epoch_lines import EpochLines
from jimmy_manager.training.epoch_progress import EpochProgress, Standing, left, part

if TYPE_CHECKING:
    from rich.console import Console

    from jimmy_manager.training.epoch_table import EpochTable

log = logging.getLogger(__name__)


class ProgressManager:
    """Shows the most recent ``show_recent`` of ``epochs`` epochs of ``items_per_epoch`` steps each, and their sum.

    ``update`` says that a step is done; it redraws at most each ``refresh_interval`` seconds. ``custom_fields`` names
    further columns, whose values are written as ``1.234e-05``. Time inside of ``pause`` (an evaluation, a checkpoint)
    counts for the sum, but for no epoch. Where training goes on in the middle, ``begin`` says so.

    On a terminal this is a table that is redrawn in place; elsewhere, or above another live display, at most one line
    an epoch and one each 30 seconds inside of a long one. ``verbose=False`` shows nothing. ``close`` draws the last
    frame and may be called at any time; leaving the context does it. A display that fails is given up with a warning
    in the log, and never ends the training. Raises ConfigError for arguments that make no sense.
    """

    def __init__(
        self, items_per_epoch: int, epochs: int, show_recent: int, refresh_interval: float = 1,
        custom_fields: Iterable[str] | None = None, *, verbose: bool = True, console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._names = _checked_names(custom_fields)
        _check_least("items_per_epoch", items_per_epoch, 0)
        _check_least("epochs", epochs, 0)
        _check_least("show_recent", show_recent, 1)
        _check_least("refresh_interval", refresh_interval, 0)
        self.items_per_epoch = items_per_epoch
        self.epochs = epochs
        self.show_recent = show_recent
        self.refresh_interval = refresh_interval
        self._known = frozenset(self._names)
        self._console = console
        self._clock = clock
        self._rows: dict[int, EpochProgress] = {}
        self._row: EpochProgress | None = None
        self._view: EpochTable | EpochLines | None = None
        self._is_silent = not verbose
        self._is_closed = False
        self._note = ""
        self._pauses = 0
        self._paused_at = self._paused_s = 0.0
        self._due = self._pause_due = -math.inf
        self._begin: tuple[int, int] | None = None
        self._first = 0
        self._began = self._mark = clock()

    def begin(self, epoch: int, step: int = 0) -> None:
        """Say that ``step`` of ``epoch`` is the next to be done, and that its time begins now.

        Needed where training does not begin at 0, 0: else the pace of the first epoch is not known until its second
        update.
        """
        self._begin = (epoch, step)
        self._first = epoch * self.items_per_epoch + step
        self._began = self._clock()
        self._mark = self._training(self._began)

    def update(self, epoch: int, step: int, **fields: Any) -> None:
        """Say that ``step`` of ``epoch``, both from 0, is done; ``fields`` replace those told before for this epoch.

        Names with a slash go in as ``**{'Train/Main': loss}``. Values are numbers or 0-d tensors, read (back from the
        device) when a frame is drawn. The same step may be told again, say with the results of an evaluation; that
        adds no time to the epoch.

        Raises UnknownField for a field that is not one of ``custom_fields``, ConfigError for one that is no number.
        """
        if not fields.keys() <= self._known:
            raise self._unknown(fields)
        row = self._row
        if row is None or row.epoch != epoch:
            row = self._rows.get(epoch) or self._new_row(epoch, step)
        now = self._clock()
        self._mark = now - self._paused_s if not self._pauses else self._training(now)
        if step != row.step:
            row.step, row.seen, self._row = step, self._mark, row
        if fields:
            row.fields.update(fields)
        if now >= self._due:
            self._show()

    @property
    def overall_progress(self) -> float:
        """The part of the whole training that is done, from 0 to 1."""
        return part(self._position(), self.epochs * self.items_per_epoch)

    @contextmanager
    def pause(self, note: str = "evaluating") -> Iterator[None]:
        """Inside of this context time is charged to no epoch, and ``note`` stands below the table."""
        before, self._note = self._note, note
        if not self._pauses:
            self._paused_at = self._clock()
        self._pauses += 1
        # Whenever the last frame was drawn: else it would show all along how things were before the pause.
        if (now := self._clock()) >= self._pause_due:
            self._pause_due = now + self.refresh_interval
            self._show()
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self._paused_s += self._clock() - self._paused_at
            self._note = before

    def note(self, text: str) -> None:
        """Let ``text`` stand below the table from the next frame on; an empty one takes it away."""
        self._note = text
        if self._clock() >= self._due:
            self._show()

    def close(self) -> None:
        """Draw the last frame and give the terminal back; may be called at any time and any number of times."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._row is None and self._view is None:
            return  # nothing was ever told
        self._tell(self._standing(), is_last=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._note = f"stopped by {kind.__name__}"
        self.close()

    def _training(self, now: float) -> float:
        """The moment ``now`` on a clock that stands still in pauses."""
        return (self._paused_at if self._pauses else now) - self._paused_s

    def _new_row(self, epoch: int, step: int) -> EpochProgress:
        first, began = 0, self._mark
        if self._row is None:
            if self._begin is not None:
                first = self._begin[1] if self._begin[0] == epoch else 0
            elif epoch > 0:
                # Resumed, and nobody said where: only what follows this update tells of the pace.
                first, began = step + 1, self._training(self._clock())
                self._first = epoch * self.items_per_epoch + first
        elif not self._is_silent:
            self._row.fields = self._numbers(self._row)
        row = self._rows[epoch] = EpochProgress(epoch, self.items_per_epoch, first, began)
        # Lines tell of an epoch when the next one has begun, and so need two.
        while len(self._rows) > max(2, self.show_recent):
            del self._rows[next(iter(self._rows))]
        return row

    def _position(self) -> int:
        row = self._row
        return self._first if row is None else row.epoch * self.items_per_epoch + row.step + 1

    def _standing(self) -> Standing:
        for row in self._rows.values():
            row.fields = self._numbers(row)
        elapsed, at = self._clock() - self._began, self._position()
        remain = left(elapsed, at - self._first, self.epochs * self.items_per_epoch - at)
        return Standing(tuple(self._rows.values()), self.epochs, self.overall_progress, elapsed, remain, self._note)

    def _numbers(self, row: EpochProgress) -> dict[str, float]:
        """The fields of a row in the order of their columns, read back; one that is no number is told of once."""
        numbers: dict[str, float] = {}
        for name in self._names:
            value = row.fields.get(name)
            if value is None:
                continue
            if type(value) is not float:
                del row.fields[name]
                value = row.fields[name] = _number(name, value)
            numbers[name] = value
        return numbers

    def _show(self) -> None:
        if not self._is_silent and not self._is_closed:
            self._tell(self._standing(), is_last=False)
        self._due = self._clock() + self.refresh_interval

    def _tell(self, standing: Standing, *, is_last: bool) -> None:
        if self._is_silent:
            return
        try:
            if self._view is None:
                self._view = self._chosen()
            if self._view is None:
                self._is_silent = True
            else:
                (self._view.close if is_last else self._view.show)(standing)
        except Exception as error:  # a terminal that went away has no say in the training
            self._is_silent = True
            log.warning("progress is shown no longer: %s: %s", type(error).__name__, error, exc_info=error)
            self._abandon()

    def _abandon(self) -> None:
        try:
            if self._view is not None:
                self._view.abandon()
        except Exception as error:  # it failed a moment ago
            log.debug("the terminal could not be given back", exc_info=error)

    def _chosen(self) -> EpochTable | EpochLines | None:
        stream = self._console.file if self._console is not None else sys.stderr
        if stream is None or stream.closed:
            return None
        # rich puts a proxy before the streams while it draws; two live displays would overwrite each other.
        is_taken = self._console is None and hasattr(stream, "rich_proxied_file")
        if is_taken or not self._can_draw(stream):
            return EpochLines(stream=None if self._console is None else stream, clock=self._clock)
        from rich.errors import LiveError

        from jimmy_manager.training.epoch_table import EpochTable

        try:
            table = EpochTable(self._names, self.show_recent, self._console)
        except LiveError:  # before rich 14.1, where the console has a live display already
            return EpochLines(clock=self._clock)
        # Else a training that nobody closed would leave a terminal without a cursor.
        weakref.finalize(self, _restore, table, os.getpid())
        return table

    def _can_draw(self, stream: Any) -> bool:
        if self._console is not None:
            return self._console.is_terminal and not self._console.is_dumb_terminal
        return bool(stream.isatty()) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")

    def _unknown(self, fields: Iterable[str]) -> UnknownField:
        name = next(name for name in fields if name not in self._known)
        near = get_close_matches(name, self._names, n=1)
        known = f"there are {', '.join(self._names)}" if self._names else "there are none"
        advice = f"did you mean {near[0]!r}?" if near else f"{known}; name it in custom_fields of ProgressManager"
        return UnknownField(f"unknown field {name!r} of progress; {advice}")


def _restore(table: EpochTable, pid: int) -> None:
    """Give the terminal back; not in a fork of the process that has it."""
    if os.getpid() == pid:
        table.abandon()


def _checked_names(names: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ConfigError(f"custom_fields is the text {names!r}; give a list of names: [{names!r}]")
    checked = tuple(names or ())
    for index, name in enumerate(checked):
        if not isinstance(name, str) or not name or name in ("self", "epoch", "step"):
            raise ConfigError(
                f"custom_fields[{index}] is {name!r}; a field needs a name other than epoch, step and self"
            )
        if name in checked[:index]:
            raise ConfigError(f"custom_fields names {name!r} twice; drop one")
    return checked


def _check_least(name: str, value: float, least: int) -> None:
    if not isinstance(value, int | float) or not value >= least:
        raise ConfigError(f"{name} of ProgressManager is {value!r}; it must be a number not below {least}")


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str):
            return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        pass  # told below, with the field's name
    raise ConfigError(f"field {name!r} of progress is {value!r}; it must be a number or a 0-d tensor")
