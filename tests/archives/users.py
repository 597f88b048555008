"""Processes of other users, for tests of what a group shares; only root can start them."""

from __future__ import annotations

import functools
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
GROUP = 54000
ANNA, BERT, STRANGER = (54001, GROUP), (54002, GROUP), (54003, 54003)
"""User and group; nobody needs to have an account."""


@contextmanager
def shared_place() -> Iterator[Path]:
    """A directory that every user may enter, unlike ``tmp_path``, owned by Anna and her group; skips without root."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of other users")
    with TemporaryDirectory(prefix="jimmy-group-") as folder:
        os.chmod(folder, 0o755)
        os.mkdir(f"{folder}/lab")
        os.chown(f"{folder}/lab", *ANNA)
        os.chmod(f"{folder}/lab", 0o770)
        yield Path(folder, "lab")


def run_as(user: tuple[int, int], place: Path, *words: str, umask: int = 0o077) -> subprocess.CompletedProcess[str]:
    """Run Python with ``words`` in ``place`` as another user, who cannot be root in any way."""
    return _run(interpreter(), user, place, words, umask)


@functools.cache
def interpreter() -> str:
    """A Python of this version that other users can run with this package; skips where there is none.

    That of a virtual environment may be a link into somebody's home.
    """
    found = ""
    for path in (sys.executable, shutil.which(f"python3.{sys.version_info[1]}", path="/usr/bin:/usr/local/bin")):
        with suppress(OSError), shared_place() as place:
            tried = _run(path or "", ANNA, place, ("-c", "import jimmy_manager, torch"), 0o077)
            if tried.returncode == 0 and path:
                return path
            found = tried.stderr.strip()[-200:]
    pytest.skip(f"other users can run no Python with this package: {found}")


def _run(
    python: str, user: tuple[int, int], place: Path, words: tuple[str, ...], umask: int
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()]),
        "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(place), "OMP_NUM_THREADS": "1",
        "JIMMY_STORE": str(place / "store"), "XDG_CACHE_HOME": str(place.parent / f"cache-{user[0]}"),
    }  # fmt: skip
    return subprocess.run(
        [python, "-P", *words], cwd=place, env=environment, user=user[0], group=user[1], extra_groups=[], umask=umask,
        text=True, capture_output=True,
    )  # fmt: skip
