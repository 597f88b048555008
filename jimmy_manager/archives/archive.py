"""The four mappings from key to record: ``configs``, ``stats``, ``ckpts``, ``previews``.

They are four views of the same runs: a popped run leaves all of them. Any unique prefix of a key finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jimmy_manager.archives import checkpoints, layout, previews
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.config import Config
from jimmy_manager.errors import AmbiguousKey, KeyNotFound
from jimmy_manager.keys import canonical

if TYPE_CHECKING:
    from jimmy_manager.archives.columns import Indexed
    from jimmy_manager.archives.store import Store

V = TypeVar("V")
_MISSING: Any = object()


class Archive(Mapping[str, V], Generic[V]):
    """A mapping from key to one kind of record, read anew at each access; written by ``Manager`` alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, key: str) -> V:
        return self._load(self._store.resolve(key))

    def _load(self, key: str) -> V:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return self._store.committed_keys()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            return self._has(self._store.resolve(key))
        except (KeyNotFound, AmbiguousKey):
            return False

    def _has(self, key: str) -> bool:
        return self._store.is_committed(key)

    def _ipython_key_completions_(self) -> list[str]:
        return [run.key for run in self._indexed() if run.epoch is not None]

    def _indexed(self) -> list[Indexed]:
        from jimmy_manager.archives.index import read_rows

        return read_rows(self._store)

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Take the whole run ``key`` out of the store and return its record here; see ``Store.pop``.

        An ambiguous prefix is an error even where a ``default`` is given.
        """
        try:
            value = self[key]
        except AmbiguousKey:
            raise
        except KeyError:
            if default is _MISSING:
                raise
            return default
        self._store.pop(key)
        return value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} runs in {self._store}>"


class StatsArchive(Archive[dict[str, Any]]):
    """How far each run is: ``epoch``, ``step``, ``at`` (seconds since 1970), ``done``, times, versions."""

    def _load(self, key: str) -> dict[str, Any]:
        stats = self._store.history.stats(key)
        return summary(stats) | {"done": self._store.is_done(stats)}


class Ckpts(Archive[dict[str, Any]]):
    """The newest whole checkpoint of each run, tensors on the CPU; a damaged one is logged by name and passed over."""

    def _load(self, key: str) -> dict[str, Any]:
        return self._store.history.newest(key, self.read)

    def read(self, commit: Commit) -> dict[str, Any]:
        """The checkpoint of one commit, verified before torch sees it."""
        if not commit.has_ckpt:
            stats = self._store.history.read_stats(commit.key, commit.generation)
            raise checkpoints.left_out(commit.key, stats.run)
        with self._store.history.open(commit.ckpt_name, commit.ckpt) as file:
            return checkpoints.load(file, commit.ckpt_name)


class Previews(Archive[dict[str, Any]]):
    """The small results of each run's newest commit."""

    def _load(self, key: str) -> dict[str, Any]:
        return self._store.history.newest(key, self.read)

    def read(self, commit: Commit) -> dict[str, Any]:
        """The preview of one commit."""
        name = commit.preview_name
        return previews.load(self._store.history.read(name, commit.preview), name)

    def figures(self, key: str) -> dict[str, bytes]:
        """The PNG of each figure in the newest preview, by label."""

        def read(commit: Commit) -> dict[str, bytes]:
            names = {label: layout.figure(*commit[:3], label) for label in commit.figures}
            return {label: self._store.history.read(name, commit.figures[label]) for label, name in names.items()}

        return self._store.history.newest(self._store.resolve(key), read)


class Configs(Archive[Config]):
    """The configurations, whether trained yet or not; popped runs are left out.

    Fields that the schema ledger has added show their birth value in configurations from before them.
    """

    def _load(self, key: str) -> Config:
        if not self._has(key):
            raise KeyNotFound(f"no run has the key {key!r}; it was popped")
        return self._store.config(key)

    def __iter__(self) -> Iterator[str]:
        return self._store.keys()

    def _has(self, key: str) -> bool:
        return not self._store.is_popped(key)

    def _ipython_key_completions_(self) -> list[str]:
        return [run.key for run in self._indexed()]

    def add(self, config: Mapping[str, Any]) -> str:
        """Register ``config`` and return its key; a no-op where it is registered."""
        return self._store.register(config).key

    def get_key(self, config: Mapping[str, Any]) -> str:
        """The key of ``config``; ``KeyNotFound`` where it is not registered."""
        key = self._store.find(config)
        if key is None:
            raise KeyNotFound("this configuration is not registered in the store")
        return key

    def filter(self, cond: Mapping[str, Any] | None = None) -> Iterator[str]:
        """The keys whose configurations meet ``cond``: dotted field -> value, list of values or callable."""
        for key in self:
            if meets(self._store.config(key), cond):
                yield key

    def compare(self, keys: Iterable[str]) -> tuple[Config, dict[str, Config]]:
        """What the configurations of ``keys`` share, and by key what each has of its own."""
        flat = {key: self[key].flatten() for key in keys}
        shared: dict[str, Any] = dict(next(iter(flat.values()), {}))
        for fields in flat.values():
            shared = {path: value for path, value in shared.items() if path in fields and _is_one(fields[path], value)}
        own = {key: {p: v for p, v in fields.items() if p not in shared} for key, fields in flat.items()}
        return _nested(shared), {key: _nested(fields) for key, fields in own.items()}

    def group(self, keys: Iterable[str], ignoring: str | Iterable[str] = "seed") -> list[list[str]]:
        """The keys in groups whose configurations are equal but for the fields ``ignoring``."""
        ignored = {ignoring} if isinstance(ignoring, str) else set(ignoring)
        groups: dict[bytes, list[str]] = {}
        for key in keys:
            fields = {path: value for path, value in self[key].flatten().items() if path not in ignored}
            groups.setdefault(canonical(fields), []).append(key)
        return list(groups.values())


def meets(config: Config, cond: Mapping[str, Any] | None) -> bool:
    """Whether ``config`` meets every part of ``cond``; a missing field meets nothing."""
    for path, wanted in (cond or {}).items():
        if path not in config:
            return False
        value = config[path]
        if callable(wanted):
            if not wanted(value):
                return False
            continue
        choices = [wanted, *wanted] if isinstance(wanted, (list, tuple, set, frozenset, range)) else [wanted]
        if not any(_is_equal(value, choice) for choice in choices):
            return False
    return True


def _is_equal(value: Any, wanted: Any) -> bool:
    # As in keys: True is not 1, and a tuple is a list.
    if isinstance(value, bool) != isinstance(wanted, bool):
        return False
    return bool(value == (list(wanted) if isinstance(wanted, tuple) else wanted))


def _is_one(first: Any, second: Any) -> bool:
    return canonical(first) == canonical(second)


def summary(stats: Stats) -> dict[str, Any]:
    """The newest commit of ``stats`` as plain values."""
    newest = stats.commits[-1]
    fields = ("epoch", "step", "at", "train_s", "eval_s")
    return {name: getattr(newest, name) for name in fields} | {"done": stats.done, "run": dict(stats.run)}


def _nested(flat: Mapping[str, Any]) -> Config:
    config = Config()
    for path, value in flat.items():
        config[path] = value
    return config


