"""What happens around the workers."""

# ruff: noqa: I001  # sorted, but one imported name a line would fill a page

from __future__ import annotations

from collections.abc import Iterator

from tests.model.disk import Disk, Step
from tests.model.state import (
    ACKED, CLAIM, CLAIM_AGE, COMPLETE, DELETED, FILES, FINISHED, GENERATION, HOST, J_FLOOR, J_NAMES, J_PC, J_STATS,
    J_TIMER, LATE_GEN, LATE_STATS, NONE, OLD_AGE, OLD_STATS, PERSON_HOST, PLANNED, POPPED, POPPED_GEN, POPS, P_GEN,
    P_PC, STATS, STATS_AGE, TIMER, TOMBSTONE, VOID, named, newest,
)


class Surroundings(Disk):
    """The janitor, a person who pops the run, a server that carries out a rename late, and time."""

    def _late(self, state: bytes) -> Step:
        rest = self.rest
        generation, stats = state[rest + LATE_GEN], state[rest + LATE_STATS]
        after = bytearray(state)
        after[rest + LATE_GEN] = after[rest + LATE_STATS] = 0
        self.write_stats(after, generation, stats, state[generation * GENERATION + HOST])
        label = "carries out the late rename: the stats of generation {} name commit {}"
        return ("server", label, generation, newest(stats)), after, True

    def _tick(self, state: bytes) -> Step | None:
        """Let half a ``stale_s`` pass."""
        after = bytearray(state)
        for generation in self.generations:
            here = generation * GENERATION
            if state[here] and state[here + CLAIM_AGE] < self.age:
                after[here + CLAIM_AGE] += 1
            if state[here + STATS] and state[here + STATS_AGE] < self.age:
                after[here + STATS_AGE] += 1
            if state[here + OLD_STATS]:
                after[here + OLD_AGE] += 1
                if after[here + OLD_AGE] == self.age:
                    after[here + OLD_STATS] = after[here + OLD_AGE] = 0
            self.forget_host(after, here)
        for at in self.workers:
            if state[at] > PLANNED and state[at + TIMER] < self.wait:
                after[at + TIMER] += 1
        if state[self.rest + J_PC] == 1 and state[self.rest + J_TIMER] < self.wait:
            after[self.rest + J_TIMER] += 1
        return (("time", "passes, half of stale_s", 0, 0), after, False) if after != state else None

    def _janitor(self, state: bytes) -> Iterator[Step]:
        rest = self.rest
        if not self.bounds.janitor:
            return
        if state[rest + J_PC] == 2:
            yield self._remove(state)
            after = bytearray(state)
            after[rest + J_PC : rest + J_NAMES + 1] = bytes(J_NAMES + 1 - J_PC)
            yield ("janitor", "is killed", 0, 0), after, False
            return
        if state[rest + J_PC] == 1 and state[rest + J_TIMER] < self.wait:
            return
        for floor, stats in self._floors(state):
            after = bytearray(state)
            after[rest + J_TIMER] = 0
            is_second = state[rest + J_PC] == 1 and (floor, stats) == (state[rest + J_FLOOR], state[rest + J_STATS])
            if is_second or not self.wait:  # two looks with no time between them are one
                after[rest + J_PC], after[rest + J_FLOOR], after[rest + J_STATS] = 2, floor, stats
                if self.without == "2 unreferenced":
                    after[rest + J_NAMES] = state[floor * GENERATION + FILES] & ~named(stats)
                label = "looks again: generation {} is unchanged"
            else:
                after[rest + J_PC], after[rest + J_FLOOR], after[rest + J_STATS] = 1, floor, stats
                label = "looks: generation {} is whole"
            if after != state:
                yield ("janitor", label, floor, 0), after, False

    def _floors(self, state: bytes) -> Iterator[tuple[int, int]]:
        if self.without == "1 highest claim":
            if self.is_littered(state, self.highest(state)) and state[self.highest(state) * GENERATION + FILES]:
                yield self.highest(state), 0
            return
        for generation in self.listed_stats(state, PERSON_HOST):
            here = generation * GENERATION
            stats = state[here + STATS]
            is_whole = stats and (stats == TOMBSTONE or state[here + FILES] >> newest(stats) & 1)
            if is_whole and (self.without == "2 unreferenced" or self.is_littered(state, generation)):
                yield generation, stats

    def is_littered(self, state: bytes | bytearray, floor: int) -> bool:
        """Whether there is anything below the generation ``floor`` that a janitor would remove."""
        places = range(GENERATION, floor * GENERATION, GENERATION)
        return any(state[here + STATS] or state[here + FILES] for here in places)

    def _remove(self, state: bytes) -> Step:
        """Remove the stats of the lowest generation below the floor that has any, then its files."""
        rest = self.rest
        floor, names = state[rest + J_FLOOR], state[rest + J_NAMES]
        after = bytearray(state)
        if self.without == "4 claims deleted":
            for generation in range(1, floor):
                after[generation * GENERATION] = DELETED
        for generation in range(1, floor):
            here = generation * GENERATION
            if state[here + STATS]:
                after[here + STATS : here + FILES] = bytes(FILES - STATS)
                return ("janitor", "removes the stats of generation {}", generation, 0), after, True
            if state[here + FILES]:
                after[here + FILES] = 0
                return ("janitor", "removes the files of generation {}", generation, 0), after, True
        after[rest + J_PC] = after[rest + J_FLOOR] = after[rest + J_STATS] = after[rest + J_NAMES] = 0
        after[floor * GENERATION + FILES] &= ~names
        return ("janitor", "ends its sweep below generation {}", floor, 0), after, True

    def _person(self, state: bytes) -> Iterator[Step]:
        """Pop the run: list, create a claim, write the tombstone, list."""
        rest = self.rest
        step, generation = state[rest + P_PC], state[rest + P_GEN]
        after = bytearray(state)
        if step == 0:
            generation = self.highest(state) + 1
            if state[rest + POPS] and 1 < generation <= self.top:
                after[rest + POPS] -= 1
                after[rest + P_PC], after[rest + P_GEN] = 1, generation
                yield ("person", "lists claims and will pop by generation {}", generation, 0), after, False
        elif step == 1 and self.without == "9 pop deletes":
            yield self._delete_all(after)
        elif step == 1 and state[generation * GENERATION]:
            after[rest + P_PC] = after[rest + P_GEN] = 0
            yield ("person", "finds generation {} taken", generation, 0), after, False
        elif step == 1:
            self.put_claim(after, generation, POPPED, PERSON_HOST, True)
            after[rest + P_PC], after[rest + FINISHED], after[rest + COMPLETE] = 2, 0, VOID
            yield ("person", "creates generation {} as popped", generation, 0), after, False
        elif step == 2:
            self._bury(after, generation)
            after[rest + P_PC] = 3
            yield ("person", "writes the tombstone of generation {}", generation, 0), after, True
        else:
            yield from self._end_pop(state, generation)

    def _bury(self, after: bytearray, generation: int) -> None:
        if self.visible(after) < generation:
            for below in range(1, generation):
                after[below * GENERATION + ACKED] = 0
        self.write_stats(after, generation, TOMBSTONE, PERSON_HOST)

    def _end_pop(self, state: bytes, generation: int) -> Iterator[Step]:
        rest = self.rest
        may_be_lost, is_lost = self.above(state, generation, PERSON_HOST)
        after = bytearray(state)
        after[rest + P_PC] = after[rest + P_GEN] = 0
        if may_be_lost and self.without != "9 pop unchecked":
            label = "lists a claim above generation {}: the run is busy"
            yield ("person", label, generation, 0), bytearray(after), False
            if is_lost:
                return
        after[rest + POPPED_GEN] = generation
        yield ("person", "lists claims: the run is popped by generation {}", generation, 0), after, True

    def _delete_all(self, after: bytearray) -> Step:
        rest = self.rest
        for generation in self.generations:
            here = generation * GENERATION
            kind = after[here]
            after[here : here + GENERATION] = bytes(GENERATION)
            after[here + CLAIM] = DELETED if kind else NONE
        after[rest + P_PC] = after[rest + P_GEN] = after[rest + FINISHED] = 0
        return ("person", "removes all files of the run", 0, 0), after, False
