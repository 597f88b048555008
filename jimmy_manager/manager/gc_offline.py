"""What gc takes only while nobody uses the store: scratch of any age, what pops left of runs, code that none names.

The remains of a popped run go in an order of which every beginning is a store that works, should gc be killed in it::

    files below the tombstone ─► configuration ─► logs ─► tombstone ─► claims, lowest first

Before the configuration is gone the run is popped. After that it is unknown, and whoever registers it again gets the
same key and the number after its highest claim, be that the last file. Its key is free only when no longer one begins
with it: the run of that one collided with it, and would get a second key if the short one were free.

Runs that a worker holds are left, and scratch of theirs; and all code while there is such a run, which may be about to
name any of it: somebody may have promised too much.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator

from jimmy_manager.archives import code_inspection, layout
from jimmy_manager.archives.files import store_error
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import RecordError, StoreError, StoreTooNew
from jimmy_manager.manager.gc_plan import Sizes

log = logging.getLogger(__name__)

_HELD = ("held", "silent", "ended")
"""The states of runs whose worker may be alive."""

Found = tuple[str, str, tuple[str, ...], int]


def collect(store: Store, janitor: Janitor, left: dict[str, str], *, dry_run: bool) -> Iterator[Found]:
    """Remove it, run by run, and yield key, what it was, the names that went and the bytes."""
    gone = set()
    for key in _known(store):
        try:
            if not _is_buried(store, key):
                continue
        except (RecordError, StoreTooNew) as error:
            left[key] = str(error)
            continue
        if longer := next((other for other in _known(store, key[:2]) if other != key and other.startswith(key)), ""):
            left[key] = f"run {longer} collided with it, and would get a second key if this one were free"
            continue
        before, logs, after = _remains(store, janitor, key)
        names = (*before, *logs, *after)
        size = Sizes(store).total(names)
        if not dry_run:
            try:
                _remove_in_order(store, key, before, after)
            except StoreError as error:
                left[key] = str(error)
                continue
        gone.add(key)
        yield key, "popped run", names, size
    if not dry_run:
        store.forget_keys()
    for name in [*_code(store, gone), *(name for name in janitor.scratch() if not _is_held(store, name))]:
        size = Sizes(store).total([name])
        if dry_run or janitor.remove([name]).names:
            yield "", "leftover", (name,), size


def _code(store: Store, gone: set[str]) -> list[str]:
    """The sources that only runs ``gone`` have named; none, where what some run names, or is about to, is not known.

    In this order: what was put before the listing belongs to a run that is held afterwards, or whose stats name it.
    """
    try:
        names = code_inspection.listed(store)
        if names and (held := next((key for key in _known(store) if store.standing(key).state in _HELD), "")):
            log.warning("code that no run needs is kept: a worker may be about to name it in run %s", held)
            return []
        return code_inspection.unnamed(store, names, gone)
    except (RecordError, StoreTooNew) as error:
        log.warning("code that no run needs is kept: %s", error)
        return []


def _known(store: Store, only: str = "") -> list[str]:
    """Every key that any file is named after."""
    keys = set()
    for archive in ("configs", "claims", "stats"):
        for shard in filter(layout.is_shard, [only] if only else store.files.names(archive)):
            parsed = (layout.parse(archive, name) for name in store.files.names(f"{archive}/{shard}"))
            keys |= {found.key for found in parsed if found}
    return sorted(keys)


def _is_buried(store: Store, key: str) -> bool:
    """Whether a run was popped, down to its tombstone; or its remains are gone but for claims."""
    standing = store.standing(key)
    if standing.state != "popped":
        return False
    return store.is_popped(key) or not (standing.trace.stats or store.registry.is_registered(key))


def _remains(
    store: Store, janitor: Janitor, key: str
) -> tuple[list[str], list[str], list[str]]:
    """The files that go before the logs, the logs, and those that go after them."""
    trace = store.claims.look(key)
    tombstone = layout.stats(key, trace.stats[-1]) if trace.stats else ""
    files = [name for _, names in sorted(janitor.files_of(key).items()) for name in names if name != tombstone]
    config = layout.config(key)
    folder, _, last = config.rpartition("/")
    before = [*files, *([config] if last in store.files.names(folder) else [])]
    stops = [layout.stop(key, generation) for generation in trace.stops]
    claims = [layout.claim(key, generation) for generation in trace.claims]
    return before, list(_logs(store, key)), [*([tombstone] if tombstone else []), *stops, *claims]


def _logs(store: Store, key: str) -> Iterator[str]:
    root = store.logs(key)
    for folder, folders, files in os.walk(root) if root else ():
        folders.sort()
        for last in sorted(files):
            yield f"{layout.logs(key)}/{os.path.relpath(os.path.join(folder, last), root)}"


def _remove_in_order(store: Store, key: str, before: list[str], after: list[str]) -> None:
    """Stop at the first that cannot be removed: what comes after it is safe to go only without it."""
    for name in before:
        store.files.remove(name)
    root = store.logs(key)
    try:
        if root is not None and os.path.isdir(root):
            shutil.rmtree(root)
    except OSError as error:
        raise store_error("remove", root or "", error) from error
    for name in after:
        store.files.remove(name)


def _is_held(store: Store, scratch: str) -> bool:
    """Whether a scratch file is that of a run which a worker may hold."""
    archive, _, rest = scratch.partition("/")
    target = layout.scratch_target(rest.rpartition("/")[2])
    parsed = layout.parse(archive, target) if target and archive in layout.ARCHIVES else None
    try:
        return parsed is not None and store.standing(parsed.key).state in _HELD
    except (RecordError, StoreTooNew):
        return True
