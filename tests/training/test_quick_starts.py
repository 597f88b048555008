"""The quick-start programs of both generations, in ``tests/quick_starts``, run and leave what they promise.

They differ from how they were written down in the lines that import, and in what was incomplete there; the docstring of
each program says what was filled in. All epochs are trained as written: they take seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jimmy_manager.state_files import load_state

ROOT = Path(__file__).parents[2]
FILES = {"best.pth", "last.pth", "comments.txt", "model_arch.txt", "runtime_param_buffer.yaml"}


def run(program: str, folder: Path, *launcher: str) -> tuple[Path, str]:
    """Run a program in ``folder``, and return the directory of its only run and what it told."""
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "tests" / "quick_starts" / program)], cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (directory,) = folder.glob("Runs/*/*/*")
    assert {path.name for path in directory.iterdir()} > FILES
    return directory, done.stdout + done.stderr


def logged(directory: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(directory)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_the_older_quick_start(tmp_path: Path) -> None:
    directory, _ = run("older.py", tmp_path, "-W", "error")
    assert directory.parent == tmp_path / "Runs" / "MyData" / "MyModel"
    evaluated = logged(directory, "Eval/Loss")
    assert [step for step, _ in evaluated] == [32 * epoch for epoch in (2, 4, 6, 8, 10)]
    losses = [loss for _, loss in evaluated]
    assert losses == sorted(losses, reverse=True), "each evaluation, on the data it was trained on, is better"
    assert load_state(directory / "last.pth")["loop"]["epoch"] == 10
    assert load_state(directory / "best.pth")["losses"]["Eval/Loss"] == pytest.approx(losses[-1])
    assert (directory / "comments.txt").read_text().startswith("Quick start test\n")


def test_two_processes_of_the_older_quick_start_make_one_run(tmp_path: Path) -> None:
    directory, told = run("older.py", tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert (directory / "comments.txt").read_text().count("Quick start test") == 1
    assert len(load_state(directory / "last.pth")["random"]) == 2
    assert told.count("epoch 10/10") == 1, "one process shows the progress"


def test_the_older_usage_of_dataset_model_and_experiment(tmp_path: Path) -> None:
    directory, told = run("older_usage.py", tmp_path, "-W", "error")
    assert directory.parent == tmp_path / "Runs" / "MyDataset" / "MyModel"
    assert "MyDataset takes no argument 'set_name', so it is built without" in told
    assert len(logged(directory, "Eval/Acc")) == 20
    assert load_state(directory / "last.pth")["loop"]["epoch"] == 100
    losses = [loss for _, loss in logged(directory, "Train/Loss")]
    assert losses[-1] < 0.8 * losses[0], "labels drawn at random are learnt by heart"
    report = pd.read_csv(tmp_path / "test_results.csv", index_col="sample")
    assert list(report.columns) == ["Eval/Loss", "Eval/Acc"]
    assert len(report) == 1000
    assert set(report["Eval/Acc"]) == {0.0, 1.0}, "each row is of one sample"


def test_the_newer_pipeline_of_an_entry_script(tmp_path: Path) -> None:
    directory, _ = run("newer.py", tmp_path, "-W", "error")
    assert directory == tmp_path / "Runs" / "MyDataset" / "MyModel" / "wide"
    evaluated = logged(directory, "Eval/Main")
    assert [step for step, _ in evaluated] == [15 * 5, 15 * 10], "1000 samples, the incomplete batch dropped"
    assert "Visualization" in EventAccumulator(str(directory)).Reload().Tags()["images"]
    report = pd.read_csv(directory / "test_results.csv", index_col="sample")
    assert list(report.columns) == ["Eval/Main", "Eval/MAE", "Eval/RMSE", "Eval/Acc", "Eval/F1"]
    assert len(report) == 200, "the incomplete batch is not dropped here"
    assert (report["Eval/MAE"] ** 2).tolist() == pytest.approx(report["Eval/Main"].tolist(), rel=1e-4)
    assert report["Eval/Main"].mean() < 0.3, "the targets' variance is 0.49"
    assert report["Eval/Acc"].mean() > 0.8
