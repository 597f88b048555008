"""Many workers, signals at random moments, and what must hold afterwards.

*Killed* (SIGKILL, restarted at once): all runs end done and equal to the reference, a generation has one owner, every
acknowledged commit is contained in the result. *Stopped* (SIGSTOP for longer than the lease, then continued): the
same; no commit that began after the takeover is acknowledged. A commit that was already under way when its worker was
stopped may be acknowledged afterwards, where its successor adopts it: then the result contains it, which is checked.

What no failure bounds: with N hits, none of which broke a promise, a fault that shows at a random moment has, with 95 %
confidence, a probability of at most 3/N a hit: 2 % for the quick variants (150 and 60 hits), 0.3 % for the
nightly ones (1 000 each). Rarer faults are the business of the directed schedules. The twins at the end show
that this harness sees faults at all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress import chaos
from tests.stress.plan import Plan


def _assert_unbroken(plan: Plan) -> None:
    chaos.assert_unbroken(plan, chaos.run(plan))


def test_nothing_is_lost_when_workers_are_killed_at_random_moments(tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), workers=8, configs=150, hits=150, signal="KILL", seed=1, epochs=6)
    _assert_unbroken(plan)
    assert chaos.takeovers(plan) >= plan.hits / 4


def test_nothing_is_lost_when_workers_are_stopped_for_longer_than_their_lease(tmp_path: Path) -> None:
    plan = Plan(
        str(tmp_path), workers=8, configs=60, hits=60, signal="STOP", seed=2, epochs=4, group=20, lease_s=0.5,
    )
    _assert_unbroken(plan)
    assert chaos.takeovers(plan) >= plan.hits / 6


@pytest.mark.nightly
def test_a_thousand_runs_survive_a_thousand_kills(tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), workers=16, configs=1000, hits=1000, signal="KILL", seed=3, epochs=8)
    _assert_unbroken(plan)
    assert chaos.takeovers(plan) >= plan.hits / 4


@pytest.mark.nightly
def test_a_thousand_runs_survive_a_thousand_stops_past_the_lease(tmp_path: Path) -> None:
    plan = Plan(
        str(tmp_path), workers=16, configs=1000, hits=1000, signal="STOP", seed=4, epochs=6, group=50, lease_s=1.0,
    )
    _assert_unbroken(plan)
    assert chaos.takeovers(plan) >= plan.hits / 6


@pytest.mark.parametrize(
    ("twin", "signal", "broken"),
    [
        ("check then rename", "KILL", "two owners"),
        ("check then rename", "STOP", "two owners"),
        ("reuse generation", "KILL", "two owners"),
        ("reuse generation", "STOP", "two owners"),
        ("never check", "STOP", "late"),
    ],
)
def test_what_is_wrong_on_purpose_is_caught(tmp_path: Path, twin: str, signal: str, broken: str) -> None:
    for seed in range(6):
        plan = Plan(
            str(tmp_path / str(seed)), workers=6, configs=12, hits=12, signal=signal, seed=seed, group=12, lease_s=0.4,
            pause_s=0.01, twin=twin, deadline_s=20.0,
        )
        chaos.run(plan)
        if any(violation.startswith(broken) for violation in chaos.judge(plan)):
            return
    pytest.fail(f"{twin!r} was not noticed")
