"""The code of runs: the sources of their jobs, each kept once under the SHA-256 of its bytes.

::

    stats             run: {"code": TREE, "git": {"commit": ..., "dirty": true, "diff": DIFF}, ...}
    code/ab/TREE      {"jimmy":"code",...,"data":{"job":PATH,"files":{PATH:[SIZE,DIGEST]},"left":{...}},...}
    code/ab/DIGEST    a source file, byte for byte
    code/ab/DIFF      what tracked files of the repository had uncommitted, as ``git diff`` prints it

Equal trees are equal sources: what depends on the run (commit, diff) stands in its stats. Runs from before this archive
name no code, and readers that do not know it pass over it.

A tree is believed no more than a tar: its paths are relative, of plain parts, and end as sources do; none is a folder
of another. Nothing here is ever imported or executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jimmy_manager.archives import layout
from jimmy_manager.archives.files import Content, Files, unreadable
from jimmy_manager.archives.record import seal, unseal
from jimmy_manager.errors import DamagedRecord

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

SUFFIXES = (".py", ".yaml", ".yml", ".json")
"""What is kept: Python sources, and the YAML or JSON files of a job. Nothing else, as it may be data or a secret."""
_LONGEST_PATH = 1024
_LONGEST_PART = 255


class Readable(Protocol):
    """Where names can be read: the files of a store, or the members of what was exported from one."""

    def read(self, name: str) -> bytes:
        """The content of a file; ``FileNotFoundError`` where there is none."""


class Tree(NamedTuple):
    """The sources of a job: ``files`` by path, ``job`` the path of its own file ("" where it has none).

    ``left`` says of what is not in ``files`` why: a path that was too much, a class whose source is not known.
    """

    job: str
    files: dict[str, Content]
    left: dict[str, str]

    def seal(self) -> bytes:
        """The bytes of the tree's file."""
        files = {path: list(self.files[path]) for path in sorted(self.files)}
        return seal("code", {"job": self.job, "files": files, "left": dict(sorted(self.left.items()))})

    @classmethod
    def unseal(cls, raw: bytes, name: str) -> Tree:
        """The tree in the file ``name``; ``DamagedRecord`` where it holds what no tree does."""
        data = unseal("code", raw, name)
        try:
            tree = cls(data["job"], {path: Content(*each) for path, each in data["files"].items()}, dict(data["left"]))
            is_right = tree._is_right()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedRecord(f"damaged record {name}: it is sealed, but no tree: {error!r}") from error
        if not is_right:
            raise DamagedRecord(f"damaged record {name}: it holds paths or values that no tree has")
        return tree

    def _is_right(self) -> bool:
        folders = {"/".join(path.split("/")[:end]) for path in self.files for end in range(1, path.count("/") + 1)}
        contents = self.files.values()
        return (
            all(is_source_path(path) for path in self.files) and not folders & self.files.keys()
            and all(type(each.size) is int and each.size >= 0 and layout.is_digest(each.sha256) for each in contents)
            and (self.job == "" or self.job in self.files)
            and all(isinstance(text, str) for item in self.left.items() for text in item)
        )


def tree(store: Store, key: str) -> dict[str, str] | None:
    """The sources of run ``key`` as path -> digest; None where none were recorded, as by earlier versions.

    Equal digests are equal files, so two runs are compared without reading any: ``source`` gives the bytes of one.
    ``key`` is a whole key. Raises ``DamagedRecord`` where the tree is missing or is not what was written.
    """
    found = recorded(store, key)
    return None if found is None else {path: content.sha256 for path, content in found.files.items()}


def source(store: Store, digest: str) -> bytes:
    """The bytes that have this SHA-256, verified; ``DamagedRecord`` where they are missing or others."""
    return read(store.files, digest)


def recorded(store: Store, key: str) -> Tree | None:
    """The whole tree of run ``key``, with sizes and what was left out; None where none was recorded."""
    digest = tree_of(run_of(store, key))
    return None if digest is None else read_tree(store.files, digest)


def uncommitted(store: Store, key: str) -> bytes | None:
    """What the repository of the job had uncommitted, as ``git diff`` prints it; None where that is not known."""
    digest = diff_of(run_of(store, key))
    return None if digest is None else read(store.files, digest)


def run_of(store: Store, key: str) -> Mapping[str, Any]:
    """What the stats of ``key`` say of its circumstances; nothing, where nothing is committed."""
    stats = store.committed(key)
    return stats.run if stats is not None else {}


def tree_of(run: Mapping[str, Any]) -> str | None:
    """The digest of the tree that ``run`` of a stats record names."""
    return _digest_in(run.get("code"))


