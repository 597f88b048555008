"""Progress as plain lines: for logs, pipes and notebooks."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from jimmy_manager.archives.clock import Clock
from jimmy_manager.config import Config
from jimmy_manager.manager.progress import Progress, duration, metric
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.plain_text import plain
from jimmy_manager.signals import StopFlag

_LONGEST = 100


class ProgressLines(Progress):
    """A line when a run begins and ends; between them one every ``disp_interval`` epochs, ``every_s`` seconds apart."""

    def __init__(
        self, stop: StopFlag, disp_interval: int = 1, main_metric: str = "", *, every_s: float = 5.0,
        stream: TextIO | None = None, clock: Clock | None = None,
    ) -> None:
        self._stop = stop
        self._interval = max(1, disp_interval)
        self._metric = main_metric
        self._every_s = every_s
        self._stream: TextIO | None = stream or sys.stderr
        self._clock = clock or Clock()
        self._began = self._told = 0.0
        self._at = ""
        self._has_told_stop = False

    def begin_run(self, key: str, config: Mapping[str, Any], epoch: int, last: int) -> None:
        self._began = self._told = self._clock.monotonic()
        self._at = f"epoch {epoch}/{last}"
        leaves = Config(config).flatten().items()
        fields = plain(" ".join(f"{path}={value}" for path, value in leaves if not path.endswith("_target_")))
        shown = fields if len(fields) <= _LONGEST else f"{fields[: _LONGEST - 1]}…"
        self._tell(f"{key} {'begins' if epoch == 0 else f'goes on after epoch {epoch}/{last}'}: {shown}")

    def after_epoch(self, key: str, epoch: int, last: int, preview: Mapping[str, Any]) -> None:
        shown = metric(preview, self._metric)
        self._at = f"epoch {epoch}/{last}" + (f", {shown}" if shown else "")
        now = self._clock.monotonic()
        if self._stop and not self._has_told_stop:
            self._has_told_stop = True
            self._tell(f"{key} {self._at}; {self._stop.reason} came, saving and stopping")
        elif epoch < last and epoch % self._interval == 0 and now - self._told >= self._every_s:
            self._told = now
            self._tell(f"{key} {self._at}")

    def end_run(self, key: str, state: str, message: str = "") -> None:
        # A hook may fail before there is an epoch to tell of.
        facts = [self._at, duration(self._clock.monotonic() - self._began)] if self._at else []
        self._tell(", ".join([f"{key} {state}", *facts]) + (f": {plain(message)}" if message else ""))
        self._at = ""

    def end_batch(self, report: BatchReport) -> None:
        self._tell(str(report))

    def _tell(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()
        except OSError:
            # A log on a full disk, a pipe whose reader has gone: no reason to lose a run that trains well.
            self._stream = None
