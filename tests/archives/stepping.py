"""Simulated workers that stop where a schedule says: the stage on which the claim protocol is played through.

Everything runs in one process and no time passes: each worker has its own identity, its own view of the files
(which may lag) and shares one fake clock. What runs is the real code of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from jimmy_manager.archives import claims as claims_module
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.claims import Standing
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.files import Content, Files
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.memory import Memory
from jimmy_manager.archives.owner import Owner
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import ClaimLost, DamagedRecord, NoRecord, StoreError

PATIENCE_S = 20.0
"""Real seconds after which a schedule that does not move counts as stuck."""


class Harm(Exception):
    """A promise of the store was broken."""


def harm_if(is_broken: bool, what: str) -> None:
    if is_broken:
        raise Harm(what)


class Killed(BaseException):
    """Raised in a worker that is killed, at whatever it does; nothing that it does afterwards reaches a file."""


class FakeClock(Clock):
    def __init__(self) -> None:
        self.t = 1000.0

    def monotonic(self) -> float:
        return self.t

    def now(self) -> float:
        return 1.7e9 + self.t

    def sleep(self, seconds: float) -> None:
        self.t += seconds


class Served:
    """What one host sees of a server's files: its own changes at once, those of others up to ``lag_s`` late.

    Only listings lag; a name that is read is read fresh, as with NFS's close-to-open consistency.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.lag_s = 0.0
        for operation in ("read", "open", "size"):
            setattr(self, operation, getattr(server, operation))

    def names(self, folder: str) -> list[str]:
        return self._server.names_at(folder, self._server.clock.t - self.lag_s, self)

    def freshen(self, folder: str) -> None:
        """A listing lags by what it lags, whoever asks."""

    def create(self, name: str, data: bytes) -> bool:
        return self._server.changed(self, name, self._server.create(name, data))

    def replace(self, name: str, data: bytes) -> None:
        self._server.changed(self, name, self._server.replace(name, data))

    def write(self, name: str, fill: Callable[[Any], None]) -> Content:
        return self._server.changed(self, name, self._server.write(name, fill))

    def copy(self, source: str, name: str) -> None:
        self._server.changed(self, name, self._server.copy(source, name))

    def move(self, name: str, target: str) -> None:
        self._server.move(name, target)
        self._server.changed(self, name, None)
        self._server.changed(self, target, None)

    def remove(self, name: str) -> bool:
        return self._server.changed(self, name, self._server.remove(name))


