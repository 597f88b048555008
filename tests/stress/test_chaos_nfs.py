"""Workers on two NFS clients of one export are killed, stopped, cut off; see ``test_chaos`` for what must hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress import chaos, mounts
from tests.stress.herd import Plan


def _unbroken(plan: Plan, *options: str) -> None:
    report = mounts.run_on_nfs(plan, *options)
    chaos.assert_unbroken(plan, report)
    assert chaos.crossings(plan) > 0


@pytest.mark.nightly
@pytest.mark.parametrize("options", [(), ("--same-hostname",), ("--vers", "3,nolock")])
def test_nothing_is_lost_when_workers_on_two_clients_are_killed(tmp_path: Path, options: tuple[str, ...]) -> None:
    plan = Plan(
        str(tmp_path), workers=4, configs=12, hits=12, signal="KILL", seed=1, epochs=4, hosts="worker", stale_s=2.0,
        lease_s=0.0, pace_s=3.0, hold_s=10.0,
    )
    _unbroken(plan, *options)
