"""The few file operations that a store is built on, and what each of them promises.

``Files`` is the seam: a directory (``Disk``) and a dictionary (``Memory``) pass one contract test, and the
tests of the claim protocol step through a run by intercepting these calls. Names are those of ``layout``.

Safety rests on one thing only: that creating a name exclusively has one winner. That holds on ext4, NFS,
sshfs and gluster, where flock, mtime and append do not.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

from jimmy_manager.archives import layout
from jimmy_manager.errors import StoreError

T = TypeVar("T")

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_STALE_RETRIES = 5
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES, errno.EINVAL}


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
        """The names in ``folder`` in no order, without the folder; empty where there is no such folder."""

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


class Disk:
    """Files under a directory of any file system that has one winner for an exclusive creation.

    ``durable=False`` leaves out the fsyncs: what is written survives a killed process, not a power cut.
    """

    def __init__(self, root: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.root = str(Path(root))
        self.durable = durable

    def path(self, name: str) -> str:
        """Where ``name`` is."""
        return f"{self.root}/{name}"

    def names(self, folder: str) -> list[str]:
        try:
            return _retry_stale(lambda: os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str) -> bytes:
        return _retry_stale(lambda: self._read(name))

    def open(self, name: str) -> BinaryIO:
        return _retry_stale(lambda: open(self.path(name), "rb"))

    def size(self, name: str) -> int:
        return _retry_stale(lambda: os.stat(self.path(name)).st_size)

    def create(self, name: str, data: bytes) -> bool:
        scratch = self._write_scratch(name, lambda file: _write_all(file, data))[0]
        try:
            os.link(self.path(scratch), self.path(name))
            won = True
        except OSError as error:
            # sshfs says EPERM for EEXIST, and NFS may lose the reply of a link that was made: the
            # name itself decides, not the error.
            try:
                won = self._decide(name, data, error)
            except StoreError as undecided:
                self._discard(scratch, undecided)
                raise
        try:
            self.remove(scratch)
        except StoreError as left:  # harmless: a second name of what was decided already
            log.warning("%s", left)
        if won:
            self._sync_folder(name)
        return won

    def replace(self, name: str, data: bytes) -> None:
        scratch = self._write_scratch(name, lambda file: _write_all(file, data))[0]
        self._rename(scratch, name, data)
        self._sync_folder(name)

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        scratch, content = self._write_scratch(name, fill)
        self._rename(scratch, name, None)
        self._sync_folder(name)
        return content

    def copy(self, source: str, name: str) -> None:
        self._make_folder(name)
        try:
            os.link(self.path(source), self.path(name))
        except FileNotFoundError:
            raise
        except OSError as error:
            # protected_hardlinks=1 refuses links to the files of others, some file systems all links.
            if error.errno not in _NO_LINKS:
                raise store_error("link", self.path(name), error) from error
            with self.open(source) as original:
                self.write(name, lambda file: _pump(original, file))
            return
        self._sync_folder(name)

    def remove(self, name: str) -> bool:
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise store_error("remove", self.path(name), error) from error
        return True

    def move(self, name: str, target: str) -> None:
        self._make_folder(target)
        try:
            os.rename(self.path(name), self.path(target))
        except FileNotFoundError:
            return
        except OSError as error:
            raise store_error("move", self.path(name), error) from error
        self._sync_folder(target)
        self._sync_folder(name)

    def _read(self, name: str) -> bytes:
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(descriptor, _CHUNK):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def _decide(self, name: str, data: bytes, error: OSError) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:
            if error.errno == errno.EEXIST:  # taken, but not visible here yet
                return False
        except OSError as unreadable:
            raise store_error("read", self.path(name), unreadable) from unreadable
        if error.errno in _NO_LINKS:
            return self._create_without_link(name, data)
        raise store_error("create", self.path(name), error) from error

    def _create_without_link(self, name: str, data: bytes) -> bool:
        """The fallback: an exclusive open. A crash in it leaves a file that reads as damaged."""
        try:
            descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return self.read(name) == data
        except OSError as error:
            raise store_error("create", self.path(name), error) from error
        try:
            with open(descriptor, "wb", buffering=0) as file:
                _write_all(file, data)
                self._sync(file)
        except OSError as error:
            raise store_error("write", self.path(name), error) from error
        # While this writer slept, what it had not finished may have been moved aside as damaged.
        return self.read(name) == data

    def _write_scratch(self, name: str, fill: Callable[[BinaryIO], None]) -> tuple[str, Content]:
        scratch = layout.scratch(name)
        try:
            descriptor = self._open_new(scratch)
            with open(descriptor, "wb", buffering=0) as raw:
                digesting = _Digesting(raw)
                fill(digesting)  # type: ignore[arg-type]  # it has the one method that writers call
                self._sync(raw)
            return scratch, digesting.content()
        except OSError as error:
            self._discard(scratch, error)
            raise store_error("write", self.path(name), error) from error
        except BaseException as error:
            self._discard(scratch, error)
            raise

    def _open_new(self, scratch: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(self.path(scratch), flags, 0o666)
        except FileNotFoundError:
            self._make_folder(scratch)
            return os.open(self.path(scratch), flags, 0o666)

    def _rename(self, scratch: str, name: str, data: bytes | None) -> None:
        try:
            os.rename(self.path(scratch), self.path(name))
        except OSError as error:
            if self._was_renamed(scratch, name, data, error):
                return
            raise store_error("write", self.path(name), error) from error

    def _was_renamed(self, scratch: str, name: str, data: bytes | None, error: OSError) -> bool:
        """Whether a rename that raised took effect all the same; without its scratch file it cannot later."""
        try:
            still_there = self.remove(scratch)
        except StoreError as left:
            raise PendingWrite(f"cannot write {self.path(name)}: {error.strerror}; {left}") from error
        if still_there:
            return False
        if data is None:
            return os.path.exists(self.path(name))
        return self.read(name) == data

    def _discard(self, scratch: str, error: BaseException) -> None:
        try:
            self.remove(scratch)
        except StoreError as left:  # the janitor removes it later; the first error is the one to tell
            error.add_note(str(left))

    def _make_folder(self, name: str) -> None:
        folder = os.path.dirname(self.path(name))
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            try:
                os.mkdir(path)
            except FileExistsError:
                continue
            except OSError as error:
                raise store_error("create", path, error) from error
            self._sync_path(os.path.dirname(path))

    def _sync(self, file: BinaryIO) -> None:
        if self.durable:
            os.fsync(file.fileno())

    def _sync_folder(self, name: str) -> None:
        self._sync_path(os.path.dirname(self.path(name)))

    def _sync_path(self, folder: str) -> None:
        if not self.durable:
            return
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file systems have no fsync of directories
                raise store_error("make durable", folder, error) from error


class _Digesting:
    """A file to write to that digests what passes; never seeks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        _write_all(self._file, view)
        self._hash.update(view)
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def content(self) -> Content:
        return Content(self._size, self._hash.hexdigest())


def digest(file: BinaryIO) -> Content:
    """Size and digest of what remains to be read in ``file``."""
    state, size = hashlib.sha256(), 0
    while part := file.read(_CHUNK):
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


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    # An unbuffered write may take only a part (a full disk, a signal, NFS).
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _pump(source: BinaryIO, target: BinaryIO) -> None:
    while part := source.read(_CHUNK):
        target.write(part)


def _retry_stale(operation: Callable[[], T]) -> T:
    """NFS answers ESTALE for a name that was replaced under it; asking anew is the cure, within bounds."""
    for attempt in range(_STALE_RETRIES):
        try:
            return operation()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(0.01 * 2**attempt)
    return operation()