class Server(Memory):
    """Files that remember when each name came and went, and by whom."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self._events: dict[str, list[tuple[float, Served, str, bool]]] = {}

    def changed(self, by: Served, name: str, result: Any) -> Any:
        folder, _, last = name.rpartition("/")
        is_there = last in self._folders.get(folder, ())
        self._events.setdefault(folder, []).append((self.clock.t, by, last, is_there))
        return result

    def names_at(self, folder: str, then: float, viewer: Served) -> list[str]:
        if then >= self.clock.t:
            return self.names(folder)
        seen = set()
        for at, by, last, is_there in self._events.get(folder, ()):
            if at <= then or by is viewer:
                (seen.add if is_there else seen.discard)(last)
        below = [name for name in self.names(folder) if name not in self._folders.get(folder, ())]
        return [*seen, *below]


class SteppingFiles:
    """Files below that stop, lie or die at named points, such as ``('before', 'create', 'claims/')``."""

    def __init__(self, below: Files) -> None:
        self.below = below
        self.is_dead = False
        self._stops: list[tuple[tuple[str, str, str], Callable[[], None]]] = []
        self._lost: list[tuple[str, str]] = []

    def stop(self, when: str, operation: str, prefix: str, act: Callable[[], None]) -> None:
        """Call ``act`` once, ``before`` or ``after`` the next ``operation`` on a name that begins with ``prefix``."""
        self._stops.append(((when, operation, prefix), act))

    def lose_reply(self, operation: str, prefix: str) -> None:
        """Do the next such operation, but raise as if it had failed."""
        self._lost.append((operation, prefix))

    def _reach(self, when: str, operation: str, name: str) -> None:
        for stop in self._stops:
            (its_when, its_operation, prefix), act = stop
            if (its_when, its_operation) == (when, operation) and name.startswith(prefix):
                self._stops.remove(stop)
                act()
                break
        if self.is_dead:
            raise Killed

    def _do(self, operation: str, name: str, *arguments: Any) -> Any:
        self._reach("before", operation, name)
        result = getattr(self.below, operation)(name, *arguments)
        self._reach("after", operation, name)
        for lost in self._lost:
            if lost[0] == operation and name.startswith(lost[1]):
                self._lost.remove(lost)
                raise StoreError(f"cannot {operation} {name}: the reply was lost")
        return result

    def names(self, folder: str) -> list[str]:
        return self._do("names", folder)

    def freshen(self, folder: str) -> None:
        self.below.freshen(folder)

    def read(self, name: str) -> bytes:
        return self._do("read", name)

    def open(self, name: str) -> Any:
        return self._do("open", name)

    def size(self, name: str) -> int:
        return self._do("size", name)

    def create(self, name: str, data: bytes) -> bool:
        return self._do("create", name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._do("replace", name, data)

    def write(self, name: str, fill: Callable[[Any], None]) -> Content:
        return self._do("write", name, fill)

    def copy(self, source: str, name: str) -> None:
        # The point is named after the name that is made.
        self._reach("before", "copy", name)
        self.below.copy(source, name)
        self._reach("after", "copy", name)

    def move(self, name: str, target: str) -> None:
        self._do("move", name, target)

    def remove(self, name: str) -> bool:
        return self._do("remove", name)


class World:
    """A clock, files, and who is who: the workers' identities and which of them are dead."""

    def __init__(
        self, monkeypatch: Any, *, stale_s: float = 0.0, lease_s: float = 60.0, server: Files | None = None,
        key_len: int = 8,
    ) -> None:
        self.clock = FakeClock()
        self.server = server or Server(self.clock)
        self.stale_s, self.lease_s, self.key_len = stale_s, lease_s, key_len
        self.dead: set[Owner] = set()
        self.workers = 0
        self._here = threading.local()
        for name in ("this_process", "this_worker"):
            monkeypatch.setattr(claims_module, name, self.here)
        monkeypatch.setattr(claims_module, "is_provably_dead", self.is_provably_dead)

    def here(self) -> Owner:
        return self._here.owner

    def is_provably_dead(self, owner: Owner) -> bool:
        return owner.is_same_host(self.here()) and owner in self.dead

    def act_as(self, owner: Owner, act: Callable[[], Any]) -> Any:
        before = getattr(self._here, "owner", None)
        self._here.owner = owner
        try:
            return act()
        finally:
            self._here.owner = before

    def worker(self, name: str, host: str = "", config: dict[str, Any] | None = None) -> Worker:
        return Worker(self, name, host or name, config or {"lr": 0.1})

    def newest(self) -> Commit:
        """The newest whole commit as a reader with a fresh view finds it."""
        return self.worker("reader").newest()

    def lineage(self) -> str:
        """Who trained which epochs of what a reader finds, such as ``w0.1 w0.2 w1.3``; empty where there is nothing."""
        return self.worker("reader").lineage()


