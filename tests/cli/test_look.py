"""Commands that only look, on a store that has one run of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import Result

from jimmy_manager import Store
from jimmy_manager.cli import columns

Jimmy = Callable[..., Result]
KeyOf = Callable[..., str]


def is_clean(text: str) -> bool:
    return all(char in "\n\t" or char.isprintable() for char in text)


@pytest.mark.parametrize(
    "arguments", [["ls"], ["ls", "--all"], ["errors"], ["errors", "--short"], ["workers"], ["check"], ["ls", "--json"]]
)
def test_no_text_from_a_store_reaches_the_terminal_as_a_command(jimmy: Jimmy, arguments: list[str]) -> None:
    assert is_clean(jimmy(*arguments).output)


@pytest.mark.parametrize("name", ["show", "diff", "why"])
def test_no_text_of_one_run_reaches_the_terminal_as_a_command(
    jimmy: Jimmy, key_of: KeyOf, hostile: str, name: str
) -> None:
    keys = [key_of(lr=0.2, name=hostile), key_of(lr=0.1, act="raise")]
    for arguments in [keys[:1], keys[1:]] if name == "show" else [keys]:
        text = jimmy(name, *arguments).output
        assert is_clean(text)
        assert "\\x1b" in text


def test_ls_prints_tabs_when_nobody_watches(jimmy: Jimmy, key_of: KeyOf) -> None:
    head, *lines = jimmy("ls").stdout.splitlines()
    assert head.split("\t")[:3] + sorted(head.split("\t")[3:]) == [
        "key", "state", "epoch", "act", "loss", "lr", "name", "nested.acc"
    ]  # fmt: skip
    by_key = {line.split("\t")[0]: line.split("\t") for line in lines}
    assert by_key[key_of(lr=0.2)][:3] == [key_of(lr=0.2), "done", "2"]
    assert by_key[key_of(lr=0.1, act="raise")][1] == "failed"
    assert by_key[key_of(lr=0.9)][1:3] == ["new", ""]
    assert key_of(lr=0.8) not in by_key
    assert {len(cells) for cells in by_key.values()} == {8}


def test_ls_filters_sorts_and_chooses(jimmy: Jimmy) -> None:
    where = 'state == "done" and name == "plain"'
    text = jimmy("ls", "--where", where, "--sort", "-loss", "--columns", "lr,loss").stdout
    assert text.splitlines() == ["lr\tloss", "0.2\t0.2", "0.1\t0.1", "0.3\tnan"]


@pytest.mark.parametrize(
    "arguments", [["--where", "lrr < 1"], ["--where", "lr <"], ["--sort", "lsos"], ["--columns", "key,lsos"]]
)
def test_ls_refuses_what_it_does_not_know(jimmy: Jimmy, arguments: list[str]) -> None:
    assert jimmy("ls", *arguments, code=1).stderr.startswith("error: ")


def test_ls_gives_scripts_json_with_every_field_in_its_type(jimmy: Jimmy, key_of: KeyOf) -> None:
    rows = {row["key"]: row for row in json.loads(jimmy("ls", "--json").stdout)}
    assert rows[key_of(lr=0.2)]["optim.wd"] == 0.0
    assert rows[key_of(lr=0.3)]["loss"] is None
    assert rows[key_of(lr=0.9)]["epoch"] is None
    assert rows[key_of(lr=0.1, act="raise")]["act"] == "raise"


def test_ls_names_what_it_could_not_read(jimmy: Jimmy, store: Path, key_of: KeyOf) -> None:
    key = key_of(lr=0.2)
    for path in (store / "previews").rglob(f"{key}.*"):
        path.write_bytes(path.read_bytes()[:-3])
    result = jimmy("ls")
    assert f"previews/{key[:2]}/{key}.g1" in result.stderr
    assert key in result.stdout


@pytest.mark.parametrize("wide", [80, 200])
def test_a_table_fits_the_terminal_and_says_what_it_left_out(
    jimmy: Jimmy, monkeypatch: pytest.MonkeyPatch, wide: int
) -> None:
    monkeypatch.setattr("jimmy_manager.cli.listing._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(wide))
    lines = jimmy("ls").stdout.splitlines()
    assert max(map(columns.width, lines)) <= wide
    assert lines[0].split()[:3] == ["key", "state", "epoch"]
    assert any(line.startswith("6 runs: 4 done") for line in lines)
    assert any(line.startswith("nan or inf: loss in 1 run") for line in lines)


def test_times_are_dates_on_a_terminal_and_seconds_in_a_pipe(
    jimmy: Jimmy, monkeypatch: pytest.MonkeyPatch, store: Path, key_of: KeyOf
) -> None:
    at = Store(store).stats[key_of(lr=0.2)]["at"]
    arguments = ("ls", "--columns", "saved_at,train_s", "--where", f"saved_at == {at}")
    assert jimmy(*arguments).stdout.splitlines()[1].split("\t")[0] == str(at)
    monkeypatch.setattr("jimmy_manager.cli.listing._is_terminal", lambda: True)
    assert f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}" in jimmy(*arguments).stdout
    assert len(jimmy("ls", "--columns", "key,saved_at").stdout.splitlines()) == 8


def test_a_narrow_table_drops_columns_but_keeps_a_result(jimmy: Jimmy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimmy_manager.cli.listing._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    lines = jimmy("ls").stdout.splitlines()
    head = lines[0].split()
    assert (head[:3], "loss" in head, "name" in head) == (["key", "state", "epoch"], True, False)
    assert any("no room for" in line and "name" in line for line in lines)


def test_show_tells_all_that_is_known(jimmy: Jimmy, key_of: KeyOf) -> None:
    text = jimmy("show", key_of(lr=0.2)[:6]).stdout
    expected = {"done after epoch 2", "optim.wd", "nested.acc", "array of float64, shape (3,)", "python 3", ".g1.c2.pt"}
    assert {part for part in expected if part not in text} == set()


def test_show_gives_json_of_a_run_that_failed(jimmy: Jimmy, key_of: KeyOf) -> None:
    found = json.loads(jimmy("show", key_of(lr=0.1, act="raise"), "--json").stdout)
    assert (found["state"], found["error"]["type"]) == ("failed", "ValueError")
    assert found["preview"]["curve"] == [0.0, 1.0, 2.0]


def test_a_run_that_is_held_is_called_running_everywhere(jimmy: Jimmy, store: Path, key_of: KeyOf) -> None:
    key, opened = key_of(lr=0.9), Store(store)
    claim = opened.claims.take(opened.standing(key), opened.registry.read(key).digest)
    assert claim is not None
    assert jimmy("retry", key, code=1).stderr == f"error: run {key} is running, not failed\n"
    assert f"run {key}: running" in jimmy("show", key).stdout
    claim.drop()


def test_one_of_a_thing_is_told_as_one(jimmy: Jimmy, key_of: KeyOf, tmp_path: Path) -> None:
    assert jimmy("export", str(tmp_path / "one.tar"), key_of(lr=0.2)).stdout.startswith("1 run written to ")
    two = jimmy("export", str(tmp_path / "two.tar"), key_of(lr=0.2), key_of(lr=0.1))
    assert two.stdout.startswith("2 runs written to ")


def test_show_works_for_a_run_that_has_nothing_yet(jimmy: Jimmy, key_of: KeyOf) -> None:
    assert "new" in jimmy("show", key_of(lr=0.9)).stdout.splitlines()[0]


def test_why_explains_two_keys(jimmy: Jimmy, key_of: KeyOf) -> None:
    assert jimmy("why", key_of(lr=0.1), key_of(lr=0.2)).stdout == "lr: 0.1 is not 0.2\n"
    assert "both are run" in jimmy("why", key_of(lr=0.1), key_of(lr=0.1)).stdout


def test_errors_shows_the_traceback_and_retry_frees_the_run(jimmy: Jimmy, store: Path, key_of: KeyOf) -> None:
    key = key_of(lr=0.1, act="raise")
    text = jimmy("errors").stdout
    assert f"run {key}: ValueError: evil\\x1b" in text
    assert "conftest.py" in text
    assert jimmy("errors", key_of(lr=0.2)).stdout == ""
    assert "Traceback" not in jimmy("errors", key, "--short").stdout
    assert json.loads(jimmy("errors", "--json").stdout)[0]["key"] == key
    assert "is done, not failed" in jimmy("retry", key_of(lr=0.2), code=1).stderr
    jimmy("retry", "--all")
    assert Store(store, read_only=True).standing(key).state == "retry"
    assert "no run has failed" in jimmy("errors").stderr


def test_pop_takes_runs_out(jimmy: Jimmy, key_of: KeyOf) -> None:
    jimmy("pop", key_of(lr=0.1), key_of(lr=0.2), "--yes")
    assert key_of(lr=0.1) not in jimmy("ls").stdout
    jimmy("pop", key_of(lr=0.1), "--yes", code=1)


def test_check_names_what_is_wrong_and_repairs_it(jimmy: Jimmy, store: Path, key_of: KeyOf) -> None:
    assert "superseded" in jimmy("check").stdout  # the popped run's files only take space
    jimmy("check", "--fix")
    assert "nothing is wrong" in jimmy("check").stderr
    (scratch := store / "configs" / "00" / ".0000.json.0123456789abcdef").parent.mkdir(exist_ok=True)
    scratch.touch()
    assert "scratch" in jimmy("check").stdout
    jimmy("check", "--fix")
    assert not scratch.exists()
    key = key_of(lr=0.2)
    (path,) = (store / "ckpts").rglob(f"{key}.g1.c3.pt")
    path.write_bytes(b"x")
    findings = json.loads(jimmy("check", "--json", code=1).stdout)["findings"]
    assert path.name in findings[0]["name"]


def test_prune_removes_what_is_superseded(jimmy: Jimmy) -> None:
    would = jimmy("prune", "--dry-run")
    assert "5 files" in would.stderr
    assert jimmy("prune").stdout == would.stdout
    assert "0 files" in jimmy("prune").stderr


def test_export_and_import_carry_runs_to_another_store(jimmy: Jimmy, tmp_path: Path, key_of: KeyOf) -> None:
    tar, other = str(tmp_path / "runs.tar"), str(tmp_path / "other")
    assert jimmy("export", tar, key_of(lr=0.1), key_of(lr=0.2)).stdout == f"2 runs written to {tar}\n"
    assert jimmy("import", tar, "--store", other).stdout == "2 added, 0 updated, 0 here already\n"
    assert json.loads(jimmy("import", tar, "--store", other, "--json").stdout)["added"] == []
    assert len(jimmy("ls", "--store", other).stdout.splitlines()) == 3
    jimmy("import", str(tmp_path / "nothing.tar"), "--store", other, code=1)


def test_schema_edits_the_ledger(jimmy: Jimmy, key_of: KeyOf) -> None:
    assert "no field was added" in jimmy("schema", "list").stderr
    added = jimmy("schema", "add", "warmup", "1e2").stdout
    assert added == "warmup was added; runs from before behave as warmup = 100.0\n"
    jimmy("schema", "rename", "optim.wd", "optim.decay")
    jimmy("schema", "add", "warmup", "3", code=1)
    assert json.loads(jimmy("schema", "list", "--json").stdout)[1] == {"rename": "optim.wd", "to": "optim.decay"}
    row = {row["key"]: row for row in json.loads(jimmy("ls", "--json").stdout)}[key_of(lr=0.2)]
    assert (row["warmup"], row["optim.decay"]) == (100.0, 0.0)
    jimmy("schema", "remove", "warmup", "100")
    assert len(jimmy("schema", "list").stdout.splitlines()) == 3
