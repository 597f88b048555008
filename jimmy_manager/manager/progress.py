"""What a worker tells of its progress: the base class tells nothing, its two kinds draw bars or write lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jimmy_manager.manager.schedule import BatchReport

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_METRICS = ("loss", "acc")


class Progress:
    """Told by ``Manager`` what happens; every method may be left out by a subclass."""

    is_chosen = False
    """Whether ``choose`` made it; any other one was set by a user, who wants to keep it."""

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


def choose(manager: Manager) -> Progress:
    """The Progress for one call of ``process`` or ``batch``: bars on a terminal, lines elsewhere, else nothing."""
    current, stream = manager.progress, sys.stderr
    if type(current) is not Progress and not current.is_chosen:
        return current
    if not manager.verbose or stream is None:
        return Progress()
    chosen: Progress
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        from jimmy_manager.manager.progress_bars import ProgressBars

        chosen = ProgressBars(manager.stop, manager.disp_interval, manager.main_metric)
    else:
        from jimmy_manager.manager.progress_lines import ProgressLines

        clock = manager.store.claims.clock
        chosen = ProgressLines(manager.stop, manager.disp_interval, manager.main_metric, clock=clock)
    chosen.is_chosen = True
    return chosen


def metric(preview: Mapping[str, Any], name: str = "") -> str:
    """``NAME VALUE`` of the number ``name`` of a preview, else of the first whose name begins with loss or acc.

    >>> metric({'epochs': 3, 'acc_valid': 0.98761, 'loss': 0.1}), metric({'note': 'x'})
    ('acc_valid 0.9876', '')
    """
    from jimmy_manager.manager.plain_text import plain

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
