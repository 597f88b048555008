"""Waiting for runs that others hold: what is looked at when, what is noticed, how few file operations that takes."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import stops
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.owner import Owner
from jimmy_manager.archives.store import Store
from jimmy_manager.manager import waiting
from jimmy_manager.manager.waiting import Held, Rota, Stamp, Waiting
from jimmy_manager.signals import StopFlag
from tests.archives.runs import attempt_at, commit
from tests.archives.stepping import FakeClock

LEASE_S = 120.0


# What to look at next: decisions alone


def held(key: str, **known: Any) -> Held:
    return Held(key, 1, LEASE_S, None, 0, **({"since": 0.0, "stamped": known.get("since", 0.0)} | known))


def rota(*runs: Held) -> Rota:
    return Rota(1.0, {run.key: run for run in runs})


def test_the_run_that_was_not_looked_at_for_longest_is_next() -> None:
    told = rota(held("a", looked=3.0), held("b", looked=1.0), held("c", looked=2.0))
    assert told.next(5.0) is told.runs["b"]
    assert rota().next(5.0) is None


def test_no_look_is_made_before_the_last_one_is_paid_for() -> None:
    told = rota(held("a"))
    told.pay(10.0, 5)
    assert told.next(14.9) is None
    assert told.next(15.0) is not None
    told.pay(15.0, 1)
    told.pay(15.0, 1)
    assert not told.is_affordable(16.9)


def test_the_end_of_a_lease_does_not_wait_for_the_budget() -> None:
    told = rota(held("a", looked=5.0))
    told.pay(LEASE_S, 100)
    assert told.overdue(LEASE_S - 0.01) is None
    assert told.overdue(LEASE_S) is told.runs["a"]


def test_what_moved_at_its_last_look_is_never_overdue() -> None:
    """Of hundreds each is looked at so seldom that its lease would seem to end every time."""
    assert rota(held("a", since=7.0, looked=7.0)).overdue(1e6) is None


def test_few_runs_are_glanced_at_also_while_a_dear_look_is_paid_for() -> None:
    """The lease of an owner that gave its last sign in that time would begin late by all of it."""
    told = rota(held("a", looked=10.0))
    told.pay(10.0, 7)
    assert told.glance(13.9) is None
    assert told.glance(14.0) is told.runs["a"]
    told.pay(14.0, 5)
    assert told.glance(14.0) is None, "too much is unpaid"
    assert rota(*(held(str(i), looked=0.0) for i in range(4))).glance(100.0) is None


def test_what_was_tried_for_nothing_rests_and_is_not_forgotten() -> None:
    told = rota(held("a", is_ripe=True, rests_until=20.0, looked=1.0))
    assert told.ripe(19.9) == []
    assert told.overdue(LEASE_S - 1) is None
    assert [run.key for run in told.ripe(20.0)] == ["a"]


# What is noticed, on a clock that is moved on by hand


class Slow(FakeClock):
    """A clock that does something at a given moment while somebody sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self._acts: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, moment: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._acts, (moment, len(self._acts), act))

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        while self._acts and self._acts[0][0] <= self.t:
            heapq.heappop(self._acts)[2]()


