from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager.archives import layout, stops
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.audit import audit, fix
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.stops import Stops
from jimmy_manager.archives.store import Store
from tests.archives.runs import attempt_at, commit
from tests.archives.stepping import FakeClock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s", durable=False, clock=FakeClock(), heartbeat_s=0.01, stale_s=0.0)


@pytest.fixture
def attempt(store: Store) -> Attempt:
    return attempt_at(store, {"lr": 0.1})


def ask(store: Store, attempt: Attempt) -> bool:
    return stops.ask_owner(store.files, store.claims.clock, attempt.key, attempt.generation)


def requests(store: Store) -> list[str]:
    names = (name for shard in store.files.names("claims") for name in store.files.names(f"claims/{shard}"))
    return sorted(name for name in names if name.endswith(".stop"))


def told(attempt: Attempt) -> bool:
    """Whether the owner is told by what its thread does within one heartbeat."""
    heard: list[bool] = []
    clock, waits = attempt.claim.claims.clock, iter([False, False, True])

    def wait(timeout: float | None = None) -> bool:
        clock.sleep(20.0)
        return next(waits)

    attempt.claim._leave = lambda: heard.append(True)
    attempt.claim._ended.wait = wait  # type: ignore[method-assign]
    attempt.claim._beat()
    return bool(heard)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let owners leave their requests behind, as those do that are killed."""
    monkeypatch.setattr(stops, "withdraw", lambda *_: None)


def test_an_owner_is_told_of_a_request_and_withdraws_it_with_its_claim(store: Store, attempt: Attempt) -> None:
    assert not told(attempt)
    assert ask(store, attempt)
    assert told(attempt)
    commit(attempt, 1)
    assert requests(store) == [f"{attempt.key}.g1.stop"]
    attempt.claim.release()
    assert requests(store) == []
    assert store.standing(attempt.key).state == "released"


def test_a_second_request_is_the_first_one(store: Store, attempt: Attempt) -> None:
    assert ask(store, attempt)
    name = f"{store.directory}/{layout.stop(attempt.key, 1)}"
    first = Path(name).read_bytes()
    assert not ask(store, attempt)
    assert Path(name).read_bytes() == first


def test_a_request_never_stops_the_next_generation(store: Store, attempt: Attempt) -> None:
    attempt.claim.release()
    ask(store, attempt)
    successor = attempt_at(store, {"lr": 0.1})
    assert successor.generation == 2
    assert not told(successor)
    ask(store, successor)
    assert told(successor)


def test_a_request_for_generation_1_does_not_ask_generation_10_or_11(store: Store) -> None:
    for _ in range(10):
        attempt_at(store, {"lr": 0.1}).claim.release()
    last = attempt_at(store, {"lr": 0.1})
    assert last.generation == 11
    stops.ask_owner(store.files, store.claims.clock, last.key, 1)
    assert not told(last)


@pytest.mark.usefixtures("killed")
def test_a_request_is_neither_a_claim_nor_damage_and_is_swept_when_it_is_over(store: Store, attempt: Attempt) -> None:
    ask(store, attempt)
    assert audit(store) == []
    assert Janitor(store).sweep().names == ()
    attempt.claim.release()
    (finding,) = audit(store)
    assert (finding.kind, finding.name, finding.is_clutter) == ("superseded", layout.stop(attempt.key, 1), True)
    assert Janitor(store).sweep(dry_run=True).names == (finding.name,)
    assert Janitor(store).sweep().names == (finding.name,)
    assert requests(store) == []


@pytest.mark.usefixtures("killed")
def test_check_removes_a_request_that_is_over_and_keeps_one_that_is_not(store: Store, attempt: Attempt) -> None:
    other = attempt_at(store, {"lr": 0.2})
    for each in (attempt, other):
        ask(store, each)
    attempt.claim.release()
    assert [done.outcome for done in fix(store, audit(store))] == ["remove"]
    assert requests(store) == [f"{other.key}.g1.stop"]


def test_a_request_of_a_strange_name_is_foreign(store: Store, attempt: Attempt) -> None:
    Path(f"{store.directory}/claims/{attempt.key[:2]}/{attempt.key}.g01.stop").write_text("")
    assert [finding.kind for finding in audit(store)] == ["foreign"]


def everybody(store: Store) -> Stops:
    return Stops(store.files, store.claims.clock, every_s=15.0)


def ask_all(store: Store) -> None:
    stops.ask_everybody(store.files, store.claims.clock)


@pytest.fixture(params=["first request", "a later one"])
def later(request: pytest.FixtureRequest, store: Store) -> Callable[[], None]:
    """Ask everybody; with or without a request from before."""
    if request.param == "a later one":
        ask_all(store)
    return lambda: ask_all(store)


def test_everybody_who_has_begun_is_asked_and_nobody_who_begins_later(store: Store, later: Callable[[], None]) -> None:
    waiting = everybody(store)
    store.claims.clock.sleep(15.0)
    assert not waiting.is_everybody_asked()
    later()
    store.claims.clock.sleep(15.0)
    assert waiting.is_everybody_asked()
    after = everybody(store)
    store.claims.clock.sleep(15.0)
    assert not after.is_everybody_asked()
    assert audit(store) == []


def test_the_store_is_looked_at_every_heartbeat_at_most(store: Store, later: Callable[[], None]) -> None:
    looks = 0
    read, names = store.files.read, store.files.names

    def count(look: Callable[[str], object]) -> Callable[[str], object]:
        def counted(name: str) -> object:
            nonlocal looks
            looks += 1
            return look(name)

        return counted

    waiting = everybody(store)
    store.files.read, store.files.names = count(read), count(names)  # type: ignore[method-assign, assignment]
    for _ in range(100):
        store.claims.clock.sleep(0.149)
        waiting.is_everybody_asked()
    assert looks == 0
    store.claims.clock.sleep(0.2)
    waiting.is_everybody_asked()
    assert looks == 1
    later()
    assert not waiting.is_everybody_asked()


def test_a_request_that_cannot_be_read_asks_nobody_until_it_can(store: Store) -> None:
    ask_all(store)
    path = Path(f"{store.directory}/{layout.STOP_FILE}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    began_then = everybody(store)
    path.write_bytes(whole)
    began_before = everybody(store)
    path.write_bytes(whole[:-9])
    for waiting in (began_then, began_before):
        store.claims.clock.sleep(20.0)
        assert not waiting.is_everybody_asked()
    path.write_bytes(whole)
    for waiting in (began_then, began_before):
        store.claims.clock.sleep(20.0)
        assert not waiting.is_everybody_asked(), "it was there when this worker began"
    ask_all(store)
    for waiting in (began_then, began_before):
        store.claims.clock.sleep(20.0)
        assert waiting.is_everybody_asked()


def test_at_its_start_a_worker_asks_for_the_name_itself_as_a_listing_may_be_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_all(store)
    monkeypatch.setattr(store.files, "names", lambda folder: [])
    waiting = everybody(store)
    monkeypatch.undo()
    store.claims.clock.sleep(20.0)
    assert not waiting.is_everybody_asked()


def test_the_heartbeat_of_a_claim_hears_of_requests_to_everybody(store: Store, attempt: Attempt) -> None:
    store.claims.stops = everybody(store)
    assert not told(attempt)
    ask_all(store)
    assert told(attempt)


def test_a_request_says_who_made_it(store: Store, attempt: Attempt) -> None:
    ask(store, attempt)
    raw = Path(f"{store.directory}/{layout.stop(attempt.key, 1)}").read_text()
    assert f"@{os.uname().nodename}" in raw
