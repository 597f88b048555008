"""What rank 0 and the other ranks have in common: their lines, and a thread that listens beside the hooks."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from jimmy_manager.errors import HookError, Stopped
from jimmy_manager.manager.rank_group import Group
from jimmy_manager.manager.rank_line import Line, Place, lines, rendezvous
from jimmy_manager.manager.ranks import Alone

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

T = TypeVar("T")

TICK_S = 0.2
FORCE_S = 10.0
"""How long a rank may hang after it was told to leave."""


class Member(Alone):
    """One of several ranks. Everything that both threads touch is guarded by ``_changed``."""

    def __init__(self, place: Place, device: str) -> None:
        store = rendezvous()
        self.place = place
        meeting, self._lines = lines(place, store)
        self._group = Group(place, meeting, store, device)
        self._changed = threading.Condition()
        self._manager: Manager | None = None
        self._is_in_step = False
        self._lost = ""
        # A data loader's process would hold the lines open, and this one never be missed.
        os.register_at_fork(after_in_child=self._close)
        self._listener = threading.Thread(target=self._listen, name="ranks", daemon=True)
        self._listener.start()

    def take_part(self, manager: Manager, call: str, work: Callable[[], T]) -> T:
        """Do the part of this rank in one call of ``process`` or ``batch``."""
        raise NotImplementedError

    @contextmanager
    def _joined(self, manager: Manager) -> Iterator[None]:
        if self._manager is not None:
            raise HookError(f"{self.place.name()} trains in this moment; a hook cannot train in another Manager")
        with manager.stop.installed():
            self._manager, manager._team = manager, self
            try:
                yield
            finally:
                self._manager, manager._team = None, Alone()

    def _wait(self, is_due: Callable[[], bool]) -> None:
        """Wait until the other thread has brought about what ``is_due``; signals are heard meanwhile."""
        with self._changed:
            while not is_due():
                if not self._listener.is_alive():
                    raise Stopped(f"{self.place.name()} hears nothing any more, as its listening thread has failed")
                self._changed.wait(TICK_S)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for line in self._lines.values():
                selector.register(line, selectors.EVENT_READ, line.rank)
            while True:
                for key, _ in selector.select(TICK_S):
                    self._receive(selector, self._lines[key.data])
                with self._changed:
                    self._tick(time.monotonic())
                    self._changed.notify_all()

    def _receive(self, selector: selectors.BaseSelector, line: Line) -> None:
        messages = line.receive()
        with self._changed:
            if messages is None:
                selector.unregister(line)
                self._miss(line.rank)
            for message in messages or ():
                self._hear(line.rank, message)

    def _abort(self) -> None:
        """Abort the process group, in a thread of its own: that may hang like what it is to end."""
        threading.Thread(target=self._group.abort, name="abort", daemon=True).start()

    def _hear(self, rank: int, message: dict[str, Any]) -> None:
        """A message came from ``rank``."""
        raise NotImplementedError

    def _miss(self, rank: int) -> None:
        """``rank`` is gone."""
        raise NotImplementedError

    def _tick(self, now: float) -> None:
        """A short time has passed."""
        raise NotImplementedError

    def _close(self) -> None:
        for line in self._lines.values():
            line.close()