def diff_of(run: Mapping[str, Any]) -> str | None:
    """The digest of the diff that ``run`` of a stats record names."""
    git = run.get("git")
    return _digest_in(git.get("diff")) if isinstance(git, Mapping) else None


def needed(files: Readable, run: Mapping[str, Any]) -> Iterator[str]:
    """The digest of everything in ``code`` that ``run`` of a stats record needs, a tree after its sources.

    What to export with a run, and what to keep as long as there is one that needs it. Raises ``DamagedRecord`` where
    the tree cannot be read, so that what it names is not known.
    """
    if (diff := diff_of(run)) is not None:
        yield diff
    if (name := tree_of(run)) is not None:
        yield from dict.fromkeys(content.sha256 for content in read_tree(files, name).files.values())
        yield name


def without_code(run: Mapping[str, Any]) -> dict[str, Any]:
    """``run`` of a stats record for a place to which its code does not come along."""
    kept = {name: value for name, value in run.items() if name != "code"}
    if diff_of(run) is not None:
        kept["git"] = {name: value for name, value in run["git"].items() if name != "diff"}
    return kept


def read_tree(files: Readable, digest: str) -> Tree:
    """The tree that has this SHA-256."""
    return Tree.unseal(read(files, digest), layout.code(digest))


def read(files: Readable, digest: str) -> bytes:
    """The bytes under ``digest``, verified."""
    name = layout.code(digest)
    try:
        raw = files.read(name)
    except FileNotFoundError:
        raise DamagedRecord(f"missing file {name}: a run names it as its code, but it is not there") from None
    except OSError as error:
        raise unreadable(name, error) from error
    if hashlib.sha256(raw).hexdigest() != digest:
        raise DamagedRecord(f"damaged file {name}: its content is not what its name says")
    return raw


def put(files: Files, data: bytes) -> str:
    """Keep ``data`` under its SHA-256, which is returned; nothing is written where it is there already.

    One name has one content, so it never matters who wins; what a crash left half-written is mended by whoever has it.
    """
    digest = hashlib.sha256(data).hexdigest()
    name = layout.code(digest)
    if not _holds(files, name, data) and not files.create(name, data):
        files.replace(name, data)
    return digest


def is_source_path(path: str) -> bool:
    """Whether ``path`` may stand in a tree, and so be written below a folder.

    >>> is_source_path("jobs/first.py"), is_source_path("../first.py"), is_source_path("/first.py")
    (True, False, False)
    >>> is_source_path(".git/hooks.py"), is_source_path("a//b.py"), is_source_path("key.pem")
    (False, False, False)
    """
    # No part begins with a dot: that leaves out "..", and hidden folders that tools execute from, such as .git.
    return (
        path.endswith(SUFFIXES) and path.isprintable() and "\\" not in path and len(path) <= _LONGEST_PATH
        and all(part and part[0] != "." and len(part.encode()) <= _LONGEST_PART for part in path.split("/"))
    )


class Snapshot(NamedTuple):
    """The sources of a job at one moment, ready to be kept."""

    tree: Tree
    sources: dict[str, bytes]
    raw: bytes

    @classmethod
    def of(cls, job: str, sources: Mapping[str, bytes], left: Mapping[str, str]) -> Snapshot:
        """The snapshot of ``sources`` by path; ``left`` says what is not in it, and why."""
        tree = Tree(job, {path: Content.of(data) for path, data in sources.items()}, dict(left))
        return cls(tree, dict(sources), tree.seal())


class Sources:
    """The writing side of one store's ``code``; remembers what it has put, so that a worker puts it once.

    That it is still there is asked of the listing: gc may have taken what the runs have named that were popped since.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._kept: dict[bytes, str] = {}

    def keep(self, snapshot: Snapshot) -> str:
        """Keep the sources, then their tree, whose digest is returned."""
        for data in snapshot.sources.values():
            self.keep_text(data)
        return self.keep_text(snapshot.raw)

    def keep_text(self, data: bytes) -> str:
        """Keep one text, such as a diff; its digest is returned."""
        if data not in self._kept or not _is_listed(self._files, layout.code(self._kept[data])):
            self._kept[data] = put(self._files, data)
        return self._kept[data]


def _holds(files: Files, name: str, data: bytes) -> bool:
    """Whether ``data`` stands there; asked of the listing first, as a name that NFS misses once stays missing."""
    try:
        return _is_listed(files, name) and files.read(name) == data
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(name, error) from error


def _is_listed(files: Files, name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return last in files.names(folder)


def _digest_in(value: Any) -> str | None:
    return value if layout.is_digest(value) else None
