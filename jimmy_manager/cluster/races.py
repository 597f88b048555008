"""Races for one name: whether exactly one of all who try at once wins, which is all that claims rest on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jimmy_manager.cluster.place import LOST, WON, Place

KINDS = {
    "link": "a name by link", "open": "a file by O_EXCL", "mkdir": "a folder by mkdir", "rename": "a file by rename",
}  # fmt: skip
"""How they are won; a claim is a ``link``, and an ``open`` where there are no links."""

_SPIN_S = 0.001


class Try(NamedTuple):
    """How one hand fared in one round, and when, in seconds after the common beginning."""

    outcome: str
    begin: float
    end: float


class Tally(NamedTuple):
    """The rounds of one kind: how many had one winner, none, and more; in how many the sides were at it at once."""

    kind: str
    rounds: int
    one: int
    none: int
    more: int
    contended: int
    errors: Mapping[str, int]

    @property
    def is_refused(self) -> bool:
        """Whether the file system does not know this operation."""
        return self.one + self.more == 0

    @property
    def is_safe(self) -> bool:
        """Whether nobody shared a victory."""
        return self.more == 0 and not self.is_refused

    def __str__(self) -> str:
        if self.is_refused:
            return f"not possible here ({', '.join(self.errors) or 'nobody won'})"
        rest = f", {self.none} had none" if self.none else ""
        found = f"{self.one} of {self.rounds} races had one winner{rest}"
        return f"{found}, {self.more} had several" if self.more else found


def prepare(place: Place, kind: str, hands: Sequence[str], rounds: int) -> None:
    """Make what the race needs beforehand: each hand's own file to link, or the files to take."""
    if kind == "link":
        for hand in hands:
            place.put(f"own-{hand}", hand.encode())
    elif kind == "rename":
        for turn in range(rounds):
            place.put(f"rename-{turn}", b"prize")


def run(place: Place, kind: str, hands: Sequence[str], rounds: int, begin: float, slot_s: float) -> list[list[Try]]:
    """Race with one thread for each hand; round ``n`` starts at ``begin + n * slot_s`` of ``time.monotonic``."""
    found: list[list[Try]] = [[] for _ in hands]
    # Several threads that spin would only keep Python's lock from each other.
    ahead_s = _SPIN_S if len(hands) == 1 else 0.0
    threads = [
        threading.Thread(target=_hand, args=(place, kind, hand, rounds, begin, slot_s, ahead_s, tries), daemon=True)
        for hand, tries in zip(hands, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def tally(kind: str, sides: Sequence[Sequence[Sequence[Try]]]) -> Tally:
    """Count the rounds of a race; each side is the tries of its hands."""
    hands = [tries for side in sides for tries in side]
    rounds = min(map(len, hands), default=0)
    winners = [sum(tries[turn].outcome == WON for tries in hands) for turn in range(rounds)]
    errors = Counter(each.outcome for tries in hands for each in tries if each.outcome not in (WON, LOST))
    contended = sum(_overlap([[tries[turn] for tries in side] for side in sides]) for turn in range(rounds))
    return Tally(
        kind, rounds, winners.count(1), winners.count(0), sum(number > 1 for number in winners), contended, dict(errors)
    )


def _hand(
    place: Place, kind: str, me: str, rounds: int, begin: float, slot_s: float, ahead_s: float, found: list[Try]
) -> None:
    for turn in range(rounds):
        time.sleep(max(0.0, begin + turn * slot_s - ahead_s - time.monotonic()))
        while ahead_s and time.monotonic() < begin + turn * slot_s:
            pass  # a sleeper wakes too late to meet the others within a microsecond or two
        started = time.monotonic() - begin
        outcome = _attempt(place, kind, turn, me)
        found.append(Try(outcome, started, time.monotonic() - begin))


def _attempt(place: Place, kind: str, turn: int, me: str) -> str:
    if kind == "link":
        return place.link(f"own-{me}", f"link-{turn}", me.encode())
    if kind == "open":
        return place.create(f"open-{turn}", me.encode())
    if kind == "mkdir":
        return place.mkdir(f"mkdir-{turn}")
    return place.take(f"rename-{turn}", f"taken-{turn}-{me}")


def _overlap(sides: list[list[Try]]) -> bool:
    """Whether tries of two sides ran at the same moment; of a single side, two of its hands."""
    groups = sides if len(sides) > 1 else [[each] for each in sides[0]]
    return any(
        mine.begin < theirs.end and theirs.begin < mine.end
        for index, side in enumerate(groups) for other in groups[index + 1 :] for mine in side for theirs in other
    )  # fmt: skip
