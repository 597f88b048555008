"""Telling whoever looks at runs what of them could not be read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from jimmy_manager.plain_text import plain

_MOST_NAMED = 20


def warn_of(damage: Sequence[str]) -> None:
    """Warn the caller of a method of ``Looking``, three calls above, of what is shown in part, by name."""
    if damage:
        more = [f"and {len(damage) - _MOST_NAMED} more; see 'jimmy check'"] if len(damage) > _MOST_NAMED else []
        told = "".join(f"\n  {plain(text)}" for text in (*damage[:_MOST_NAMED], *more))
        warnings.warn(f"some runs are shown in part:{told}", stacklevel=4)
