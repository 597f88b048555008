"""Long tables go through a pager, ``$PAGER`` or ``less``, on a terminal alone; its absence or its end is no error."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

import click

from jimmy_manager.cli.columns import width

_NO_SUCH_PROGRAM = (126, 127)
_SHOWS_COLOURS = ("less", "more", "most", "bat")
_SPECIAL = "\\?:.%"
"""What means something in a prompt of less."""


def show(head: str, body: Sequence[str], foot: Sequence[str], *, summary: str, may_page: bool = True) -> None:
    """Print a table, through a pager where it has more lines than the terminal; ``summary`` is for the pager's prompt.

    In a pager the heading, where there is one, comes again with each screenful, so that one is always in sight, and no
    line is folded; ``foot`` is printed after it, so that whoever leaves early sees it as well.
    """
    heads = [head] if head else []
    lines = [*heads, *body, *foot]
    pager = _pager() if may_page and sys.stdout.isatty() else []
    if pager and not _fits(lines):
        high = max(3, shutil.get_terminal_size().lines)
        step = high - 2
        paged = [line for start in range(0, len(body), step) for line in (*heads, *body[start : start + step])]
        if _through(pager, paged, summary, may_chop=bool(head)):
            lines = list(foot)
    click.echo("\n".join(_as_wished(lines)))


def _pager() -> list[str]:
    """The pager's command line; empty where there is none, or none is wanted (``PAGER=cat``)."""
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return []
    wanted = os.environ.get("PAGER")
    if wanted is None:
        wanted = next((name for name in ("less", "more") if shutil.which(name)), "")
    if set(wanted) & set("|&;<>()$`*"):
        return ["/bin/sh", "-c", wanted]
    try:
        words = shlex.split(wanted)
    except ValueError:
        return []
    return words if words and words != ["cat"] else []


def _fits(lines: Sequence[str]) -> bool:
    """Whether all lines, folded at the edge, and the shell's prompt below them are seen at once."""
    wide, high = shutil.get_terminal_size()
    if len(lines) >= high:
        return False
    return sum(max(1, -(-width(click.unstyle(line)) // max(1, wide))) for line in lines) < high


def _through(pager: list[str], lines: Sequence[str], summary: str, *, may_chop: bool) -> bool:
    """Whether ``pager`` has shown the lines."""
    name = os.path.basename(pager[0])
    if name == "less":
        wide = shutil.get_terminal_size().columns
        is_wider = may_chop and any(width(click.unstyle(line)) > wide for line in lines)
        pager = [*pager, "-R", *(["-S"] if is_wider else []), f"-Ps{_prompt(summary, len(lines), wide, is_wider)}"]
    shown = _as_wished(lines) if name in _SHOWS_COLOURS else [click.unstyle(line) for line in lines]
    text = "\n".join(shown) + "\n"
    environment = {"LESS": "FRX", "LV": "-c"} | os.environ
    try:
        process = subprocess.Popen(pager, stdin=subprocess.PIPE, env=environment)
    except OSError:
        return False  # it is not there, or cannot be started
    # Ctrl-C is for the pager: less stops a search by it, and would be left behind on the terminal.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.communicate(text.encode(sys.stdout.encoding or "utf-8", "replace"))  # no error where it has ended
    finally:
        signal.signal(signal.SIGINT, before)
    return process.returncode not in _NO_SUCH_PROGRAM


def _prompt(summary: str, count: int, wide: int, is_wider: bool) -> str:
    """What less shows in its last line: as much of it as there is room for."""
    place = f"line {count} of {count}, {'arrows go sideways, ' if is_wider else ''}q leaves"
    tries = (f"{summary} ({place})", f"{summary.partition(':')[0]} ({place})", "q leaves")
    chosen = next((each for each in tries if width(each) < wide), tries[-1])
    told = "".join(f"\\{char}" if char in _SPECIAL else char for char in chosen)
    return told.replace(f"line {count}", "line %lb")


def _as_wished(lines: Sequence[str]) -> list[str]:
    return [click.unstyle(line) for line in lines] if os.environ.get("NO_COLOR") else list(lines)
