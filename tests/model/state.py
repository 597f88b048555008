"""One moment of the claim protocol of one run, as a string of bytes: what is on disk, and how far each actor has come.

A commit is named by one byte, ``8 * generation + number``; number 0 is the adopted copy. The lineage of a commit is
the commits of its generation up to it, and that of the commit which its generation adopted. Time is counted in ticks,
of which ``STALE`` make one ``stale_s``: who lists a directory may miss what came into it less than ``STALE`` ticks ago.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

STALE = 2
"""Ticks in a ``stale_s``. With one, waiting for one ``stale_s`` would do as well as for two."""
WAIT = 2 * STALE

# --- a generation on disk: its claim, who made it and how long ago; its stats; its files; what they descend from
CLAIM, HOST, SETTLE, CLAIM_AGE, STATS, STATS_AGE, OLD_STATS, OLD_AGE, FILES, BASE, ACKED, PREVIEW = range(12)
GENERATION = 12
NONE, HELD, RELEASED, DONE, POPPED, DELETED = range(6)
TOMBSTONE = 255

# --- a worker
PC, GEN, NUMBER, TIMER, NOTE, KEPT = range(6)
WORKER = 6
(IDLE, PLANNED, ADOPT_LIST, ADOPT_READ, ADOPT_LINK, ADOPT_COMMIT, TRAIN, BELOW_LIST, BELOW_READ, COMMIT, ACKNOWLEDGE,
 MARK) = range(12)  # fmt: skip

# --- everything else: the janitor, whoever pops, a rename that is still to come, what was promised, what may go wrong
(J_PC, J_FLOOR, J_STATS, J_TIMER, J_NAMES, P_PC, P_GEN, LATE_GEN, LATE_STATS, FINISHED, POPPED_GEN, PEAK, COMPLETE,
 CRASHES, ERRORS, LATES, POPS, EXTENSIONS) = range(18)  # fmt: skip
REST = 18
PERSON_HOST = 7
NOBODY = 6
"""The host of a generation of which it no longer matters."""
VOID = 2
"""Of COMPLETE: a person has popped the run, so that what readers saw as complete may go."""


class Bounds(NamedTuple):
    """How far is looked, and without which rule.

    ``stale`` gives each worker a host of its own and lets listings lag; without it all see everything at once.
    ``crashes``, ``errors`` (a write of stats fails, done or not), ``lates`` (a failed rename that may still happen),
    ``pops`` and ``extensions`` (a finished run is claimed again) bound how often that comes about in one behaviour.
    Stalls are not bounded: whoever is not at turn stalls, past any lease, as a held run may be taken over at any time
    (silence, or a verdict of Slurm's).
    """

    workers: int = 3
    generations: int = 3
    epochs: int = 2
    stale: bool = False
    crashes: int = 0
    errors: int = 0
    lates: int = 0
    pops: int = 0
    extensions: int = 0
    janitor: bool = False
    without: str = ""


class Layout:
    """Where each byte of a state lies, and what can be asked of it."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.without = bounds.without
        self.top = bounds.generations
        self.age = STALE if bounds.stale else 0
        self.wait = 0 if not bounds.stale else STALE if self.without == "7 half the wait" else WAIT
        # Generation 0 is a sentinel that is always empty; it makes offsets plain products.
        self.workers = tuple((self.top + 1) * GENERATION + WORKER * i for i in range(bounds.workers))
        self.rest = (self.top + 1) * GENERATION + WORKER * bounds.workers
        self.generations = tuple(range(1, self.top + 1))
        self.downwards = tuple(reversed(self.generations))

    def initial(self) -> bytes:
        state = bytearray(self.rest + REST)
        bounds = self.bounds
        budgets = {CRASHES: bounds.crashes, ERRORS: bounds.errors, LATES: bounds.lates, POPS: bounds.pops}
        budgets[EXTENSIONS] = bounds.extensions
        for field, count in budgets.items():
            state[self.rest + field] = count
        return bytes(state)

    def highest(self, state: bytes | bytearray) -> int:
        """The highest generation that has a claim or stats, as it really is."""
        for generation in self.downwards:
            at = generation * GENERATION
            if state[at] not in (NONE, DELETED) or state[at + STATS]:
                return generation
        return 0

    def listed_stats(self, state: bytes, host: int) -> Iterator[int]:
        """What a listing from ``host`` may show as the highest generation with stats; 0 for none."""
        for generation in self.downwards:
            at = generation * GENERATION
            if state[at + STATS]:
                yield generation
                if state[at + STATS_AGE] == self.age or state[at + HOST] == host:
                    return
        yield 0

    def readable_stats(self, state: bytes, generation: int, host: int) -> tuple[int, ...]:
        """What may be read from ``host`` in a stats file: what it holds, or held less than ``stale_s`` ago."""
        here = generation * GENERATION
        now, before = state[here + STATS], state[here + OLD_STATS]
        return (now, before) if before and now and state[here + HOST] != host else (now,)

    def above(self, state: bytes, generation: int, host: int) -> tuple[bool, bool]:
        """Whether a listing from ``host`` may, and whether it must show claims or stats above ``generation``."""
        may = False
        for higher in range(generation + 1, self.top + 1):
            at = higher * GENERATION
            is_own = state[at + HOST] == host
            if state[at] not in (NONE, DELETED):
                may = True
                if is_own or state[at + CLAIM_AGE] == self.age:
                    return True, True
            if state[at + STATS]:
                may = True
                if is_own or state[at + STATS_AGE] == self.age:
                    return True, True
        return may, False

    def visible(self, state: bytes | bytearray) -> int:
        """The highest generation with stats, which is what readers go by; 0 for none."""
        for generation in self.downwards:
            if state[generation * GENERATION + STATS]:
                return generation
        return 0

    def lineage(self, state: bytes | bytearray, commit: int) -> Iterator[tuple[int, int]]:
        """Each generation that a commit descends from with its last number there, from the newest on."""
        while commit:
            generation = commit >> 3
            yield generation, commit & 7
            commit = state[generation * GENERATION + BASE]

    def epoch(self, state: bytes | bytearray, commit: int) -> int:
        return min(self.bounds.epochs, sum(number for _, number in self.lineage(state, commit)))


def newest(stats: int) -> int:
    """The number of the newest commit that a stats file names."""
    return (stats & 15) - 1


def older(stats: int) -> int:
    """The number of the other commit that a stats file names, -1 for none."""
    return (stats >> 4) - 1


def named(stats: int) -> int:
    """The set of the numbers that a stats file names, as bits."""
    return (1 << newest(stats)) | (1 << older(stats) if stats >> 4 else 0)
