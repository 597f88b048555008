"""What Slurm's word that a job has ended means for the claims of its worker: the end of the lease, and no more."""

from __future__ import annotations

import pytest

from jimmy_manager.archives.claims import Claims, Standing
from jimmy_manager.errors import ClaimLost
from jimmy_manager.slurm import Job
from tests.archives.stepping import Harm, Worker, World, harm_if

JOB = "SLURM_CLUSTER_NAME=lab,SLURM_JOB_ID=7"


class Queue:
    """Slurm, as far as it is known to one worker; remembers when it was asked."""

    def __init__(self, world: World) -> None:
        self.ended: set[int] = set()
        self.asked: list[float] = []
        self._world = world

    def has_ended(self, job: Job, *, is_asked: bool = True) -> bool:
        if is_asked:
            self.asked.append(self._world.clock.t)
        return job.id in self.ended


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, stale_s=30.0, lease_s=120.0)


def holder(world: World, name: str = "w0", host: str = "") -> Worker:
    worker = world.worker(name, host)
    worker.owner = worker.owner._replace(slurm=JOB)
    return worker


def successor(world: World, name: str = "w1", host: str = "") -> tuple[Worker, Queue]:
    worker, queue = world.worker(name, host), Queue(world)
    worker.claims.queue = queue  # type: ignore[assignment]
    return worker, queue


def test_a_run_is_free_as_soon_as_slurm_says_that_its_job_has_ended(world: World) -> None:
    holder(world).start()
    w1, queue = successor(world)
    assert w1.standing().state == "held"
    queue.ended.add(7)
    standing = w1.standing()
    assert (standing.state, standing.is_free) == ("ended", True)
    assert w1.take(standing)
    assert w1.attempt.claim.record.after == "ended"


def test_without_a_queue_the_lease_decides(world: World) -> None:
    holder(world).start()
    w1 = world.worker("w1")
    assert w1.standing().state == "held"
    world.clock.sleep(121.0)
    assert w1.standing().state == "silent"


def test_slurm_is_asked_at_first_sight_and_then_about_overdue_heartbeats_alone(world: World) -> None:
    w0 = holder(world).start()
    w1, queue = successor(world)
    w1.standing()
    assert len(queue.asked) == 1
    for _ in range(20):
        world.clock.sleep(15.0)
        w0.act(w0.attempt.claim.renew)
        w1.standing()
        world.clock.sleep(1.0)
        w1.standing()
    assert len(queue.asked) == 1, "its owner gives signs"
    world.clock.sleep(28.0)
    w1.standing()
    assert len(queue.asked) == 1
    world.clock.sleep(2.0)
    w1.standing()
    assert len(queue.asked) == 2


@pytest.mark.parametrize("host", ["w0", "w1"])
def test_the_successor_of_an_ended_job_waits_for_late_commits_also_on_the_same_host(world: World, host: str) -> None:
    holder(world).start()
    w1, queue = successor(world, host=host)
    queue.ended.add(7)
    w1.start()
    assert w1.attempt.claim.record.settle
    before = world.clock.t
    w1.commit(1)
    assert world.clock.t - before >= 2 * world.stale_s


def test_an_ended_job_is_no_crash_and_doubles_no_lease(world: World) -> None:
    for number in range(12):
        worker, queue = successor(world, f"w{number}")
        worker.owner = worker.owner._replace(slurm=JOB)
        queue.ended.add(7)
        worker.start()
    assert worker.attempt.claim.generation == 12
    assert worker.attempt.claim.record.lease_s == 120.0
    silent = world.worker("later")
    silent.outwait()
    silent.start()
    assert silent.attempt.claim.record.lease_s == 240.0, "that one lease ended by itself"


def test_crashes_below_an_ended_job_do_not_count_either(world: World) -> None:
    for _ in range(4):
        world.worker("crashing", "a").start().die()
    holder(world, "h", "a").start()
    w1, queue = successor(world, host="a")
    queue.ended.add(7)
    standing = w1.standing()
    assert w1.claims._count_crashes(standing) == 0
    assert w1.take(standing)


def test_a_proof_of_death_comes_before_slurms_word(world: World) -> None:
    holder(world, "w0", "a").start().die()
    w1, queue = successor(world, host="a")
    queue.ended.add(7)
    assert w1.standing().state == "dead"
    assert queue.asked == []


def a_zombie_commits_after_slurm_gave_it_up(world: World) -> None:
    """``kill -9`` of a slurmd: the job is requeued elsewhere, and its old worker goes on for seconds."""
    w0 = holder(world).start()
    w1, queue = successor(world)
    queue.ended.add(7)
    committing = w0.stall(lambda: w0.commit(1), "before", "replace", "stats/")
    w1.take()
    w1.adopt()
    world.clock.sleep(world.stale_s / 2)
    w0.view.lag_s = w1.view.lag_s = world.stale_s
    assert w0.is_acknowledged(committing.resume)  # its listing is too old to show that it was overtaken
    w1.go_on(1)
    harm_if("w0.1" not in world.lineage(), "an acknowledged commit of the zombie is gone")
    world.clock.sleep(world.stale_s)
    with pytest.raises(ClaimLost):
        w0.commit(2)


def test_nothing_that_was_acknowledged_to_a_zombie_is_lost(world: World) -> None:
    a_zombie_commits_after_slurm_gave_it_up(world)


def test_it_would_be_lost_if_slurms_word_were_a_proof_of_death(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    must_settle = Claims._must_settle

    def believes_slurm(self: Claims, standing: Standing) -> bool:
        return standing.state != "ended" and must_settle(self, standing)

    monkeypatch.setattr(Claims, "_must_settle", believes_slurm)
    with pytest.raises(Harm):
        a_zombie_commits_after_slurm_gave_it_up(world)


def test_what_a_watcher_saw_unmoved_counts_as_silence(world: World) -> None:
    w0 = holder(world).start()
    w1 = world.worker("w1")
    w1.standing()
    world.clock.sleep(50.0)
    w0.act(w0.attempt.claim.renew)
    since = world.clock.t
    world.clock.sleep(120.0)
    raw = w1.files.read(f"claims/{w0.key[:2]}/{w0.key}.g1.json")
    w1.claims.note_unmoved(w0.key, 1, raw, since)
    assert w1.standing().state == "silent"
    w1.claims.note_unmoved(w0.key, 1, raw.replace(b"held", b"hold"), since)
    assert w1.standing().state == "held", "it was something else that did not move"


def test_what_was_seen_unmoved_for_less_than_the_lease_is_no_silence(world: World) -> None:
    w0 = holder(world).start()
    w1 = world.worker("w1")
    world.clock.sleep(119.0)
    w1.claims.note_unmoved(w0.key, 1, w1.files.read(f"claims/{w0.key[:2]}/{w0.key}.g1.json"), world.clock.t - 119.0)
    assert w1.standing().state == "held"
    world.clock.sleep(1.0)
    assert w1.standing().state == "silent"
