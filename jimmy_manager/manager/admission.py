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

    def whole(self, configs: Iterable[Mapping[str, Any]]) -> Iterator[Config]:
        """The whole configuration of each; all are looked at before any is trained where fields were gained."""
        made = (self.complete(config) for config in configs)
        if not self._gained:
            return made
        checked = list(made)
        self._look_again()  # to make them may have taken a while
        for config in checked:
            self._check_gained(config)
        return iter(checked)

    def complete(self, config: Mapping[str, Any]) -> Config:
        """``config`` through the user's ``get_config``, which must be idempotent."""
        whole = self._manager.get_config(config)
        if not isinstance(whole, Mapping):
            job = type(self._manager).__name__
            raise HookError(f"{job}.get_config() returned {type(whole).__name__}, it must be a Config")
        whole = Config(whole).allow(self._manager.allowed_targets())
        first = self._store.key_form(whole)
        second = self._store.key_form(self._manager.get_config(whole.clone()))
        if canonical(first) != canonical(second):
            changed = ", ".join(repr(difference.field) for difference in explain(first, second))
            raise HookError(
                f"{type(self._manager).__name__}.get_config() is not idempotent: given its own result it changes "
                f"{changed}; a configuration would have two keys"
            )
        return whole

    def register(self, config: Config) -> Registered:
        """Give ``config`` its key, once it is known that no result is orphaned by it."""
        # Whoever has a key keeps it. A new one goes by the ledger of this moment: by an older one it would be a second.
        if self._store.find(config) is None:
            self._look_again()
            self._check_gained(config)
        return self._store.register(config)

    def _bind(self) -> None:
        """Make the store this Manager's with its first run; refuse to train in another's."""
        name, fields = type(self._manager).name or type(self._manager).__name__, self._fields()

        def bind(current: StoreFile) -> StoreFile:
            if current.manager and current.manager != name:
                raise WrongManager(
                    f"the store {self._store} belongs to {current.manager!r}, this Manager's name is {name!r}; "
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
            self._gained = self._gained_fields()

    def _gained_fields(self) -> tuple[str, ...]:
        if not self._asks:
            return ()
        known = set(self._store.info.fields) | self._store.ledger.fields()
        return tuple(path for path in self._fields() if path not in known)

    def _check_gained(self, config: Config) -> None:
        gained = [path for path in self._gained if path in config]
        if not gained or self._store.find(config) is not None:
            return
        for fields in _subsets(gained):
            older = config.clone()
            for path in fields:
                older.pop(path)
            key = self._store.find(older)
            if key is not None and self._store.claims.look(key).top and not self._store.is_popped(key):
                raise SchemaChanged(_advice(self._store.directory, key, fields, config))


def _subsets(fields: list[str]) -> Iterator[tuple[str, ...]]:
    sizes = range(1, len(fields) + 1) if len(fields) <= _MOST_FIELDS else (1, len(fields))
    return itertools.chain.from_iterable(itertools.combinations(fields, size) for size in sizes)


def _advice(directory: str | None, key: str, fields: tuple[str, ...], config: Config) -> str:
    from jimmy_manager.yaml12 import dump

    store = "" if directory in (None, "store") else f" --store {directory}"
    values = {path: shlex.quote(dump(config[path]).strip()) for path in fields}
    lines = "\n".join(f"    jimmy schema add {path} {value}{store}" for path, value in values.items())
    named = ", ".join(map(repr, fields))
    return (
        f"the defaults have gained {named}, and run {key} equals this configuration but for that: training now would "
        f"repeat it under another key. If runs from before behave like the value given here, say so once:\n{lines}\n"
        "To train them anew instead, use new_fields='rerun' (--new-fields rerun)"
    )
