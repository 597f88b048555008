"""Runs in a tar: ``export_tar`` writes them, ``load_tar`` merges them into a store.

::

    store.yaml                        Manager name, fields, schema ledger
    configs/ab/KEY.json               as in the store, for each run
    stats/ab/KEY.gN.json              with the newest whole commit alone
    previews/..., ckpts/...           the files of that commit

The same runs give the same bytes. Claims, failures and logs stay behind. A copy of a store in use is not
promised to be consistent; an export is, run by run.

Nothing in a tar is believed: before anything is written every member is checked, by name, kind, size and
digest. Then each run is written as a worker would do it, under a claim, in a generation of its own.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jimmy_manager import keys as naming
from jimmy_manager.archives import layout
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Content, store_error
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import (
    DamagedRecord,
    NoRecord,
    ReadOnlyStore,
    SchemaError,
    WrongManager,
)
from jimmy_manager.manager.checked_tar import CheckedTar
from jimmy_manager.manager.merge import Loaded, Merge
from jimmy_manager.manager.tarball import END, header, padding
from jimmy_manager.schema.ledger import Entry


class Exported(NamedTuple):
    """The runs in a tar, and why others were left out."""

    keys: tuple[str, ...]
    left: dict[str, str]


def export_tar(
    store: Store, path: str | os.PathLike[str], keys: Iterable[str] | None = None, ckpts: bool = True
) -> Exported:
    """Write the newest whole commit of each run (of ``keys``, where given) to the tar ``path``, whole or not at all.

    Without ``ckpts`` the tar is small; finished runs can be looked at and compared from it, none be continued.
    """
    chosen = sorted(store.committed_keys() if keys is None else {store.resolve(key) for key in keys})
    target = Path(path).absolute()
    done: list[str] = []
    left: dict[str, str] = {}

    def fill(file: BinaryIO) -> None:
        done.clear()
        left.clear()
        info = store.info._replace(stale_s=None, lease_s=None)
        _put(file, layout.STORE_FILE, info.dump())
        for key in chosen:
            try:
                _export_run(store, key, file, ckpts)
                done.append(key)
            except (NoRecord, DamagedRecord) as error:
                left[key] = str(error)
        file.write(END)

    Disk(target.parent).write(target.name, fill)
    return Exported(tuple(done), left)


def _export_run(store: Store, key: str, file: BinaryIO, ckpts: bool) -> None:
    config = store.registry.read(key)
    with ExitStack() as stack:
        stats, opened = store.history.newest(key, lambda commit: _open(store, commit, stack, ckpts))
        # Only now: whatever of a run could not be had is noticed before a byte of it is written.
        _put(file, layout.config(key), config.seal())
        _put(file, stats.name, stats.seal())
        for name in sorted(opened):
            source, expected = opened[name]
            file.write(header(name, expected.size))
            size = 0
            while part := source.read(1 << 20):
                file.write(part)
                size += len(part)
            if size != expected.size:
                raise store_error("read", name, OSError(0, "it changed while it was exported; export again"))
            file.write(padding(size))


def _open(
    store: Store, commit: Commit, stack: ExitStack, ckpts: bool
) -> tuple[Stats, dict[str, tuple[BinaryIO, Content]]]:
    """The stats of this commit alone, and its verified files, which stay readable though its owner prunes them."""
    stats = store.history.read_stats(commit.key, commit.generation)
    alone = stats._replace(commits=(commit,), done=commit == stats.commits[-1] and store.is_done(stats))
    wanted = {
        name: expected for name, expected in commit.contents().items()
        if name != commit.ckpt_name or (ckpts and commit.has_ckpt)
    }
    opened = {name: stack.enter_context(store.history.open(name, expected)) for name, expected in wanted.items()}
    return alone, {name: (opened[name], expected) for name, expected in wanted.items()}


def _put(file: BinaryIO, name: str, data: bytes) -> None:
    file.write(header(name, len(data)) + data + padding(len(data)))


def load_tar(store: Store, path: str | os.PathLike[str], *, manager: str = "") -> Loaded:
    """Merge the runs in the tar ``path`` into ``store``.

    The configuration decides which run is which, and the newer epoch wins; a run that a live worker holds is
    left. A store without runs takes over name and schema ledger of the tar's; else the names (and
    ``manager``, where given) must be one, and the ledger here must begin with the tar's. Raises
    ``DamagedRecord`` for a tar that is not what ``export_tar`` writes, before anything is written.
    """
    if store.read_only:
        raise ReadOnlyStore(f"cannot load {os.fspath(path)} into {store}: it was opened read-only")
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below; only the opening has this error
    except OSError as error:
        raise store_error("read", os.fspath(path), error) from error
    with file:
        tar = CheckedTar(file, os.fspath(path))
        _join(store, tar, manager)
        return Merge(store, tar).all()


def _join(store: Store, tar: CheckedTar, manager: str) -> None:
    """Make the tar's ``store.yaml`` and the store's agree, or say why they cannot."""
    store.refresh()
    theirs = tar.info
    is_empty = next(iter(store.registry), None) is None
    def change(current: StoreFile) -> StoreFile:
        for name in (current.manager, manager):
            if name and theirs.manager and name != theirs.manager:
                raise WrongManager(
                    f"the runs in {tar.path} belong to {theirs.manager!r}, not to {name!r}, so that equal fields need "
                    f"not mean equal runs; load them into a store of their own (--store store/{theirs.manager})"
                )
        if is_empty and not len(current.ledger):
            current = current._replace(ledger=theirs.ledger)
        _check_ledger(store, tar, current)
        if not theirs.manager:
            return current
        if not current.manager:
            return current._replace(manager=theirs.manager, fields=theirs.fields)
        # A field that either side had not from the start counts as gained: training asks before it repeats a run.
        return current._replace(fields=tuple(field for field in current.fields if field in theirs.fields))

    store.bind(change, key_len=theirs.key_len)  # a new store gives the runs the keys that they had


def _check_ledger(store: Store, tar: CheckedTar, current: StoreFile) -> None:
    ours, theirs = list(current.ledger), list(tar.info.ledger)
    shared = 0
    while shared < min(len(ours), len(theirs)) and _is_same(ours[shared], theirs[shared]):
        shared += 1
    if shared == len(theirs):
        return
    if shared == len(ours):
        lines = "\n".join(f"    jimmy schema {_as_command(entry)}" for entry in theirs[shared:])
        raise SchemaError(
            f"the schema ledger of {tar.path} has entries that {store} lacks; if they hold here as well, enter them "
            f"first:\n{lines}"
        )
    raise SchemaError(
        f"the schema ledgers of {tar.path} and {store} differ from entry {shared + 1} on "
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
