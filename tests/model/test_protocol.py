"""Promise 2, asked of every state of the claim protocol within bounds; and of the protocol with one rule taken out."""

from __future__ import annotations

from functools import cache

import pytest

from tests.model.exploration import Found, explore
from tests.model.state import Bounds

AT_ONCE = Bounds(workers=3, generations=3, crashes=1, errors=1, lates=1, janitor=True)
"""Three workers and a janitor who see everything at once: stalls, a kill, a failed write of stats and a late one."""

EXHAUSTED = {
    "everything at once": (AT_ONCE, 581_349),
    "a pop": (Bounds(workers=3, generations=3, crashes=1, pops=1, janitor=True), 275_771),
    "four generations": (Bounds(workers=3, generations=4, epochs=3, extensions=1), 249_635),
    "stale": (Bounds(workers=3, generations=3, crashes=1, stale=True), 254_285),
    "stale and three epochs": (Bounds(workers=2, generations=3, epochs=3, stale=True), 96_060),
    "stale and failing": (Bounds(workers=2, generations=3, errors=1, stale=True), 173_809),
    "stale and late": (Bounds(workers=2, generations=3, lates=1, stale=True), 163_875),
    "stale and a pop": (Bounds(workers=2, generations=3, pops=1, stale=True), 276_898),
    "stale and a janitor": (Bounds(workers=2, generations=3, janitor=True, stale=True), 174_834),
}
"""Bounds, and how many states there are in them: a model that explores nothing, or not all, must not pass."""

EXHAUSTED_AT_NIGHT = {
    "everything at once": (AT_ONCE._replace(pops=1), 2_475_737),
    "four generations": (Bounds(workers=3, generations=4, crashes=1, pops=1), 1_613_616),
    "four generations and a janitor": (Bounds(workers=3, generations=4, janitor=True), 826_613),
    "stale and failing": (Bounds(workers=3, generations=3, crashes=1, errors=1, lates=1, stale=True), 1_862_877),
    "stale and a pop": (Bounds(workers=3, generations=3, crashes=1, pops=1, stale=True), 1_176_919),
    "stale and a janitor": (Bounds(workers=3, generations=3, crashes=1, janitor=True, stale=True), 1_136_947),
    "stale, a pop and a janitor": (
        Bounds(workers=2, generations=3, crashes=1, pops=1, janitor=True, stale=True), 2_978_784,
    ),
    "stale and four generations": (Bounds(workers=3, generations=4, extensions=1, stale=True), 2_506_112),
    "stale and three epochs": (Bounds(workers=3, generations=3, epochs=3, crashes=2, stale=True), 732_484),
}  # fmt: skip

WITHOUT = {
    "1 highest claim": Bounds(workers=2, janitor=True),
    "2 unreferenced": Bounds(workers=2, janitor=True),
    "3 only from below": Bounds(workers=3),
    "4 claims deleted": Bounds(workers=3, janitor=True),
    "5 adoption committed": Bounds(workers=2),
    "5 no second look": Bounds(workers=2, stale=True),
    "6 stale adoption": Bounds(workers=2, stale=True),
    "6 after a release": Bounds(workers=2, stale=True),
    "7 no check after": Bounds(workers=2, stale=True),
    "7 half the wait": Bounds(workers=2, stale=True),
    "8 done without own": Bounds(workers=3, generations=4),
    "9 pop deletes": Bounds(workers=2, pops=1),
    "9 stale tombstone": Bounds(workers=2, pops=1, stale=True),
    "9 pop unchecked": Bounds(workers=2, pops=1),
    "10 late rename": Bounds(workers=2, lates=1),
    "10 pending rename": Bounds(workers=2, lates=1),
    "11 shared preview": Bounds(workers=2),
}
"""Rules, named like the schedules of ``tests/archives/test_schedules.py``, and bounds in which each is missed."""

ONCE_EACH = {bounds: rule for rule, bounds in WITHOUT.items() if bounds not in dict(EXHAUSTED.values())}.values()
"""A rule for each of these bounds that is not explored anyway."""


def promised(bounds: Bounds) -> Found:
    """What there is in ``bounds``, where nothing is broken; else the shortest way to that is told."""
    found = explore(bounds)
    if found.broken:
        found = explore(bounds, trace=True)
    assert not found.broken, f"{found}"
    return found


@cache
def counter_example(rule: str) -> Found:
    return explore(WITHOUT[rule]._replace(without=rule), trace=True)


@pytest.mark.parametrize("name", EXHAUSTED)
def test_no_behaviour_breaks_a_promise(name: str) -> None:
    bounds, states = EXHAUSTED[name]
    assert promised(bounds).states == states


@pytest.mark.nightly
@pytest.mark.parametrize("name", EXHAUSTED_AT_NIGHT)
def test_no_longer_behaviour_breaks_a_promise(name: str) -> None:
    bounds, states = EXHAUSTED_AT_NIGHT[name]
    assert promised(bounds).states == states


@pytest.mark.parametrize("rule", WITHOUT)
def test_a_missing_rule_breaks_a_promise(rule: str) -> None:
    found = counter_example(rule)
    print(found)
    assert found.broken, f"without the rule {rule!r} nothing went wrong in {found.states} states"
    assert found.schedule[0].endswith("lists claims and will create generation 1")
    assert len(found.schedule) == found.depth


@pytest.mark.parametrize("rule", ONCE_EACH)
def test_nothing_is_broken_in_the_same_bounds_where_the_rule_is_in_place(rule: str) -> None:
    assert promised(WITHOUT[rule]).states > 1000


def test_everything_that_may_happen_does_happen() -> None:
    """What never comes about in the model is not checked by it."""
    happened = explore(Bounds(workers=2, generations=3, errors=1, lates=1)).steps
    happened += explore(Bounds(workers=2, generations=3, crashes=1, pops=1, janitor=True)).steps
    happened += explore(Bounds(workers=2, generations=2, epochs=3, janitor=True, stale=True)).steps
    for way in (
        "is killed, as owner", "releases", "fails to write the stats", "hears of a failure", "to a late rename",
        "carries out the late rename", "adopts commit", "adopts anew", "gone, and looks again", "is acknowledged",
        "writes nothing more", "declares generation", "marks the stats", "and will wait", "looks: generation",
        "looks again: generation", "removes the stats", "removes the files", "as popped", "writes the tombstone",
        "the run is popped", "the run is busy", "finds generation", "half of stale_s", "as they were",
        "an older one removed",
    ):  # fmt: skip
        assert any(way in label for label in happened), way
