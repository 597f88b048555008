"""Deliberately broken twins of what the promises rest on: the stress tests must catch each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from jimmy_manager import Manager
from jimmy_manager.archives import layout
from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.claims import Standing
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Content


def apply(twin: str, manager: Manager) -> None:
    """Break ``manager`` as ``twin`` says; nothing where it is empty."""
    if twin:
        files = manager.store.files
        assert isinstance(files, Disk)
        _TWINS[twin](manager, files)


def _check_then_rename(manager: Manager, files: Disk) -> None:
    """Creation that looks first and renames then: of two that looked, both win."""

    def create(name: str, data: bytes) -> bool:
        if name.rpartition("/")[2] in files.names(name.rpartition("/")[0]):
            return files.read(name) == data
        files.replace(name, data)
        return True

    files.create = create  # type: ignore[method-assign]


def _reuse_generation(manager: Manager, files: Disk) -> None:
    """A take-over that writes its own token into the claim of the one before, as lock files with a pid do."""
    claims = manager.store.claims
    create = files.create
    reused = set()

    def next_generation(standing: Standing) -> int:
        if standing.state not in ("dead", "dropped", "silent"):
            return standing.trace.top + 1
        reused.add(layout.claim(standing.key, standing.trace.top))
        return standing.trace.top

    def create_or_replace(name: str, data: bytes) -> bool:
        if name not in reused:
            return create(name, data)
        reused.discard(name)
        files.replace(name, data)
        return True

    claims.next_generation = next_generation  # type: ignore[method-assign]
    files.create = create_or_replace  # type: ignore[method-assign]


def _never_check(manager: Manager, files: Disk) -> None:
    """An owner that never looks whether it still is one; its process is a fork, so nobody else sees the change."""
    Claim.check = lambda self: None  # type: ignore[method-assign]


def _write_in_place(manager: Manager, files: Disk) -> None:
    """Writing without scratch file and rename: readers and crashes see halves."""

    def write(name: str, fill: Callable[[BinaryIO], None]) -> Content:
        class Counting:
            written = b""

            def write(self, data: bytes) -> int:
                self.written += bytes(data)
                return raw.write(data)

            def flush(self) -> None:
                pass

        counting = Counting()
        files._make_folder(name)
        with open(files.path(name), "wb", buffering=0) as raw:
            fill(counting)  # type: ignore[arg-type]
        return Content.of(counting.written)

    files.write = write  # type: ignore[method-assign]


def _believe_a_miss(manager: Manager, files: Disk) -> None:
    """A folder that was missing is taken to be so still, as NFS says for 30 s."""
    files.names = lambda folder: files._list(folder) or []  # type: ignore[method-assign]


_TWINS: dict[str, Callable[[Any, Disk], None]] = {
    "check then rename": _check_then_rename,
    "reuse generation": _reuse_generation,
    "never check": _never_check,
    "write in place": _write_in_place,
    "believe a miss": _believe_a_miss,
}
