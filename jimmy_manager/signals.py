"""Signals that ask a worker to stop: they only set a flag, which is looked at where saving is safe.

Saving inside a handler hangs or corrupts: it may interrupt a save that is under way. A second SIGINT interrupts
at once, for people who are at the keyboard and mean it. A moment may be set, too, at which the flag rises by itself.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jimmy_manager.errors import ConfigError

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
TIME_LIMIT = "time limit"
"""The reason of a flag that rose by itself."""


def stop_signals(names: Iterable[str | int]) -> tuple[signal.Signals, ...]:
    """The signals of these names, with or without ``SIG``; ``ConfigError`` for what cannot be caught.

    >>> stop_signals(['TERM', 'sigusr2', 2])
    (<Signals.SIGTERM: 15>, <Signals.SIGUSR2: 12>, <Signals.SIGINT: 2>)
    """
    return tuple(dict.fromkeys(map(_stop_signal, names)))


def _stop_signal(name: str | int) -> signal.Signals:
    given = f"SIG{name.strip().upper().removeprefix('SIG')}" if isinstance(name, str) else name
    found = next((each for each in signal.Signals if given in (each.name, each.value)), None)
    if found is None or found in (signal.SIGKILL, signal.SIGSTOP):
        advice = "cannot be caught" if found else "is no signal"
        raise ConfigError(f"{name!r} {advice}; stop signals are e.g. {', '.join(each.name for each in STOPPING)}")
    return found


class StopFlag:
    """Remembers why a stop was asked for first: a signal's name, `TIME_LIMIT`, what `set` was given; empty until then.

    ``signals`` are those that it catches; ``monotonic`` tells when the moment of `end_at` has come.
    """

    def __init__(
        self, signals: Iterable[signal.Signals] = STOPPING, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.reason = ""
        self.signals = tuple(signals)
        self._monotonic = monotonic
        self._ends_at = math.inf
        self.caught: set[str] = set()
        """The names of all signals that came since the block began, also of those after the first."""
        self._depth = 0
        self._pid = 0
        self._interrupts = 0
        self._before: dict[int, Any] = {}
        self._on_child: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # What was caught, and the clock of the moment to end at, are this process's own.
        unset = StopFlag(self.signals, monotonic=self._monotonic)
        return unset.__dict__

    def __bool__(self) -> bool:
        if not self.reason and self._monotonic() >= self._ends_at:
            self.set(TIME_LIMIT)
        return bool(self.reason)

    def end_at(self, moment: float) -> None:
        """Rise at this moment of the monotonic clock, however late that is looked at; infinity for never."""
        self._ends_at = moment

    @property
    def was_signalled(self) -> bool:
        """Whether a signal came, which other processes of the job may have got as well and died of."""
        return bool(self.caught) or self.reason in signal.Signals.__members__

    def set(self, reason: str) -> None:
        """Ask for a stop, as a signal does."""
        self.reason = self.reason or reason

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch the signals inside the block, and restore what was there before.

        Does nothing outside the main thread, where Python delivers no signals, and inside another such block.
        A Manager that is used in a hook of another one hands the signals on to it, and begins with those it has got.
        """
        self._depth += 1
        try:
            if self._depth > 1 or threading.current_thread() is not threading.main_thread():
                yield
                return
            self.reason, self.caught, self._interrupts, self._pid = "", set(), 0, os.getpid()
            self._before = {number: signal.signal(number, self._catch) for number in self.signals}
            for each in self.signals:
                if (outer := self._outer(each)) is not None:
                    self.set(outer.reason)
                    self.caught |= outer.caught
            try:
                yield
            finally:
                for number, handler in self._before.items():
                    # None: set from outside Python, which signal.signal cannot put back.
                    signal.signal(number, handler if handler is not None else signal.SIG_DFL)
                self._mind_children()
        finally:
            self._depth -= 1

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._catch_in_child(number)
            return
        if (outer := self._outer(number)) is not None:
            outer._catch(number, frame)
        self._leave_children()
        self.caught.add(signal.Signals(number).name)
        self._interrupts += number == signal.SIGINT
        self.set(signal.Signals(number).name)
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _outer(self, number: int) -> StopFlag | None:
        """The flag that caught this signal before the block, and will again after it."""
        outer = getattr(self._before.get(number), "__self__", None)
        return outer if isinstance(outer, StopFlag) else None

    def _leave_children(self) -> None:
        """Let the death of children pass from now on: what stops a job is often sent to each of its processes.

        PyTorch raises an error for a data loader's worker that dies, wherever this process stands, also within a step;
        so the state could not be saved.
        """
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and handler is not _pass_over:
            self._on_child = handler
            signal.signal(signal.SIGCHLD, _pass_over)

    def _mind_children(self) -> None:
        if self._on_child is not None and signal.getsignal(signal.SIGCHLD) is _pass_over:
            signal.signal(signal.SIGCHLD, self._on_child)
        self._on_child = None

    def _catch_in_child(self, number: int) -> None:
        """A process that a hook has forked is not the worker: it can be terminated.

        The other signals go to a whole job at once; a data loader that died of them would fail its run.
        """
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Do nothing; not SIG_DFL, of which Python complains where the signal has come already."""
