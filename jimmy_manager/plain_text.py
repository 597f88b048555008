"""Text of unknown origin, made fit for a terminal or a log.

Names and values in a configuration, previews and tracebacks may hold escape sequences that move the cursor, set the
window's title or answer on the user's behalf. Nothing of them is dropped: what does not print is spelled out.
"""

from __future__ import annotations

import re

# C0 and C1 controls, DEL; marks that turn the reading direction around; line breaks that only some programs know;
# the byte order mark; and lone surrogates, which no encoding writes.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def plain(value: object) -> str:
    r"""``str(value)`` on one line, with every control character spelled out; never markup.

    >>> plain("loss\x1b[2J\n")
    'loss\\x1b[2J\\n'
    """
    return _UNSAFE.sub(_spelled, str(value))


def plain_lines(value: object) -> str:
    r"""``plain`` for text of several lines: line feeds stay, a tab becomes four blanks.

    >>> plain_lines("Traceback:\n\tx = '\x07'\r\n")
    "Traceback:\n    x = '\\x07'\n"
    """
    return _UNSAFE_IN_LINES.sub(_spelled, str(value).replace("\r\n", "\n").replace("\t", "    "))


def _spelled(match: re.Match[str]) -> str:
    # unicode_escape spells \n and \t as people know them, and a lone surrogate without complaint.
    return match[0].encode("unicode_escape").decode("ascii")
