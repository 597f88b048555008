from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import holders as holders_module
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.holders import Holder, Holders
from jimmy_manager.archives.store import Store
from tests.archives.runs import attempt_at, commit, train
from tests.archives.stepping import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Store:
    return Store(tmp_path / "s", durable=False, clock=clock, stale_s=0.0)


@pytest.fixture
def holders(tmp_path: Path, clock: FakeClock, store: Store) -> Holders:
    _ = store.info
    return Holders(Store(tmp_path / "s", read_only=True, clock=clock, stale_s=0.0))


def elsewhere(attempt: Attempt) -> Attempt:
    attempt.claim._replace(attempt.claim.record._replace(owner=attempt.claim.record.owner._replace(boot="another")))
    return attempt


def by_key(holders: Holders) -> dict[str, Holder]:
    return {holder.key: holder for holder in holders.look()}


def test_held_runs_alone_are_shown_as_they_come_and_go(store: Store, holders: Holders) -> None:
    train(store, {"run": 0})
    first = attempt_at(store, {"run": 1})
    assert set(by_key(holders)) == {first.key}
    second = attempt_at(store, {"run": 2})
    assert set(by_key(holders)) == {first.key, second.key}
    first.claim.release()
    assert set(by_key(holders)) == {second.key}
    again = attempt_at(store, {"run": 1})
    assert by_key(holders)[again.key].record.generation == 2
    commit(again, 1)
    again.finish()
    second.claim.fail({"type": "E", "message": "", "traceback": ""})
    assert by_key(holders) == {}


def test_a_finished_run_that_is_extended_is_shown(store: Store, holders: Holders) -> None:
    train(store, {"run": 0})
    assert by_key(holders) == {}
    attempt = attempt_at(store, {"run": 0})
    assert by_key(holders)[attempt.key].record.generation == 3


def test_a_heartbeat_that_moves_is_told_from_one_that_does_not(
    store: Store, holders: Holders, clock: FakeClock
) -> None:
    alive, quiet = (elsewhere(attempt_at(store, {"run": i})) for i in range(2))
    seen = by_key(holders)
    assert [(h.is_alive, h.quiet_s) for h in seen.values()] == [(False, 0.0)] * 2
    clock.sleep(15.0)
    alive.claim.renew()
    seen = by_key(holders)
    assert (seen[alive.key].is_alive, seen[alive.key].quiet_s) == (True, 0.0)
    assert (seen[quiet.key].is_alive, seen[quiet.key].quiet_s) == (False, 15.0)
    clock.sleep(110.0)
    seen = by_key(holders)
    assert [seen[each.key].state for each in (alive, quiet)] == ["held", "silent"]
    assert seen[alive.key].quiet_s == 110.0


def test_the_epoch_is_that_of_the_newest_commit_at_the_last_heartbeat(store: Store, holders: Holders) -> None:
    attempt = attempt_at(store, {})
    assert by_key(holders)[attempt.key].commit is None
    for epoch in (1, 2):
        commit(attempt, epoch)
        attempt.claim.renew()
        shown = by_key(holders)[attempt.key].commit
        assert shown is not None
        assert shown.epoch == epoch


def test_a_worker_that_was_asked_to_stop_is_stopping(store: Store, holders: Holders) -> None:
    attempt = attempt_at(store, {})
    attempt.claim._is_stopping = lambda: True
    attempt.claim.renew()
    assert by_key(holders)[attempt.key].state == "stopping"


def test_a_dead_worker_of_this_host_is_dead_at_once(store: Store, holders: Holders) -> None:
    attempt = attempt_at(store, {})
    gone = attempt.claim.record.owner._replace(pid=2**22 + 1)
    attempt.claim._replace(attempt.claim.record._replace(owner=gone))
    assert by_key(holders)[attempt.key].state == "dead"


def test_a_damaged_claim_is_left_to_the_audit(store: Store, holders: Holders) -> None:
    attempt = attempt_at(store, {})
    assert set(by_key(holders)) == {attempt.key}
    whole = store.files.read(f"claims/{attempt.key[:2]}/{attempt.key}.g1.json")
    other = attempt_at(store, {"run": 1})
    store.files.replace(f"claims/{other.key[:2]}/{other.key}.g1.json", whole[:-5])
    assert set(by_key(holders)) == {attempt.key}


def test_a_store_in_memory_can_be_watched_as_well() -> None:
    store = Store(None)
    attempt = attempt_at(store, {})
    assert set(by_key(Holders(store))) == {attempt.key}


def test_looking_again_reads_what_has_changed_alone(
    store: Store, holders: Holders, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in range(60):
        train(store, {"run": run})
    live = [elsewhere(attempt_at(store, {"live": i})) for i in range(3)]
    holders.look()
    clock.sleep(5.0)
    holders.look()
    clock.sleep(5.0)
    calls: Counter[str] = Counter()

    def counted(name: str, original: Any) -> Any:
        def call(path: Any) -> Any:
            calls[name] += 1
            return original(path)

        return call

    for name in ("names", "read"):
        monkeypatch.setattr(holders._store.files, name, counted(name, getattr(holders._store.files, name)))
    assert len(holders.look()) == 3
    assert calls == {"names": 1}, "the list of folders, and the times of these"
    live[0].claim.renew()
    calls.clear()
    holders.look()
    assert calls["names"] <= 3
    assert calls["read"] <= 2 + sum(each.key[:2] == live[0].key[:2] for each in live)


def test_the_first_look_trusts_the_index_for_runs_that_have_ended(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = train(store, {"run": 0})
    live = attempt_at(store, {"run": 1})
    for folder in (tmp_path / "s").glob("*/*"):
        os.utime(folder, (time.time() - 3600,) * 2)  # the index trusts no folder that changed a moment ago
    opened = Store(tmp_path / "s", read_only=True, stale_s=0.0)
    holders_module.read_rows(opened)
    read = []
    below = opened.files.read
    monkeypatch.setattr(opened.files, "read", lambda name: read.append(name) or below(name))
    assert set(by_key(Holders(opened))) == {live.key}
    assert not [name for name in read if ended in name]
