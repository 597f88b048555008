"""Progress as bars on a terminal: one for the batch, one for the run at hand."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from jimmy_manager.manager.progress import Progress, duration, metric
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.plain_text import plain
from jimmy_manager.signals import StopFlag

_WIDE = 100
_STYLES = {"done": "green", "failed": "red", "lost": "yellow", "stopped": "yellow"}


class ProgressBars(Progress):
    """Bars that vanish when they are done; what stays is a line for each run and one for the batch."""

    def __init__(
        self, stop: StopFlag, disp_interval: int = 1, main_metric: str = "", *, console: Console | None = None
    ) -> None:
        self._stop = stop
        self._interval = max(1, disp_interval)
        self._metric = main_metric
        console = console or Console(stderr=True, highlight=False)
        is_narrow = console.width < _WIDE
        # Whoever sends standard output to a file wants it there, not above the bars.
        self._bars = Bars(
            _Words("name", "bold"), BarColumn(None if is_narrow else 40), _Words("count"), _Words("note", clips=True),
            _Left(stop), console=console, transient=True, expand=is_narrow, refresh_per_second=5,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )  # fmt: skip
        self._batch: TaskID | None = None
        self._run: TaskID | None = None
        self._total: int | None = None
        self._first = 0
        self._began = self._batch_began = 0.0
        self._note = ""

    def begin_batch(self, total: int | None) -> None:
        if total == 1:
            return
        self._total, self._batch_began = total, time.monotonic()
        self._batch = self._bars.add_task("", total=total, name="all runs", count=_of(0, total), note="", left=None)
        self._bars.start()

    def begin_run(self, key: str, config: Mapping[str, Any], epoch: int, last: int) -> None:
        self._first, self._began, self._note = epoch, time.monotonic(), ""
        self._run = self._bars.add_task(
            "", total=max(last, 1), completed=epoch, name=key, count=_of(epoch, last), note="", left=None
        )
        self._bars.start()

    def after_epoch(self, key: str, epoch: int, last: int, preview: Mapping[str, Any]) -> None:
        self._note = metric(preview, self._metric)
        if self._run is not None and (epoch % self._interval == 0 or epoch == last):
            left = _estimate(self._began, epoch - self._first, last - epoch)
            self._bars.update(self._run, completed=epoch, count=_of(epoch, last), note=self._note, left=left)

    def end_run(self, key: str, state: str, message: str = "") -> None:
        at = ""
        if self._run is not None:
            at = self._bars.tasks[self._bars.task_ids.index(self._run)].fields["count"]
            self._bars.remove_task(self._run)
            self._run = None
        took = duration(time.monotonic() - self._began) if at else ""
        line = Text.assemble((key, "bold"), "  ", (f"{state:<7}", _STYLES.get(state, "")))
        for part in (at, self._note, took, plain(message)):
            line.append(f"  {part}" if part else "")
        self._bars.console.print(line, highlight=False, overflow="ellipsis", no_wrap=not message)

    def after_config(self, report: BatchReport) -> None:
        if self._batch is None:
            return
        behind = len(report.done) + len(report.skipped) + len(report.failed)
        parts = [f"{len(report.done) + len(report.skipped)} done"]
        parts += [f"{len(keys)} {name}" for keys, name in ((report.busy, "busy"), (report.failed, "failed")) if keys]
        left = None if self._total is None else _estimate(self._batch_began, behind, self._total - behind)
        self._bars.update(
            self._batch, completed=behind, count=_of(behind, self._total), note=", ".join(parts), left=left
        )

    def end_batch(self, report: BatchReport) -> None:
        self.close()
        if self._batch is not None or report.stopped:
            self._bars.console.print(Text(str(report)), highlight=False)

    def close(self) -> None:
        self._bars.stop()


class _Words(ProgressColumn):
    """One field of a task as it is: never markup."""

    def __init__(self, field: str, style: str = "", *, clips: bool = False) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis", min_width=None if clips else 1))
        self._field = field
        self._style = style

    def render(self, task: Task) -> Text:
        return Text(task.fields[self._field], style=self._style)


class _Left(ProgressColumn):
    """The time that is left, counted down between the estimates; or that a stop was asked for."""

    max_refresh = None

    def __init__(self, stop: StopFlag) -> None:
        super().__init__(Column(no_wrap=True, justify="right"))
        self._stop = stop

    def render(self, task: Task) -> Text:
        if self._stop:
            return Text("saving, then stopping", style="yellow")
        ends = task.fields["left"]
        return Text("" if ends is None else f"{duration(max(0.0, ends - time.monotonic()))} left", style="dim")


def _of(count: int, total: int | None) -> str:
    return str(count) if total is None else f"{count}/{total}"


def _estimate(began: float, behind: int, ahead: int) -> float | None:
    """When the rest will be done at the pace so far, on the monotonic clock; None while there is no pace."""
    now = time.monotonic()
    return now + (now - began) / behind * ahead if behind > 0 else None
