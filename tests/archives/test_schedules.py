"""The schedules that broke earlier drafts of the claim protocol, each with and without the rule that it is about.

Every schedule is a function that raises ``Harm`` where a promise is broken. It runs twice: on the package as it
is, and with one rule taken out, which it has to notice. The numbers are those under which they were found.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jimmy_manager import keys
from jimmy_manager.archives import claims, janitor, layout
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.claims import Claims
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.registry import Registry
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import ClaimLost, RunBusy, StoreError
from tests.archives.stepping import Harm, Killed, Stalled, Worker, World, harm_if

Monkey = pytest.MonkeyPatch


class Case(NamedTuple):
    """A schedule, and the rule without which it does harm."""

    schedule: Callable[[World], None]
    remove_rule: Callable[[Monkey], None]
    stale_s: float = 0.0
    on_disk: bool = False
    key_len: int = 8


# --- 1: the janitor goes by what is committed, not by claims


def the_janitor_sweeps_under_a_claim_without_commits(world: World) -> None:
    w0 = world.worker("w0", "a").start()
    w0.commit(1)
    w0.die()
    w1 = world.worker("w1", "a").start()
    cleaner = world.worker("janitor", "a")
    cleaner.act(Janitor(cleaner.store).sweep)
    w1.die()
    w2 = world.worker("w2", "a").start()
    harm_if(w2.trained() != "w0.1", "nothing can be resumed")


def janitor_goes_by_the_highest_claim(monkey: Monkey) -> None:
    monkey.setattr(Janitor, "_floor", lambda self, key: self._history.claims.look(key).top)


# --- 2: no unreferenced file at or above the floor is removed


def the_janitor_meets_a_checkpoint_before_its_stats(world: World) -> None:
    w0 = world.worker("w0").start()
    w0.commit(1)
    committing = w0.stall(lambda: w0.commit(2), "before", "replace", "stats/")
    w1 = world.worker("w1")
    w1.outwait()
    assert w1.take()
    cleaner = world.worker("janitor")
    sweeping = cleaner.stall(Janitor(cleaner.store).sweep, "before", "remove", "", may_end=True)
    with pytest.raises(ClaimLost):
        committing.resume()
    sweeping.resume()
    for commit in w1.history.stats(w1.key).commits:
        for name in commit.contents():
            folder, _, last = name.rpartition("/")
            harm_if(last not in world.server.names(folder), f"stats name {name}, which is gone")


def janitor_removes_what_no_stats_name(monkey: Monkey) -> None:
    listed = Janitor._superseded

    def superseded(self: Janitor) -> list[str]:
        names = listed(self)
        for key, generations in self._list().items():
            for generation in self._history.claims.look(key).stats:
                stats = self._history.read_stats(key, generation)
                named = {stats.name}.union(*(commit.contents() for commit in stats.commits))
                names.extend(name for name in generations.get(generation, ()) if name not in named)
        return names

    monkey.setattr(Janitor, "_superseded", superseded)


# --- 3: the highest committed generation is adopted, whichever that is


def three_generations_die_without_a_commit(world: World) -> None:
    w0 = world.worker("w0", "a").start()
    w0.commit(1)
    w0.die()
    for i in (2, 3, 4):
        world.worker(f"w{i}", "a").start().die()
    w5 = world.worker("w5", "a").start()
    w5.go_on(1)
    harm_if("w0.1" not in world.lineage(), "a run started at zero outranks what was committed")


def only_the_generation_below_is_adopted(monkey: Monkey) -> None:
    adopt, newer_below = Attempt.adopt, Attempt._newer_below

    def is_committed_below(attempt: Attempt) -> bool:
        return attempt.generation - 1 in attempt._history.claims.look(attempt.key).stats

    monkey.setattr(Attempt, "adopt", lambda self: adopt(self) if is_committed_below(self) else None)
    monkey.setattr(Attempt, "_newer_below", lambda self: newer_below(self) if is_committed_below(self) else None)


# --- 4: claims are never removed


def a_claim_is_planned_before_and_made_after_a_sweep(world: World) -> None:
    w1 = world.worker("w1", "a")
    old_plan = w1.standing()
    w2 = world.worker("w2", "a").start()
    w2.commit(1)
    w2.die()
    w0 = world.worker("w0", "a").start()
    w0.commit(2)
    cleaner = world.worker("janitor", "a")
    cleaner.act(Janitor(cleaner.store).sweep)
    harm_if(w1.take(old_plan), "generation 1 has two owners")


def a_worker_stalls_before_its_claim_is_made(world: World) -> None:
    w0 = world.worker("w0", "a").start()
    w0.commit(1)
    w0.die()
    for name in ("w2", "w3"):
        world.worker(name, "a").start().die()
    a = world.worker("a", "a")
    claiming = a.stall(a.take, "before", "create", "claims/")
    b = world.worker("b", "a").start()
    b.commit(2)
    b.die()
    c = world.worker("c", "a").start()
    c.commit(3)
    assert (b.attempt.generation, c.attempt.generation) == (4, 5)
    cleaner = world.worker("janitor", "a")
    cleaner.act(Janitor(cleaner.store).sweep)
    harm_if(claiming.resume(), "generation 4 has two owners")


def janitor_removes_old_claims(monkey: Monkey) -> None:
    monkey.setattr(janitor, "SWEPT_ARCHIVES", ("stats", "ckpts", "previews", "claims"))


# --- 5: an adoption is not committed, and the first commit looks below once more


def the_last_epoch_is_committed_after_it_was_adopted_from(world: World) -> None:
    w0 = world.worker("w0").start()
    w0.commit(1)
    committing = w0.stall(lambda: w0.commit(2), "before", "replace", "stats/")
    w1 = world.worker("w1")
    w1.outwait()
    assert w1.take()
    adopting = w1.stall(w1.adopt, "before", "replace", "stats/", may_end=True)
    with pytest.raises(ClaimLost):
        committing.resume()
    seen = world.newest().epoch
    assert seen == 2
    adopting.resume()
    harm_if(world.newest().epoch < seen, "a reader saw a complete run become incomplete")
    w1.go_on(2)
    harm_if("w0.2" not in world.lineage(), "what was seen as complete is trained once more")


def adoptions_are_committed_at_once(monkey: Monkey) -> None:
    adopt = Attempt.adopt

    def adopt_and_commit(self: Attempt) -> Any:
        if adopt(self):
            self._commits = (self.adopted,)
            self._write_stats(Stats(self.key, self.generation, self.claim.record.token, self._commits), self.adopted)
        return self.adopted

    monkey.setattr(Attempt, "adopt", adopt_and_commit)


def the_first_commit_does_not_look_below(monkey: Monkey) -> None:
    monkey.setattr(Attempt, "_newer_below", lambda self: None)


# --- 6: whoever adopts from an old listing waits until it must be new


def a_late_commit_is_not_listed_yet(world: World) -> None:
    w1, w2 = world.worker("w1").start(), world.worker("w2")
    assert w2.standing().state == "held"
    world.clock.sleep(w1.attempt.claim.record.lease_s - 1)
    w1.commit(1)
    w1.commit(2)
    w1.die()
    world.clock.sleep(2)
    w2.view.lag_s = world.stale_s
    w2.start()
    assert w2.trained() == ""
    w2.go_on(1)
    harm_if("w1.2" not in world.lineage(), "an acknowledged commit is outranked by a run started at zero")


def nobody_waits_for_listings(monkey: Monkey) -> None:
    monkey.setattr(Attempt, "_await_late_commits", lambda self: None)


def a_released_run_is_not_listed_yet_on_another_host(world: World) -> None:
    w1 = world.worker("w1").start()
    world.clock.sleep(world.stale_s)
    w1.commit(1)
    w1.release()
    w2 = world.worker("w2")
    w2.view.lag_s = world.stale_s
    w2.start()
    assert w2.trained() == ""
    w2.go_on(1)
    harm_if("w1.1" not in world.lineage(), "an acknowledged commit is outranked by a run started at zero")


def nobody_waits_after_a_release(monkey: Monkey) -> None:
    monkey.setattr(Claims, "_must_settle", lambda self, standing: standing.state in ("silent", "held"))


# --- 7: a commit is acknowledged by a listing of claims after it


def a_commit_stalls_between_check_and_stats(world: World) -> None:
    w0 = world.worker("w0").start()
    w0.commit(1)
    w0.commit(2)
    committing = w0.stall(lambda: w0.commit(3), "before", "replace", "stats/")
    w1 = world.worker("w1")
    w1.outwait()
    w1.start()
    succeeding = w1.stall(lambda: w1.commit(3), "before", "replace", "stats/")
    is_acknowledged = w0.is_acknowledged(committing.resume)
    succeeding.resume()
    harm_if(is_acknowledged and "w0.3" not in world.lineage(), "an acknowledged commit is gone")


def commits_are_not_checked_afterwards(monkey: Monkey) -> None:
    monkey.setattr(Attempt, "_acknowledge", lambda self: None)


def both_listings_are_old(world: World) -> None:
    w0, w1 = world.worker("w0").start(), world.worker("w1")
    committing = w0.stall(lambda: w0.commit(1), "before", "replace", "stats/")
    assert w1.take(w1.standing())  # as if Slurm had said that the other one is dead
    w1.adopt()
    world.clock.sleep(world.stale_s / 2)
    w0.view.lag_s = w1.view.lag_s = world.stale_s
    assert w0.is_acknowledged(committing.resume)
    w1.go_on(1)
    harm_if("w0.1" not in world.lineage(), "an acknowledged commit is gone")


# --- 8: only a commit of one's own generation can be declared done


def a_predecessor_commits_after_the_run_was_done(world: World) -> None:
    w0 = world.worker("w0").start()
    w0.commit(1)
    w0.commit(2)
    w1 = world.worker("w1")
    w1.outwait()
    w1.start()
    committing = w1.stall(lambda: w1.commit(2), "before", "replace", "stats/")
    w2 = world.worker("w2")
    w2.outwait()
    w2.start()
    assert w2.trained() == "w0.1 w0.2"
    if not w2.is_acknowledged(w2.finish):
        w2.go_on(2)
        w2.finish()
    result = world.lineage()
    assert not w1.is_acknowledged(committing.resume)
    harm_if(world.lineage() != result, "a finished result changed")


def what_is_adopted_may_be_declared_done(monkey: Monkey) -> None:
    finish = Attempt.finish

    def finish_with_anything(self: Attempt) -> None:
        if self._commits:
            finish(self)
        else:
            self._declare_done(Stats(self.key, self.generation, self.claim.record.token, (self.adopted,)))
            self.claim.drop()

    monkey.setattr(Attempt, "finish", finish_with_anything)


# --- 9: a pop is a claim, and removes nothing


def a_run_is_popped_under_a_stalled_worker(world: World) -> None:
    w0 = world.worker("w0").start()
    committing = w0.stall(lambda: w0.commit(1), "before", "replace", "stats/")
    person = world.worker("person")
    person.act(lambda: person.store.pop(person.key, force=True))
    w1 = world.worker("w1").start()
    is_acknowledged = w0.is_acknowledged(committing.resume)
    harm_if(is_acknowledged or "w0.1" in world.lineage(), "a popped run is there again")
    w1.go_on(1)
    harm_if(world.lineage() != "w1.1", "a popped run is there again")


def pop_removes_the_files(monkey: Monkey) -> None:
    def pop(self: Store, key: str, *, force: bool = False) -> None:
        for archive in ("claims", "stats", "ckpts", "previews"):
            for name in self.files.names(layout.shard(archive, key)):
                if layout.parse(archive, name).key == key:
                    self.files.remove(f"{layout.shard(archive, key)}/{name}")

    monkey.setattr(Store, "pop", pop)


def a_tombstone_is_not_listed_yet(world: World) -> None:
    w0 = world.worker("w0").start()
    w0.commit(1)
    w0.release()
    world.clock.sleep(world.stale_s + 1)
    person = world.worker("person")
    person.act(lambda: person.store.pop(person.key))
    w1 = world.worker("w1")
    # The claims are listed afresh here, the tombstone not yet.
    w1.files.stop("before", "names", "stats/", lambda: setattr(w1.view, "lag_s", world.stale_s))
    w1.start()
    assert w1.trained() == "w0.1"
    w1.view.lag_s = 0.0
    w1.go_on(1)
    harm_if("w0.1" in world.lineage(), "a popped run is there again")


def tombstones_below_are_overlooked(monkey: Monkey) -> None:
    newer_below = Attempt._newer_below

    def newer_commit_below(self: Attempt) -> tuple[int, int] | None:
        newer = newer_below(self)
        return newer if newer and newer[1] else None

    monkey.setattr(Attempt, "_newer_below", newer_commit_below)


def a_run_is_claimed_between_the_pop_and_its_tombstone(world: World) -> None:
    w0 = world.worker("w0", "a").start()
    w0.commit(1)
    w0.release()
    person = world.worker("person", "a")
    popping = person.stall(lambda: person.store.pop(person.key), "before", "replace", "stats/")
    w1 = world.worker("w1", "a").start()
    w1.commit(2)
    try:
        popping.resume()
    except RunBusy:
        return
    harm_if(world.lineage() != "", "a run that was reported as popped is there")


def pop_is_not_checked_afterwards(monkey: Monkey) -> None:
    def pop(self: Store, key: str, *, force: bool = False) -> None:
        record = self.claims.mark(self.standing(key), self.registry.read(key).digest, "popped")
        stats = Stats(key, record.generation, record.token, ())
        self.files.replace(stats.name, stats.seal())

    monkey.setattr(Store, "pop", pop)


# --- 10: a rename that failed can not happen later


class LateRename:
    """A rename of a stats file that is reported as failed, and that the server may still carry out."""

    def __init__(self, monkey: Monkey, *, is_scratch_stuck: bool = False) -> None:
        self._rename, self._unlink = os.rename, os.unlink
        self._pending: tuple[Any, Any] | None = None
        self._is_scratch_stuck = is_scratch_stuck
        self._monkey = monkey
        monkey.setattr(os, "rename", self._fail)
        monkey.setattr(os, "unlink", self._refuse)

    def _fail(self, source: Any, target: Any) -> None:
        if self._pending is None and "/stats/" in target:
            self._pending = (source, target)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._rename(source, target)

    def _refuse(self, path: Any) -> None:
        if self._is_scratch_stuck and self._pending and path == self._pending[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._unlink(path)

    def happens(self) -> None:
        assert self._pending is not None
        try:
            self._rename(*self._pending)
        except FileNotFoundError:
            return


def a_failed_rename_of_stats_happens_late(world: World, *, is_scratch_stuck: bool = False) -> None:
    with pytest.MonkeyPatch.context() as monkey:
        w0 = world.worker("w0").start()
        late = LateRename(monkey, is_scratch_stuck=is_scratch_stuck)
        with pytest.raises(StoreError):
            w0.commit(1)
        acknowledged = [epoch for epoch in (2, 3) if w0.is_acknowledged(lambda epoch=epoch: w0.commit(epoch))]
        late.happens()
        if acknowledged:
            harm_if(world.newest().epoch != acknowledged[-1], "stats of old name a checkpoint that is gone")
        assert acknowledged == ([] if is_scratch_stuck else [2, 3])


def a_failed_rename_that_can_not_be_taken_back_happens_late(world: World) -> None:
    a_failed_rename_of_stats_happens_late(world, is_scratch_stuck=True)


def scratch_of_a_failed_rename_stays(monkey: Monkey) -> None:
    monkey.setattr(Disk, "_was_renamed", lambda self, *_: False)


def a_worker_goes_on_after_a_pending_write(monkey: Monkey) -> None:
    monkey.setattr(Attempt, "_may_write", lambda self: self.claim.check())


# --- 11: a preview has its own name in each commit


def a_worker_dies_between_preview_and_stats(world: World) -> None:
    w0 = world.worker("w0").start()
    w0.commit(1)
    committing = w0.stall(lambda: w0.commit(2), "before", "replace", "stats/")
    w0.die()
    with pytest.raises(Killed):
        committing.resume()
    harm_if(world.newest().epoch != 1, "the preview of what was committed does not match for ever")


def previews_share_a_name(monkey: Monkey) -> None:
    monkey.setattr(layout, "preview", lambda key, generation, _: f"previews/{key[:2]}/{key}.g{generation}.json")


# --- 12: a lease that ends without a commit is doubled


class Cached:
    """Files whose listings and contents are looked up anew only every ``ttl_s``, as by an NFS client."""

    def __init__(self, world: World, below: Any, ttl_s: float) -> None:
        self._world, self._below, self._ttl_s = world, below, ttl_s
        self._cache: dict[tuple[str, str], tuple[float, Any]] = {}

    def names(self, folder: str) -> list[str]:
        return self._cached("names", folder)

    def freshen(self, folder: str) -> None:
        """What is cached stays so for its time."""

    def read(self, name: str) -> bytes:
        return self._cached("read", name)

    def _cached(self, operation: str, name: str) -> Any:
        now = self._world.clock.t
        since, value = self._cache.get((operation, name), (0.0, None))
        if value is None or now - since >= self._ttl_s:
            value = getattr(self._below, operation)(name)
            self._cache[operation, name] = (now, value)
        return value

    def __getattr__(self, operation: str) -> Any:
        def do(name: str, *arguments: Any) -> Any:
            result = getattr(self._below, operation)(name, *arguments)
            for changed in (name, *(a for a in arguments if isinstance(a, str))):
                self._cache.pop(("read", changed), None)
                self._cache.pop(("names", changed.rpartition("/")[0]), None)
            return result

        return do


def changes_are_seen_later_than_a_lease_lasts(world: World) -> None:
    workers = [world.worker(f"w{i}") for i in range(3)]
    for worker in workers:
        worker.files.below = Cached(world, worker.view, 90.0)
    epoch_ends: dict[str, float] = {}
    while True:
        world.clock.sleep(15)
        for worker in workers:
            state = worker.standing().state
            if state == "done":
                return
            if worker.attempt is None:
                if worker.standing().is_free and worker.take():
                    worker.adopt()
                    epoch_ends[worker.name] = world.clock.t + 300
            elif world.clock.t < epoch_ends[worker.name]:
                worker.act(worker.attempt.claim.renew)
            elif worker.is_acknowledged(lambda worker=worker: _train_one_of_four(worker)):
                epoch_ends[worker.name] = world.clock.t + 300
            else:
                worker.act(worker.attempt.claim.drop)
                worker.attempt = None
        number = world.worker("reader").standing().trace.top
        harm_if(number > 100, f"healthy workers claimed {number} times and did not finish")


def _train_one_of_four(worker: Worker) -> None:
    epoch = worker.attempt.newest.epoch + 1 if worker.attempt.newest else 1
    worker.go_on(min(epoch, 4))
    if epoch >= 4:
        worker.finish()


def leases_stay_short(monkey: Monkey) -> None:
    monkey.setattr(Claims, "_lease", lambda self, standing: self.lease_s)


# --- 13: a popped configuration keeps its name, and names are told apart to the letter


def colliding_configs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two configurations whose digests begin alike for four digits."""
    seen: dict[str, dict[str, Any]] = {}
    for seed in itertools.count():
        config = {"seed": seed}
        other = seen.setdefault(keys.digest(config)[:4], config)
        if other is not config:
            return other, config
    raise AssertionError


