"""What two doctors' measurements mean: in words, in ``stale_s`` and ``lease_s``, and whether claims can be safe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from jimmy_manager.archives.filesystem import SHARED_STALE_S, tells_by_time_stamps
from jimmy_manager.cluster import delays
from jimmy_manager.cluster.peer import EXCLUDES, Measured
from jimmy_manager.cluster.races import Tally
from jimmy_manager.cluster.remark import NOTE, OK, PROBLEM, Remark

LEASE_S = 120.0
TIME_STAMPS = Remark(
    NOTE, "time stamps",
    "NFS 3 knows by a directory's time stamp alone that it has changed: a listing made between two changes in one "
    "clock tick (some ms) stays as it is until the next change",
    "mount it with vers=4.2, which counts changes",
)
_MARGIN, _SPARE_S = 1.5, 2.0
_CLOCK_S = 5.0


class Verdict(NamedTuple):
    """``refused`` says why claims cannot be safe; ``stale_s`` is None where nothing can be said."""

    remarks: tuple[Remark, ...]
    stale_s: float | None
    lease_s: float | None
    refused: str


def judge(measured: Measured) -> Verdict:
    """What ``measured`` means for a store."""
    refused = _refusal(measured)
    stale_s = None if refused else _stale_s(measured)
    remarks = [_of_claims(measured, refused), *_of_delays(measured), *_of_the_rest(measured)]
    return Verdict(tuple(remarks), stale_s, None if stale_s is None else max(LEASE_S, 4 * stale_s), refused)


def name_of(measured: Measured) -> str:
    """How the file system is called."""
    kind = measured.leader.kind or "a file system of unknown type"
    return f"{kind} ({measured.leader.source})" if measured.leader.source else kind


def _exclusive(measured: Measured) -> Tally:
    """The race that a claim is: by link, and by an exclusive open where there are no links."""
    found = {each.kind: each for each in measured.races}
    return found["open"] if found["link"].is_refused else found["link"]


def _refusal(measured: Measured) -> str:
    race = _exclusive(measured)
    how = "link" if race.kind == "link" else "O_EXCL"
    if race.is_refused:
        return f"on {name_of(measured)} neither link nor O_EXCL can create a name exclusively"
    if not race.is_safe:
        return f"on {name_of(measured)} {race.more} of {race.rounds} exclusive creations by {how} had several winners"
    if not measured.plan.is_quick:
        for kind in delays.COUNTED:
            if delays.worst(measured.delays, kind) is None:
                seen = f"{delays.KINDS[kind]} was not seen on the other node within {measured.plan.wait_s:g} s"
                return f"on {name_of(measured)} {seen}"
    return ""


def _stale_s(measured: Measured) -> float | None:
    worst = delays.worst(measured.delays, *delays.COUNTED)
    if worst is None:
        return None
    rounded = float(math.ceil(_MARGIN * worst + _SPARE_S))
    # A quick look does not see what caches do that have grown old, so it may only raise what is safe without a look.
    # And where time stamps alone tell of changes, no look can see what happens once in a thousand times.
    is_bound = not measured.plan.is_quick and not _goes_by_time_stamps(measured)
    return rounded if is_bound else max(rounded, SHARED_STALE_S)


def _goes_by_time_stamps(measured: Measured) -> bool:
    return any(tells_by_time_stamps(side.kind) for side in (measured.leader, measured.follower))


def _of_claims(measured: Measured, refused: str) -> Remark:
    race = _exclusive(measured)
    if refused:
        remedy = "keep the store on another file system, or have this one mounted otherwise, and examine it again"
        return Remark(PROBLEM, "claims", f"cannot be safe: {refused}", remedy, forbids=True)
    how = "" if race.kind == "link" else "; there are no links here, so claims are opened with O_EXCL"
    text = f"safe: {race}, and in {race.contended} of them both nodes were at it in the same moment{how}"
    return Remark(OK if race.contended else NOTE, "claims", text)


def _of_delays(measured: Measured) -> Iterator[Remark]:
    for kind, what in delays.KINDS.items():
        worst = delays.worst(measured.delays, kind)
        if worst is not None:
            yield Remark(OK if worst < SHARED_STALE_S else NOTE, "delay", f"{what} is seen after {_seconds(worst)}")
        elif kind not in delays.COUNTED:
            late = f"{what} is not seen within {measured.plan.wait_s:g} s; nothing here rests on it"
            yield Remark(NOTE, "delay", late)
        elif measured.plan.is_quick:
            late = f"{what} is not seen within {measured.plan.wait_s:g} s"
            yield Remark(PROBLEM, "delay", late, "look for longer: run it without --quick on both nodes")


def _of_the_rest(measured: Measured) -> Iterator[Remark]:
    if _goes_by_time_stamps(measured):
        yield TIME_STAMPS
    for race in measured.races:
        if race.kind in ("mkdir", "rename") and not race.is_safe:
            yield Remark(NOTE, race.kind, f"{race}; nothing here rests on it")
    excluding = [kind for kind, told in measured.locks.items() if told == EXCLUDES]
    others = [f"{kind} {told}" for kind, told in measured.locks.items() if told != EXCLUDES]
    if excluding:
        yield Remark(OK, "locks", f"{' and '.join(excluding)} held on one node: refused to the other")
    if others:
        yield Remark(NOTE, "locks", f"{'; '.join(others)}; nothing here rests on it, other programs may")
    whole, all_lines = measured.appended
    if whole < all_lines:
        lost = f"{all_lines - whole} of {all_lines} lines that both nodes appended to one file were lost or torn"
        yield Remark(NOTE, "append", f"{lost}; nothing here does that, other programs may")
    else:
        yield Remark(OK, "append", f"{all_lines} lines that both nodes appended to one file are whole")
    apart, about = abs(measured.clock.seconds), measured.clock.uncertainty_s
    found = f"they differ by {_seconds(apart)} (give or take {_seconds(about)})"
    if apart - about > _CLOCK_S:
        text = f"{found}; no claim rests on them, but times in tables do"
        yield Remark(NOTE, "clocks", text, "let both nodes keep their time by NTP")
    else:
        yield Remark(OK, "clocks", found)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
