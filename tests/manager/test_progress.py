"""What a worker tells: bars on a terminal, lines elsewhere, nothing when it is told to be quiet."""

from __future__ import annotations

import io
import logging
import math
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jimmy_manager import Config, Manager
from jimmy_manager.archives.clock import Clock
from jimmy_manager.manager import progress
from jimmy_manager.manager.progress import Guarded, Progress
from jimmy_manager.manager.progress_bars import ProgressBars
from jimmy_manager.manager.progress_lines import ProgressLines
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.signals import StopFlag

HOSTILE = "\x1b[2J[red]markup[/red]\r"


class Tiny(Manager):
    num_epochs = 3

    def train(self) -> None:
        if self.config.get("bad"):
            raise ValueError(HOSTILE)

    def eval(self) -> Mapping[str, Any]:
        return {"size": 1, "acc_test": 0.25, "loss": 1 / (1 + self.epoch)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Steps(Clock):
    """A clock that moves by ``step`` seconds at each look."""

    def __init__(self, step: float) -> None:
        self.time, self.step = 0.0, step

    def monotonic(self) -> float:
        self.time += self.step
        return self.time


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def lines_of(step: float = 1.0, **settings: Any) -> tuple[ProgressLines, io.StringIO]:
    stream = io.StringIO()
    return ProgressLines(StopFlag(), stream=stream, clock=Steps(step), **settings), stream


def one_run(told: Progress, epochs: int = 6, key: str = "abcdef12") -> None:
    told.begin_batch(2)
    told.begin_run(key, Config(lr=0.1, model={"_target_": "torch.nn.Linear", "name": HOSTILE}), 0, epochs)
    for epoch in range(1, epochs + 1):
        told.after_epoch(key, epoch, epochs, {"loss": 1 / epoch})
    told.end_run(key, "done")
    told.after_config(BatchReport(done=[key], busy=["b"]))


def test_lines_name_the_run_its_fields_its_metric_and_its_end() -> None:
    told, stream = lines_of(every_s=0.0)
    one_run(told, 2)
    told.end_batch(BatchReport(done=["abcdef12"], busy=["b"]))
    begins, epoch, done, batch = stream.getvalue().splitlines()
    assert "abcdef12 begins: lr=0.1 model.name=\\x1b[2J[red]markup[/red]\\r" in begins
    assert "_target_" not in begins
    assert "abcdef12 epoch 1/2, loss 1" in epoch
    assert "abcdef12 done, epoch 2/2, loss 0.5" in done
    assert "1 done, 0 complete before, 1 busy" in batch


def test_lines_come_at_the_interval_of_epochs_and_no_more_often_than_a_reader_wants() -> None:
    told, stream = lines_of(every_s=0.0, disp_interval=2)
    one_run(told, 7)
    assert [line.partition("epoch ")[2][0] for line in stream.getvalue().splitlines()[1:-1]] == ["2", "4", "6"]
    told, stream = lines_of(step=1.0, every_s=2.5)
    one_run(told, 7)
    assert [line.partition("epoch ")[2][0] for line in stream.getvalue().splitlines()[1:-1]] == ["3", "6"]


def test_a_resumed_run_says_where_it_goes_on() -> None:
    told, stream = lines_of()
    told.begin_run("abcdef12", Config(lr=0.1), 12, 30)
    assert "goes on after epoch 12/30: lr=0.1" in stream.getvalue()


def test_a_stop_is_told_once_and_at_once() -> None:
    stop, stream = StopFlag(), io.StringIO()
    told = ProgressLines(stop, stream=stream, clock=Steps(0.0))
    told.begin_run("abcdef12", {}, 0, 9)
    stop.set("SIGTERM")
    told.after_epoch("abcdef12", 1, 9, {})
    told.after_epoch("abcdef12", 2, 9, {})
    assert stream.getvalue().count("SIGTERM came, saving and stopping") == 1


def test_a_log_that_cannot_be_written_costs_no_run() -> None:
    one_run(ProgressLines(StopFlag(), stream=FullDisk()))


@pytest.mark.parametrize("wide", [80, 200])
def test_bars_show_run_and_batch_within_the_terminal(wide: int) -> None:
    stream = Terminal()
    console = Console(file=stream, width=wide, force_terminal=True, color_system=None, legacy_windows=False)
    told = ProgressBars(StopFlag(), console=console)
    told.begin_batch(48)
    told.begin_run("abcdef12", {}, 0, 30)
    told.after_epoch("abcdef12", 12, 30, {"loss_valid": 0.123456})
    told.after_config(BatchReport(done=["a"], busy=["b"], failed=["c"]))
    shown = console.render_lines(told._bars.get_renderable())
    batch, run = ("".join(segment.text for segment in line) for line in shown)
    told.close()
    assert "all runs" in batch
    assert "2/48" in batch
    assert "1 done, 1 busy, 1 failed" in batch
    assert "abcdef12" in run
    assert "12/30" in run
    assert "loss_valid 0.1235" in run
    assert run.rstrip().endswith("left")
    assert max(len(batch.rstrip()), len(run.rstrip())) <= wide


def test_bars_leave_a_line_for_each_run_and_never_interpret_text() -> None:
    stream = Terminal()
    console = Console(file=stream, width=200, force_terminal=True, color_system=None, legacy_windows=False)
    told = ProgressBars(StopFlag(), console=console)
    told.begin_run("abcdef12", {}, 0, 3)
    told.after_epoch("abcdef12", 2, 3, {HOSTILE: 1, "loss" + HOSTILE: 0.5})
    told.end_run("abcdef12", "failed", f"ValueError: {HOSTILE}")
    told.end_batch(BatchReport(failed=["abcdef12"], stopped="SIGTERM"))
    text = stream.getvalue()
    assert "ValueError: \\x1b[2J[red]markup[/red]\\r" in text
    assert "\x1b[2J" not in text
    assert "stopped by SIGTERM" in text


def test_bars_say_that_they_are_stopping() -> None:
    stop = StopFlag()
    console = Console(file=Terminal(), width=100, force_terminal=True)
    told = ProgressBars(stop, console=console)
    told.begin_run("abcdef12", {}, 0, 3)
    stop.set("SIGINT")
    text = "".join(segment.text for line in console.render_lines(told._bars.get_renderable()) for segment in line)
    told.close()
    assert "saving, then stopping" in text


def test_bars_of_one_run_have_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ProgressBars(StopFlag(), console=Console(file=Terminal(), force_terminal=True))
    told.begin_batch(1)
    told.begin_run("abcdef12", {}, 0, 3)
    assert len(told._bars.tasks) == 1
    told.close()
    told.close()


def test_bars_draw_only_every_so_many_epochs() -> None:
    told = ProgressBars(StopFlag(), disp_interval=3, console=Console(file=Terminal(), force_terminal=True))
    told.begin_run("abcdef12", {}, 0, 10)
    drawn = []
    for epoch in range(1, 11):
        told.after_epoch("abcdef12", epoch, 10, {})
        drawn.append(told._bars.tasks[0].completed)
    told.close()
    assert drawn == [0, 0, 3, 3, 3, 6, 6, 6, 9, 10]


@pytest.mark.parametrize(
    ("preview", "name", "shown"),
    [
        ({"size": 3, "acc": 0.5, "loss": 0.1}, "", "acc 0.5"),
        ({"size": 3, "acc": 0.5, "loss": 0.1}, "size", "size 3"),
        ({"loss": True, "loss_b": "x", "loss_c": np.float32(0.5)}, "", "loss_c 0.5"),
        ({"loss": np.zeros(3), "other": 1.0}, "", ""),
        ({"loss": float("nan")}, "", "loss nan"),
        ({1: 2.0, "loss\x1b": 1}, "", "loss\\x1b 1"),
        ({}, "psnr", ""),
    ],
)
def test_the_main_metric_is_the_first_loss_or_accuracy_unless_named(
    preview: Mapping[Any, Any], name: str, shown: str
) -> None:
    assert progress.metric(preview, name) == shown


def test_a_manager_tells_by_lines_where_nobody_watches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manager = Tiny(tmp_path, device="cpu")
    key = manager.process({"lr": 0.1})
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{key} done, epoch 3/3, acc_test 0.25" in err
    report = manager.batch([{"lr": 0.1}, {"bad": True}], max_errors=9)
    assert f"{report.failed[0]} failed" in (err := capsys.readouterr().err)
    assert "0 done, 1 complete before, 1 failed" in err
    assert "\x1b" not in err


def test_a_manager_that_is_not_verbose_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Tiny(tmp_path, device="cpu", verbose=False).sweep({"lr": [1, 2]})
    assert capsys.readouterr() == ("", "")


def test_a_manager_draws_bars_on_a_terminal_and_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    manager = Tiny(tmp_path, device="cpu")
    manager.sweep({"lr": [1, 2]})
    assert isinstance(manager.progress.inner, ProgressBars)
    assert "2 done, 0 complete before" in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h")
    monkeypatch.setenv("TERM", "dumb")
    manager.sweep({"lr": [1, 2, 3]})
    assert isinstance(manager.progress.inner, ProgressLines)


def test_a_progress_of_the_users_own_is_kept(tmp_path: Path) -> None:
    class Mine(Progress):
        def __init__(self) -> None:
            self.ends: list[str] = []

        def end_run(self, key: str, state: str, message: str = "") -> None:
            self.ends.append(state)

    manager = Tiny(tmp_path, device="cpu")
    manager.progress = mine = Mine()
    manager.process({"lr": 1})
    manager.process({"lr": 2})
    assert isinstance(manager.progress, Guarded)
    assert manager.progress.inner is mine
    assert mine.ends == ["done", "done"]


class Broken(Progress):
    """Raises in every method from the call ``fails_from`` on, closing included."""

    def __init__(self, fails_from: float) -> None:
        self.calls: list[str] = []
        self._fails_from = fails_from

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(Progress, name):
            self.calls.append(name)
            if len(self.calls) >= self._fails_from:
                raise ZeroDivisionError(f"in {name}")
        return object.__getattribute__(self, name)


def test_a_progress_that_fails_at_any_call_changes_no_run_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def calls_of(fails_from: float) -> list[str]:
        caplog.clear()
        manager = Tiny(None, device="cpu")
        manager.progress = broken = Broken(fails_from)
        report = manager.batch([{"lr": 1}, {"lr": 2}, {"bad": True}], max_errors=9)
        assert (len(report.done), len(report.failed)) == (2, 1)
        return broken.calls

    def told() -> list[str]:
        return [text for text in map(logging.LogRecord.getMessage, caplog.records) if "no longer" in text]

    whole = calls_of(math.inf)
    assert (set(whole), told()) == ({name for name in vars(Progress) if not name.startswith("_")}, [])
    for number, name in enumerate(whole, 1):
        assert calls_of(number) == [*whole[:number], "close"]
        assert told() == [f"progress is shown no longer: Broken.{name}() raised ZeroDivisionError: in {name}"]


ON_A_TERMINAL = """
import signal, sys, time
from pathlib import Path
from jimmy_manager import Manager

class Slow(Manager):
    num_epochs = 3
    def train(self):
        Path("training").touch()
        if self.config.i:
            while not Path("gone").exists():
                time.sleep(0.01)
        time.sleep(0.3)
    def eval(self):
        return {"loss": 0.5}

signal.signal(signal.SIGHUP, signal.SIG_IGN)
Path("report").write_text(str(Slow("store", device="cpu").sweep({"i": [0, 1, 2]}, order="given", max_errors=9)))
"""


def test_a_terminal_that_goes_away_costs_no_run(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL], stdin=slave, stdout=slave, stderr=slave, env=environment,
        start_new_session=True, cwd=tmp_path,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"done" not in shown:  # the line of the first run
        shown += os.read(master, 65536)
    os.close(master)
    (tmp_path / "gone").touch()
    process.wait(timeout=60)
    assert b"all runs" in shown
    assert (tmp_path / "report").read_text().startswith("3 done, 0 complete before")


def test_a_manager_names_its_main_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Named(Tiny):
        main_metric = "loss"

    Named(tmp_path, device="cpu").process({"lr": 1})
    assert "epoch 3/3, loss 0.25" in capsys.readouterr().err


def test_busy_runs_are_told_while_the_batch_goes_on(tmp_path: Path) -> None:
    class Mine(Progress):
        def __init__(self) -> None:
            self.busy: list[int] = []

        def after_config(self, report: BatchReport) -> None:
            self.busy.append(len(report.busy))

    other, manager = (Tiny(tmp_path, device="cpu", verbose=False) for _ in range(2))
    held = other.store.register(other.get_config({"lr": 1}))
    claim = other.store.claims.take(other.store.standing(held.key), held.digest)
    assert claim is not None
    manager.progress = mine = Mine()
    report = manager.batch([{"lr": 1}, {"lr": 2}])
    claim.drop()
    assert mine.busy[0] == 1
    assert (len(report.done), report.busy) == (1, [held.key])


def test_a_line_of_a_run_that_failed_before_its_first_epoch_tells_of_no_epoch() -> None:
    stream = io.StringIO()
    lines = ProgressLines(StopFlag(), stream=stream, clock=Steps(1.0))
    lines.end_run("abcdef12", "failed", "TypeError: no width")
    assert stream.getvalue().rstrip().endswith("abcdef12 failed: TypeError: no width")
