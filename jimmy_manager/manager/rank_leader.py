"""Rank 0: has every rank take each step of a run, and judges what came of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from jimmy_manager.errors import HookError, JimmyError, Stopped
from jimmy_manager.manager import rank_states
from jimmy_manager.manager.rank_member import FORCE_S, Member
from jimmy_manager.manager.ranks import failure_of
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.manager.worker import describe

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager
    from jimmy_manager.manager.run import Run

T = TypeVar("T")
log = logging.getLogger(__name__)

GRACE_S = 3.0
"""How long ranks may go on in a step that another one has left by an exception."""

_HANG_S = 60.0
"""How long they may take, told to leave, where they do not hang but compute."""


class _Cut(JimmyError):
    """A rank cannot go on, as another one has failed: never the reason why."""


@dataclass
class _Step:
    """One step and what came of it: a message of each rank that has ended it."""

    number: int
    name: str
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    cause: int | None = None
    """The rank that raised first."""
    raised_at: float = 0.0
    left_at: float = 0.0
    """When all were told to leave the process group."""


class Leader(Member):
    """Rank 0, of several."""

    def __init__(self, *place: Any) -> None:
        self._step = _Step(0, "")
        self._run: Run | None = None
        self._called: dict[int, str] = {}
        self._missing: set[int] = set()
        self._lost_at = 0.0
        self._renewals = 0
        self._is_out_of_step = False
        super().__init__(*place)

    def take_part(self, manager: Manager, call: str, work: Callable[[], T]) -> T:
        """Work, and have the other ranks return the same."""
        with self._joined(manager):
            try:
                self._begin(call)
                result = work()
            except BaseException as error:
                if self._is_in_step:  # left by an interrupt, while others may wait for this rank
                    self._is_in_step, self._is_out_of_step = False, True
                    self._tell("desert")
                self._tell("leave", error=describe(error))
                raise
            self._tell("leave", result=dataclasses.asdict(result) if isinstance(result, BatchReport) else result)
            return result

    def do(self, manager: Manager, run: Any, step: str, **details: Any) -> Any:
        """Take ``step`` on all ranks; what one of them raises is raised here.

        Raises ``RankFailed`` for what another rank raised first, and ``Stopped`` where one is gone.
        """
        if step == "setup":
            self._run = run
            self._renew()
        if self._lost and step != "end":
            manager.stop.set(self._lost)
            raise Stopped(self._lost)
        context = self._context(manager, run, step)
        with self._changed:
            self._step = now = _Step(self._step.number + 1, step)
            self._is_in_step = True
        self._tell("step", number=now.number, name=step, details=details, **context)
        value, error = None, None
        try:
            value = super().do(manager, run, step, **details)
        except (Exception, SystemExit) as raised:  # noqa: BLE001  # whatever a hook raises is judged below
            error = raised
        is_cause = self._end_step(now, manager, value, error)
        self._wait(lambda: bool(now.left_at) or self._is_over(now))
        if now.left_at and not self._is_over(now):  # this rank does not hang, but others may, in an exchange with it
            self._group.leave()
            self._wait(lambda: self._is_over(now))
        return self._judge(now, value, error if is_cause else None, error)

    def gathered(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """The random states of all ranks, in one."""
        now = self._step
        self._wait(lambda: self._is_cut(now) or len(now.states) == self.place.size - 1)
        if len(now.states) < self.place.size - 1:
            raise _Cut("other ranks did not come to save their random states")
        return rank_states.joined(states, [now.states[rank] for rank in sorted(now.states)])

    # In the main thread

    def _begin(self, call: str) -> None:
        if self._missing:
            raise Stopped(f"{self._names(self._missing)} gone; start all ranks again")
        self._called.clear()
        self._tell("begin")
        self._wait(lambda: bool(self._lost) or len(self._called) == self.place.size - 1)
        if self._lost:
            raise Stopped(self._lost)
        for rank, other in self._called.items():
            if other != call:
                raise HookError(
                    f"{self.place.name(rank)} called {other}() where rank 0 called {call}(); all ranks have to make "
                    "the same calls in the same order"
                )

    def _context(self, manager: Manager, run: Run, step: str) -> dict[str, Any]:
        """What other ranks need to know for a step."""
        if step == "setup":
            return {"key": run.key, "config": manager.config.asdict()}
        if step == "load":
            return {"commit": run.newest and run.newest._asdict()}
        return {}

    def _end_step(self, now: _Step, manager: Manager, value: Any, error: BaseException | None) -> bool:
        """Note what came of the step here; return whether an error of it is this rank's own."""
        with self._changed:
            self._is_in_step = False
            is_own = not isinstance(error, _Cut) and not now.left_at
            if error is not None and is_own:
                self._note_cause(now, 0)
            now.outcomes[0] = {"value": value, "epoch": manager.epoch}
            return is_own

    def _is_over(self, now: _Step) -> bool:
        """Whether nothing more is to come of a step."""
        if not self._lines.keys() - self._missing - now.outcomes.keys():
            return True
        limit = FORCE_S if self._lost else _HANG_S + FORCE_S
        return bool(now.left_at) and time.monotonic() > now.left_at + limit

    def _judge(self, now: _Step, value: Any, own: BaseException | None, error: BaseException | None) -> Any:
        self._is_out_of_step |= bool(now.left_at)
        if self._lost and (now.cause is None or not now.left_at or self._lost_at <= now.left_at):
            if self._manager is not None:
                self._manager.stop.set(self._lost)
            if now.name == "end":
                return value
            raise Stopped(self._lost) from error
        if own is not None:
            raise own
        if now.cause is not None:
            raise failure_of(self.place.name(now.cause), now.outcomes[now.cause]["error"])
        if error is not None:
            raise error
        ends = {rank: (seen["value"], seen["epoch"]) for rank, seen in now.outcomes.items()}
        for rank, seen in ends.items():
            if seen != ends[0] and now.name != "end":  # which may follow on a failure of one alone
                raise HookError(_apart(now.name, self.place.name(rank), seen, ends[0]))
        return value

    def _renew(self) -> None:
        """Make the process group anew where ranks have left it."""
        if not self._is_out_of_step or self._lost:
            return
        self._renewals += 1
        self._tell("renew", number=self._renewals)
        try:
            self._group.renew(self._renewals)
        except Exception as error:  # noqa: BLE001  # torch's own; then there is no going on for these processes
            self._lose(f"the end of the process group, which cannot be made anew ({error})")
        self._is_out_of_step = False

    def _tell(self, what: str, **more: Any) -> None:
        for line in self._lines.values():
            line.send(what, **more)

    # In the listening thread

    def _hear(self, rank: int, message: dict[str, Any]) -> None:
        what, now = message["what"], self._step
        if what == "began":
            self._called[rank] = message["call"]
        elif what == "stop" and self._manager is not None:
            self._manager.stop.set(message["reason"])
        elif message.get("number") == now.number:
            if what == "states":
                now.states[rank] = message["states"]
                return
            now.outcomes[rank] = message
            if what == "raised" and not now.left_at:
                self._note_cause(now, rank)

    def _note_cause(self, now: _Step, rank: int) -> None:
        if now.cause is None:
            now.cause, now.raised_at = rank, time.monotonic()

    def _miss(self, rank: int) -> None:
        self._missing.add(rank)
        if self._manager is not None:
            self._lose(f"the loss of {self.place.name(rank)}")

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self._lost, self._lost_at = reason, time.monotonic()
        # Unless it was told to leave for an error, which is what became of the run then.
        if self._manager is not None and not self._step.left_at:
            self._manager.stop.set(reason)

    def _tick(self, now: float) -> None:
        step = self._step
        waiting = self._lines.keys() - self._missing - step.outcomes.keys()
        if self._manager is None or not (self._is_in_step or waiting):
            return
        failed = step.cause is not None and now > step.raised_at + GRACE_S
        if not step.left_at and (self._lost or failed):
            step.left_at = now
            self._tell("desert")
            if self._is_in_step:
                self._abort()
        limit = FORCE_S if self._lost else _HANG_S
        if self._is_in_step and step.left_at and now > step.left_at + limit:
            self._end_by_force()

    def _is_cut(self, now: _Step) -> bool:
        return bool(self._lost) or now.cause is not None or bool(now.left_at)

    def _end_by_force(self) -> None:
        """End the claim and this process, whose main thread hangs where no signal reaches it."""
        why = self._lost or f"the failure of {self.place.name(self._step.cause)}"
        log.error("rank 0 hangs in %s() after %s; its claim is ended, and so is the process", self._step.name, why)
        ending = threading.Thread(target=self._end_claim, daemon=True)
        ending.start()
        ending.join(FORCE_S / 2)
        os._exit(1)

    def _end_claim(self) -> None:
        run, now = self._run, self._step
        if run is None:
            return
        with run.pen:
            if self._lost or now.cause is None:
                run.claim.release()
            else:
                run.claim.fail(now.outcomes[now.cause]["error"])

    def _names(self, ranks: set[int]) -> str:
        names = ", ".join(self.place.name(rank) for rank in sorted(ranks))
        return f"{names} {'is' if len(ranks) == 1 else 'are'}"


def _apart(step: str, name: str, seen: tuple[Any, int], first: tuple[Any, int]) -> str:
    if seen[1] != first[1]:
        return f"{name} is at epoch {seen[1]} after {step}, rank 0 at epoch {first[1]}; a hook has set it on one alone"
    return (
        f"{name} and rank 0 did not end {step} alike ({seen[0]!r} and {first[0]!r}); where train() leaves by pause(), "
        "all ranks have to, after the same step"
    )
