"""The operations of ``Files`` on a directory of any file system that has one winner for an exclusive creation.

What the file system answers is not believed where it is known to lie: after an error the name itself is read.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from jimmy_manager import modes
from jimmy_manager.archives import filesystem, layout
from jimmy_manager.archives.files import CHUNK, Content, PendingWrite, digest, store_error
from jimmy_manager.errors import JimmyError, StoreError

if TYPE_CHECKING:
    import filelock

T = TypeVar("T")
log = logging.getLogger(__name__)

_RETRIES = 5
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES, errno.EINVAL}


class Disk:
    """Files under a directory of any file system that has one winner for an exclusive creation.

    ``durable=False`` leaves out the fsyncs: what is written survives a killed process, not a power cut. Where
    ``shared`` is set, be it later, the group may read and write all that is made; else the umask decides.
    """

    def __init__(self, root: str | os.PathLike[str], *, durable: bool = True, shared: bool = False) -> None:
        # Absolute: a job that changes its working directory keeps its store.
        self.root = str(Path(root).absolute())
        self.durable = durable
        self.shared = shared

    def path(self, name: str) -> str:
        """Where ``name`` is."""
        return f"{self.root}/{name}"

    def names(self, folder: str) -> list[str]:
        names = self._list(folder)
        if names is None and folder:
            # NFS goes on saying for 30 s that a name is missing, unless its folder is listed: that asks the server.
            parent, _, name = folder.rpartition("/")
            names = self._list(folder) if name in self.names(parent) else None
        return names or []

    def freshen(self, folder: str) -> None:
        if self._tells_by_time_stamps:
            try:
                _retry_stale(lambda: os.utime(self.path(folder)))  # a change of one's own, after which a client asks
            except FileNotFoundError:
                pass  # a listing asks for it anyway
            except OSError as error:
                raise store_error("touch", self.path(folder), error) from error

    @functools.cached_property
    def _tells_by_time_stamps(self) -> bool:
        return filesystem.tells_by_time_stamps(filesystem.kind(self.root))

    def read(self, name: str) -> bytes:
        return _retry_stale(lambda: self._read(name))

    def open(self, name: str) -> BinaryIO:
        return _retry_stale(lambda: open(self.path(name), "rb"))

    def size(self, name: str) -> int:
        return _retry_stale(lambda: os.stat(self.path(name)).st_size)

    def create(self, name: str, data: bytes) -> bool:
        won = _write_again(lambda: self._create(name, data))
        if won:
            self._sync_folder(name)
        return won

    def replace(self, name: str, data: bytes) -> None:
        self.write(name, lambda file: _write_all(file, data))

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        content = _write_again(lambda: self._write(name, fill))
        self._sync_folder(name)
        return content

    def copy(self, source: str, name: str) -> None:
        self._make_folder(name)
        try:
            os.link(self.path(source), self.path(name))
        except FileNotFoundError:
            raise
        except OSError:
            # protected_hardlinks=1 refuses links to the files of others, some file systems all links; and over
            # a link that was made although its reply was lost, a copy does no harm.
            with self._open_to_copy(source) as original:
                self.write(name, lambda file: self._pump(original, file, source))
            return
        self._sync_folder(name)

    def remove(self, name: str) -> bool:
        try:
            _retry_stale(lambda: os.unlink(self.path(name)))
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

    def _list(self, folder: str) -> list[str] | None:
        """The names in a folder; None where it is missing, or a file."""
        try:
            return _retry_stale(lambda: os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error("list", self.path(folder), error) from error

    def _read(self, name: str) -> bytes:
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(descriptor, CHUNK):
                parts.append(part)
            return b"".join(parts)
        except OSError as error:
            error.filename = self.path(name)
            raise
        finally:
            os.close(descriptor)

    def _create(self, name: str, data: bytes) -> bool:
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
        return won

    def _decide(self, name: str, data: bytes, error: OSError) -> bool:
        standing = self._read_if_there(name)
        if standing is not None:
            return standing == data
        if error.errno == errno.EEXIST:  # taken, but not visible here yet
            return False
        if error.errno in _NO_LINKS:
            return self._create_without_link(name, data)
        raise store_error("create", self.path(name), error) from error

    def _create_without_link(self, name: str, data: bytes) -> bool:
        """The fallback: an exclusive open. A crash in it leaves a file that reads as damaged.

        What an error left half-written stays as well: a name that was taken once is never free again.
        """
        try:
            descriptor = self._open_exclusively(self.path(name))
        except FileExistsError:
            return self._read_if_there(name) == data
        except OSError as error:
            raise store_error("create", self.path(name), error) from error
        try:
            with open(descriptor, "wb", buffering=0) as file:
                _write_all(file, data)
                self._sync(file)
        except OSError as error:
            raise store_error("write", self.path(name), error) from error
        # While this writer slept, what it had not finished may have been moved aside as damaged.
        return self._read_if_there(name) == data

    def _read_if_there(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error("read", self.path(name), error) from error

    def _write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        scratch, content = self._write_scratch(name, fill)
        try:
            os.rename(self.path(scratch), self.path(name))
        except OSError as error:
            if not self._was_renamed(scratch, name, content, error):
                raise store_error("write", self.path(name), error) from error
        return content

    def _was_renamed(self, scratch: str, name: str, content: Content, error: OSError) -> bool:
        """Whether a rename that raised took effect all the same; without its scratch file it cannot later."""
        try:
            is_unmoved = self.remove(scratch)
        except StoreError as left:
            pending = PendingWrite(f"cannot write {self.path(name)}: {error.strerror or error}; {left}")
            pending.errno = error.errno
            raise pending from error
        if is_unmoved:
            return False
        try:
            with self.open(name) as file:
                return digest(file) == content
        except OSError:
            return False

    def _write_scratch(self, name: str, fill: Callable[[BinaryIO], None]) -> tuple[str, Content]:
        scratch = layout.scratch(name)
        digesting = _Digesting()
        try:
            descriptor = self._open_new(scratch)
            with open(descriptor, "wb", buffering=0) as raw:
                digesting.start(raw)
                fill(digesting)  # type: ignore[arg-type]  # it has the methods that writers call
                if digesting.error is not None:
                    raise digesting.error
                self._sync(raw)
            return scratch, digesting.content()
        except BaseException as error:
            self._discard(scratch, error)
            # torch says "unexpected pos 46 vs 0" where the disk is full: what the write itself said is the cause.
            cause = digesting.error or error
            if isinstance(cause, OSError) and not isinstance(cause, JimmyError):
                raise store_error("write", self.path(name), cause) from error
            raise

    def _open_new(self, scratch: str) -> int:
        try:
            return self._open_exclusively(self.path(scratch))
        except FileNotFoundError:
            self._make_folder(scratch)
            return self._open_exclusively(self.path(scratch))

    def _open_exclusively(self, path: str) -> int:
        mode = modes.FILE if self.shared else 0o666
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if self.shared:
            try:
                modes.give(descriptor, mode)
            except OSError:
                os.close(descriptor)
                raise
        return descriptor

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
                self._make_one(path)
            except FileExistsError:
                pass  # made by another process a moment ago, which may not have made it durable yet
            except OSError as error:
                raise store_error("create", path, error) from error
            self._sync_path(os.path.dirname(path))

    def _make_one(self, path: str) -> None:
        if self.shared and len(path) >= len(self.root):  # what is above the store is no business of its group
            modes.make_folder(path)
        else:
            os.mkdir(path)

    def share_root(self) -> None:
        """Open the directory itself to its group; one that is not there yet, and what is above it, is made."""
        try:
            self._make_folder(layout.STORE_FILE)
            modes.give(self.root, modes.FOLDER)
        except OSError as error:
            raise store_error("share", self.root, error) from error

    def lock(self, name: str, timeout_s: float) -> filelock.BaseFileLock:
        """A lock that serialises what is merely convenient to serialise: on some file systems it excludes nobody."""
        import filelock

        if self.shared:
            return filelock.FileLock(self.path(name), timeout=timeout_s, mode=modes.FILE)
        return filelock.FileLock(self.path(name), timeout=timeout_s)

    def _sync(self, file: BinaryIO) -> None:
        if self.durable:
            os.fsync(file.fileno())

    def _sync_folder(self, name: str) -> None:
        self._sync_path(os.path.dirname(self.path(name)))

    def _sync_path(self, folder: str) -> None:
        if not self.durable:
            return
        try:
            _retry_stale(lambda: _fsync_folder(folder))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no fsync of directories
                raise store_error("make durable", folder, error) from error

    def _open_to_copy(self, name: str) -> BinaryIO:
        try:
            return self.open(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise store_error("read", self.path(name), error) from error

    def _pump(self, source: BinaryIO, target: BinaryIO, name: str) -> None:
        while True:
            try:
                part = source.read(CHUNK)
            except OSError as error:
                raise store_error("read", self.path(name), error) from error
            if not part:
                return
            target.write(part)


class _Digesting:
    """A file to write to that digests what passes and remembers what went wrong; never seeks."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._hash = hashlib.sha256()
        self._size = 0

    def start(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        try:
            _write_all(self._file, view)
        except OSError as error:
            self.error = error
            raise
        self._hash.update(view)
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def content(self) -> Content:
        return Content(self._size, self._hash.hexdigest())


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    # An unbuffered write may take only a part (a full disk, a signal, NFS).
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _fsync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _retry_stale(operation: Callable[[], T]) -> T:
    """NFS answers ESTALE for a name that was replaced under it; asking anew is the cure, within bounds."""
    return _retry(operation, OSError, (errno.ESTALE,))


def _write_again(operation: Callable[[], T]) -> T:
    """Scratch files, and on NFS their folders, may vanish under a writer at any time: it writes again."""
    return _retry(operation, StoreError, (errno.ESTALE, errno.ENOENT))


def _retry(operation: Callable[[], T], kind: type[OSError], errnos: tuple[int, ...]) -> T:
    for attempt in range(_RETRIES):
        try:
            return operation()
        except kind as error:
            if error.errno not in errnos or isinstance(error, PendingWrite):
                raise
            time.sleep(0.01 * 2**attempt)
    return operation()
