"""Every allowed spelling of a value becomes one plain spelling; everything else is refused with its path."""

from __future__ import annotations

import datetime
import enum
import math
import random
import subprocess
import sys
import types
import unicodedata
from collections import OrderedDict, namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.errors import ConfigError
from jimmy_manager.values import MAX_DEPTH, MAX_INT_BITS, join_path, normalize, normalize_text


class Mode(str, enum.Enum):  # noqa: UP042  # the older spelling, of which there is more
    FAST = "fast"


class Level(enum.IntEnum):
    HIGH = 3


def exactly(value: Any) -> Any:
    """Show a tree with the type of every leaf, so that 1, 1.0 and True differ, and -0.0 and 0.0 too."""
    if isinstance(value, dict):
        return ("dict", [(key, exactly(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [exactly(item) for item in value])
    return (type(value).__name__, repr(value))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
    | st.text(st.characters(codec="utf-8")).map(lambda text: unicodedata.normalize("NFC", text)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5).map(lambda text: unicodedata.normalize("NFC", text)), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_plain_values_stay_as_they_are(value: Any) -> None:
    assert exactly(normalize(value)) == exactly(value)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (namedtuple("Size", "h w")(3, 4), [3, 4]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (-0.0, 0.0),
        (1.0, 1.0),
        (1, 1),
        (True, True),
        ("e\u0301", "\u00e9"),
        ({"e\u0301": 1}, {"\u00e9": 1}),
        (Mode.FAST, "fast"),
        (Level.HIGH, 3),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.1),
        (np.float16(0.1), 0.1),
        (np.float32(-0.0), 0.0),
        (np.longdouble("0.1"), 0.1),
        (np.float32(1e-45), 1e-45),
        (np.finfo(np.float32).max, 3.4028235e38),
        (np.array(3), 3),
        (np.array(0.1, dtype=np.float32), 0.1),
        (np.array("x"), "x"),
        (np.array(False), False),
        ({"a": [np.float32(0.3)]}, {"a": [0.3]}),
    ],
)
def test_a_value_becomes(given: Any, plain: Any) -> None:
    assert exactly(normalize(given)) == exactly(plain)


def test_a_float32_is_taken_by_the_decimal_that_numpy_prints() -> None:
    draw = random.Random(0)
    bits = [draw.getrandbits(32) for _ in range(3000)]
    numbers = [
        *np.array(bits, dtype=np.uint32).view(np.float32),
        *(np.float32(2.0**power) for power in range(-149, 128)),
    ]
    for number in numbers:
        if np.isfinite(number):
            assert normalize(number) == float(str(number))


def test_every_float16_is_taken_by_the_decimal_that_numpy_prints() -> None:
    for number in np.arange(0, 65536, 7, dtype=np.uint16).view(np.float16):
        if np.isfinite(number):
            assert normalize(number) == float(str(number))


def test_tensor_scalars_become_plain() -> None:
    torch = pytest.importorskip("torch")
    given = [
        torch.tensor(3),
        torch.tensor(True),
        torch.tensor(0.1),
        torch.tensor(0.1, dtype=torch.float64),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor(0.1, dtype=torch.float16),
        torch.tensor(torch.finfo(torch.float32).max),
        torch.tensor(-0.0),
        torch.tensor(0.5, requires_grad=True),
        torch.nn.Parameter(torch.tensor(2.0)),
    ]
    assert exactly(normalize(given)) == exactly([3, True, 0.1, 0.1, 0.1, 0.1, 3.4028235e38, 0.0, 0.5, 2.0])
    assert normalize(torch.Size([3, 4])) == [3, 4]
    for refused in (torch.tensor([1.0]), torch.tensor(1j), torch.tensor(math.nan), torch.tensor(1.0, device="meta")):
        with pytest.raises(ConfigError, match=r"at 'a\.b\[0\]'"):
            normalize({"a": {"b": [refused]}})


REFUSED: list[tuple[Any, str]] = [
    (math.nan, "not a finite number"),
    (math.inf, "not a finite number"),
    (-math.inf, "not a finite number"),
    (np.float32("inf"), "not a finite number"),
    (np.float64("nan"), "not a finite number"),
    (np.longdouble("1e400"), "not a finite number"),
    (b"x", "is of type bytes, .*decode it to str"),
    (np.bytes_(b"x"), "is of type bytes_"),
    ({1}, "is of type set, .*use a sorted list"),
    (frozenset({1}), "is of type frozenset"),
    (range(3), "is of type range, .*use a list"),
    (Path("x"), r"is of type \w*Path, .*use str"),
    (object(), "is of type object"),
    (len, "is of type builtin_function_or_method"),
    (1j, "is of type complex"),
    (Decimal(1), "is of type Decimal"),
    (Fraction(1, 2), "is of type Fraction"),
    (datetime.date(2024, 1, 1), "is of type date"),
    (types.MappingProxyType({}), "is of type mappingproxy"),
    (iter([]), "is of type list_iterator"),
    (np.array([1]), "is of type ndarray, .*tolist"),
    (np.array(None, dtype=object), "is of type NoneType|is of type object"),
    (np.datetime64("2020"), "is of type datetime64"),
    (np.timedelta64(5), "is of type timedelta64"),
    (np.complex64(1), "is of type complex64"),
    (np.void(b"abc"), "is of type void"),
    (np.ma.masked, "is of type MaskedConstant"),
    ("\ud800", "lone surrogate"),
    (1 << MAX_INT_BITS, f"has {MAX_INT_BITS + 1} bits"),
    ({1: 2}, "key 1 .*keys must be str, write '1'"),
    ({None: 2}, "key None .*keys must be str"),
    ({b"k": 2}, "key b'k' .*keys must be str"),
    ({"\ud800": 1}, "lone surrogate"),
    ({"e\u0301": 1, "\u00e9": 2}, "two keys .*normalisation"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_a_value_is_refused_with_its_path(value: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        normalize({"data": {"steps": [0, {"what": value}]}})
    assert "at 'data.steps[1].what'" in str(caught.value)
    with pytest.raises(ConfigError, match=reason):
        normalize(value)


def test_the_largest_integer_can_be_written_down() -> None:
    largest = (1 << MAX_INT_BITS) - 1
    assert normalize(largest) == int(str(largest))


def test_a_cycle_is_refused_and_a_shared_value_is_not() -> None:
    loop: dict[str, Any] = {"a": []}
    loop["a"].append(loop)
    with pytest.raises(ConfigError, match=r"at 'a\[0\]' contains itself"):
        normalize(loop)
    shared = [1]
    plain: Any = normalize({"a": shared, "b": shared})
    assert plain == {"a": [1], "b": [1]}
    assert plain["a"] is not plain["b"] is not shared


def test_nesting_is_limited() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = {"a": value}
        return value

    assert normalize(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ConfigError, match=f"nested deeper than {MAX_DEPTH} levels"):
            normalize(nested(depth))


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        normalize({"a": b"x" * 10_000})
    assert len(str(caught.value)) < 200


def test_a_path_is_unambiguous() -> None:
    assert join_path("", "a") == "a"
    assert join_path("a", "b") == "a.b"
    assert join_path("a", 3) == "a[3]"
    assert join_path("a", "b.c") == "a['b.c']"
    assert join_path("", "") == "['']"
    assert join_path("a", "\x1b[31m") == r"a['\x1b[31m']"
    assert normalize_text("plain") == "plain"


def test_numpy_and_torch_are_recognised_without_being_imported() -> None:
    code = (
        "import sys; from jimmy_manager import keys, schema, values; from jimmy_manager.results import where\n"
        "keys.digest({'a': (1, 2.5, 'e\\u0301')}); schema.Ledger().add('b', 1).key_form({'a': 1})\n"
        "heavy = {'numpy', 'torch', 'pandas', 'yaml', 'rich', 'filelock', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
