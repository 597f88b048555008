"""The SQLite file behind ``index``: rows with one column a field, and what each shard looked like when it was read.

Values keep their types (see ``cells``). Fields beyond ``MOST_COLUMNS`` stand in one JSON column.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jimmy_manager.archives import layout
from jimmy_manager.archives.cells import (
    Broken,
    expect,
    from_json,
    gathered_from,
    is_text,
    spread,
    texts_of,
    values_of,
)  # fmt: skip
from jimmy_manager.archives.columns import OWN, Cells, Columns, Indexed

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
_COLUMNS = (*OWN, "is_live", "more")
_NONE = type(None)
_NUMBER: set[type] = {float, int, _NONE}
_KINDS: tuple[set[type], ...] = (
    {str}, {str}, {int, _NONE}, {int, _NONE}, _NUMBER, _NUMBER, _NUMBER, {int}, {str, _NONE}, {int}, {str, _NONE},
)
_ENVIRONMENT = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH,
}


class Seen(NamedTuple):
    """A shard directory when it was read; ``seen`` is when this ``mtime`` was first met, by this node's clock."""

    mtime: int
    seen: float
    is_settled: bool


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
            expect(column, kind)
        return {(archive, shard): Seen(mtime, seen, bool(settled)) for archive, shard, mtime, seen, settled in rows}

    def names(self, archive: str, shard: str) -> dict[str, list[int]]:
        """The files of a shard when it was read, with what was noted of each."""
        with _errors():
            query = "SELECT names FROM shards WHERE archive = ? AND shard = ?"
            found = self._sql.execute(query, (archive, shard)).fetchone()
        noted: dict[str, list[int]] = from_json(found[0]) if found else {}
        expect([noted], dict)
        expect(noted.values(), list)
        return noted

    def live(self) -> list[str]:
        """The keys whose rows say nothing lasting."""
        with _errors():
            keys = [key for (key,) in self._sql.execute("SELECT key FROM runs WHERE is_live")]
        expect(keys, str)
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
            if names != [*_COLUMNS, *(f"c{number}" for number in range(len(fields)))]:
                raise Broken("its columns are not those of its fields")
            gathered = gathered_from(selected, len(names))
        for column, kinds in zip(gathered, _KINDS, strict=False):
            if not column.kinds <= kinds:
                raise Broken("it holds values of another type")
        own = {name: Cells(each.values, frozenset(each.kinds)) for name, each in zip(_COLUMNS, gathered, strict=False)}
        own["done"] = Cells.of(map(bool, own["done"].values))
        own["damage"] = Cells.of(map(texts_of, own["damage"].values))
        found: dict[str, dict[str, Cells]] = {"config": {}, "preview": {}}
        for (side, path), number in sorted(fields.items(), key=lambda item: item[1]):
            found[side][path] = gathered[len(_COLUMNS) + number].cells()
        if str in own["more"].kinds:
            spread(own["more"].values, found)
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
            columns = ", ".join((*_COLUMNS, *(f"c{number}" for number in kept)))
            marks = ", ".join("?" * (len(_COLUMNS) + len(kept)))
            values = (values_of(row, is_live, numbers, len(kept)) for row, is_live in found)
            self._sql.executemany(f"INSERT OR REPLACE INTO runs ({columns}) VALUES ({marks})", values)

    def _number(self, side: str, path: str) -> int | None:
        """The column of a field, made for a new one; None beyond the last."""
        number = self._numbers.get((side, path))
        if number is None and len(self._numbers) < MOST_COLUMNS and is_text(path):
            number = len(self._numbers)
            self._sql.execute("INSERT INTO fields VALUES (?, ?, ?)", (number, side, path))
            # Without a type: whatever a run has in it comes back as it was.
            self._sql.execute(f"ALTER TABLE runs ADD COLUMN c{number}")
            self._numbers[side, path] = number
        return number


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


