"""Liveness: healthy workers whose heartbeats are seen late, and whether one of them ever finishes the run.

Time passes in ticks, in each of which every owner beats. A watcher sees the directory as it was up to ``delay`` ticks
ago, and takes over when what it sees has not changed for the lease that it reads there. Nobody crashes or stalls. Who
looks when is left open, so all ways in which that can go are followed: does one lead round in a circle for ever?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

LEASE, DELAY, EPOCH, EPOCHS = 4, 12, 20, 2
"""In ticks of 15 s: a lease of a minute, changes seen after up to three, epochs of five."""
WATCHERS = 2


class Moment(NamedTuple):
    """``views`` are how old each watcher's view is and which lease it shows; the newest claim has ``lease``."""

    lease: int
    trained: int
    epochs: int
    views: tuple[tuple[int, int], ...]
    is_fruitless: bool = True


class Outcome(NamedTuple):
    """``circle`` are steps that can be repeated for ever; else ``claims`` is the most that were ever needed."""

    moments: int
    claims: int
    circle: tuple[str, ...] = ()


START = Moment(LEASE, 0, 0, ((0, LEASE),) * WATCHERS)


def follow(*, doubling: bool) -> Outcome:
    """Follow every way from the first claim to the end of the run, depth first."""
    done: dict[Moment, int] = {}
    path: list[tuple[Moment, str]] = []
    on_path: dict[Moment, int] = {}
    stack = [(START, "a worker creates the first claim", iter(steps(START, doubling)))]
    on_path[START] = 0
    path.append((START, stack[0][1]))
    while stack:
        moment, _, rest = stack[-1]
        for what, after in rest:
            if after in on_path:
                return Outcome(len(done) + len(path), 0, (*(text for _, text in path[on_path[after] + 1 :]), what))
            if after not in done:
                on_path[after] = len(path)
                path.append((after, what))
                stack.append((after, what, iter(steps(after, doubling))))
                break
        else:
            # All that follows is known: the most claims from here on.
            onwards = (done[after] + what.endswith("ticks") for what, after in steps(moment, doubling))
            done[moment] = max(onwards, default=0)
            stack.pop()
            path.pop()
            del on_path[moment]
    return Outcome(len(done), 1 + done[START])


def steps(moment: Moment, doubling: bool) -> Iterator[tuple[str, Moment]]:
    """Whatever may happen next: a takeover by a watcher who may, or a tick."""
    if moment.epochs == EPOCHS:
        return
    for place, (age, lease) in enumerate(moment.views):
        if age >= lease:
            yield from _take_over(moment, place, lease, doubling)
    for views in _seen(moment):
        trained, epochs, is_fruitless = moment.trained + 1, moment.epochs, moment.is_fruitless
        if trained == EPOCH:
            trained, epochs, is_fruitless = 0, epochs + 1, False
        yield "time passes", Moment(moment.lease, trained, epochs, views, is_fruitless)


def _take_over(moment: Moment, place: int, lease: int, doubling: bool) -> Iterator[tuple[str, Moment]]:
    others = moment.views[:place] + moment.views[place + 1 :]
    if lease != moment.lease:
        # An old view, and the number is taken: the listing that tells so is new.
        yield "a watcher finds the next number taken", moment._replace(views=_in_order((*others, (0, moment.lease))))
        return
    following = (lease * 2 if moment.is_fruitless else LEASE) if doubling else lease
    # The former owner learns of it at once, and may become impatient itself: nobody is kept from claiming.
    views = _in_order((*others, (0, following)))
    yield f"a watcher has seen nothing for {lease} ticks and claims, for {following} ticks", Moment(
        following, 0, moment.epochs, views
    )


def _seen(moment: Moment) -> Iterator[tuple[tuple[int, int], ...]]:
    """Each watcher's view grows older or is renewed, which must happen before it is older than ``DELAY``."""
    choices: list[tuple[tuple[int, int], ...]] = [()]
    for age, lease in moment.views:
        choices = [
            (*before, view)
            for before in choices
            for view in ([(0, moment.lease)] if age >= DELAY else [(0, moment.lease), (age + 1, lease)])
        ]
    return (_in_order(views) for views in dict.fromkeys(map(_in_order, choices)))


def _in_order(views: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(views))