class Counting:
    """How many file operations a waiting worker makes: those of each call that looks at its store."""

    def __init__(self, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.operations = 0
        for name, cost in (("names", 5), ("read", 4)):
            monkeypatch.setattr(files, name, self._counted(getattr(files, name), cost))
        monkeypatch.setattr(Stamp, "of", self._counted(Stamp.of, 1))

    def _counted(self, look: Callable[[str], Any], cost: int) -> Callable[[str], Any]:
        def counted(name: str) -> Any:
            self.operations += cost
            return look(name)

        return counted


class Scene:
    """A worker that waits, and others on another host that hold runs of the same store."""

    def __init__(self, directory: Path, runs: int = 1, stale_s: float = 0.0) -> None:
        self.clock = Slow()
        self.store = Store(directory, durable=False, clock=self.clock, stale_s=stale_s)
        self.attempts = [attempt_at(self.store, {"run": i}) for i in range(runs)]
        for attempt in self.attempts:
            self._move_away(attempt)
        self.claims = Store(directory, durable=False, clock=self.clock, stale_s=stale_s).claims
        self.waiting = Waiting(self.claims)
        self.stop = StopFlag()
        self.began = self.clock.t

    @staticmethod
    def _move_away(attempt: Attempt) -> None:
        claim = attempt.claim
        claim._replace(claim.record._replace(owner=claim.record.owner._replace(boot="another")))

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        self.clock.at(self.began + seconds, act)

    def beat(self, *attempts: Attempt, until: float) -> None:
        """Renew every 15 s; owners begin at different moments."""
        for index, attempt in enumerate(attempts):
            for number in range(int(until // 15)):
                self.at(15 * number + (index * 0.37) % 15, attempt.claim.renew)

    def wait(self) -> tuple[list[str], float]:
        for attempt in self.attempts:
            self.waiting.add(attempt.key, self.claims.standing(attempt.key))
        woken = self.waiting.wait(self.stop)
        return woken, self.clock.t - self.began


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "s")


def end_of(attempt: Attempt, how: str) -> Callable[[], object]:
    def end() -> None:
        time.sleep(0.1)  # on the clock of the file system, too, the last heartbeat was a while ago
        if how == "failed":
            attempt.claim.fail({"type": "E", "message": "m", "traceback": ""})
        elif how == "done":
            commit(attempt, 1)
            attempt.finish()
        else:
            attempt.claim.release()

    return end


@pytest.mark.parametrize("how", ["released", "failed", "done"])
@pytest.mark.parametrize("moment", [3.0, 40.0, 45.05, 100.0])
def test_an_end_is_noticed_within_seconds(scene: Scene, how: str, moment: float) -> None:
    (attempt,) = scene.attempts
    scene.beat(attempt, until=moment)
    scene.at(moment, end_of(attempt, how))
    woken, after = scene.wait()
    assert woken == [attempt.key]
    assert moment <= after <= moment + 20
    assert scene.claims.standing(attempt.key).state == how


@pytest.mark.parametrize("stale_s", [0.0, 30.0])
def test_silence_is_noticed_when_the_lease_ends_and_not_before(tmp_path: Path, stale_s: float) -> None:
    scene = Scene(tmp_path / "s", stale_s=stale_s)
    (attempt,) = scene.attempts
    scene.beat(attempt, until=60)
    woken, after = scene.wait()
    last_beat = 45.0
    assert woken == [attempt.key]
    assert last_beat + LEASE_S <= after <= last_beat + LEASE_S + 5
    assert scene.claims.standing(attempt.key).state == "silent"


def test_an_owner_that_gives_signs_is_left_alone_for_ever(scene: Scene) -> None:
    scene.beat(*scene.attempts, until=3600)
    scene.at(3500.0, lambda: scene.stop.set("enough"))
    assert scene.wait()[0] == []


def test_a_heartbeat_between_a_stat_and_a_read_is_no_silence(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (attempt,) = scene.attempts
    read = scene.claims.files.read
    beats: list[str] = []

    def beat_then_read(name: str) -> bytes:
        if name.startswith("claims/") and scene.clock.t > scene.began + LEASE_S - 1 and not beats:
            beats.append(name)
            attempt.claim._is_overdue = lambda: False  # type: ignore[method-assign]
            attempt.claim.renew()
        return read(name)

    monkeypatch.setattr(scene.claims.files, "read", beat_then_read)
    _, after = scene.wait()
    assert beats, "or nothing is tested"
    assert after >= 2 * LEASE_S - 2


@pytest.mark.parametrize("runs", [1, 4])
def test_the_times_of_files_prove_no_silence_where_they_may_be_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """On sshfs they lag by 20 s: a heartbeat that came at last, just before the lease ended, is not seen in them."""
    scene = Scene(tmp_path / "s", runs, stale_s=30.0)
    late = scene.attempts[0]
    scene.beat(*scene.attempts[1:], until=300)
    scene.at(LEASE_S - 5, late.claim.renew)
    scene.at(2 * LEASE_S - 20, lambda: scene.stop.set("enough"))
    cached: dict[str, Stamp] = {}
    stamp_of = Stamp.of

    def lagging(path: str) -> Stamp:
        if late.key not in path or scene.clock.t > scene.began + LEASE_S + 15:
            return stamp_of(path)
        return cached.setdefault(path, stamp_of(path))

    monkeypatch.setattr(Stamp, "of", lagging)
    assert scene.wait()[0] == []


@pytest.mark.parametrize("runs", [4, 6, 31])
def test_a_lost_owner_among_many_is_found_where_times_may_be_old(tmp_path: Path, runs: int) -> None:
    scene = Scene(tmp_path / "s", runs, stale_s=30.0)
    scene.beat(*scene.attempts[1:], until=500)
    scene.beat(scene.attempts[0], until=60)
    woken, after = scene.wait()
    assert woken == [scene.attempts[0].key]
    turn_s = 3.0 * runs
    assert 45 + LEASE_S <= after <= 45 + 1.25 * LEASE_S + 2 * turn_s + 15


def test_a_request_that_everybody_leave_is_heard_within_a_minute(scene: Scene) -> None:
    scene.claims.stops = stops.Stops(scene.claims.files, scene.clock, 15.0)
    scene.beat(*scene.attempts, until=600)
    scene.at(20.0, lambda: stops.ask_everybody(scene.store.files, scene.clock))
    woken, after = scene.wait()
    assert (woken, scene.stop.reason) == ([], "jimmy stop")
    assert after <= 60


def test_a_death_on_this_host_is_noticed_without_the_store(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (attempt,) = scene.attempts
    dead: set[Owner] = set()
    monkeypatch.setattr(waiting, "this_process", lambda: attempt.claim.record.owner)
    monkeypatch.setattr(waiting, "is_provably_dead", lambda owner: owner in dead)
    scene.at(33.3, lambda: dead.add(attempt.claim.record.owner))
    woken, after = scene.wait()
    assert woken == [attempt.key]
    assert 33.3 <= after <= 34.3


def test_an_ended_job_is_noticed_without_the_store(scene: Scene) -> None:
    class Queue:
        is_over = False

        def has_ended(self, job: object, *, is_asked: bool = True) -> bool:
            return self.is_over

    (attempt,) = scene.attempts
    job = "SLURM_CLUSTER_NAME=lab,SLURM_JOB_ID=7"
    attempt.claim._replace(attempt.claim.record._replace(owner=attempt.claim.record.owner._replace(slurm=job)))
    scene.claims.queue = queue = Queue()  # type: ignore[assignment]
    scene.at(33.3, lambda: setattr(queue, "is_over", True))
    woken, after = scene.wait()
    assert woken == [attempt.key]
    assert 33.3 <= after <= 34.3
    assert scene.claims.standing(attempt.key).state == "ended"


def test_what_is_free_already_is_tried_at_once_and_then_less_and_less_often(scene: Scene) -> None:
    (attempt,) = scene.attempts
    attempt.claim.release()
    moments = []
    for _ in range(6):
        assert scene.wait()[0] == [attempt.key]
        moments.append(scene.clock.t - scene.began)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert moments[0] <= 0.2
    assert gaps == sorted(gaps)
    assert gaps[-1] > 10


def test_a_store_in_memory_is_looked_at_every_second() -> None:
    clock = Slow()
    store = Store(None, clock=clock)
    attempt = attempt_at(store, {})
    watching = Waiting(store.claims)
    watching.add(attempt.key, store.claims.standing(attempt.key))
    assert watching.wait(StopFlag()) == [attempt.key]


def test_runs_are_looked_at_however_short_the_heartbeat_is(tmp_path: Path) -> None:
    """A worker with a heartbeat of a second may look for requests to stop each second, which took all of the budget."""
    scene = Scene(tmp_path / "s")
    scene.claims.stops = stops.Stops(scene.claims.files, scene.clock, 1.0)
    scene.beat(*scene.attempts, until=60)
    woken, after = scene.wait()
    assert woken == [scene.attempts[0].key]
    assert after <= 45 + LEASE_S + 5


@pytest.mark.parametrize(("runs", "stale_s"), [(1, 0.0), (2, 0.0), (10, 0.0), (200, 0.0), (1, 30.0), (3, 30.0)])
def test_the_budget_holds_for_any_number_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, stale_s: float
) -> None:
    scene = Scene(tmp_path / "s", runs, stale_s)
    scene.claims.stops = stops.Stops(scene.claims.files, scene.clock, 15.0)
    seconds = 300.0
    scene.beat(*scene.attempts, until=seconds)
    scene.at(seconds, lambda: scene.stop.set("enough"))
    for attempt in scene.attempts:
        scene.waiting.add(attempt.key, scene.claims.standing(attempt.key))
    looks = Counting(scene.claims.files, monkeypatch)
    assert scene.waiting.wait(scene.stop) == []
    assert seconds / 2 <= looks.operations <= seconds + 10, "at most one a second, and not none"


def test_a_worker_that_looks_more_often_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PACE_S", 0.5)
    with pytest.raises(AssertionError, match="at most one a second"):
        test_the_budget_holds_for_any_number_of_runs(tmp_path, monkeypatch, 2, 0.0)


def test_a_lost_owner_among_200_is_found_in_turn(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "s", 200)
    lost = scene.attempts[77]
    scene.beat(*(each for each in scene.attempts if each is not lost), until=700)
    woken, after = scene.wait()
    assert woken == [lost.key]
    assert after <= 3 * 220
