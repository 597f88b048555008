"""Texts of unknown origin made fit for a figure: short, on one line, never mathematics, and how wide they are."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font

from jimmy_manager.plain_text import plain

LONGEST = 32
SIZE, SMALL = 10, 8.5
"""Of titles and names, and of everything else, in points."""


def label(value: object, most: int = LONGEST, head: float = 0.5) -> str:
    r"""A value or a name as figures show it: one line of ``most`` characters, never mathematics or a box for a glyph.

    Of what is too long the share ``head`` of these characters comes from its beginning, the others from its end.

    >>> label(0.0001234567), label('loss$_a$'), label('encoder.blocks.0.attention.heads', 20)
    ('0.0001235', 'loss\\$_a\\$', 'encoder.bl…ion.heads')
    """
    font = _font()
    text = "".join(
        char if _has_glyph(char, font) else char.encode("unicode_escape").decode() for char in plain(shown(value))
    )
    if len(text) > most:
        first = int(most * head)
        text = f"{text[:first]}…{text[len(text) - most + first + 1 :]}"
    return text.replace("$", r"\$")


def labels(values: Sequence[object], most: int = LONGEST) -> list[str]:
    """``label`` of each, shortened where that leaves most of them distinct; those that become alike are numbered."""
    shortened = ([label(value, most, head) for value in values] for head in (0.5, 0.85, 0.15))
    return numbered(max(shortened, key=lambda texts: len(set(texts))))


def numbered(texts: Sequence[str]) -> list[str]:
    """The texts, the second and third of its kind marked.

    >>> numbered(['a', 'b', 'a'])
    ['a', 'b', 'a (2)']
    """
    seen: dict[str, int] = {}
    found = []
    for text in texts:
        seen[text] = seen.get(text, 0) + 1
        found.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return found


def shown(value: object) -> str:
    """A value in words; four digits of a float.

    >>> shown(1e-05), shown(True), shown(None), shown([1, 2])
    ('1e-5', 'true', 'none', '[1, 2]')
    """
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value, default=str).replace("null", "none")


def number(value: float, digits: int = 4) -> str:
    """A number of at most so many digits.

    >>> number(0.123456), number(1e-05), number(1200000.0), number(-0.0), number(2048.0)
    ('0.1235', '1e-5', '1.2e6', '0', '2048')
    """
    text = f"{value + 0.0:.{digits}g}"
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if exponent else mantissa


def wrapped(text: str, width: float) -> str:
    """``text`` in lines that fit ``width`` inches at the small size."""
    return "\n".join(textwrap.wrap(text, max(20, int(width * 14.5)), break_on_hyphens=False))


def counted(count: int, noun: str = "run") -> str:
    """A number of things.

    >>> counted(1), counted(2)
    ('1 run', '2 runs')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def wide(text: str, size: float = SMALL) -> float:
    """How many points ``text`` takes on a line, at most: rounded to pixels it may be some per cent less."""
    return 1.06 * _wide(text, size, _font())


def fitted(values: Sequence[object], points: float, size: float = SMALL) -> list[str]:
    """``labels`` of as many characters as fit into so many points."""
    most = 28
    while most > 4 and max(wide(text, size) for text in labels(values, most)) > points:
        most -= 1
    return labels(values, most)


def _font() -> str:
    """The font in use, which a user may change at any time."""
    return findfont(FontProperties())


@lru_cache(maxsize=4096)
def _has_glyph(char: str, font: str) -> bool:
    """Whether ``font`` draws ``char``; spelled out it stays legible, and tells one name from the next."""
    return char.isascii() or get_font(font).get_char_index(ord(char)) != 0


@lru_cache(maxsize=4096)
def _wide(text: str, size: float, font: str) -> float:
    face = get_font(font)
    face.set_size(size, 720)  # large, so that no rounding to pixels counts
    face.set_text(text.replace(r"\$", "$"), 0.0)
    return float(face.get_width_height()[0] / 640)
