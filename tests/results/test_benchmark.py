"""benchmarks/results.py runs, prints a line for everybody, and its stores are whole."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "results.py"
PEERS = ("signac", "MLflow", "Optuna")


def test_a_quick_run_prints_a_line_for_everybody() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in PEERS:
        is_here = importlib.util.find_spec(name.lower()) is not None
        assert (f"{name} is not installed" in done.stdout) is not is_here
        assert (name in {line[:34].rstrip() for line in done.stdout.splitlines()}) is is_here
    for name in ("table, warm", "table, cold", "filter, warm", "group, cold", "best, asked again (s)", "plain scan"):
        (line,) = (line for line in done.stdout.splitlines() if line[:34].rstrip() == name)
        assert min(float(word.rstrip("x")) for word in line[34:].split()[:3]) > 0
