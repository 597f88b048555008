"""Learning curves as one long DataFrame: what was logged for TensorBoard, and what each evaluation gave.

Where a tag of TensorBoard's and a number of an evaluation have one name, the former is ``tensorboard.NAME``. Of an
epoch that stands in a run's evaluation log and in the ``eval_records`` of its preview, the log counts: it knows step
and time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from jimmy_manager.archives import eval_log, previews
from jimmy_manager.archives.eval_log import Evaluation
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.index import read_rows
from jimmy_manager.errors import KeyNotFound, NoRecord, RecordError, UnknownField
from jimmy_manager.results import event_files
from jimmy_manager.results.damage import warn_of
from jimmy_manager.results.event_files import Curves, Damage

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

_RECORD = re.compile(r"eval_records\.([0-9]{1,15})(?:\.(.+))?", re.DOTALL)


class _Point(NamedTuple):
    """One value; NaN for a step, epoch or time that is not known."""

    tag: str
    step: float
    epoch: float
    value: float
    at: float


class _Run(NamedTuple):
    logged: Curves
    evaluations: list[Evaluation]

    def points(self, taken: Iterable[str]) -> Iterator[_Point]:
        """All there is, by tag; a logged tag that is ``taken`` gets its longer name."""
        for tag, points in self.logged.items():
            name = f"tensorboard.{tag}" if tag in taken else tag
            for step, point in sorted(points.items()):
                yield _Point(name, step, math.nan, point.value, point.at)
        counts = any(each.step for each in self.evaluations)
        for each in self.evaluations:
            for tag, value in each.values.items():
                yield _Point(tag, each.step if counts else math.nan, each.epoch, value, each.at)


def curves(
    store: Store, keys: Iterable[str] | str | None = None, tags: Iterable[str] | str | None = None,
    where: Condition = None,
) -> pd.DataFrame:
    """What was logged of the runs ``keys`` (all) that meet ``where``: ``key, tag, step, epoch, value, at``.

    A row each value, of each run tag by tag. ``epoch`` is NaN for what TensorBoard was given, ``step`` where none are
    counted, ``at`` NaT where no time is known. ``tags`` are names or patterns (``Eval/*``); ``UnknownField`` for one
    that no run has, unless there are no curves at all. Damaged files are named in a warning, the rest of them is shown.
    """
    damage: list[str] = []
    runs = {key: _read(store, key, damage) for key in _chosen(store, keys, where)}
    warn_of(damage)
    taken = {tag for run in runs.values() for each in run.evaluations for tag in each.values}
    points = {key: sorted(run.points(taken), key=lambda point: point.tag) for key, run in runs.items()}
    wanted = _wanted(tags, sorted({point.tag for each in points.values() for point in each}))
    return _frame([(key, point) for key, each in points.items() for point in each if point.tag in wanted])


def _frame(rows: list[tuple[str, _Point]]) -> pd.DataFrame:
    import pandas as pd

    texts = {"key": [key for key, _ in rows], "tag": [point.tag for _, point in rows]}
    names = _Point._fields[1:]
    columns = {name: pd.Series(values, dtype="str") for name, values in texts.items()}
    columns |= {name: pd.Series([getattr(point, name) for _, point in rows], dtype="float64") for name in names}
    # In whole milliseconds: a float of seconds has no more digits to give than microseconds, and noise below.
    at = pd.to_datetime((columns["at"] * 1000).round(), unit="ms", utc=True, errors="coerce")
    return pd.DataFrame(columns | {"at": at.astype("datetime64[ns, UTC]")})


def _chosen(store: Store, keys: Iterable[str] | str | None, where: Condition) -> list[str]:
    if keys is None:
        found = [row.key for row in read_rows(store)]
    else:
        found = list(dict.fromkeys(store.resolve(key) for key in ([keys] if isinstance(keys, str) else keys)))
        for key in found:
            if store.is_popped(key):
                raise KeyNotFound(f"no run has the key {key!r}; it was popped")
    if where is None:
        return found
    meeting = set(store.table(where, ["state"]).index)
    return [key for key in found if key in meeting]


def _wanted(tags: Iterable[str] | str | None, known: list[str]) -> set[str]:
    if tags is None or not known:
        return set(known)
    wanted: set[str] = set()
    for tag in [tags] if isinstance(tags, str) else tags:
        matching = [tag] if tag in known else [name for name in known if fnmatchcase(name, tag)]
        if not matching:
            raise UnknownField(f"no run has a curve {tag!r}{_advice(tag, known)}")
        wanted.update(matching)
    return wanted


def _advice(tag: str, known: list[str]) -> str:
    from difflib import get_close_matches

    below = [name for name in known if re.split(r"[/.]", name)[-1] == tag]
    near = below or get_close_matches(tag, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known[:20])}"


def _read(store: Store, key: str, damage: list[str]) -> _Run:
    place = store.logs(key)
    torn: list[Damage] = []
    logged = event_files.read_scalars(place, torn) if place else {}
    evaluations = eval_log.read(place, damage) if place else []
    # The end of a file that is being written may be on its way.
    told = (f"{each.path}: {each.reason}" for each in torn if not (each.is_end and _is_running(store, key)))
    damage += dict.fromkeys(told)
    return _Run(logged, _with_records(evaluations, _preview(store, key, damage)))


def _is_running(store: Store, key: str) -> bool:
    try:
        return store.standing(key).state == "held"
    except RecordError:
        return False


def _preview(store: Store, key: str, damage: list[str]) -> Mapping[str, object]:
    def read(commit: Commit) -> dict[str, object]:
        return previews.load_scalars(store.history.read(commit.preview_name, commit.preview), commit.preview_name)

    try:
        return store.history.newest(key, read)
    except NoRecord:
        return {}
    except RecordError as error:
        damage.append(str(error))
        return {}


def _with_records(evaluations: list[Evaluation], preview: Mapping[str, object]) -> list[Evaluation]:
    """``evaluations``, and of the ``eval_records`` in a preview what they lack."""
    by_epoch = {each.epoch: each for each in evaluations}
    for name, value in preview.items():
        match = _RECORD.fullmatch(name)
        if match is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        epoch, tag = int(match[1]), match[2] or "eval_records"
        known = by_epoch.setdefault(epoch, Evaluation(epoch, 0, math.nan, {}))
        known.values.setdefault(tag, float(value))
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
