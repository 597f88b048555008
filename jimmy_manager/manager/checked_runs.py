"""Runs that somebody says are an export: believed only after every member was looked at.

Each has a name that the layout knows, the size and the digest that the records in the tar give it, and values of
the right types. The first that has not is refused by name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, Protocol

from jimmy_manager import keys as naming
from jimmy_manager.archives import code, layout, previews, strict
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.record import unseal
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import DamagedRecord, StoreTooNew
from jimmy_manager.manager.tarball import content, members

_MOST_SMALL = 1 << 22
_PNG = b"\x89PNG\r\n\x1a\n"


class Source(Protocol):
    """Where runs come from: members by name, as in a tar that ``export_tar`` wrote.

    ``left`` is None where one bad member is reason to refuse everything; else it takes why runs were left. Where the
    source ``is_verified`` it has compared contents with their digests itself.
    """

    path: str
    sizes: dict[str, int]
    is_verified: bool

    @property
    def left(self) -> dict[str, str] | None: ...

    def parts(self, name: str) -> Iterator[bytes]:
        """The content of a member in parts."""


class TarSource:
    """The members of a tar."""

    left: dict[str, str] | None = None
    is_verified = False

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.path = path
        self._file = file
        self._members = members(file, path)
        self.sizes = {name: member.size for name, member in self._members.items()}

    def parts(self, name: str) -> Iterator[bytes]:
        return content(self._file, self._members[name], self.path)


class Parcel(NamedTuple):
    """One run in a source: its configuration as it was stored, and its one commit."""

    key: str
    stored: dict[str, Any]
    stats: Stats

    @property
    def commit(self) -> Commit:
        return self.stats.commits[-1]


class CheckedRuns:
    """A source of which every member has been checked."""

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.left: dict[str, str] = source.left if source.left is not None else {}
        self._source = source
        self._sizes = source.sizes
        self._code: dict[tuple[str | None, str | None], tuple[str, ...]] = {}
        self.info = self._store_file()
        self.parcels = list(self._parcels())

    @property
    def leaves_damaged(self) -> bool:
        """Whether a run that cannot be had is left by name, and the others are taken."""
        return self._source.left is not None

    def has(self, name: str) -> bool:
        """Whether there is a member ``name``."""
        return name in self._sizes

    def small(self, name: str, most: int = _MOST_SMALL) -> bytes:
        """The content of a member of at most ``most`` bytes."""
        if self._sizes[name] > most:
            raise self._refusal(name, f"has {self._sizes[name]} bytes, more than any record of its kind")
        return b"".join(self._source.parts(name))

    def read(self, name: str) -> bytes:
        """The content of a small member; ``FileNotFoundError`` where there is none."""
        if not self.has(name):
            raise FileNotFoundError(name)
        return self.small(name)

    def code_of(self, run: Mapping[str, Any]) -> tuple[str, ...]:
        """The digests of all code that ``run`` needs, verified when this is first asked of equal code."""
        tops = (code.tree_of(run), code.diff_of(run))
        if tops not in self._code:
            found = tuple(code.needed(self, run))
            for digest in found:
                code.read(self, digest)
            self._code[tops] = found
        return self._code[tops]

    def stream(self, name: str, expected: Content) -> Callable[[BinaryIO], None]:
        """What copies a member, and fails before its last byte counts where that is not what its stats say."""

        def fill(target: BinaryIO) -> None:
            self._verify(name, expected, target)

        return fill

    def exact(self, name: str, expected: Content) -> bytes:
        """The content of a small member, verified once more: it may have changed since it was checked."""
        raw = self.small(name, expected.size)
        if Content.of(raw) != expected:
            raise self._refusal(name, "has changed since it was checked")
        return raw

    def _store_file(self) -> StoreFile:
        name = layout.STORE_FILE
        if not self.has(name):
            raise DamagedRecord(f"{self.path}: there is no {name} in it; only what export_tar wrote can be loaded")
        try:
            info = StoreFile.load(self.small(name))
        except StoreTooNew as error:
            raise StoreTooNew(f"{self.path}: {error}") from error
        except DamagedRecord as error:
            raise self._refusal(name, f"is damaged: {error}") from error
        texts = (info.manager, *info.fields)
        if not all(isinstance(text, str) and text.isprintable() for text in texts) or not 4 <= info.key_len <= 64:
            raise self._refusal(name, "holds values that no store has")
        return info

    def _parcels(self) -> Iterator[Parcel]:
        named: dict[str, dict[str, str]] = {}
        unnamed: dict[str, str] = {}
        for name in self._sizes:
            archive, _, rest = name.partition("/")
            shard, _, last = rest.partition("/")
            if archive == layout.CODE and layout.is_digest(last) and last[:2] == shard:
                unnamed[last] = name
                continue
            parsed = layout.parse(archive, last) if archive in layout.ARCHIVES else None
            if name == layout.STORE_FILE:
                continue
            if parsed is None or parsed.key[:2] != shard or archive == "claims":
                raise self._refusal(name, "is no file that export_tar writes")
            of_run = named.setdefault(parsed.key, {})
            if archive in ("configs", "stats") and of_run.setdefault(archive, name) != name:
                raise self._refusal(name, f"is a second record of the run in {of_run[archive]}")
            if archive in ("ckpts", "previews"):
                of_run[name] = archive
        for key, names in sorted(named.items()):
            try:
                parcel = self._checked(key, names)
            except DamagedRecord as error:
                if self._source.left is None:
                    raise
                self.left[key] = str(error)
                continue
            for digest in self.code_of(parcel.stats.run):
                unnamed.pop(digest, None)
            yield parcel
        if unnamed and self._source.left is None:
            raise self._refusal(next(iter(unnamed.values())), "is named by no run")

    def _checked(self, key: str, names: dict[str, str]) -> Parcel:
        for archive in ("configs", "stats"):
            if archive not in names:
                raise DamagedRecord(f"{self.path}: run {key} has no record under {archive}/ in it")
        config, records = names.pop("configs"), names.pop("stats")
        stored = self._read(config, lambda raw: strict.unseal_config(raw, config, key))[1]
        stats = self._read(records, lambda raw: _checked_stats(strict.unseal_stats(raw, records)))
        expected = stats.commits[-1].contents()
        for name in sorted(names):
            if name not in expected:
                raise self._refusal(name, f"is not named by {records}")
        for name, wanted in expected.items():
            if self.has(name):
                self._check_content(name, wanted, key)
            elif not name.startswith("ckpts/"):
                raise DamagedRecord(f"{self.path}: {name} is not in it, although {records} names it")
        return Parcel(key, stored, stats._replace(run=self._checked_code(stats.run, records)))

    def _checked_code(self, run: Mapping[str, Any], records: str) -> dict[str, Any]:
        """``run``, whose code is here and whole; without it where none of it is here, as it was damaged there."""
        tops = [layout.code(digest) for digest in (code.tree_of(run), code.diff_of(run)) if digest]
        if not any(self.has(name) for name in tops):
            return code.without_code(run)
        try:
            self.code_of(run)
        except StoreTooNew as error:
            raise StoreTooNew(f"{self.path}: {error}") from error
        except DamagedRecord as error:
            raise DamagedRecord(f"{self.path}: the code that {records} names: {error}") from error
        return dict(run)

    def _read(self, name: str, use: Callable[[bytes], Any]) -> Any:
        try:
            return use(self.small(name))
        except StoreTooNew as error:
            raise StoreTooNew(f"{self.path}: {error}") from error
        except DamagedRecord as error:
            raise DamagedRecord(f"{self.path}: {error}") from error

    def _check_content(self, name: str, expected: Content, key: str) -> None:
        if self._sizes[name] != expected.size:
            raise self._refusal(name, f"has {self._sizes[name]} bytes, its stats say {expected.size}")
        if not self._source.is_verified:
            self._verify(name, expected)
        if name.endswith(".png") and not self.small(name, expected.size).startswith(_PNG):
            raise self._refusal(name, "is no PNG file")
        if name.startswith("previews/") and name.endswith(".json"):
            self._check_preview(name, key)

    def _check_preview(self, name: str, key: str) -> None:
        raw = self.small(name, previews.MOST_BYTES)
        try:
            previews.load(raw, name)
            if unseal("preview", raw, name)["key"] != key:
                raise self._refusal(name, "was written for another run")
        except (DamagedRecord, StoreTooNew) as error:
            raise self._refusal(name, f"cannot be used: {error}") from error
        except (*strict.MALFORMED, RecursionError) as error:
            raise self._refusal(name, f"is no preview: {error!r}") from error

    def _verify(self, name: str, expected: Content, target: BinaryIO | None = None) -> None:
        state = hashlib.sha256()
        for part in self._source.parts(name):
            state.update(part)
            if target is not None:
                target.write(part)
        if state.hexdigest() != expected.sha256:
            raise self._refusal(name, "is not what its stats say: its digest differs")

    def _refusal(self, name: str, reason: str) -> DamagedRecord:
        return DamagedRecord(f"{self.path}: member {name!r} {reason}")


def _checked_stats(stats: Stats) -> Stats:
    """``stats``, where every value is of its type; they will be read by everybody who lists the store."""
    commits = stats.commits
    numbers = [n for c in commits for n in (c.at, c.train_s, c.eval_s)]
    counts = [n for c in commits for n in (c.number, c.epoch, c.step, *(one.size for one in c.contents().values()))]
    digests = [one.sha256 for c in commits for one in c.contents().values()]
    is_right = (
        len(commits) == 1 and isinstance(stats.run, dict) and isinstance(stats.done, bool)
        and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
        and all(type(n) is int and n >= 0 for n in counts)
        and all(isinstance(d, str) and len(d) == naming.DIGEST_LEN for d in digests)
    )
    if not is_right:
        raise DamagedRecord(f"{stats.name} holds values that no export has")
    return stats
