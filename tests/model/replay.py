"""A schedule of the model played through by the real code, file operation by file operation.

Each line of a schedule names an actor and what it does; ``CUES`` says which call of the package that begins, or goes
on with, and before or after which file operation the actor then stands still. Where the real code takes another way
than the schedule (its rule is in place) it is left to it: what counts is what is on disk at the end.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from jimmy_manager.archives.attempt import NewerCommit
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.errors import ClaimLost, RunBusy
from tests.archives.stepping import PATIENCE_S, Killed, SteppingFiles, Worker, World, harm_if

EPOCHS = 2

Stop = tuple[str, str, str, int]
"""``before`` or ``after`` the so-many-th operation on such a name from here."""

END: Stop = ("end", "", "", 0)
_STATS_LISTED: Stop = ("after", "names", "stats/", 1)
_STATS_NEXT: Stop = ("before", "replace", "stats/", 1)

CUES: list[tuple[str, str, Stop]] = [
    (r"w\d lists claims and will create", "plan", END),
    (r"w\d creates generation", "take", END),
    (r"w\d lists stats, to adopt from generation 0", "adopt", END),
    (r"w\d lists stats, to adopt", "adopt", _STATS_LISTED),
    (r"w\d reads the stats of generation \d+$", "", ("after", "read", "stats/", 1)),
    (r"w\d adopts commit", "", END),
    (r"w\d commits the adoption", "", END),
    (r"w\d lists claims: none", "commit", ("after", "names", "stats/", 2)),
    (r"w\d lists stats again: the highest is generation 0", "", _STATS_NEXT),
    (r"w\d lists stats again", "", _STATS_LISTED),
    (r"w\d reads the stats of generation \d+ again, and adopts", "", END),
    (r"w\d reads the stats of generation \d+ again", "", _STATS_NEXT),
    (r"w\d writes the stats", "", ("after", "replace", "stats/", 1)),
    (r"w\d lists claims: commit", "", END),
    (r"w\d lists a claim above", "", END),
    (r"w\d declares generation", "finish", ("after", "create", "claims/", 1)),
    (r"w\d marks the stats", "", END),
    (r"w\d releases", "release", END),
    (r"janitor looks again", "sweep", ("before", "remove", "", 1)),
    (r"janitor removes the stats", "", ("after", "remove", "stats/", 1)),
    (r"janitor removes the files", "", END),
    (r"janitor ends", "", END),
    (r"person lists claims and will pop", "pop", ("before", "create", "claims/", 1)),
    (r"person removes all files", "pop", END),
    (r"person creates", "", ("after", "create", "claims/", 1)),
    (r"person writes the tombstone", "", ("after", "replace", "stats/", 1)),
    (r"person lists claims: the run is popped", "", END),
]


class Replay:
    """What the real code makes of a schedule; raises ``Harm`` where a promise was broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.actors: dict[str, Player] = {}
        self.owned: set[int] = set()
        self.acknowledged: list[str] = []
        self.finished = self.popped = ""
        self.seen = 0
        self.is_complete = False

    def play(self, schedule: tuple[str, ...]) -> Replay:
        for line in schedule:
            name = line.split()[0]
            if name == "time":
                self.world.clock.sleep(self.world.stale_s / 2)
                continue
            player = self.actors.setdefault(name, Player(self, name))
            call, stop = next((call, stop) for pattern, call, stop in CUES if re.match(pattern, line))
            player.see(line)
            player.go_on(call, stop)
            self._look()
        for player in self.actors.values():
            player.leave()
        self._check()
        return self

    def _look(self) -> None:
        reader = self.world.worker("reader")
        highest = max((0, *reader.claims.look(reader.key).stats))
        harm_if(highest < self.seen, f"generation {self.seen} was what readers saw, now it is {highest}")
        self.seen = highest
        for commit in reader.history.read_stats(reader.key, highest).commits[-1:] if highest else ():
            for name in commit.contents():
                folder, _, last = name.rpartition("/")
                harm_if(last not in self.world.server.names(folder), f"stats name {name}, which is gone")
            is_less = commit.epoch < EPOCHS and self.is_complete and "person" not in self.actors
            harm_if(is_less, f"readers saw the last epoch, and now epoch {commit.epoch}")
            self.is_complete = commit.epoch >= EPOCHS

    def _check(self) -> None:
        there = self.world.lineage()
        for token in self.acknowledged:
            harm_if(token not in there.split(), f"the acknowledged {token} is gone: {there!r}")
        harm_if(bool(self.finished) and there != self.finished, f"the finished {self.finished!r} became {there!r}")
        harm_if(bool(self.popped) and there.startswith(self.popped), f"what was popped is there again: {there!r}")


