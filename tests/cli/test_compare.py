"""``jimmy diff`` and ``jimmy compare`` on a store that has one run of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from jimmy_manager.cli import compare
from jimmy_manager.results import side_by_side

Jimmy = Callable[..., Result]
KeyOf = Callable[..., str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimmy_manager.cli.compare._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


def test_diff_shows_what_differs_and_no_other(jimmy: Jimmy, key_of: KeyOf) -> None:
    a, b = key_of(lr=0.1), key_of(lr=0.2)
    lines = jimmy("diff", a[:6], b).stdout.splitlines()
    assert [line for line in lines if not line.startswith("environment\t")] == [  # torch is not loaded by the first
        f"section\tname\t{a}\t{b}", "config\tlr\t0.1\t0.2", "preview\tloss\t0.1\t0.2"
    ]  # fmt: skip
    found = json.loads(jimmy("diff", a, b, "--json").stdout)
    assert found.pop("environment").keys() <= {"threads", "versions.torch", "versions.numpy"}
    assert found == {
        "keys": [a, b], "run": {}, "config": {"lr": [0.1, 0.2]}, "preview": {"loss": [0.1, 0.2]}, "code": {}
    }  # fmt: skip


def test_on_a_terminal_diff_is_aligned_and_counts_what_is_equal(jimmy: Jimmy, key_of: KeyOf, terminal: None) -> None:
    text = jimmy("diff", key_of(lr=0.1), key_of(lr=0.2)).stdout
    assert [line.split() for line in text.splitlines() if "lr" in line] == [["lr", "0.1", "0.2"]]
    assert text.endswith("3 more fields of the configurations are equal\n")
    assert jimmy("diff", key_of(lr=0.1), key_of(lr=0.1)).stdout == f"both are run {key_of(lr=0.1)}\n"


def test_a_result_that_no_json_has_is_null(jimmy: Jimmy, key_of: KeyOf) -> None:
    a, b = key_of(lr=0.1), key_of(lr=0.3)
    assert json.loads(jimmy("diff", a, b, "--json").stdout)["preview"]["loss"] == [0.1, None]
    assert json.loads(jimmy("compare", a, b, "--json").stdout)["preview"]["loss"] == {a: 0.1, b: None}


def test_compare_takes_any_number_of_runs(jimmy: Jimmy, key_of: KeyOf) -> None:
    keys = [key_of(lr=lr) for lr in (0.1, 0.2, 0.3, 0.9)]
    head, *lines = jimmy("compare", *keys).stdout.splitlines()
    assert head.split("\t") == ["section", "name", *keys]
    rows = {tuple(line.split("\t")[:2]): line.split("\t")[2:] for line in lines}
    assert rows["config", "lr"] == ["0.1", "0.2", "0.3", "0.9"]
    assert rows["preview", "loss"] == ["0.1", "0.2", "nan", ""]
    assert rows["run", "state"] == ["done", "done", "done", "new"]
    assert ("config", "optim.wd") not in rows
    assert jimmy("compare", keys[0]).stdout == f"section\tname\t{keys[0]}\n"


@pytest.mark.parametrize("wide", [30, 80])
def test_compare_fits_the_terminal(
    jimmy: Jimmy, key_of: KeyOf, terminal: None, monkeypatch: pytest.MonkeyPatch, wide: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    keys = [key_of(lr=lr) for lr in (0.1, 0.2, 0.3)]
    lines = jimmy("compare", *keys).stdout.splitlines()
    assert max(map(side_by_side.width, lines)) <= wide
    assert sorted(word for line in lines for word in line.split() if word in keys) == sorted(keys)
    assert jimmy("compare", keys[0]).stdout == "nothing differs\n"


@pytest.mark.parametrize("command", ["diff", "compare"])
def test_no_text_of_a_run_reaches_the_terminal_as_a_command(
    jimmy: Jimmy, key_of: KeyOf, hostile: str, terminal: None, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    keys = [key_of(lr=0.2, name=hostile), key_of(lr=0.1, act="raise")]
    for is_terminal in (True, False):
        monkeypatch.setattr(compare, "_is_terminal", lambda value=is_terminal: value)
        text = jimmy(command, *keys).output
        assert "\\x1b" in text
        assert all(char in "\n\t" or char.isprintable() for char in text)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["compare"], 2), (["compare", "ffffffff"], 1), (["diff", "ffffffff", "0"], 1)]
)
def test_bad_keys_are_one_line(jimmy: Jimmy, arguments: list[str], code: int) -> None:
    result = jimmy(*arguments, code=code)
    assert "rror: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["diff", "compare"])
def test_damage_is_told_on_stderr_and_the_rest_is_compared(
    jimmy: Jimmy, key_of: KeyOf, store: Path, command: str
) -> None:
    a, b = key_of(lr=0.1), key_of(lr=0.2)
    for path in (store / "previews").rglob(f"{a}.*"):
        path.write_bytes(b"x")
    result = jimmy(command, a, b)
    assert "warning: some runs are shown in part:" in result.stderr
    assert f"previews/{a[:2]}/{a}" in result.stderr
    assert "config\tlr\t0.1\t0.2" in result.stdout.splitlines()
