"""Death and errors at every file-changing system call of one ``process()``, in turn; see ``injector``.

Two scenarios: the first run in an empty directory, and one that resumes what a killed worker left. After each point
the store opens, every commit that its stats name is whole, nothing acknowledged is missing, and the rerun ends bit for
bit as an undisturbed run. A run that met an error ends non-zero and names path and cause, or goes on where it may, and
then must (``Call.is_tolerated``).

All points are tried by ``make nightly``, each of them once, so a fault that shows each time is found for certain; of
faults that show at random, N points bound the probability at 3/N. At each push a tenth is tried, picked by the git
commit; STRESS_ROTATION=0..9 picks it by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stress.injector import ERRORS, Plan

_ROOT = Path(__file__).parents[2]
_TENTHS = 10
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)


def _inject(plan: Plan) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.injector", json.dumps(plan._asdict())], cwd=_ROOT, text=True,
        env=os.environ | _ENVIRONMENT, capture_output=True, timeout=3000,
    )
    if "strace cannot attach" in done.stderr:
        pytest.skip(f"this machine does not let strace work: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    print(plan, report, sep="\n")
    return report


def _rotation() -> int:
    if "STRESS_ROTATION" in os.environ:
        return int(os.environ["STRESS_ROTATION"]) % _TENTHS
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True).stdout
    return hashlib.sha256(head.encode()).digest()[0] % _TENTHS


@needs_strace
@pytest.mark.parametrize("scenario", ["fresh", "resumed"])
def test_a_tenth_of_all_points_leaves_nothing_lost(tmp_path: Path, scenario: str) -> None:
    part = _rotation()
    print(f"STRESS_ROTATION={part}")
    report = _inject(Plan(str(tmp_path), scenario, ("KILL", *ERRORS, "SHORT"), part=part, parts=_TENTHS))
    assert report["violations"] == [], f"repeat with STRESS_ROTATION={part}"
    assert sum(report["done"].values()) >= report["points"] // _TENTHS
    assert report["done"]["KILL"] >= 10


@needs_strace
def test_whatever_befalls_the_log_of_evaluations_the_run_goes_on(tmp_path: Path) -> None:
    report = _inject(Plan(str(tmp_path), "fresh", ("KILL", "ENOSPC", "EACCES", "SHORT"), only="logs"))
    assert report["violations"] == []
    assert report["done"]["ENOSPC"] >= 5  # three folders, the file, a line


@needs_strace
@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["fresh", "resumed"])
def test_no_point_leaves_anything_lost(tmp_path: Path, scenario: str) -> None:
    report = _inject(Plan(str(tmp_path), scenario, ("KILL", *ERRORS, "SHORT")))
    assert report["violations"] == []
    assert sum(report["done"].values()) == report["points"]


@needs_strace
@pytest.mark.nightly
def test_what_a_lying_disk_left_out_is_never_loaded(tmp_path: Path) -> None:
    assert _inject(Plan(str(tmp_path), "resumed", ("LIE",)))["violations"] == []


@pytest.mark.parametrize("scenario", ["fresh", "resumed"])
def test_a_checkpoint_that_is_cut_short_halfway_is_an_error_and_loses_nothing(tmp_path: Path, scenario: str) -> None:
    report = _inject(Plan(str(tmp_path), scenario, limits=(2000, 3000, 4000, 6000, 8000, 10_000)))
    assert report["violations"] == []


@needs_strace
def test_stats_written_in_place_are_caught(tmp_path: Path) -> None:
    report = _inject(
        Plan(str(tmp_path), "resumed", ("KILL",), only="stats/", twin="write in place", most_violations=1)
    )
    assert any("were acknowledged, but" in violation for violation in report["violations"])
