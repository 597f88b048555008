"""Whether what comes next still fits before this worker has to be gone: plain arithmetic on what it has measured.

What was never measured counts as nothing, so that work begins rather than not; each estimate is raised by a quarter,
as file systems and neighbours vary. Only a monotonic clock is read, so that a clock that is set changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jimmy_manager.manager.schedule import blended, is_due

_CAUTION = 1.25
_MARGIN_OF_LIMIT, _LONGEST_MARGIN_S = 0.05, 10.0
_FEW_STEPS = 5


class Deadline:
    """The end of a worker's time, ``left_s`` from now; by default it never comes.

    A twentieth of the time, at most ten seconds, is kept for ending claims and processes, and for a requeue.
    """

    def __init__(self, monotonic: Callable[[], float], left_s: float = math.inf) -> None:
        self._monotonic = monotonic
        self.whole_s = left_s - min(_MARGIN_OF_LIMIT * left_s, _LONGEST_MARGIN_S)
        """Seconds that there were for work when this began."""
        self.moment = monotonic() + self.whole_s
        """When work has to be over."""

    @property
    def left_s(self) -> float:
        """Seconds that are left for work, below 0 where it is over."""
        return self.moment - self._monotonic()


class Pace:
    """Seconds that the parts of a run take: ``setup``, ``train`` (an epoch), ``step``, ``evaluate`` and ``save``.

    Until a run has been measured, those of the run before stand in for it.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seconds: dict[str, float] = {}
        self._borrowed: set[str] = set()

    def of_next(self, **known: float) -> Pace:
        """The pace of the run after this one, of which earlier attempts tell these parts; 0 where they tell nothing."""
        told = {part: seconds for part, seconds in known.items() if seconds > 0}
        pace = Pace(self._monotonic)
        pace._borrowed = self._seconds.keys() - told.keys()
        pace._seconds = self._seconds | told
        return pace

    @property
    def is_own(self) -> bool:
        """Whether the seconds of an epoch are those of this very run."""
        return "train" in self._seconds and "train" not in self._borrowed

    def note(self, part: str, seconds: float) -> None:
        """A part of the run took so long: longer times count at once, shorter ones little by little."""
        before = 0.0 if part in self._borrowed else self._seconds.get(part, 0.0)
        self._borrowed.discard(part)
        self._seconds[part] = max(seconds, blended(before, seconds))

    @contextmanager
    def measured(self, part: str) -> Iterator[None]:
        """Note how long the block took, where it came to its end."""
        started = self._monotonic()
        yield
        self.note(part, self._monotonic() - started)

    def of(self, part: str) -> float:
        """What to reckon with for a part; 0 where nothing is known."""
        return _CAUTION * self._seconds.get(part, 0.0)

    def to_leave_s(self, *, pauses: bool, evaluates: bool) -> float:
        """From the moment at which a training is asked to stop until it is saved.

        One that ``pauses`` ends its step first; where it ``evaluates`` after this epoch, that may have just ended.
        """
        return self.of("save") + (self.of("evaluate") if evaluates else 0.0) + (2 * self.of("step") if pauses else 0.0)

    def to_advance_s(self, *, pauses: bool, evaluates: bool) -> float:
        """From one saved state to the next: an epoch, or a few steps where a run ``pauses`` between them."""
        step = self.of("step")
        work = min(_FEW_STEPS * step, self.of("train")) if pauses and step else self.of("train")
        return work + self.to_leave_s(pauses=pauses, evaluates=evaluates)

    def to_claim_s(self, epoch: int | None, total: int, *, eval_interval: int, pauses: bool, settle_s: float) -> float:
        """From the claim until a first state is saved, which comes no sooner than after ``settle_s``.

        ``epoch`` is where the run stands; None where it begins, and is evaluated and saved before its first epoch.
        """
        begin = self.of("setup") + (self.of("evaluate") + self.of("save") if epoch is None else 0.0)
        if (epoch or 0) >= total:
            advance = self.of("save")
        else:
            advance = self.to_advance_s(pauses=pauses, evaluates=is_due((epoch or 0) + 1, eval_interval, total))
        return max(begin + advance, settle_s + self.of("save"))
