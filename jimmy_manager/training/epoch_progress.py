"""How far training is, as numbers: one ``EpochProgress`` an epoch, and a ``Standing`` of all that is shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(slots=True)
class EpochProgress:
    """One epoch: steps are counted from 0, ``step`` is the last that is done, and ``first`` the first done here.

    Times are seconds of training, without pauses; ``began`` and ``seen`` are moments, of which only differences count.
    """

    epoch: int
    items: int
    first: int
    began: float
    step: int = -1
    seen: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """The part of this epoch that is done, from 0 to 1; an epoch without steps is done."""
        return part(self.step + 1, self.items)

    @property
    def elapsed(self) -> float:
        """Seconds of training that went into the steps done here."""
        return max(0.0, self.seen - self.began)

    @property
    def remain(self) -> float | None:
        """Seconds to the end of this epoch at its pace so far; None while it has none."""
        return left(self.elapsed, self.step + 1 - self.first, self.items - self.step - 1)


class Standing(NamedTuple):
    """What a display shows: the recent epochs, the newest last, then the sum of all."""

    rows: Sequence[EpochProgress]
    epochs: int
    fraction: float
    elapsed: float
    remain: float | None
    note: str = ""


def part(done: int, total: int) -> float:
    """``done / total`` within 0 and 1; nothing to do is done.

    >>> part(1, 4), part(9, 4), part(0, 0)
    (0.25, 1.0, 1.0)
    """
    return min(1.0, max(0.0, done / total)) if total > 0 else 1.0


def left(elapsed: float, done: int, ahead: int) -> float | None:
    """Seconds that ``ahead`` steps take at the pace of the ``done`` ones; None while no step tells the pace.

    >>> left(10.0, 5, 3), left(10.0, 0, 3), left(0.0, 5, -1)
    (6.0, None, 0.0)
    """
    return elapsed / done * max(0, ahead) if done > 0 else None


def duration(seconds: float | None) -> str:
    """Seconds as people say them, at most 8 characters up to a hundred days; nothing for None.

    >>> [duration(s) for s in (0, 3.14159, 59.96, 75, 7300, 200_000, None)]
    ['0.0 s', '3.1 s', '1:00', '1:15', '2:01:40', '2 d 7 h', '']
    """
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(fraction: float) -> str:
    """A fraction as whole per cents, rounded down, so that 100 % means done.

    >>> percent(0.29), percent(0.999), percent(1.0)
    ('29 %', '99 %', '100 %')
    """
    # 0.29 * 100 is 28.999999999999996.
    return f"{int(fraction * 100 + 1e-9)} %"