def the_first_of_two_that_collide_is_popped(world: World) -> None:
    first, second = colliding_configs()
    a, b = world.worker("a", config=first), world.worker("b", config=second)
    assert (len(a.key), len(b.key)) == (4, 8)
    a.act(lambda: a.store.pop(a.key))
    harm_if(world.worker("b again", config=second).key != b.key, "one configuration has two keys")


def pop_removes_the_configuration(monkey: Monkey) -> None:
    pop = Store.pop

    def pop_all(self: Store, key: str, *, force: bool = False) -> None:
        pop(self, key, force=force)
        self.files.remove(layout.config(key))

    monkey.setattr(Store, "pop", pop_all)


def one_key_begins_another(world: World) -> None:
    first, second = colliding_configs()
    a, b = world.worker("a", config=first), world.worker("b", config=second)
    b.start().commit(1)
    harm_if(a.standing().state != "new", "the claims of one run are taken for those of another")
    a.start().commit(1)
    a.release()
    a.act(lambda: a.store.pop(a.key))
    harm_if(b.lineage() != "b.1", "popping one run popped another")


def names_are_found_by_a_glob(monkey: Monkey) -> None:
    def generations(key: str, names: list[str], parse: Callable[[str], layout.Parsed | None]) -> tuple[int, ...]:
        return tuple(sorted(found.generation for name in names if name.startswith(key) and (found := parse(name))))

    monkey.setattr(claims, "_generations", generations)


