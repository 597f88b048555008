"""Folders that keep less than a store needs, in the place of a file system that does."""

from __future__ import annotations

import os
import threading
from typing import ClassVar

from jimmy_manager.cluster.place import WON, Place


class LateListings(Place):
    """Never lists a name that was made after the first look, unless it is one by which doctors talk."""

    _first: ClassVar[dict[str, set[str]]] = {}

    def names(self) -> list[str]:
        found = super().names()
        if "/listed-" not in self.root:
            return found
        first = self._first.setdefault(f"{threading.get_ident()}{self.root}", set(found))
        return [name for name in found if name in first]


class SharedLinks(Place):
    """Lets a link replace what stands there, so that everybody wins, but lets one alone win by O_EXCL."""

    def link(self, source: str, name: str, data: bytes) -> str:
        scratch = self.path(f".{threading.get_ident()}-{name}")
        os.link(self.path(source), scratch)
        os.replace(scratch, self.path(name))
        return WON


class NoLinks(Place):
    """Knows no links, as some file systems."""

    def link(self, source: str, name: str, data: bytes) -> str:
        return "ENOTSUP"


class SharedFiles(NoLinks):
    """Knows no links, and lets everybody win by O_EXCL."""

    def create(self, name: str, data: bytes) -> str:
        outcome = super().create(name, data)
        return WON if name.startswith("open-") else outcome
