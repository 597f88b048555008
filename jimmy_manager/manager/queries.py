"""Asking a store about the runs of a job: which are complete, which is best, what do they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, NoReturn, Self, TypeVar, overload

from jimmy_manager.archives.archive import Ckpts, Configs, Previews, StatsArchive, meets
from jimmy_manager.archives.looking import Looking
from jimmy_manager.archives.schema import Schema
from jimmy_manager.archives.store import Store
from jimmy_manager.config import Config
from jimmy_manager.errors import KeyNotFound

T = TypeVar("T")


class _OfStore(Generic[T]):
    """What the store of a Manager calls by the same name, and nobody can set.

    Not a property: to complete what follows one, IPython would have to run it, and does not.
    """

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, manager: None, owner: type) -> Self: ...

    @overload
    def __get__(self, manager: Queries, owner: type) -> T: ...

    def __get__(self, manager: Queries | None, owner: type) -> Self | T:
        if manager is None:
            return self
        found: T = getattr(manager.store, self._name)
        return found

    def __set__(self, manager: Queries, value: object) -> NoReturn:
        raise AttributeError(f"{self._name!r} of a Manager is that of its store, and cannot be set")


class Queries(Looking):
    """The reading half of ``Manager``; it loads no checkpoint and no torch."""

    store: Store

    def _looked_at(self) -> Store:
        return self.store

    def __repr__(self) -> str:
        place = repr(self.store) if "store" in self.__dict__ else "no store yet"  # where an __init__ failed
        return f"<{type(self).__name__} on {place}>"

    configs = _OfStore[Configs]("Configurations by key.")
    stats = _OfStore[StatsArchive]("Progress by key.")
    ckpts = _OfStore[Ckpts]("Checkpoints by key.")
    previews = _OfStore[Previews]("Small results by key.")

    @cached_property  # and no property: a job may have an attribute of that name
    def schema(self) -> Schema:
        """What changed fields mean for runs from before: ``add``, ``rename``, ``remove``, ``undo`` and ``list``."""
        return self.store.schema

    def get_config(self, config: Mapping[str, Any]) -> Config:
        """The whole configuration of a partly given one."""
        raise NotImplementedError

    def completed(self, min_epoch: int = 0, cond: Mapping[str, Any] | None = None) -> Iterator[str]:
        """The keys trained to at least ``min_epoch`` whose configuration meets ``cond``.

        ``cond`` maps dotted fields to a value, a list of values or a callable.
        """
        for key, _ in self.completed_items(min_epoch, cond):
            yield key

    def completed_items(
        self, min_epoch: int = 0, cond: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[str, Config]]:
        """``completed`` as pairs of key and configuration."""
        for key in self.store.committed_keys():
            config = self.store.config(key)
            if meets(config, cond):
                stats = self.store.committed(key)
                if stats is not None and stats.commits[-1].epoch >= min_epoch:
                    yield key, config

    def best_work(
        self, p_key: str = "loss_test", reverse: bool | None = None, cond: Mapping[str, Any] | None = None,
        min_epoch: int = 0,
    ) -> str:
        """The key with the lowest preview value ``p_key``; the highest with ``reverse``, as for names in acc or return.

        Runs without a finite value there are passed over; ``KeyNotFound`` where none is left.
        """
        reverse = p_key.startswith(("acc", "return")) if reverse is None else reverse
        scored = []
        for key in self.completed(min_epoch, cond):
            value = self.previews[key].get(p_key)
            if isinstance(value, (int, float)) and math.isfinite(value):
                scored.append((float(value), key))
        if not scored:
            raise KeyNotFound(f"no completed run has a number {p_key!r} in its preview")
        return (max if reverse else min)(scored)[1]

    def overview(
        self, configs: Iterable[Mapping[str, Any]] | None = None, min_epoch: int = 0, p_keys: Iterable[str] = ()
    ) -> Any:
        """A DataFrame of the completed runs (of ``configs``, where given): epoch, varying fields, preview fields."""
        import pandas as pd

        wanted = None if configs is None else {self.store.find(self.get_config(config)) for config in configs}
        runs = {k: c.flatten() for k, c in self.completed_items(min_epoch) if wanted is None or k in wanted}
        shared = self.configs.compare(runs)[0].flatten()
        chosen = tuple(p_keys)
        rows = []
        for key, fields in runs.items():
            preview = self.previews[key]
            shown = {p: preview.get(p) for p in chosen} if chosen else preview
            varying = {path: value for path, value in fields.items() if path not in shared}
            rows.append({"key": key, "epoch": self.stats[key]["epoch"], **varying, **shown})
        frame = pd.DataFrame(rows)
        return frame.set_index("key") if rows else frame

