"""Promise 2 under random interleavings, and proof that such a search would notice most rules if they were missing."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.archives import test_schedules as rules
from tests.archives.interleaving import Walk
from tests.archives.stepping import Harm

WALKS = 1000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Passed-over damage is logged, and here it is everywhere."""
    logger = logging.getLogger("jimmy_manager")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def walk(seed: int) -> Walk:
    try:
        return Walk(seed).run()
    except BaseException as error:
        error.add_note(f"in the walk of seed {seed}")
        raise


def first_harm(seeds: Iterable[int]) -> str | None:
    for seed in seeds:
        try:
            walk(seed)
        except Harm as harm:
            return f"{harm} (seed {seed})"
    return None


def test_no_interleaving_breaks_a_promise() -> None:
    walks = [walk(seed) for seed in range(WALKS)]
    # What never happens in the walks is not tested by them.
    assert sum(len(walk.acknowledged) for walk in walks) > 2 * WALKS
    assert sum(walk.result is not None for walk in walks) > WALKS / 2
    assert sum(walk.popped > 0 for walk in walks) > WALKS / 10
    assert sum(walk.stale_s > 0 for walk in walks) > WALKS / 4
    assert sum(max(walk.owned, default=0) > 5 for walk in walks) > WALKS / 10


@pytest.mark.nightly
def test_no_interleaving_of_many_breaks_a_promise() -> None:
    start = random.SystemRandom().randrange(1 << 40)
    for seed in range(start, start + 20 * WALKS):
        walk(seed)


@pytest.mark.parametrize(
    "remove_rule",
    [
        rules.janitor_goes_by_the_highest_claim,
        rules.janitor_removes_what_no_stats_name,
        rules.janitor_removes_old_claims,
        rules.only_the_generation_below_is_adopted,
        rules.commits_are_not_checked_afterwards,
        rules.what_is_adopted_may_be_declared_done,
    ],
)
def test_the_search_notices_a_missing_rule(
    remove_rule: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_rule(monkeypatch)
    assert first_harm(range(3 * WALKS)) is not None


def test_a_seed_gives_the_same_walk_again() -> None:
    first, second = walk(7), walk(7)
    assert (first.steps, first.acknowledged, first.result) == (second.steps, second.acknowledged, second.result)
