"""What two doctors on two nodes measure together; both run the same script, and both end with the same findings."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self

from jimmy_manager.archives import filesystem
from jimmy_manager.archives.owner import this_process
from jimmy_manager.cluster import delays, races
from jimmy_manager.cluster.delays import Delay, Trial
from jimmy_manager.cluster.meeting import Met
from jimmy_manager.cluster.races import Tally, Try
from jimmy_manager.cluster.talk import STOPPED, PeerLost, Talk
from jimmy_manager.errors import StoreError

PROTOCOL = 1
EXCLUDES, DOES_NOT_EXCLUDE = "excludes the other node", "does not exclude the other node"
_PINGS = 12
_LINES = 100
_LINE = 58
_LOCK_S = 20.0
_SLOT_S = 0.01
_SOON_S = 0.2


class Plan(NamedTuple):
    """How long to look: ``rounds`` of each race, when the changes are made, and how long each is waited for."""

    rounds: int = 200
    after_s: tuple[float, ...] = (0.0, 10.0, 25.0)
    wait_s: float = 65.0
    is_quick: bool = False


LONG = Plan()
QUICK = Plan(rounds=40, after_s=(0.0,), wait_s=25.0, is_quick=True)


class Side(NamedTuple):
    """One of the two: its host, the mount through which it looks, and the user and process that do."""

    host: str
    boot: str
    mount: str
    kind: str
    source: str
    user: int
    pid: int

    def is_same_view(self, other: Side) -> bool:
        """Whether both look through one mount of one host, so that nothing can be learnt about two."""
        return (self.boot or self.host, self.mount) == (other.boot or other.host, other.mount)


class Offset(NamedTuple):
    """How far the other side's clock is ahead of the leader's, in seconds, give or take ``uncertainty_s``."""

    seconds: float
    uncertainty_s: float


class Measured(NamedTuple):
    """Everything that two nodes found out; ``leader`` and ``follower`` are those of the roles."""

    leader: Side
    follower: Side
    plan: Plan
    clock: Offset
    races: tuple[Tally, ...]
    locks: dict[str, str]
    appended: tuple[int, int]
    delays: tuple[Delay, ...]


class Pair:
    """One side of an examination by two; ``say`` gets each step in words, ``tick`` how far a long one is."""

    def __init__(
        self, met: Met, plan: Plan, say: Callable[[str], None], tick: Callable[[str], None], side: Side | None = None
    ) -> None:
        self._room = met.room
        self._is_leader = met.is_leader
        self._talk = Talk(met.room.below("talk"), met.me, met.other)
        self._plan = plan
        self._say = say
        self._tick = tick
        self._me = side or this_side(met.room.root)
        self._ahead_s = self._trip_s = 0.0

    def examine(self) -> Measured:
        """Run the script from its beginning to its end; ``PeerLost`` where the other side is gone.

        Raises ``StoreError`` where both look through one mount of one host.
        """
        try:
            return self._examine()
        except StoreError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):  # the folder of the two is gone
                raise PeerLost(STOPPED) from error
            raise

    def _examine(self) -> Measured:
        mine, theirs = self._introduce()
        leader, follower = (mine, theirs) if self._is_leader else (theirs, mine)
        self._say(f"met {theirs.host} (process {theirs.pid})")
        clock = self._compare_clocks()
        found = tuple(self._race(kind) for kind in races.KINDS)
        locks = {"flock": self._try_lock("flock"), "fcntl": self._try_lock("fcntl")}
        return Measured(leader, follower, self._plan, clock, found, locks, self._append(), self._watch())

    def share(self, data: Any) -> Any:
        """What the leader gives both: the leader's own ``data``."""
        theirs = self._talk.swap(data)
        return data if self._is_leader else theirs

    def agree(self, answer: bool) -> list[bool]:
        """What both answer to one question."""
        return [answer, bool(self._talk.swap(answer))]

    def close(self, leave: Callable[[], None]) -> None:
        """End in good order: the follower takes its names away by ``leave``, then the leader all that is left."""
        if self._is_leader:
            self._talk.receive()
            leave()
            self._room.clear()
        else:
            leave()
            self._talk.send(None)

    def _introduce(self) -> tuple[Side, Side]:
        theirs = self._talk.swap({"protocol": PROTOCOL, "side": self._me, "quick": self._plan.is_quick})
        side = Side(*theirs["side"]) if theirs["protocol"] == PROTOCOL else None
        objection = self._objection(side)
        if side is None or objection:
            with suppress(PeerLost):  # the other one objects to the same, and must have heard enough to do so
                self._talk.swap()
            raise StoreError(objection)
        if self._plan.is_quick and not theirs["quick"]:
            self._plan = LONG
            self._say("the other side takes a long look, so this one does, too")
        return self._me, side

    def _objection(self, side: Side | None) -> str:
        if side is None:
            return "the doctor on the other node is of another version; install one version on all nodes"
        if not self._me.is_same_view(side):
            return ""
        return (
            f"both doctors are on {side.host} and look through one mount (processes {self._me.pid} and {side.pid}), "
            "which tells nothing about two nodes; start the other one on another node"
        )

    def _compare_clocks(self) -> Offset:
        """Round trips as of NTP: the quickest bounds the offset best. Also keeps that of the monotonic clocks."""
        trips: list[tuple[float, float, float]] = []
        for _ in range(_PINGS):
            if self._is_leader:
                out = (time.monotonic(), time.time())
                self._talk.send(None)
                theirs = self._talk.receive()
                back = (time.monotonic(), time.time())
                middle = ((out[0] + back[0]) / 2, (out[1] + back[1]) / 2)
                trips.append((back[0] - out[0], theirs[0] - middle[0], theirs[1] - middle[1]))
            else:
                self._talk.receive()
                self._talk.send((time.monotonic(), time.time()))
        trip_s, ahead_s, wall_s = self.share(min(trips, default=None))
        self._ahead_s, self._trip_s = ahead_s, trip_s
        found = Offset(round(wall_s, 4), round(trip_s / 2, 4))
        self._say(f"the clocks differ by {abs(found.seconds):.3f} s (give or take {found.uncertainty_s:.3f} s)")
        return found

    def _race(self, kind: str) -> Tally:
        hands = [f"{'leader' if self._is_leader else 'follower'}{number}" for number in range(3)]
        place = self._room.below(f"race-{kind}")
        if self._is_leader:
            place.make()
        self._talk.swap()
        races.prepare(place, kind, hands if kind == "link" or self._is_leader else (), self._rounds(kind))
        # By now the clocks are known to each other; this is time enough to hear of the moment.
        begin = self.share(time.monotonic() + _SOON_S + 10 * self._trip_s)
        begin = begin if self._is_leader else begin + self._ahead_s
        mine = races.run(place, kind, hands, self._plan.rounds, begin, _SLOT_S)
        theirs = [[Try(*each) for each in hand] for hand in self._talk.swap(mine)]
        found = races.tally(kind, [mine, theirs] if self._is_leader else [theirs, mine])
        self._say(f"{races.KINDS[kind]}: {found}")
        return found

    def _rounds(self, kind: str) -> int:
        return self._plan.rounds if kind == "link" or self._is_leader else 0

    def _try_lock(self, kind: str) -> str:
        """What the follower is told while the leader holds a lock."""
        name = f"lock-{kind}"
        if self._is_leader:
            self._room.put(name, b"x")
        self._talk.swap()
        with _Lock(kind, self._room.path(name)) as lock:
            if self._is_leader:
                held = lock.attempt()
                answer = self._talk.swap(held)
            else:
                held = self._talk.receive()
                answer = lock.attempt()
                self._talk.send(answer)
            self._talk.swap()
        told = {"got": DOES_NOT_EXCLUDE, "refused": EXCLUDES}.get(answer, answer) if held == "got" else held
        self._say(f"{kind} {told}")
        return str(told)

    def _append(self) -> tuple[int, int]:
        """How many of the lines that both appended at once to one file are whole, and how many there should be."""
        me = b"L" if self._is_leader else b"F"
        if self._is_leader:
            self._room.put("log", b"")
        self._talk.swap()
        for number in range(_LINES):
            self._room.append("log", b"%s %03d %s\n" % (me, number, b"x" * (_LINE - 6)))
        self._talk.swap()
        lines = (self._room.read("log") or b"").split(b"\n")
        seen = len({line for line in lines if len(line) == _LINE})
        whole = max(seen, self._talk.swap(seen))  # the other's view may lag
        self._say(f"appending to one file: {whole} of {2 * _LINES} lines are whole")
        return whole, 2 * _LINES

    def _watch(self) -> tuple[Delay, ...]:
        every = [
            Trial(kind, after_s, by) for by in ("leader", "follower") for kind in delays.KINDS
            for after_s in self._plan.after_s
        ]  # fmt: skip
        me = "leader" if self._is_leader else "follower"
        mine, theirs = [each for each in every if each.by == me], [each for each in every if each.by != me]
        place, wait_s = self._room, self._plan.wait_s
        delays.prepare(place, mine)
        self._talk.swap()
        delays.prime(place, theirs)
        self._talk.swap()
        longest = max(self._plan.after_s) + wait_s
        self._say(f"watching how long a change takes to be seen on the other side, {longest:g} s at most")

        def sign(since_s: float, pending: int) -> None:
            self._talk.stir()
            self._tick(f"{since_s:.0f} s: {len(theirs) - pending} of {len(theirs)} were seen here")

        found = delays.watch(place, mine, theirs, wait_s, sign)
        # The other side's times on this side's clock.
        ahead_s = self._ahead_s if self._is_leader else -self._ahead_s
        acted = {name: at - ahead_s for name, at in self._talk.swap(found.acted).items()}
        measured = delays.delays(theirs, acted, found.seen, wait_s)
        return tuple(sorted([*measured, *(Delay(*each) for each in self._talk.swap(measured))]))


def this_side(root: str) -> Side:
    """The one who looks from here, and through what."""
    owner, mount = this_process(), filesystem.found(root)
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return Side(host, owner.boot, filesystem.mount(root), mount.kind, mount.source, os.geteuid(), owner.pid)


class _Lock:
    """One lock of ``kind`` on the file ``path``, let go at the end; a thread tries it, as some servers never answer."""

    def __init__(self, kind: str, path: str) -> None:
        self._take = fcntl.flock if kind == "flock" else fcntl.lockf
        self._path = path
        self._descriptor = -1

    def attempt(self) -> str:
        """``got``, ``refused``, or what else came of it."""
        answer: list[str] = []

        def attempt() -> None:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                self._take(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                answer.append("got")
            except BlockingIOError:
                answer.append("refused")
            except OSError as error:
                answer.append("refused" if error.errno == errno.EACCES else f"fails: {error.strerror}")

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(_LOCK_S)
        return answer[0] if answer else f"does not answer within {_LOCK_S:g} s"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
