"""The machine of some workers loses its power at a random moment; every acknowledged commit is there afterwards.

A virtual machine from the lab is killed while its workers write to an ext4 disk. That loses what its kernel had not
written yet; it neither reorders nor tears writes of the disk. Another machine replays the journal of the file system,
and training goes on here from what it found. Workers without fsync, who lose commits there, show that this sees losses.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from jimmy_manager import Store
from jimmy_manager.archives.audit import audit
from jimmy_manager.errors import NoRecord, RecordError
from tests.stress import chaos, mounts
from tests.stress.plan import Plan
from tests.stress.witness import read_journals

_HARDER = ("--opts", "data=writeback,noauto_da_alloc")


def _plan(folder: Path, seed: int, *, durable: bool = True) -> Plan:
    return Plan(
        str(folder), workers=3, configs=120, hits=0, signal="", seed=seed, epochs=4, lease_s=2.0, durable=durable,
        syncs_journals=True,
    )


def _lose_power(plan: Plan, *options: str) -> None:
    """Let the workers of ``plan`` run until the power fails, and fetch what is on the disk after that."""
    doomed = plan._replace(mounts=("/mnt/disk",))
    program = shlex.join([sys.executable, "-m", "tests.stress.doomed", json.dumps(doomed._asdict())])
    fetch = f"if [ -e store ]; then cp -r store {shlex.quote(plan.folder)}; fi"
    done = mounts.in_machine(["powerloss", program, fetch, *options], 240.0)
    assert done.returncode == 0, done.stderr


def _lost(plan: Plan) -> list[str]:
    """The acknowledged commits that the newest state of their run does not contain, and runs that cannot be loaded."""
    acknowledged = [line for line in read_journals(plan.journals) if line.event == "acknowledged"]
    if not Path(plan.store).exists():
        return [f"all {len(acknowledged)}, with the store"]
    store = Store(plan.store, read_only=True)
    found = []
    for key in sorted({line.key for line in acknowledged}):
        try:
            lineage = store.ckpts[key]["lineage"]
        except (NoRecord, RecordError) as error:
            found.append(f"{key}: {error}")
            continue
        found += [f"{key}: {line.mark}" for line in acknowledged if line.key == key and line.mark not in lineage]
    print(f"{len(acknowledged)} acknowledged, {len(found)} lost")
    return found


def _assert_nothing_is_lost(plan: Plan, *options: str) -> None:
    _lose_power(plan, *options)
    assert plan.progress < 1.0
    assert _lost(plan) == []
    store = Store(plan.store, read_only=True)
    assert [str(finding) for finding in audit(store) if not finding.is_clutter and finding.kind != "unfinished"] == []
    chaos.assert_unbroken(plan, chaos.run(plan))
    assert chaos.takeovers(plan) > 0


def test_what_was_acknowledged_before_a_power_loss_is_there_afterwards(tmp_path: Path) -> None:
    _assert_nothing_is_lost(_plan(tmp_path, 1))


@pytest.mark.nightly
@pytest.mark.parametrize("options", [(), _HARDER])
@pytest.mark.parametrize("seed", range(2, 8))
def test_power_may_fail_at_any_moment(tmp_path: Path, seed: int, options: tuple[str, ...]) -> None:
    _assert_nothing_is_lost(_plan(tmp_path, seed), *options)


@pytest.mark.nightly
def test_without_fsync_commits_are_lost(tmp_path: Path) -> None:
    plan = _plan(tmp_path, 1, durable=False)
    _lose_power(plan)
    assert _lost(plan) != []
