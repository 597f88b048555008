"""Writing out the code of a run, to be read: into a folder of its own, and believing nothing that a store says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from jimmy_manager.archives import code
from jimmy_manager.archives.files import store_error
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import NoRecord, RecordError, StoreError

DIFF = "uncommitted.diff"
"""No source has this name: those end in .py, .yaml, .yml or .json."""


class Written(NamedTuple):
    """What was written, by its path below the folder; and why other paths were not: damaged, or never recorded."""

    paths: tuple[str, ...]
    failed: dict[str, str]
    left: dict[str, str]


def write(store: Store, key: str, folder: str | os.PathLike[str]) -> Written:
    """Write the sources of run ``key``, and what was uncommitted, into ``folder``, which is made or empty.

    A source that is damaged is told, and the others are written. Raises ``NoRecord`` where no code was recorded,
    ``DamagedRecord`` where not even its names can be read, and ``StoreError`` for a folder that holds anything.
    """
    key = store.resolve(key)
    tree = code.recorded(store, key)
    diff = code.diff_of(code.run_of(store, key))
    if tree is None:
        raise NoRecord(f"run {key} has no record of its code: it is from an earlier version, or nothing was saved yet")
    digests = {path: content.sha256 for path, content in tree.files.items()} | ({DIFF: diff} if diff else {})
    target = Path(folder).absolute()
    _make_empty(target)
    paths, failed = [], {}
    for path, digest in digests.items():
        try:
            data = code.read(store.files, digest)
        except RecordError as error:
            failed[path] = str(error)
            continue
        _write(target, path, data)
        paths.append(path)
    return Written(tuple(paths), failed, tree.left)


def _make_empty(target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise StoreError(f"{target} is not empty; name a folder that is, or one that does not exist yet")
    except StoreError:
        raise
    except OSError as error:
        raise store_error("write", str(target), error) from error


def _write(target: Path, path: str, data: bytes) -> None:
    """Write one file whose path was checked when the tree was read, into folders that are made here."""
    place = target / path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.parent.resolve() != target.resolve() / Path(path).parent:
            raise StoreError(f"{place.parent} leads out of {target}: somebody put a link there")
        # Exclusively, so that no link of that name is followed, either.
        with open(place, "xb") as file:
            file.write(data)
    except StoreError:
        raise
    except OSError as error:
        raise store_error("write", str(place), error) from error
