"""Random interleavings of workers, a janitor and a person who pops, file operation by file operation.

Each actor is a thread, of which one runs at a time; who is next is drawn before each file operation, so that a seed
gives the same walk each time. Time passes in jumps, listings are as old as is allowed, actors are killed, stall past
their leases and are told of failures that did not happen. Random search is weak where a directed schedule is strong
(see ``test_schedules``): this is a net for what nobody has thought of.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jimmy_manager.archives import layout
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.errors import ClaimLost, DamagedRecord, KeyNotFound, RunBusy, StoreError
from tests.archives.stepping import Harm, Killed, Served, Server, SteppingFiles, Worker, World, harm_if

LAST_EPOCH = 2
LONGEST = 3000
"""Operations after which a walk is cut off; what was promised until then is checked."""


class Walk:
    """One random interleaving; ``run`` raises ``Harm`` where a promise was broken."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.stale_s = self.rng.choice([0.0, 30.0])
        self.actors: list[Actor] = []
        self.error: BaseException | None = None
        self.steps = 0
        self._ended = threading.Semaphore(0)
        self.acknowledged: list[str] = []
        self.popped = 0
        self.result: list[str] | None = None
        self.owned: set[int] = set()

    def run(self) -> Walk:
        with pytest.MonkeyPatch.context() as monkey:
            self.world = World(monkey, stale_s=self.stale_s, lease_s=60.0)
            self.views = {host: Served(self.world.server) for host in "ab"}
            programs: list[Callable[[Actor], None]] = [work, work, work, clean]
            if self.rng.random() < 0.4:
                programs.append(pop)
            self.actors = [Actor(self, program) for program in programs]
            for actor in self.actors:
                actor.thread.start()
            self.actors[0].turn.release()
            for actor in self.actors:
                actor.thread.join(60)
                assert not actor.thread.is_alive(), "stuck"
            if self.error is not None:
                raise self.error
            self.check()
        return self

    def next(self) -> Actor | None:
        """Who runs now: mostly whoever ran before, at times another one, hardly ever one that stalls."""
        awake = [actor for actor in self.actors if not actor.is_over and actor.stalls_until <= self.steps]
        if not awake:
            awake = [actor for actor in self.actors if not actor.is_over]
        return self.rng.choice(awake) if awake else None

    def check(self) -> None:
        """What was acknowledged is there and nothing older; what was finished or popped stays so."""
        generation, lineage = self.visible()
        popped = self.highest_pop()
        owed = [token for token in self.acknowledged if _generation(token) > popped]
        if owed:
            harm_if(owed[-1] not in lineage, f"the acknowledged {owed[-1]} is gone: {lineage} of g{generation}")
        if self.popped:
            harm_if(any(_generation(token) < self.popped for token in lineage), f"what was popped is back: {lineage}")
        if self.result and _generation(self.result[-1]) > popped:
            harm_if(lineage != self.result, f"the finished {self.result} became {lineage}")

    def visible(self) -> tuple[int, list[str]]:
        """The highest generation with stats and the lineage of its newest commit, which is whole at any time."""
        files: Server = self.world.server
        key = self.key
        generations = [
            parsed.generation for name in files.names(layout.shard("stats", key))
            if (parsed := layout.parse("stats", name)) and parsed.key == key
        ]
        if not generations:
            return 0, []
        name = layout.stats(key, max(generations))
        stats = Stats.unseal(files.read(name), name)
        if not stats.commits:
            return stats.generation, []
        for file, content in stats.commits[-1].contents().items():
            try:
                data = files.read(file)
            except FileNotFoundError:
                raise Harm(f"{name} names {file}, which is gone") from None
            harm_if(Content.of(data) != content, f"{file} is not what {name} says")
        return stats.generation, json.loads(files.read(stats.commits[-1].ckpt_name))

    def highest_pop(self) -> int:
        reader = Worker(self.world, "reader", "reader", {"lr": 0.1})
        popped = 0
        for generation in reader.claims.look(self.key).claims:
            if reader.claims.read(self.key, generation).state == "popped":
                popped = generation
        return popped

    @property
    def key(self) -> str:
        return self.actors[0].worker.key


