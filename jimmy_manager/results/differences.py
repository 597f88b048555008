"""What differs between runs: configuration, results, code and environment, from small records alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jimmy_manager import html
from jimmy_manager.archives import code as recorded
from jimmy_manager.errors import KeyNotFound, NoRecord, RecordError
from jimmy_manager.nesting import flattened
from jimmy_manager.results import side_by_side
from jimmy_manager.results.damage import warn_of
from jimmy_manager.results.table import STATES

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.archives.store import Store

T = TypeVar("T")
Pairs = dict[str, tuple[Any, Any]]

_VERSION = ("commit", "dirty", "diff", "sources")
_MISSING: Any = object()


@dataclass(frozen=True)
class Difference:
    """What differs between the two runs ``keys``: each name with the value of either, None where a run has none.

    ``run`` is state and epoch; ``code`` commit, uncommitted changes and the digest of each source; ``environment``
    versions, host, device, threads and command line. ``equal_fields`` counts the fields of the configurations that do
    not differ.
    """

    keys: tuple[str, str]
    run: Pairs
    config: Pairs
    preview: Pairs
    code: Pairs
    environment: Pairs
    equal_fields: int = 0

    def sections(self) -> dict[str, Pairs]:
        """All of it, under its headings."""
        names = ("run", "config", "preview", "code", "environment")
        return {name: pairs for name in names if (pairs := getattr(self, name))}

    def to_dict(self) -> dict[str, Any]:
        """All of it, with empty parts, as plain dicts."""
        return {"keys": list(self.keys)} | {
            name: dict(getattr(self, name)) for name in ("run", "config", "preview", "code", "environment")
        }

    def __str__(self) -> str:
        return self.text()

    def text(self, wide: int = 0) -> str:
        """Lines for people, folded for a terminal of ``wide`` columns."""
        lines = [side_by_side.text(self.keys, self.sections(), wide)] if self.sections() else []
        return "\n".join([*lines, self._summary()])

    def _repr_html_(self) -> str:
        rows: list[list[object]] = []
        for heading, pairs in self.sections().items():
            rows.append([html.element("b", heading), "", ""])
            rows += [[name, *side_by_side.cells(pair)] for name, pair in pairs.items()]
        found = html.table(["", *self.keys], rows) if rows else ""
        return html.page(found, html.element("div", self._summary(), class_="dim"))

    def _summary(self) -> str:
        if self.keys[0] == self.keys[1]:
            return f"both are run {self.keys[0]}"
        count, others = self.equal_fields, "more " if self.config else ""
        fields = f"1 {others}field" if count == 1 else f"{count} {others}fields"
        return f"{fields} of the configurations {'is' if count == 1 else 'are'} equal"


class _Side(NamedTuple):
    """One run as it is compared, each part flat by dotted name."""

    key: str
    run: dict[str, Any]
    config: dict[str, Any]
    preview: dict[str, Any]
    code: dict[str, Any]
    environment: dict[str, Any]


def diff(store: Store, a: str, b: str) -> Difference:
    """What differs between two runs; records that cannot be read are named in a warning, the rest is compared."""
    damage: list[str] = []
    first, second = (_side(store, _found(store, prefix), damage) for prefix in (a, b))
    warn_of(damage)
    parts = {name: _pairs(getattr(first, name), getattr(second, name)) for name in _Side._fields[1:]}
    equal = len(first.config.keys() | second.config.keys()) - len(parts["config"])
    return Difference((first.key, second.key), **parts, equal_fields=equal)


def compare(store: Store, keys: Iterable[str]) -> pd.DataFrame:
    """The rows that differ between the runs ``keys``, a column each run.

    The index is (section, name): ``run`` for state, epoch and code version, ``config`` and ``preview`` for fields and
    scalar results. None where a run has none. Lone surrogates, which no encoding writes, are spelled out: a notebook
    has to send what it shows.
    """
    import pandas as pd

    if isinstance(keys, str):
        keys = [keys]
    damage: list[str] = []
    sides = [_side(store, key, damage) for key in dict.fromkeys(_found(store, prefix) for prefix in keys)]
    warn_of(damage)
    rows: dict[tuple[str, str], list[Any]] = {}
    for section, parts in _compared(sides).items():
        for name in dict.fromkeys(name for part in parts for name in part):
            values = [part.get(name, _MISSING) for part in parts]
            if not all(_is_same(values[0], value) for value in values[1:]):
                rows[section, _encodable(name)] = [_encodable(part.get(name)) for part in parts]
    index = pd.MultiIndex.from_tuples(rows, names=["section", "name"]) if rows else pd.MultiIndex.from_arrays(
        [[], []], names=["section", "name"]
    )  # fmt: skip
    return pd.DataFrame(list(rows.values()), index=index, columns=[side.key for side in sides], dtype=object)


def _compared(sides: Sequence[_Side]) -> dict[str, list[dict[str, Any]]]:
    return {
        "run": [side.run | {name: side.code[name] for name in _VERSION if name in side.code} for side in sides],
        "config": [side.config for side in sides],
        "preview": [{name: each for name, each in side.preview.items() if _is_scalar(each)} for side in sides],
    }


def _encodable(value: Any) -> Any:
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _found(store: Store, prefix: str) -> str:
    key = store.resolve(prefix)
    if store.is_popped(key):
        raise KeyNotFound(f"no run has the key {key!r}; it was popped")
    return key


def _side(store: Store, key: str, damage: list[str]) -> _Side:
    standing = _readable(lambda: store.standing(key), damage)
    state = STATES.get(standing.state, standing.state) if standing else "unreadable"
    stats = _readable(lambda: store.committed(key), damage)
    preview = _readable(lambda: store.previews[key], damage) if stats else None
    config = _readable(lambda: store.config(key), damage)
    epoch = stats.commits[-1].epoch if stats else None
    around = dict(stats.run) if stats else {}
    code = dict(flattened(around.pop("git", {})))
    if sources := around.pop("code", None):
        code["sources"] = sources
        files: dict[str, str] | None = _readable(lambda: recorded.tree(store, key), damage)
        code |= files or {}
    return _Side(
        key, {"state": state, "epoch": epoch}, dict(flattened(config or {})), dict(flattened(preview or {})), code,
        dict(flattened(around)),
    )  # fmt: skip


def _readable(read: Callable[[], T], damage: list[str]) -> T | None:
    """What ``read`` gives; None where there is nothing, or nothing whole, of which ``damage`` tells."""
    try:
        return read()
    except NoRecord:
        return None
    except RecordError as error:
        damage.append(str(error))
        return None


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> Pairs:
    return {
        name: (a.get(name), b.get(name))
        for name in dict.fromkeys((*a, *b))
        if not _is_same(a.get(name, _MISSING), b.get(name, _MISSING))
    }


def _is_same(a: Any, b: Any) -> bool:
    """As for keys: 1 and 1.0 are one value, True is not 1; and NaN is NaN."""
    if a is _MISSING or b is _MISSING or isinstance(a, bool) != isinstance(b, bool):
        return a is b
    if _is_array(a) or _is_array(b):
        return type(a) is type(b) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_same(a[name], b[name]) for name in a)
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
