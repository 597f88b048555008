"""``jimmy workers --watch`` on terminals: what the screen holds at any size, what it costs, how it is left."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from jimmy_manager.archives import previews
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.holders import Holders
from jimmy_manager.archives.store import Store
from jimmy_manager.cli import columns, overview, watch
from jimmy_manager.cli.overview import Overview
from jimmy_manager.errors import StoreError, UnknownField
from tests.archives.runs import attempt_at
from tests.cli.terminals import Terminal, Tmux, needs_tmux, visible

LEFT = "\x1b[?25h\x1b[?1049l"


def commit(attempt: Attempt, epoch: int, **preview: Any) -> None:
    shown, _ = previews.save(preview, attempt.key)
    attempt.commit(epoch=epoch, checkpoint=lambda file: file.write(b"x"), preview=shown, train_s=2.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s", durable=False, stale_s=0.0)


@pytest.fixture
def sweep(store: Store, hostile: str) -> dict[str, str]:
    """A sweep with a run of each state; the keys by what they are."""
    keys = {}
    for state, lr in (("best", 0.1), ("done", 0.2), ("nan", 0.3), ("failed", 0.4), ("paused", 0.5), ("running", 0.6)):
        attempt = attempt_at(store, {"optim": {"lr": lr, "wd": 0.0}, "name": hostile if state == "failed" else "n"})
        keys[state] = attempt.key
        commit(attempt, 3, loss=float("nan") if state == "nan" else lr, acc=1 - lr)
        if state == "failed":
            attempt.claim.fail({"type": "ValueError", "message": hostile, "traceback": ""})
        elif state == "paused":
            attempt.claim.release()
        elif state != "running":
            attempt.finish()
    keys["new"] = store.register({"optim": {"lr": 0.7, "wd": 0.0}, "name": "n"}).key
    return keys


@pytest.fixture
def seen(store: Store) -> Callable[..., list[str]]:
    """The plain lines of the screen at some size."""

    def look(wide: int, high: int, metric: str = "", trouble: str = "") -> list[str]:
        holders, of_all = Holders(store), Overview(store, metric)
        held = holders.look()
        of_all.update(held)
        lines = watch.screen(held, of_all, str(store), wide, high, trouble)
        assert len(lines) <= high
        plain = [click.unstyle(line) for line in lines]
        assert max(map(columns.width, plain)) <= wide
        assert all(char.isprintable() for line in plain for char in line)
        return plain

    return look


def test_it_tells_of_workers_progress_the_best_run_and_errors(
    sweep: dict[str, str], seen: Callable[..., list[str]]
) -> None:
    lines = seen(120, 24)
    assert lines[0].startswith("1 running in ")
    assert "3 of 7 runs begun are done, 1 running, 1 paused, 1 failed, 1 new" in lines[1]
    assert lines[2].startswith(f"best loss 0.1: run {sweep['best']} after epoch 3  lr=0.1 name=n")
    (worker,) = [line for line in lines if line.startswith(sweep["running"])]
    assert {"running", "3", "2.5", "0.6"} <= set(worker.split())
    assert lines[-2:] == ["1 run failed:", lines[-1]]
    assert lines[-1].startswith(f"{sweep['failed']}  ValueError: evil\\x1b")


@pytest.mark.parametrize(
    ("metric", "line"), [("loss", "best loss 0.1: "), ("-loss", "best loss 0.6: "), ("acc", "best acc 0.9: ")]
)
def test_the_metric_can_be_chosen(
    sweep: dict[str, str], seen: Callable[..., list[str]], metric: str, line: str
) -> None:
    assert seen(120, 24, metric)[2].startswith(line)


@pytest.mark.parametrize(("metric", "best"), [("val_acc", 0.9), ("Acc", 0.9), ("acc_error", 0.1), ("metres", 0.1)])
def test_the_best_is_what_the_words_of_the_metric_say(store: Store, metric: str, best: float) -> None:
    for number, value in enumerate((0.1, 0.9, 0.5)):
        commit(attempt_at(store, {"number": number}), 1, **{metric: value})
    of_all = Overview(store, metric)
    of_all.update(())
    assert of_all.best is not None
    assert of_all.best.value == best


@pytest.mark.parametrize("metric", ["los", "lr", "-optim.lr"])
def test_an_unknown_metric_is_refused(sweep: dict[str, str], seen: Callable[..., list[str]], metric: str) -> None:
    with pytest.raises(UnknownField):
        seen(120, 24, metric)


@pytest.mark.parametrize(("wide", "high"), [(20, 3), (30, 6), (40, 10), (80, 24), (200, 50)])
def test_it_fits_any_terminal(
    sweep: dict[str, str], store: Store, seen: Callable[..., list[str]], wide: int, high: int
) -> None:
    held = [attempt_at(store, {"more": number}) for number in range(40)]
    lines = seen(wide, high, trouble="gone\x1b[2J" if wide == 80 else "")
    assert ("cannot look: gone\\x1b[2J" in lines) == (wide == 80)
    if high == 24:
        assert any(re.fullmatch(r"\.\.\. and \d+ more runs", line) for line in lines)
    if high == 50:
        assert sum("▸ running" in line for line in lines) == len(held) + 1


def test_an_empty_store_is_no_error(store: Store, seen: Callable[..., list[str]]) -> None:
    _ = store.info
    assert "nobody in " in seen(80, 24, "loss")[0]


def test_many_runs_that_failed_alike_take_one_line(store: Store, seen: Callable[..., list[str]]) -> None:
    for number in range(9):
        error = {"type": "E", "message": "alike" if number else "other", "traceback": ""}
        attempt_at(store, {"run": number}).claim.fail(error)
    lines = seen(80, 24)
    assert "9 runs failed:" in lines
    assert sum("E: alike" in line for line in lines) == sum(" and 7 more  E: alike" in line for line in lines) == 1


@pytest.mark.parametrize(
    "counts", [{"done": 1}, {"done": 9999, "failed": 1}, {"new": 3, "odd": 2}, dict.fromkeys("abcdefgh", 1)]
)
def test_a_bar_is_full_and_shows_every_state(counts: dict[str, int]) -> None:
    assert columns.width(click.unstyle(watch._bar(counts, 10))) == 10
    if "failed" in counts:
        assert "x" in watch._bar(counts, 10)


# What it costs


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Let some time pass and look; how often the index was asked."""
    clock, calls = Clock(), Counter[str]()
    cost = {"s": 0.0}
    below = overview.read_table

    def read(of: Store) -> Any:
        calls["asked"] += 1
        clock.now += cost["s"]
        return below(of)

    monkeypatch.setattr(overview, "read_table", read)
    holders, of_all = Holders(store), Overview(store, clock=clock)

    def look(after: float, looks: int = 1, cost_s: float = 0.0) -> int:
        calls.clear()
        cost["s"] = cost_s
        for _ in range(looks):
            clock.now += after
            of_all.update(holders.look())
        return calls["asked"]

    return look


