"""What has become of all runs of a store, for a screen that is looked at all day: the index is asked, and seldom.

``Holders`` tells every few seconds, for little, who holds what. Only what it sees to have moved is a reason to ask the
index, which reads what has changed; and so rarely that this takes no more than a twentieth of the time.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives.holders import Holder
from jimmy_manager.better import is_more_better
from jimmy_manager.errors import JimmyError, UnknownField
from jimmy_manager.results.names import Names
from jimmy_manager.results.table import STATES, Table, read_table

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

_METRICS = ("loss", "acc")
_SHARE = 20.0
_COMMITS_S, _AT_LEAST_S = 15.0, 60.0
_MOST_READ = 200
"""How many claims of failed runs are read at most at a time, in a store that has thousands of them."""


class Best(NamedTuple):
    """The run that has the best value of a metric so far."""

    metric: str
    value: float
    row: Mapping[str, Any]


class Failure(NamedTuple):
    """What was said by runs that failed, the newest of them first."""

    keys: list[str]
    text: str


class Overview:
    """Counts, best run and failures of a store; ``update`` brings them up to date."""

    def __init__(self, store: Store, metric: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._wanted = metric
        self._clock = clock
        self._asked = self._cost = -math.inf
        self._seen: tuple[set[str], set[Any]] = (set(), set())
        self._failures: dict[str, tuple[int, float, str]] = {}
        self._held: Mapping[str, str] = {}
        self._rows: dict[str, Mapping[str, Any]] = {}
        self.varying: tuple[str, ...] = ()
        self.metric = ""
        self.names = Names(())
        self.best: Best | None = None

    def update(self, held: Sequence[Holder]) -> None:
        """Take in who holds what, and ask the index where that has changed; UnknownField for an unknown metric."""
        self._held = {each.key: STATES.get(each.state, each.state) for each in held}
        seen = (set(self._held), {(each.key, each.commit.order) for each in held if each.commit})
        if not self._is_due(*seen):
            return
        for key in seen[0]:
            self._failures.pop(key, None)  # it may fail again, with another error
        began = self._clock()
        self._take(read_table(self._store))
        self._seen, self._asked = seen, self._clock()
        self._cost = self._asked - began

    @property
    def counts(self) -> Counter[str]:
        """How many runs there are of each state."""
        return Counter(self._held.get(key, row["state"]) for key, row in self._rows.items()) + Counter(
            state for key, state in self._held.items() if key not in self._rows
        )

    @property
    def failures(self) -> list[Failure]:
        """Those that are known, the newest first; what several said is there once."""
        found: dict[str, Failure] = {}
        for key, (_, _, text) in sorted(self._failures.items(), key=lambda item: item[1][:2], reverse=True):
            if key not in self._held:
                found.setdefault(text, Failure([], text)).keys.append(key)
        return list(found.values())

    def row(self, key: str) -> Mapping[str, Any]:
        """Configuration and results of a run; empty for one that the index has not met."""
        return self._rows.get(key, {})

    def _is_due(self, keys: set[str], commits: set[Any]) -> bool:
        past = self._clock() - self._asked
        if past < _SHARE * self._cost:
            return False
        return keys != self._seen[0] or past >= (_COMMITS_S if commits != self._seen[1] else _AT_LEAST_S)

    def _take(self, table: Table) -> None:
        self._rows = {row["key"]: row for row in table.rows}
        self.names = Names(table.names)
        self.varying = table.varying()
        self.metric, is_max = self._choose(table)
        self.best = _best(table.rows, self.metric, is_max=is_max) if self.metric else None
        self._read_failures(row["key"] for row in table.rows if row["state"] == "failed")

    def _choose(self, table: Table) -> tuple[str, bool]:
        """The metric, and whether more of it is better."""
        name = self._wanted.removeprefix("-")
        if name and table.metrics:
            full = self.names.full(name)
            if full not in table.metrics:
                raise UnknownField(f"{full!r} is no result of the runs; there are {', '.join(table.metrics[:8])}")
            return full, self._wanted.startswith("-") or bool(is_more_better(full))
        found = next((each for each in table.numeric() if _last(each).startswith(_METRICS)), "")
        return found, bool(is_more_better(found))

    def _read_failures(self, failed: Iterable[str]) -> None:
        keys = list(failed)
        self._failures = {key: self._failures[key] for key in keys if key in self._failures}
        turn = 1 + max((turn for turn, _, _ in self._failures.values()), default=0)
        for key in [key for key in keys if key not in self._failures][:_MOST_READ]:
            try:
                record = self._store.standing(key).record
            except JimmyError as unread:
                self._failures[key] = (turn, 0.0, f"its claim cannot be read: {unread}")
                continue
            error = (record.error if record else None) or {}
            text = f"{error.get('type', 'unknown')}: {error.get('message', '')}"
            self._failures[key] = (turn, record.at if record else 0.0, text)


def _best(rows: Iterable[Mapping[str, Any]], metric: str, *, is_max: bool) -> Best | None:
    scored = [Best(metric, row[metric], row) for row in rows if _is_finite(row.get(metric))]
    return (max if is_max else min)(scored, key=lambda best: best.value, default=None)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
