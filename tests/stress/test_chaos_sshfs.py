"""Workers split over two sshfs mounts of one directory are killed and stopped; see ``test_chaos`` for what must hold.

There a listing is as old as sshfs's cache of directories: a second more than ``dcache_timeout``, 21 s by default, which
was measured by making a file through one mount and listing it through the other. ``stale_s`` is chosen above that.
EEXIST may come as EPERM, and no lock crosses. The quick variants make the cache shorter, and the leases with it. Every
killed worker was a host of its own, so that nobody could prove its death.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress import chaos, mounts
from tests.stress.plan import Plan

_LAG_2_S = "dcache_timeout=1"
_STALE_S = 2.5


def _unbroken(folder: Path, options: str, plan: Plan) -> Plan:
    with mounts.sshfs(folder, options) as both:
        plan = plan._replace(folder=f"{folder}/srv", mounts=both)
        chaos.assert_unbroken(plan, chaos.run(plan))
    return plan


def test_nothing_is_lost_when_workers_on_two_mounts_are_killed(tmp_path: Path) -> None:
    plan = Plan(
        "", workers=6, configs=24, hits=16, signal="KILL", seed=1, epochs=4, hosts="worker", stale_s=_STALE_S,
        lease_s=0.0, pace_s=0.5, hold_s=3.0,
    )
    plan = _unbroken(tmp_path, _LAG_2_S, plan)
    assert chaos.crossings(plan) > 0


def test_nothing_is_lost_when_workers_on_two_mounts_are_stopped_past_their_lease(tmp_path: Path) -> None:
    plan = Plan(
        "", workers=8, configs=10, hits=6, signal="STOP", seed=2, epochs=6, hosts="mount", stale_s=_STALE_S,
        lease_s=0.0, pace_s=0.5,
    )
    plan = _unbroken(tmp_path, _LAG_2_S, plan)
    assert chaos.crossings(plan) > 0


@pytest.mark.nightly
def test_nothing_is_lost_in_hundreds_of_kills_on_two_mounts(tmp_path: Path) -> None:
    plan = Plan(
        "", workers=10, configs=200, hits=200, signal="KILL", seed=3, epochs=5, hosts="worker", stale_s=_STALE_S,
        lease_s=0.0, pace_s=0.8, hold_s=3.0, deadline_s=1200.0,
    )
    plan = _unbroken(tmp_path, _LAG_2_S, plan)
    assert chaos.crossings(plan) >= 3


@pytest.mark.nightly
@pytest.mark.parametrize("hosts", ["worker", ""])
def test_nothing_is_lost_in_kills_with_the_default_options_of_sshfs_and_of_the_store(
    tmp_path: Path, hosts: str
) -> None:
    plan = Plan(
        "", workers=6, configs=30, hits=10, signal="KILL", seed=4, epochs=4, hosts=hosts, stale_s=None, pace_s=2.0,
        hold_s=5.0, deadline_s=1800.0,
    )
    plan = _unbroken(tmp_path, "", plan)
    assert chaos.crossings(plan) > 0


@pytest.mark.nightly
def test_nothing_is_lost_in_stops_with_the_default_options_of_sshfs_and_of_the_store(tmp_path: Path) -> None:
    plan = Plan(
        "", workers=8, configs=16, hits=4, signal="STOP", seed=5, epochs=4, hosts="mount", stale_s=None, pace_s=1.0,
        deadline_s=1800.0,
    )
    plan = _unbroken(tmp_path, "", plan)
    assert chaos.crossings(plan) > 0


@pytest.mark.parametrize(
    ("twin", "signal", "hosts", "broken"),
    [
        ("check then rename", "KILL", "worker", "two owners"),
        pytest.param("never check", "STOP", "mount", "late", marks=pytest.mark.nightly),
        pytest.param("reuse generation", "KILL", "worker", "two owners", marks=pytest.mark.nightly),
    ],
)
def test_what_is_wrong_on_purpose_is_caught_on_two_mounts(
    tmp_path: Path, twin: str, signal: str, hosts: str, broken: str
) -> None:
    for seed in range(4):
        with mounts.sshfs(tmp_path / str(seed), _LAG_2_S) as both:
            plan = Plan(
                f"{tmp_path}/{seed}/srv", workers=6, configs=12, hits=12, signal=signal, seed=seed, lease_s=0.0,
                mounts=both, hosts=hosts, stale_s=0.5, pace_s=0.2, pause_s=0.1, twin=twin, deadline_s=60.0,
            )
            chaos.run(plan)
        if any(violation.startswith(broken) for violation in chaos.judge(plan)):
            return
    pytest.fail(f"{twin!r} was not noticed")
