"""A job in a folder of its own, imported anew each time, for the tests of what is recorded of its code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jimmy_manager.cli import jobs

JOB = """\
from jimmy_manager import Manager
from codejob_lib.net import value
import codejob_side


class CodeJob(Manager):
    num_epochs = 1
    default_config = "defaults.yaml"

    def train(self):
        import codejob_lazy

    def eval(self):
        return {"loss": value(self.config.a)}
"""


def make(root: Path) -> Path:
    """The files of the job below ``root``; the file that defines it."""
    folder = root / "jobs"
    (folder / "codejob_lib").mkdir(parents=True)
    (folder / "codejob.py").write_text(JOB)
    (folder / "defaults.yaml").write_text("a: 1\n")
    (folder / "secrets.yaml").write_text("password: hunter2\n")
    (folder / ".env").write_text("TOKEN=hunter2\n")
    (folder / "data.json").write_text('{"hunter2": 1}\n')
    (folder / "codejob_lib" / "__init__.py").write_text("")
    (folder / "codejob_lib" / "net.py").write_text("def value(a):\n    return 2.0 * a\n")
    (folder / "codejob_side.py").write_text("x = 1\n")
    (folder / "codejob_lazy.py").write_text("y = 1\n")
    (folder / "unused.py").write_text("z = 1\n")
    return folder / "codejob.py"


def forget() -> None:
    """Import the job's modules anew next time."""
    for name in [name for name in sys.modules if name.startswith("codejob")]:
        del sys.modules[name]


@contextmanager
def loaded(file: Path) -> Iterator[Any]:
    """The job, imported for the time of the block."""
    forget()
    with jobs.loaded(str(file)) as job:
        yield job
    forget()


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
