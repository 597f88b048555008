"""What gc may take: which runs, and which of their files. Looks only, and writes nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives import checkpoints
from jimmy_manager.archives.claims import Standing
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.store import Store
from jimmy_manager.better import is_more_better
from jimmy_manager.errors import ConfigError, NoRecord, RecordError, StoreTooNew
from jimmy_manager.nesting import flattened

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AT_REST = ("done", "failed", "paused")
"""In the words of lists. Whoever was lost goes on when the next worker comes by, and a retry was just asked for."""


class Wanted(NamedTuple):
    """What was asked for."""

    superseded: bool
    keep_best: int | None
    metric: str
    mode: str | None
    by: tuple[str, ...]
    failed: bool
    older_s: float | None
    larger: float | None
    where: Condition

    @classmethod
    def of(
        cls, superseded: bool, keep_best: int | None, metric: str, mode: str | None, by: tuple[str, ...], failed: bool,
        older_than: str | float | None, larger_than: str | float | None, where: Condition,
    ) -> Wanted:
        """The arguments of ``gc``, checked."""
        if keep_best is None and (metric or mode or by):
            raise ConfigError("metric, mode and by say which runs are best; say how many of them stay (--keep-best K)")
        if keep_best is not None and keep_best < 0:
            raise ConfigError(f"keep_best is {keep_best}, it must be 0 or more")
        if keep_best is not None and not metric:
            raise ConfigError("best by what? name a number of the previews (--metric NAME)")
        older_s = None if older_than is None else _measure(older_than, _SECONDS, "an age", "90d, 12h or 2w")
        larger = None if larger_than is None else _measure(larger_than, _BYTES, "a size", "1G, 500M or bytes")
        return cls(superseded, keep_best, metric, mode, by, failed, older_s, larger, where)

    @property
    def asks(self) -> bool:
        """Whether anything of runs may go."""
        return self.superseded or self.takes_ckpts

    @property
    def takes_ckpts(self) -> bool:
        """Whether checkpoints may go."""
        return self._chooses or (not self.superseded and (self.older_s is not None or self.larger is not None))

    @property
    def _chooses(self) -> bool:
        return self.keep_best is not None or self.failed


class Plan(NamedTuple):
    """What goes of one run, as it stands now: ``names`` in order, and the bytes that are free then.

    ``rewrites`` where a new commit has to be made for that; else all of it is superseded already.
    """

    key: str
    standing: Standing
    stats: Stats
    drops_ckpt: bool
    names: tuple[str, ...]
    sizes: Sizes

    @property
    def what(self) -> str:
        return "checkpoint" if self.drops_ckpt or self.is_unfinished else "older commits"

    @property
    def is_unfinished(self) -> bool:
        """Whether gc has taken the checkpoint before, and may have been killed before its files were gone."""
        return checkpoints.GC in self.stats.run

    @property
    def rewrites(self) -> bool:
        return self.drops_ckpt or len(self.stats.commits) > 1

    @property
    def size(self) -> int:
        return self.sizes.total(self.names)

    def of(self, gone: Iterable[str]) -> Plan:
        """The plan as it was done: of its names those that are gone."""
        removed = set(gone)
        return self._replace(names=tuple(name for name in self.names if name in removed))


class Sizes:
    """What files take; one with several names is free only when the last of them goes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, tuple[tuple[int, int], int, int]] = {}

    def total(self, names: Iterable[str]) -> int:
        """The bytes that are free once all ``names`` are gone."""
        left: dict[tuple[int, int], int] = {}
        total = 0
        for name in names:
            inode, links, size = self._look(name)
            left[inode] = left.get(inode, links) - 1
            total += size if left[inode] == 0 else 0
        return total

    def _look(self, name: str) -> tuple[tuple[int, int], int, int]:
        if name not in self._seen:
            path = self._store.path(name)
            try:
                if path is None:
                    self._seen[name] = ((-1, len(self._seen)), 1, self._store.files.size(name))
                else:
                    found = os.lstat(path)
                    self._seen[name] = ((found.st_dev, found.st_ino), found.st_nlink, found.st_size)
            except FileNotFoundError:  # gone since it was listed
                self._seen[name] = ((-1, len(self._seen)), 1, 0)
        return self._seen[name]


def make_plans(store: Store, janitor: Janitor, wanted: Wanted) -> tuple[list[Plan], dict[str, str]]:
    """What may go of each run, by key, and why runs that were meant, too, are left."""
    left: dict[str, str] = {}
    looked = {key: _look(store, key, left) for key, row in _rows(store, wanted).items() if row["state"] in _AT_REST}
    # Once more: what is decided must be true of each run as it was looked at, or be from later. From before, it may be
    # what a run was that a worker has extended since; what has changed since the look is noticed when it is claimed.
    rows = _rows(store, wanted)
    found = {key: run for key, run in looked.items() if run is not None and key in rows}
    losing = _losing(store, wanted, rows, found, left) if wanted.takes_ckpts else set()
    plans, sizes = [], Sizes(store)
    for key, (standing, stats) in sorted(found.items()):
        plan = Plan(key, standing, stats, key in losing, (), sizes)
        if plan.drops_ckpt or plan.is_unfinished or wanted.superseded:
            plan = plan._replace(names=_going(janitor, plan))
            if plan.names and _is_meant(store, wanted, plan):
                plans.append(plan)
    return plans, left


