"""The page about claims says of the model what the model's tests say, and names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.archives import test_schedules
from tests.model.state import Bounds
from tests.model.test_protocol import EXHAUSTED, EXHAUSTED_AT_NIGHT, WITHOUT
from tests.model.test_replay import REMOVED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "claims.md"


def row(bounds: Bounds, states: int, when: str) -> str:
    counts = (bounds.crashes, bounds.errors, bounds.lates, bounds.pops, bounds.extensions)
    letters = [letter for count, letter in zip(counts, "kflpx", strict=True) for _ in range(count)]
    what = " ".join([*letters, *(["janitor"] if bounds.janitor else [])]) or "stalls alone"
    listings = "stale" if bounds.stale else "fresh"
    count = f"{states:,}".replace(",", " ")
    return f"| {bounds.workers} | {bounds.generations} | {bounds.epochs} | {what} | {listings} | {count} | {when} |"


def table() -> list[str]:
    pushed = [row(*each, "") for each in EXHAUSTED.values()]
    return pushed + [row(*each, "nightly") for each in EXHAUSTED_AT_NIGHT.values()]


def test_the_page_tells_what_is_explored() -> None:
    assert [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d \|", line)] == table()


def test_the_page_counts_the_rules_that_are_taken_out() -> None:
    text = " ".join(PAGE.read_text().split())
    assert f"{len(WITHOUT)} variants of the first eleven of the 14 rules" in text
    assert f"The schedules of {len(REMOVED)} variants" in text
    assert f"{len(test_schedules.CASES)} directed schedules" in text


@pytest.mark.parametrize("path", re.findall(r"`([\w/.-]+/)`|\]\(\.\./\.\./([\w/.-]+)\)", PAGE.read_text()))
def test_the_files_that_the_page_names_are_there(path: tuple[str, str]) -> None:
    assert (ROOT / (path[0] or path[1])).exists()