class Worker:
    """One process of its own: identity, view, claims, and at most one attempt at the one run of the schedule."""

    def __init__(
        self, world: World, name: str, host: str, config: dict[str, Any], view: Served | None = None,
        files: Callable[[Any], SteppingFiles] | None = None,
    ) -> None:
        world.workers += 1
        self.world = world
        self.name = name
        self.owner = Owner(host, world.workers, 1, boot=host, pidns="1")
        self.view: Any = view or (Served(world.server) if isinstance(world.server, Server) else world.server)
        self.files = (files or SteppingFiles)(self.view)
        self.attempt: Attempt | None = None
        self.config = config
        self.store: Store = self.act(self._open)
        self.key = self.act(lambda: self.store.register(config).key)
        self.claims, self.history = self.store.claims, self.store.history

    def _open(self) -> Store:
        world = self.world
        return Store(
            None, files=self.files, clock=world.clock, stale_s=world.stale_s, lease_s=world.lease_s,
            key_len=world.key_len,
        )

    def act(self, act: Callable[[], Any]) -> Any:
        return self.world.act_as(self.owner, act)

    def standing(self) -> Standing:
        return self.act(lambda: self.claims.standing(self.key))

    def take(self, plan: Standing | None = None) -> bool:
        """Claim the generation after ``plan`` (a standing, perhaps an old one); whether it was won."""
        plan = plan or self.standing()
        claim = self.act(lambda: self.claims.take(plan, self.store.registry.read(self.key).digest))
        self.attempt = Attempt(self.history, claim) if claim else None
        return claim is not None

    def outwait(self) -> None:
        """See the run's owner make no sign for its whole lease."""
        self.standing()
        self.world.clock.sleep(100 * self.world.lease_s)
        assert self.standing().state == "silent"

    def start(self) -> Worker:
        """Claim the run and adopt what there is."""
        standing = self.standing()
        assert standing.is_free, standing
        assert self.take(standing)
        self.adopt()
        return self

    def adopt(self) -> Commit | None:
        return self.act(self.attempt.adopt)

    def commit(self, epoch: int) -> Commit:
        """Train ``epoch`` on top of what this attempt has, and save it."""
        data = f"{self.trained()} {self.name}.{epoch}".strip().encode()
        return self.act(lambda: self.attempt.commit(epoch=epoch, checkpoint=lambda f: f.write(data), preview=data))

    def go_on(self, last_epoch: int) -> None:
        """Train as a Manager does: adopt again where that is asked for, and commit the last epoch as one's own."""
        while not (self.attempt.is_saved and self.attempt.newest.epoch >= last_epoch):
            newest = self.attempt.newest
            try:
                self.commit(min(newest.epoch + 1, last_epoch) if newest else 1)
            except NewerCommit:
                self.adopt()

    def finish(self) -> None:
        self.act(self.attempt.finish)

    def release(self) -> None:
        self.act(self.attempt.claim.release)

    def is_acknowledged(self, act: Callable[[], Any]) -> bool:
        try:
            act()
        except ClaimLost:
            return False
        return True

    def die(self) -> Worker:
        """Be killed now: nothing more is written, and on this host everybody can tell."""
        self.files.is_dead = True
        self.world.dead.add(self.owner)
        if self.attempt:
            self.attempt.claim.drop()
        return self

    def trained(self) -> str:
        newest = self.attempt.newest
        return self.files.below.read(newest.ckpt_name).decode() if newest else ""

    def newest(self) -> Commit:
        try:
            return self.act(lambda: self.history.newest(self.key, self.history.verify))
        except DamagedRecord as error:
            raise Harm(f"nothing whole is left: {error}") from error

    def lineage(self) -> str:
        try:
            return self.files.below.read(self.newest().ckpt_name).decode()
        except NoRecord:
            return ""

    def stall(
        self, act: Callable[[], Any], when: str, operation: str, prefix: str, *, may_end: bool = False
    ) -> Stalled:
        """Do ``act`` up to the named point; with ``may_end`` it may also end without coming there."""
        stalled = Stalled()
        self.files.stop(when, operation, prefix, stalled.stop)
        stalled.begin(lambda: self.act(act), f"{when} {operation} {prefix}", may_end)
        return stalled


class Stalled:
    """Something that a worker does, stopped in the middle."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._released = threading.Semaphore(0)
        self._result: Any = None
        self._error: BaseException | None = None

    def begin(self, act: Callable[[], Any], point: str, may_end: bool = False) -> None:
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._is_at_stop = False
        self._thread.start()
        assert self._arrived.acquire(timeout=PATIENCE_S), f"stuck on the way to {point}"
        assert self._is_at_stop or may_end, f"never came to {point}: {self._error!r}"

    def stop(self) -> None:
        self._is_at_stop = True
        self._arrived.release()
        assert self._released.acquire(timeout=PATIENCE_S), "never resumed"

    def resume(self) -> Any:
        """Let it go on to its end; returns or raises what it does."""
        self._released.release()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "stuck"
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, act: Callable[[], Any]) -> None:
        try:
            self._result = act()
        except BaseException as error:  # noqa: BLE001  # raised again where it is resumed
            self._error = error
        finally:
            self._arrived.release()
