"""What a notebook shows of a Store or a Manager: how many runs are in which state, the newest, and what is damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from jimmy_manager import html
from jimmy_manager.archives.columns import Indexed
from jimmy_manager.archives.index import read_rows
from jimmy_manager.config import Config
from jimmy_manager.results.table import Table, table_of

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

NEWEST = 5
MOST_DAMAGE = 20
_FIELDS, _METRICS = 4, 3
_COLORS = {
    "done": "#3a9d5d", "running": "#2f8fd0", "paused": "#8b7fd6", "failed": "#d9534f", "unreadable": "#d9534f",
    "lost": "#d39e2c", "retry": "#d39e2c",
}


def summary(store: Store, title: str = "Store", defaults: Mapping[str, Any] | None = None) -> str:
    """HTML that introduces a store; ``title`` is whose it is, and a Manager's ``defaults`` are folded away below."""
    parts: list[object] = [_heading(store, title)]
    if store.exists:
        runs = read_rows(store)
        found = table_of(runs)
        parts += [_counts(found), _newest(found, runs), *_damage(found.damage)]
    else:
        parts.append(html.element("div", "nothing was trained yet", class_="dim"))
    if defaults:
        parts.append(html.fold("defaults", html.fields(Config(defaults).asdict())))
    return html.page(*parts)


def marked(state: str, text: str = "") -> html.Markup:
    """``text``, by default the name of ``state``, after a dot in its colour: the colour alone says nothing."""
    dot = html.element("span", class_="dot", style=f"background:{_COLORS.get(state, '#888')}")
    return html.joined([dot, text or state])


def _heading(store: Store, title: str) -> html.Markup:
    place = html.element("code", html.clipped(str(store))) if store.directory else "in memory"
    mode = " (read-only)" if store.read_only else ""
    return html.element("div", html.element("b", title), " ", place, html.element("span", mode, class_="dim"))


def _counts(found: Table) -> html.Markup:
    counts = Counter(row["state"] for row in found.rows).most_common()
    total = "1 run" if len(found.rows) == 1 else f"{len(found.rows)} runs"
    marks = (html.element("span", marked(state, f"{count} {state}"), class_="mark") for state, count in counts)
    return html.element("div", html.element("span", total, class_="mark"), *marks)


def _newest(found: Table, runs: Sequence[Indexed]) -> html.Markup:
    """The runs that were saved last, with the first few of what tells them apart and of what came out."""
    saved = {run.key: run.at for run in runs if run.at is not None}
    keys = nlargest(NEWEST, saved, key=saved.__getitem__)
    if not keys:
        return html.Markup("")
    by_key = {row["key"]: row for row in found.rows}
    names = ["epoch", *found.varying()[:_FIELDS], *found.numeric()[:_METRICS]]
    lines = [
        [html.element("code", key), marked(by_key[key]["state"]),
         *(by_key[key].get(name) for name in names), f"{datetime.fromtimestamp(saved[key], UTC):%Y-%m-%d %H:%M}"]
        for key in keys
    ]  # fmt: skip
    return html.table(["newest", "state", *names, "saved (UTC)"], lines)


def _damage(damage: Sequence[str]) -> Iterator[html.Markup]:
    if damage:
        told = [html.element("div", html.clipped(message)) for message in damage[:MOST_DAMAGE]]
        if (more := len(damage) - MOST_DAMAGE) > 0:
            told.append(html.element("div", f"and {more} more; 'jimmy check' names all of them", class_="dim"))
        what = "1 record is damaged" if len(damage) == 1 else f"{len(damage)} records are damaged"
        yield html.fold(marked("unreadable", what), *told)
