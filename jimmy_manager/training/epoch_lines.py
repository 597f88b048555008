"""Epochs as plain lines: for the log of a batch job, a pipe, a notebook, or above another live display."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO

from jimmy_manager.training.epoch_progress import EpochProgress, Standing, duration, percent


class EpochLines:
    """A line for an epoch once the next one has begun, and one each ``every_s`` seconds inside of a long one.

    A line for an epoch waits for the next because evaluation still adds to it. Epochs that are shorter than the
    intervals at which ``show`` is called are left out, save the last. Without a ``stream`` lines go to whatever
    ``sys.stderr`` is at that moment.
    """

    def __init__(
        self, *, stream: IO[str] | None = None, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._every_s = every_s
        self._clock = clock
        self._told_at = clock()
        self._told_epoch = -1
        self._last = ""

    def show(self, standing: Standing) -> None:
        """Write what has become worth a line."""
        finished = [row for row in standing.rows[:-1] if row.epoch > self._told_epoch]
        if finished:
            self._tell(finished[-1], standing, is_over=True)
        elif standing.rows and self._clock() - self._told_at >= self._every_s:
            self._tell(standing.rows[-1], standing, is_over=False)

    def close(self, standing: Standing) -> None:
        """Write the state in which training ended, unless that was the last line."""
        if standing.rows:
            self._tell(standing.rows[-1], standing, is_over=True)

    def abandon(self) -> None:
        """Nothing is held of the terminal."""

    def _tell(self, row: EpochProgress, standing: Standing, *, is_over: bool) -> None:
        text = line(row, standing)
        self._told_at = self._clock()
        if is_over:
            self._told_epoch = row.epoch
        if text == self._last:
            return
        self._last = text
        stream = self._stream or sys.stderr
        stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        stream.flush()


def line(row: EpochProgress, standing: Standing) -> str:
    """The state of one epoch and of all as one line of text.

    >>> row = EpochProgress(epoch=2, items=4, first=0, began=0.0, step=1, seen=5.0, fields={'Train/Main': 0.125})
    >>> line(row, Standing([row], 10, 0.25, 30.0, 90.0, 'evaluating'))
    'epoch 3/10, 50 %, 5.0 s, 5.0 s left | Train/Main 1.250e-01 | all 25 %, 1:30 left | evaluating'
    """
    at = [f"epoch {row.epoch + 1}/{standing.epochs}"]
    if row.fraction < 1:
        at.append(percent(row.fraction))
    at.append(duration(row.elapsed))
    if row.fraction < 1 and row.remain is not None:
        at.append(f"{duration(row.remain)} left")
    whole = [f"all {percent(standing.fraction)}"]
    if standing.fraction < 1 and standing.remain is not None:
        whole.append(f"{duration(standing.remain)} left")
    fields = [f"{name} {value:.3e}" for name, value in row.fields.items()]
    return " | ".join(", ".join(words) for words in (at, fields, whole, [standing.note]) if words and words[0])
