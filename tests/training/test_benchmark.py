"""benchmarks/training.py runs, prints a line for everybody, and notices who trains less than the others."""

import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from jimmy_manager.training.jimmy_trainer import JimmyTrainer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "training.py"
PEERS = {name: importlib.util.find_spec(name.lower()) is not None for name in ("Lightning", "accelerate")}


@pytest.fixture
def benchmark(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_of_training", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def task(benchmark):
    return benchmark.Task("tiny", benchmark.mlp, *benchmark.data_of(4 * benchmark.BATCH, 784))


def table(block: str) -> tuple[str, dict[str, list[str]]]:
    """The title of a table, and the words of each line by its name."""
    title, _, *lines = block.splitlines()
    return title, {line[:36].strip(): line[36:].split() for line in lines}


def test_a_quick_run_prints_a_line_for_everybody_in_every_table():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    missing, *blocks = f"\n{done.stdout}".split("\n\n")
    assert len(blocks) >= 5
    for name, is_here in PEERS.items():
        assert (f"{name} is not installed" in missing) is not is_here
    assert ("no GPU here" in done.stdout) is not torch.cuda.is_available()
    for block, begin in zip(blocks, ("MLP", "small CNN", "5952 rows of 784", "5952 rows of 16"), strict=False):
        title, lines = table(block)
        assert title.startswith(begin)
        is_reading = "rows" in begin
        assert len(lines) == (5 if is_reading else 5 + 2 * sum(PEERS.values()))
        for words in lines.values():
            numbers = [float(word.rstrip("x")) for word in words[: 9 if is_reading else 8]]
            assert min(numbers) > 0
            assert numbers[:4] == sorted(numbers[:4])
        aims = {name: words[9 if is_reading else 8 :] for name, words in lines.items()}
        if is_reading:
            assert bool(aims["JimmyDataset"]) == ("784" in begin)
        else:
            assert [name for name, aim in aims.items() if aim] == list(lines)[1:3]


def test_who_is_missing_is_told_with_the_install_line_and_the_others_run(benchmark, task, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    runs = benchmark.contestants()
    assert len(runs) == 5
    told = capsys.readouterr().out
    for name in PEERS:
        assert f"{name} is not installed and not compared: pip install -e '.[bench]'" in told
    benchmark.race(task, runs, rounds=2)
    assert len(capsys.readouterr().out.splitlines()) == 3 + len(runs)


class Lazy(JimmyTrainer):
    """Leaves the optimizer's step out now and then, which would make it fast."""

    def train_epoch(self) -> bool:
        step = self.model.optimizer.step
        self.model.optimizer.step = lambda: step() if self.loop.step % 2 else None
        return super().train_epoch()


def test_who_trains_less_than_the_bare_loop_is_caught(benchmark, task, monkeypatch):
    runs = {"bare loop": benchmark.bare, "JimmyTrainer": partial(benchmark.jimmy, data=benchmark.dict_set)}
    benchmark.race(task, runs, rounds=2)
    monkeypatch.setattr(benchmark, "JimmyTrainer", Lazy)
    with pytest.raises(AssertionError, match=r"the loss of the bare loop is .* but that of {'JimmyTrainer'"):
        benchmark.race(task, runs, rounds=2)


def test_who_makes_fewer_steps_is_caught(benchmark, task):
    def short(task, note) -> float:
        half = benchmark.Task(task.name, task.layers, task.x[: benchmark.BATCH], task.y[: benchmark.BATCH])
        return benchmark.bare(half, note)

    with pytest.raises(AssertionError, match="short made 2 steps of 8"):
        benchmark.race(task, {"short": short}, rounds=2)
