"""``store.schema``: what fields that configurations gain, lose and rename mean for the runs from before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jimmy_manager import yaml12

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store
    from jimmy_manager.values import Plain


class Schema:
    """The schema ledger of one store, to be edited; what is entered holds for everybody who uses the store.

    Each edit raises ``SchemaError`` where it makes no sense, or would make one run of two.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, field: str, value: Any, into: str = "") -> None:
        """Runs from before ``field`` behave as ``field = value``, and keep their keys.

        ``into`` is the mapping that they have already, without the field.
        """
        self._store.edit_schema("add", field, value, into)

    def rename(self, old: str, new: str) -> None:
        """The field or mapping ``old`` is called ``new`` from now on."""
        self._store.edit_schema("rename", old, new)

    def remove(self, field: str, value: Any, into: str = "") -> None:
        """Configurations no longer have ``field``, and mean ``field = value``; ``into`` is the mapping that stays."""
        self._store.edit_schema("remove", field, value, into)

    def undo(self) -> None:
        """Take the newest entry back: runs show again what is stored of them."""
        self._store.edit_schema("undo")

    def list(self) -> list[dict[str, Plain]]:
        """The entries, oldest first, as ``store.yaml`` holds them."""
        self._store.refresh()
        return self._store.ledger.to_list()

    def __repr__(self) -> str:
        lines = [told(entry) for entry in self.list()]
        return "\n".join(lines) or "no field was added, renamed or removed since the first run"


def told(entry: Mapping[str, Any]) -> str:
    """One entry in a sentence.

    >>> told({"add": "clip", "value": 0})
    'clip was added; runs from before behave as clip = 0'
    """
    if "rename" in entry:
        return f"{entry['rename']} is called {entry['to']}"
    value = yaml12.dump(entry["value"]).strip()
    if "add" in entry:
        return f"{entry['add']} was added; runs from before behave as {entry['add']} = {value}"
    return f"{entry['remove']} was removed; configurations without it mean {entry['remove']} = {value}"
