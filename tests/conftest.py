"""What every test is protected from: the settings and caches of whoever runs it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from jimmy_manager import slurm

# Before anything imports torch: two test processes on two cores are several times slower at torch's default threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything imports matplotlib: its settings, and the fonts that its cache knows, are the user's.
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="jimmy-matplotlib-")
atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)

# Whoever starts the tests in the background of a script has SIGINT ignored, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the first example of a test may pay for an import, and CI machines are shared.
settings.register_profile("here", deadline=None, print_blob=True)
settings.load_profile("here")


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's store, caches, Slurm job and terminal out of every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # readline, where a module imports it, sets the size of the terminal for every process started afterwards.
        for name in [n for n in os.environ if n.startswith(("JIMMY_", "SLURM_")) or n in ("COLUMNS", "LINES")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def forgotten_job() -> None:
    """Let no test know what Slurm told another one of its job."""
    slurm._lines.clear()
    slurm._silent.clear()
