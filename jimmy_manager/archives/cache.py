"""The SQLite file behind ``index``: rows with one column a field, and what each shard looked like when it was read.

Values keep their types: integers, floats and text are SQLite's own; whatever else JSON can say (true, null, a list,
NaN, an integer of more than 64 bits) is a blob of JSON, so that no two values are confused. An empty cell is a field
that the run does not have. Fields beyond ``MOST_COLUMNS`` stand in one JSON column.
"""

from __future__ import annotations

import json
import math
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jimmy_manager.archives import layout
from jimmy_manager.archives.columns import LACKS, OWN, Cells, Columns, Indexed

VERSION = 2
MOST_COLUMNS = 200
BUSY_S = 2.0
"""How long another process of this node may take to write before the rows are used without being kept."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE shards (
    archive TEXT, shard TEXT, mtime INTEGER, seen REAL, is_settled INTEGER, names TEXT, PRIMARY KEY (archive, shard)
) WITHOUT ROWID;
CREATE TABLE fields (number INTEGER PRIMARY KEY, side TEXT, path TEXT);
CREATE TABLE runs (
    key TEXT PRIMARY KEY, state TEXT, epoch INTEGER, step INTEGER, at REAL, train_s REAL, eval_s REAL, done INTEGER,
    damage TEXT, is_live INTEGER, more TEXT
) WITHOUT ROWID;
"""
_SINGLE = {b"null": None, b"true": True, b"false": False}
_OWN = (*OWN, "is_live", "more")
_NONE = type(None)
_NUMBER: set[type] = {float, int, _NONE}
_KINDS: tuple[set[type], ...] = (
    {str}, {str}, {int, _NONE}, {int, _NONE}, _NUMBER, _NUMBER, _NUMBER, {int}, {str, _NONE}, {int}, {str, _NONE},
)
_CHUNK = 2_000
"""So many rows are taken at a time: as tuples all of them would need more memory than what is made of them."""
_MOST_TEXTS = 1_000
"""Of a column with no more texts than these, each text is kept once."""
_ENVIRONMENT = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH,
}


class Seen(NamedTuple):
    """A shard directory when it was read; ``seen`` is when this ``mtime`` was first met, by this node's clock."""

    mtime: int
    seen: float
    is_settled: bool


class Broken(Exception):
    """The file is no cache of this version: make it anew."""


class Unavailable(Exception):
    """The file cannot be used now, whatever it holds: do without."""


