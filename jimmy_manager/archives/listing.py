"""Reading what there is to list of every run, in one pass: each shard directory is listed once, not once a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives import layout, previews
from jimmy_manager.archives.claims import ClaimRecord, Claims, Trace
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.errors import DamagedRecord, KeyNotFound, NoRecord, RecordError, StoreTooNew

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store


class Listed(NamedTuple):
    """One run as a list shows it; ``damage`` says by name what could not be read of it, or is of a newer version.

    ``config`` is nested, as the schema ledger shows it; ``preview`` is flat and holds scalars only. ``state`` is a
    ``Standing``'s.
    """

    key: str
    state: str
    record: ClaimRecord | None
    stats: Stats | None
    config: dict[str, Any]
    preview: dict[str, Any]
    damage: tuple[str, ...] = ()

    @property
    def commit(self) -> Commit | None:
        """The newest commit."""
        return self.stats.commits[-1] if self.stats else None


def read_all(store: Store) -> Iterator[Listed]:
    """Every run of ``store`` that was not popped, in the order of their keys.

    A run that changes or disappears meanwhile is shown as it was before or after. A record that does not read at
    first is read again by the careful rules, so a damaged one costs as much time here as anywhere.
    """
    for shard in sorted(filter(layout.is_shard, store.files.names("configs"))):
        yield from read_shard(store, shard)


def read_shard(store: Store, shard: str, only: Container[str] | None = None) -> Iterator[Listed]:
    """The runs of one shard, of the keys ``only`` where given."""
    keys = sorted(found.key for found in _parsed(store, "configs", shard) if only is None or found.key in only)
    claims, stats = (_generations(store, archive, shard) for archive in ("claims", "stats"))
    traces = {key: Trace(claims.get(key, ()), stats.get(key, ())) for key in keys}
    listed = _ListedClaims(store.claims, traces)
    for key in keys:
        run = _read(store, listed, key, traces[key])
        if run is not None:
            yield run


class _ListedClaims(Claims):
    """The claims of a store as one listing of a shard shows them; what it learns of heartbeats is shared."""

    def __init__(self, claims: Claims, traces: dict[str, Trace]) -> None:
        self.__dict__.update(claims.__dict__)
        self._traces = traces

    def look(self, key: str) -> Trace:
        return self._traces[key]


def _read(store: Store, claims: Claims, key: str, trace: Trace) -> Listed | None:
    damage: list[str] = []
    state, record, stats = "unreadable", None, None
    config: dict[str, Any] = {}
    try:
        standing = claims.standing(key)
        state, record = standing.state, standing.record
    except (RecordError, StoreTooNew) as error:
        damage.append(str(error))
    try:
        stats = _stats(store, key, trace)
        if stats is not None and not stats.commits:
            return None
    except (RecordError, StoreTooNew) as error:
        damage.append(str(error))
    try:
        config = store.ledger.shown_form(store.registry.read(key).stored)
    except (RecordError, KeyNotFound, StoreTooNew) as error:
        damage.append(str(error))
    preview: dict[str, Any] = {}
    if stats is not None:
        try:
            preview = _preview(store, key, stats)
        except (RecordError, StoreTooNew) as error:
            damage.append(str(error))
    return Listed(key, state, record, stats, config, preview, tuple(damage))


def _stats(store: Store, key: str, trace: Trace) -> Stats | None:
    if not trace.stats:
        return None
    try:
        return store.history.read_stats(key, trace.stats[-1])
    except DamagedRecord:
        try:
            return store.history.stats(key)
        except NoRecord as absent:  # popped, perhaps, since the listing
            return Stats(key, trace.stats[-1], "", ()) if hasattr(absent, "generation") else None


def _preview(store: Store, key: str, stats: Stats) -> dict[str, Any]:
    def read(commit: Commit) -> dict[str, Any]:
        return previews.load_scalars(store.history.read(commit.preview_name, commit.preview), commit.preview_name)

    try:
        return read(stats.commits[-1])
    except DamagedRecord:  # replaced by a later commit since the listing, or damaged indeed
        commit, preview = store.history.newest(key, lambda commit: (commit, read(commit)))
        if commit.order < stats.commits[-1].order:  # results of another epoch than the one that is shown
            raise
        return preview


def _parsed(store: Store, archive: str, shard: str) -> Iterator[layout.Parsed]:
    parsed = (layout.parse(archive, name) for name in store.files.names(f"{archive}/{shard}"))
    return (found for found in parsed if found is not None)


def _generations(store: Store, archive: str, shard: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = defaultdict(list)
    for parsed in _parsed(store, archive, shard):
        found[parsed.key].append(parsed.generation)
    return {key: tuple(sorted(generations)) for key, generations in found.items()}
