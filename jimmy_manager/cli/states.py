"""How states look on a terminal: a word, a shape before it, and a colour that nobody needs to see."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import click

from jimmy_manager.plain_text import plain

_LOOKS: dict[str, tuple[str, str | None]] = {
    "done": ("✓", "green"), "running": ("▸", "cyan"), "stopping": ("▸", "yellow"), "paused": ("=", "blue"),
    "lost": ("?", "yellow"), "failed": ("✗", "red"), "retry": ("↻", "magenta"), "new": ("·", None),
    "unreadable": ("!", "red"),
}  # fmt: skip


def marked(state: object) -> str:
    """A state with its shape, where the terminal can show that."""
    mark = _LOOKS.get(str(state), (" ", None))[0]
    return f"{mark} {plain(state)}" if can_show(mark) else plain(state)


def coloured(text: str, state: str) -> str:
    """``text`` in the colour of ``state``."""
    color = _LOOKS.get(state, ("", None))[1]
    return click.style(text, fg=color) if color else text


def told(counts: Mapping[str, int]) -> str:
    """How many there are of each state, in one line."""
    return ", ".join(coloured(f"{counts[state]} {plain(state)}", state) for state in in_order(counts))


def in_order(states: Iterable[str]) -> list[str]:
    """States in the order in which people ask for them."""
    order = list(_LOOKS)
    return sorted(states, key=lambda state: (order.index(state) if state in order else len(order), state))


def can_show(text: str) -> bool:
    """Whether the encoding of the terminal has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
