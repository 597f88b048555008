"""All runs of a store as TensorBoard wants them: a directory of links and small event files, in this node's cache.

::

    KEY lr=0.1 seed=0/events.out.tfevents.0000000000.jimmy      configuration, results, evaluations
    KEY lr=0.1 seed=0/events.out.tfevents...                    links to what the run itself has logged

The store is only read. Whatever changed in it since is brought up to date by the next call; the curves of a running
worker go on by themselves, as they are links. The configuration is that run's HParams, the numbers of its preview are
their metrics, at its epoch. A plain Manager logs no events, so its evaluations (``evals.gN.jsonl``) become scalars.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager.archives import eval_log
from jimmy_manager.archives.columns import Indexed
from jimmy_manager.archives.index import cache_path, read_rows
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import StoreError

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition

# It sorts before all others: TensorBoard reads the files of a run in this order, and waits at the end of the last.
_OWN = "events.out.tfevents.0000000000.jimmy"
_UNFIT = re.compile(r"[^A-Za-z0-9_.=+,-]+")
_LONGEST_NAME = 120
_LONGEST_FIELD = 40
_EXACT = 2**53


class _Point(NamedTuple):
    step: int
    at: float
    values: dict[str, float]


def refresh(store: Store, where: Condition = None) -> Path:
    """Bring the directory of the runs that meet ``where`` up to date, and return it."""
    root = _place(store, where)
    rows = read_rows(store)
    if where is not None:
        met = set(store.table(where, ["state"]).index)
        rows = [row for row in rows if row.key in met]
    wanted: dict[str, str | bytes] = {}
    for row, name in zip(rows, _names(rows), strict=True):
        wanted[f"{name}/{_OWN}"] = _events(store, row)
        wanted |= {f"{name}/{path}": target for path, target in _logged(store, row.key)}
    try:
        _bring_up_to_date(root, wanted)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"cannot write {root}: {reason}; set XDG_CACHE_HOME to another place") from error
    return root


def _place(store: Store, where: Condition) -> Path:
    index = cache_path(store)
    if index is None:
        raise StoreError(f"there is no place for links to the runs of {store}: set XDG_CACHE_HOME to a directory")
    which = f"-{hashlib.sha256(repr(where).encode()).hexdigest()[:8]}" if where is not None else ""
    return Path(index).with_suffix(f".tensorboard{which}")


def _names(rows: list[Indexed]) -> list[str]:
    """A name of each run that begins with its key and tells the fields in which it differs from others."""
    values: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.config.items():
            values.setdefault(name, Counter())[repr(value)] += 1
    varying = [name for name, seen in values.items() if len(seen) > 1 or seen.total() < len(rows)]
    found = []
    for row in rows:
        fields = [f"{name.rpartition('.')[2]}={shown(row.config[name])}" for name in varying if name in row.config]
        name = " ".join([row.key, *(_UNFIT.sub("_", field)[:_LONGEST_FIELD] for field in fields)])
        found.append(name[:_LONGEST_NAME].rstrip(" ."))
    return found


def shown(value: Any) -> bool | float | str:
    """A value of a configuration as TensorBoard can show it: a bool, a number or text.

    >>> [shown(value) for value in (True, 3, 1e-3, 'adam', None, [1, 2], 2**60)]
    [True, 3, 0.001, 'adam', 'None', '[1, 2]', '1152921504606846976']
    """
    if isinstance(value, bool | str | float) or (isinstance(value, int) and abs(value) <= _EXACT):
        return value
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _events(store: Store, row: Indexed) -> bytes:
    """The event file of a run; the same bytes until the run changes."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer, at = RecordWriter(file), row.at or 0.0
    writer.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())
    points = _evaluations(store.logs(row.key))
    results = {name: float(value) for name, value in row.preview.items() if _is_number(value)}
    if points:
        known = points[-1].values
        results = {name: value for name, value in results.items() if name not in known}
    last = _Point(max([row.epoch or 0, *(point.step for point in points[-1:])]), at, results)
    for summary in _hparams(row):
        writer.write(Event(wall_time=at, summary=summary).SerializeToString())
    for point in (*points, last):
        if point.values:
            event = Event(wall_time=point.at, step=point.step, summary=_scalars(point.values))
            writer.write(event.SerializeToString())
    return file.getvalue()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalars(values: Mapping[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=_text(name), simple_value=value) for name, value in values.items()])


def _hparams(row: Indexed) -> Iterator[Any]:
    """The summaries by which the HPARAMS page knows a run: its configuration, and how it has ended, if it has."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=row.key, start_time_secs=row.at or 0.0)
    for name, leaf in row.config.items():
        value = shown(leaf)
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(start.hparams[_text(name)], f"{kind}_value", _text(value) if isinstance(value, str) else value)
    # Without an end a run counts as running.
    status = {"done": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}.get(row.state)
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=row.at or 0.0)
    told = [(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))]
    if status is not None:
        told.append((metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end)))
    for tag, data in told:
        described = metadata.create_summary_metadata(data)
        yield Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])


def _text(value: str) -> str:
    """Without lone surrogates, which no protocol buffer takes."""
    return value.encode("utf-8", "replace").decode("utf-8")


def _evaluations(place: str | None) -> list[_Point]:
    """What evaluations gave, by step, or by epoch where no steps are counted; what cannot be read is left out."""
    found = eval_log.read(place, []) if place else []
    counts = any(each.step for each in found)
    return [_Point(each.step if counts else each.epoch, each.at, each.values) for each in found]


def _logged(store: Store, key: str) -> Iterator[tuple[str, str]]:
    """The event files of a run, by their place below its folder; links are passed over, wherever they lead."""
    root = store.logs(key) or ""
    for folder, _, files in os.walk(root):
        for last in files:
            path = os.path.join(folder, last)
            if "tfevents" in last and not os.path.islink(path):
                yield os.path.relpath(path, root), path


def _bring_up_to_date(root: Path, wanted: Mapping[str, str | bytes]) -> None:
    """Make ``root`` hold ``wanted`` alone: bytes are files, texts are links to there."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder, folders, files in os.walk(root, topdown=False):
        for last in files + [each for each in folders if os.path.islink(os.path.join(folder, each))]:
            path = os.path.join(folder, last)
            if os.path.relpath(path, root) not in wanted:
                os.unlink(path)
        if folder != str(root) and not os.listdir(folder):
            os.rmdir(folder)
    for name, content in wanted.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            _put(place, content)
        elif not place.is_symlink() or os.readlink(place) != content:
            place.unlink(missing_ok=True)
            place.symlink_to(content)


def _put(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.replace(path)
