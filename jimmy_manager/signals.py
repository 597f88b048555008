"""Signals that ask a worker to stop: they only set a flag, which is looked at where saving is safe.

Saving inside a handler hangs or corrupts: it may interrupt a save that is under way. A second SIGINT interrupts
at once, for people who are at the keyboard and mean it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class StopFlag:
    """Remembers the first signal that asked to stop; empty until then."""

    def __init__(self) -> None:
        self.reason = ""
        self._depth = 0
        self._pid = 0
        self._interrupts = 0
        self._before: dict[int, Any] = {}
        self._on_child: Any = None

    def __bool__(self) -> bool:
        return bool(self.reason)

    def set(self, reason: str) -> None:
        """Ask for a stop, as a signal does."""
        self.reason = self.reason or reason

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch the signals inside the block, and restore what was there before.

        Does nothing outside the main thread, where Python delivers no signals, and inside another such block.
        A Manager that is used in a hook of another one hands the signals on to it.
        """
        self._depth += 1
        try:
            if self._depth > 1 or threading.current_thread() is not threading.main_thread():
                yield
                return
            self.reason, self._interrupts, self._pid = "", 0, os.getpid()
            self._before = {number: signal.signal(number, self._catch) for number in STOPPING}
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
        outer = getattr(self._before.get(number), "__self__", None)
        if isinstance(outer, StopFlag):
            outer._catch(number, frame)
        self._leave_children()
        self._interrupts += number == signal.SIGINT
        self.set(signal.Signals(number).name)
        if self._interrupts > 1:
            raise KeyboardInterrupt

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
