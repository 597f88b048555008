"""Exported runs as a directory: a store of its own, which anybody can look into, train on in, or import from.

Each run is there as if one worker had trained it in generation 1: the newest whole commit, and the claims that a store
has of a run that is finished (``done``) or can be continued (``released``). Nothing in it tells who wrote it, or when.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from jimmy_manager.archives import layout, strict
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import CHUNK, Content, store_error, unreadable
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.owner import Owner
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import DamagedRecord, NoRecord, RecordError, StoreError
from jimmy_manager.manager.carried_code import CarriedCode

_NOBODY = Owner("export", 1, 0, "", "")
_LEASE_S = 120.0


class FolderSink:
    """Where ``export`` puts runs into a directory."""

    def __init__(self, files: Disk) -> None:
        self._files = files

    def begin(self, info: StoreFile) -> None:
        """Write ``store.yaml``; what a doctor found holds for another place."""
        self._files.replace(layout.STORE_FILE, info._replace(doctor=None, shared="").dump())

    def put(self, digest: str, config: bytes, stats: Stats, opened: dict[str, tuple[BinaryIO, Content]]) -> None:
        """Write one run, its ``stats`` last."""
        (theirs,) = stats.commits
        commit = theirs._replace(generation=1, number=1)
        ours = stats._replace(generation=1, commits=(commit,))
        self._files.replace(layout.config(stats.key), config)
        for name, source in zip(commit.contents(), theirs.contents(), strict=True):
            if source in opened:
                self._copy(*opened[source], name)
            elif name == commit.ckpt_name:  # an empty file stands in for what was left out
                commit = commit._replace(ckpt=self._files.write(name, lambda _: None))
                ours = ours._replace(commits=(commit,))
        for claim in _claims(digest, ours):
            self._files.replace(layout.claim(claim.key, claim.generation), claim.seal())
        self._files.replace(ours.name, ours.seal())

    def put_small(self, name: str, data: bytes) -> None:
        """Write a file that belongs to no one run."""
        self._files.replace(name, data)

    def end(self) -> None:
        """Nothing is left to write."""

    def _copy(self, source: BinaryIO, expected: Content, name: str) -> None:
        if self._files.write(name, lambda file: shutil.copyfileobj(source, file, CHUNK)) != expected:
            raise store_error("read", name, OSError(0, "it changed while it was exported; export again"))


def _claims(digest: str, stats: Stats) -> Iterator[ClaimRecord]:
    at = stats.commits[-1].at
    record = ClaimRecord(stats.key, 1, digest[:32], stats.token, "released", 0, _LEASE_S, _NOBODY, at)
    yield record
    if stats.done:
        yield record._replace(generation=2, state="done", after="released", stats=stats.digest())


@contextmanager
def new_folder(path: Path) -> Iterator[FolderSink]:
    """A directory that is at ``path`` whole, once everything is in it, or not at all; ``path`` must be free."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"cannot export to {path}: there is something already; name a directory that is not there yet")
    parent = Disk(path.parent)
    scratch = layout.scratch(path.name)
    try:
        # Nobody sees it before it is whole: one wait for the disk, at the end, instead of one for each file.
        yield FolderSink(Disk(parent.path(scratch), durable=False))
        os.sync()
        parent.move(scratch, path.name)
    finally:
        # Of an export that failed; one that cannot be removed only takes space.
        shutil.rmtree(parent.path(scratch), ignore_errors=True)


class FolderSource:
    """The runs of a store, in a directory, as an export would have them; each was verified to its last byte."""

    is_verified = True

    def __init__(self, store: Store) -> None:
        self.path = str(store)
        self.left: dict[str, str] = {}
        self._files = store.files
        self._small = {layout.STORE_FILE: store.info._replace(stale_s=None, lease_s=None).dump()}
        self.sizes: dict[str, int] = {}
        self._code = CarriedCode(store.files)
        for key in store.committed_keys():
            try:
                self._add(store, key)
            except (NoRecord, RecordError) as error:
                self.left[key] = str(error)
        self.sizes |= {name: len(raw) for name, raw in self._small.items()}

    def parts(self, name: str) -> Iterator[bytes]:
        if name in self._small:
            yield self._small[name]
            return
        try:
            with self._files.open(name) as file:
                while part := file.read(CHUNK):
                    yield part
        except FileNotFoundError:  # a worker that trains on, or a janitor, has superseded its commit
            raise DamagedRecord(f"missing file {name}: it changed while it was imported; import again") from None
        except OSError as error:
            raise unreadable(name, error) from error

    def _add(self, store: Store, key: str) -> None:
        config = strict.read(self._files, layout.config(key))
        commit = store.history.newest(key, store.history.verify)
        stats = alone(store, commit)
        run, sources = self._code.take(stats.run)
        stats = stats._replace(run=run)
        self._small |= {layout.config(key): config, stats.name: stats.seal()}
        self.sizes |= {
            name: content.size for name, content in commit.contents().items()
            if name != commit.ckpt_name or commit.has_ckpt
        }
        self.sizes |= {name: len(data) for name, data in sources.items()}


def alone(store: Store, commit: Commit) -> Stats:
    """The stats of one commit as if there were no other: what is handed over of a run."""
    stats = store.history.read_stats(commit.key, commit.generation)
    return stats._replace(commits=(commit,), done=commit == stats.commits[-1] and store.is_done(stats))
