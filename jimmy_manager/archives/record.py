"""Small records: one line of JSON that carries a digest of itself.

::

    {"jimmy":"stats","version":1,"data":{...},"sha256":"<SHA-256 of all bytes before the comma>"}

The digest covers the bytes, not the parsed values, so that one changed bit anywhere in the file, white
space and digest included, is noticed (of single-bit flips in plain JSON a third parse to wrong values).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from jimmy_manager.errors import DamagedRecord, StoreTooNew

VERSION = 1

_SEPARATOR = b',"sha256":"'
_END = b'"}\n'
_TAIL = len(_SEPARATOR) + 64 + len(_END)
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def seal(kind: str, data: dict[str, Any]) -> bytes:
    """The bytes of a record of ``kind``; ``data`` holds JSON values only.

    >>> seal("claim", {"g": 1})[:45]
    b'{"jimmy":"claim","version":1,"data":{"g":1},"'
    """
    body = f'{{"jimmy":"{kind}","version":{VERSION},"data":{_encode(data)}'.encode("ascii")
    return body + _SEPARATOR + hashlib.sha256(body).hexdigest().encode("ascii") + _END


def unseal(kind: str, raw: bytes, name: str) -> dict[str, Any]:
    """The data of a record of ``kind`` read from the file ``name``.

    Raises ``DamagedRecord`` where a byte differs from what was written, and ``StoreTooNew`` for a
    whole record of a later version.
    """
    body, tail = raw[:-_TAIL], raw[-_TAIL:]
    if tail != _SEPARATOR + hashlib.sha256(body).hexdigest().encode("ascii") + _END:
        raise DamagedRecord(f"damaged record {name}: {_describe(raw)}; run 'jimmy check' to see what it affects")
    try:
        record = json.loads(body.decode() + "}")
        version, found = record["version"], record["jimmy"]
        if version > VERSION:
            raise StoreTooNew(f"{name} has record version {version}, this package reads up to {VERSION}; upgrade it")
        data: dict[str, Any] = record["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # sealed, but by something else than ``seal``
        raise DamagedRecord(f"damaged record {name}: it is no record of this package: {error!r}") from error
    if found != kind:
        raise DamagedRecord(f"damaged record {name}: it holds a record of kind {found!r}, not {kind!r}")
    return data


def digest_of(value: Any) -> str:
    """A digest of JSON values, independent of where they are stored."""
    return hashlib.sha256(_encode(value).encode("ascii")).hexdigest()


def _describe(raw: bytes) -> str:
    if not raw:
        return "the file is empty"
    if not raw.endswith(_END):
        return f"its {len(raw)} bytes end in the middle"
    return "its content does not match its digest"
