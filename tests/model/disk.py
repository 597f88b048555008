"""What is on disk, and how it changes."""

# ruff: noqa: I001  # sorted, but one imported name a line would fill a page

from __future__ import annotations

from tests.model.state import (
    CLAIM_AGE, GENERATION, HOST, NOBODY, NONE, OLD_AGE, OLD_STATS, SETTLE, STATS, STATS_AGE, Layout,
)

Label = tuple[str, str, int, int]
"""Who does what, as a text with two numbers to be put in."""
Step = tuple[Label, bytearray, bool]
"""What was done, what it led to, and whether readers may notice."""


class Disk(Layout):
    """Changes of what is on disk: what comes is young, and what it replaces is remembered for a while."""

    def put_claim(self, after: bytearray, generation: int, kind: int, host: int, settle: bool) -> None:
        here = generation * GENERATION
        after[here], after[here + HOST], after[here + SETTLE] = kind, host if self.age else 0, settle
        after[here + CLAIM_AGE] = 0
        below = here - GENERATION
        after[below + SETTLE] = 0
        self.forget_host(after, below)

    def forget_host(self, after: bytearray, here: int) -> None:
        """Drop the host of a generation that everybody sees alike, and that is not the highest one."""
        is_claim_old = after[here + CLAIM_AGE] == self.age
        is_old = is_claim_old and (not after[here + STATS] or after[here + STATS_AGE] == self.age)
        is_below = bool(here) and here < self.top * GENERATION and after[here + GENERATION] != NONE
        if self.age and is_old and is_below and after[here] and not after[here + OLD_STATS]:
            after[here + HOST] = NOBODY

    def write_stats(self, after: bytearray, generation: int, stats: int, host: int) -> None:
        here = generation * GENERATION
        if self.age:
            if not after[here + STATS]:
                after[here + STATS_AGE] = 0
                after[here + HOST] = host
            elif after[here + STATS] != stats:
                after[here + OLD_STATS] = after[here + OLD_STATS] or after[here + STATS]
                after[here + OLD_AGE] = 0
                after[here + HOST] = host
        after[here + STATS] = stats