def _rows(store: Store, wanted: Wanted) -> dict[str, Mapping[Any, Any]]:
    """The runs that are meant at all, by key, with what is asked of them."""
    names = dict.fromkeys(["state", *([wanted.metric] if wanted.metric else ()), *wanted.by])
    frame = store.table(wanted.where, list(names))
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    return {key: row | {"key": key} for key, row in zip(frame.index, rows, strict=True)}


def _look(store: Store, key: str, left: dict[str, str]) -> tuple[Standing, Stats] | None:
    """How a run stands that is at rest and has something committed."""
    try:
        standing = store.standing(key)
        stats = store.history.stats(key)
        if standing.state == "done" and not store.is_done(stats):
            left[key] = "it is finished, but not by its newest commit; see 'jimmy check'"
            return None
    except NoRecord:
        return None
    except (RecordError, StoreTooNew) as error:
        left[key] = str(error)
        return None
    return (standing, stats) if standing.state in ("done", "failed", "released") else None


def _losing(
    store: Store, wanted: Wanted, rows: Mapping[str, Mapping[Any, Any]], found: Mapping[str, tuple[Standing, Stats]],
    left: dict[str, str],
) -> set[str]:
    """The runs whose checkpoints may go."""
    with_ckpt = {key: run for key, run in found.items() if run[1].commits[-1].has_ckpt}
    finished = [key for key, (standing, _) in with_ckpt.items() if standing.state == "done"]
    losing: set[str] = set()
    if wanted.keep_best is not None:
        losing |= _not_best(store, wanted, {key: rows[key] for key in finished}, left)
    if wanted.failed:
        losing |= {key for key, (standing, _) in with_ckpt.items() if standing.state == "failed"}
    return losing if wanted._chooses else set(finished)


def _not_best(
    store: Store, wanted: Wanted, rows: Mapping[str, Mapping[Any, Any]], left: dict[str, str]
) -> set[str]:
    """All but the best runs of each group; what has no number is left, NaN is worst but where all have it."""
    metric = _whole_name(store, wanted.metric)
    is_max = _is_max(metric, wanted.mode)
    groups: dict[tuple[Any, ...], list[tuple[float, str]]] = {}
    for key, row in rows.items():
        value = _number(row[wanted.metric])
        if value is None or (math.isnan(value) and not _has(store, key, metric)):
            left[key] = f"it has no number {wanted.metric!r} to compare it by"
            continue
        score = math.inf if math.isnan(value) else -value if is_max else value
        groups.setdefault(tuple(_group_of(row[name]) for name in wanted.by), []).append((score, key))
    losing: set[str] = set()
    for group in groups.values():
        if any(math.isfinite(score) for score, _ in group):
            losing |= {key for _, key in sorted(group)[wanted.keep_best :]}
        else:  # which of them to keep would be chance
            left |= {key: f"no run of its group has a finite {wanted.metric!r}" for _, key in group}
    return losing


def _group_of(value: Any) -> Any:
    """Equal for equal values alone: 1 is 1.0, but neither ``"1"`` nor True; all that is missing is one group."""
    is_number = type(value) in (int, float) and value == value
    return value if is_number else (type(value), repr(value))


def _whole_name(store: Store, metric: str) -> str:
    """What ``metric`` is called in the rows of a table, which has made sure that its last parts stand for one name."""
    names: dict[str, None] = {}
    store.table(lambda row: bool(names.update(dict.fromkeys(row))), ["state"])
    return metric if metric in names else next((name for name in names if name.endswith(f".{metric}")), metric)


def _has(store: Store, key: str, metric: str) -> bool:
    """Whether the preview of a run has ``metric``: in a table a missing number is NaN as well."""
    try:
        return metric.removeprefix("preview.") in dict(flattened(store.previews[key]))
    except (RecordError, StoreTooNew):
        return False


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, str)) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_meant(store: Store, wanted: Wanted, plan: Plan) -> bool:
    """Whether it is old and large enough."""
    size = plan.size  # now, also to be known when its files are gone
    if wanted.older_s is not None and store.claims.clock.now() - plan.stats.commits[-1].at < wanted.older_s:
        return False
    return wanted.larger is None or size > wanted.larger


def _going(janitor: Janitor, plan: Plan) -> tuple[str, ...]:
    """The files that no name of will be left, in the order in which they go."""
    newest = plan.stats.commits[-1]
    kept = {plan.stats.name, *newest.contents()} - ({newest.ckpt_name} if plan.drops_ckpt else set())
    files = sorted(janitor.files_of(plan.key).items())
    below = [name for generation, names in files for name in names if generation < plan.stats.generation]
    here = [name for generation, names in files for name in names if generation >= plan.stats.generation]
    return tuple(name for name in (below + here if plan.rewrites else below) if name not in kept)


def _is_max(metric: str, mode: str | None) -> bool:
    """Whether more is better; guessed only where the name leaves no doubt, as checkpoints depend on it."""
    if mode not in (None, "min", "max"):
        raise ConfigError(f"mode is {mode!r}, it must be 'min' or 'max'")
    is_more = mode == "max" if mode else is_more_better(metric)
    if is_more is None:
        raise ConfigError(f"is more of {metric!r} better, or less? say mode 'max' or 'min' (--mode)")
    return is_more


def _measure(given: str | float, units: Mapping[str, float], what: str, example: str) -> float:
    """``given`` in its smallest unit."""
    if isinstance(given, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]?)(?:i?b)?", given.strip().lower())
        if match is None or match[2] not in units:
            raise ConfigError(f"{given!r} is not {what}; write {example}")
        return float(match[1]) * units[match[2]]
    if not given >= 0:
        raise ConfigError(f"{given!r} is not {what}; write {example}")
    return float(given)
