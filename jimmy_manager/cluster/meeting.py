"""How two doctors on two nodes find each other: by names in one folder, which are only ever listed.

Each of them makes ``TOKEN.N.STATE`` with a growing ``N`` and removes the one before, about four times a second. Making
a name lets clients that keep listings list anew, and one that does not grow is a leftover of somebody who is gone.

======================  =================================================================================
``free``                looks for another; the one with the lower token asks
``asks-OTHER``          wants to meet OTHER, until that one says yes, is taken, or is silent
``takes-OTHER``         says yes to OTHER, and waits until that one has seen it
``meets-OTHER``         has seen it; the folder ``ROOM-OTHER`` of the two is there
======================  =================================================================================
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from jimmy_manager.cluster.place import WON, Place
from jimmy_manager.errors import StoreError

PATIENCE_S = 30.0
"""How long somebody may be silent before being taken for gone; listings lag by up to 21 s on sshfs."""

_BEAT_S = 0.25
_NAME = re.compile(
    r"(?P<token>[0-9a-f]{12})\.(?P<beat>[0-9]{1,9})\.(?P<state>free|asks|takes|meets)(?:-(?P<of>[0-9a-f]{12}))?"
)
_ROOM = re.compile(r"room-[0-9a-f]{12}-[0-9a-f]{12}")


class Met(NamedTuple):
    """What came of a meeting: the folder of the two, who leads, and the tokens of both."""

    room: Place
    is_leader: bool
    me: str
    other: str


class _Seen(NamedTuple):
    beat: int
    state: str
    of: str
    is_alive: bool
    at: float


class Meeting:
    """One doctor in the folder ``place``, looking for another one."""

    def __init__(self, place: Place, token: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.token = token or secrets.token_hex(6)
        self._place = place
        self._clock = clock
        self._beat = 0
        self._state = ("free", "")
        self._began = self._since = clock()
        self._name = ""
        self._others: dict[str, _Seen] = {}
        self._rooms = {name: frozenset(place.below(name).below("talk").names()) for name in self._room_names()}

    def meet(self, timeout_s: float, waiting: Callable[[float], None]) -> Met:
        """Return once another doctor is met; ``StoreError`` when none came within ``timeout_s``.

        ``waiting`` is called about four times a second with the seconds that are left.
        """
        end = self._clock() + timeout_s
        try:
            while True:
                if (met := self.step()) is not None:
                    return met
                left = end - self._clock()
                if left <= 0:
                    raise StoreError(f"nobody came within {timeout_s:g} s; start the same command on another node, too")
                waiting(left)
                time.sleep(_BEAT_S)
        except BaseException:
            self.leave()
            raise

    def step(self) -> Met | None:
        """Say where this one stands, look at the others, and decide."""
        self._say()
        self._look()
        state, of = self._state
        theirs = self._others.get(of)
        if state == "free":
            self._answer_or_ask()
        elif theirs is None or not theirs.is_alive or self._clock() - theirs.at > PATIENCE_S:
            self._become("free")
        elif state == "asks":
            if (theirs.state, theirs.of) == ("takes", self.token):
                return self._enter(of, is_leader=True)
            if theirs.state != "free" and self._clock() - self._since > 2 * _BEAT_S:
                self._become("free")
        elif (theirs.state, theirs.of) == ("meets", self.token):
            return self._enter(of, is_leader=False)
        elif (theirs.state, theirs.of) != ("asks", self.token):
            self._become("free")
        return None

    def leave(self) -> None:
        """Take this one's names away, and the leftovers of those who have been silent all the time."""
        for name in self._place.names():
            found = _NAME.fullmatch(name)
            if found and (found["token"] == self.token or self._is_leftover(found["token"])):
                self._place.remove(name)
        if self._clock() - self._began < PATIENCE_S:
            return  # too early to say of a room that nobody is in it
        for name, before in self._rooms.items():
            if frozenset(self._place.below(name).below("talk").names()) == before:
                self._place.below(name).clear()

    def _is_leftover(self, token: str) -> bool:
        seen = self._others.get(token)
        return seen is not None and not seen.is_alive and self._clock() - seen.at > PATIENCE_S / 3

    def _room_names(self) -> list[str]:
        return [name for name in self._place.names() if _ROOM.fullmatch(name)]

    def _say(self) -> None:
        self._beat += 1
        state, of = self._state
        before, self._name = self._name, f"{self.token}.{self._beat}.{state}" + (f"-{of}" if of else "")
        if (outcome := self._place.create(self._name, b"")) != WON:
            # Doctors that part remove the folder where it is empty.
            outcome = self._place.make().create(self._name, b"")
            if outcome != WON:
                advice = "two users can meet only in a store that their group shares, or in a directory like that"
                raise StoreError(f"cannot write in {self._place.root} ({outcome}); {advice}")
        if before:
            self._place.remove(before)

    def _look(self) -> None:
        newest: dict[str, tuple[int, str, str]] = {}
        for name in self._place.names():
            if (found := _NAME.fullmatch(name)) and found["token"] != self.token:
                said = (int(found["beat"]), found["state"], found["of"] or "")
                newest[found["token"]] = max(said, newest.get(found["token"], said))
        now = self._clock()
        for token, (beat, state, of) in newest.items():
            before = self._others.get(token)
            if before is None:
                self._others[token] = _Seen(beat, state, of, False, now)
            elif beat > before.beat:
                self._others[token] = _Seen(beat, state, of, True, now)
        for token in [token for token in self._others if token not in newest]:
            del self._others[token]

    def _answer_or_ask(self) -> None:
        present = {token: seen for token, seen in self._others.items() if seen.is_alive and self._is_recent(seen)}
        asking = [token for token, seen in present.items() if (seen.state, seen.of) == ("asks", self.token)]
        free = [token for token, seen in present.items() if seen.state == "free" and token > self.token]
        if asking:
            self._become("takes", min(asking))
        elif free:
            self._become("asks", min(free))

    def _is_recent(self, seen: _Seen) -> bool:
        return self._clock() - seen.at <= PATIENCE_S

    def _become(self, state: str, of: str = "") -> None:
        self._state, self._since = (state, of), self._clock()

    def _enter(self, other: str, *, is_leader: bool) -> Met:
        leader, follower = (self.token, other) if is_leader else (other, self.token)
        room = self._place.below(f"room-{leader}-{follower}")
        if is_leader:
            room.make()
            room.below("talk").make()
            self._become("meets", other)
            self._say()  # once more, and for good: this name stays until the room is left
        return Met(room, is_leader, self.token, other)
