"""``store.yaml``: what is true of a whole store. Created once, exclusively; edited under a lock, by replacement.

A comment in its last line digests the lines above it, so that a changed bit is noticed before it changes the
meaning of every key in the store.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from jimmy_manager import yaml12
from jimmy_manager.archives import layout
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Files, store_error, unreadable
from jimmy_manager.errors import DamagedRecord, StoreError, StoreTooNew
from jimmy_manager.schema import Ledger

FORMAT = 1
_DIGEST = "# sha256 "
_HEAD = "# Written by jimmy_manager; change it with 'jimmy schema' and other commands, not by hand.\n"
_LOCK_TIMEOUT_S = 30.0


class StoreFile(NamedTuple):
    """The content of ``store.yaml``.

    ``manager`` and ``fields`` are empty until the first run is trained; ``fields`` are the dotted paths that
    the defaults had then. ``stale_s`` is None until a doctor has measured it; ``doctor`` tells of that examination,
    and its entry ``refused``, where there is one, why nobody may write here. ``shared`` is ``group`` or empty.
    """

    id: str
    key_len: int = 8
    manager: str = ""
    fields: tuple[str, ...] = ()
    ledger: Ledger = Ledger()
    stale_s: float | None = None
    lease_s: float | None = None
    shared: str = ""
    doctor: Mapping[str, Any] | None = None

    @property
    def refused(self) -> str:
        """Why the doctor forbids every write; empty where it does not."""
        return str((self.doctor or {}).get("refused", ""))

    def dump(self) -> bytes:
        """The bytes of the file."""
        data: dict[str, Any] = {"format": FORMAT, "id": self.id, "key_len": self.key_len}
        if self.shared:
            data["shared"] = self.shared
        if self.manager:
            data |= {"manager": self.manager, "fields": list(self.fields)}
        if len(self.ledger):
            data["schema"] = self.ledger.to_list()
        data |= {name: value for name in ("stale_s", "lease_s") if (value := getattr(self, name)) is not None}
        if self.doctor is not None:
            data["doctor"] = dict(self.doctor)
        return sign(_HEAD + yaml12.dump(data))

    @classmethod
    def load(cls, raw: bytes) -> StoreFile:
        """The content of the bytes; errors name ``store.yaml`` and say what is wrong."""
        name = layout.STORE_FILE
        text, _, tail = raw.decode("utf-8", "replace").rpartition(_DIGEST)
        if tail.strip() != hashlib.sha256(text.encode()).hexdigest() or raw != sign(text):
            raise DamagedRecord(
                f"damaged {name}: its content does not match the digest in its last line; restore it, or, "
                "if it was edited by hand on purpose, accept it with 'jimmy check --fix'"
            )
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> StoreFile:
        """The content of the YAML ``text``, digest or not."""
        try:
            data = yaml12.loads(text, layout.STORE_FILE)
            if data["format"] > FORMAT:
                raise StoreTooNew(
                    f"{layout.STORE_FILE} has format {data['format']}, this package reads up to {FORMAT}; upgrade it"
                )
            return cls(
                id=str(data["id"]), key_len=int(data["key_len"]), manager=data.get("manager", ""),
                fields=tuple(data.get("fields", ())), ledger=Ledger(data.get("schema", [])),
                stale_s=data.get("stale_s"), lease_s=data.get("lease_s"),
                shared=checked_shared(data.get("shared", "")), doctor=_mapping(data.get("doctor")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedRecord(f"damaged {layout.STORE_FILE}: {error}") from error


def checked_shared(shared: str) -> str:
    """``shared`` where it is ``group`` or empty, else ``ValueError``."""
    if shared not in ("", "group"):
        raise ValueError(f"shared is {shared!r}, it must be 'group' or empty")
    return shared


def _mapping(found: Any) -> dict[str, Any] | None:
    if found is not None and not isinstance(found, dict):
        raise TypeError(f"doctor is {found!r}, it must be a mapping")
    return found


def sign(text: str) -> bytes:
    """``text`` with the line that digests it."""
    return f"{text}{_DIGEST}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def read_raw(files: Files) -> bytes | None:
    """The bytes of ``store.yaml``; None where there is none."""
    try:
        return files.read(layout.STORE_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(str(error.filename or layout.STORE_FILE), error) from error


def read(files: Files) -> StoreFile | None:
    """The content of ``store.yaml``; None where there is none."""
    raw = read_raw(files)
    return None if raw is None else StoreFile.load(raw)


def create(files: Files, key_len: int, change: Callable[[StoreFile], StoreFile] | None = None) -> StoreFile:
    """Create ``store.yaml`` unless it is there, and return what stands in it; ``change`` applies to a new one."""
    if not 4 <= key_len <= 64:
        raise StoreError(f"key_len is {key_len}, it must be from 4 to 64")
    fresh = StoreFile(id=secrets.token_hex(8), key_len=key_len)
    fresh = change(fresh) if change else fresh
    if fresh.shared and isinstance(files, Disk):
        files.share_root()
    if files.create(layout.STORE_FILE, fresh.dump()):
        return fresh
    existing = read(files)
    if existing is None:
        raise StoreError(f"cannot read {layout.STORE_FILE}: its name is taken, but it is not visible; try again")
    return existing


def edit(files: Files, change: Callable[[StoreFile], StoreFile]) -> StoreFile:
    """Apply ``change`` to ``store.yaml`` and return the new content.

    The lock only serialises people's edits; where it does not hold (sshfs), the later edit wins.
    """
    with _lock(files):
        current = read(files)
        if current is None:
            raise StoreError(f"there is no {layout.STORE_FILE} to edit")
        changed = change(current)
        if changed != current:
            files.replace(layout.STORE_FILE, changed.dump())
        return changed


@contextmanager
def _lock(files: Files) -> Iterator[None]:
    if not isinstance(files, Disk):
        yield
        return
    import filelock

    lock = files.lock(f".{layout.STORE_FILE}.lock", _LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise StoreError(f"another process has been editing {layout.STORE_FILE} for {_LOCK_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise store_error("lock", lock.lock_file, error) from error
    try:
        yield
    finally:
        lock.release()
