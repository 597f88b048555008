from __future__ import annotations

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.archives import record
from jimmy_manager.errors import DamagedRecord, StoreTooNew

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
)
DATA = {"epoch": 3, "loss": 0.25, "name": 'a "quoted" ä', "files": [["x", 12]], "none": None}


def sealed(body: str) -> bytes:
    """A record whose digest is right, whatever it holds."""
    text = body.encode()
    return text + b',"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_sealed_comes_back(data: dict[str, object]) -> None:
    raw = record.seal("stats", data)
    assert record.unseal("stats", raw, "x.json") == data
    assert json.loads(raw)["data"] == data, "any tool reads a record as plain JSON"


def test_a_record_is_one_line_of_ascii() -> None:
    raw = record.seal("stats", DATA)
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")


def test_the_format_is_pinned() -> None:
    assert record.seal("claim", {"g": 1}) == (
        b'{"jimmy":"claim","version":1,"data":{"g":1},'
        b'"sha256":"db4039210e684b81de1c4dd5de8773f67c49a1586f96e8a200845db657a201ca"}\n'
    )


def test_every_flipped_bit_and_every_truncation_is_noticed() -> None:
    raw = record.seal("stats", DATA)
    for index in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[index] ^= 1 << bit
            with pytest.raises(DamagedRecord, match=r"stats/ab/x\.json"):
                record.unseal("stats", bytes(changed), "stats/ab/x.json")
        with pytest.raises(DamagedRecord, match=r"stats/ab/x\.json"):
            record.unseal("stats", raw[:index], "stats/ab/x.json")


def test_without_the_digest_flipped_bits_would_be_read() -> None:
    """The check above has something to find: plain JSON of the same data takes many flips for other values."""
    plain = json.dumps(DATA).encode()
    random_bits, read = random.Random(0), 0
    for _ in range(1_000):
        changed = bytearray(plain)
        changed[random_bits.randrange(len(plain))] ^= 1 << random_bits.randrange(8)
        try:
            read += json.loads(changed) != DATA
        except ValueError:
            continue
    assert read > 100


@pytest.mark.parametrize("extra", [b" ", b"\n", b"\0", b"{}"])
def test_bytes_added_at_an_end_are_noticed(extra: bytes) -> None:
    raw = record.seal("stats", DATA)
    for changed in (raw + extra, extra + raw):
        with pytest.raises(DamagedRecord):
            record.unseal("stats", changed, "x.json")


def test_the_message_tells_the_empty_the_cut_and_the_changed_apart() -> None:
    raw = record.seal("stats", DATA)
    for damaged, reason in ((b"", "empty"), (raw[:-9], "end in the middle"), (raw.replace(b"0.25", b"0.75"), "digest")):
        with pytest.raises(DamagedRecord, match=reason):
            record.unseal("stats", damaged, "x.json")


def test_a_whole_record_of_another_kind_is_refused() -> None:
    with pytest.raises(DamagedRecord, match="kind 'stats', not 'claim'"):
        record.unseal("claim", record.seal("stats", DATA), "x.json")


def test_a_record_of_a_later_version_asks_for_a_later_package() -> None:
    with pytest.raises(StoreTooNew, match=r"x\.json has record version 2"):
        record.unseal("stats", sealed('{"jimmy":"stats","version":2,"data":{}'), "x.json")


@pytest.mark.parametrize(
    "body", ["", "[", '{"jimmy":"stats"', '{"version":1,"data":{}', "[" * 100_000, '{"jimmy":"stats","version":[]']
)
def test_a_sealed_record_of_an_unknown_shape_is_damaged_and_nothing_worse(body: str) -> None:
    with pytest.raises(DamagedRecord, match=r"x\.json"):
        record.unseal("stats", sealed(body), "x.json")


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        record.seal("stats", {"loss": float("nan")})
