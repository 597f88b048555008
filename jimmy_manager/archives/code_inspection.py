"""Whether the code that runs name is there and whole: the part of the audit that belongs to no one run.

Names in ``code`` that nobody names are no fault: another version may have put them there, or a run that was popped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator

from jimmy_manager.archives import code, layout, strict
from jimmy_manager.archives.inspection import Finding
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, StoreTooNew, UnreadableRecord

_ADVICE = "no result is affected, and a worker that trains from the same source writes it again"
_TREE = "the list of sources"


def inspect_code(store: Store) -> list[Finding]:
    """A finding for every file of ``code`` that is named by stats or a tree and is missing, damaged or unreadable."""
    found: dict[str, Finding] = {}
    checked: set[str] = set()
    for key, digest, what in _named(store):
        if digest not in checked:
            checked.add(digest)
            if (finding := _check(store, digest, what, key)) is not None:
                found[finding.name] = finding
    return list(found.values())


def listed(store: Store) -> list[str]:
    """Every file of ``code``."""
    folders = [f"{layout.CODE}/{shard}" for shard in store.files.names(layout.CODE) if layout.is_shard(shard)]
    names = (f"{folder}/{last}" for folder in sorted(folders) for last in sorted(store.files.names(folder)))
    return [name for name in names if layout.is_digest(name.rpartition("/")[2])]


def unnamed(store: Store, names: Iterable[str], without: Collection[str] = ()) -> list[str]:
    """The files among ``names`` that no run needs but those ``without``, which are to go as well.

    Only to be removed while nobody uses the store, as a worker writes code before it names it. Raises ``RecordError``
    or ``StoreTooNew`` where stats or a tree cannot be read, so that what they name is not known.
    """
    needed: set[str] = set()
    seen: set[tuple[str | None, str | None]] = set()
    for parsed in _stats_of(store):
        if parsed.key in without:
            continue
        run = strict.read_stats(store.files, parsed.key, parsed.generation).run
        tops = (code.tree_of(run), code.diff_of(run))
        if tops not in seen:
            seen.add(tops)
            needed.update(code.needed(store.files, run))
    return [name for name in names if name.rpartition("/")[2] not in needed]


def _stats_of(store: Store) -> Iterator[layout.Parsed]:
    for shard in sorted(filter(layout.is_shard, store.files.names("stats"))):
        for last in sorted(store.files.names(f"stats/{shard}")):
            if (parsed := layout.parse("stats", last)) is not None:
                yield parsed


def _named(store: Store) -> Iterator[tuple[str, str, str]]:
    """Key, digest and what it is, of all code that any run names; a tree that cannot be read names nothing."""
    trees: set[str] = set()
    for parsed in _stats_of(store):
        try:
            run = strict.read_stats(store.files, parsed.key, parsed.generation).run
        except (DamagedRecord, UnreadableRecord, StoreTooNew):  # a finding of its own
            continue
        if (diff := code.diff_of(run)) is not None:
            yield parsed.key, diff, "the uncommitted changes"
        tree = code.tree_of(run)
        if tree is not None and tree not in trees:
            trees.add(tree)
            yield parsed.key, tree, _TREE
            yield from ((parsed.key, digest, f"the source {path!r}") for path, digest in _sources(store, tree))


def _sources(store: Store, tree: str) -> list[tuple[str, str]]:
    try:
        return [(path, content.sha256) for path, content in code.read_tree(store.files, tree).files.items()]
    except (DamagedRecord, UnreadableRecord, StoreTooNew):
        return []


def _check(store: Store, digest: str, what: str, key: str) -> Finding | None:
    name, of_run = layout.code(digest), f"{what} of run {key}"
    try:
        raw = store.files.read(name)
    except FileNotFoundError:
        return Finding("missing", name, f"{of_run} is not there; {_ADVICE}", key)
    except OSError as error:
        return Finding("unreadable", name, f"{of_run}: {error.strerror}", key)
    if hashlib.sha256(raw).hexdigest() != digest:
        return Finding("damaged", name, f"{of_run} is not what its name says; {_ADVICE}", key)
    try:
        if what == _TREE:
            code.Tree.unseal(raw, name)
    except DamagedRecord as error:
        return Finding("damaged", name, f"{of_run} cannot be used: {error}", key)
    except StoreTooNew as error:
        return Finding("newer", name, str(error), key)
    return None
