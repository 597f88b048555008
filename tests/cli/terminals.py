"""Terminals for tests: a bare one whose bytes can be looked at, and tmux, which shows what a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JIMMY = (sys.executable, "-P", "-m", "jimmy_manager.cli")
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: no screen to look at")
needs_less = pytest.mark.skipif(shutil.which("less") is None, reason="less is not installed")


class Terminal:
    """The command line on a terminal of some size, and what it writes there."""

    def __init__(self, columns: int, lines: int, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        surroundings = {name: value for name, value in os.environ.items() if name not in ("PAGER", "LESS", "NO_COLOR")}
        # The shell, as the leader of a session of its own, gets the terminal that it opens for its controlling one.
        command = ["/bin/sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(theirs), *JIMMY, *arguments]
        self.process = subprocess.Popen(
            command, start_new_session=True,
            env=surroundings | {"PYTHONPATH": str(ROOT), "TERM": "xterm", **(env or {})},
        )  # fmt: skip
        self._theirs = theirs  # kept open, so that the settings of the terminal can be read at the end
        self.text = ""

    def read_until(self, condition: Callable[[str], object], seconds: float = 120.0) -> str:
        """All text so far, as soon as it meets ``condition``."""
        deadline = time.monotonic() + seconds
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            self._read(0.1)
        return self.text

    def press(self, keys: str) -> None:
        """Type ``keys``."""
        os.write(self._own, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the size, as a person does who pulls at the window; the kernel sends SIGWINCH."""
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def end(self, pressing: str = "") -> int:
        """The exit code, once the process has ended; ``settings`` are then those it has left behind.

        ``pressing`` is typed once a second until then, as a program may drop what is typed while it draws.
        """
        deadline, due = time.monotonic() + 60, time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            if pressing and time.monotonic() >= due:
                self.press(pressing)
                due += 1.0
            self._read(0.1)
        while self._read(0.2):
            pass
        self.settings = termios.tcgetattr(self._theirs)
        os.close(self._theirs)
        os.close(self._own)
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._own], [], [], seconds)[0]:
            return False
        self.text += os.read(self._own, 1 << 16).decode("utf-8", "replace")
        return True


def visible(text: str) -> list[str]:
    """Lines without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", text).replace("\r", "").splitlines()


class Tmux:
    """A command in a window of tmux: ``screen`` is what a person sees."""

    def __init__(self, columns: int, lines: int, directory: Path, *arguments: str) -> None:
        # A short path: that of a socket has at most 107 bytes.
        self._socket = f"jimmy-{os.getpid()}-{time.monotonic_ns()}"
        environment = {name: value for name, value in os.environ.items() if name not in ("PAGER", "LESS", "TMUX")}
        environment |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PS1": "$ "}
        command = f"{shlex.join((*JIMMY, *arguments))}; echo code $?; read line"
        self._environment, self._directory = environment, directory
        self("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "/bin/sh", "-c", command)

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words], env=self._environment, cwd=self._directory, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def screen(self) -> list[str]:
        """The lines that are seen now."""
        return self("capture-pane", "-p").splitlines()

    def screen_when(self, condition: Callable[[str], object], seconds: float = 60.0) -> list[str]:
        """The screen as soon as it meets ``condition``."""
        deadline = time.monotonic() + seconds
        while not condition("\n".join(lines := self.screen())):
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.1)
        return lines

    def press(self, *keys: str) -> None:
        """Press keys, by their names in tmux."""
        self("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size."""
        self("resize-window", "-x", str(columns), "-y", str(lines))

    def close(self) -> None:
        """End what still runs there."""
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True, check=False)