class Actor:
    """A thread that acts as one worker after another: a killed one is followed by a new process on the same host."""

    def __init__(self, walk: Walk, program: Callable[[Actor], None]) -> None:
        self.walk = walk
        self.name = f"{program.__name__}{len(walk.actors)}"
        self.host = walk.rng.choice("ab")
        self.is_over = False
        self.stalls_until = 0
        self.may_die = False
        self.turn = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self.be_born()

    def be_born(self) -> None:
        walk = self.walk
        files = lambda view: WalkingFiles(view, self)  # noqa: E731
        self.may_step = False
        self.worker = Worker(walk.world, self.name, self.host, {"lr": 0.1}, walk.views[self.host], files)
        self.may_step = True

    def _run(self, program: Callable[[Actor], None]) -> None:
        self.turn.acquire()
        try:
            while True:
                try:
                    self.worker.act(lambda: program(self))
                    break
                except Killed:
                    if self.walk.error is not None or self.walk.steps >= LONGEST:
                        break
                    self._be_buried()
        except BaseException as error:  # noqa: BLE001  # raised again by the walk
            if self.walk.error is None:
                self.walk.error = error
        self.is_over = True
        if following := self.walk.next():
            following.turn.release()

    def _be_buried(self) -> None:
        self.worker.die()
        if self.walk.rng.random() < 0.5:  # nobody can tell: its host is gone, say
            self.worker.world.dead.discard(self.worker.owner)
        self.be_born()

    def step(self) -> None:
        """Before each file operation: let somebody else run, fall asleep, or be killed."""
        walk = self.walk
        if not self.may_step:
            return
        walk.steps += 1
        if walk.error is not None or walk.steps >= LONGEST:
            raise Killed
        chance = walk.rng.random()
        if chance < 0.02:
            self.stalls_until = walk.steps + walk.rng.randrange(200)
        elif chance < 0.03 and self.may_die:
            raise Killed
        if chance < 0.25 or self.stalls_until > walk.steps:
            following = walk.next()
            if following is not None and following is not self:
                walk.world.clock.sleep(walk.rng.choice([0, 0, 1, 10]))
                following.turn.release()
                self.turn.acquire()
                if walk.error is not None:
                    raise Killed


class WalkingFiles(SteppingFiles):
    """Files that let others run before each operation, show old listings, and lose replies."""

    def __init__(self, below: Any, actor: Actor) -> None:
        super().__init__(below)
        self._actor = actor

    def _do(self, operation: str, name: str, *arguments: Any) -> Any:
        self._actor.step()
        walk = self._actor.walk
        if operation == "names":
            self.below.lag_s = walk.rng.choice([0.0, walk.stale_s])
        result = getattr(self.below, operation)(name, *arguments)
        if operation == "replace" and self._actor.may_die and walk.rng.random() < 0.01:
            raise StoreError(f"cannot write {name}: the reply was lost")
        return result

    def copy(self, source: str, name: str) -> None:
        self._actor.step()
        self.below.copy(source, name)


def work(actor: Actor) -> None:
    """What a Manager does: claim, adopt, commit, finish; with a will of its own to let go."""
    walk, worker, rng = actor.walk, actor.worker, actor.walk.rng
    actor.may_die = True
    for _ in range(12):
        standing = worker.claims.standing(worker.key)
        if standing.state == "done":
            return
        # Slurm's verdict may end a lease before its time.
        if not standing.is_free and not (standing.state == "held" and rng.random() < 0.1):
            walk.world.clock.sleep(rng.choice([1, 20, 70]))
            actor.step()
            continue
        claim = worker.claims.take(standing, "0" * 32, max_crashes=99)
        if claim is None:
            continue
        harm_if(claim.generation in walk.owned, f"generation {claim.generation} has two owners")
        walk.owned.add(claim.generation)
        attempt = Attempt(worker.history, claim)
        worker.attempt = attempt
        try:
            attempt.adopt()
            if attempt.newest and attempt.newest.epoch >= LAST_EPOCH and rng.random() < 0.5:
                finish_at_once(actor, attempt)
            while not (attempt.is_saved and attempt.newest.epoch >= LAST_EPOCH):
                save(actor, attempt)
                if rng.random() < 0.1:
                    let_go(actor, attempt)
                    return
            attempt.finish()
        except ClaimLost:
            claim.drop()
        except StoreError:
            let_go(actor, attempt)
        else:
            try:
                result = lineage_of(actor, attempt)
            except FileNotFoundError:
                # Popped and swept in the moment since; without a tombstone above it nobody may have taken it.
                harm_if(not is_popped_above(actor, claim.generation), "the files of a finished run are gone")
                return
            walk.result = result
            walk.check()
            return


