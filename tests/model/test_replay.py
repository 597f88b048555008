"""The model's counter-examples happen to the real code, too, where it lacks the same rule, and only there.

Left out are the two of rule 10, which lie below what these workers' files can be told: ``test_schedules`` has them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.archives import test_schedules as rules
from tests.archives.stepping import Harm, World
from tests.model.replay import Replay
from tests.model.test_protocol import WITHOUT, counter_example

Monkey = pytest.MonkeyPatch

REMOVED: dict[str, Callable[[Monkey], None]] = {
    "1 highest claim": rules.janitor_goes_by_the_highest_claim,
    "2 unreferenced": rules.janitor_removes_what_no_stats_name,
    "3 only from below": rules.only_the_generation_below_is_adopted,
    "4 claims deleted": rules.janitor_removes_old_claims,
    "5 adoption committed": rules.adoptions_are_committed_at_once,
    "5 no second look": rules.the_first_commit_does_not_look_below,
    "6 stale adoption": rules.nobody_waits_for_listings,
    "6 after a release": rules.nobody_waits_after_a_release,
    "7 no check after": rules.commits_are_not_checked_afterwards,
    "7 half the wait": rules.nobody_waits_for_listings,
    "8 done without own": rules.what_is_adopted_may_be_declared_done,
    "9 pop deletes": rules.pop_removes_the_files,
    "9 stale tombstone": rules.tombstones_below_are_overlooked,
    "9 pop unchecked": rules.pop_is_not_checked_afterwards,
    "11 shared preview": rules.previews_share_a_name,
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("jimmy_manager")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def replay(rule: str, monkeypatch: Monkey) -> Replay:
    found = counter_example(rule)
    assert found.broken
    return Replay(World(monkeypatch, stale_s=30.0 if WITHOUT[rule].stale else 0.0)).play(found.schedule)


@pytest.mark.parametrize("rule", REMOVED)
def test_a_counter_example_of_the_model_is_one_of_the_code_without_the_rule(rule: str, monkeypatch: Monkey) -> None:
    REMOVED[rule](monkeypatch)
    with pytest.raises(Harm):
        replay(rule, monkeypatch)


@pytest.mark.parametrize("rule", REMOVED)
def test_the_same_schedule_does_no_harm_to_the_code_as_it_is(rule: str, monkeypatch: Monkey) -> None:
    assert replay(rule, monkeypatch).owned
