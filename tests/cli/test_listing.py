"""``jimmy ls`` on terminals: what fits, what is told below, hostile and wide names, a thousand columns, the pager."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jimmy_manager import Store
from jimmy_manager.archives import previews
from jimmy_manager.cli import columns, paging
from jimmy_manager.cli.main import main
from tests.archives.runs import attempt_at
from tests.cli.terminals import JIMMY, ROOT, Terminal, Tmux, needs_less, needs_tmux, visible

Jimmy = Callable[..., Result]
WIDE = "学習率\x1b[2J"


def made(directory: Path, configs: list[dict[str, Any]], **preview: Any) -> Store:
    """A store of finished runs; each value of ``preview`` is a function of the number of the run."""
    store = Store(directory, durable=False, stale_s=0.0)
    for number, config in enumerate(configs):
        attempt = attempt_at(store, config)
        shown, _ = previews.save({name: value(number) for name, value in preview.items()}, attempt.key)
        attempt.commit(epoch=2, checkpoint=lambda file: file.write(b"x"), preview=shown)
        attempt.finish()
    return store


@pytest.fixture
def ls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The lines of ``jimmy ls`` as on a terminal of so many columns."""

    def call(wide: int, *arguments: str, code: int = 0) -> list[str]:
        monkeypatch.setattr("jimmy_manager.cli.listing._is_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(wide))
        result = CliRunner().invoke(main, ["ls", "--store", str(tmp_path / "s"), *arguments], prog_name="jimmy")
        assert result.exit_code == code, result.output
        return result.output.splitlines()

    return call


def test_what_all_runs_share_is_told_once_below(tmp_path: Path, ls: Callable[..., list[str]]) -> None:
    made(tmp_path / "s", [{"optim": {"lr": lr, "wd": 0.5}, "arch": "cnn"} for lr in (0.1, 0.2)], loss=float)
    lines = ls(80)
    assert lines[0].split() == ["key", "state", "epoch", "lr", "loss"]
    assert "the same in all: wd = 0.5, arch = cnn" in lines
    assert "2 runs: 2 done" in lines
    assert not [line for line in lines if "no room" in line]
    assert "the configuration: lr = 0.1, wd = 0.5, arch = cnn" in ls(80, "--where", "lr == 0.1")


def test_runs_without_a_finite_result_are_counted(tmp_path: Path, ls: Callable[..., list[str]]) -> None:
    values = [0.5, float("nan"), float("inf"), 1.0]
    made(tmp_path / "s", [{"seed": seed} for seed in range(4)], loss=values.__getitem__, acc=float)
    lines = ls(80, "--sort", "loss")
    assert "nan or inf: loss in 2 runs" in lines
    assert [line.split()[lines[0].split().index("loss") + 1] for line in lines[1:5]] == ["0.5", "1", "inf", "nan"]


def test_names_are_taken_as_their_headings_are_written(tmp_path: Path, ls: Callable[..., list[str]]) -> None:
    configs = [{"optim": {"lr": lr}, "enc": {"n": lr}, "dec": {"n": 1 - lr}} for lr in (0.1, 0.2, 0.3)]
    made(tmp_path / "s", configs, loss=float)
    heads = ls(80)[0].split()
    assert heads == ["key", "state", "epoch", "lr", "enc.n", "dec.n", "loss"]
    lines = ls(80, "--where", "lr > 0.1", "--sort", "-lr", "--columns", "lr,enc.n")
    assert [line.split() for line in lines[:3]] == [["lr", "enc.n"], ["0.3", "0.3"], ["0.2", "0.2"]]
    for option in (["--sort", "n"], ["--columns", "key,n"], ["--where", "n > 0"]):
        (line, *_) = ls(80, *option, code=1)
        assert line.startswith("error: the field 'n' may be 'enc.n' or 'dec.n'"), line


def test_a_pipe_gets_the_whole_names(tmp_path: Path) -> None:
    made(tmp_path / "s", [{"optim": {"lr": lr}} for lr in (0.1, 0.2)])
    output = CliRunner().invoke(main, ["ls", "--store", str(tmp_path / "s"), "--columns", "key,lr"]).output
    assert output.splitlines()[0] == "key\toptim.lr"


def test_the_digits_of_a_key_that_suffice_stand_out(tmp_path: Path) -> None:
    store = made(tmp_path / "s", [{"seed": seed} for seed in range(30)])
    keys = list(store.keys())
    terminal = Terminal(80, 60, "ls", "--store", str(tmp_path / "s"))
    terminal.end()
    found = re.findall(r"\x1b\[1m([0-9a-f]+)\x1b\[0m\x1b\[2m([0-9a-f]+)\x1b\[0m", terminal.text)
    assert sorted(first + rest for first, rest in found) == sorted(keys)
    for first, rest in found:
        assert store.resolve(first) == first + rest
        assert sum(key.startswith(first[:-1]) for key in keys) > 1, "and no more of them"


def test_a_state_is_told_by_a_word_and_a_shape_as_well(jimmy: Jimmy, store: Path) -> None:
    terminal = Terminal(80, 24, "ls", "--store", str(store))
    terminal.end()
    lines = visible(terminal.text)
    assert {"✓ done", "✗ failed", "· new"} <= {line[10:20].strip() for line in lines}
    assert terminal.text.count("\x1b[32m") >= 4
    plain = Terminal(80, 24, "ls", "--store", str(store), env={"NO_COLOR": "1"})
    plain.end()
    assert "\x1b[3" not in plain.text


@pytest.mark.parametrize("wide", [80, 200])
def test_a_thousand_columns_cost_little_and_fit(tmp_path: Path, ls: Callable[..., list[str]], wide: int) -> None:
    fields = {f"part{number % 7}.field{number}": 0 for number in range(1000)}
    made(tmp_path / "s", [{**dict.fromkeys(fields, run), "seed": run} for run in range(20)], loss=float)
    began = time.monotonic()
    lines = ls(wide)
    assert time.monotonic() - began < 5.0
    assert max(map(columns.width, lines)) <= wide
    assert len(lines) <= 20 + 6
    assert any(re.search(r" and \d+ more$", line) for line in lines)


@pytest.mark.parametrize("wide", [80, 200])
def test_wide_and_hostile_names_keep_the_columns_straight(
    tmp_path: Path, ls: Callable[..., list[str]], wide: int, hostile: str
) -> None:
    values = [WIDE, "e\u0301clair", hostile, "plain", "\u200bjoined\ufe0f", "x" * 500]
    made(tmp_path / "s", [{WIDE: value, "a." + "long" * 30: seed} for seed, value in enumerate(values)], loss=float)
    lines = ls(wide)
    assert all(char.isprintable() or char in "\u200b\ufe0f" for line in lines for char in line)
    assert max(map(columns.width, lines)) <= wide
    assert len({columns.width(line) for line in lines[:7]}) == 1, "the last column is a number: all lines end alike"


@needs_tmux
def test_a_terminal_shows_wide_names_in_straight_columns(tmp_path: Path) -> None:
    values = ["学習率", "e\u0301clair", "plain", "한국어", "\u200bz"]
    made(tmp_path / "s", [{"name": value, "seed": seed} for seed, value in enumerate(values)], loss=lambda n: 1000 + n)
    window = Tmux(80, 24, tmp_path, "ls", "--store", "s", "--columns", "name,loss")
    try:
        lines = window.screen_when(lambda text: "code 0" in text)
    finally:
        window.close()
    ends = {columns.width(line.rstrip()) for line in lines if re.search(r"100\d$", line.rstrip())}
    assert len(ends) == 1, lines


# Paging


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of 100 runs, more than a screen has lines."""
    store = Store(tmp_path_factory.mktemp("many") / "s", durable=False)
    for seed in range(100):
        store.register({"optim": {"lr": 0.1 * (1 + seed)}, "seed": seed})
    return str(store.directory)


@pytest.fixture
def window(many: str, tmp_path: Path) -> Iterator[Tmux]:
    window = Tmux(80, 24, tmp_path, "ls", "--store", many)
    yield window
    window.close()


@needs_less
def test_a_long_list_is_paged_and_its_notes_stay_when_the_pager_is_left(many: str) -> None:
    terminal = Terminal(80, 24, "ls", "--store", many)
    text = terminal.read_until(lambda text: "q leaves" in text)
    assert len(visible(text)) <= 25
    assert "100 runs: 100 new (line 23 of 105, q leaves)" in visible(text)[-1]
    terminal.press("\x03")  # Ctrl-C is the pager's
    time.sleep(0.5)
    assert terminal.process.poll() is None
    assert terminal.end(pressing="q") == 0
    assert terminal.settings == terminal.before
    assert visible(terminal.text)[-1].endswith("q leaves)100 runs: 100 new"), "where less has erased its prompt"


@needs_less
@needs_tmux
def test_a_heading_is_in_sight_on_every_page(window: Tmux) -> None:
    first = window.screen_when(lambda text: "line 23 of" in text)
    assert first[0].split() == ["key", "state", "epoch", "lr", "seed"]
    window.press("Space")
    second = window.screen_when(lambda text: "line 46 of" in text)
    assert second[0].split() == first[0].split()
    assert second[1] not in first
    window.press("q")
    last = window.screen_when(lambda text: "code 0" in text)
    assert "100 runs: 100 new" in last


@needs_less
@needs_tmux
def test_columns_wider_than_the_screen_are_paged_sideways(many: str, tmp_path: Path) -> None:
    window = Tmux(30, 10, tmp_path, "ls", "--store", many, "--all")
    try:
        first = window.screen_when(lambda text: "q leaves" in text)
        assert sum(line.startswith("key") for line in first) == 1, "no line is folded"
        window.press("Right")
        assert window.screen_when(lambda text: "seed" in text)
    finally:
        window.close()


def test_without_room_for_a_pager_everything_is_printed(many: str) -> None:
    for env, options in (
        ({"PAGER": "no-such-pager -x"}, []), ({"PAGER": "no-such-pager | no-other"}, []), ({"PAGER": "cat"}, []),
        ({"PAGER": ""}, []), ({"PAGER": "'"}, []), ({"TERM": "dumb"}, []), ({}, ["--no-pager"]),
    ):  # fmt: skip
        terminal = Terminal(80, 24, "ls", "--store", many, *options, env=env)
        assert terminal.end() == 0, (env, terminal.text)
        lines = [line for line in visible(terminal.text) if "not found" not in line]
        assert (len(lines), lines[-1]) == (102, "100 runs: 100 new"), (env, terminal.text)


def test_a_pager_that_leaves_at_once_is_no_error(many: str) -> None:
    terminal = Terminal(80, 24, "ls", "--store", many, env={"PAGER": "true"})
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    assert "100 runs: 100 new" in terminal.text


def test_another_pager_gets_no_escape_sequences(many: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(f"#!/bin/sh\ncat > {tmp_path}/got\n")
    (tmp_path / "mine").chmod(0o755)
    terminal = Terminal(80, 24, "ls", "--store", many, env={"PAGER": str(tmp_path / "mine")})
    assert terminal.end() == 0
    got = (tmp_path / "got").read_text()
    assert "\x1b" not in got
    assert got.count("key") == 5, "a heading for each screenful"


def test_a_short_list_and_a_pipe_are_not_paged(many: str, tmp_path: Path) -> None:
    env = {"PAGER": f"touch {tmp_path}/paged"}
    terminal = Terminal(80, 24, "ls", "--store", many, "--where", "seed < 20", env=env)
    assert terminal.end() == 0
    command = [*JIMMY, "ls", "--store", many]
    piped = subprocess.run(command, env=os.environ | env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (piped.returncode, piped.stdout.count("\n")) == (0, 101)
    assert not (tmp_path / "paged").exists()


@needs_less
def test_errors_are_paged_with_their_lines_folded(tmp_path: Path, hostile: str) -> None:
    store = Store(tmp_path / "s", durable=False, stale_s=0.0)
    for number in range(9):
        error = {"type": "E", "message": hostile + "long " * 30, "traceback": "Traceback:\n  x\n" + "y" * 200}
        attempt_at(store, {"run": number}).claim.fail(error)
    terminal = Terminal(80, 24, "errors", "--store", str(tmp_path / "s"))
    terminal.read_until(lambda text: "q leaves" in text)
    assert "sideways" not in terminal.text
    assert terminal.end(pressing="q") == 0
    assert visible(terminal.text)[-1].startswith("9 runs failed; 'jimmy retry --all --store ")
    short = Terminal(80, 24, "errors", "--short", "--store", str(tmp_path / "s"))
    assert short.end() == 0
    lines = visible(short.text)
    assert max(map(columns.width, lines)) <= 80
    assert sum(line.startswith("run ") and line.endswith("…") for line in lines) == 9


def test_a_prompt_of_less_cannot_be_taken_for_its_commands() -> None:
    told = paging._prompt("3 runs: 50% done?", 7, 80, False)
    assert told == r"3 runs\: 50\% done\? (line %lb of 7, q leaves)"
    assert paging._prompt("3 runs: " + "x" * 80, 7, 80, False) == "3 runs (line %lb of 7, q leaves)"


@pytest.mark.parametrize("wide", [80, 200])
def test_listing_on_a_terminal_loads_neither_pandas_nor_rich(many: str, wide: int) -> None:
    code = f"""
import sys
from jimmy_manager.cli import listing, main
listing._is_terminal = lambda: True
try:
    main.main(["ls", "--store", {many!r}])
except SystemExit as end:
    assert end.code == 0
print(*sys.modules, file=sys.stderr)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(wide)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert loaded & {"pandas", "rich", "numpy", "torch", "matplotlib"} == set()


def test_json_has_the_whole_names(tmp_path: Path) -> None:
    made(tmp_path / "s", [{"optim": {"lr": 0.1}}])
    output = CliRunner().invoke(main, ["ls", "--store", str(tmp_path / "s"), "--columns", "lr", "--json"]).output
    assert json.loads(output) == [{"optim.lr": 0.1}]
