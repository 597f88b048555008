"""The cluster lab: scripts that start a real Slurm and file systems that misbehave; not part of this repository.

They are looked for in ``$JIMMY_LAB``, else in ``../shared/lab`` beside the clone. What is not there is skipped, and
says so.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_NEEDS = {
    "slurm.sh": ("slurmctld", "slurmd", "munged", "sbatch"),
    "sshfs.sh": ("sshfs", "sshd", "fusermount3"),
    "nfs.sh": ("linux.uml", "exportfs", "rpcbind", "mkfs.ext4", "nsenter"),
}
# Taken when tests are collected: while they run, nothing of a user's JIMMY_ settings is left.
_FOLDER = Path(os.environ.get("JIMMY_LAB", Path(__file__).parents[2] / "shared" / "lab"))
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def lab(name: str) -> Path:
    """The script ``name`` of the lab; skips the test where it, or a program that it runs, is not here."""
    script = _FOLDER / name
    if not script.is_file():
        pytest.skip(f"the lab's {name} is not here; set JIMMY_LAB to the folder that holds it")
    missing = [program for program in _NEEDS[name] if shutil.which(program, path=_PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; '{name} install' does it")
    return script
