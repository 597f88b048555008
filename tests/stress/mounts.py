"""Shared file systems that misbehave, from the lab: two sshfs mounts of one directory, and a machine with NFS."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab import lab
from tests.stress import chaos
from tests.stress.plan import Plan

_LAB_FAILED = 125
_UNABLE = ("/dev/fuse", "fusermount3: mount failed", "Operation not permitted")


@contextmanager
def sshfs(folder: Path, options: str = "") -> Iterator[tuple[str, str]]:
    """Two mounts of ``folder/srv``, with sshfs's own ``options`` of mounting; skips where nothing can be mounted."""
    script = lab("sshfs.sh")
    started = subprocess.run(
        [script, "start", folder], env=os.environ | {"SSHFS_OPT": options}, text=True, capture_output=True, timeout=120,
    )
    said = started.stderr.strip()
    if started.returncode != 0 and any(reason in said for reason in _UNABLE):
        pytest.skip(f"this machine cannot mount by FUSE: {said}")
    try:
        assert started.returncode == 0, said
        yield f"{folder}/A", f"{folder}/B"
    finally:
        subprocess.run([script, "stop", folder], check=True, timeout=120)


def run_on_nfs(plan: Plan, *options: str) -> dict[str, Any]:
    """Let the herd loose in a machine with one export and two clients of it; return its report.

    The store, as the server has it at the end, is then in the plan's folder. ``options`` are those of the lab's script.
    """
    plan = plan._replace(mounts=("/mnt/A", "/mnt/B"), uts=("/run/uts/A", "/run/uts/B"))
    herd = f"{shlex.join(chaos.command(plan))}; status=$?"
    done = in_machine(
        ["run", f"{herd}; cp -r /mnt/export/store {shlex.quote(plan.folder)}; exit $status", *options],
        plan.deadline_s + 240,
    )
    assert done.returncode == 0, done.stderr
    return chaos.read_report(plan, done.stdout, done.stderr)


def in_machine(arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run the lab's virtual machine; skips where it does not start."""
    done = subprocess.run(
        [lab("nfs.sh"), *arguments, "--timeout", f"{timeout_s:.0f}"], cwd=chaos.ROOT, text=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(chaos.ROOT), "PYTHONUNBUFFERED": "1"}, timeout=2 * timeout_s + 120,
    )
    if done.returncode == _LAB_FAILED:
        pytest.skip(f"the lab's machine does not work here: {done.stderr.strip()[-1000:]}")
    print(done.stderr[-4000:], file=sys.stderr)
    return done
