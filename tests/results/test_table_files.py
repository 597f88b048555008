"""Tables as files: what was in the table is in the file, and nothing that is read as something else."""

from __future__ import annotations

import builtins
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jimmy_manager.archives.columns import Columns, Indexed
from jimmy_manager.errors import ConfigError, MissingExtra, StoreError
from jimmy_manager.results.frame import frame_of
from jimmy_manager.results.runs import Runs
from jimmy_manager.results.table_files import as_csv, as_markdown, write_table

EMPTY = Indexed("00000000", "done", 3, 0, 1.7e9, 0.5, 0.25, True, {}, {})


@pytest.fixture
def frame() -> pd.DataFrame:
    configs: list[dict[str, Any]] = [
        {"lr": 0.1, "betas": [0.9, True], "mixed": 1, "text": "a,\"b\"\n|<b>\x1b[2J", "big": 2**70, "amp": True},
        {"lr": 1e-17, "mixed": "x", "text": "é", "big": 1, "amp": None},
    ]
    rows = [EMPTY._replace(key=f"{n}", config=c, preview={"loss": 0.1 + 0.2 * n}) for n, c in enumerate(configs)]
    return frame_of(Runs(Columns.of(rows)))


def test_csv_has_every_digit_and_comes_back(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_table(frame, tmp_path / "runs.CSV")
    back = pd.read_csv(tmp_path / "runs.CSV", index_col="key", dtype={"key": str}, parse_dates=["saved_at"])
    assert back.index.tolist() == frame.index.tolist()
    assert back.columns.tolist() == frame.columns.tolist()
    assert back["lr"].tolist() == frame["lr"].tolist()
    assert back["loss"].tolist() == [0.1, 0.1 + 0.2]
    assert back["betas"].tolist()[0] == "[0.9, true]"
    assert back["text"].tolist() == frame["text"].tolist()
    assert back["saved_at"].tolist() == frame["saved_at"].tolist()


def test_a_text_that_no_file_can_hold_is_spelled_out() -> None:
    frame = frame_of(Runs(Columns.of([EMPTY._replace(preview={"note": "\ud800"})])))
    assert "\\ud800" in as_csv(frame)


def test_markdown_has_one_line_a_run_and_no_markup_of_a_runs_own(frame: pd.DataFrame) -> None:
    head, marks, *lines = as_markdown(frame).splitlines()
    assert len(lines) == 2
    assert {len(line) for line in (head, marks, *lines)} == {len(head)}
    assert "a,\"b\"\\\\n\\|&lt;b&gt;\\\\x1b[2J" in lines[0]
    assert [cell.strip() for cell in head.strip("|").split("|")][:4] == ["key", "state", "epoch", "lr"]
    assert [mark.strip().endswith(":") for mark in marks.strip("|").split("|")][:4] == [False, False, True, True]


def test_markdown_that_let_markup_through_would_be_caught(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("html.escape", lambda text, quote: text)
    with pytest.raises(AssertionError):
        test_markdown_has_one_line_a_run_and_no_markup_of_a_runs_own(frame)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_comes_back_with_its_types(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_table(frame, tmp_path / "runs.parquet")
    back = pd.read_parquet(tmp_path / "runs.parquet")
    assert back.index.equals(frame.index)
    assert back["lr"].equals(frame["lr"])
    assert back["saved_at"].tolist() == frame["saved_at"].tolist()
    assert back["mixed"].tolist() == ["1", '"x"']
    assert back["big"].tolist() == [str(2**70), "1"]
    assert back["amp"].tolist() == [True, None]


def test_without_pyarrow_the_error_ends_in_the_install_line(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'jimmy_manager\[parquet\]'$"):
        write_table(frame, tmp_path / "runs.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_nobody_knows_and_a_place_that_is_not_there_are_errors(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.md, \.parquet"):
        write_table(frame, tmp_path / "runs.xlsx")
    with pytest.raises(StoreError, match="No such file or directory"):
        write_table(frame, tmp_path / "nowhere" / "runs.csv")


def test_a_file_that_is_there_stays_whole_until_the_new_one_is(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space left"):
        write_table(frame, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