def test_the_index_is_asked_where_something_has_changed(
    store: Store, sweep: dict[str, str], asked: Callable[..., int]
) -> None:
    assert asked(5.0) == 1
    assert asked(5.0, looks=11) == 0, "nothing has moved"
    assert asked(5.0) == 1, "once a minute all the same"
    attempt = attempt_at(store, {"another": 1})
    assert asked(5.0) == 1, "a run was begun"
    commit(attempt, 1, loss=1.0)
    attempt.claim.renew()
    assert [asked(5.0), asked(5.0), asked(5.0)] == [0, 0, 1], "commits are told of every 15 s"
    attempt.finish()
    assert asked(5.0) == 1, "a run has ended"


def test_a_twin_that_asks_the_index_at_each_look_is_caught(
    store: Store, sweep: dict[str, str], asked: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overview, "_is_due", lambda *_: True)
    with pytest.raises(AssertionError, match="nothing has moved"):
        test_the_index_is_asked_where_something_has_changed(store, sweep, asked)


def test_a_store_that_is_slow_to_list_is_listed_seldom(
    store: Store, sweep: dict[str, str], asked: Callable[..., int]
) -> None:
    assert asked(5.0, cost_s=2.0) == 1
    counts = []
    for number in range(12):
        attempt_at(store, {"another": number})
        counts.append(asked(5.0, cost_s=2.0))
    assert sum(counts) == 1, "2 s are a twentieth of 40 s"


def test_claims_of_failed_runs_are_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        attempt_at(store, {"run": number}).claim.fail({"type": "E", "message": str(number), "traceback": ""})
    of_all, read = Overview(store), []
    below = store.standing
    monkeypatch.setattr(store, "standing", lambda key: read.append(key) or below(key))
    monkeypatch.setattr(overview, "_MOST_READ", 5)
    monkeypatch.setattr(of_all, "_is_due", lambda *_: True)
    for _ in range(4):
        of_all.update([])
    assert len(read) == len(set(read)) == 8
    late = attempt_at(store, {"late": 1})
    late.claim.fail({"type": "E", "message": "late", "traceback": ""})
    of_all.update([])
    assert of_all.failures[0] == (([late.key]), "E: late")


