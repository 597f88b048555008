"""Lines between rank 0 and the other ranks of one job: a TCP connection each, on which whole JSON messages go.

Not a process group of torch's: its calls wait for the others where nothing can interrupt them, give up after a fixed
time, and run pickles. A line can be listened to beside a hook that hangs, waits as long as rank 0 waits for other
workers, and ends at the moment at which the process at its other end does.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import threading
import time
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from jimmy_manager.errors import HookError

log = logging.getLogger(__name__)

JOIN_S = 300.0
"""How long ranks wait for each other before the first run: imports take minutes on a cold file system."""

_KEY, _WELCOME = "jimmy/line", "welcome"
_ANSWER_S = 10.0
_LARGEST = 1 << 26
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""A host that vanishes sends no farewell: after half a minute of silence the kernel ends the line."""


class Place(NamedTuple):
    """Which of how many processes this one is."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this is the process that claims, commits and tells."""
        return self.rank == 0

    def name(self, rank: int | None = None) -> str:
        """What this rank is called, or another one.

        >>> Place(0, 4).name(), Place(0, 4).name(2)
        ('rank 0 of 4', 'rank 2 of 4')
        """
        return f"rank {self.rank if rank is None else rank} of {self.size}"


def here() -> Place:
    """The place that ``torchrun`` gave this process, or whoever sets the same variables; the only one elsewhere."""
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return Place(0, 1)
    return Place(int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", "1")))


class Store(Protocol):
    """What of torch's rendezvous store is used."""

    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...


class Line:
    """One end of a connection, to ``rank``. May be used by several threads; one of them receives."""

    def __init__(self, connection: socket.socket, rank: int) -> None:
        self.rank = rank
        self._socket = connection
        self._lock = threading.Lock()
        self._rest = b""
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end in this process."""
        self._socket.close()

    def send(self, what: str, **more: Any) -> None:
        """Send a message; where nobody is at the other end any more, receiving will tell."""
        data = json.dumps({"what": what, **more}, separators=(",", ":")).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(data)

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have come, waiting for some bytes at least; None once the other end is gone."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            return None
        if not data or len(self._rest) + len(data) > _LARGEST:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(each) for each in whole]


def rendezvous() -> Any:
    """Torch's store for the processes of this job, by which they find each other."""
    from torch.distributed.rendezvous import rendezvous as meet

    store, _, _ = next(meet("env://", timeout=timedelta(seconds=JOIN_S)))
    return store


def lines(place: Place, store: Store) -> tuple[str, dict[int, Line]]:
    """A name for this meeting, and rank 0 connected with every other rank, each of them with rank 0.

    Raises ``HookError`` where one does not come.
    """
    if place.is_first:
        return _listen(place, store)
    meeting, line = _call(place, store)
    return meeting, {0: line}


def _listen(place: Place, store: Store) -> tuple[str, dict[int, Line]]:
    token = secrets.token_hex(16)
    found: dict[int, Line] = {}
    deadline = time.monotonic() + JOIN_S
    with _server(place) as server:
        host = "127.0.0.1" if _is_one_host(place) else os.environ["MASTER_ADDR"]
        store.set(_KEY, f"{host} {server.getsockname()[1]} {token}")
        while len(found) < place.size - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = ", ".join(str(rank) for rank in range(1, place.size) if rank not in found)
                raise HookError(
                    f"of {place.size} ranks, {missing} did not begin to train within {JOIN_S:g} s; each has to call "
                    "process(), batch() or sweep() as often as rank 0 does"
                ) from None
            rank = _greeted(connection, token)
            if rank is None or not 0 < rank < place.size or rank in found:
                connection.close()
            else:
                connection.sendall(f"{_WELCOME}\n".encode())
                found[rank] = Line(connection, rank)
    return token, found


def _is_one_host(place: Place) -> bool:
    return os.environ.get("LOCAL_WORLD_SIZE") == str(place.size)


def _server(place: Place) -> socket.socket:
    """Listen to this host alone, or to all where there are others: the own name may well mean a loopback here."""
    if _is_one_host(place):
        return socket.create_server(("127.0.0.1", 0), backlog=128)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    return socket.create_server(("", 0), backlog=128)


def _greeted(connection: socket.socket, token: str) -> int | None:
    """The rank that the other end says it is; None for one that does not know the token."""
    connection.settimeout(_ANSWER_S)
    try:
        given, _, rank = _line_of(connection).partition(" ")
    except OSError:
        return None
    return int(rank) if hmac.compare_digest(given.encode(), token.encode()) and rank.isdecimal() else None


def _call(place: Place, store: Store) -> tuple[str, Line]:
    """Find rank 0; what the store tells of it may be of an earlier attempt, until rank 0 of this one has come."""
    deadline = time.monotonic() + JOIN_S
    while True:
        host, port, token = store.get(_KEY).decode().split()
        try:
            connection = socket.create_connection((host, int(port)), timeout=_ANSWER_S)
            connection.sendall(f"{token} {place.rank}\n".encode())
            if _line_of(connection) == _WELCOME:
                return token, Line(connection, 0)
            connection.close()
        except OSError as error:
            log.debug("%s at %s, port %s: %s", place.name(0), host, port, error)
        if time.monotonic() > deadline:
            raise HookError(f"{place.name()} cannot reach rank 0 at {host}, port {port}; may the hosts talk?")
        time.sleep(0.2)


def _line_of(connection: socket.socket) -> str:
    """A first short line that the other end sends."""
    said = b""
    while not said.endswith(b"\n") and len(said) < 100 and (more := connection.recv(100)):
        said += more
    return said.decode("ascii", "replace").strip()
