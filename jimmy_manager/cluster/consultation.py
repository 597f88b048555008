"""``jimmy doctor --peer`` from end to end: meet, measure, judge, record, and leave nothing behind."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Protocol

from jimmy_manager.archives import layout, store_file
from jimmy_manager.archives.disk import Disk
from jimmy_manager.cluster import prescription
from jimmy_manager.cluster.doctor import base_of
from jimmy_manager.cluster.meeting import Meeting
from jimmy_manager.cluster.peer import Measured, Pair, Plan, Side
from jimmy_manager.cluster.place import Place
from jimmy_manager.cluster.remark import NOTE, OK, Remark
from jimmy_manager.cluster.verdict import judge, name_of
from jimmy_manager.errors import StoreError


class Voice(Protocol):
    """Who tells people how far it is."""

    def say(self, text: str) -> None:
        """One step is done."""

    def tick(self, text: str) -> None:
        """How far a long step is; the next one takes its place."""


class Advice(NamedTuple):
    """What came of it: remarks, the measurements, and what was recorded."""

    remarks: list[Remark]
    measured: Measured
    recorded: dict[str, Any]


def consult(
    directory: str, plan: Plan, voice: Voice, *, timeout_s: float = 120.0, reset: bool = False, record: bool = True,
    kind: type[Place] = Place, side: Side | None = None,
) -> Advice:
    """Examine ``directory`` together with the one who does the same on another node; both get the same advice.

    Raises ``StoreError`` where nobody comes, where both are in the same place, and where there is no store to record
    in, or ``DamagedRecord`` where that cannot be read; ``PeerLost`` where the other one goes away.
    """
    base = base_of(directory)
    if record and store_file.read(Disk(directory)) is None:
        make = f"make one by 'jimmy init {directory}', or only measure: --no-record"
        raise StoreError(f"there is no store at {directory!r} to record in; {make}")
    folder = kind(base).below(layout.DOCTOR)
    try:
        meeting = Meeting(folder.make())
        met = meeting.meet(timeout_s, lambda left: voice.tick(f"waiting for the other node, {left:.0f} s left"))
        try:
            pair = Pair(met, plan, voice.say, voice.tick, side)
            advice = _advise(pair, directory, is_leader=met.is_leader, reset=reset, record=record)
            pair.close(meeting.leave)
            return advice
        except BaseException:
            meeting.leave()
            met.room.clear()
            raise
    finally:
        _remove_if_empty(folder.root)


def _advise(pair: Pair, directory: str, *, is_leader: bool, reset: bool, record: bool) -> Advice:
    measured = pair.examine()
    verdict = judge(measured)
    remarks = [_nodes(measured), *verdict.remarks]
    is_recorded, is_reset = all(pair.agree(record)), any(pair.agree(reset))
    if not is_recorded:
        told = "" if verdict.stale_s is None else f"; it would be stale_s = {verdict.stale_s:g} s"
        return Advice([*remarks, Remark(NOTE, "recorded", f"nothing, as was asked for{told}")], measured, {})
    mine = _record(directory, measured, verdict, is_reset) if is_leader else None
    changes, said = pair.share(mine)
    return Advice([*remarks, *(Remark(*each) for each in said)], measured, changes)


def _record(directory: str, measured: Measured, verdict: Any, is_reset: bool) -> tuple[dict[str, Any], Any]:
    found = prescription.prescribe(directory, measured, verdict, reset=is_reset)
    if found.changes:
        prescription.write(directory, found.changes)
    return found


def _nodes(measured: Measured) -> Remark:
    a, b = measured.leader, measured.follower
    where = f"{a.host} and {b.host}" if a.host != b.host else f"two mounts on {a.host}"
    return Remark(OK, "nodes", f"{where}, through {name_of(measured)}")


def _remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # others are in it, or it is gone already
