"""Where a result comes from: code version, library versions, host and command line, for each stats record."""

from __future__ import annotations

import functools
import inspect
import os
import platform
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jimmy_manager
from jimmy_manager.manager.rank_line import here

_GIT_TIMEOUT_S = 10.0


def of_run(job: type, device: str, threads: int | None) -> dict[str, Any]:
    """What a stats record says of the circumstances of its run."""
    loaded = {name: sys.modules[name].__version__ for name in ("torch", "numpy") if name in sys.modules}
    return {
        "git": dict(_git(_folder(job))),
        "versions": {"python": platform.python_version(), "jimmy_manager": jimmy_manager.__version__} | loaded,
        "host": socket.gethostname(),
        "device": device,
        "threads": threads if threads is not None else _torch_threads(),
        **({"ranks": here().size} if here().size > 1 else {}),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:1000] if sys.argv else "",
    }


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else None


def _folder(job: type) -> str:
    try:
        return os.path.dirname(os.path.abspath(inspect.getfile(job)))
    except (TypeError, OSError):  # defined in a notebook or at a prompt
        return os.getcwd()


@functools.lru_cache(maxsize=8)
def _git(folder: str) -> tuple[tuple[str, Any], ...]:
    """Commit and whether tracked files differ from it; empty outside a repository or without git."""
    try:
        commit = _run_git(folder, "rev-parse", "HEAD")
        dirty = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ()
    return (("commit", commit), ("dirty", bool(dirty)))


def _run_git(folder: str, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
    )
    return done.stdout.strip()