class Player:
    """One actor: a worker of its own host, which stands still before its next operation until it is told to go on."""

    def __init__(self, replay: Replay, name: str) -> None:
        self.replay = replay
        self.plan: Any = None
        self.thread: threading.Thread | None = None
        self.stop: Stop = END
        self.is_leaving = False
        self.error: BaseException | None = None
        self.arrived, self.released = threading.Semaphore(0), threading.Semaphore(0)
        self.worker = Worker(replay.world, name, name, {"lr": 0.1}, files=lambda view: Gate(view, self))

    def see(self, line: str) -> None:
        """Let listings be as old as the line says: a higher generation that it does not see is young enough."""
        view, shown = self.worker.view, re.search(r"generation (\d+)", line)
        is_blind = any(text in line for text in ("none is above", "is acknowledged", "is popped", "lists stats"))
        highest = int(shown[1]) if shown and "lists stats" in line else -1
        trace = self.replay.world.worker("reader").claims.look(self.worker.key)
        is_blind = is_blind and (highest < 0 or max((0, *trace.stats)) > highest)
        view.lag_s = self.replay.world.stale_s if is_blind else 0.0

    def go_on(self, call: str, stop: Stop) -> None:
        is_later_commit = call == "commit" and self.worker.attempt.is_saved
        self.stop = _STATS_NEXT if is_later_commit else stop
        if self.thread is None:
            if not call:
                return  # the real code took another way, and is through already
            act = getattr(self, f"_{call}")
            self.thread = threading.Thread(target=self._run, args=(act,), daemon=True)
            self.thread.start()
        else:
            self.released.release()
        assert self.arrived.acquire(timeout=PATIENCE_S), f"stuck on the way to {stop}"
        if self.error is not None:
            raise self.error

    def leave(self) -> None:
        """Stand still for ever: nothing more is written by what has not ended."""
        self.is_leaving = True
        if self.thread is not None:
            self.released.release()
            self.thread.join(PATIENCE_S)

    def reach(self, when: str, operation: str, name: str) -> None:
        """At each operation: stand still where the line ends."""
        if threading.current_thread() is not self.thread:
            return
        place, its_operation, prefix, count = self.stop
        if (place, its_operation) == (when, operation) and name.startswith(prefix):
            self.stop = (place, its_operation, prefix, count - 1)
            if count == 1:
                self.arrived.release()
                assert self.released.acquire(timeout=PATIENCE_S), "never told to go on"
        if self.is_leaving:
            raise Killed

    def _run(self, act: Callable[[], None]) -> None:
        try:
            self.worker.act(act)
        except (ClaimLost, NewerCommit, RunBusy, Killed):
            pass
        except BaseException as error:  # noqa: BLE001  # looked at by whoever told it to go on
            self.error = error
        self.thread = None
        self.arrived.release()

    def _plan(self) -> None:
        self.plan = self.worker.claims.standing(self.worker.key)

    def _take(self) -> None:
        if self.worker.take(self.plan):
            generation = self.worker.attempt.generation
            harm_if(generation in self.replay.owned, f"generation {generation} has two owners")
            self.replay.owned.add(generation)

    def _adopt(self) -> None:
        self.worker.attempt.adopt()

    def _commit(self) -> None:
        attempt = self.worker.attempt
        newest = attempt.newest
        token = f"g{attempt.generation}.{newest.epoch if attempt.is_saved else 0}"
        data = f"{self.worker.trained()} {token}".strip().encode()
        epoch = min(newest.epoch + 1, EPOCHS) if newest else 1
        attempt.commit(epoch=epoch, checkpoint=lambda file: file.write(data), preview=data)
        self.replay.acknowledged.append(token)

    def _finish(self) -> None:
        self.replay.finished = self.worker.trained()
        try:
            self.worker.attempt.finish()
        except ClaimLost:
            self.replay.finished = ""
            raise

    def _release(self) -> None:
        self.worker.attempt.claim.release()

    def _sweep(self) -> None:
        Janitor(self.worker.store).sweep(wait=True)

    def _pop(self) -> None:
        before = self.replay.world.lineage()
        self.worker.store.pop(self.worker.key, force=True)
        self.replay.popped, self.replay.acknowledged = before, []


class Gate(SteppingFiles):
    """Files that ask the player before and after each operation."""

    def __init__(self, below: Any, player: Player) -> None:
        super().__init__(below)
        self._player = player

    def _reach(self, when: str, operation: str, name: str) -> None:
        self._player.reach(when, operation, name)
