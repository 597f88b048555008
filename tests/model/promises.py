"""Promise 2 of the store, asked of one state: what was acknowledged stays, a finished run stays as it finished."""

# ruff: noqa: I001  # sorted, but one imported name a line would fill a page

from __future__ import annotations

from tests.model.state import (
    ACKED, COMPLETE, FILES, FINISHED, GENERATION, PEAK, POPPED_GEN, PREVIEW, STATS, TOMBSTONE, VOID, Layout, newest,
)


def harm(layout: Layout, state: bytearray) -> str:
    """What readers with a fresh view find broken, "" for nothing; notes in the state what they have seen by now."""
    rest = layout.rest
    generation = layout.visible(state)
    if generation < state[rest + PEAK]:
        return f"generation {state[rest + PEAK]} was what readers saw, now it is {generation}"
    state[rest + PEAK] = generation
    commit = 0
    stats = state[generation * GENERATION + STATS]
    if generation and stats != TOMBSTONE:
        number = newest(stats)
        if not state[generation * GENERATION + FILES] >> number & 1:
            return f"the stats of generation {generation} name a checkpoint {number} that is gone"
        if layout.bounds.without == "11 shared preview" and state[generation * GENERATION + PREVIEW] != number:
            return f"the stats of generation {generation} name a preview that was overwritten"
        commit = generation * 8 + number
    return _not_kept(layout, state, commit) or _changed(layout, state, commit)


def _not_kept(layout: Layout, state: bytearray, commit: int) -> str:
    there = dict(layout.lineage(state, commit))
    for generation in layout.generations:
        acknowledged = state[generation * GENERATION + ACKED]
        if acknowledged > there.get(generation, 0):
            what = f"the acknowledged commit {acknowledged} of generation {generation} is gone"
            return f"{what}; visible is {there or 'nothing'}"
    popped = state[layout.rest + POPPED_GEN]
    if any(number and generation < popped for generation, number in there.items()):
        return f"what was popped by generation {popped} is there again: {there}"
    return ""


def _changed(layout: Layout, state: bytearray, commit: int) -> str:
    finished = state[layout.rest + FINISHED]
    if finished and commit != finished:
        return f"a run that finished as {show(finished)} became {show(commit)}"
    if not (layout.bounds.errors or layout.bounds.lates) and state[layout.rest + COMPLETE] != VOID:
        is_complete = layout.epoch(state, commit) == layout.bounds.epochs
        if state[layout.rest + COMPLETE] and not is_complete:
            return f"readers saw the last epoch, and now {show(commit)} of epoch {layout.epoch(state, commit)}"
        state[layout.rest + COMPLETE] = is_complete
    return ""


def show(commit: int) -> str:
    return f"commit {commit & 7} of generation {commit >> 3}" if commit else "nothing"
