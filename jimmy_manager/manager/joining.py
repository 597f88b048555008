"""Making what two stores say of their runs agree, before runs of the one are merged into the other."""

from __future__ import annotations

import shlex

from jimmy_manager import keys as naming
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import SchemaError, WrongManager
from jimmy_manager.manager.checked_runs import CheckedRuns
from jimmy_manager.schema.ledger import Entry


def join(store: Store, runs: CheckedRuns, manager: str) -> None:
    """Make ``store.yaml`` of the runs and of the store agree, or say why they cannot."""
    is_empty = _is_empty(store)
    # A new store gives the runs the keys that they had.
    store.bind(lambda current: _joined(store, runs, manager, current, is_empty), key_len=runs.info.key_len)


def rehearse(store: Store, runs: CheckedRuns, manager: str) -> Store:
    """The store that ``join`` would leave, which writes nothing: ``store`` itself, or one in memory if it is empty."""
    if not _is_empty(store):
        _joined(store, runs, manager, store.info, False)
        return store
    found = store.info if store.exists else StoreFile(id="", key_len=runs.info.key_len)
    shadow = Store(None, key_len=found.key_len)
    shadow.bind(lambda _: _joined(shadow, runs, manager, found, True))
    return shadow


def _joined(store: Store, runs: CheckedRuns, manager: str, current: StoreFile, is_empty: bool) -> StoreFile:
    """What ``store.yaml`` says with the runs in the store; ``WrongManager`` or ``SchemaError`` where they cannot be."""
    theirs = runs.info
    for name in (current.manager, manager):
        if name and theirs.manager and name != theirs.manager:
            raise WrongManager(
                f"the runs in {runs.path} belong to {theirs.manager!r}, not to {name!r}, so that equal fields need "
                f"not mean equal runs; load them into a store of their own (--store store/{theirs.manager})"
            )
    if is_empty and not len(current.ledger):
        current = current._replace(ledger=theirs.ledger)
    _check_ledger(store, runs, current)
    if not theirs.manager:
        return current
    if not current.manager:
        return current._replace(manager=theirs.manager, fields=theirs.fields)
    # A field that either side had not from the start counts as gained: training asks before it repeats a run.
    return current._replace(fields=tuple(field for field in current.fields if field in theirs.fields))


def _is_empty(store: Store) -> bool:
    return next(iter(store.registry), None) is None


def _check_ledger(store: Store, runs: CheckedRuns, current: StoreFile) -> None:
    ours, theirs = list(current.ledger), list(runs.info.ledger)
    shared = 0
    while shared < min(len(ours), len(theirs)) and _is_same(ours[shared], theirs[shared]):
        shared += 1
    if shared == len(theirs):
        return
    if shared == len(ours):
        lines = "\n".join(f"    jimmy schema {_as_command(entry)}" for entry in theirs[shared:])
        raise SchemaError(
            f"the schema ledger of {runs.path} has entries that {store} lacks; if they hold here as well, enter them "
            f"first:\n{lines}"
        )
    raise SchemaError(
        f"the schema ledgers of {runs.path} and {store} differ from entry {shared + 1} on "
        f"({str(theirs[shared])!r} there, {str(ours[shared])!r} here), so that equal fields need not mean equal runs; "
        "load it into a store of its own"
    )


def _is_same(first: Entry, second: Entry) -> bool:
    return naming.canonical(first.as_dict()) == naming.canonical(second.as_dict())


def _as_command(entry: Entry) -> str:
    from jimmy_manager.yaml12 import dump

    if entry.kind == "rename":
        return f"rename {shlex.quote(entry.field)} {shlex.quote(entry.to)}"
    into = f" --into {shlex.quote(entry.into)}" if entry.into else ""
    return f"{entry.kind} {shlex.quote(entry.field)} {shlex.quote(dump(entry.value).strip())}{into}"
