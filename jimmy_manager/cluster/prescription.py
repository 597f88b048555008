"""What the doctor writes into ``store.yaml``: ``stale_s``, ``lease_s``, and a short record of the examination.

Raising ``stale_s`` is safe at any time: who runs with the old value is no worse off than before. Lowering it is not:
who has it lower takes a run over and commits before one with the higher value expects that, so nothing is lowered while
anybody holds a run.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from jimmy_manager.archives import filesystem, store_file
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.listing import read_all
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.cluster import delays
from jimmy_manager.cluster.peer import Measured
from jimmy_manager.cluster.remark import NOTE, OK, Remark
from jimmy_manager.cluster.verdict import LEASE_S, Verdict, name_of
from jimmy_manager.errors import StoreError


class Prescription(NamedTuple):
    """What is to be recorded, and what has to be said about it."""

    changes: dict[str, Any]
    remarks: tuple[Remark, ...]


def prescribe(directory: str, measured: Measured, verdict: Verdict, *, reset: bool = False) -> Prescription:
    """What to record in the store at ``directory``, which is not changed yet."""
    store = Store(directory, read_only=True)
    record = _record(measured, verdict)
    if verdict.refused:
        return Prescription({"doctor": record}, (Remark(NOTE, "recorded", "nobody may write to this store any more"),))
    if verdict.stale_s is None:
        return Prescription({}, (Remark(NOTE, "recorded", "nothing: the quick look was too short to tell"),))
    before = store.info.stale_s
    current = filesystem.stale_s(directory) if before is None else before
    stale_s, remarks = verdict.stale_s, []
    if before is not None and stale_s < before and not reset:
        stale_s = before
        text = f"stale_s stays {before:g} s, though {verdict.stale_s:g} s would do by what was seen today"
        remarks.append(Remark(OK, "recorded", text, "to go by today alone: --reset"))
    is_busy = stale_s != current and any(run.state == "held" for run in read_all(store))
    if stale_s < current and is_busy:
        text = f"stale_s stays {current:g} s: workers that go by it hold runs"
        remarks.append(Remark(NOTE, "recorded", text, "let them end ('jimmy stop --all'), then examine it again"))
        stale_s = current
    lease_s = max(LEASE_S, 4 * stale_s, 0.0 if reset else store.info.lease_s or 0.0)
    told = f"a listing may be {stale_s:g} s old (stale_s), a silent worker keeps its run for {lease_s:g} s (lease_s)"
    remarks.insert(0, Remark(OK, "recorded", told))
    if stale_s > current and is_busy:
        text = f"workers that hold runs now still go by {current:g} s"
        remarks.append(Remark(NOTE, "recorded", text, "let them end and start them again ('jimmy stop --all')"))
    return Prescription({"stale_s": stale_s, "lease_s": lease_s, "doctor": record}, tuple(remarks))


def write(directory: str, changes: dict[str, Any]) -> StoreFile:
    """Record ``changes``; also where an earlier record forbids to write, as only another examination lifts that."""
    files = Disk(directory)
    current = store_file.read(files)
    files.shared = bool(current and current.shared)
    return store_file.edit(files, lambda info: info._replace(**changes))


def forget(directory: str) -> None:
    """Take back all that was recorded, as where a store was moved to a disk of one machine.

    Raises ``StoreError`` where others may see the file system, too: there only two nodes can tell.
    """
    if not filesystem.is_local(directory):
        kind = filesystem.kind(directory) or "a file system of unknown type"
        raise StoreError(f"on {kind} only two nodes can tell what is safe; run 'jimmy doctor --peer --reset' on both")
    write(directory, {"stale_s": None, "lease_s": None, "doctor": None})


def _record(measured: Measured, verdict: Verdict) -> dict[str, Any]:
    worst = {kind: delays.worst(measured.delays, kind) for kind in delays.COUNTED}
    record = {
        "at": time.strftime("%Y-%m-%d", time.gmtime()), "nodes": [measured.leader.host, measured.follower.host],
        "file_system": name_of(measured), "quick": measured.plan.is_quick, "seen_after_s": worst,
    }  # fmt: skip
    return record | ({"refused": verdict.refused} if verdict.refused else {})
