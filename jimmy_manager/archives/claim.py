"""One claim in the hands of its owner: kept alive by a heartbeat, checked before and after each write."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives import layout, stops
from jimmy_manager.archives.files import PendingWrite
from jimmy_manager.errors import ClaimLost, RecordError, StoreError

if TYPE_CHECKING:
    from jimmy_manager.archives.claims import ClaimRecord, Claims

log = logging.getLogger(__name__)

_STOP_POLL_S = 1.0
_LIVE: set[tuple[int, str]] = set()


def is_live(token: str) -> bool:
    """Whether the claim with ``token`` is held by an object of this very process."""
    return (os.getpid(), token) in _LIVE


class Claim:
    """The right of this process to write one generation of a run, for as long as ``check`` returns.

    The lease bounds how long two workers may run side by side; safety does not rest on it.
    """

    def __init__(self, claims: Claims, record: ClaimRecord) -> None:
        self.key = record.key
        self.generation = record.generation
        self.record = record
        self._claims = claims
        self._clock = claims.clock
        self._lock = threading.RLock()
        self._is_stopping: Callable[[], bool] = lambda: False
        self._leave: Callable[[], None] = lambda: None
        self._is_asked = False
        self._lost: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.taken_at = self._renewed_at = self._clock.monotonic()
        _LIVE.add((os.getpid(), record.token))

    @property
    def claims(self) -> Claims:
        """The claims of the store, as this worker sees them."""
        return self._claims

    def check(self) -> None:
        """Return while this claim is the highest one and its lease is renewed; else raise ``ClaimLost``."""
        if self._lost is None and self._is_overdue():
            self._lost = f"its lease of {self.record.lease_s:g} s ended before it could be renewed"
        if self._lost is None:
            self._claims.freshen(self.key)
            self._lost = self._superseded()
        if self._lost is not None:
            raise ClaimLost(f"generation {self.generation} of run {self.key} is lost: {self._lost}")

    def renew(self) -> None:
        """Raise the heartbeat counter on disk, where the claim is still this one."""
        with self._lock:
            if self._ended.is_set() or self._lost is not None:
                return
            started = self._clock.monotonic()
            if self._is_overdue():
                self._lost = f"its lease of {self.record.lease_s:g} s ended before it could be renewed"
            elif self._claims.read(self.key, self.generation).token != self.record.token:
                self._lost = "its claim file holds another token"
            else:
                self._lost = self._superseded()
            if self._lost is None:
                self._replace(self.record._replace(beat=self.record.beat + 1, stopping=self._is_stopping()))
                self._renewed_at = started

    def start_heartbeat(
        self, is_stopping: Callable[[], bool] = lambda: False, leave: Callable[[], None] = lambda: None
    ) -> None:
        """Renew in the background every ``heartbeat_s`` until the claim ends.

        Once ``is_stopping`` is true the claim says so within a second: whoever is killed after that did not crash.
        ``leave`` is called, within a heartbeat, when somebody asked this owner or all workers to stop.
        """
        self._is_stopping, self._leave = is_stopping, leave
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {self.key}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let anybody claim the next generation at once; a lost claim is left as it is."""
        self._end("released")

    def fail(self, error: dict[str, Any]) -> None:
        """Mark the run failed with ``error`` (``type``, ``message``, ``traceback``) until a person asks for a retry."""
        self._end("failed", error)

    def restore(self) -> None:
        """Leave the run standing as it was found; for a ``task``, which trains nothing."""
        self._end(self.record.found_at_rest, self.record.error)

    def drop(self) -> None:
        """Stop the heartbeat and write nothing: the claim is lost, or another one ends it."""
        self._ended.set()
        _LIVE.discard((os.getpid(), self.record.token))
        # The thread may hang in a file system that does not answer; it is a daemon and writes nothing more.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)
        if self._is_asked:
            self._is_asked = False
            self._leave()  # the run may have ended before the next heartbeat: its owner is asked all the same
            stops.withdraw(self._claims.files, self.key, self.generation)

    def _end(self, state: str, error: dict[str, Any] | None = None) -> None:
        self._ended.set()
        try:
            with self._lock:
                if self._lost is None and self._superseded() is None:
                    self._replace(self.record._replace(state=state, error=error, stopping=self._is_stopping()))
        finally:
            self.drop()

    def _superseded(self) -> str | None:
        """Why this generation is no longer the highest one, or None; the same listing shows a request to stop."""
        trace = self._claims.look(self.key)
        self._is_asked = self._is_asked or self.generation in trace.stops
        return f"generation {trace.top} was claimed after it" if trace.top > self.generation else None

    def _is_overdue(self) -> bool:
        return self._clock.monotonic() - self._renewed_at >= self.record.lease_s

    def _replace(self, record: ClaimRecord) -> None:
        try:
            self._claims.files.replace(layout.claim(self.key, self.generation), record.seal())
        except PendingWrite as error:
            self._lost = f"an earlier state of its claim may still come back: {error}"
            raise
        self.record = record

    def _beat(self) -> None:
        due = self._clock.monotonic() + self._claims.heartbeat_s
        while not self._ended.wait(min(_STOP_POLL_S, self._claims.heartbeat_s)):
            if self._is_asked:
                self._leave()
            told = self.record.stopping or not self._is_stopping()
            if told and self._clock.monotonic() < due:
                continue
            due = self._clock.monotonic() + self._claims.heartbeat_s
            try:
                self.renew()
            except (StoreError, RecordError) as error:
                # The next beat tries again; when none succeeds, check() stops the owner before the lease ends.
                log.warning("heartbeat of run %s: %s", self.key, error)
            requests = self._claims.stops
            if requests is not None and requests.is_everybody_asked():
                self._leave()
