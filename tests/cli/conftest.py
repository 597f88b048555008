"""A small store with every kind of run, and ways to call the command line on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jimmy_manager import Config, Manager, Store
from jimmy_manager.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "evil\x1b]0;title\x07\x1b[2J [red]markup[/red]\r\n\u202ereversed"

JOB = '''
import os, signal, time
from pathlib import Path
from jimmy_manager import Manager

class Job(Manager):
    num_epochs = 3
    choices = {"lr": [0.1, 0.2], "seed": [0, 1]}
    default_config = None

    def get_config(self, config):
        return super().get_config(config).fill({"lr": 0.1, "seed": 0, "act": "", "pause": 0.0})

    def setup(self, config):
        super().setup(config)
        self.marks = Path(os.environ.get("MARKS", "."))

    def train(self):
        if self.config.act == "raise":
            raise ValueError("no \\x1b[2Jluck")
        if self.config.act == "kill":
            with open(self.marks / "deaths", "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.act == "kill once" and not (self.marks / "died").exists():
            (self.marks / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.pause:
            (self.marks / f"training-{os.getpid()}").touch()
            time.sleep(self.config.pause)

    def eval(self):
        return {"loss_valid": self.config.lr / (1 + self.epoch), "acc": 0.5}

if __name__ == "__main__":
    Job.main()
'''


class Sample(Manager):
    """Fails for ``act=raise``; its preview has one of everything."""

    num_epochs = 2

    def train(self) -> None:
        if self.config.act == "raise":
            raise ValueError(HOSTILE)

    def eval(self) -> dict[str, object]:
        import numpy as np

        loss = float("nan") if self.config.lr == 0.3 else self.config.lr
        return {"loss": loss, "note": HOSTILE, "curve": np.arange(3.0), "nested": {"acc": 0.5}}


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "store"
    manager = Sample(directory, {"act": "", "name": "plain", "optim": {"wd": 0.0}}, verbose=False, device="cpu")
    for lr in (0.1, 0.2, 0.3):
        manager.process({"lr": lr})
    manager.process({"lr": 0.2, "name": HOSTILE})
    with pytest.raises(ValueError, match="evil"):
        manager.process({"lr": 0.1, "act": "raise"})
    manager.store.register(manager.get_config({"lr": 0.9}))
    manager.process({"lr": 0.8})
    manager.store.pop(manager.store.find(manager.get_config({"lr": 0.8})) or "")
    return directory


@pytest.fixture
def store(made_store: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(made_store, tmp_path / "store"))


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def key_of(made_store: Path) -> Callable[..., str]:
    opened = Store(made_store, read_only=True)

    def find(**fields: object) -> str:
        whole = Config({"lr": 0.1, "act": "", "name": "plain", "optim": {"wd": 0.0}})
        whole.update(fields)
        return opened.configs.get_key(whole)

    return find


@pytest.fixture
def jimmy(store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command line in this process, on the copied store, and expect an exit code."""
    monkeypatch.setenv("JIMMY_STORE", str(store))

    def call(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, prog_name="jimmy")
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "jobs" / "sample_job.py"
    path.parent.mkdir()
    path.write_text(JOB)
    return path


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line as a process of its own, in ``tmp_path``."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MARKS", str(tmp_path))
    started = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jimmy_manager.cli", *arguments], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"JIMMY_STORE": str(tmp_path / "own")},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
