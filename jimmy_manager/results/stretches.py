"""Who trained what when: from the claims and stats of a store alone, one stretch for each generation of a run.

Generations that served a task, such as gc, are none: nobody trained then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.errors import RecordError, StoreTooNew

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

_WORK = ("held", "released", "failed")
"""The states of claims under which somebody trained, but for a task; the others are born in their last state."""


class Stretch(NamedTuple):
    """One worker's time with one run; seconds since 1970 by that worker's own clock.

    ``end`` is its last sign: a commit, or the declaration that the run was done. ``is_open`` while it is held.
    ``state`` is what became of it: ``done``, ``running``, ``paused``, ``failed`` or ``lost``.
    """

    key: str
    generation: int
    node: str
    worker: str
    start: float
    end: float
    state: str
    is_open: bool = False


def read_stretches(store: Store, states: Mapping[str, str]) -> tuple[list[Stretch], list[str]]:
    """The stretches of the runs in ``states`` (key to its state in the table), and what could not be read, by name."""
    found: list[Stretch] = []
    damage: list[str] = []
    for shard in sorted({key[:2] for key in states}):
        claims, stats = (_generations(store, archive, shard) for archive in ("claims", "stats"))
        for key in sorted(claims.keys() & states.keys()):
            records = {}
            for generation in sorted(claims[key]):
                try:
                    records[generation] = store.claims.read(key, generation)
                except (RecordError, StoreTooNew) as error:
                    damage.append(str(error))
            for generation, record in records.items():
                if record.state in _WORK and not record.task:
                    saved = [each for each in _with_tasks(generation, records) if each in stats.get(key, ())]
                    found.append(_stretch(store, record, records.get(generation + 1), states[key], damage, saved))
    return sorted(found, key=lambda stretch: (stretch.start, stretch.key)), damage


def _stretch(
    store: Store, record: ClaimRecord, after: ClaimRecord | None, state: str, damage: list[str], saved: list[int]
) -> Stretch:
    end = record.at
    for generation in saved:
        try:
            commits = store.history.read_stats(record.key, generation).commits
            # Number 0 was adopted: somebody else made it, before this stretch began; but a task adopts from this one,
            # and what an import commits besides was trained elsewhere.
            is_task = generation > record.generation
            end = max([end, *(commit.at for commit in commits if (commit.number == 0) == is_task)])
        except (RecordError, StoreTooNew) as error:
            damage.append(str(error))
    is_open = False
    if after is not None and after.state == "done":
        end, state = max(end, after.at), "done"
    elif record.state in ("released", "failed"):
        state = "paused" if record.state == "released" else "failed"
    elif after is not None or state not in ("running", "stopping"):
        state = "lost"
    else:
        is_open = True
    owner = record.owner
    worker = f"{owner.node}:{owner.pid}" + (f" ({owner.job.name})" if owner.job else "")
    return Stretch(record.key, record.generation, owner.node, worker, record.at, end, state, is_open)


def _with_tasks(generation: int, records: Mapping[int, ClaimRecord]) -> Iterator[int]:
    """A generation and the tasks right after it: gc leaves the last commit in its own stats alone."""
    yield generation
    while (generation := generation + 1) in records and records[generation].task:
        yield generation


def _generations(store: Store, archive: str, shard: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for name in store.files.names(f"{archive}/{shard}"):
        if parsed := layout.parse(archive, name):
            found[parsed.key].append(parsed.generation)
    return found
