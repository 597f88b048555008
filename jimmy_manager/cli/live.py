"""The whole terminal for a while, drawn without flicker, and given back as it was however that ends.

::

    shell's screen ── enter ──► other screen, no cursor, keys unechoed ── q, Ctrl-C, SIGTERM, SIGHUP, error ──► shell's
                                     │   ▲
                              Ctrl-Z ▼   │ fg                     another size (SIGWINCH): drawn again at once
                                shell's screen
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

import click

from jimmy_manager.cli.columns import width

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
# Terminals that know it show all between the two at once; others pass it over.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Live:
    """A context in which the terminal of standard output is drawn on."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._settings: list[Any] | None = None

    def __enter__(self) -> Live:
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._wake_before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number, handler in ((signal.SIGWINCH, _pass), (signal.SIGTSTP, self._suspend)):
            self._handlers[number] = signal.signal(number, handler)
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, _leave)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wake_before)
        os.close(self._wake)
        os.close(self._woken)
        self._give_back()

    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now; ``$COLUMNS`` is how they were when the shell started this."""
        try:
            wide, high = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return 80, 24
        return wide or 80, high or 24  # a terminal that was told no size says 0

    def draw(self, lines: Sequence[str]) -> None:
        """Show ``lines``, none of them wider than the terminal and no more than it has."""
        wide, _ = self.size()
        # Erasing the rest of a line that is full would erase its last letter.
        shown = [click.unstyle(line) if os.environ.get("NO_COLOR") else line for line in lines]
        drawn = [line + (_REST_OF_LINE if width(click.unstyle(line)) < wide else "") for line in shown]
        _write(_BEGIN + _HOME + "\n".join(drawn) + _REST_OF_SCREEN + _END)

    def wait(self, seconds: float) -> str:
        """Wait for a key, which is returned, or another size; empty for that, and where the time is over."""
        listened = [self._woken] if self._settings is None else [self._woken, sys.stdin.fileno()]
        ready, _, _ = select.select(listened, [], [], max(0.0, seconds))
        if self._woken in ready:
            os.read(self._woken, 1024)
        if self._settings is not None and sys.stdin.fileno() in ready:
            keys = os.read(sys.stdin.fileno(), 1024)
            if not keys:  # the terminal has gone
                raise SystemExit(128 + signal.SIGHUP)
            return keys.decode("utf-8", "replace")
        return ""

    def _take(self) -> None:
        if sys.stdin.isatty():
            self._settings = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        _write(_ENTER)

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # there may be no terminal any more to give back
            _write(_LEAVE)
            if self._settings is not None:
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._settings)

    def _suspend(self, _: int, __: FrameType | None) -> None:
        self._give_back()
        signal.raise_signal(signal.SIGSTOP)
        self._take()


def _pass(_: int, __: FrameType | None) -> None:
    """A signal that only wakes who waits."""


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
