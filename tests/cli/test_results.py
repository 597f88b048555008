"""``jimmy best``, ``group`` and ``table``, on the store that has one run of every kind."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from jimmy_manager import Store
from jimmy_manager.archives import layout
from jimmy_manager.cli import results

DONE = ("--where", "state == 'done'")
Jimmy = Callable[..., Result]
KeyOf = Callable[..., str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands take their output for a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    real = results.sys

    class System:
        class stdout:  # noqa: N801
            isatty = staticmethod(lambda: True)

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(results, "sys", System())


def is_clean(text: str) -> bool:
    return all(char in "\n\t" or char.isprintable() for char in text)


def test_best_prints_the_run_with_tabs_its_key_first(jimmy: Jimmy, key_of: KeyOf) -> None:
    head, line = (text.split("\t") for text in jimmy("best", "loss", *DONE).stdout.splitlines())
    assert head[:3] == ["key", "state", "epoch"]
    assert dict(zip(head, line, strict=True)) | {"lr": "0.1", "loss": "0.1"} == dict(zip(head, line, strict=True))
    assert line[0] == key_of(lr=0.1)


def test_best_prints_the_key_alone_where_asked_and_passes_over_nan(jimmy: Jimmy, key_of: KeyOf) -> None:
    where = ("--where", "name == 'plain' and state == 'done'", "--key")
    assert jimmy("best", "loss", "--mode", "max", *where).stdout == f"{key_of(lr=0.2)}\n"
    assert jimmy("best", "loss", *where).stdout == f"{key_of(lr=0.1)}\n"
    assert json.loads(jimmy("best", "loss", "--json", *DONE).stdout)["key"] == key_of(lr=0.1)
    assert json.loads(jimmy("best", "train_s", "--json").stdout)["train_s"] >= 0


def test_best_says_that_it_took_the_lowest_where_the_name_does_not_tell(jimmy: Jimmy) -> None:
    told = jimmy("best", "train_s", "--key")
    assert told.stderr == "lowest train_s, as its name does not say what is better (--mode max)\n"
    assert len(told.stdout.split()) == 1
    for arguments in (("train_s", "--mode", "min"), ("loss",), ("nested.acc",)):
        assert jimmy("best", *arguments).stderr == ""


def test_a_number_in_quotes_is_warned_of_on_stderr(jimmy: Jimmy) -> None:
    for arguments in (("ls",), ("table",), ("group",)):
        told = jimmy(*arguments, "--where", 'epoch == "1"')
        assert told.stderr.startswith("warning: the filter compares 'epoch', which holds numbers, with the text '1'")
        assert told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["best", "los"], 1, "error: no run has a field 'los'; did you mean 'loss'?"),
        (["best", "loss", "--where", "lr == 0.3"], 1, "error: no run has a finite number 'loss': of 1 runs 1 have NaN"),
        (["best", "loss", "--where", "lr = 3"], 1, "write == to compare"),
        (["best", "loss", "--mode", "lowest"], 2, "'lowest' is not one of 'min', 'max'"),
        (["group", "lrr"], 1, "error: no run has a field 'lrr'; did you mean 'lr'?"),
        (["group", "--over", "nam"], 1, "did you mean 'name'?"),
        (["group", "--metrics", "note"], 1, "error: 'note' is a number in no run; numbers are loss, nested.acc"),
        (["table", "--columns", "lr,lss"], 1, "did you mean 'loss'?"),
        (["table", "runs.xls"], 1, "its name must end in .csv, .md, .parquet"),
        (["table", "nowhere/runs.csv"], 1, "error: cannot write 'nowhere/runs.csv': No such file or directory"),
    ],
)
def test_bad_input_gets_one_clear_line(jimmy: Jimmy, arguments: list[str], code: int, message: str) -> None:
    assert message in jimmy(*arguments, code=code).stderr


@pytest.mark.parametrize("command", [["group"], ["group", "--json"], ["table"]])
def test_an_empty_store_is_no_error(
    jimmy: Jimmy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    _ = Store(tmp_path / "empty").info
    monkeypatch.setenv("JIMMY_STORE", str(tmp_path / "empty"))
    out = jimmy(*command).stdout
    assert out in ("[]\n", "key,state,epoch,saved_at,train_s,eval_s\n", "runs\n")
    assert "no such runs" in jimmy("best", "loss", code=1).stderr


def test_group_prints_every_statistic_into_a_pipe(jimmy: Jimmy) -> None:
    out = jimmy("group", "name", "--metrics", "loss", *DONE).stdout
    head, *lines = (line.split("\t") for line in out.splitlines())
    assert head == ["name", *(f"loss.{stat}" for stat in ("n", "mean", "std", "min", "max", "ci95"))]
    assert sorted((cells[1], cells[4]) for cells in lines) == [("1", "0.2"), ("2", "0.1")]
    assert sorted(cells[3] for cells in lines)[1] == "nan", "of one run"


def test_group_as_json_has_null_where_there_is_no_deviation(jimmy: Jimmy) -> None:
    rows = json.loads(jimmy("group", "lr", "--where", "lr < 0.15 and state == 'done'", "--json").stdout)
    (row,) = rows
    assert row["by"] == {"lr": 0.1}
    assert row["metrics"]["loss"] == {"n": 1, "mean": 0.1, "std": None, "min": 0.1, "max": 0.1, "ci95": None}


@pytest.mark.usefixtures("terminal")
def test_group_shows_means_that_fit_a_terminal(jimmy: Jimmy) -> None:
    out = jimmy("group", "act").output
    assert max(map(len, out.splitlines())) <= 80
    assert "±" in out
    assert "(n=" in out, "a metric with fewer numbers than the others says so"
    assert out.splitlines()[-1].endswith("mean ± half of the 95 % interval")
    assert jimmy("group", "act", "--where", "lr > 5").output == "no runs\n"


@pytest.mark.usefixtures("terminal")
def test_best_shows_a_run_as_lines_on_a_terminal(jimmy: Jimmy, key_of: KeyOf) -> None:
    first, *lines = jimmy("best", "loss", *DONE).output.splitlines()
    assert first == key_of(lr=0.1)
    shown = dict(line.split(maxsplit=1) for line in lines if len(line.split()) > 1)
    assert (shown["state"], shown["loss"]) == ("done", "0.1")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("arguments", [["best", "loss", "--where", "lr == 0.2"], ["group", "name"], ["table"]])
def test_no_text_from_a_store_reaches_the_terminal_as_a_command(
    jimmy: Jimmy, arguments: list[str]
) -> None:
    out = jimmy(*arguments).output
    assert is_clean(out)
    assert "\\x1b" in out or arguments[0] == "best"


def test_table_writes_csv_to_stdout_or_a_file(jimmy: Jimmy, tmp_path: Path, key_of: KeyOf) -> None:
    arguments = ("--where", "state == 'done'", "--columns", "lr,loss", "--sort", "-lr")
    for file in ((), ("-",)):
        rows = list(csv.reader(io.StringIO(jimmy("table", *file, *arguments).stdout)))
        assert rows[0] == ["key", "lr", "loss"]
        assert rows[1] == [key_of(lr=0.3), "0.3", ""]
    path = tmp_path / "runs.csv"
    done = jimmy("table", str(path), *arguments)
    assert (done.stdout, done.stderr) == ("", f"wrote 4 runs to {path}\n")
    assert list(csv.reader(io.StringIO(path.read_text()))) == rows
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_damage_is_a_warning_on_stderr_and_the_rest_is_shown(jimmy: Jimmy, store: Path, key_of: KeyOf) -> None:
    name = layout.preview(key_of(lr=0.1), 1, 3)
    (store / name).write_bytes(b"")
    for command in (["best", "loss"], ["group"], ["table"]):
        done = jimmy(*command)
        assert f"warning: damaged file {name}" in done.stderr
        assert done.stdout
