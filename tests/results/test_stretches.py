"""Who trained what when, from claims and stats alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Store
from jimmy_manager.archives import layout
from jimmy_manager.manager.gc import gc
from jimmy_manager.manager.transfer import load
from jimmy_manager.results.plot_timeline import lanes
from jimmy_manager.results.stretches import Stretch, read_stretches
from tests.archives.runs import attempt_at, commit, train
from tests.results.drawn_stores import BEGUN, SetClock, worker_of


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(tmp_path: Path, clock: SetClock) -> Store:
    return Store(tmp_path / "store", clock=clock, durable=False)


def begin(store: Store, worker: int, **config: Any) -> Any:
    with worker_of(worker, 2):
        return attempt_at(store, config)


def after(attempt: Any, clock: SetClock, seconds: float, epoch: int) -> None:
    clock.time += seconds
    commit(attempt, epoch)


def stretches(store: Store) -> list[Stretch]:
    opened = Store(store.directory, read_only=True)
    found, damage = read_stretches(opened, opened.table(None, ["state"])["state"].to_dict())
    assert damage == []
    return found


def test_a_finished_run_lasts_from_its_claim_to_its_end(store: Store, clock: SetClock) -> None:
    attempt = begin(store, 0, lr=1)
    after(attempt, clock, 60, 1)
    clock.time += 5
    attempt.finish()
    (one,) = stretches(store)
    assert (one.start, one.end, one.state) == (BEGUN, BEGUN + 65, "done")
    assert (one.node, one.worker, one.is_open) == ("node01", "node01:4000", False)


def test_a_run_that_another_worker_continued_is_two_stretches(store: Store, clock: SetClock) -> None:
    first = begin(store, 0, lr=1)
    after(first, clock, 60, 1)
    with worker_of(0, 2):
        first.claim.release()
    clock.time += 100
    second = begin(store, 1, lr=1)
    # What was adopted carries the time of the commit that it is a copy of.
    after(second, clock, 30, 2)
    second.finish()
    one, two = stretches(store)
    assert (one.state, one.start, one.end) == ("paused", BEGUN, BEGUN + 60)
    assert (two.state, two.start, two.end, two.worker) == ("done", BEGUN + 160, BEGUN + 190, "node02:4001")


def test_a_failed_run_lasts_to_its_last_commit(store: Store, clock: SetClock) -> None:
    attempt = begin(store, 0, lr=1)
    after(attempt, clock, 60, 1)
    attempt.claim.fail({"type": "ValueError", "message": "", "traceback": ""})
    (one,) = stretches(store)
    assert (one.state, one.end - one.start) == ("failed", 60)


def test_gc_is_no_training(store: Store, clock: SetClock) -> None:
    done, paused = begin(store, 0, lr=1), begin(store, 1, lr=2)
    for attempt in (done, paused):
        after(attempt, clock, 60, 1)
        after(attempt, clock, 60, 2)
    done.finish()
    paused.claim.release()
    before = stretches(store)
    assert sorted(each.state for each in before) == ["done", "paused"]
    clock.time += 1000
    assert len(gc(store, superseded=True, dry_run=False).items) == 2
    assert stretches(store) == before


def test_a_claim_for_any_task_is_no_training_and_whoever_trains_after_it_has_a_stretch(store: Store) -> None:
    run = store.register({"lr": 1})
    claim = store.claims.take(store.standing(run.key), run.digest, task="import")
    assert claim is not None
    assert stretches(store) == []
    claim.release()
    attempt = begin(store, 0, lr=1)
    commit(attempt, 1)
    attempt.finish()
    assert [(each.generation, each.state) for each in stretches(store)] == [(2, "done")]


def test_what_an_import_brings_was_not_trained_here(store: Store, clock: SetClock, tmp_path: Path) -> None:
    source = Store(tmp_path / "source", durable=False)
    train(source, {"lr": 1}, epochs=3)
    stopped = begin(store, 0, lr=1)
    after(stopped, clock, 60, 1)
    stopped.claim.release()
    (before,) = stretches(store)
    clock.time += 1000
    assert load(store, tmp_path / "source").updated
    (one,) = stretches(store)
    assert (one.start, one.end) == (before.start, before.end)


def test_a_held_run_is_open(store: Store, clock: SetClock) -> None:
    after(begin(store, 0, lr=1), clock, 60, 1)
    (one,) = stretches(store)
    assert (one.state, one.is_open, one.end) == ("running", True, BEGUN + 60)


def test_a_run_that_was_never_claimed_or_was_popped_has_none(store: Store) -> None:
    store.register({"lr": 1})
    gone = begin(store, 0, lr=2)
    commit(gone, 1)
    gone.finish()
    store.pop(gone.key)
    assert stretches(store) == []


def test_a_damaged_claim_is_named_and_the_rest_is_shown(store: Store) -> None:
    keys = []
    for lr in (1, 2, 3):
        attempt = begin(store, 0, lr=lr)
        commit(attempt, 1)
        attempt.finish()
        keys.append(attempt.key)
    path = Path(store.directory or "") / layout.claim(keys[1], 1)
    path.write_bytes(path.read_bytes()[:-9])
    opened = Store(store.directory, read_only=True)
    found, damage = read_stretches(opened, dict.fromkeys(keys, "done"))
    assert {each.key for each in found} == {keys[0], keys[2]}
    assert [layout.claim(keys[1], 1) in message for message in damage] == [True]


def test_checkpoints_are_not_read(store: Store, clock: SetClock) -> None:
    attempt = begin(store, 0, lr=1)
    commit(attempt, 1)
    attempt.finish()
    for path in Path(store.directory or "").rglob("*.pt"):
        path.write_bytes(b"")
    assert len(stretches(store)) == 1


def test_workers_of_a_node_share_lanes_where_they_are_many() -> None:
    def stretch(node: str, worker: int, start: float) -> Stretch:
        return Stretch("ab" * 4, 1, node, f"{node}:{worker}", start, start + 1.0, "done")

    few = [stretch("a", worker, worker) for worker in range(3)]
    assert list(lanes(few)) == ["a:0", "a:1", "a:2"]
    many = [stretch(node, worker, worker // 2) for node in "ab" for worker in range(60)]
    packed = lanes(many)
    assert list(packed) == ["a #1 (30 workers)", "a #2 (30 workers)", "b #1 (30 workers)", "b #2 (30 workers)"]
    for members in packed.values():
        assert all(one.end <= two.start for one, two in itertools.pairwise(members))
