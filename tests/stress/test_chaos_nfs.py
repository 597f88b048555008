"""Workers on two NFS clients of one export are killed, stopped, cut off; see ``test_chaos`` for what must hold.

All of it in a virtual machine with one kernel, whose two clients reach the server by networks of their own. There a new
file is listed within milliseconds, because opening a directory asks the server; only a name that was once missing stays
so for 30 s, and the store looks for none that it has not listed. So ``stale_s`` is 2 s here; one variant keeps the 30 s
of a store that nobody has measured. Two clients of one host name are one client to the server, and NFS 3 has no locks
with ``nolock``: neither may matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stress import chaos, mounts
from tests.stress.plan import Plan

pytestmark = pytest.mark.nightly

_NFS_3 = ("--vers", "3,nolock")
_ALL = [(), ("--same-hostname",), _NFS_3]
_CUT_OFF = "ip link set vA down; sleep 25; ip link set vA up"
_MOVE_CLOCK = "for by in +1 -1 -1 +1; do date -s \"$by hour\"; sleep 4; done"


def _assert_unbroken(plan: Plan, *options: str) -> dict[str, Any]:
    report = mounts.run_on_nfs(plan, *options)
    chaos.assert_unbroken(plan, report)
    assert chaos.crossings(plan) > 0
    return report


def _killed(folder: Path, **options: object) -> Plan:
    plan = Plan(
        str(folder), workers=4, configs=16, hits=12, signal="KILL", seed=1, epochs=4, hosts="worker", stale_s=2.0,
        lease_s=0.0, pace_s=3.0, hold_s=10.0, deadline_s=900.0,
    )
    return plan._replace(**options)


@pytest.mark.parametrize("options", _ALL)
def test_nothing_is_lost_when_workers_on_two_clients_are_killed(tmp_path: Path, options: tuple[str, ...]) -> None:
    _assert_unbroken(_killed(tmp_path), *options)


@pytest.mark.parametrize("options", _ALL)
def test_nothing_is_lost_when_workers_on_two_clients_are_stopped_past_their_lease(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    plan = Plan(
        str(tmp_path), workers=8, configs=12, hits=6, signal="STOP", seed=2, epochs=4, hosts="mount", stale_s=2.0,
        lease_s=0.0, pace_s=1.0, hold_s=1.0, deadline_s=900.0,
    )
    _assert_unbroken(plan, *options)


@pytest.mark.parametrize("options", [(), _NFS_3])
def test_nothing_is_lost_when_one_client_is_cut_off_for_longer_than_its_lease(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    plan = _killed(tmp_path, workers=6, hits=4, hosts="mount", pace_s=2.0, hold_s=2.0, disturbance=_CUT_OFF)
    _assert_unbroken(plan, *options)


def test_nothing_is_lost_when_the_clock_is_moved_by_an_hour_forth_and_back(tmp_path: Path) -> None:
    report = _assert_unbroken(_killed(tmp_path, disturbance=_MOVE_CLOCK))
    assert report["disturbed"]["progress"] < 1.0


def test_nothing_is_lost_with_the_default_options_of_nfs_and_of_the_store(tmp_path: Path) -> None:
    _assert_unbroken(_killed(tmp_path, hits=6, pace_s=4.0, stale_s=None, deadline_s=1800.0))


def test_who_believes_that_a_folder_is_still_missing_is_caught_on_two_clients(tmp_path: Path) -> None:
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        plan = _killed(tmp_path / str(seed), seed=seed, twin="believe a miss", pace_s=1.0, deadline_s=200.0)
        mounts.run_on_nfs(plan)
        if any(violation.startswith("outranked") for violation in chaos.judge(plan)):
            return
    pytest.fail("it was not noticed")