class Cache:
    """One open cache file; ``state`` changes whenever anybody changes a row, and is empty where another process did."""

    def __init__(self, path: str) -> None:
        self.state = ""
        self._numbers: dict[tuple[str, str], int] = {}
        with _errors():
            self._sql = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self._sql.close()
            raise

    def close(self) -> None:
        self._sql.close()

    def meta(self) -> dict[str, str]:
        """Whatever was said to belong to these rows."""
        with _errors():
            return dict(self._sql.execute("SELECT name, value FROM meta WHERE name != 'state'"))

    def begin(self) -> str:
        """Begin to bring the rows up to date; returns the ``state`` that they have."""
        with _errors():
            self.state = self._read_state()
        return self.state

    def clear(self, meta: Mapping[str, str]) -> None:
        """Forget all rows; those to come belong to ``meta``."""
        with _errors(), _Transaction(self._sql):
            for (table,) in self._sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._sql.execute(f'DROP TABLE "{table}"')
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._sql.execute(statement)
            self._sql.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            self._change_state()
            self._sql.execute(f"PRAGMA user_version = {VERSION}")
        self._numbers = {}

    def shards(self) -> dict[tuple[str, str], Seen]:
        """Every shard that was read, by archive and shard."""
        with _errors():
            rows = self._sql.execute("SELECT archive, shard, mtime, seen, is_settled FROM shards").fetchall()
        for column, kind in zip(zip(*rows, strict=True), (str, str, int, float, int), strict=False):
            _expect(column, kind)
        return {(archive, shard): Seen(mtime, seen, bool(settled)) for archive, shard, mtime, seen, settled in rows}

    def names(self, archive: str, shard: str) -> dict[str, list[int]]:
        """The files of a shard when it was read, with what was noted of each."""
        with _errors():
            query = "SELECT names FROM shards WHERE archive = ? AND shard = ?"
            found = self._sql.execute(query, (archive, shard)).fetchone()
        noted: dict[str, list[int]] = _json(found[0]) if found else {}
        _expect([noted], dict)
        _expect(noted.values(), list)
        return noted

    def live(self) -> list[str]:
        """The keys whose rows say nothing lasting."""
        with _errors():
            keys = [key for (key,) in self._sql.execute("SELECT key FROM runs WHERE is_live")]
        _expect(keys, str)
        if not all(map(layout.is_key, keys)):
            raise Broken("there are rows of no run")
        return keys

    def put(
        self, rows: Iterable[tuple[Indexed, bool]], gone: Iterable[str],
        shards: Mapping[tuple[str, str], tuple[Seen, dict[str, Any]] | None],
    ) -> None:
        """Keep ``rows`` (each with whether it is live) and shards, and forget ``gone``, all or nothing."""
        with _errors(), _Transaction(self._sql):
            if self._read_state() != self.state:
                self.state = ""  # somebody else has written since: whose rows are the newer ones is not known
            self._change_state()
            self._numbers = self._read_fields()
            self._sql.executemany("DELETE FROM runs WHERE key = ?", ((key,) for key in gone))
            self._put_rows(rows)
            for (archive, shard), read in shards.items():
                self._sql.execute("DELETE FROM shards WHERE archive = ? AND shard = ?", (archive, shard))
                if read is not None:
                    values = (archive, shard, *read[0], json.dumps(read[1], separators=(",", ":")))
                    self._sql.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)", values)

    def columns(self) -> Columns | None:
        """Every row, by key; None where another process has changed one since ``begin``."""
        with _errors(), _Transaction(self._sql, "DEFERRED"):
            fields = self._read_fields()
            if self._read_state() != self.state:
                return None
            selected = self._sql.execute("SELECT * FROM runs ORDER BY key")
            names = [column[0] for column in selected.description]
            if names != [*_OWN, *(f"c{number}" for number in range(len(fields)))]:
                raise Broken("its columns are not those of its fields")
            gathered = _gathered(selected, len(names))
        for column, kinds in zip(gathered, _KINDS, strict=False):
            if not column.kinds <= kinds:
                raise Broken("it holds values of another type")
        own = {name: Cells(each.values, frozenset(each.kinds)) for name, each in zip(_OWN, gathered, strict=False)}
        own["done"] = Cells.of(map(bool, own["done"].values))
        own["damage"] = Cells.of(map(_texts, own["damage"].values))
        found: dict[str, dict[str, Cells]] = {"config": {}, "preview": {}}
        for (side, path), number in sorted(fields.items(), key=lambda item: item[1]):
            found[side][path] = gathered[len(_OWN) + number].cells()
        if str in own["more"].kinds:
            _spread(own["more"].values, found)
        return Columns({name: own[name] for name in OWN}, **found)

    def _open(self) -> None:
        with _errors():
            # A cache: what a crash loses or spoils is made again, so nothing waits for the disk. No WAL: the cache
            # directory may be a home on NFS.
            self._sql.execute("PRAGMA synchronous = OFF")
            version = self._sql.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                self.clear({})
            self._numbers = self._read_fields()

    def _read_fields(self) -> dict[tuple[str, str], int]:
        found = self._sql.execute("SELECT side, path, number FROM fields")
        numbers = {(side, path): number for side, path, number in found}
        if not all(side in ("config", "preview") and type(path) is str for side, path in numbers):
            raise Broken("there are fields of neither side")
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise Broken("there are fields without a column")
        self._numbers = numbers
        return numbers

    def _read_state(self) -> str:
        found = self._sql.execute("SELECT value FROM meta WHERE name = 'state'").fetchone()
        return str(found[0]) if found else ""

    def _change_state(self) -> None:
        """Say that the rows have changed; they are still known to this object if they were before."""
        state = secrets.token_hex(8)
        self._sql.execute("INSERT OR REPLACE INTO meta VALUES ('state', ?)", (state,))
        self.state = state if self.state else ""

    def _put_rows(self, rows: Iterable[tuple[Indexed, bool]]) -> None:
        alike: dict[Any, list[tuple[Indexed, bool]]] = {}
        for row, is_live in rows:
            alike.setdefault((tuple(row.config), tuple(row.preview)), []).append((row, is_live))
        for paths, found in alike.items():
            sides = zip(("config", "preview"), paths, strict=True)
            numbers = {(side, path): self._number(side, path) for side, named in sides for path in named}
            kept = [number for number in numbers.values() if number is not None]
            columns = ", ".join((*_OWN, *(f"c{number}" for number in kept)))
            marks = ", ".join("?" * (len(_OWN) + len(kept)))
            values = (_values(row, is_live, numbers, len(kept)) for row, is_live in found)
            self._sql.executemany(f"INSERT OR REPLACE INTO runs ({columns}) VALUES ({marks})", values)

    def _number(self, side: str, path: str) -> int | None:
        """The column of a field, made for a new one; None beyond the last."""
        number = self._numbers.get((side, path))
        if number is None and len(self._numbers) < MOST_COLUMNS and _is_text(path):
            number = len(self._numbers)
            self._sql.execute("INSERT INTO fields VALUES (?, ?, ?)", (number, side, path))
            # Without a type: whatever a run has in it comes back as it was.
            self._sql.execute(f"ALTER TABLE runs ADD COLUMN c{number}")
            self._numbers[side, path] = number
        return number


