"""Several processes under torchrun train as one process would with the same batches."""

import atexit
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jimmy_manager.errors import DatasetError
from jimmy_manager.training.process_group import ProcessGroup

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("torchrun_program.py")


def train(folder: Path, processes: int, *arguments: str) -> list[dict]:
    """Run the program; return what each process reports."""
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, str(PROGRAM), str(folder), *arguments], cwd=ROOT, capture_output=True, text=True,
        env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"report-{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    return train(tmp_path_factory.mktemp("alone"), 1)[0]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict]:
    return train(tmp_path_factory.mktemp("together"), 3)


def test_three_processes_train_as_one_does_with_the_same_batches(alone, together):
    for report in together:
        assert report["ended"] == "done"
        assert report["sha"] == together[0]["sha"]
        assert report["weights"] == pytest.approx(alone["weights"], rel=1e-9, abs=1e-11)
        assert report["ema"] == pytest.approx(alone["ema"], rel=1e-9, abs=1e-11)
        for name in ("eval", "train", "moving"):
            assert report[name] == pytest.approx(alone[name], rel=1e-9)
        assert report["lr"] == alone["lr"]
        assert report["step"] == alone["step"] == 9 * 8


def test_training_was_something_to_be_equal_about(alone):
    assert alone["eval"]["Eval/Main"] < 0.9
    assert alone["train"]["Train/Main"] != alone["moving"]["Train/Main"]


def test_a_stop_that_reaches_one_process_stops_all_and_the_rest_ends_in_the_same_bytes(together, tmp_path):
    stopped = train(tmp_path, 3, "--stop-at", "18")
    place = "stopped in epoch 3 of 9, after 2 of 8 batches (step 18)"
    assert f"SIGTEST: {place}" in stopped[2]["ended"]
    assert f"a signal to another process: {place}" in stopped[0]["ended"]
    resumed = train(tmp_path, 3, "--resume")
    assert [report["sha"] for report in resumed] == [report["sha"] for report in together]
    assert resumed[0]["moving"] == together[0]["moving"]


def test_a_step_that_is_bad_in_one_process_is_skipped_by_all(tmp_path):
    reports = train(tmp_path, 2, "--bad-step", "4")
    assert reports[0]["sha"] == reports[1]["sha"]
    assert all(abs(value) < 100 for value in reports[0]["weights"])


@pytest.mark.parametrize(("device", "backend", "waits"), [("cpu", "gloo", [0.2]), ("cuda", "nccl", [])])
def test_a_process_that_joins_by_gloo_waits_for_its_thread_at_the_end(device, backend, waits, monkeypatch):
    joined, registered = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr("jimmy_manager.training.process_group.DEVICE", torch.device(device))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", joined.append)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
    ProcessGroup.current()
    assert joined == [backend]
    assert registered == [(time.sleep, seconds) for seconds in waits]


def test_without_torchrun_there_is_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ProcessGroup.current() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ProcessGroup.current() is None


def group(rank: int, size: int) -> ProcessGroup:
    """A group whose processes are only imagined, for what needs no exchange."""
    each = object.__new__(ProcessGroup)
    each.rank, each.size, each.weight = rank, size, 1.0
    return each


@pytest.mark.parametrize("count", [3, 4, 7, 8, 64])
def test_shares_are_the_whole_batch_in_order(count):
    batch = {"x": torch.arange(count), "names": [str(i) for i in range(count)], "scale": 2.0, "matrix": torch.eye(2)}
    shares = [group(rank, 3).share(batch, count) for rank in range(3)]
    assert torch.equal(torch.cat([share["x"] for share, _ in shares]), batch["x"])
    assert [name for share, _ in shares for name in share["names"]] == batch["names"]
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    assert [weight * count for _, weight in shares] == [len(share["x"]) for share, _ in shares]
    assert all(share["scale"] == 2.0 and share["matrix"].shape == (2, 2) for share, _ in shares)


def test_a_batch_smaller_than_the_group_is_whole_for_each():
    batch = {"x": torch.arange(2)}
    assert group(1, 3).share(batch, 2) == (batch, 1 / 3)


def test_a_batch_without_rows_cannot_be_shared():
    with pytest.raises(DatasetError, match=r"4 samples cannot be shared.*\['a', 'b'\]"):
        group(0, 2).share({"b": torch.eye(3), "a": 1.0}, 4)
