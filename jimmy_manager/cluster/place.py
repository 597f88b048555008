"""The file operations that claims rest on, each tried once in one folder, as the file system answers it.

The seam of the doctor: a test puts a folder with two winners in its place.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Self

from jimmy_manager import modes
from jimmy_manager.archives import layout
from jimmy_manager.archives.files import store_error

WON, LOST = "won", "lost"
_TRIES = 3
_AGAIN_S = 0.2


class Place:
    """One folder, given by its path; what is made in it is its group's where the folder around it is shared.

    The races return ``WON``, ``LOST`` or the name of an error that decided nothing. As for a claim, an error is not
    believed: sshfs says EPERM for EEXIST, and NFS may lose the reply to what was done. The content decides.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(root)

    def path(self, name: str) -> str:
        """Where ``name`` is."""
        return f"{self.root}/{name}"

    def below(self, name: str) -> Self:
        """The folder ``name`` in this one, made or not."""
        return type(self)(self.path(name))

    def make(self) -> Self:
        """Make this folder, unless it is there; ``StoreError`` where that is refused."""
        try:
            modes.make_folders(self.root)
        except OSError as error:
            raise store_error("make", self.root, error) from error
        return self

    # Races: of all who call one of them with one name, one wins.

    def create(self, name: str, data: bytes) -> str:
        try:
            self._write(self.path(name), data)
        except OSError as error:
            return self._judge(name, data, error)
        return WON

    def link(self, source: str, name: str, data: bytes) -> str:
        """Link ``source``, which holds ``data``, to ``name``."""
        try:
            os.link(self.path(source), self.path(name))
        except OSError as error:
            return self._judge(name, data, error)
        return WON

    def mkdir(self, name: str) -> str:
        try:
            os.mkdir(self.path(name))
        except OSError as error:
            return LOST if error.errno == errno.EEXIST or name in self.names() else _code(error)
        return WON

    def take(self, name: str, target: str) -> str:
        """Rename ``name`` away to ``target``, which nobody else uses."""
        try:
            os.rename(self.path(name), self.path(target))
        except OSError as error:
            return LOST if error.errno == errno.ENOENT else _code(error)
        return WON

    # What one does and another looks for.

    def names(self) -> list[str]:
        """What is listed here; nothing where the folder is not there, or not any more."""
        try:
            return os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error.errno == errno.ESTALE:
                return []
            raise store_error("list", self.root, error) from error

    def read(self, name: str) -> bytes | None:
        """The content of ``name``; None where it is not to be had."""
        try:
            return Path(self.path(name)).read_bytes()
        except OSError:
            return None

    def mtime(self, name: str) -> float:
        """When ``name`` was changed, as told here; 0 where it is not to be had."""
        try:
            return os.stat(self.path(name)).st_mtime
        except OSError:
            return 0.0

    def put(self, name: str, data: bytes) -> None:
        """Put ``data`` under ``name`` as the store does: whole under a scratch name, made durable, renamed."""
        scratch = layout.scratch(name)
        try:
            self._write(self.path(scratch), data)
            os.rename(self.path(scratch), self.path(name))
        except OSError as error:
            raise store_error("write", self.path(name), error) from error

    def touch(self, name: str, at: float) -> None:
        """Let ``name`` have been changed ``at`` that time."""
        os.utime(self.path(name), (at, at))

    def append(self, name: str, line: bytes) -> None:
        """Add ``line`` to the end of ``name``, which is there."""
        try:
            descriptor = os.open(self.path(name), os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise store_error("append to", self.path(name), error) from error

    def remove(self, name: str) -> None:
        """Remove ``name``, if it is there."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise store_error("remove", self.path(name), error) from error

    def clear(self) -> None:
        """Remove this folder with all in it, as far as that succeeds, and the one around it where it is empty then."""
        for _ in range(_TRIES):
            shutil.rmtree(self.root, ignore_errors=True)
            if not os.path.isdir(self.root):
                break
            time.sleep(_AGAIN_S)  # NFS keeps removed files that are still open, and the other node may be at it
        try:
            os.rmdir(os.path.dirname(self.root))
        except OSError:
            pass  # another doctor is at work in it

    def _judge(self, name: str, data: bytes, error: OSError) -> str:
        standing = self.read(name)
        if standing == data:
            return WON
        return LOST if standing is not None or error.errno == errno.EEXIST else _code(error)

    def _write(self, path: str, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, modes.FILE)
        try:
            if modes.is_shared(self.root):
                modes.give(descriptor, modes.FILE)
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))
