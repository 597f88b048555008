"""The numbers of evaluations as lines: what is written, and what of it a reader believes."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jimmy_manager import Manager, Store
from jimmy_manager.archives import eval_log
from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.eval_log import EvalLog, Evaluation

Lines = list[tuple[int, float]]


class Line(Manager):
    num_epochs = 4

    def train(self) -> None:
        self.step += 10

    def eval(self) -> dict[str, Any]:
        if self.epoch == self.config.get("fails_at") and not hasattr(self, "has_failed"):
            self.has_failed = True
            raise ValueError("no luck")
        return {"loss": self.config.scale / (1 + self.epoch), "note": "text", "best": {"epoch": self.epoch}}


def manager_at(place: Path, **options: Any) -> Line:
    return Line(place / "store", {"scale": 1.0, "fails_at": -1}, verbose=False, device="cpu", **options)


def lines_of(manager: Manager, key: str) -> dict[str, list[dict[str, Any]]]:
    folder = Path(manager.store.logs(key) or "")
    return {path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.iterdir()}


def read(place: Path) -> Lines:
    return [(each.epoch, each.values["loss"]) for each in eval_log.read(str(place), [])]


def put(place: Path, generation: int, *lines: tuple[int, float] | str) -> None:
    def text(epoch: int, loss: float) -> str:
        return json.dumps({"epoch": epoch, "step": 0, "at": 1, "values": {"loss": loss}})

    texts = [each if isinstance(each, str) else text(*each) for each in lines]
    (place / f"evals.g{generation}.jsonl").write_text("".join(f"{each}\n" for each in texts))


# ---- what is written


def test_each_evaluation_of_a_run_is_a_line(tmp_path: Path) -> None:
    manager = manager_at(tmp_path)
    key = manager.process({"scale": 2.0})
    ((name, lines),) = lines_of(manager, key).items()
    assert name == "evals.g1.jsonl"
    assert [(line["epoch"], line["step"], line["values"]) for line in lines] == [
        (n, 10 * n, {"loss": 2.0 / (1 + n), "best.epoch": n}) for n in range(5)
    ]
    assert all(abs(line["at"] - manager.stats[key]["at"]) < 60 for line in lines)
    assert audit(manager.store) == []


def test_numbers_that_no_json_has_come_back(tmp_path: Path) -> None:
    log = EvalLog(str(tmp_path), 1)
    log.append(1, 0, 5.0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(0.5)})
    log.close()
    text = (tmp_path / "evals.g1.jsonl").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (found,) = eval_log.read(str(tmp_path), [])
    assert math.isnan(found.values.pop("a"))
    assert found == Evaluation(1, 0, 5.0, {"b": math.inf, "c": -math.inf, "d": 0.5})


def test_numbers_are_found_at_any_depth_and_nothing_else_is() -> None:
    endless: dict[str, Any] = {}
    endless["itself"] = endless
    given = {
        "int": 1, "np": np.int64(2), "array": np.array(3.0), "tensor": torch.tensor(4.0, requires_grad=True),
        "deep": {7: {"x": 5}}, "bool": True, "np.bool": np.bool_(True), "text": "6", "none": None, "list": [7],
        "vector": np.arange(2), "complex": np.complex64(1), "huge": 10**400, "meta": torch.empty((), device="meta"),
        "endless": endless,
    }  # fmt: skip
    assert dict(eval_log.numbers(given)) == {"int": 1, "np": 2, "array": 3.0, "tensor": 4.0, "deep.7.x": 5}


def test_an_eval_that_fills_the_preview_is_logged_as_well(tmp_path: Path) -> None:
    class Jarvis(Line):
        def eval(self) -> None:
            self.preview["loss_test"] = 0.5
            self.ckpt["eval_records"][self.epoch] = {"loss_train": self.epoch}
            self.preview["eval_records"] = self.ckpt["eval_records"]

    manager = Jarvis(tmp_path / "store", {"scale": 1.0}, verbose=False, device="cpu")
    key = manager.process({}, num_epochs=2)
    (lines,) = lines_of(manager, key).values()
    assert [line["values"] for line in lines] == [{"loss_test": 0.5, "loss_train": n} for n in range(3)]


def test_an_eval_without_numbers_and_a_store_in_memory_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Silent(Line):
        def eval(self) -> dict[str, Any]:
            return {"note": "nothing to count"}

    Silent(tmp_path / "store", {"scale": 1.0}, verbose=False, device="cpu").process({})
    Line(None, {"scale": 1.0}, verbose=False, device="cpu").process({})
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not (tmp_path / "store/logs").exists()


def test_the_file_is_opened_once_a_run_and_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = [], []
    inner = eval_log._open
    monkeypatch.setattr(eval_log, "_open", lambda path: opened.append(path) or inner(path))
    inner_close = EvalLog.close
    monkeypatch.setattr(EvalLog, "close", lambda self: closed.append(self) or inner_close(self))
    before = os.listdir("/proc/self/fd")
    manager_at(tmp_path).process({})
    assert (len(opened), len(closed)) == (1, 1)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


# ---- what the file system does


def test_a_full_disk_costs_lines_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, places = os.write, iter(["all", "refuse", "half", "refuse", "all"])

    def fill_up(descriptor: int, data: bytes) -> int:
        if b'"epoch"' not in data:
            return write(descriptor, data)
        place = next(places)
        if place == "refuse":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data if place == "all" else data[: len(data) // 2])

    monkeypatch.setattr(os, "write", fill_up)
    manager = manager_at(tmp_path)
    key = manager.process({})
    assert manager.stats[key]["done"]
    (told,) = [each.getMessage() for each in caplog.records if "evaluations" in each.getMessage()]
    assert told.startswith(f"evaluations are not logged to {manager.store.logs(key)}/evals.g1.jsonl")
    assert told.endswith("and training goes on: No space left on device")
    assert [epoch for epoch, _ in read(Path(manager.store.logs(key) or ""))] == [0, 4]


def test_a_folder_for_logs_that_cannot_be_written_does_not_fail_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = manager_at(tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "store/logs").write_text("in the way")
    key = manager.process({})
    assert manager.stats[key]["done"]
    assert len([each for each in caplog.records if "training goes on" in each.getMessage()]) == 1


def test_no_link_is_written_through_or_read_through_and_no_pipe_waited_for(tmp_path: Path) -> None:
    put(tmp_path, 9, (1, 0.5))
    other = tmp_path / "other"
    other.mkdir()
    (other / "evals.g1.jsonl").symlink_to(tmp_path / "evals.g9.jsonl")
    os.mkfifo(other / "evals.g2.jsonl")
    (other / "evals.g3.jsonl").mkdir()
    EvalLog(str(other), 1).append(2, 0, 1.0, {"loss": 0.1})
    damage: list[str] = []
    assert eval_log.read(str(other), damage) == []
    assert [f"evals.g{n}.jsonl" in text for n, text in enumerate(damage, 1)] == [True, True, True]
    assert read(tmp_path) == [(1, 0.5)]


# ---- what is believed


def check_that_the_highest_generation_counts(place: Path, reader: Callable[[Path], Lines]) -> None:
    put(place, 2, (0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4))
    put(place, 9, (3, 9.3), (4, 9.4))
    put(place, 10, (4, 10.4), (5, 10.5))
    assert reader(place) == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 9.3), (4, 10.4), (5, 10.5)]


def test_of_an_epoch_that_was_trained_again_the_highest_generation_counts(tmp_path: Path) -> None:
    check_that_the_highest_generation_counts(tmp_path, read)


@pytest.mark.parametrize("order", [str, lambda n: -n])
def test_a_reader_that_takes_generations_in_another_order_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Callable[[int], Any]
) -> None:
    monkeypatch.setattr(eval_log, "sorted", lambda found: sorted(found, key=order), raising=False)
    with pytest.raises(AssertionError):
        check_that_the_highest_generation_counts(tmp_path, read)


def test_a_run_that_was_started_afresh_shows_nothing_of_the_longer_one_before(tmp_path: Path) -> None:
    put(tmp_path, 1, *((n, 0.1) for n in range(9)))
    put(tmp_path, 2, (0, 0.2), (1, 0.2))
    assert read(tmp_path) == [(0, 0.2), (1, 0.2)]


def test_half_lines_and_those_of_others_are_passed_over(tmp_path: Path) -> None:
    put(
        tmp_path, 1, (0, 0.5), '{"epoch": 1, "step": 0, "at": 1, "val', "", "null", "[" * 100_000, '"text"',
        '{"epoch": true, "step": 0, "at": 1, "values": {}}', '{"epoch": 2, "step": 0, "at": 1, "values": {"a": "x"}}',
        '{"epoch": 2, "step": 0, "at": NaN, "values": {}}', '{"epoch": -1, "step": 0, "at": 1, "values": {}}',
        '{"epoch": 2, "step": 0, "at": 1, "values": {"a": ' + "9" * 400 + "}}",
        '{"epoch": ' + "9" * 400 + ', "step": 0, "at": 1, "values": {}}', "\x00\x00", (3, 0.25),
    )  # fmt: skip
    with (tmp_path / "evals.g1.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n" + b'{"epoch": 4, "step": 0, "at": 1, "values": {"loss": 1')
    assert read(tmp_path) == [(0, 0.5), (3, 0.25)]


def test_an_epoch_that_failed_and_was_tried_again_stands_in_two_generations(tmp_path: Path) -> None:
    manager = manager_at(tmp_path, save_interval=3)
    key = manager.process({"fails_at": 2}, retries=1)
    assert sorted(lines_of(manager, key)) == ["evals.g1.jsonl", "evals.g2.jsonl"]
    place = Path(Store(tmp_path / "store", read_only=True).logs(key) or "")
    assert read(place) == [(n, 1.0 / (1 + n)) for n in range(5)]


def test_a_run_without_a_log_has_no_evaluations(tmp_path: Path) -> None:
    assert eval_log.read(str(tmp_path / "nowhere"), []) == []


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)
    damage: list[str] = []
    assert eval_log.read(str(tmp_path), damage) == []
    assert damage == [f"cannot list {tmp_path}: Permission denied"]
