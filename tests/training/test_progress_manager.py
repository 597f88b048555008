from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from rich.console import Console
from rich.live import Live

from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.training.epoch_table import Terminal
from jimmy_manager.training.progress_manager import ProgressManager

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def last_frame(console: Console) -> list[str]:
    text = ANSI.sub("", written(console)).replace("\r", "")
    return [line.strip() for line in text[text.rindex("Epoch") :].splitlines() if line.strip()]


def test_a_table_shows_the_recent_epochs_and_their_sum(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(4, 10, 2, custom_fields=["Train/Main"], console=console, clock=clock) as pm:
        for epoch in range(3):
            for step in range(4):
                clock.wait(2)
                pm.update(epoch, step, **{"Train/Main": 0.5 ** (4 * epoch + step)})
        clock.wait(2)
        pm.update(3, 0)
        assert pm.overall_progress == pytest.approx(13 / 40)
    head, _, third, fourth, _, whole = last_frame(console)
    assert head.split() == ["Epoch", "Percent", "Progress", "Elapsed", "Remain", "Train/Main"]
    assert re.sub("━+", "bar", third).split() == ["3/10", "100", "%", "bar", "8.0", "s", f"{0.5**11:.3e}"]
    assert re.sub("[━╸╺]+", "bar", fourth).split() == ["4/10", "25", "%", "bar", "2.0", "s", "6.0", "s"]
    assert re.sub("[━╸╺]+", "bar", whole).split() == ["all", "32", "%", "bar", "26.0", "s", "54.0", "s"]


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 7, 20])
def test_closing_at_any_time_ends_at_once(is_terminal: bool, steps: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
    pm = ProgressManager(10, 2, 5, console=console)
    for step in range(steps):
        pm.update(step // 10, step % 10)
    closing = threading.Thread(target=pm.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    before = written(console)
    pm.close()
    pm.update(1, 9)
    assert written(console) == before


def test_it_needs_no_custom_fields() -> None:
    for fields in (None, [], ()):
        with ProgressManager(1, 1, 1, custom_fields=fields, console=(console := terminal())) as pm:
            pm.update(0, 0)
        assert "100 %" in last_frame(console)[-1]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_last_frame_is_not_stale(clock: Clock, is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
    with ProgressManager(100, 1, 5, 3600, ["loss"], console=console, clock=clock) as pm:
        for step in range(100):
            clock.wait(0.1)
            pm.update(0, step, loss=step)
        assert "9.900e+01" not in written(console)
    assert "9.900e+01" in written(console)
    assert "all 100 %" in re.sub(" +", " ", ANSI.sub("", written(console)))


def test_pauses_are_charged_to_no_epoch_but_to_the_whole(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(2, 4, 5, 0, console=console, clock=clock) as pm:
        for epoch in range(2):
            for step in range(2):
                clock.wait(1)
                pm.update(epoch, step)
            with pm.pause(), pm.pause("saving"):
                clock.wait(1000)
                pm.update(epoch, 1)
                clock.wait(1000)
            pm.update(epoch, 1)
    _, _, first, second, _, whole = (re.sub("[━╸╺]+", "bar", line).split() for line in last_frame(console))
    assert first == ["1/4", "100", "%", "bar", "2.0", "s"]
    assert second == ["2/4", "100", "%", "bar", "2.0", "s"]
    assert whole == ["all", "50", "%", "bar", "1:06:44", "1:06:44"]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_pause_at_any_step_is_charged_to_no_epoch(clock: Clock, step: int) -> None:
    console = terminal()
    with ProgressManager(3, 2, 5, 0, console=console, clock=clock) as pm:
        for position in range(6):
            clock.wait(1)
            pm.update(*divmod(position, 3))
            if position == step:
                with pm.pause("saving"):
                    clock.wait(1000)
    assert ["3.0 s" in line for line in last_frame(console)[2:4]] == [True, True]


def test_an_evaluation_that_nobody_announced_is_charged_to_no_epoch_if_its_results_are_told(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(1, 2, 5, 0, ["eval"], console=console, clock=clock) as pm:
        for epoch in range(2):
            clock.wait(3)
            pm.update(epoch, 0)
            clock.wait(1000)
            pm.update(epoch, 0, eval=epoch)
    assert ["3.0 s" in line for line in last_frame(console)[2:4]] == [True, True]


def test_a_pause_says_what_goes_on_and_takes_it_back(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(2, 1, 5, console=console, clock=clock) as pm:
        pm.update(0, 0)
        with pm.pause("evaluating"):
            assert last_frame(console)[-1] == "evaluating"
        clock.wait(5)
        pm.update(0, 1)
        assert last_frame(console)[-1].startswith("all")
        pm.note("stopped early")
    assert last_frame(console)[-1] == "stopped early"


def test_pauses_of_short_epochs_draw_no_more_frames_than_updates(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(1, 100, 5, 1, console=console, clock=clock) as pm:
        for epoch in range(100):
            clock.wait(0.1)
            pm.update(epoch, 0)
            with pm.pause():
                pass
    assert ANSI.sub("", written(console)).count("Epoch") <= 2 * 10 + 1


def test_what_a_terminal_echoes_cannot_break_the_line_in_which_the_cursor_waits() -> None:
    console = terminal()
    with ProgressManager(2, 1, 5, console=console) as pm:
        for note in ("", "a note " * 20):
            pm.note(note)
            pm.update(0, 0)
            with pm.pause(note):
                line = ANSI.sub("", written(console)).replace("\r", "\n").splitlines()[-1]
            assert len(line) <= 80 - len("^C^C")


def test_training_may_go_on_in_the_middle(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(100, 10, 5, 0, console=console, clock=clock) as pm:
        clock.wait(50)
        pm.begin(4, 50)
        assert pm.overall_progress == 0.45
        clock.wait(10)
        pm.update(4, 59)
        row, _, whole = (re.sub("[━╸╺]+", "bar", line).split() for line in last_frame(console)[2:])
    assert row == ["5/10", "60", "%", "bar", "10.0", "s", "40.0", "s"]
    assert whole == ["all", "46", "%", "bar", "10.0", "s", "9:00"]


def test_a_resumed_training_that_did_not_say_where_it_began_shows_no_wrong_pace(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(100, 10, 5, 0, console=console, clock=clock) as pm:
        clock.wait(10)
        pm.update(4, 59)
        assert re.sub("[━╸╺]+", "bar", last_frame(console)[2]).split() == ["5/10", "60", "%", "bar", "0.0", "s"]
        clock.wait(20)
        pm.update(4, 79)
        assert last_frame(console)[2].split()[-2:] == ["20.0", "s"]


def test_results_of_an_evaluation_can_be_told_after_the_next_epoch_has_begun(clock: Clock) -> None:
    console = terminal()
    with ProgressManager(2, 3, 5, 0, ["eval"], console=console, clock=clock) as pm:
        for position in range(3):
            pm.update(position // 2, position % 2)
        pm.update(0, 1, eval=0.25)
        assert pm.overall_progress == 0.5
    assert "2.500e-01" in last_frame(console)[2]


def test_frames_are_drawn_at_most_once_an_interval(clock: Clock) -> None:
    console = terminal()
    pm = ProgressManager(1000, 1, 5, 1, console=console, clock=clock)
    for step in range(1000):
        pm.update(0, step)
        clock.wait(0.01)
    assert ANSI.sub("", written(console)).count("Epoch") in (10, 11)
    pm.close()


def test_an_unknown_field_names_the_nearest_one() -> None:
    pm = ProgressManager(1, 1, 1, custom_fields=["Train/Main"], verbose=False)
    with pytest.raises(UnknownField, match="'Train/Mian' of progress; did you mean 'Train/Main'"):
        pm.update(0, 0, **{"Train/Mian": 1.0})
    with pytest.raises(UnknownField, match="there are none; name it in custom_fields"):
        ProgressManager(1, 1, 1, verbose=False).update(0, 0, loss=1.0)


@pytest.mark.parametrize("value", ["0.1", [1.0], torch.zeros(2), object()])
def test_a_field_that_is_no_number_is_told_once_and_leaves_the_terminal_in_order(value: object) -> None:
    console = terminal()
    manager = ProgressManager(2, 1, 1, 0, custom_fields=["loss"], console=console)
    manager.update(0, 0, loss=0.5)
    with pytest.raises(ConfigError, match="field 'loss' of progress is"), manager as pm:
        pm.update(0, 1, loss=value)
    assert written(console).rindex("\x1b[?25h") > written(console).rindex("\x1b[?25l")
    assert last_frame(console)[-1] == "stopped by ConfigError"


@pytest.mark.parametrize("value", [1, True, torch.tensor(1.0, requires_grad=True), torch.tensor([1.0]), None])
def test_numbers_of_any_kind_are_shown(value: object) -> None:
    with ProgressManager(1, 1, 1, custom_fields=["loss"], console=(console := terminal())) as pm:
        pm.update(0, 0, loss=value)
    assert ("1.000e+00" in last_frame(console)[2]) == (value is not None)


def test_values_are_read_only_when_a_frame_is_drawn(clock: Clock) -> None:
    class Loss:
        reads = 0

        def item(self) -> float:
            Loss.reads += 1
            return 1.0

    with ProgressManager(100, 1, 1, 1, ["loss"], console=terminal(), clock=clock) as pm:
        for step in range(100):
            pm.update(0, step, loss=Loss())
        assert Loss.reads == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((-1, 1, 1), "items_per_epoch of ProgressManager is -1"),
        ((1, -1, 1), "epochs of ProgressManager is -1"),
        ((1, 1, 0), "show_recent of ProgressManager is 0"),
        ((1, 1, 1, -1), "refresh_interval of ProgressManager is -1"),
        ((1, 1, 1, 1, "loss"), "give a list of names"),
        ((1, 1, 1, 1, ["a", "a"]), "names 'a' twice"),
        ((1, 1, 1, 1, ["step"]), "other than epoch, step and self"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ProgressManager(*arguments)


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize(("items", "epochs"), [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_nothing_to_do_is_no_division_by_zero(items: int, epochs: int, is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
    with ProgressManager(items, epochs, 1, 0, console=console) as pm:
        assert pm.overall_progress == (0.0 if items and epochs else 1.0)
        pm.update(0, 0)
        pm.note("note")
    assert pm.overall_progress == 1.0


@pytest.mark.parametrize("width", [30, 44, 60, 80, 160])
def test_no_line_is_broken_by_a_narrow_terminal(width: int) -> None:
    names = ["Train/Main", "Train/MAE", "Eval/Main", "Eval/ACC", "a_very_long_name_of_a_loss_function"]
    console = terminal(width)
    with ProgressManager(3, 2, 5, custom_fields=names, console=console) as pm:
        for step in range(6):
            pm.update(step // 3, step % 3, **dict.fromkeys(names, -1e-3))
    lines = last_frame(console)
    assert max(map(len, lines)) <= width
    assert sum("1/2" in line for line in lines) == sum("all " in line for line in lines) == 1
    assert ("too narrow" in lines[-1]) == (width < 100)


def test_a_terminal_too_narrow_for_anything_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    for width in (1, 5, 15):
        with ProgressManager(3, 2, 5, custom_fields=["loss"], console=terminal(width)) as pm:
            pm.update(0, 0, loss=1.0)
    assert caplog.records == []


def test_a_low_terminal_shows_the_newest_epochs_and_the_last_frame_all() -> None:
    console = terminal(height=10)
    with ProgressManager(1, 20, 20, 0, console=console) as pm:
        for epoch in range(20):
            pm.update(epoch, 0)
        assert [line.split()[0] for line in last_frame(console)[2:-2]] == ["18/20", "19/20", "20/20"]
    assert len(last_frame(console)) == 24


def test_without_a_terminal_there_is_one_plain_line_an_epoch(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=80)
    with ProgressManager(10, 3, 1, custom_fields=["Train/Main", "Eval/Main"], console=console, clock=clock) as pm:
        for epoch in range(3):
            for step in range(10):
                clock.wait(0.5)
                pm.update(epoch, step, **{"Train/Main": 0.5})
            with pm.pause():
                clock.wait(1)
            pm.update(epoch, 9, **{"Eval/Main": 0.25})
    lines = written(console).splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "epoch 1/3, 5.0 s | Train/Main 5.000e-01, Eval/Main 2.500e-01 | all 40 %, 10.5 s left",
        "epoch 2/3, 5.0 s | Train/Main 5.000e-01, Eval/Main 2.500e-01 | all 73 %, 4.7 s left",
        "epoch 3/3, 5.0 s | Train/Main 5.000e-01, Eval/Main 2.500e-01 | all 100 %",
    ]
    assert written(console).isascii()
    assert "\x1b" not in written(console)


def test_a_long_epoch_writes_a_line_each_half_minute(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=80)
    pm = ProgressManager(1000, 1, 1, console=console, clock=clock)
    for step in range(950):
        clock.wait(0.1)
        pm.update(0, step)
    assert [line.split(" | ")[0].split(", ", 1)[1] for line in written(console).splitlines()] == [
        "30 %, 30.9 s, 1:09 left", "61 %, 1:02, 38.3 s left", "92 %, 1:32, 7.5 s left",
    ]  # fmt: skip
    pm.close()
    assert "95 %" in written(console).splitlines()[-1]


def test_short_epochs_do_not_flood_a_log(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=80)
    with ProgressManager(10, 500, 5, console=console, clock=clock) as pm:
        for epoch in range(500):
            for step in range(10):
                clock.wait(0.001)
                pm.update(epoch, step)
    lines = written(console).splitlines()
    assert 4 <= len(lines) <= 7  # of 5 s
    assert "epoch 500/500" in lines[-1]


def test_lines_follow_a_captured_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressManager(1, 1, 1) as pm:
        pm.update(0, 0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1/1" in err


@contextmanager
def pseudo_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put a terminal in the place of standard error; its text is in the list afterwards."""
    ours, theirs = pty.openpty()
    text: list[str] = []

    def read() -> None:
        while data := _read(ours):
            text.append(data.decode())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with monkeypatch.context() as patch, os.fdopen(theirs, "w", encoding="utf-8") as stream:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        patch.delenv("NO_COLOR", raising=False)
        yield text
    reader.join(10)
    os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def train_and_fail(before: object) -> None:
    with ProgressManager(2, 1, 1) as pm:
        pm.update(0, 0)
        assert sys.stderr is not before
        raise ZeroDivisionError


def test_on_a_terminal_there_is_a_table_and_the_cursor_comes_back_after_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pseudo_terminal(monkeypatch) as text:
        before = sys.stderr
        with pytest.raises(ZeroDivisionError):
            train_and_fail(before)
        assert sys.stderr is before
    shown = "".join(text)
    assert "Epoch" in shown
    assert "stopped by ZeroDivisionError" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_terminal_is_given_back_by_a_manager_that_nobody_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pseudo_terminal(monkeypatch) as text:
        before = sys.stderr
        pm = ProgressManager(2, 1, 1)
        pm.update(0, 0)
        del pm
        assert sys.stderr is before
    assert "\x1b[?25h" in "".join(text)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with pseudo_terminal(monkeypatch) as text:
        monkeypatch.setenv("TERM", "dumb")
        with ProgressManager(1, 1, 1) as pm:
            pm.update(0, 0)
    assert "epoch 1/1" in "".join(text)
    assert "\x1b" not in "".join(text)


@pytest.mark.parametrize("other", ["live", "manager"])
def test_above_another_live_display_there_are_lines(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    with pseudo_terminal(monkeypatch) as text:
        if other == "live":
            around = Live("another display", console=Console(stderr=True), auto_refresh=False)
        else:
            around = ProgressManager(1, 1, 1, custom_fields=["another display"])
        with around:
            if other == "manager":
                around.update(0, 0)
            with ProgressManager(3, 1, 1) as pm:
                pm.update(0, 2)
    assert "epoch 1/1" in "".join(text)
    assert "another display" in "".join(text)


def test_two_managers_on_one_console_do_not_crash_in_whatever_order_they_close() -> None:
    console = terminal()
    first, second = (ProgressManager(2, 1, 1, console=console) for _ in range(2))
    first.update(0, 0)
    second.update(0, 0)
    first.close()
    second.update(0, 1)
    second.close()
    assert "100 %" in last_frame(console)[-1]


class Gone(io.StringIO):
    """A terminal whose window was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_that_goes_away_does_not_end_the_training(
    caplog: pytest.LogCaptureFixture, is_terminal: bool
) -> None:
    with ProgressManager(2, 2, 1, 0, console=Console(file=Gone(), force_terminal=is_terminal)) as pm:
        for step in range(4):
            pm.update(step // 2, step % 2)
    assert [record.getMessage() for record in caplog.records] == [
        "progress is shown no longer: OSError: [Errno 5] Input/output error"
    ]


def test_a_broken_pipe_is_an_error_and_not_the_end_of_the_process() -> None:
    with pytest.raises(BrokenPipeError):
        Terminal().on_broken_pipe()


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_standard_error_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed if stream else None)
    with ProgressManager(1, 1, 1) as pm:
        pm.update(0, 0)


def test_verbose_false_shows_nothing_and_counts_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressManager(2, 2, 1, verbose=False) as pm, pm.pause():
        pm.update(1, 0)
        pm.note("a note")
        assert pm.overall_progress == 0.75
    assert capfd.readouterr() == ("", "")
