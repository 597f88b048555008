"""A store: the data of many runs in one directory, without the job that made them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from jimmy_manager.archives import code, filesystem, layout, store_file
from jimmy_manager.archives.archive import Ckpts, Configs, Previews, StatsArchive
from jimmy_manager.archives.claims import LONGEST_LEASE_S, Claims, Standing
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.code import Sources
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Files
from jimmy_manager.archives.history import History, Stats
from jimmy_manager.archives.looking import Looking
from jimmy_manager.archives.memory import Memory
from jimmy_manager.archives.read_only import ReadOnly, unsafe
from jimmy_manager.archives.registry import Registered, Registry
from jimmy_manager.archives.schema import Schema
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.config import Config
from jimmy_manager.errors import (
    DamagedRecord,
    KeyNotFound,
    NoRecord,
    RunBusy,
    SchemaError,
    StoreError,
    StoreTooNew,
)
from jimmy_manager.schema import Ledger

_Change = Callable[[StoreFile], StoreFile]


class Store(Looking):
    """The runs under ``directory``, as four mappings by key; ``directory=None`` keeps everything in memory.

    Nothing is made on disk before the first write, so that a mistyped directory stays a clear error for
    whoever only looks. ``read_only=True`` writes nothing at all and needs an existing store. ``shared="group"`` lets
    the group of the directory read and write all that is made, whatever the umask; ``store.yaml`` remembers it, and an
    existing store without it is refused.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = "store", *, read_only: bool = False, key_len: int = 8,
        stale_s: float | None = None, lease_s: float | None = None, heartbeat_s: float = 15.0,
        patience_s: float = LONGEST_LEASE_S, durable: bool = True, files: Files | None = None,
        clock: Clock | None = None, shared: str = "",
    ) -> None:
        self.directory = None if directory is None else os.fspath(directory)
        # A job may change its working directory; its store stays where it is.
        self._place = None if directory is None else os.path.abspath(directory)
        self.read_only = read_only
        self._key_len = key_len
        self._shared = store_file.checked_shared(shared)
        self._below = files or (Memory() if self.directory is None else Disk(self.directory, durable=durable))
        self._raw = store_file.read_raw(self._below)
        self._info: StoreFile | None = None if self._raw is None else StoreFile.load(self._raw)
        self._check_place()
        self._share()
        refused = self._info.refused if self._info else ""
        self.files: Files = ReadOnly(self._below, "" if read_only else refused) if read_only or refused else self._below
        measured = self._info or StoreFile(id="", key_len=key_len)
        if stale_s is None:
            stale_s = measured.stale_s if measured.stale_s is not None else self._default_stale_s()
        self.claims = Claims(
            self.files, clock or Clock(), stale_s=stale_s,
            lease_s=max(lease_s or 0.0, measured.lease_s or 0.0) or 120.0, heartbeat_s=heartbeat_s,
            patience_s=patience_s, view=self._view,
        )
        self.history = History(self.claims)
        self.registry = Registry(self.claims, measured.key_len)
        self.configs = Configs(self)
        self.stats = StatsArchive(self)
        self.ckpts = Ckpts(self)
        self.previews = Previews(self)
        self.sources = Sources(self.files)

    @property
    def exists(self) -> bool:
        """Whether there was a ``store.yaml`` when it was last looked for."""
        return self._info is not None

    @property
    def info(self) -> StoreFile:
        """The content of ``store.yaml``, which is created where it is missing; read anew by ``refresh``."""
        return self._info or self._keep(store_file.create(self.files, self._key_len, self._shared_too()))

    @property
    def ledger(self) -> Ledger:
        """The fields that were added, renamed and removed since the first run."""
        return self._info.ledger if self._info else Ledger()

    @cached_property
    def schema(self) -> Schema:
        """The ledger, to be listed and edited: ``schema.add``, ``rename``, ``remove``, ``undo`` and ``list``."""
        return Schema(self)

    def refresh(self) -> bool:
        """Read ``store.yaml`` again, as somebody may have edited the schema ledger; return whether it has changed.

        Cheap where it has not: its bytes are compared, nothing is parsed.
        """
        raw = store_file.read_raw(self.files)
        if raw is None and self._info is not None:
            # Gone, or being replaced where that takes two steps; created anew too soon it would lose the ledger.
            self.claims.clock.sleep(2 * self.claims.stale_s + 0.05)
            raw = store_file.read_raw(self.files)
        if raw == self._raw:
            return False
        before = self._info
        if raw is None:
            self._info = self._raw = None
            self.registry = Registry(self.claims, self._key_len)
        else:
            self._keep(StoreFile.load(raw), raw)
        return self._info != before

    def edit(self, **changes: Any) -> StoreFile:
        """Change fields of ``store.yaml``."""
        _ = self.info
        return self._keep(store_file.edit(self.files, lambda current: current._replace(**changes)))

    def bind(self, change: _Change, *, key_len: int | None = None) -> None:
        """Apply ``change`` to what the first run fixes; where there is no ``store.yaml`` yet, in its very creation.

        Only there counts ``key_len``, by default that of this object.
        """
        info = self._info or self._keep(
            store_file.create(self.files, key_len or self._key_len, self._shared_too(change))
        )
        if change(info) != info:
            self._keep(store_file.edit(self.files, change))

    def edit_schema(self, operation: str, *arguments: Any) -> Ledger:
        """Apply ``Ledger.add``, ``rename``, ``remove`` or ``undo`` with ``arguments``, and keep what comes of it.

        Raises ``SchemaError`` where that makes no sense, or for a field to rename or remove that no run has.
        """
        _ = self.info

        def change(current: StoreFile) -> StoreFile:
            runs = [(key, self.registry.read(key).stored) for key in self.keys()]
            if operation in ("rename", "remove") and runs:
                _require_field(arguments[0], (current.ledger.shown_form(stored) for _, stored in runs))
            ledger: Ledger = getattr(current.ledger, operation)(*arguments)
            return current._replace(ledger=ledger.fitted(runs))

        return self._keep(store_file.edit(self.files, change)).ledger

    def register(self, config: Mapping[str, Any]) -> Registered:
        """Give ``config`` its key, for ever; the same on every node."""
        _ = self.info
        forms = self.ledger.forms(config)
        found = (entry for form in forms if len(forms) > 1 and (entry := self.registry.find(form)) is not None)
        return next(found, None) or self.registry.add(forms[0])

    def find(self, config: Mapping[str, Any]) -> str | None:
        """The key of ``config``; None where it is not registered."""
        entry = self.registered(config)
        return entry.key if entry else None

    def registered(self, config: Mapping[str, Any], *, repair: bool = False) -> Registered | None:
        """``config`` with its key; None where it is not registered. ``repair`` writes a damaged record again."""
        for form in self.ledger.forms(config):
            if (entry := self.registry.find(form, repair=repair)) is not None:
                return entry
        return None

    def key_form(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """``config`` as it is hashed and stored: plain values, through the ledger."""
        return self.ledger.key_form(config)

    def forget_keys(self) -> None:
        """Look for registered keys and code anew: some were removed, by ``gc`` alone, and only while nobody works."""
        self.registry = Registry(self.claims, self.registry.lengths[0])
        self.sources = Sources(self.files)

    def config(self, key: str) -> Config:
        """The configuration of a whole key as the ledger shows it, popped or not."""
        return Config(self.ledger.shown_form(self.registry.read(key).stored))

    def keys(self) -> Iterator[str]:
        """Every registered key that was not popped."""
        for key in self.registry:
            if not self.is_popped(key):
                yield key

    def committed_keys(self) -> Iterator[str]:
        """Every key with something committed and not popped."""
        for key in self.registry:
            if self.is_committed(key):
                yield key

    def resolve(self, prefix: str) -> str:
        """The whole key that ``prefix`` begins; ``KeyNotFound`` or ``AmbiguousKey``."""
        if self.registry.is_registered(prefix):
            return prefix
        return self.registry.resolve(prefix, lambda key: not self.is_popped(key))

    def standing(self, key: str) -> Standing:
        """Where a run stands: ``new``, ``held``, ``dead``, ``silent``, ``released``, ``failed``, ``done``, ..."""
        return self.claims.standing(key)

    def committed(self, key: str) -> Stats | None:
        """The stats of a run; None where nothing is committed or it was popped."""
        try:
            return self.history.stats(key)
        except NoRecord:
            return None

    def is_committed(self, key: str) -> bool:
        """Whether a run has a commit that was not popped; a damaged one counts."""
        trace = self.claims.look(key)
        return bool(trace.stats) and not self._is_tombstone(key, trace.stats[-1])

    def is_done(self, stats: Stats) -> bool:
        """Whether ``stats`` are the end of their run; a worker may die after declaring that, before it marks them."""
        if stats.done:
            return True
        standing = self.standing(stats.key)
        return standing.state == "done" and standing.record is not None and standing.record.stats == stats.digest()

    def is_popped(self, key: str) -> bool:
        """Whether a run was popped and not committed to since."""
        trace = self.claims.look(key)
        return bool(trace.stats) and self._is_tombstone(key, trace.stats[-1])

    def pop(self, key: str, *, force: bool = False) -> None:
        """Take a run out of the store: a claim with an empty stats record.

        Its name stays reserved, its numbering goes on, and a worker that still holds it has lost its claim.
        A run that a live worker holds is refused with ``RunBusy`` unless ``force``.
        """
        key = self.resolve(key)
        standing = self.standing(key)
        if standing.state == "held" and not force:
            owner = standing.record.owner if standing.record else "an unreadable claim"
            raise RunBusy(f"run {key} is held by {owner}; stop that worker first, or pop it with force=True")
        if self.is_popped(key):
            raise KeyNotFound(f"no run has the key {key!r}; it was popped")
        # A damaged configuration is no reason to keep a run: its claim knows whose it is.
        digest = standing.record.digest if standing.record else self.registry.read(key).digest
        record = self.claims.mark(standing, digest, "popped")
        if record is None:
            raise RunBusy(f"run {key} was claimed by another worker a moment ago")
        self.files.replace(layout.stats(key, record.generation), Stats(key, record.generation, record.token, ()).seal())
        # As for a commit: whoever claimed before the tombstone could be seen goes on from what was to be popped.
        self.claims.freshen(key)
        if self.claims.look(key).top > record.generation:
            raise RunBusy(f"run {key} was claimed by another worker while it was popped; pop it again")

    def _looked_at(self) -> Store:
        return self

    def code(self, key: str) -> dict[str, bytes] | None:
        """The sources that run ``key`` was trained from, by path; None where none were recorded.

        To be read: nothing of it is imported. Raises ``DamagedRecord`` where one is missing or not what was written.
        """
        found = code.tree(self, self.resolve(key))
        return None if found is None else {path: code.source(self, digest) for path, digest in found.items()}

    def logs(self, key: str) -> str | None:
        """The directory for the logs of a run; None for a store in memory."""
        return self.path(layout.logs(key))

    def path(self, name: str) -> str | None:
        """Where ``name`` lies, whatever the working directory is by now; None for a store in memory."""
        return None if self._place is None else os.path.join(self._place, name)

    def __str__(self) -> str:
        return self.directory or "memory"

    def __repr__(self) -> str:
        return f"Store({self.directory!r}{', read_only=True' if self.read_only else ''})"

    def _keep(self, info: StoreFile, raw: bytes = b"") -> StoreFile:
        """Go by ``info`` from now on; without the bytes it was read from the next ``refresh`` parses it once more."""
        if info.key_len != self.registry.lengths[0]:
            self.registry = Registry(self.claims, info.key_len)
        self._info, self._raw = info, raw
        self._share()
        if info.refused and not isinstance(self.files, ReadOnly):
            raise unsafe(f"cannot go on in {self}", info.refused)
        return info

    def _share(self) -> None:
        """Let what is made have the modes that the store asks for, or this object where there is none yet."""
        if self._info is not None and self._shared and not self._info.shared and not self.read_only:
            raise StoreError(f"{self} is not shared with the group; share it by 'jimmy init {self} --shared group'")
        if isinstance(self._below, Disk):
            self._below.shared = bool(self._info.shared if self._info else self._shared)

    def _shared_too(self, change: _Change = lambda info: info) -> _Change:
        return lambda info: change(info._replace(shared=self._shared))

    def _check_place(self) -> None:
        if self._info is None and self.directory is not None:
            if self.read_only:
                raise StoreError(f"there is no store at {self.directory!r} (no {layout.STORE_FILE} in it)")
            if os.path.exists(self.directory) and not os.path.isdir(self.directory):
                raise StoreError(f"cannot make a store at {self.directory!r}: it is a file")

    def _view(self) -> str:
        return "" if self._place is None else filesystem.mount(self._place)

    def _default_stale_s(self) -> float:
        return 0.0 if self.directory is None else filesystem.stale_s(self.directory)

    def _is_tombstone(self, key: str, generation: int) -> bool:
        try:
            return not self.history.read_stats(key, generation).commits
        except (DamagedRecord, StoreTooNew):
            return False


def _require_field(field: str, configs: Iterable[Mapping[str, Any]]) -> None:
    """Raise ``SchemaError`` unless some configuration has ``field``, a value or a mapping."""
    known: set[str] = set()
    for config in map(Config, configs):
        if field in config:
            return
        known |= config.flatten().keys()
    from difflib import get_close_matches

    near = get_close_matches(field, sorted(known), n=1)
    advice = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
    raise SchemaError(f"no run has a field {field!r}{advice}")
