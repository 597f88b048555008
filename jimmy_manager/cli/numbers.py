"""Numbers of one column: as many digits as the column needs, with the decimal points below each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SIGNIFICANT = 4
_MOST_DECIMALS = 6
_MOST_DIGITS = 9
_SMALL, _LARGE = -4, 7
"""Powers of ten between which a column is written without exponents."""


def aligned(values: Sequence[float | None]) -> list[str]:
    """A cell for each value, as wide as all others; an empty one for None.

    Values that have few digits, as configurations do, are written with just these; measured ones get equal decimals.

    >>> aligned([0.1, 0.003, 3e-05, None])
    ['0.1  ', '0.003', '3e-05', '']
    >>> aligned([0.12345, 12.5, float('nan')])
    [' 0.1235', '12.5000', '    nan']
    """
    texts = _texts(values)
    points = [_point(text) for text in texts]
    before = max(points, default=0)
    after = max((len(text) - point for text, point in zip(texts, points, strict=True)), default=0)
    whole = before + after
    return [
        text and (f"{' ' * (before - point)}{text}".ljust(whole) if text[-1].isdigit() else text.rjust(whole))
        for text, point in zip(texts, points, strict=True)
    ]  # fmt: skip


def is_exact(values: Sequence[float | None]) -> bool:
    """Whether all of them have few digits, so that none is cut."""
    return all(value is None or _is_short(value) for value in values)


def _texts(values: Sequence[float | None]) -> list[str]:
    if is_exact(values):
        return ["" if value is None else _short(value) for value in values]
    sizes = sorted(abs(value) for value in values if value is not None and value and math.isfinite(value))
    low, middle, high = (_exponent(sizes[place]) for place in ((len(sizes) - 1) // 5, (len(sizes) - 1) // 2, -1))
    if not _SMALL <= middle < _LARGE:
        return ["" if value is None else f"{value:.{_SIGNIFICANT - 1}e}" if value else "0" for value in values]
    decimals = max(_SIGNIFICANT - 2 - low, _SIGNIFICANT - 1 - middle)
    decimals = max(0, min(decimals, _MOST_DECIMALS, _MOST_DIGITS - 1 - max(high, 0)))
    least, most = 10.0**-decimals, 10.0**_MOST_DIGITS
    return [
        "" if value is None else f"{value:.{decimals}f}" if not value or least <= abs(value) < most
        else f"{value:.1e}"
        for value in values
    ]  # fmt: skip


def _is_short(value: float) -> bool:
    if type(value) is int or not math.isfinite(value):
        return True
    # 0.1 * 3 is meant for 0.3.
    return abs(float(f"{value:.{_SIGNIFICANT}g}") - value) <= 1e-12 * abs(value)


def _short(value: float) -> str:
    if type(value) is int:
        return str(value)
    text = f"{value:.{_SIGNIFICANT}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 10.0**_LARGE else text


def _exponent(value: float) -> int:
    return math.floor(math.log10(value))


def _point(text: str) -> int:
    """Where the digits before the point end; 0 where there are no digits (``nan``)."""
    if not text or not text[-1].isdigit():
        return 0
    found = text.find(".")
    return found if found >= 0 else text.find("e") if "e" in text else len(text)
