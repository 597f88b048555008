"""A store without a disk: the operations of ``Files`` on a dictionary, for tries and for tests."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import BinaryIO

from jimmy_manager.archives.files import Content


class Memory:
    """Files that live as long as this object; contents are bytes, so nothing in them aliases the caller's."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, bytes]] = {}
        self._lock = threading.Lock()

    def names(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        with self._lock:
            below = {path[len(prefix) :].split("/")[0] for path in self._folders if path and path.startswith(prefix)}
            below.discard("")
            return [*self._folders.get(folder, ()), *below]

    def freshen(self, folder: str) -> None:
        """Nothing here is ever old."""

    def read(self, name: str) -> bytes:
        folder, _, last = name.rpartition("/")
        try:
            return self._folders[folder][last]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.read(name))

    def size(self, name: str) -> int:
        return len(self.read(name))

    def create(self, name: str, data: bytes) -> bool:
        folder, _, last = name.rpartition("/")
        with self._lock:
            return self._folders.setdefault(folder, {}).setdefault(last, data) == data

    def replace(self, name: str, data: bytes) -> None:
        folder, _, last = name.rpartition("/")
        with self._lock:
            self._folders.setdefault(folder, {})[last] = data

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        file = io.BytesIO()
        fill(file)
        data = file.getvalue()
        self.replace(name, data)
        return Content.of(data)

    def copy(self, source: str, name: str) -> None:
        self.replace(name, self.read(source))

    def remove(self, name: str) -> bool:
        folder, _, last = name.rpartition("/")
        with self._lock:
            return self._folders.get(folder, {}).pop(last, None) is not None

    def move(self, name: str, target: str) -> None:
        try:
            data = self.read(name)
        except FileNotFoundError:
            return
        self.replace(target, data)
        self.remove(name)
