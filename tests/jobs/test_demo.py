import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_demo(directory: Path, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return run_python("jobs/demo.py", str(directory), timeout=timeout)


def run_python(*arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def test_the_demo_touches_nothing_in_a_directory_that_it_did_not_make(tmp_path):
    mine = tmp_path / "store.yaml"
    mine.write_text("a store of somebody's")
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "was not made by this demo" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store.yaml"]
    assert mine.read_text() == "a store of somebody's"


def test_the_demo_keeps_a_strange_file_in_its_own_directory(tmp_path):
    (tmp_path / "made-by-demo.txt").touch()
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "stats").mkdir()
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "'thesis.tex', which is not of this demo" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"made-by-demo.txt", "thesis.tex", "stats"}


def test_the_demo_does_not_follow_a_link(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "made-by-demo.txt").touch()
    (tmp_path / "demo").symlink_to(target)
    done = run_demo(tmp_path / "demo")
    assert done.returncode == 1
    assert "is not a directory" in done.stderr


@pytest.mark.nightly
def test_the_demo_kills_a_worker_finishes_the_grid_and_finds_a_good_model(tmp_path):
    done = run_demo(tmp_path / "demo", timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("is killed with SIGKILL", "goes on with run", "all 48 runs are done", "the same weights, bit by bit"):
        assert text in done.stdout
    accuracy = re.search(r"on the test split, which had no say in the choice, it reaches ([\d.]+)%", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert (tmp_path / "demo" / "digits.png").stat().st_size > 20_000
    lines = re.findall(r"^    (from jobs\.digits .*|model = .*)$", done.stdout, re.MULTILINE)
    assert len(lines) == 2
    fetched = run_python("-c", "\n".join([*lines, "print(model)"]))
    assert "Conv2d" in fetched.stdout, fetched.stderr
