"""What every worker would look at first, looked at once before any is queued."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives.store import Store
from jimmy_manager.errors import StoreError
from jimmy_manager.manager.admission import Admission

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_MOST_POINTS = 500


def rehearse(manager: Manager, points: Sequence[Mapping[str, Any]], new_fields: str = "ask") -> None:
    """Raise what a worker would raise before it trains: a store of another job, a configuration that is refused.

    Writes nothing. Of many configurations some are tried, evenly spread. ``manager`` is of no use afterwards.
    """
    store = manager.store
    check_place(store)
    step = max(1, len(points) // _MOST_POINTS)
    tried = [points[index] for index in range(0, len(points), step)]
    if store.exists and store.info.manager and new_fields == "ask":
        # A store that has a Manager is not changed by being admitted to it.
        tried = list(Admission(manager).whole(tried))
        for config in tried:
            store.find(config)
    manager.store = Store(None)
    admission = Admission(manager, "rerun")
    for config in tried:
        admission.register(admission.complete(config))


def check_place(store: Store) -> None:
    """Refuse, with ``StoreError``, a store that cannot be written or created here."""
    if store.directory is None:
        raise StoreError("a store in memory is seen by no other worker; name a directory")
    place = os.path.abspath(store.directory)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise StoreError(f"cannot use {store.directory!r} as a store: {place!r} is not a directory")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"cannot use {store.directory!r} as a store: {place!r} is not writable for you")
