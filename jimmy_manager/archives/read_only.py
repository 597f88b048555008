"""Files that can only be looked at: for people who read a store, and for read-only mounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NoReturn

from jimmy_manager.archives.files import Content, Files
from jimmy_manager.errors import ReadOnlyStore


class ReadOnly:
    """The files of ``below``; every write raises ``ReadOnlyStore`` before anything is touched."""

    def __init__(self, below: Files) -> None:
        self.names = below.names
        self.read = below.read
        self.open = below.open
        self.size = below.size

    def create(self, name: str, data: bytes) -> bool:
        _refuse(name)

    def replace(self, name: str, data: bytes) -> None:
        _refuse(name)

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        _refuse(name)

    def copy(self, source: str, name: str) -> None:
        _refuse(name)

    def move(self, name: str, target: str) -> None:
        _refuse(name)

    def remove(self, name: str) -> bool:
        _refuse(name)


def _refuse(name: str) -> NoReturn:
    raise ReadOnlyStore(f"cannot write {name}: the store was opened read-only; open it without read_only=True to write")
