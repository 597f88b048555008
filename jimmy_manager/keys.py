"""The name of a run, from the content of its configuration.

A configuration is encoded so that every value says what it is and how long it is; the key is the start of the SHA-256
of that. Two values have one encoding exactly when they are one value: ``1`` and ``1.0`` are, ``1`` and ``True`` are
not, the order of keys never matters, and integers are exact at any size. The encoding is an interface: it never
changes, and ``tests/golden/keys.json`` pins it::

    None n    True t    False f    1 i1;    -255 i-ff;    0.5 d0x1.0000000000000p-1;    "ab" s2:ab
    [True, None] l2:tn    {"k": 1} m1:1:ki1;

Integers, and floats without a fraction, are hexadecimal; lengths of text count code points; the keys of a mapping are
sorted by code point and stand before their values.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from jimmy_manager.errors import ConfigError
from jimmy_manager.values import MAX_DEPTH, MAX_INT_BITS, join_path, normalize

DIGEST_LEN = 64


def canonical(value: object) -> bytes:
    """Return the one encoding of ``value``, in whatever allowed spelling it comes; ConfigError if it has none.

    >>> canonical({'size': (3, 4.0), 'act': 'relu'})
    b'm2:3:acts4:relu4:sizel2:i3;i4;'
    >>> canonical(1) == canonical(1.0) != canonical(True)
    True
    """
    # Most configurations are plain already; walking them twice would double the cost of a key.
    try:
        return _encode(value, 0).encode("utf-8")
    except (_NotPlain, UnicodeEncodeError):
        return _encode(normalize(value), 0).encode("utf-8")


def digest(config: object) -> str:
    """Return the 64 hex digits that name ``config`` on every machine.

    Not promised: equal digests for characters that Unicode assigns later than the older of two Python versions knows.

    >>> digest({'lr': 0.1, 'seed': 1})[:8] == digest({'seed': 1.0, 'lr': 0.1})[:8]
    True
    """
    return hashlib.sha256(canonical(config)).hexdigest()


def lengths(key_len: int) -> tuple[int, ...]:
    """Return the lengths a key may have, shortest first: each collision of the one before makes it four digits longer.

    >>> lengths(8)[:3], lengths(8)[-1]
    ((8, 12, 16), 64)
    """
    if not isinstance(key_len, int) or not 1 <= key_len <= DIGEST_LEN:
        raise ConfigError(f"key_len {key_len!r} is not an integer from 1 to {DIGEST_LEN}")
    return (*range(key_len, DIGEST_LEN, 4), DIGEST_LEN)


class Difference(NamedTuple):
    """One reason why two keys differ; ``kind`` is 'only first', 'only second', 'type' or 'value'."""

    field: str
    kind: str
    first: object
    second: object

    def __str__(self) -> str:
        field = self.field or "the whole configuration"
        if self.kind == "only first":
            return f"{field}: only the first has it, {self.first!r}"
        if self.kind == "only second":
            return f"{field}: only the second has it, {self.second!r}"
        if self.kind == "type":
            return f"{field}: {_kind(self.first)} {self.first!r} is not {_kind(self.second)} {self.second!r}"
        return f"{field}: {self.first!r} is not {self.second!r}"


def explain(first: object, second: object) -> list[Difference]:
    r"""Return why the keys of two configurations differ, field by field; empty exactly when they are one.

    >>> print(*explain({'lr': 0.1, 'amp': True, 'seed': 1}, {'lr': 0.2, 'amp': 1, 'seed': 1.0}), sep='\n')
    amp: bool True is not number 1
    lr: 0.1 is not 0.2
    """
    return list(_differences(normalize(first), normalize(second), ""))


class _NotPlain(Exception):
    """The value needs ``normalize`` first, which also knows what to say where it cannot be allowed."""


def _encode(value: object, depth: int) -> str:
    kind = type(value)
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    if kind is int or kind is float:
        return _number(value)  # type: ignore[arg-type]
    if value is None:
        return "n"
    if value is True:
        return "t"
    if value is False:
        return "f"
    if depth >= MAX_DEPTH:
        raise _NotPlain
    if isinstance(value, dict):
        try:
            items = sorted(value.items())
        except TypeError:  # keys that are not all strings
            raise _NotPlain from None
        parts = [f"m{len(items)}:"]
        for key, item in items:
            if type(key) is not str:
                raise _NotPlain
            parts.append(_text(key)[1:])
            parts.append(_encode(item, depth + 1))
        return "".join(parts)
    if isinstance(value, list | tuple):
        return f"l{len(value)}:" + "".join([_encode(item, depth + 1) for item in value])
    raise _NotPlain


def _text(text: str) -> str:
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        raise _NotPlain
    return f"s{len(text)}:{text}"


def _number(number: int | float) -> str:
    if isinstance(number, float):
        if not number.is_integer():
            if not math.isfinite(number):
                raise _NotPlain
            return f"d{number.hex()};"
        number = int(number)
    if number.bit_length() > MAX_INT_BITS:
        raise _NotPlain
    return f"i{number:x};"


def _differences(first: object, second: object, path: str) -> Iterable[Difference]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            below = join_path(path, key)
            if key not in second:
                yield Difference(below, "only first", first[key], None)
            elif key not in first:
                yield Difference(below, "only second", None, second[key])
            else:
                yield from _differences(first[key], second[key], below)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (left, right) in enumerate(zip(first, second, strict=True)):
            yield from _differences(left, right, join_path(path, index))
    elif _kind(first) != _kind(second):
        yield Difference(path, "type", first, second)
    elif isinstance(first, list) or first != second:
        yield Difference(path, "value", first, second)


def _kind(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return {"NoneType": "none", "str": "text", "dict": "mapping"}.get(type(value).__name__, type(value).__name__)
