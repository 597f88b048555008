"""Files that can only be looked at: for people who read a store, and for read-only mounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NoReturn

from jimmy_manager.archives.files import Content, Files
from jimmy_manager.errors import ReadOnlyStore, UnsafeStore


class ReadOnly:
    """The files of ``below``; every write raises ``ReadOnlyStore`` before anything is touched.

    ``refused`` says why the doctor forbids to write at all: then it is ``UnsafeStore`` that is raised.
    """

    def __init__(self, below: Files, refused: str = "") -> None:
        self._refused = refused
        self.names = below.names
        self.read = below.read
        self.open = below.open
        self.size = below.size

    def freshen(self, folder: str) -> None:
        """Who only looks promises nothing by it, and touches nothing."""

    def create(self, name: str, data: bytes) -> bool:
        self._refuse(name)

    def replace(self, name: str, data: bytes) -> None:
        self._refuse(name)

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        self._refuse(name)

    def copy(self, source: str, name: str) -> None:
        self._refuse(name)

    def move(self, name: str, target: str) -> None:
        self._refuse(name)

    def remove(self, name: str) -> bool:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        if self._refused:
            raise unsafe(f"cannot write {name}", self._refused)
        raise ReadOnlyStore(
            f"cannot write {name}: the store was opened read-only; open it without read_only=True to write"
        )


def unsafe(what: str, refused: str) -> UnsafeStore:
    """The error for ``what`` a store does not do because the doctor found that claims are not safe in it."""
    return UnsafeStore(
        f"{what}: {refused}; move the store to another file system, or have this one mended, and let 'jimmy doctor "
        "--peer' examine it again on two nodes"
    )
