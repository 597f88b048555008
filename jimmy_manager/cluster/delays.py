"""How long one node takes to see what another one did: the bound that ``stale_s`` has to be.

Both sides act and watch at the same time, each trial in a folder of its own that only the trial touches, because each
change of one's own lets a client look anew. Everything is looked at once before anything is done, so that caches are
full; later acts find those that have grown old, as NFS trusts longer what has not changed for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jimmy_manager.cluster.place import Place

KINDS = {
    "listed": "a new name in a listing",
    "replaced": "the content of a replaced file",
    "missed": "a file that was looked for too early",
    "touched": "a changed time stamp",
}
"""What is looked for; the first two are what claims and commits live by."""
COUNTED = ("listed", "replaced")

_PAUSE_S = 0.02
_SIGN_S = 1.0
_LONG_AGO = 1e9


class Trial(NamedTuple):
    """One change: what kind, how many seconds after everything was looked at, and whose."""

    kind: str
    after_s: float
    by: str

    @property
    def folder(self) -> str:
        return f"{self.kind}-{self.after_s:g}-{self.by}"


class Delay(NamedTuple):
    """How long a trial took to be seen, in seconds; None where it was not within ``wait_s``."""

    kind: str
    after_s: float
    by: str
    seen_s: float | None
    wait_s: float


class Watched(NamedTuple):
    """What one side did and saw: by folder, the times on its own ``time.monotonic``; None where nothing was seen."""

    acted: dict[str, float]
    seen: dict[str, float | None]


def prepare(place: Place, trials: Sequence[Trial]) -> None:
    """Make what the own trials begin with."""
    for trial in trials:
        here = place.below(trial.folder).make()
        here.put("file", b"a")


def prime(place: Place, trials: Sequence[Trial]) -> None:
    """Look at everything of the other side once, so that it is remembered here."""
    for trial in trials:
        here = place.below(trial.folder)
        if trial.kind != "missed":
            here.names()
        if trial.kind == "missed":
            here.read("late")
        elif trial.kind != "listed":
            here.read("file")
            here.mtime("file")


def watch(
    place: Place, mine: Sequence[Trial], theirs: Sequence[Trial], wait_s: float, sign: Callable[[float, int], None]
) -> Watched:
    """Do the own trials when their time has come, and look for those of the other side until ``wait_s`` after them.

    ``sign`` is called every second with the seconds since the beginning and how many are not seen yet.
    """
    begin = time.monotonic()
    to_do, found = sorted(mine, key=lambda trial: trial.after_s), Watched({}, {})
    pending, next_sign = list(theirs), begin
    while to_do or pending:
        now = time.monotonic()
        while to_do and now - begin >= to_do[0].after_s:
            trial = to_do.pop(0)
            _act(place.below(trial.folder), trial.kind)
            found.acted[trial.folder] = time.monotonic()
        for trial in list(pending):
            if _is_seen(place.below(trial.folder), trial.kind):
                found.seen[trial.folder] = time.monotonic()
                pending.remove(trial)
            elif now - begin > trial.after_s + wait_s:
                found.seen[trial.folder] = None
                pending.remove(trial)
        if now >= next_sign:
            sign(now - begin, len(pending))
            next_sign = now + _SIGN_S
        time.sleep(_PAUSE_S)
    return found


def delays(
    trials: Sequence[Trial], acted: dict[str, float], seen: dict[str, float | None], wait_s: float
) -> list[Delay]:
    """What the watcher of ``trials`` measured; both times are on one clock."""
    found = []
    for trial in trials:
        at = seen[trial.folder]
        late = None if at is None else round(max(0.0, at - acted[trial.folder]), 3)
        found.append(Delay(trial.kind, trial.after_s, trial.by, late, wait_s))
    return found


def worst(found: Sequence[Delay], *kinds: str) -> float | None:
    """The longest delay of ``kinds``; None where something was not seen at all."""
    every = [each.seen_s for each in found if each.kind in kinds]
    return None if None in every else max((each for each in every if each is not None), default=0.0)


def _act(here: Place, kind: str) -> None:
    if kind == "listed":
        here.put("new", b"b")
    elif kind == "replaced":
        here.put("file", b"b")  # of the same size: clients compare sizes and time stamps
    elif kind == "missed":
        here.put("late", b"b")
    else:
        here.touch("file", _LONG_AGO)


def _is_seen(here: Place, kind: str) -> bool:
    if kind == "listed":
        return "new" in here.names()
    if kind == "replaced":
        return here.read("file") == b"b"
    if kind == "missed":
        return here.read("late") == b"b"
    return 0 < here.mtime("file") <= _LONG_AGO + 1
