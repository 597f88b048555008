"""The reader of event files, beside TensorBoard's own on what the project's manager writes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jimmy_manager.results import event_files
from jimmy_manager.results.event_files import Damage
from jimmy_manager.training.tensorboard_manager import TensorBoardManager

Values = dict[str, list[tuple[int, float]]]
TAGS = ["Train/Main", "LR"]


def write(place: Path, steps: range, scale: float = 1.0, purge_step: int | None = None) -> Path:
    """One writer's file with both tags at each step; its path."""
    before = set(place.glob("*tfevents*"))
    with TensorBoardManager(place, TAGS, purge_step=purge_step) as tm:
        for step in steps:
            tm.log(step, **{"Train/Main": scale * step, "LR": 0.5})
        tm.log_hparams({"lr": 0.1, "name": "cnn"})
    (path,) = set(place.glob("*tfevents*")) - before
    return path.rename(path.with_name(f"events.out.tfevents.{1_000_000_000 + len(before)}.host.{9 - len(before)}.0"))


def read(place: Path) -> tuple[Values, list[Damage]]:
    damage: list[Damage] = []
    found = event_files.read_scalars(str(place), damage)
    return {tag: [(step, point.value) for step, point in sorted(at.items())] for tag, at in found.items()}, damage


def by_tensorboard(place: Path) -> Values:
    accumulator = EventAccumulator(str(place), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_scalars_are_those_that_tensorboard_shows(tmp_path: Path) -> None:
    write(tmp_path, range(1, 50))
    assert read(tmp_path) == (by_tensorboard(tmp_path), [])
    assert len(read(tmp_path)[0]["LR"]) == 49


def check_that_a_restart_takes_back_what_follows(place: Path, reader: Callable[[Path], Values]) -> None:
    write(place, range(1, 10))
    write(place, range(6, 8), scale=10.0, purge_step=6)
    assert reader(place)["Train/Main"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0), (6, 60.0), (7, 70.0)]


def test_a_restart_takes_back_what_follows_it_as_in_tensorboard(tmp_path: Path) -> None:
    check_that_a_restart_takes_back_what_follows(tmp_path, lambda place: read(place)[0])
    assert read(tmp_path)[0] == by_tensorboard(tmp_path)


def test_a_reader_that_knows_no_restarts_or_takes_files_by_name_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    with monkeypatch.context() as patch:
        patch.setattr(Event, "HasField", lambda *_: False)
        with pytest.raises(AssertionError):
            check_that_a_restart_takes_back_what_follows(tmp_path / "blind", lambda place: read(place)[0])
    monkeypatch.setattr(event_files, "_age", lambda name: name[::-1])
    with pytest.raises(AssertionError):
        check_that_a_restart_takes_back_what_follows(tmp_path / "by name", lambda place: read(place)[0])


def test_without_a_purge_a_later_value_of_a_step_replaces_the_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    write(tmp_path, range(3, 4), scale=10.0)
    assert read(tmp_path)[0]["Train/Main"] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 4.0)]


def test_a_truncated_file_gives_what_is_whole_and_says_that_its_end_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 9))
    whole = path.read_bytes()
    for left in range(1, 40):
        path.write_bytes(whole[:-left])
        _, damage = read(tmp_path)
        assert damage == [] or damage == [Damage(str(path), "its last record is not whole", is_end=True)]
    path.write_bytes(whole[: len(whole) // 2])
    values, damage = read(tmp_path)
    assert 0 < len(values["LR"]) < 8
    assert [each.is_end for each in damage] == [True]


def test_no_flipped_bit_changes_a_value_unnoticed(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 4))
    whole, (values, _) = path.read_bytes(), read(tmp_path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found, damage = read(tmp_path)
        assert damage or found == values, place
        assert {point for points in found.values() for point in points} <= {p for each in values.values() for p in each}


def test_a_damaged_record_costs_itself_alone(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 9))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"LR") + 4] ^= 1  # in the value that follows the tag
    path.write_bytes(raw)
    values, damage = read(tmp_path)
    assert [step for step, _ in values["LR"]] == list(range(2, 9))
    assert len(values["Train/Main"]) == 8
    assert damage == [Damage(str(path), "a record is damaged and left out")]


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 11, b"\xff" * 4000, b"\x00" * 4000, os.urandom(3000)])
def test_what_is_no_event_file_is_named_and_costs_nothing_else(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, range(1, 3))
    other = tmp_path / "events.out.tfevents.1"
    other.write_bytes(content)
    values, damage = read(tmp_path)
    assert len(values["LR"]) == 2
    assert {each.path for each in damage} == ({str(other)} if content else set())


def test_links_are_not_followed_and_no_pipe_is_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path / "elsewhere", range(1, 3))
    place = tmp_path / "place"
    write(place, range(3, 4))
    (place / "events.out.tfevents.5").symlink_to(path)
    (place / "folder").symlink_to(path.parent)
    os.mkfifo(place / "events.out.tfevents.6")
    values, damage = read(place)
    assert values == {"Train/Main": [(3, 3.0)], "LR": [(3, 0.5)]}
    assert [Path(each.path).name for each in damage] == ["events.out.tfevents.5", "events.out.tfevents.6"]


def test_folders_below_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, range(1, 2))
    write(tmp_path / "valid", range(5, 6))
    assert read(tmp_path)[0] == {
        "Train/Main": [(1, 1.0)], "LR": [(1, 0.5)], "valid/Train/Main": [(5, 5.0)], "valid/LR": [(5, 0.5)]
    }  # fmt: skip


def test_scalars_in_tensors_and_values_that_are_not_finite_are_read(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in enumerate([0.5, math.nan, math.inf]):
            writer.add_scalar("new", value, step, new_style=True)
            writer.add_scalar("old", value, step)
        writer.add_text("text", "nothing to count")
        writer.add_histogram("histogram", np.arange(5.0), 1)
    values, damage = read(tmp_path)
    assert damage == []
    assert set(values) == {"new", "old"}
    assert {tuple(str(value) for _, value in points) for points in values.values()} == {("0.5", "nan", "inf")}


def test_neither_torch_nor_tensorflow_is_needed(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    code = (
        "import sys; from jimmy_manager.results import event_files\n"
        f"print(len(event_files.read_scalars({str(tmp_path)!r}, [])), {{'torch', 'tensorflow'}} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "2 set()\n"


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert read(tmp_path) == ({}, [Damage(str(tmp_path), "Permission denied")])


def test_a_run_without_a_log_has_no_curves(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == ({}, [])
