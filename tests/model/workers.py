"""What a worker does, from the listing before its claim to the mark on what it finished."""

# ruff: noqa: I001  # sorted, but one imported name a line would fill a page

from __future__ import annotations

from collections.abc import Iterator

from tests.model.disk import Disk, Step
from tests.model.state import (
    ACKED, ACKNOWLEDGE, ADOPT_COMMIT, ADOPT_LINK, ADOPT_LIST, ADOPT_READ, BASE, BELOW_LIST, BELOW_READ, COMMIT,
    CRASHES, DELETED, DONE, ERRORS, EXTENSIONS, FILES, FINISHED, GEN, GENERATION, HELD, HOST, KEPT, LATES, LATE_GEN,
    LATE_STATS, MARK, NONE, NOTE, NUMBER, PLANNED, POPPED, PREVIEW, RELEASED, SETTLE, STATS, TIMER, TOMBSTONE, TRAIN,
    WORKER, newest, older,
)


class Workers(Disk):
    """The steps of each worker."""

    # --- claim

    def _plan(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        """List claims and stats. An older listing leads to a number that is taken; so does a newer one at times."""
        top = self.highest(state)
        if top == self.top or (state[top * GENERATION] == DONE and not state[self.rest + EXTENSIONS]):
            return
        after = bytearray(state)
        after[at], after[at + NOTE] = PLANNED, top + 1
        yield (f"w{host}", "lists claims and will create generation {}", top + 1, 0), after, False

    def _create(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation = state[at + NOTE]
        here = generation * GENERATION
        if state[here] not in (NONE, DELETED):
            after = bytearray(state)
            self._clear(after, at)
            yield (f"w{host}", "finds generation {} taken", generation, 0), after, False
            return
        for settle in self._settles(state, host, generation - 1):
            after = bytearray(state)
            self.put_claim(after, generation, HELD, host, settle)
            if state[here - GENERATION] == DONE:
                after[self.rest + EXTENSIONS] -= 1
                after[self.rest + FINISHED] = 0
            after[at : at + WORKER] = bytes((ADOPT_LIST, generation, 0, 0 if settle else self.wait, 0, 0))
            label = "creates generation {}, and will wait" if settle else "creates generation {}"
            yield (f"w{host}", label, generation, 0), after, state[here] == DELETED

    def _settles(self, state: bytes, host: int, below: int) -> tuple[bool, ...]:
        """Whether the first commit has to wait: always after a verdict that rests on silence, or from another host."""
        if not (self.wait and below) or self.without == "6 stale adoption":
            return (False,)
        here = below * GENERATION
        is_silent = state[here] == HELD
        if state[here + HOST] != host:
            return (not (self.without == "6 after a release" and not is_silent),)
        is_owned = any(state[at + GEN] == below for at in self.workers)
        inherited = bool(state[here + SETTLE]) and not state[here + STATS]
        if is_silent:
            return (True,) if is_owned else (True, inherited) if not inherited else (True,)
        return (inherited,)

    # --- adopt

    def _adopt_list(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        for generation in self._to_adopt(state, host, state[at + GEN]):
            after = bytearray(state)
            if generation:
                after[at], after[at + NOTE] = ADOPT_READ, generation
            else:
                self._adopted_nothing(after, at, 0)
            yield (f"w{host}", "lists stats, to adopt from generation {}", generation, 0), after, False

    def _to_adopt(self, state: bytes, host: int, own: int) -> Iterator[int]:
        for generation in self.listed_stats(state, host):
            yield generation if self.without != "3 only from below" or generation in (own - 1, own) else 0

    def _adopted_nothing(self, after: bytearray, at: int, tombstone: int) -> None:
        here = after[at + GEN] * GENERATION
        after[here + BASE] = tombstone * 8
        after[here + FILES] &= ~1
        after[at], after[at + NOTE], after[at + KEPT] = TRAIN, 0, 0

    def _adopt_read(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation = state[at + NOTE]
        for stats in self.readable_stats(state, generation, host):
            after = bytearray(state)
            if not stats:
                after[at], after[at + NOTE] = ADOPT_LIST, 0
            elif stats == TOMBSTONE:
                self._adopted_nothing(after, at, generation)
            else:
                after[at], after[at + KEPT] = ADOPT_LINK, stats
            is_old = stats != state[generation * GENERATION + STATS]
            label = "reads the stats of generation {}" + (" as they were" if is_old else "")
            yield (f"w{host}", label, generation, 0), after, False

    def _adopt_link(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation, stats, own = state[at + NOTE], state[at + KEPT], state[at + GEN]
        files = state[generation * GENERATION + FILES]
        after = bytearray(state)
        after[at + NOTE] = after[at + KEPT] = 0
        number = newest(stats) if files >> newest(stats) & 1 else older(stats)
        if number < 0 or not files >> number & 1:
            after[at] = ADOPT_LIST
            yield (f"w{host}", "finds the files of generation {} gone, and looks again", generation, 0), after, False
            return
        after[own * GENERATION + FILES] |= 1
        after[own * GENERATION + BASE] = generation * 8 + number
        after[at], after[at + KEPT] = ADOPT_COMMIT if self.without == "5 adoption committed" else TRAIN, 1
        yield (f"w{host}", "adopts commit {1} of generation {0}", generation, number), after, False

    def _adopt_commit(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        after = bytearray(state)
        self.write_stats(after, state[at + GEN], 1, host)
        after[at] = TRAIN
        yield (f"w{host}", "commits the adoption as generation {}", state[at + GEN], 0), after, True

    # --- commit

    def _train(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation, kept, number = state[at + GEN], state[at + KEPT], state[at + NUMBER]
        is_saved = newest(kept) > 0 if kept else False
        last = generation * 8 + newest(kept) if kept else 0
        is_complete = bool(last) and self.epoch(state, last) == self.bounds.epochs
        if not (is_saved and is_complete):
            yield from self._begin_commit(state, host, at, is_saved)
        if is_complete and (is_saved or self.without == "8 done without own") and generation < self.top:
            yield self._finish(state, host, at, last)
        after = bytearray(state)
        self._release(after, at)
        yield (f"w{host}", "releases generation {}", generation, number), after, False

    def _begin_commit(self, state: bytes, host: int, at: int, is_saved: bool) -> Iterator[Step]:
        generation, kept = state[at + GEN], state[at + KEPT]
        looks_below = not is_saved and self.without != "5 no second look"
        if kept and self.without == "5 adoption committed":
            looks_below = False
        if looks_below and state[at + TIMER] < self.wait:
            return
        may_be_lost, is_lost = self.above(state, generation, host)
        if may_be_lost:
            yield self._lose(state, host, at)
        if is_lost:
            return
        after = bytearray(state)
        if looks_below:
            after[at] = BELOW_LIST
        else:
            self._write_files(after, at)
        yield (f"w{host}", "lists claims: none is above generation {}", generation, 0), after, False

    def _below_list(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        for generation in self._to_adopt(state, host, state[at + GEN]):
            after = bytearray(state)
            if generation:
                after[at], after[at + NOTE] = BELOW_READ, generation
            else:
                self._write_files(after, at)
            yield (f"w{host}", "lists stats again: the highest is generation {}", generation, 0), after, False

    def _below_read(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation, adopted = state[at + NOTE], state[state[at + GEN] * GENERATION + BASE]
        for stats in self.readable_stats(state, generation, host):
            after = bytearray(state)
            after[at + NOTE] = 0
            is_popped = stats == TOMBSTONE
            is_newer = generation * 8 + (0 if is_popped else newest(stats)) > adopted
            if not stats:
                after[at] = BELOW_LIST
            elif is_newer and not (is_popped and self.without == "9 stale tombstone"):
                after[at], after[at + KEPT] = ADOPT_LIST, 0
            else:
                self._write_files(after, at)
            label = "reads the stats of generation {} again" + (", and adopts anew" if after[at] == ADOPT_LIST else "")
            yield (f"w{host}", label, generation, 0), after, False

    def _write_files(self, after: bytearray, at: int) -> None:
        number = after[at + NUMBER] + 1
        here = after[at + GEN] * GENERATION
        after[at], after[at + NUMBER] = COMMIT, number
        after[here + FILES] |= 1 << number
        if self.without == "11 shared preview":
            after[here + PREVIEW] = number

    def _commit(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation, number, kept = state[at + GEN], state[at + NUMBER], state[at + KEPT]
        stats = ((kept & 15) << 4) + number + 1
        after = bytearray(state)
        self.write_stats(after, generation, stats, host)
        after[at], after[at + NOTE], after[at + KEPT] = ACKNOWLEDGE, kept >> 4, stats
        after[at + TIMER] = self.wait
        yield (f"w{host}", "writes the stats of generation {}, naming commit {}", generation, number), after, True
        if state[self.rest + ERRORS]:
            yield from self._fail_to_commit(state, host, at, stats)
        if state[self.rest + LATES] and not state[self.rest + LATE_GEN]:
            yield self._commit_later(state, host, at, stats)

    def _fail_to_commit(self, state: bytes, host: int, at: int, stats: int) -> Iterator[Step]:
        """Be told of a failure. Nothing was renamed: go on. It was renamed all the same: let go, as a Manager does."""
        generation, number = state[at + GEN], state[at + NUMBER]
        after, done = bytearray(state), bytearray(state)
        after[self.rest + ERRORS] = done[self.rest + ERRORS] = state[self.rest + ERRORS] - 1
        after[at] = TRAIN
        after[generation * GENERATION + FILES] &= ~(1 << number)
        label = "fails to write the stats of generation {}, naming commit {}"
        yield (f"w{host}", label, generation, number), after, False
        self.write_stats(done, generation, stats, host)
        self._release(done, at)
        yield (f"w{host}", "writes commit {1} of generation {0} and hears of a failure", generation, number), done, True

    def _commit_later(self, state: bytes, host: int, at: int, stats: int) -> Step:
        """Be told of a failure that may be undone later: nothing more is written, and the claim is let go."""
        generation, number = state[at + GEN], state[at + NUMBER]
        after = bytearray(state)
        after[self.rest + LATES] -= 1
        after[self.rest + LATE_GEN], after[self.rest + LATE_STATS] = generation, stats
        if self.without in ("10 late rename", "10 pending rename"):
            after[at] = TRAIN
            if self.without == "10 late rename":
                after[generation * GENERATION + FILES] &= ~(1 << number)
        else:
            self._release(after, at)
        label = "leaves the stats of generation {}, naming commit {}, to a late rename"
        return (f"w{host}", label, generation, number), after, False

    def _acknowledge(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation, number, dropped = state[at + GEN], state[at + NUMBER], state[at + NOTE]
        may_be_lost, is_lost = self.above(state, generation, host)
        if self.without == "7 no check after":
            may_be_lost = is_lost = False
        if may_be_lost:
            yield self._lose(state, host, at)
        if is_lost:
            return
        here = generation * GENERATION
        after = bytearray(state)
        after[at], after[at + NOTE] = TRAIN, 0
        if dropped:
            after[here + FILES] &= ~(1 << dropped - 1)
        if not self._is_popped_above(state, generation):
            after[here + ACKED] = number
        removed = ", an older one removed" if dropped else ""
        label = "lists claims: commit {1} of generation {0} is acknowledged" + removed
        yield (f"w{host}", label, generation, number), after, True

    def _is_popped_above(self, state: bytes, generation: int) -> bool:
        """Whether a person has asked meanwhile that this run and what is committed to it be gone."""
        return any(state[higher * GENERATION] == POPPED for higher in range(generation + 1, self.top + 1))

    # --- the ends of an attempt

    def _finish(self, state: bytes, host: int, at: int, last: int) -> Step:
        generation = state[at + GEN]
        if state[(generation + 1) * GENERATION]:
            return self._lose(state, host, at)
        after = bytearray(state)
        self.put_claim(after, generation + 1, DONE, host, False)
        after[self.rest + FINISHED] = last if newest(state[at + KEPT]) else state[generation * GENERATION + BASE]
        after[at] = MARK
        if not newest(state[at + KEPT]):
            self._let_go(after, at)
        return (f"w{host}", "declares generation {} done by creating the next", generation, 0), after, True

    def _mark(self, state: bytes, host: int, at: int) -> Iterator[Step]:
        generation = state[at + GEN]
        after = bytearray(state)
        self.write_stats(after, generation, state[at + KEPT], host)
        self._let_go(after, at)
        yield (f"w{host}", "marks the stats of generation {} as done", generation, 0), after, True

    def _lose(self, state: bytes, host: int, at: int) -> Step:
        after = bytearray(state)
        self._let_go(after, at)
        label = "lists a claim above generation {}, and writes nothing more"
        return (f"w{host}", label, state[at + GEN], 0), after, False

    def _crash(self, state: bytes, host: int, at: int) -> Step:
        after = bytearray(state)
        after[self.rest + CRASHES] -= 1
        self._let_go(after, at)
        return (f"w{host}", "is killed, as owner of generation {}", state[at + GEN], 0), after, False

    def _release(self, after: bytearray, at: int) -> None:
        """Let the next generation be claimed at once; below another claim that means nothing."""
        generation = after[at + GEN]
        if generation == self.top or not after[(generation + 1) * GENERATION]:
            after[generation * GENERATION] = RELEASED
        self._let_go(after, at)

    def _let_go(self, after: bytearray, at: int) -> None:
        generation = after[at + GEN]
        self._clear(after, at)
        here = generation * GENERATION
        is_used = after[here + STATS] or after[here + ACKED] or after[self.rest + LATE_GEN] == generation
        if not is_used and not any(after[g * GENERATION + BASE] >> 3 == generation for g in self.generations):
            # Files that nothing will ever name: nobody can tell whether they are there.
            after[here + FILES] = after[here + BASE] = after[here + PREVIEW] = 0

    def _clear(self, after: bytearray, at: int) -> None:
        after[at : at + WORKER] = bytes(WORKER)

    _steps_of = (
        _plan, _create, _adopt_list, _adopt_read, _adopt_link, _adopt_commit, _train, _below_list, _below_read, _commit,
        _acknowledge, _mark,
    )  # fmt: skip