def is_popped_above(actor: Actor, generation: int) -> bool:
    """Whether the server, whatever this worker may list of it, has a tombstone above ``generation``."""
    server, folder = actor.worker.files.below, layout.shard("claims", actor.worker.key)
    parsed = (layout.parse("claims", name) for name in server.names(folder))
    above = (layout.claim(found.key, found.generation) for found in parsed if found and found.generation > generation)
    return any(ClaimRecord.unseal(server.read(name), name).state == "popped" for name in above)


def let_go(actor: Actor, attempt: Attempt) -> None:
    if actor.walk.rng.random() < 0.5:
        attempt.claim.drop()
        return
    try:
        attempt.claim.release()
    except StoreError:
        return  # dropped all the same


def finish_at_once(actor: Actor, attempt: Attempt) -> None:
    """Take what was adopted for one's own; the store refuses that."""
    try:
        attempt.finish()
    except ClaimLost:
        return
    actor.walk.result = lineage_of(actor, attempt)


def save(actor: Actor, attempt: Attempt) -> None:
    walk, files = actor.walk, actor.worker.files.below
    newest = attempt.newest
    epoch = min(newest.epoch + 1, LAST_EPOCH) if newest else 1
    try:
        trained = json.loads(files.read(newest.ckpt_name)) if newest else []
    except FileNotFoundError:
        attempt.claim.check()
        raise Harm(f"the janitor took {newest.ckpt_name} from the owner of its generation") from None
    token = f"g{attempt.generation}.e{epoch}.{walk.steps}"
    data = json.dumps([*trained, token]).encode()
    try:
        attempt.commit(epoch=epoch, checkpoint=lambda file: file.write(data), preview=data)
    except NewerCommit:
        attempt.adopt()
        return
    # No operation lies between: acknowledged is what the worker was told.
    walk.acknowledged.append(token)
    walk.check()
    attempt.claim.renew()


def lineage_of(actor: Actor, attempt: Attempt) -> list[str]:
    return json.loads(actor.worker.files.below.read(attempt.newest.ckpt_name))


def clean(actor: Actor) -> None:
    janitor = Janitor(actor.worker.store)
    for _ in range(4):
        if janitor.sweep(offline=False, wait=actor.walk.rng.random() < 0.5).names:
            actor.walk.check()
        actor.walk.world.clock.sleep(20)
        actor.stalls_until = actor.walk.steps + 60
        actor.step()


def pop(actor: Actor) -> None:
    walk = actor.walk
    actor.stalls_until = walk.steps + walk.rng.randrange(300)
    actor.step()
    try:
        actor.worker.store.pop(actor.worker.key, force=True)
    except (RunBusy, KeyNotFound):
        return
    for generation in actor.worker.claims.look(actor.worker.key).claims:
        try:
            is_tombstone = actor.worker.claims.read(actor.worker.key, generation).state == "popped"
        except DamagedRecord as error:
            raise Harm(f"a claim was listed and is gone: {error}") from error
        if is_tombstone:
            walk.popped = max(walk.popped, generation)
    walk.check()


def _generation(token: str) -> int:
    return int(token[1:].split(".", maxsplit=1)[0])
