"""What next, and when: pure decisions, without a store or a clock."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from jimmy_manager.config import Config
from jimmy_manager.keys import canonical

T = TypeVar("T")

_MOST_COMPARED = 100_000


def is_due(epoch: int, interval: int, last: int) -> bool:
    """Whether something done every ``interval`` epochs is due after ``epoch``; it always is after the ``last``.

    >>> [epoch for epoch in range(6) if is_due(epoch, 2, last=5)]
    [0, 2, 4, 5]
    """
    return epoch == last or epoch % interval == 0


class Shuffled(Generic[T]):
    """The items of ``items`` in random order, at a cost that grows with how many are taken.

    >>> sorted(Shuffled(range(5), random.Random(0)))
    [0, 1, 2, 3, 4]
    """

    def __init__(self, items: Sequence[T], rng: random.Random) -> None:
        self._items = items
        self._rng = rng

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        # Fisher and Yates's shuffle on a list that is never written down: only what was swapped is remembered.
        swapped: dict[int, int] = {}
        count = len(self._items)
        for left in range(count):
            chosen = self._rng.randrange(left, count)
            yield self._items[swapped.get(chosen, chosen)]
            swapped[chosen] = swapped.pop(left, left)


class Fixed(Sequence[Config]):
    """The configurations ``points`` with the fields ``fixed`` in each of them.

    Points that become one by this are one here, where there are few enough to compare them.

    >>> list(Fixed([Config(lr=0.1, seed=0), Config(lr=0.2, seed=0)], {'lr': 0.3}))
    [Config({'lr': 0.3, 'seed': 0})]
    """

    def __init__(self, points: Sequence[Config], fixed: Mapping[str, Any]) -> None:
        self._fixed = Config(fixed)
        self._points = points
        if len(points) <= _MOST_COMPARED:
            different: dict[bytes, Config] = {}
            for point in points:
                whole = point | self._fixed
                different.setdefault(canonical(whole), whole)
            self._points = list(different.values())

    def __len__(self) -> int:
        return len(self._points)

    @overload
    def __getitem__(self, index: int) -> Config: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Config]: ...
    def __getitem__(self, index: int | slice) -> Config | Sequence[Config]:
        if isinstance(index, slice):
            return Fixed(self._points[index], self._fixed)
        return self._points[index] | self._fixed


def blended(average: float, newest: float) -> float:
    """The running average of seconds per epoch: four parts of the past to one of the newest."""
    return 0.8 * average + 0.2 * newest if average else newest


@dataclass
class BatchReport:
    """What one call of ``batch`` or ``sweep`` did; each list holds keys.

    ``done`` were trained here to their last epoch, ``skipped`` were complete before, ``busy`` are held by
    other workers, ``failed`` raised here or were marked failed before; the latter, which were not tried, stand
    in ``failed_before`` as well; ``postponed`` were left alone as they could not have been advanced in the time that
    was left. ``stopped`` tells why the batch ended early (a signal's name, ``time limit``), empty where it did not.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: str = ""
    failed_before: list[str] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)

    def has_dealt_with(self, configs: Iterable[object]) -> bool:
        """Whether nothing of ``configs`` is left to anybody, where that is known; several may be one run."""
        return isinstance(configs, Sized) and len(self.done) + len(self.skipped) + len(self.failed) >= len(configs)

    def __str__(self) -> str:
        parts = [f"{len(self.done)} done", f"{len(self.skipped)} complete before"]
        now = [key for key in self.failed if key not in set(self.failed_before)]
        rest = (
            ("busy", self.busy), ("failed", now), ("failed before and left alone", self.failed_before),
            ("postponed for lack of time", self.postponed),
        )  # fmt: skip
        parts += [f"{len(keys)} {name}" for name, keys in rest if keys]
        return ", ".join(parts) + (f"; stopped by {self.stopped}" if self.stopped else "")
