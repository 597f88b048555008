"""Requests that workers save and leave; ``jimmy stop`` makes them, and no signal has to reach another host.

=========================  ====================================================================================
``claims/ab/KEY.g3.stop``  asks the owner of generation 3, and nobody else: it is created once, and generation 4 has
                           another name. The owner meets it in the listings that it makes anyway, and removes it when
                           it ends its claim; what is left of one that died is swept.
``stop.json``              asks everybody who works at that moment, also those that only wait: each request puts a new
                           random token there, and a worker leaves when it finds another one than at its start.
=========================  ====================================================================================

Neither ends a claim: whoever is asked saves at the next step or epoch, and releases it.
"""

from __future__ import annotations

import getpass
import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives import layout
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.files import Files
from jimmy_manager.archives.owner import is_provably_dead
from jimmy_manager.archives.record import seal, unseal
from jimmy_manager.errors import DamagedRecord, RecordError, StoreError, StoreTooNew

if TYPE_CHECKING:
    from jimmy_manager.archives.claims import Claims

log = logging.getLogger(__name__)


def ask_owner(files: Files, clock: Clock, key: str, generation: int) -> bool:
    """Ask the owner of one generation to stop; False where somebody has done so already."""
    return files.create(layout.stop(key, generation), seal("stop", _signed(clock)))


def ask_everybody(files: Files, clock: Clock) -> None:
    """Ask every worker of the store that has begun to stop."""
    files.replace(layout.STOP_FILE, seal("stop", _signed(clock)))


def withdraw(files: Files, key: str, generation: int) -> None:
    """Remove the request to an owner that has stopped, if there is one."""
    try:
        files.remove(layout.stop(key, generation))
    except StoreError as error:  # it asks nobody any more, and is swept later
        log.warning("%s", error)


def is_over(claims: Claims, key: str, generation: int) -> bool:
    """Whether the owner of one generation holds it no more, so that a request to it asks nobody."""
    trace = claims.look(key)
    if trace.top > generation:
        return True
    try:
        record = claims.read(key, generation) if generation in trace.claims else None
        return record is not None and (record.state != "held" or is_provably_dead(record.owner))
    except (RecordError, StoreTooNew):
        return False


class Stops:
    """What one worker hears of the requests to everybody; those from before it was made are not for it."""

    def __init__(self, files: Files, clock: Clock, every_s: float) -> None:
        self._files = files
        self._clock = clock
        self._every_s = every_s
        self._lock = threading.Lock()
        self._is_there = False
        self._first = self._newest = self._read_first()
        self._looked = self._asked = clock.monotonic()

    def is_everybody_asked(self) -> bool:
        """Whether all workers were asked to stop since this one began; it looks every ``every_s`` at the most."""
        with self._lock:
            self._asked = self._clock.monotonic()
            if self.due_s() <= 0:
                self._looked = self._asked
                newest = self._read()
                self._newest = self._newest if newest is None else newest
                self._first = self._newest if self._first is None else self._first
            return self._newest != self._first

    def hears_on(self) -> bool:
        """Whether what begins now is still the same work, as the last question was a moment ago.

        So runs that are shorter than ``every_s``, each in a call of its own, do not miss what is asked meanwhile.
        """
        with self._lock:
            return self._clock.monotonic() < self._asked + 2 * self._every_s

    def due_s(self) -> float:
        """Seconds until the next look at the store."""
        return self._looked + self._every_s - self._clock.monotonic()

    def _read_first(self) -> str | None:
        """Both ways in which a name can be found: on NFS an earlier miss lasts for 30 s, on sshfs an old listing does.

        A request from before that was missed here would stop this worker as soon as it is seen.
        """
        try:
            return self._read_token()
        except OSError:
            return self._read()

    def _read(self) -> str | None:
        """The token that stands there, empty where there is none; None where that cannot be told."""
        try:
            # By its listing: opened too early, a name stays missing.
            self._is_there = self._is_there or layout.STOP_FILE in self._files.names("")
            return self._read_token() if self._is_there else ""
        except OSError as error:
            log.debug("%s: %s", layout.STOP_FILE, error)
            return None

    def _read_token(self) -> str | None:
        raw = self._files.read(layout.STOP_FILE)
        self._is_there = True
        try:
            return str(unseal("stop", raw, layout.STOP_FILE)["token"])
        except (KeyError, DamagedRecord, StoreTooNew) as error:
            log.debug("%s: %s", layout.STOP_FILE, error)
            return None


def _signed(clock: Clock) -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container knows no name for the number it was started with
        user = ""
    by = f"{user}@{socket.gethostname()}"
    return {"token": secrets.token_hex(8), "by": by, "at": round(clock.now(), 3)}