# On a terminal


@pytest.fixture
def terminal(store: Store, sweep: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(100, 30, "workers", "--watch", "--store", str(store.directory))
    terminal.read_until(lambda text: "1 run failed" in text)
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.kill()
        terminal.end()


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        (lambda terminal: terminal.press("q"), 0), (lambda terminal: terminal.press("\x03"), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGINT), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 143),
        (lambda terminal: terminal.process.send_signal(signal.SIGHUP), 129),
    ],
)  # fmt: skip
def test_however_it_is_left_the_terminal_is_as_it_was(
    terminal: Terminal, leave: Callable[[Terminal], None], code: int
) -> None:
    leave(terminal)
    assert terminal.end() == code
    assert terminal.text.endswith(LEFT)
    assert terminal.text.count("\x1b[?1049h") == terminal.text.count("\x1b[?1049l") == 1
    assert terminal.settings == terminal.before
    assert "Traceback" not in terminal.text


def test_an_unknown_metric_leaves_no_mess(store: Store, sweep: dict[str, str]) -> None:
    terminal = Terminal(100, 30, "workers", "--watch", "--store", str(store.directory), "--metric", "nothing")
    assert terminal.end() == 1
    assert visible(terminal.text)[-1].startswith("error: no run has a field 'nothing'")
    assert "\x1b[?1049h" not in terminal.text


def test_another_size_is_drawn_at_once(terminal: Terminal) -> None:
    began, before = time.monotonic(), terminal.text.count("\x1b[H")
    terminal.resize(60, 12)
    text = terminal.read_until(lambda text: text.count("\x1b[?2026l") > before, 60)
    assert time.monotonic() - began < watch.EVERY_S, "it did not wait for the next look"
    last = text.rpartition("\x1b[H")[2]
    assert max(map(columns.width, visible(last))) <= 60
    assert len(visible(last)) <= 12


def test_nothing_is_cleared_between_two_pictures(terminal: Terminal) -> None:
    terminal.press(" ")  # any other key: drawn again
    text = terminal.read_until(lambda text: text.count("\x1b[H") >= 2)
    assert "\x1b[2J" not in text
    assert all(part.startswith("\x1b[H") for part in text.split("\x1b[?2026h")[1:])
    terminal.press("q")
    terminal.end()


@needs_tmux
@pytest.mark.parametrize(("wide", "high"), [(80, 24), (200, 50)])
def test_what_a_person_sees(store: Store, sweep: dict[str, str], tmp_path: Path, wide: int, high: int) -> None:
    window = Tmux(wide, high, tmp_path, "workers", "--watch", "--store", "s")
    try:
        lines = window.screen_when(lambda text: "1 run failed:" in text)
        assert lines[0].startswith("1 running in s at ")
        assert lines[0].endswith("q leaves")
        assert len(lines[0]) == wide
        assert lines[4].split()[:3] == ["key", "state", "node"]
        assert ("configuration" in lines[4]) == (wide == 200)
        window.resize(60, 14)
        smaller = window.screen_when(lambda text: len(text.splitlines()[0]) <= 60 and "q leaves" in text)
        assert sum("1 running in s" in line for line in smaller) == 1
        window.press("q")
        window.screen_when(lambda text: "code 0" in text and "running" not in text)
    finally:
        window.close()


def test_a_store_that_is_away_for_a_while_is_no_end(
    store: Store, sweep: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    holders, of_all = Holders(store), Overview(store)
    below, looks = holders.look, iter([True, False, True])

    class Screen:
        def __enter__(self) -> Screen:
            return self

        def __exit__(self, *_: object) -> None: ...

        def size(self) -> tuple[int, int]:
            return 80, 24

        def draw(self, lines: list[str]) -> None:
            drawn.append([click.unstyle(line) for line in lines])

        def wait(self, _: float) -> str:
            time.sleep(0.02)
            return "q" if len(drawn) > 60 else ""

    def look() -> Any:
        if next(looks, True):
            return below()
        raise StoreError("cannot list claims: stale")

    monkeypatch.setattr(holders, "look", look)
    monkeypatch.setattr(watch, "Live", Screen)
    monkeypatch.setattr(watch, "EVERY_S", 0.2)
    watch.watch(holders, of_all, "s")
    told = ["cannot look: cannot list claims: stale" in lines for lines in drawn]
    assert told.count(True) > 0
    assert (told[0], told[-1]) == (False, False)
    assert all(any("1 run failed" in line for line in lines) for lines in drawn), "what was seen last stays"
