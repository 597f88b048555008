"""What a worker tells of its progress: the base class tells nothing, its two kinds draw bars or write lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jimmy_manager.manager.schedule import BatchReport

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

log = logging.getLogger(__name__)

_METRICS = ("loss", "acc")


class Progress:
    """Told by ``Manager`` what happens; every method may be left out by a subclass."""

    def begin_batch(self, total: int | None) -> None:
        """A batch of ``total`` configurations begins; None where nobody knows how many."""

    def begin_run(self, key: str, config: Mapping[str, Any], epoch: int, last: int) -> None:
        """A run is about to be trained from ``epoch`` to ``last``."""

    def after_epoch(self, key: str, epoch: int, last: int, preview: Mapping[str, Any]) -> None:
        """An epoch of the run ended; ``preview`` is that of the newest evaluation."""

    def end_run(self, key: str, state: str, message: str = "") -> None:
        """The run ended here as ``done``, ``stopped``, ``lost`` or ``failed``."""

    def after_config(self, report: BatchReport) -> None:
        """One more configuration of the batch was dealt with."""

    def end_batch(self, report: BatchReport) -> None:
        """The batch is over."""

    def close(self) -> None:
        """Give the terminal back; may be called any number of times."""


class Guarded(Progress):
    """Passes every call on to ``inner`` until one fails: that is logged once, and nothing is told from then on.

    A terminal that went away, or a mistake in a display of the user's own, must never decide about a run.
    """

    def __init__(self, inner: Progress, *, is_chosen: bool = False) -> None:
        self.inner = inner
        self.is_chosen = is_chosen
        self._is_silent = False

    def begin_batch(self, total: int | None) -> None:
        self._tell("begin_batch", total)

    def begin_run(self, key: str, config: Mapping[str, Any], epoch: int, last: int) -> None:
        self._tell("begin_run", key, config, epoch, last)

    def after_epoch(self, key: str, epoch: int, last: int, preview: Mapping[str, Any]) -> None:
        self._tell("after_epoch", key, epoch, last, preview)

    def end_run(self, key: str, state: str, message: str = "") -> None:
        self._tell("end_run", key, state, message)

    def after_config(self, report: BatchReport) -> None:
        self._tell("after_config", report)

    def end_batch(self, report: BatchReport) -> None:
        self._tell("end_batch", report)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str, *arguments: Any) -> None:
        if self._is_silent:
            return
        try:
            getattr(self.inner, what)(*arguments)
        except Exception as error:  # a display is told what happens, and has no say in it
            self._is_silent = True
            reason = f"{what}() raised {type(error).__name__}: {error}"
            log.warning("progress is shown no longer: %s.%s", type(self.inner).__name__, reason, exc_info=error)
            with suppress(Exception):  # what it holds of the terminal; it failed a moment ago
                self.inner.close()


def choose(manager: Manager) -> Progress:
    """The Progress for one call of ``process`` or ``batch``: bars on a terminal, lines elsewhere, else nothing.

    One that a user has set is kept. All are ``Guarded``.
    """
    current = manager.progress
    if isinstance(current, Guarded):
        if not current.is_chosen:
            return current
    elif type(current) is not Progress:
        return Guarded(current)
    return Guarded(_chosen(manager), is_chosen=True)


def _chosen(manager: Manager) -> Progress:
    stream = sys.stderr
    if not manager.verbose or stream is None or stream.closed:
        return Progress()
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        from jimmy_manager.manager.progress_bars import ProgressBars

        return ProgressBars(manager.stop, manager.disp_interval, manager.main_metric)
    from jimmy_manager.manager.progress_lines import ProgressLines

    return ProgressLines(manager.stop, manager.disp_interval, manager.main_metric, clock=manager.store.claims.clock)


def metric(preview: Mapping[str, Any], name: str = "") -> str:
    """``NAME VALUE`` of the number ``name`` of a preview, else of the first whose name begins with loss or acc.

    >>> metric({'epochs': 3, 'acc_valid': 0.98761, 'loss': 0.1}), metric({'note': 'x'})
    ('acc_valid 0.9876', '')
    """
    from jimmy_manager.plain_text import plain

    for key in (name,) if name else preview:
        value: Any = preview.get(key)
        if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a scalar of numpy's or torch's
            value = value.item()
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and (name or str(key).startswith(_METRICS)):
            return f"{plain(key)} {value:.4g}"
    return ""


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.0123), duration(3.14159), duration(75), duration(7300), duration(200_000)
    ('12 ms', '3.1 s', '1:15', '2:01:40', '2 d 7 h')
    """
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
