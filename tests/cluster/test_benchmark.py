"""benchmarks/cluster.py runs, and says what it did not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import lab

ROOT = Path(__file__).resolve().parents[2]


def lines(*arguments: str, laboratory: Path) -> list[str]:
    """What the benchmark prints below its heading."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "cluster.py"), *arguments], text=True, capture_output=True,
        env=os.environ | {"JIMMY_LAB": str(laboratory)}, cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[1:]


@pytest.mark.parametrize("part", ["slurm", "nfs"])
def test_without_the_lab_its_parts_are_said_not_to_run(part: str, tmp_path: Path) -> None:
    told = lines("--quick", "--only", part, laboratory=tmp_path)
    assert [line.partition(":")[0] for line in told] == ["not run"]


@pytest.mark.nightly
def test_what_is_lost_by_submitting_and_preemption_is_measured(tmp_path: Path) -> None:
    told = lines("--quick", "--only", "slurm", "--dir", str(tmp_path), laboratory=lab("slurm.sh").parent)
    assert [line.split()[0] for line in told if not line.startswith(" ")] == ["submitted:", "preempted,", "preempted,"]


@pytest.mark.nightly
def test_the_delay_of_takeovers_is_measured(tmp_path: Path) -> None:
    told = lines("--quick", "--only", "takeover", "--dir", str(tmp_path), laboratory=tmp_path)
    assert [line.partition("  ")[0].partition(",")[0] for line in told] == [
        "taken over after SIGKILL on the same host", "taken over after a lost host"
    ]
