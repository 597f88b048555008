"""Naming a job: a file, or a file and a class; what is left behind is nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jimmy_manager import Manager
from jimmy_manager.cli import jobs
from jimmy_manager.errors import ConfigError

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
BODY = "from jimmy_manager import Manager\n"


def write(path: Path, text: str) -> str:
    path.write_text(BODY + text)
    return str(path)


def test_a_file_with_one_manager_is_enough(tmp_path: Path) -> None:
    spec = write(tmp_path / "one_job.py", "class Job(Manager): pass")
    with jobs.loaded(spec) as job:
        assert issubclass(job, Manager)
        assert (job.__name__, job.__module__) == ("Job", "one_job")
    with jobs.loaded(f"{spec}:Job") as again:
        assert again.__name__ == "Job"


def test_an_imported_manager_does_not_count(tmp_path: Path) -> None:
    spec = write(tmp_path / "one_job.py", "from jimmy_manager import TrainedManager\nclass Job(TrainedManager): pass")
    with jobs.loaded(spec) as job:
        assert job.__name__ == "Job"


def test_of_several_one_must_be_named(tmp_path: Path) -> None:
    spec = write(tmp_path / "two_jobs.py", "class A(Manager): pass\nclass B(A): pass")
    with pytest.raises(ConfigError, match=rf"name one of {spec}:A, {spec}:B"), jobs.loaded(spec):
        pass
    with jobs.loaded(f"{spec}:B") as job:
        assert job.__name__ == "B"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no_job.py", "", "defines no Manager"),
        ("no_job.py", "class A: pass", "defines no Manager"),
        ("statistics.py", "class A(Manager): pass", "rename the file"),
        ("jimmy_manager.py", "class A(Manager): pass", "rename the file"),
        ("job.txt", "class A(Manager): pass", "ends in .py"),
    ],
)
def test_what_is_no_job_is_told_plainly(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), jobs.loaded(write(tmp_path / name, text)):
        pass


def test_a_missing_file_or_class_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no job file 'jobs/nothing\.py'"), jobs.loaded("jobs/nothing.py"):
        pass
    spec = write(tmp_path / "one_job.py", "class Job(Manager): pass\nnumber = 3")
    for name in ("Jobs", "number", ""):
        with pytest.raises(ConfigError, match="it has Job"), jobs.loaded(f"{spec}:{name}"):
            pass


def test_siblings_can_be_imported_while_a_job_runs_and_nothing_stays_behind(tmp_path: Path) -> None:
    (tmp_path / "sibling_of_job.py").write_text("VALUE = 7")
    spec = write(tmp_path / "one_job.py", "class Job(Manager):\n    value = __import__('sibling_of_job').VALUE")
    before = list(sys.path)
    with jobs.loaded(spec) as job:
        assert (job.value, sys.path[0]) == (7, str(tmp_path))  # type: ignore[attr-defined]  # the file's own
    assert sys.path == before
    assert "one_job" not in sys.modules
    del sys.modules["sibling_of_job"]


def test_a_job_that_does_not_import_leaves_nothing_behind(tmp_path: Path) -> None:
    before = list(sys.path)
    with pytest.raises(ZeroDivisionError), jobs.loaded(write(tmp_path / "bad_job.py", "1 / 0")):
        pass
    assert (sys.path, "bad_job" in sys.modules, jobs.is_loading()) == (before, False, False)


def test_a_file_that_calls_main_unasked_can_be_loaded_all_the_same(tmp_path: Path) -> None:
    with jobs.loaded(write(tmp_path / "one_job.py", "class Job(Manager): pass\nJob.main()")) as job:
        assert job.__name__ == "Job"


@pytest.mark.parametrize("how", ["main", "jimmy", "direct", "package"])
def test_a_target_of_the_jobs_own_file_has_one_name_however_the_job_is_started(tmp_path: Path, how: str) -> None:
    (tmp_path / "pack").mkdir()
    path = tmp_path / "pack" / "own_job.py"
    path.write_text(
        BODY
        + "class Thing:\n    def __init__(self, size): self.size = size\n"
        + "class Job(Manager):\n"
        + "    num_epochs = 0\n"
        + "    def eval(self): return {'size': self.config.thing.instantiate().size}\n"
        + "def direct(): Job('S', verbose=False, device='cpu').process("
        + "{'thing': {'_target_': 'own_job.Thing', 'size': 5}})\n"
        + "if __name__ == '__main__':\n    import sys\n    direct() if len(sys.argv) == 1 else Job.main()\n"
    )
    fields = ["process", "--store", "S", "thing._target_=own_job.Thing", "thing.size=5"]
    command = {
        "main": ["pack/own_job.py", *fields],
        "jimmy": ["-m", "jimmy_manager.cli", "process", "pack/own_job.py", *fields[1:]],
        "direct": ["pack/own_job.py"],
        "package": ["-c", "from pack.own_job import direct; direct()"],
    }[how]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "S" / "stats").rglob("*.json"))) == 1
