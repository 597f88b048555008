"""``jimmy check``: finds every inconsistency that a store can have; ``repair`` mends what can be mended safely."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from jimmy_manager.archives import inspection, layout, repair, sharing, store_file, strict
from jimmy_manager.archives.code_inspection import inspect_code
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Files
from jimmy_manager.archives.inspection import Finding, inspect, shards
from jimmy_manager.archives.repair import Repair, fix
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import DamagedRecord, RecordError, SchemaError, StoreTooNew, UnreadableRecord
from jimmy_manager.schema import Ledger

__all__ = ["Finding", "Repair", "audit", "check", "fix"]

_TOP = {
    layout.STORE_FILE, layout.STOP_FILE, *layout.ARCHIVES, layout.CODE, "logs", layout.DAMAGED, layout.DOCTOR,
    "README.md", ".gitignore",
}  # fmt: skip
_LOCKS = {f".{layout.STORE_FILE}.lock", ".janitor.lock"}
_SHORTEST_PAUSE_S = 0.05


def check(
    directory: str | os.PathLike[str], *, fix: bool = False, contents: bool = True, **options: Any
) -> tuple[list[Finding], list[Repair]]:
    """Audit the store at ``directory``, and repair it with ``fix``; also one whose ``store.yaml`` keeps it shut.

    ``options`` are those of ``Store``. Without ``fix`` nothing is written.
    """
    files = Disk(directory)
    findings = _check_store_file(files)
    repairs = [repair.sign(files, finding) for finding in findings if fix and finding.remedy == "sign"]
    if findings and not any(done.outcome == "sign" for done in repairs):
        return findings, repairs
    store = Store(directory, read_only=True, **options)  # which refuses a directory that is no store
    if fix:
        store = Store(directory, **options)
    found = audit(store, contents=contents)
    return findings + found, repairs + (repair.fix(store, found) if fix else [])


def audit(store: Store, *, contents: bool = True) -> list[Finding]:
    """Everything that is wrong in ``store``, by file name; the store may be read-only.

    Every file of every newest commit is read and compared with its digest; without ``contents`` only sizes are.
    What one look finds is looked at again ``2 stale_s`` later, and only what both agree upon is told.
    """
    suspects = {shard: found for shard in shards(store) if (found := inspect(store, shard, contents=contents))}
    lacks_code = inspect_code(store)
    findings = [*_check_store_file(store.files), *_check_ledger(store.files, store.ledger), *_check_folders(store)]
    if suspects or lacks_code:
        store.claims.clock.sleep(max(2 * store.claims.stale_s, _SHORTEST_PAUSE_S))
    for shard, found in suspects.items():
        seen = {(finding.kind, finding.name) for finding in found}
        again = inspect(store, shard, {finding.key for finding in found}, contents=contents)
        findings.extend(finding for finding in again if (finding.kind, finding.name) in seen)
    if lacks_code:
        findings.extend(finding for finding in inspect_code(store) if finding in lacks_code)
    return findings + _check_displaced(store) + _check_modes(store)


def _check_store_file(files: Files) -> list[Finding]:
    name = layout.STORE_FILE
    try:
        if store_file.read(files) is not None:
            return []
        has_runs = any(layout.is_shard(folder) for archive in layout.ARCHIVES for folder in files.names(archive))
        message = "it is gone, with the schema ledger in it; restore it before anybody trains here"
        return [Finding("missing", name, message)] if has_runs else []
    except StoreTooNew as error:
        return [Finding("newer", name, str(error))]
    except UnreadableRecord as error:
        return [Finding("unreadable", name, str(error))]
    except DamagedRecord as damaged:
        try:
            edited = StoreFile.parse(repair.without_digest(files.read(name)))
            _check_keys(files, edited)
        except (DamagedRecord, StoreTooNew, SchemaError, OSError) as error:
            return [Finding("damaged", name, f"{error}; nothing in the store can be opened until it is restored")]
        return [Finding("damaged", name, f"{damaged}; it parses, and every run keeps its key", remedy="sign")]


def _check_keys(files: Files, edited: StoreFile) -> None:
    """Raise ``SchemaError`` where a run would lose its key under the ledger or the length that somebody wrote."""
    for finding in _check_ledger(files, edited.ledger):
        raise SchemaError(finding.message)
    shortest = min(map(len, _registered(files)), default=edited.key_len)
    if shortest < edited.key_len:
        raise SchemaError(f"key_len is {edited.key_len}, but there are keys of {shortest} digits")


def _registered(files: Files) -> Iterator[str]:
    for shard in files.names("configs"):
        for last in files.names(f"configs/{shard}"):
            if parsed := layout.parse("configs", last):
                yield parsed.key


def _check_ledger(files: Files, ledger: Ledger) -> list[Finding]:
    stored = {}
    for key in _registered(files) if len(ledger) else ():
        try:
            stored[key] = strict.read_config(files, key)[1]
        except (RecordError, StoreTooNew):  # a finding of its own
            continue
    try:
        ledger.check(stored.items())
    except SchemaError as error:
        return [Finding("mismatch", layout.STORE_FILE, f"its schema ledger does not fit the runs: {error}")]
    return []


def _check_folders(store: Store) -> list[Finding]:
    """What does not belong into the top folder and into those of the archives."""
    found = []
    for name, kind in inspection.entries(store, ""):
        if kind == "link":
            found.append(Finding("foreign", name, "is a symbolic link; a store consists of files alone"))
        elif layout.scratch_target(name) is not None:
            found.append(Finding("scratch", name, "was left by a writer that was killed", remedy="remove"))
        elif name not in _TOP and name not in _LOCKS:
            found.append(Finding("foreign", name, "is no part of a store; nobody reads it"))
    for archive in layout.ARCHIVES:
        for name, kind in inspection.entries(store, archive):
            if not layout.is_shard(name) or kind == "link":
                found.append(Finding("foreign", f"{archive}/{name}", "is no part of a store; nobody reads it"))
    return found


def _check_modes(store: Store) -> list[Finding]:
    shares = store.exists and store.info.shared and store.directory is not None
    return sharing.findings(str(store.directory)) if shares else []


def _check_displaced(store: Store) -> list[Finding]:
    """Whole records under ``damaged/`` whose place is empty: a ``move`` was killed before it could look at them."""
    return [
        Finding("missing", name, f"its whole record lies at {aside}", key, "return")
        for name, (aside, key) in repair.displaced(store).items()
    ]
