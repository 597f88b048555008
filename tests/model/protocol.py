"""The claim protocol as steps between states, one file operation or one moment of decision each.

It follows ``jimmy_manager.archives``: ``claims`` (list, create), ``attempt`` (adopt, commit, finish), ``janitor`` and
``store`` (pop). Two operations make one step only where the first one's result can be told by nobody else: reading the
record of a claim and creating the next one (what may be read there stays true once it is), writing a commit's files
after the last check before them (nobody reads them until stats name them), removing what is no longer named after the
acknowledgement. A check of the claims that is followed by another one before anything is written is left out.

Replies that are lost are modelled for stats. Those of a claim need no step of their own: one that was made though its
maker heard of a failure is that of a worker who is killed at once, one that is made late that of a worker who stalls
before it and is killed after it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.disk import Step
from tests.model.state import CRASHES, LATE_GEN, PLANNED
from tests.model.surroundings import Surroundings
from tests.model.workers import Workers


class Protocol(Workers, Surroundings):
    """All that may happen next in a state."""

    def steps(self, state: bytes) -> Iterator[Step]:
        for host, at in enumerate(self.workers):
            yield from self._steps_of[state[at]](self, state, host, at)
            if state[at] > PLANNED and state[self.rest + CRASHES]:
                yield self._crash(state, host, at)
        yield from self._janitor(state)
        yield from self._person(state)
        if state[self.rest + LATE_GEN]:
            yield self._late(state)
        if self.age and (later := self._tick(state)):
            yield later
