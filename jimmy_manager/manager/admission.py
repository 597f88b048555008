"""What stands between a configuration and its training: is it whole, is it this store's, would it orphan results?"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives.registry import Registered
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.config import Config
from jimmy_manager.errors import HookError, ReadOnlyStore, SchemaChanged, WrongManager
from jimmy_manager.keys import canonical, explain

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_MOST_FIELDS = 8
"""All subsets of so many gained fields are tried; of more, single ones and all of them."""


class Admission:
    """Admits the configurations of one call of ``process``, ``batch`` or ``sweep``."""

    def __init__(self, manager: Manager, new_fields: str = "ask") -> None:
        if new_fields not in ("ask", "rerun"):
            raise ValueError(f"new_fields is {new_fields!r}, it must be 'ask' or 'rerun'")
        if manager.store.read_only:
            raise ReadOnlyStore(f"cannot train in {manager.store}: it was opened read-only")
        self._manager = manager
        self._store = manager.store
        self._store.refresh()
        self._bind()
        self._asks = new_fields == "ask"
        self._gained = self._gained_fields()
        self._lost = self._lost_fields()

    def whole(self, configs: Iterable[Mapping[str, Any]]) -> Iterator[Config]:
        """The whole configuration of each; all are looked at before any is trained where fields were gained."""
        made = (self.complete(config) for config in configs)
        if not self._gained and not self._lost:
            return made
        checked = list(made)
        self._look_again()  # to make them may have taken a while
        for config in checked:
            self._check(config)
        return iter(checked)

    def complete(self, config: Mapping[str, Any]) -> Config:
        """``config`` through the user's ``get_config``."""
        whole = self._manager.get_config(config)
        if not isinstance(whole, Mapping):
            job = type(self._manager).__name__
            raise HookError(f"{job}.get_config() returned {type(whole).__name__}, it must be a Config")
        return (whole if isinstance(whole, Config) else Config(whole)).allow(self._manager.allowed_targets())

    def register(self, config: Config) -> Registered:
        """Give ``config`` its key, once it is known that it has but one and that no result is orphaned by it."""
        entry = self._store.registered(config, repair=True)
        if entry is not None:  # whoever has a key keeps it
            return entry
        self._check_idempotence(config)
        self._look_again()  # a new key goes by the ledger of this moment: by an older one it would be a second
        self._check(config)
        return self._store.register(config)

    def _check_idempotence(self, config: Config) -> None:
        first = self._store.key_form(config)
        second = self._store.key_form(self._manager.get_config(config.clone()))
        if canonical(first) != canonical(second):
            changed = ", ".join(repr(difference.field) for difference in explain(first, second))
            raise HookError(
                f"{type(self._manager).__name__}.get_config() is not idempotent: given its own result it changes "
                f"{changed}; a configuration would have two keys"
            )

    def _bind(self) -> None:
        """Make the store this Manager's with its first run; refuse to train in another's."""
        name, fields = type(self._manager).name or type(self._manager).__name__, self._fields()

        def bind(current: StoreFile) -> StoreFile:
            if current.manager and current.manager != name:
                raise WrongManager(
                    f"the store at {str(self._store)!r} belongs to {current.manager!r}, this Manager is {name!r}; "
                    f"use another one (--store store/{name}), or set name = {current.manager!r} in the class "
                    "if both are one job"
                )
            return current if current.manager else current._replace(manager=name, fields=fields)

        self._store.bind(bind)

    def _fields(self) -> tuple[str, ...]:
        return tuple(sorted(self._manager.defaults.flatten()))

    def _look_again(self) -> None:
        """Read the schema ledger anew where somebody has edited it since."""
        if self._store.refresh():
            self._gained, self._lost = self._gained_fields(), self._lost_fields()

    def _gained_fields(self) -> tuple[str, ...]:
        if not self._asks:
            return ()
        known = set(self._store.info.fields) | self._store.ledger.fields()
        return tuple(path for path in self._fields() if path not in known)

    def _lost_fields(self) -> tuple[str, ...]:
        """The fields of the first defaults that are in neither the defaults nor the ledger of today."""
        here = set(self._fields())
        told = tuple(entry.field for entry in self._store.ledger if entry.kind != "add")
        lost = tuple(
            path for path in self._store.info.fields
            if path not in here and not any(path == field or path.startswith(f"{field}.") for field in told)
        )
        if lost and not self._asks:  # decided once: these are another job's fields from now on
            kept = tuple(path for path in self._store.info.fields if path not in lost)
            self._store.edit(fields=kept)
            return ()
        return lost

    def _check(self, config: Config) -> None:
        if (self._gained or self._lost) and self._store.find(config) is None:
            self._check_gained(config)
            self._check_lost(config)

    def _check_lost(self, config: Config) -> None:
        """Which run had which value is not known here, so any run at all is reason enough to ask."""
        lost = [path for path in self._lost if path not in config]
        if lost and next(self._store.committed_keys(), None) is not None:
            raise SchemaChanged(_advice_on_lost(self._store.directory, lost, self._gained))

    def _check_gained(self, config: Config) -> None:
        gained = [path for path in self._gained if path in config]
        for fields in _subsets(gained):
            older = config.clone()
            for path in fields:
                older.pop(path)
            key = self._store.find(older)
            if key is not None and self._store.claims.look(key).top and not self._store.is_popped(key):
                raise SchemaChanged(_advice(self._store.directory, key, fields, self._manager.defaults))


def _subsets(fields: list[str]) -> Iterator[tuple[str, ...]]:
    sizes = range(1, len(fields) + 1) if len(fields) <= _MOST_FIELDS else (1, len(fields))
    return itertools.chain.from_iterable(itertools.combinations(fields, size) for size in sizes)


def _advice(directory: str | None, key: str, fields: tuple[str, ...], defaults: Config) -> str:
    from jimmy_manager.yaml12 import dump

    # The value of the defaults, not of this configuration: it is what most likely holds for the runs from before.
    values = {path: shlex.quote(dump(defaults[path]).strip()) for path in fields}
    lines = "\n".join(f"    jimmy schema add {path} {value}{_store(directory)}" for path, value in values.items())
    calls = "; ".join(f"manager.schema.add({path!r}, {defaults[path]!r})" for path in fields)
    named = ", ".join(map(repr, fields))
    return (
        f"the defaults have gained {named}, and run {key} equals this configuration but for that, so it may be trained "
        "a second time under another key. Nothing was trained. Say once how the runs from before behave; if it is like "
        f"the default of today:\n{lines}\n(in Python: {calls}); if not, with the value that they behaved like. "
        "To train them anew instead, use new_fields='rerun' (--new-fields rerun)"
    )


def _advice_on_lost(directory: str | None, lost: list[str], gained: tuple[str, ...]) -> str:
    named = ", ".join(map(repr, lost))
    lines = [f"    jimmy schema remove {path} VALUE{_store(directory)}" for path in lost]
    if gained:
        lines += [f"    jimmy schema rename {path} {gained[0]}{_store(directory)}" for path in lost]
    return (
        f"the defaults have lost {named}, so runs from before may be trained a second time under other keys. Say once "
        "what became of each field; VALUE is what the job does without it:\n" + "\n".join(lines) + "\n"
        "To train anew instead, use new_fields='rerun' (--new-fields rerun) once"
    )


def _store(directory: str | None) -> str:
    return "" if directory in (None, "store") else f" --store {shlex.quote(directory or '')}"
