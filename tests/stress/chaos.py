"""One run of the herd, and what is judged afterwards: for every file system that it is let loose on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from jimmy_manager import Store
from jimmy_manager.archives.filesystem import SHARED_STALE_S
from tests.stress.plan import Plan
from tests.stress.witness import configurations, read_journals, violations

ROOT = Path(__file__).parents[2]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GIVEN_UP = ("dead", "dropped", "silent")


def command(plan: Plan) -> list[str]:
    """What runs ``plan``, in ``ROOT``, and prints its report."""
    return [sys.executable, "-m", "tests.stress.herd", json.dumps(plan._asdict())]


def run(plan: Plan) -> dict[str, Any]:
    """Let the herd loose on this machine and return its report."""
    done = subprocess.run(
        command(plan), cwd=ROOT, text=True, env=os.environ | ONE_THREAD, capture_output=True,
        timeout=plan.deadline_s + 60,
    )
    assert done.returncode == 0, done.stderr
    return read_report(plan, done.stdout, done.stderr)


def read_report(plan: Plan, said: str, complained: str) -> dict[str, Any]:
    """The report that the herd printed, shown to whoever reads a failure."""
    report: dict[str, Any] = json.loads(said)
    print(plan, report, complained[-4000:], sep="\n")
    return report


def judge(plan: Plan) -> list[str]:
    """What the judge finds in the store as its server has it."""
    lines = read_journals(plan.journals)
    print(dict(Counter(line.event for line in lines)))
    return violations(_store(plan), lines, configurations(plan.configs), plan.epochs)


def assert_unbroken(plan: Plan, report: dict[str, Any]) -> None:
    """All hits have hit, all workers ended by themselves, and no promise was broken."""
    assert report["failures"] == [], report
    assert report["kills" if plan.signal == "KILL" else "stops"] >= plan.hits, report
    assert report["exits"] == plan.workers, report
    assert not plan.disturbance or report["disturbed"]["status"] == 0, report
    found = judge(plan)
    print(f"{takeovers(plan)} takeovers, {crossings(plan)} of them across mounts")
    assert found == [], "\n".join(found)


def takeovers(plan: Plan) -> int:
    """How many claims were made after one whose owner was dead or silent, or had noticed itself that it stalled."""
    return len(_taken_over(plan))


def crossings(plan: Plan) -> int:
    """How many of the takeovers went from one mount to another."""
    claims = _store(plan).claims
    return sum(claims.read(record.key, record.generation - 1).view != record.view for record in _taken_over(plan))


def _taken_over(plan: Plan) -> list[Any]:
    store = _store(plan)
    records = (store.claims.read(key, number) for key in store.registry for number in store.claims.look(key).claims)
    return [record for record in records if record.after in _GIVEN_UP]


def _store(plan: Plan) -> Store:
    return Store(plan.store, read_only=True, stale_s=SHARED_STALE_S if plan.stale_s is None else plan.stale_s)
