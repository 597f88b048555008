"""A rank other than 0: takes the steps that rank 0 names, and commits nothing."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from jimmy_manager import errors, random_state
from jimmy_manager.archives.eval_log import EvalLog
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.history import Commit
from jimmy_manager.config import Config
from jimmy_manager.errors import JimmyError, Stopped
from jimmy_manager.manager import rank_states
from jimmy_manager.manager.rank_member import FORCE_S, Member
from jimmy_manager.manager.ranks import failure_of
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.manager.worker import describe

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

T = TypeVar("T")
log = logging.getLogger(__name__)

_OUTLAST_S = 5.0


class FollowedRun:
    """A run as the hooks of a rank see it that does not own it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.newest: Commit | None = None
        self.claim = self
        self.train_s = self.eval_s = 0.0
        self.saves = 0
        self.evals = EvalLog(None, 0)

    def check(self) -> None:
        """Return: whether the claim is lost is for rank 0 to know."""

    def commit(self, ckpt: Mapping[str, Any], preview: Mapping[str, Any], epoch: int, step: int = 0) -> None:
        """Write nothing: rank 0 does."""
        self.saves += 1


class Follower(Member):
    """A rank from 1."""

    def __init__(self, *place: Any) -> None:
        self._messages: deque[dict[str, Any]] = deque()
        self._run: FollowedRun | None = None
        self._number = 0
        self._deserted_at = 0.0
        self._has_told = False
        self._has_state = True
        super().__init__(*place)

    def take_part(self, manager: Manager, call: str, work: Callable[[], T]) -> T:
        """Follow rank 0 through one call, and return what it returns."""
        with self._joined(manager):
            self._has_told = False
            while True:
                message = self._next()
                what = message["what"]
                if what == "begin":
                    self._lines[0].send("began", call=call)
                elif what == "step":
                    self._take_step(manager, message)
                elif what == "desert":
                    self._group.leave()
                elif what == "renew":
                    self._group.renew(message["number"])
                else:
                    result: T = self._result(message)
                    return result

    def own(self, states: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """The random states of this rank; where it has none, it gets some of its own after this step."""
        found = super().own(states, key)
        self._has_state = found is not states
        return found

    def gathered(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Hand the states over; rank 0 saves them."""
        self._lines[0].send("states", number=self._number, states=rank_states.packed(states))
        return dict(states)

    def outlast(self) -> None:
        """Let rank 0 end first, for a few seconds: torchrun ends it with the first rank that ends in an error."""
        until = time.monotonic() + _OUTLAST_S
        self._wait(lambda: bool(self._lost) or time.monotonic() > until)

    # In the main thread

    def _next(self) -> dict[str, Any]:
        self._wait(lambda: bool(self._messages or self._lost))
        if not self._messages:
            raise Stopped(self._lost)
        return self._messages.popleft()

    def _take_step(self, manager: Manager, message: Mapping[str, Any]) -> None:
        step, self._number = message["name"], message["number"]
        with self._changed:
            self._is_in_step, self._deserted_at = True, 0.0
        try:
            value = self._call(manager, step, message)
        except (Exception, SystemExit) as raised:  # noqa: BLE001  # whatever a hook raises is judged by rank 0
            what, answer = "raised", {"error": describe(raised), "value": None}
        else:
            what, answer = "ended", {"value": value}
        with self._changed:
            self._is_in_step = False
        if step == "end":
            self._run = manager._run = None
        self._lines[0].send(what, **answer, number=self._number, epoch=manager.epoch)

    def _call(self, manager: Manager, step: str, message: Mapping[str, Any]) -> Any:
        if step == "setup":
            self._run = FollowedRun(message["key"])
            manager._run = self._run  # type: ignore[assignment]  # all of it that a hook can reach
            manager.config = Config(message["config"]).allow(manager.allowed_targets())
        if step == "load" and self._run is not None:
            self._run.newest = message["commit"] and _commit_of(message["commit"])
        self._has_state = step != "init"
        value = super().do(manager, self._run, step, **message["details"])
        if not self._has_state:
            random_state.seed(rank_states.seed_of(f"{manager.seed(manager.config)} {manager.epoch}", self.place.rank))
        return value

    def _result(self, message: Mapping[str, Any]) -> Any:
        if (error := message.get("error")) is not None:
            kind = getattr(errors, error["type"], None)
            if isinstance(kind, type) and issubclass(kind, JimmyError):
                raise kind(error["message"])
            raise failure_of(self.place.name(0), error)
        result = message["result"]
        return BatchReport(**result) if isinstance(result, dict) else result

    # In the listening thread

    def _hear(self, rank: int, message: dict[str, Any]) -> None:
        self._messages.append(message)
        if message["what"] == "desert" and self._is_in_step:
            self._desert()

    def _miss(self, rank: int) -> None:
        self._lost = f"rank 0 is gone, and {self.place.name()} cannot go on without it; start all ranks again"
        if self._manager is not None and self._is_in_step:
            self._manager.stop.set("the loss of rank 0")
            self._desert()

    def _desert(self) -> None:
        self._deserted_at = time.monotonic()
        self._abort()

    def _tick(self, now: float) -> None:
        stop = self._manager.stop if self._manager is not None else None
        if stop and not self._has_told:
            self._has_told = True
            self._lines[0].send("stop", reason=stop.reason)
        if self._is_in_step and self._deserted_at and now > self._deserted_at + FORCE_S:
            why = "the loss of rank 0" if self._lost else "it was told to leave"
            log.error("%s hangs after %s; the process ends", self.place.name(), why)
            os._exit(1)


def _commit_of(data: Mapping[str, Any]) -> Commit:
    contents = {"ckpt": Content(*data["ckpt"]), "preview": Content(*data["preview"])}
    figures = {label: Content(*each) for label, each in data["figures"].items()}
    return Commit(**{**data, **contents, "figures": figures})
