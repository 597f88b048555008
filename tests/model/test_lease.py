"""Rule 12: a lease that ends without a commit is doubled, or healthy workers may never finish."""

from __future__ import annotations

from tests.model.lease import DELAY, LEASE, follow


def test_healthy_workers_finish_whatever_they_see_when() -> None:
    outcome = follow(doubling=True)
    assert outcome.circle == ()
    assert outcome.moments > 10_000
    assert LEASE < DELAY, "else nobody ever takes over, and nothing is shown"
    assert 3 <= outcome.claims <= 6


def test_without_doubling_they_may_take_over_from_each_other_for_ever() -> None:
    circle = follow(doubling=False).circle
    print(*circle, sep="\n")
    assert any("claims" in step for step in circle)
