from __future__ import annotations

import io
import os
import re
import sys
from datetime import datetime
from pathlib import Path

import pytest

from jimmy_manager.training import run_record_manager
from jimmy_manager.training.run_record_manager import RunRecordManager


def make(root: Path, dataset: str, model: str, run: str, *files: str, comment: str = "", at: float = 1e9) -> Path:
    path = root / dataset / model / run
    path.mkdir(parents=True)
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x" * 1000)
    if comment:
        (path / "comments.txt").write_text(comment, encoding="utf-8")
    for below in (path, *path.rglob("*")):
        os.utime(below, (at, at))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "Runs"
    make(root, "MNIST", "CNN", "new", "best.pth", comment="a longer warm-up\nlr: 0.1", at=3e9)
    make(root, "MNIST", "CNN", "old", "last.pth", at=1e9)
    make(root, "MNIST", "ResNet", "middle", "best.pth", "report.csv", "tb/events", at=2e9)
    make(root, "Porto", "UNet", "other", "report.csv", at=2.5e9)
    return root


def test_runs_have_a_state_a_comment_a_size_and_a_time_and_the_newest_is_the_last(root: Path) -> None:
    records = RunRecordManager(root).records()
    assert [(each.dataset, each.model, each.name, each.state) for each in records] == [
        ("MNIST", "CNN", "old", "incomplete"),
        ("MNIST", "ResNet", "middle", "tested"),
        ("Porto", "UNet", "other", "incomplete"),
        ("MNIST", "CNN", "new", "trained"),
    ]
    assert [each.comment for each in records] == ["", "", "", "a longer warm-up"]
    assert [each.size for each in records] == [1000, 3000, 1000, 1024]
    assert [each.changed.timestamp() for each in records] == [1e9, 2e9, 2.5e9, 3e9]
    assert records[0].path == root / "MNIST" / "CNN" / "old"


@pytest.mark.parametrize(
    ("datasets", "models", "names"),
    [
        ("Porto", None, ["other"]),
        (["MNIST", "Porto"], ["UNet", "ResNet"], ["middle", "other"]),
        (None, "CNN", ["old", "new"]),
        (("MNIST",), "UNet", []),
        ([], None, []),
    ],
)
def test_datasets_and_models_can_be_chosen(root: Path, datasets: object, models: object, names: list[str]) -> None:
    assert [each.name for each in RunRecordManager(root).records(datasets, models)] == names


def test_stray_files_broken_links_and_hidden_directories_are_passed_over(root: Path) -> None:
    before = RunRecordManager(root).records()
    for level in (root, root / "MNIST", root / "MNIST" / "CNN"):
        (level / "notes.txt").write_text("stray")
        (level / "best.pth").write_text("stray")
        (level / "report.csv").write_text("stray")
        (level / "gone").symlink_to("/nowhere/at/all")
        (level / "loop").symlink_to("loop")
        (level / ".ipynb_checkpoints" / "a" / "b").mkdir(parents=True)
        os.mkfifo(level / "pipe")
    assert RunRecordManager(root).records() == before


def test_odd_things_within_a_run_do_no_harm(root: Path) -> None:
    run = make(root, "Odd", "Model", "run")
    (run / "best.pth").symlink_to("/nowhere/at/all")
    (run / "gone.csv").symlink_to("/nowhere/at/all")
    (run / "directory.csv").mkdir()
    (run / "loop").symlink_to(run)
    os.mkfifo(run / "comments.txt")
    record = RunRecordManager(root).records("Odd")[0]
    assert (record.state, record.comment) == ("incomplete", "")
    (run / "best.pth").unlink()
    (run / "best.pth").write_bytes(b"")
    os.utime(run / "best.pth", (1e12, 1e12))
    record = RunRecordManager(root).records("Odd")[0]
    assert record.state == "trained"
    assert isinstance(record.changed, datetime)


def test_links_to_directories_are_followed_at_the_three_levels(root: Path, tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "scratch", "d", "m", "r", "best.pth").parents[1]
    (root / "Linked").symlink_to(elsewhere)
    assert [each.state for each in RunRecordManager(root).records("Linked")] == ["trained"]


