"""Records read with every doubt: also those that carry a right digest, but were sealed by something else.

A tar from anywhere and the audit read through here; workers need not, as they trust who may write their store.
"""

from __future__ import annotations

from typing import Any

from jimmy_manager import keys
from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.files import Files, unreadable
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.record import unseal
from jimmy_manager.errors import ConfigError, DamagedRecord

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What taking a record apart raises that does not hold what its kind promises."""


def read_config(files: Files, key: str) -> tuple[str, dict[str, Any]]:
    """Digest and stored form of a configuration, hashed anew; errors say what is wrong with its record."""
    name = layout.config(key)
    return unseal_config(read(files, name), name, key)


def unseal_config(raw: bytes, name: str, key: str) -> tuple[str, dict[str, Any]]:
    """Digest and stored form of the configuration ``raw``, hashed anew."""
    data = unseal("config", raw, name)
    try:
        digest, stored = str(data["digest"]), dict(data["config"])
        found = keys.digest(stored)
    except (*MALFORMED, ConfigError) as error:
        raise DamagedRecord(f"damaged record {name}: it holds no configuration: {error!r}") from error
    if found != digest:
        raise DamagedRecord(f"damaged record {name}: its configuration hashes to {found[:16]}..., not {digest[:16]}...")
    if not digest.startswith(key):
        raise DamagedRecord(f"damaged record {name}: it holds the configuration of key {digest[: len(key)]}")
    return digest, stored


def read_stats(files: Files, key: str, generation: int) -> Stats:
    """One stats record; whatever it holds instead is ``DamagedRecord``."""
    name = layout.stats(key, generation)
    return unseal_stats(read(files, name), name)


def unseal_stats(raw: bytes, name: str) -> Stats:
    """``Stats.unseal``, also of what was sealed by something else."""
    try:
        return Stats.unseal(raw, name)
    except DamagedRecord:
        raise
    except MALFORMED as error:
        raise DamagedRecord(f"damaged record {name}: it is no stats record: {error!r}") from error


def read_claim(files: Files, key: str, generation: int) -> ClaimRecord:
    """One claim; whatever it holds instead is ``DamagedRecord``."""
    name = layout.claim(key, generation)
    raw = read(files, name)
    try:
        return ClaimRecord.unseal(raw, name)
    except DamagedRecord:
        raise
    except MALFORMED as error:
        raise DamagedRecord(f"damaged record {name}: it is no claim: {error!r}") from error


def read(files: Files, name: str) -> bytes:
    """The content of ``name``; a file that is not there is ``DamagedRecord`` here, as something named or listed it."""
    try:
        return files.read(name)
    except FileNotFoundError:
        raise DamagedRecord(f"missing file {name}: it was listed, but it is not there") from None
    except OSError as error:
        raise unreadable(name, error) from error
