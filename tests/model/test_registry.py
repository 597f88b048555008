"""Rules 13 and 14: one configuration has one key, whatever collides, is popped, or is half created."""

from __future__ import annotations

import pytest

from tests.model.registry import explore


@pytest.mark.parametrize(("configs", "links", "at_least"), [("aabb", True, 5000), ("aaa", False, 2000)])
def test_each_configuration_has_one_key_of_its_own(configs: str, links: bool, at_least: int) -> None:
    found = explore(configs, links=links, pops=1, crashes=1)
    assert not found.broken, f"{found.broken}: {found.schedule}"
    assert found.moments >= at_least


@pytest.mark.parametrize(
    ("rule", "configs", "links"),
    [("13 name freed", "ab", True), ("13 glob", "ab", True), ("14 empty file", "aa", False)],
)
def test_a_missing_rule_gives_a_key_twice(rule: str, configs: str, links: bool) -> None:
    found = explore(configs, links=links, pops=1, without=rule)
    print(found.broken, *found.schedule, sep="\n")
    assert found.broken
    assert not explore(configs, links=links, pops=1).broken


def test_without_links_a_collision_and_a_stall_at_the_wrong_moment_are_too_much() -> None:
    """A limit that is known: an empty record is moved aside by its name, after it was filled and acted upon."""
    found = explore("ab", links=False, crashes=1)
    assert found.broken == "two configurations have the key s"
    assert any("moves s aside" in step for step in found.schedule)
