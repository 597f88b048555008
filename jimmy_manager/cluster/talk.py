"""Messages between two nodes that share only a directory whose listings may lag.

Each message is a new file, whole before it has its name, which is found by listing: no name is looked up before it is
there, and none is written twice. A listing is asked for after a change of one's own, so that no client answers from
memory. Whoever leaves before the end removes the folder, which the other one notices.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from typing import Any

from jimmy_manager.cluster.place import Place
from jimmy_manager.errors import JimmyError, StoreError

SILENCE_S = 120.0
STOPPED = "the doctor on the other node was stopped; what it says there may tell why"
_EMPTY = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1


class PeerLost(JimmyError):
    """The doctor on the other node has left, or gives no sign any more."""


class Talk:
    """The conversation of ``me`` and ``other`` in a folder of theirs."""

    def __init__(
        self, place: Place, me: str, other: str, *, silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = place
        self._me = me
        self._other = other
        self._silence_s = silence_s
        self._clock = clock
        self._sent = self._received = self._beat = self._empty = 0
        self._heard: tuple[str, ...] = ()
        self._heard_at = clock()

    def send(self, message: Any) -> None:
        """Say ``message``, plain values, to the other one."""
        self._sent += 1
        try:
            self.place.put(f"{self._me}.{self._sent}.json", json.dumps(message).encode())
        except StoreError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                raise PeerLost(STOPPED) from error
            raise

    def receive(self) -> Any:
        """The next message of the other one; ``PeerLost`` when there is no sign of it for two minutes."""
        self._received += 1
        name, pause_s = f"{self._other}.{self._received}.json", _FIRST_PAUSE_S
        self._heard_at = self._clock()
        while True:
            names = self._listed()
            raw = self.place.read(name) if name in names else None
            if raw:
                return json.loads(raw)
            self._empty = 0 if names else self._empty + 1
            if self._empty > _EMPTY:  # not even this one's own sign of life is there
                raise PeerLost(STOPPED)
            if self._clock() - self._heard_at > self._silence_s:
                raise PeerLost(f"the doctor on the other node has given no sign for {self._silence_s:g} s")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def swap(self, message: Any = None) -> Any:
        """Say ``message``, and return what the other one says at this point: neither goes on before both are here."""
        self.send(message)
        return self.receive()

    def stir(self) -> None:
        """Give a sign of life while there is nothing to say."""
        before, self._beat = self._beat, self._beat + 1
        self.place.create(f"{self._me}.{self._beat}.alive", b"")
        if before:
            self.place.remove(f"{self._me}.{before}.alive")

    def _listed(self) -> list[str]:
        self.stir()
        names = self.place.names()
        theirs = tuple(sorted(name for name in names if name.startswith(f"{self._other}.")))
        if theirs != self._heard:
            self._heard, self._heard_at = theirs, self._clock()
        return names

