"""``jimmy workers --watch``: a live screen of workers, the progress of all runs, the best one and the newest errors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.cli import states
from jimmy_manager.cli.columns import GAP, clipped, counted, shown, width
from jimmy_manager.cli.live import Live
from jimmy_manager.cli.overview import Overview
from jimmy_manager.cli.workers import EVERY_S, fitted, row_of
from jimmy_manager.errors import JimmyError
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.archives.holders import Holder, Holders

_NARROWEST_BAR, _WIDEST_BAR = 8, 40
_NARROWEST_PLACE = 8
_FULL = {"done": "█", "running": "▓", "paused": "▒", "lost": "?", "failed": "x", "new": "░"}
_ASCII = {"done": "#", "running": "=", "paused": "-", "lost": "?", "failed": "x", "new": "."}


def watch(holders: Holders, overview: Overview, store: str) -> None:
    """Show the screen until somebody leaves it."""
    held = holders.look()
    overview.update(held)
    with Live() as live:
        trouble = ""
        while True:
            due = time.monotonic() + EVERY_S
            while (left := due - time.monotonic()) > 0:
                wide, high = live.size()
                live.draw(screen(held, overview, store, wide, high, trouble))
                if live.wait(left).lower().startswith("q"):
                    return
            try:
                held, trouble = holders.look(), ""
                overview.update(held)
            except JimmyError as error:  # a file system may be away for a while; what was seen last stays
                trouble = str(error)


def screen(
    held: Sequence[Holder], overview: Overview, store: str, wide: int, high: int, trouble: str = ""
) -> list[str]:
    """At most ``high`` lines of at most ``wide`` columns."""
    rows = [row_of(holder, has_looked_twice=True) for holder in held]
    top = [_title(rows, store, wide)]
    if trouble:
        top.append(click.style(clipped(f"cannot look: {plain(trouble)}", wide), fg="red"))
    if high >= 6:
        top.append(_progress(overview.counts, wide))
    if high >= 8 and (best := _best(overview, wide)):
        top.append(best)
    errors = _errors(overview, wide, (high - len(top)) // 4 if high >= 12 else 0)
    room = high - len(top) - len(errors) - 1
    table = fitted(rows, wide, lambda row: _more(overview, row))
    if len(table) > room:
        left = len(table) - max(room, 2) + 1
        table = [*table[: max(room, 2) - 1], f"... and {counted(left, 'more run')}"]
    return [*top, "", *table, *errors][:high]


def _title(rows: Sequence[Mapping[str, Any]], store: str, wide: int) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    told = ", ".join(f"{counts[state]} {state}" for state in states.in_order(counts)) or "nobody"
    place, at, leave = plain(store), f" at {time.strftime('%H:%M:%S')}", "q leaves"
    if (room := wide - width(f"{told} in {at}{GAP}{leave}")) < _NARROWEST_PLACE:
        return click.style(clipped(f"{told} in {place}{at}", wide), bold=True)
    line = f"{told} in {clipped(place[::-1], room)[::-1]}{at}"
    return click.style(line, bold=True) + click.style(leave.rjust(wide - width(line)), dim=True)


def _progress(counts: Mapping[str, int], wide: int) -> str:
    """A bar of all runs that were begun by state, and their numbers; how many are to come the store does not know."""
    total = sum(counts.values())
    if not total:
        return "no runs yet"
    head, rest = f"{counts.get('done', 0)} of {counted(total, 'run')} begun are done", dict(counts)
    rest.pop("done", None)
    told = "".join(f", {states.coloured(f'{rest[state]} {plain(state)}', state)}" for state in states.in_order(rest))
    room = wide - width(click.unstyle(head + told)) - len(GAP)
    if room < _NARROWEST_BAR:
        return f"{head}{told}" if room >= -len(GAP) else clipped(click.unstyle(head + told), wide)
    return f"{_bar(counts, min(room, _WIDEST_BAR))}{GAP}{head}{told}"


def _bar(counts: Mapping[str, int], wide: int) -> str:
    """``wide`` cells, shared out by numbers; none of a state that exists is too few to see."""
    looks = _FULL if states.can_show("".join(_FULL.values())) else _ASCII
    total, order = sum(counts.values()), states.in_order(counts)
    cells = {state: max(1, round(counts[state] * wide / total)) for state in order if counts[state]}
    while (over := sum(cells.values()) - wide) and cells:
        largest = max(cells, key=lambda state: cells[state])
        cells[largest] -= 1 if over > 0 else -1
    return "".join(states.coloured(looks.get(state, "?") * number, state) for state, number in cells.items())


def _best(overview: Overview, wide: int) -> str:
    best = overview.best
    if best is None:
        return ""
    short = plain(overview.names.short(best.metric))
    head = f"best {short} {best.value:.4g}: run {best.row['key']} after epoch {best.row.get('epoch')}"
    return clipped(f"{head}{GAP}{_configuration(overview, best.row)}".rstrip(), wide)


def _configuration(overview: Overview, row: Mapping[str, Any]) -> str:
    """What tells a run from the others."""
    fields = (name for name in overview.varying if name in row)
    return " ".join(f"{plain(overview.names.short(name))}={shown(row[name])}" for name in fields)


def _more(overview: Overview, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the overview adds to the row of a worker: the metric and the configuration of its run."""
    known = overview.row(row["key"])
    metric = {plain(overview.names.short(overview.metric)): known.get(overview.metric)} if overview.metric else {}
    return {**metric, "configuration": _configuration(overview, known)}


def _errors(overview: Overview, wide: int, most: int) -> list[str]:
    failures, count = overview.failures, overview.counts.get("failed", 0)
    if not failures or most < 2:
        return []
    lines, or_more = [], "+" if sum(len(each.keys) for each in failures) < count else ""
    for each in failures[: most - 1]:
        others = f" and {len(each.keys) - 1}{or_more} more" if len(each.keys) > 1 else ""
        lines.append(clipped(f"{each.keys[0]}{others}{GAP}{plain(each.text)}", wide))
    head = f"{counted(count, 'run')} failed{', the newest' if len(failures) > len(lines) else ''}:"
    return ["", click.style(clipped(head, wide), bold=True, fg="red"), *lines]
