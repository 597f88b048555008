"""One thing that the doctor has to say."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, PROBLEM = "ok", "note", "problem"


class Remark(NamedTuple):
    """A finding in words: ``level`` is ``ok``, ``note`` (it works, but know this) or ``problem``.

    ``remedy`` says what to do. ``forbids`` where claims cannot be safe, so that nobody may train.
    """

    level: str
    subject: str
    text: str
    remedy: str = ""
    forbids: bool = False