def test_an_empty_run_is_incomplete_and_as_old_as_its_directory(root: Path) -> None:
    make(root, "Empty", "Model", "run", at=1.5e9)
    record = RunRecordManager(root).records("Empty")[0]
    assert (record.state, record.size, record.changed.timestamp()) == ("incomplete", 0, 1.5e9)


@pytest.mark.parametrize(
    ("comment", "shown"),
    [
        (b"\n  \n  first \nsecond", "first"),
        (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (b"", ""),
        (b"x" * 10_000, "x" * 4096),
    ],
)
def test_the_comment_is_the_first_line_that_says_something(root: Path, comment: bytes, shown: str) -> None:
    (root / "MNIST" / "CNN" / "new" / "comments.txt").write_bytes(comment)
    assert next(each.comment for each in RunRecordManager(root).records() if each.name == "new") == shown


def refuse(monkeypatch: pytest.MonkeyPatch, refused: Path, error: OSError) -> None:
    """Let listing ``refused`` fail, as permissions would for anybody but root."""
    listing = os.scandir

    def scandir(path: str | os.PathLike[str]) -> object:
        if Path(path) == refused:
            raise error
        return listing(path)

    iterdir = Path.iterdir
    monkeypatch.setattr(run_record_manager.os, "scandir", scandir)
    monkeypatch.setattr(Path, "iterdir", lambda path: list(scandir(path)) and iterdir(path))


def test_a_run_that_cannot_be_listed_is_shown_as_such(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, root / "MNIST" / "CNN" / "new", PermissionError(13, "Permission denied"))
    record = next(each for each in RunRecordManager(root).records() if each.name == "new")
    assert (record.state, record.comment) == ("unreadable", "Permission denied")


def test_a_directory_above_runs_that_cannot_be_listed_is_a_warning(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, root / "MNIST", PermissionError(13, "Permission denied"))
    assert [each.name for each in RunRecordManager(root).records()] == ["other"]
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize("level", ["MNIST", "MNIST/CNN", "MNIST/CNN/new"])
def test_what_goes_away_while_it_is_read_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    refuse(monkeypatch, root / level, FileNotFoundError(2, "No such file or directory"))
    names = [each.name for each in RunRecordManager(root).records()]
    assert "new" not in names
    assert "other" in names


def test_nothing_there_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manager = RunRecordManager(tmp_path / "Runs")
    assert manager.records() == []
    manager.printRecords()
    manager.printRecords("MNIST", ["CNN", "ResNet"])
    assert capsys.readouterr().out.splitlines() == [
        f"no runs in {tmp_path}/Runs",
        f"no runs of dataset 'MNIST' and model ['CNN', 'ResNet'] in {tmp_path}/Runs",
    ]


def test_the_table_without_a_terminal_is_whole_and_plain(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comment = "a very long comment of many words " * 20
    make(root, "Odd", "Mod\x1b[2Jel", "[red]run", comment=comment + "\x07", at=3.5e9)
    RunRecordManager(root).printRecords()
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["Dataset", "Model", "Run", "State", "Changed", "Size", "Comment"]
    assert lines[1].split()[:4] == ["MNIST", "ResNet", "middle", "tested"]
    assert lines[-1].endswith(comment + r"\x07")
    assert r"Mod\x1b[2Jel" in lines[-1]
    assert "[red]run" in lines[-1]
    assert last == "5 runs, 6.7 kB: 3 incomplete, 1 trained, 1 tested"
    assert "\x1b" not in head + "".join(lines)


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_the_table_fits_into_a_terminal(root: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    make(root, "PortoTrajectories", "TrajUNetV2", "260201_142348", "best.pth", comment="words " * 50)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    RunRecordManager(root).printRecords()
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in sys.stdout.getvalue().splitlines()]
    assert len(lines) == 7
    assert max(map(len, lines)) <= width
    assert ("Changed" in lines[0], "Size" in lines[0]) == (width >= 100, width >= 120)
    if width >= 80:
        assert "PortoTrajectories  TrajUNetV2  260201_142348  trained" in lines[2]
        assert "words words" in lines[2]


def test_one_run_is_told_of_in_the_singular(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunRecordManager(root).printRecords("Porto")
    assert capsys.readouterr().out.splitlines()[-1] == "1 run, 1.0 kB: 1 incomplete"