def _values(row: Indexed, is_live: bool, numbers: dict[tuple[str, str], int | None], kept: int) -> list[Any]:
    """The cells of ``row``, in the order of ``numbers``; fields without one as JSON."""
    fields: Iterable[Any] = (*row.config.values(), *row.preview.values())
    more: dict[str, dict[str, Any]] = {}
    if kept < len(numbers):
        for ((side, path), number), value in zip(numbers.items(), fields, strict=True):
            if number is None:
                more.setdefault(side, {})[path] = value
        fields = (v for v, number in zip(fields, numbers.values(), strict=True) if number is not None)
    damage = json.dumps(row.damage) if row.damage else None
    own = (*row[: len(OWN) - 1], damage, is_live, json.dumps(more) if more else None)
    return [*own, *map(_encoded, fields)]


class _Transaction:
    """All or nothing; the caller's own exception passes."""

    def __init__(self, sql: sqlite3.Connection, kind: str = "IMMEDIATE") -> None:
        self._sql = sql
        self._kind = kind

    def __enter__(self) -> None:
        self._sql.execute(f"BEGIN {self._kind}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._sql.execute("COMMIT")
        elif self._sql.in_transaction:
            self._sql.execute("ROLLBACK")


class _errors:  # noqa: N801  # reads as the verb that it is
    """Tell a broken file from one that cannot be used at the moment."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            raise (Unavailable if code in _ENVIRONMENT else Broken)(str(error)) from error


class _Gathered:
    """A column while its rows come in."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.kinds: set[type] = set()
        self._texts: dict[Any, Any] = {}

    def add(self, values: tuple[Any, ...]) -> None:
        kinds = set(map(type, values))
        self.kinds |= kinds
        # Of texts alone: as keys of a dict, 1 and 1.0 are one.
        is_text = str in kinds and kinds <= {str, _NONE} and len(self._texts) < _MOST_TEXTS
        self.values.extend(map(self._texts.setdefault, values, values) if is_text else values)

    def cells(self) -> Cells:
        """The values that were put."""
        if not self.kinds & {bytes, _NONE}:
            return Cells(self.values, frozenset(self.kinds))
        return Cells.of(
            _from_blob(value) if type(value) is bytes else LACKS if value is None else value for value in self.values
        )


def _gathered(rows: sqlite3.Cursor, count: int) -> list[_Gathered]:
    gathered = [_Gathered() for _ in range(count)]
    while chunk := rows.fetchmany(_CHUNK):
        for column, values in zip(gathered, zip(*chunk, strict=True), strict=True):
            column.add(values)
    return gathered


def _from_blob(blob: bytes) -> Any:
    return _SINGLE[blob] if blob in _SINGLE else _json(blob)


def _spread(texts: Iterable[str | None], found: dict[str, dict[str, Cells]]) -> None:
    """Add the fields that have no column of their own."""
    mores = [None if text is None else _json(text) for text in texts]
    columns: dict[tuple[str, str], list[Any]] = {}
    for place, more in enumerate(mores):
        if more is None:
            continue
        _expect([more, *more.values()] if isinstance(more, dict) else [more], dict)
        for side, has in found.items():
            for path, value in more.get(side, {}).items():
                if (side, path) not in columns:
                    cells = has.get(path)
                    columns[side, path] = [LACKS] * len(mores) if cells is None else list(cells.values)
                columns[side, path][place] = value
    for (side, path), values in columns.items():
        found[side][path] = Cells.of(values)


def _texts(damage: str | None) -> tuple[str, ...]:
    if damage is None:
        return ()
    texts = _json(damage)
    _expect([texts], list)
    return tuple(texts)


def _expect(values: Iterable[Any], *kinds: type) -> None:
    """What SQLite hands over has no checksum; that it is of the right type is the least."""
    if not set(map(type, values)) <= set(kinds):
        raise Broken("it holds values of another type")


def _encoded(value: Any) -> Any:
    kind = type(value)
    if kind is float and math.isfinite(value):
        return value
    is_native = (kind is int and -(1 << 63) <= value < 1 << 63) or (kind is str and _is_text(value))
    return value if is_native else json.dumps(value, separators=(",", ":")).encode("ascii")


def _is_text(value: str) -> bool:
    """Whether ``value`` has no lone surrogates, which no database takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise Broken(str(error)) from error
