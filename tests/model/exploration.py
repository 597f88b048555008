"""Every state that a model can come to, the shortest way first."""

# ruff: noqa: I001  # sorted, but one imported name a line would fill a page

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from tests.model.promises import harm
from tests.model.disk import Label
from tests.model.protocol import Protocol
from tests.model.state import (
    DELETED, GENERATION, HOST, J_FLOOR, J_PC, J_STATS, NONE, NOTE, PLANNED, STATS, WORKER, Bounds,
)


class Found(NamedTuple):
    """What an exploration came to: ``broken`` is "" where nothing is, ``schedule`` the shortest way to it."""

    states: int
    depth: int
    steps: Counter[str]
    broken: str = ""
    schedule: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.broken or 'nothing broken'} after {len(self.schedule)} steps, {self.states} states"]
        return "\n".join([*lines, *(f"{number:3} {step}" for number, step in enumerate(self.schedule, 1))])


def explore(bounds: Bounds, *, trace: bool = False, longest: int = 0) -> Found:
    """All states within ``bounds``, up to ``longest`` steps deep where that is not 0; ends at the first harm.

    ``trace`` remembers where each state came from, so that a schedule can be told; it costs memory.
    """
    model = Protocol(bounds)
    start = model.initial()
    came_from: dict[bytes, tuple[bytes, Label] | None] = {start: None} if trace else {}
    seen = {start}
    front, depth, steps = [start], 0, Counter[str]()
    while front and not (longest and depth == longest):
        depth += 1
        following = []
        for state in front:
            for label, after, is_seen in model.steps(state):
                steps[label[1]] += 1
                broken = (_owned_twice(state, label) or harm(model, after)) if is_seen or trace else ""
                canonical = tidy(model, after, is_sorted=not trace)
                if broken:
                    schedule = (*_way(came_from, state), tell(label)) if trace else ()
                    return Found(len(seen), depth, steps, broken, schedule)
                if canonical not in seen:
                    seen.add(canonical)
                    following.append(canonical)
                    if trace:
                        came_from[canonical] = (state, label)
        front = following
    return Found(len(seen), depth, steps)


def _owned_twice(state: bytes, label: Label) -> str:
    if label[1].startswith("creates generation") and state[label[2] * GENERATION] == DELETED:
        return f"generation {label[2]} has two owners"
    return ""


def _way(came_from: dict[bytes, tuple[bytes, Label] | None], state: bytes) -> list[str]:
    way = []
    while before := came_from[state]:
        state, label = before
        way.append(tell(label))
    return way[::-1]


def tell(label: Label) -> str:
    actor, what, first, second = label
    return f"{actor} {what.format(first, second)}"


def tidy(model: Protocol, state: bytearray, *, is_sorted: bool = True) -> bytes:
    """The same moment with workers in a fixed order, as they are all alike, and without plans that cannot succeed."""
    workers = model.workers
    if model.without not in ("4 claims deleted", "9 pop deletes"):
        for at in workers:
            if state[at] == PLANNED and state[state[at + NOTE] * GENERATION] != NONE:
                state[at : at + WORKER] = bytes(WORKER)
    if not model.without:
        _excuse_janitor(model, state)
    if not is_sorted:
        return bytes(state)
    if model.age:
        _sort_hosts(model, state)
    else:
        first, last = workers[0], workers[-1] + WORKER
        state[first:last] = b"".join(sorted(bytes(state[at : at + WORKER]) for at in workers))
    return bytes(state)


def _excuse_janitor(model: Protocol, state: bytearray) -> None:
    """Let a janitor begin anew whose first look is outdated, or who has nothing left to remove."""
    at = model.rest + J_PC
    floor = state[model.rest + J_FLOOR]
    if state[at] == 1:
        is_over = state[floor * GENERATION + STATS] != state[model.rest + J_STATS]
    else:
        is_over = state[at] == 2 and not model.is_littered(state, floor)
    if is_over:
        state[at : at + 4] = bytes(4)


def _sort_hosts(model: Protocol, state: bytearray) -> None:
    owned = [0] * 8
    for generation in model.generations:
        at = generation * GENERATION
        if state[at]:
            owned[state[at + HOST]] |= 1 << generation
    blocks = sorted((bytes(state[at : at + WORKER]), owned[host], host) for host, at in enumerate(model.workers))
    if all(old == new for new, (_, _, old) in enumerate(blocks)):
        return
    renamed = {old: new for new, (_, _, old) in enumerate(blocks)}
    for generation in model.generations:
        at = generation * GENERATION
        if state[at]:
            state[at + HOST] = renamed.get(state[at + HOST], state[at + HOST])
    for at, (block, _, _) in zip(model.workers, blocks, strict=True):
        state[at : at + WORKER] = block
