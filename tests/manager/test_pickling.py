"""A Manager that goes to another process finds its job there by the file."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jimmy_manager import Manager
from jimmy_manager.errors import ConfigError
from jimmy_manager.manager import pickling
from tests.cli.conftest import ROOT

JOB = """
import sys
from pathlib import Path
from jimmy_manager import Manager

def build(width):
    return width

class Sent(Manager):
    num_epochs = 1
    default_config = "defaults.yaml"
    choices = "grid.yaml"
    def setup(self, config):
        super().setup(config)
        self.width = config.model.instantiate()
    def train(self):
        pass
    def eval(self):
        return {"width": self.width}

if __name__ == "__main__":
    import PICKLER as pickle
    manager = Sent("store", verbose=False)
    Path("sent").write_bytes(pickle.dumps(manager.sweep))
"""
RECEIVE = "import pickle; print(pickle.load(open({!r}, 'rb'))(order='given'))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "defaults.yaml").write_text("model: {_target_: sent_job.build, width: 1}")
    (tmp_path / "job" / "grid.yaml").write_text("model: {_target_: sent_job.build, width: [1, 2]}")
    return tmp_path


@pytest.fixture
def python(folder: Path) -> Callable[..., str]:
    def run(*arguments: str, cwd: Path = folder) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test imports."""
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.path[:] = path


@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_the_manager_of_a_file_that_was_run_sweeps_elsewhere_with_its_own_choices_and_targets(
    folder: Path, python: Callable[..., str], pickler: str
) -> None:
    if pickler == "cloudpickle":
        pytest.importorskip("cloudpickle", reason="cloudpickle is not installed; it comes with submitit")
    (folder / "job" / "sent_job.py").write_text(JOB.replace("PICKLER", pickler))
    python("job/sent_job.py")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    told = python("-c", RECEIVE.format(str(folder / "sent")), cwd=elsewhere)
    assert told.startswith("2 done")
    assert (folder / "store").is_dir()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.usefixtures("own_modules")
def test_a_file_is_imported_once_a_process(folder: Path) -> None:
    file = folder / "job" / "sent_job.py"
    file.write_text(JOB)
    first = pickling.blank(str(file), "Sent")
    assert type(first) is type(pickling.blank(str(file), "Sent"))
    assert pickling.home_of(type(first)) == (str(file), "Sent")


@pytest.mark.usefixtures("own_modules")
def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.py is not here"):
        pickling.blank(str(folder / "nowhere.py"), "Sent")


@pytest.mark.usefixtures("own_modules")
def test_a_file_with_the_name_of_another_module_is_refused(folder: Path) -> None:
    file = folder / "job" / "pickle.py"
    file.write_text(JOB)
    with pytest.raises(ConfigError, match="rename the file"):
        pickling.blank(str(file), "Sent")


@pytest.mark.usefixtures("own_modules")
def test_a_file_that_fails_leaves_no_half_of_a_module(folder: Path) -> None:
    file = folder / "job" / "sent_job.py"
    file.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            pickling.blank(str(file), "Sent")


class Worked(Manager):
    num_epochs = 1

    def train(self) -> None:
        pass

    def eval(self) -> dict[str, float]:
        return {"loss": 1.0}


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_a_manager_that_has_worked_can_still_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickler: str, is_terminal: bool
) -> None:
    """What it heard of others, its display and its signals stay where it is."""
    dumps = pytest.importorskip(pickler, reason="it comes with submitit").dumps
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    manager = Worked(tmp_path / "store", time_limit=60)
    manager.process({"a": 1})
    sent = pickle.loads(dumps(manager.sweep))
    assert sent({"a": [1, 2]}).done == [manager.process({"a": 2})]


def test_a_manager_of_a_package_or_of_a_function_is_left_to_pickle(tmp_path: Path) -> None:
    class Local(Manager):
        pass

    assert pickling.home_of(Local) is None
    assert pickling.home_of(Manager) is None
    manager = pickle.loads(pickle.dumps(Manager(tmp_path / "store")))
    assert type(manager) is Manager
    assert str(manager.store) == str(tmp_path / "store")
