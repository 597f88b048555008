"""The few file operations that a store is built on, and what each of them promises.

``Files`` is the seam: a directory (``disk.Disk``) and a dictionary (``memory.Memory``) pass one contract test, and the
tests of the claim protocol step through a run by intercepting these calls. Names are those of ``layout``.

Safety rests on one thing only: that creating a name exclusively has one winner. That holds on ext4, NFS,
sshfs and gluster, where flock, mtime and append do not.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, Protocol

from jimmy_manager.errors import StoreError, UnreadableRecord

CHUNK = 1 << 20


class Content(NamedTuple):
    """Size in bytes and SHA-256 of a file's content."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Content:
        """The content ``data``."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


class PendingWrite(StoreError):
    """A failed write whose scratch file could not be removed, so it may still take effect later.

    Its writer must not write this name again: a later state could be replaced by this older one.
    """


class Files(Protocol):
    """Operations on names; every write is whole or not there, and durable when the call returns."""

    def names(self, folder: str) -> list[str]:
        """The names in ``folder`` ("" for the top) in no order, without the folder; empty where there is none."""

    def freshen(self, folder: str) -> None:
        """See to it that the next listing of ``folder`` is no older than ``stale_s``, also where a client tells by time
        stamps alone that a folder has changed, and so may miss the second change in a tick of the server's clock.
        """

    def read(self, name: str) -> bytes:
        """The content of a small file; ``FileNotFoundError`` or another ``OSError`` where it cannot be had."""

    def open(self, name: str) -> BinaryIO:
        """A file to read from, for contents that are verified in a stream; errors as ``read``."""

    def create(self, name: str, data: bytes) -> bool:
        """Put ``data`` under ``name`` unless the name is taken; return whether ``data`` stands there now.

        Of any number of callers on any hosts one wins. ``data`` that is already there to the letter counts
        as won: this is how a lost reply is told from a lost race, so contenders put different bytes.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Put ``data`` under ``name``, in place of what stands there; readers see the old or the new.

        A ``StoreError`` does not mean that nothing happened (a failing directory fsync follows a rename
        that is visible): read the name to know. ``PendingWrite`` means that it may still happen.
        """

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        """Let ``fill`` write the content of the new file ``name`` and return its size and digest."""

    def copy(self, source: str, name: str) -> None:
        """Give the content of ``source`` the second name ``name``: a hard link where possible, else a copy."""

    def remove(self, name: str) -> bool:
        """Remove ``name``; return whether it was there."""

    def move(self, name: str, target: str) -> None:
        """Give the file ``name`` the name ``target``, which nobody else uses; no error where it is gone."""

    def size(self, name: str) -> int:
        """The size of a file in bytes; ``FileNotFoundError`` where there is none."""


def digest(file: BinaryIO) -> Content:
    """Size and digest of what remains to be read in ``file``."""
    state, size = hashlib.sha256(), 0
    while part := file.read(CHUNK):
        state.update(part)
        size += len(part)
    return Content(size, state.hexdigest())


def store_error(action: str, path: str, error: OSError) -> StoreError:
    """``error`` as a ``StoreError`` that says what failed, where and why, and keeps its ``errno``."""
    advice = {
        errno.ENOSPC: "; free some space, then start again: nothing that was committed is lost",
        errno.EDQUOT: "; your quota is used up: free some space, then start again",
        errno.EROFS: "; open the store with read_only=True to look at it",
        errno.EACCES: "; check the permissions of the directory",
    }.get(error.errno or 0, "")
    wrapped = StoreError(f"cannot {action} {path}: {error.strerror or error}{advice}")
    wrapped.errno = error.errno
    return wrapped


def unreadable(name: str, error: OSError) -> UnreadableRecord:
    """``error`` as an ``UnreadableRecord`` of the record ``name``, with its ``errno``."""
    wrapped = UnreadableRecord(f"cannot read {name}: {error.strerror or error}")
    wrapped.errno = error.errno
    return wrapped