# --- 14: an unreadable configuration is never skipped over


class NoLinks:
    """A file system without hard links, where a creation can be stopped while its file is still empty."""

    def __init__(self, monkey: Monkey) -> None:
        self._open = os.open
        self.stalled: Stalled | None = None
        monkey.setattr(os, "link", self._refuse)
        monkey.setattr(os, "open", self._open_and_stop)

    def stall(self, act: Callable[[], Any]) -> Stalled:
        self.stalled = stalled = Stalled()
        stalled.begin(act, "an empty file")
        return stalled

    def _refuse(self, *_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def _open_and_stop(self, path: Any, flags: int, *mode: int, **kwargs: Any) -> int:
        descriptor = self._open(path, flags, *mode, **kwargs)
        if self.stalled and flags & os.O_EXCL and not os.path.basename(path).startswith("."):
            stalled, self.stalled = self.stalled, None
            stalled.stop()
        return descriptor


def a_creation_without_links_stalls_while_empty(world: World) -> None:
    config = {"lr": 0.2}
    with pytest.MonkeyPatch.context() as monkey:
        w0, w1 = world.worker("w0"), world.worker("w1")
        creating = NoLinks(monkey).stall(lambda: w0.act(lambda: w0.store.register(config).key))
        second = w1.act(lambda: w1.store.register(config).key)
        first = creating.resume()
        third = world.worker("w2", config=config).key
        harm_if(len({first, second, third}) > 1, f"one configuration has the keys {first}, {second} and {third}")
        harm_if(sorted(w1.store.registry) != sorted({first, w0.key}), "one configuration is there twice")


def unreadable_configurations_are_skipped(monkey: Monkey) -> None:
    monkey.setattr(Registry, "_holder_of_damaged", lambda self, entry, repair: "another configuration")


# --- also found: what file systems and processes do to a claim


def a_creation_ends_with_one_name(world: World) -> None:
    w0 = world.worker("w0")
    assert w0.take()
    left = [name for name in world.server.names(f"claims/{w0.key[:2]}") if layout.scratch_target(name)]
    harm_if(left != [], f"a second name is left: {left}")


def the_scratch_file_is_renamed_onto_its_link(monkey: Monkey) -> None:
    def rename_onto_target(self: Disk, scratch: str) -> bool:
        folder, _, last = scratch.rpartition("/")
        os.rename(self.path(scratch), self.path(f"{folder}/{layout.scratch_target(last)}"))
        return True

    monkey.setattr(Disk, "remove", rename_onto_target)


def links_to_the_files_of_others_are_refused(world: World) -> None:
    link = os.link

    def refuse(source: str, target: str) -> None:
        if "/ckpts/" in target or "/previews/" in target:  # owned by the user of the run's last worker
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        link(source, target)

    w0 = world.worker("w0", "a").start()
    w0.commit(1)
    w0.die()
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(os, "link", refuse)
        try:
            w1 = world.worker("w1", "a").start()
        except PermissionError as error:
            raise Harm("a run of another user cannot be resumed") from error
        harm_if(w1.trained() != "w0.1", "a run of another user starts again")


def files_are_only_linked(monkey: Monkey) -> None:
    monkey.setattr(Disk, "copy", lambda self, source, name: os.link(self.path(source), self.path(name)))


def two_forks_claim_at_the_same_time(world: World) -> None:
    parent, child = world.worker("parent"), world.worker("child")
    child.owner = parent.owner  # at its worst: a pid namespace, boot and start time that say nothing
    plan = parent.standing()
    harm_if(parent.take(plan) and child.take(plan), "generation 1 has two owners")


def tokens_are_drawn_before_the_fork(monkey: Monkey) -> None:
    monkey.setattr(claims.secrets, "token_hex", lambda size: "5" * (2 * size))


def a_claim_is_durable_before_it_is_acted_on(world: World) -> None:
    world.server.durable = True
    w0 = world.worker("w0")
    plan = w0.standing()
    events = []
    with pytest.MonkeyPatch.context() as monkey:
        fsync, link = os.fsync, os.link

        def note_fsync(descriptor: int) -> None:
            events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def note_link(source: str, target: str) -> None:
            events.append("link")
            link(source, target)

        monkey.setattr(os, "fsync", note_fsync)
        monkey.setattr(os, "link", note_link)
        w0.take(plan)
    made = events.index("link")
    harm_if("file" not in events[:made] or events[-1] != "folder", f"a power cut may undo the claim: {events}")


def folders_are_not_synced(monkey: Monkey) -> None:
    monkey.setattr(Disk, "_sync_path", lambda self, folder: None)


def files_are_not_synced(monkey: Monkey) -> None:
    monkey.setattr(Disk, "_sync", lambda self, file: None)


def a_claim_is_made_but_its_reply_is_lost(world: World) -> None:
    link = os.link

    def link_and_fail(source: str, target: str) -> None:
        link(source, target)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # sshfs says so for EEXIST, which a retry meets

    w0 = world.worker("w0")
    plan = w0.standing()
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(os, "link", link_and_fail)
        harm_if(not w0.take(plan), "a claim that was made belongs to nobody")
    harm_if(world.worker("w1").take(plan), "generation 1 has two owners")


def errors_are_believed(monkey: Monkey) -> None:
    monkey.setattr(Disk, "_decide", lambda self, name, data, error: False)


CASES = {
    "1 highest claim": Case(the_janitor_sweeps_under_a_claim_without_commits, janitor_goes_by_the_highest_claim),
    "2 unreferenced": Case(the_janitor_meets_a_checkpoint_before_its_stats, janitor_removes_what_no_stats_name),
    "3 only from below": Case(three_generations_die_without_a_commit, only_the_generation_below_is_adopted),
    "4 claims deleted": Case(a_claim_is_planned_before_and_made_after_a_sweep, janitor_removes_old_claims),
    "4 claims deleted, link": Case(a_worker_stalls_before_its_claim_is_made, janitor_removes_old_claims),
    "5 adoption committed": Case(
        the_last_epoch_is_committed_after_it_was_adopted_from, adoptions_are_committed_at_once, 30.0
    ),
    "5 no second look": Case(
        the_last_epoch_is_committed_after_it_was_adopted_from, the_first_commit_does_not_look_below, 30.0
    ),
    "6 stale adoption": Case(a_late_commit_is_not_listed_yet, nobody_waits_for_listings, 30.0),
    "6 stale after a release": Case(
        a_released_run_is_not_listed_yet_on_another_host, nobody_waits_after_a_release, 30.0
    ),
    "7 no check after": Case(a_commit_stalls_between_check_and_stats, commits_are_not_checked_afterwards, 30.0),
    "7 no wait before": Case(both_listings_are_old, nobody_waits_for_listings, 30.0),
    "8 done without own": Case(a_predecessor_commits_after_the_run_was_done, what_is_adopted_may_be_declared_done),
    "9 pop deletes": Case(a_run_is_popped_under_a_stalled_worker, pop_removes_the_files),
    "9 stale tombstone": Case(a_tombstone_is_not_listed_yet, tombstones_below_are_overlooked, 30.0),
    "9 pop unchecked": Case(a_run_is_claimed_between_the_pop_and_its_tombstone, pop_is_not_checked_afterwards),
    "10 late rename": Case(a_failed_rename_of_stats_happens_late, scratch_of_a_failed_rename_stays, on_disk=True),
    "10 pending rename": Case(
        a_failed_rename_that_can_not_be_taken_back_happens_late, a_worker_goes_on_after_a_pending_write, on_disk=True
    ),
    "11 shared preview": Case(a_worker_dies_between_preview_and_stats, previews_share_a_name),
    "12 short leases": Case(changes_are_seen_later_than_a_lease_lasts, leases_stay_short),
    "13 name freed": Case(the_first_of_two_that_collide_is_popped, pop_removes_the_configuration, key_len=4),
    "13 glob": Case(one_key_begins_another, names_are_found_by_a_glob, key_len=4),
    "14 empty file": Case(
        a_creation_without_links_stalls_while_empty, unreadable_configurations_are_skipped, on_disk=True
    ),
    "also one inode": Case(a_creation_ends_with_one_name, the_scratch_file_is_renamed_onto_its_link, on_disk=True),
    "also protected links": Case(links_to_the_files_of_others_are_refused, files_are_only_linked, on_disk=True),
    "also forked token": Case(two_forks_claim_at_the_same_time, tokens_are_drawn_before_the_fork),
    "also unsynced folder": Case(a_claim_is_durable_before_it_is_acted_on, folders_are_not_synced, on_disk=True),
    "also unsynced file": Case(a_claim_is_durable_before_it_is_acted_on, files_are_not_synced, on_disk=True),
    "also lost reply": Case(a_claim_is_made_but_its_reply_is_lost, errors_are_believed, on_disk=True),
}


def build(case: Case, monkeypatch: Monkey, tmp_path: Path) -> World:
    server = Disk(tmp_path, durable=False) if case.on_disk else None
    return World(monkeypatch, stale_s=case.stale_s, server=server, key_len=case.key_len)


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_does_no_harm(name: str, monkeypatch: Monkey, tmp_path: Path) -> None:
    case = CASES[name]
    case.schedule(build(case, monkeypatch, tmp_path))


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_does_harm_where_its_rule_is_taken_out(name: str, monkeypatch: Monkey, tmp_path: Path) -> None:
    case = CASES[name]
    case.remove_rule(monkeypatch)
    with pytest.raises(Harm):
        case.schedule(build(case, monkeypatch, tmp_path))


def test_each_of_the_fourteen_schedules_is_here() -> None:
    assert {name.split()[0] for name in CASES} == {*map(str, range(1, 15)), "also"}
