"""Several processes that train one run together: rank 0 claims, commits and tells, the others do what it does.

``torchrun --nproc-per-node 4 jobs/digits.py sweep`` (or ``-m jimmy_manager.cli sweep JOB``; or ``srun`` with the
variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT set) starts as many processes of one worker. All
make the same calls of ``process``, ``batch`` and ``sweep``, and each returns what rank 0 returns::

    rank 0                                          every other rank
    ──────                                          ────────────────
    begin ────────────────────────────────────────► waits while rank 0 looks for a run, for hours if need be
    claims a run
    setup, load, (none there:) init, evaluate, save ► the same hooks, at the same time, on the same configuration
    train, evaluate, save, ... end ───────────────► (save commits nothing here, but hands over the random state)
          ◄──────────────────────── ended or raised  after each of them; rank 0 goes on once all have ended
    finishes, fails or releases the claim
    leave, with the result ───────────────────────► returns it

What becomes of a step::

                         all ended
             ┌──────────────────────────────► the next step
    step ────┤ one raised                         all ended after all
             ├──────────► waits 3 s for the others ─────────────────► the run is ``failed``: the error of the rank
             │                      │ they hang, in an exchange with it    that raised first, with its traceback
             │                      ▼                                       ▲
             │              all leave the process group, ───────────────────┘
             │              so that the exchange fails too                  the group is made anew for the next run
             │ one is gone: killed, or its host is
             └──────────► rank 0 is asked to stop, and so releases its claim; where it still hangs 10 s later its
                          claim is released beside it, and the process ends. The others leave with it.

Where rank 0 is gone the others leave at once, and by force after 10 s. The claim is rank 0's: it lives as long as the
job does, however many ranks that has, and is one generation. Whoever starts the job again (``--max-restarts``, a
requeue) goes on from the last commit.

A stop signal counts whichever rank it reaches: rank 0 ends the run after this epoch; a `TrainedManager` agrees on the
step. All ranks are seeded alike for ``setup`` and ``init_ckpt``, so that they build the same weights; then all but
rank 0 get random states of their own, which are saved with the run. A checkpoint is read by each rank from the store,
verified by the digest that rank 0 has of it: that takes no memory and no time of rank 0's, but the store has to be
mounted wherever ranks run.

Torch's default process group is made before the first ``setup``, unless the job has made it: gloo on CPUs, nccl on
GPUs. A run that one rank has failed alone leaves no exchange half done, as the group is made anew after it; so other
groups, and what holds on to one (``DistributedDataParallel``), are made in ``setup``.

Not promised: that a rank can be lost without the others, nor that an exchange of nccl's ends before torch lets it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from jimmy_manager.errors import HookError, RankFailed
from jimmy_manager.manager import rank_states
from jimmy_manager.manager import run as loop
from jimmy_manager.manager.rank_line import Place, here

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager
    from jimmy_manager.manager.rank_member import Member

T = TypeVar("T")
log = logging.getLogger(__name__)

_members: dict[int, Member] = {}


class Alone:
    """A process that trains by itself."""

    place = Place(0, 1)

    def do(self, manager: Manager, run: Any, step: str, **details: Any) -> Any:
        """Call what belongs to ``step``; with other ranks, on all of them."""
        return loop.STEPS[step](manager, run, **details)

    def gathered(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """The random states to save, given those of this rank."""
        return dict(states)

    def own(self, states: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """Those random states that are this rank's, of the saved ones."""
        others = states.get(rank_states.OTHERS, [])
        if len(others) + 1 != self.place.size:
            log.warning(
                "run %s was saved by %d ranks and goes on with %d, so it does not go on bit by bit",
                key, len(others) + 1, self.place.size,
            )  # fmt: skip
        own: list[Mapping[str, Any]] = [states, *others]
        return own[self.place.rank] if self.place.rank < len(own) else states


def together(manager: Manager, call: str, work: Callable[[], T]) -> T:
    """Return what ``work`` returns: of this process, or of rank 0 where there are several."""
    place = here()
    if place.size == 1:
        return work()
    if manager.store.directory is None:
        raise HookError(f"{place.size} ranks cannot share a store in memory; give the Manager a store_dir")
    if threading.current_thread() is not threading.main_thread():
        raise HookError(f"{call}() was called outside of the main thread, where {place.name()} hears of no signals")
    member = _members.get(os.getpid())
    if member is None:
        member = _members[os.getpid()] = _join(place, manager)
    return member.take_part(manager, call, work)


class RemoteTraceback(Exception):
    """Where in another process an exception was raised; for tracebacks to show."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def failure_of(rank: str, error: Mapping[str, Any]) -> RankFailed:
    """The exception of another rank as one of this process, with its traceback."""
    failure = RankFailed(f"{rank} raised {error['type']}: {error['message']}")
    failure.__cause__ = RemoteTraceback(f"on {rank}:\n{error['traceback']}")
    return failure


def _join(place: Place, manager: Manager) -> Member:
    from jimmy_manager.manager.rank_follower import Follower
    from jimmy_manager.manager.rank_leader import Leader

    if place.is_first:
        return Leader(place, manager.device)
    follower = Follower(place, manager.device)
    atexit.register(follower.outlast)
    return follower
