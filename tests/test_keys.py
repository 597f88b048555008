"""Keys: one configuration has one, two have two, and none of them ever changes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jimmy_manager.errors import ConfigError
from jimmy_manager.keys import canonical, digest, explain, lengths

GOLDEN = Path(__file__).parent / "golden" / "keys.json"
ROOT = Path(__file__).resolve().parents[1]


# The reference: what one value and one encoding are, written a second time, slowly and from the documentation alone.


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def same(first: Any, second: Any) -> bool:
    """Say whether two values are one, by comparing them part by part."""
    if is_number(first) and is_number(second):
        return bool(first == second)
    if isinstance(first, str) and isinstance(second, str):
        return nfc(first) == nfc(second)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict) and isinstance(second, dict):
        left, right = ({nfc(key): item for key, item in each.items()} for each in (first, second))
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(first) is type(second) and (first is None or isinstance(first, bool)) and bool(first == second)


def reference(value: Any) -> str:
    """Encode a value as the docstring of ``keys`` says."""
    if value is None or isinstance(value, bool):
        return {None: "n", True: "t", False: "f"}[value]
    if is_number(value):
        return f"i{int(value):x};" if value == int(value) else f"d{float(value).hex()};"
    if isinstance(value, str):
        return f"s{len(nfc(value))}:{nfc(value)}"
    if isinstance(value, list | tuple):
        return f"l{len(value)}:" + "".join(reference(item) for item in value)
    pairs = sorted((nfc(key), item) for key, item in value.items())
    return f"m{len(value)}:" + "".join(f"{len(key)}:{key}{reference(item)}" for key, item in pairs)


# Golden keys.


def golden() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(GOLDEN.read_text("utf-8"))
    return loaded


def test_the_golden_keys_never_change() -> None:
    cases = golden()
    assert len(cases) >= 40
    for case in cases:
        assert digest(case["config"]) == case["digest"], case["name"]


def test_the_golden_keys_follow_from_the_documentation() -> None:
    for case in golden():
        assert hashlib.sha256(reference(case["config"]).encode()).hexdigest() == case["digest"], case["name"]


def test_golden_keys_are_shared_exactly_by_equal_configurations() -> None:
    cases = golden()
    equal = 0
    for index, case in enumerate(cases):
        for other in cases[:index]:
            alike = same(case["config"], other["config"])
            assert (case["digest"] == other["digest"]) == alike, (case["name"], other["name"])
            equal += alike
    assert equal >= 5, "the golden file must hold several spellings of one configuration"


def test_the_golden_keys_are_the_same_under_every_hash_seed() -> None:
    code = (
        "import json, sys; from jimmy_manager.keys import digest\n"
        f"cases = json.load(open({str(GOLDEN)!r}, encoding='utf-8'))\n"
        "print(hash('a'), *[digest(case['config']) for case in cases])\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
        )
        for seed in range(20)
    ]
    printed = [child.communicate(timeout=60)[0].split() for child in children]
    assert [child.returncode for child in children] == [0] * 20
    assert len({line[0] for line in printed}) == 20, "the seeds must take effect"
    assert all(line[1:] == [case["digest"] for case in golden()] for line in printed)


# Fuzz: near-misses and respellings, judged by the reference.

NAMES = [
    "a",
    "ab",
    "abc",
    "b",
    "c",
    "a.b",
    "b.c",
    "A",
    "",
    " a",
    "1",
    "01",
    "é",
    "a:",
    "s1:a",
    "i1;",
    "n",
    "'",
    '"',
    "\x00",
]
TEXTS = [
    "",
    "a",
    "ab",
    "abc",
    "b",
    "c",
    "bc",
    "1",
    "1.0",
    "01",
    "1e3",
    "true",
    "True",
    "None",
    "null",
    "n",
    "t",
    "f",
    "é",
    "ö",
    "i1;",
    "s1:a",
    "l0:",
    "m0:",
    "d0x1.8p+0;",
    "a;",
    ";",
    ":",
    "1:",
    "[]",
    "{}",
    "nan",
    "-0",
    " ",
    "a ",
    "\n",
    "ﬁ",
    "fi",
    "K",
]
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    10,
    16,
    255,
    1000,
    2**31,
    2**53,
    2**53 + 1,
    2**63,
    2**64,
    10**30,
    0.0,
    -0.0,
    0.1,
    0.5,
    1.5,
    1e-3,
    1e3,
    1e22,
    1e30,
    1e308,
    5e-324,
    0.30000000000000004,
    0.3,
    float(2**53),
    3.4028234663852886e38,
]


def draw_value(draw: random.Random, depth: int = 2) -> Any:
    kind = draw.randrange(10 if depth else 7)
    if kind < 3:
        return draw.choice(NUMBERS)
    if kind < 6:
        return draw.choice(TEXTS)
    if kind == 6:
        return draw.choice([None, True, False, [], {}])
    if kind == 7:
        return [draw_value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return draw_config(draw, depth - 1)


def draw_config(draw: random.Random, depth: int = 3) -> dict[str, Any]:
    return {name: draw_value(draw, depth) for name in draw.sample(NAMES, draw.randrange(1, 5))}


def another_type(value: Any, draw: random.Random) -> Any:
    """Return a value that looks like ``value`` and may or may not be the same one."""
    if isinstance(value, bool) or value is None:
        return draw.choice([int(bool(value)), str(value), str(value).lower(), not value, None, [value], "", {}])
    if isinstance(value, int):
        small = [float(value)] if abs(value) < 2**1000 else []
        return draw.choice([*small, str(value), bool(value), value + 1, -value, [value], f"{value:x}", {"a": value}])
    if isinstance(value, float):
        whole = int(value) if value == int(value) else repr(value)
        return draw.choice(
            [whole, str(value), -value, float(np.nextafter(value, 1)), [value], value.hex(), bool(value)]
        )
    if isinstance(value, str):
        texts = [
            value + "a",
            value[:-1],
            value.swapcase(),
            value[::-1],
            unicodedata.normalize("NFD", value),
            " " + value,
        ]
        return draw.choice(
            [*texts, [value], list(value), {value: None}, None, value + ";", unicodedata.normalize("NFKC", value)]
        )
    if isinstance(value, list | tuple):
        value = list(value)
        half = len(value) // 2
        lists = [
            value[::-1],
            [value],
            value[:-1],
            [*value, None],
            [*value, []],
            [value[:half], value[half:]],
            tuple(value),
        ]
        joined = "".join(item for item in value if isinstance(item, str))
        return draw.choice([*lists, [joined], joined, {str(index): item for index, item in enumerate(value)}, None, {}])
    pairs = list(value.items())
    dicts = [dict(pairs[::-1]), dict(pairs[:-1]), {"a": value}, {**value, "z": None}, {**value, "a": {}}]
    return draw.choice(
        [*dicts, [list(pair) for pair in pairs], [item for _, item in pairs], list(value), [value], None]
    )


def moved(config: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Move a field, or a piece of its name, to a place near by."""
    name = draw.choice(list(config))
    value = config[name]
    rest = {key: item for key, item in config.items() if key != name}
    other = draw.choice(NAMES)
    choices: list[dict[str, Any]] = [
        {**rest, other: value},
        {**rest, other: {name: value}},
        {other: config},
        {**rest, name: {other: value}},
    ]
    if isinstance(value, str):
        choices += [{**rest, name + value[:1]: value[1:]}, {**rest, name[:-1]: name[-1:] + value}]
    if isinstance(value, dict):
        choices += [{**rest, **value}, {**rest, **{f"{name}.{key}": item for key, item in value.items()}}]
        choices += [{**rest, name + key: item} for key, item in value.items()]
    if "." in name:
        choices.append({**rest, name.split(".")[0]: {name.split(".", 1)[1]: value}})
    swap = draw.choice(list(config))
    choices.append({**config, name: config[swap], swap: value})
    return draw.choice(choices)


def near_miss(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict) and value:
        if draw.random() < 0.4:
            return moved(value, draw)
        name = draw.choice(list(value))
        return {**value, name: near_miss(value[name], draw)}
    if isinstance(value, list | tuple) and value and draw.random() < 0.6:
        index = draw.randrange(len(value))
        return [*value[:index], near_miss(value[index], draw), *value[index + 1 :]]
    return another_type(value, draw)


def respelled(value: Any, draw: random.Random) -> Any:
    """Return the same value in other clothes: key order, tuples, numpy scalars, NFD, int for float."""
    if isinstance(value, dict):
        names = draw.sample(list(value), len(value))
        return {
            unicodedata.normalize(draw.choice(["NFC", "NFD"]), name): respelled(value[name], draw) for name in names
        }
    if isinstance(value, list | tuple):
        return draw.choice([list, tuple])(respelled(item, draw) for item in value)
    if isinstance(value, bool):
        return draw.choice([value, np.bool_(value), np.array(value)])
    if isinstance(value, str):
        return draw.choice([value, unicodedata.normalize("NFD", value), np.str_(value)])
    if isinstance(value, int):
        spellings: list[Any] = [value]
        if abs(value) < 2**63:
            spellings += [np.int64(value), np.array(value)]
        if abs(value) < 2**1000 and float(value) == value:
            spellings += [float(value), np.float64(value)]
        return draw.choice(spellings)
    if isinstance(value, float):
        spellings = [value, np.float64(value), np.array(value), np.longdouble(value)]
        if abs(value) < 1e38 and float(str(np.float32(value))) == value:
            spellings.append(np.float32(value))
        return draw.choice([*spellings, int(value)] if value == int(value) else spellings)
    return value


Digest = Callable[[Any], Any]


def fault(make: Digest, count: int, seed: int = 0) -> str | None:
    """Fuzz ``make`` with ``count`` configurations; return the first two that it merges, or the one that it splits."""
    draw = random.Random(seed)
    seen: dict[Any, Any] = {}
    done = 0
    while done < count:
        config = draw_config(draw)
        family = [config, near_miss(config, draw), near_miss(config, draw)]
        family.append(near_miss(family[1], draw))
        if not all(map(unambiguous, family)):
            continue
        names = [make(member) for member in family]
        done += len(family)
        for member, name in zip(family, names, strict=True):
            if not same(seen.setdefault(name, member), member):
                return f"merged: {seen[name]!r} and {member!r}"
            if name != names[0] and same(config, member):
                return f"split: {config!r} and {member!r}"
        spelling = respelled(config, draw)
        if make(spelling) != names[0]:
            return f"split: {config!r} and {spelling!r}"
    return None


def unambiguous(config: Any) -> bool:
    """Say whether no mapping in ``config`` has two names that are one after NFC."""
    if isinstance(config, dict):
        return len({nfc(key) for key in config}) == len(config) and all(map(unambiguous, config.values()))
    return not isinstance(config, list | tuple) or all(map(unambiguous, config))


def test_100_000_configurations_are_neither_merged_nor_split() -> None:
    assert fault(digest, 100_000) is None


def test_the_fuzz_meets_near_misses_of_both_kinds() -> None:
    draw = random.Random(0)
    alike = different = 0
    for _ in range(2000):
        config = draw_config(draw)
        other = near_miss(config, draw)
        if unambiguous(other):
            alike += same(config, other)
            different += not same(config, other)
    assert alike >= 100
    assert different >= 1000


# Broken twins of the encoding: each has one of the faults that real programs have had, and the fuzz must find it.


def without_type_tags(value: Any) -> str:
    text = reference_of(value)
    if isinstance(text, dict):
        return f"{len(text)}:" + "".join(f"{len(k)}:{k}{without_type_tags(v)}" for k, v in sorted(text.items()))
    if isinstance(text, list):
        return f"{len(text)}:" + "".join(without_type_tags(item) for item in text)
    return f"{len(str(text))}:{text}"


def reference_of(value: Any) -> Any:
    """Return a value with numpy, NFD and -0.0 out of the way, so that a twin has no other fault than its own."""
    if isinstance(value, dict):
        return {nfc(key): reference_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [reference_of(item) for item in value]
    if isinstance(value, np.floating):
        value = float(str(value)) if value.dtype.itemsize != 8 else float(value)
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return nfc(value) if isinstance(value, str) else value


def without_length_prefixes(value: Any) -> str:
    value = reference_of(value)
    if isinstance(value, dict):
        return "m" + "".join(f"{key}{without_length_prefixes(item)}" for key, item in sorted(value.items()))
    if isinstance(value, list):
        return "l" + "".join(without_length_prefixes(item) for item in value)
    return f"s{value}" if isinstance(value, str) else reference(value)


def without_counts(value: Any) -> str:
    value = reference_of(value)
    if isinstance(value, dict):
        return "m" + "".join(f"{len(key)}:{key}{without_counts(item)}" for key, item in sorted(value.items()))
    return "l" + "".join(map(without_counts, value)) if isinstance(value, list) else reference(value)


def flattened(value: Any, above: str = "") -> str:
    if isinstance(value, dict) and value:
        return "".join(sorted(flattened(item, f"{above}.{key}") for key, item in reference_of(value).items()))
    return f"{len(above)}:{above}{reference(reference_of(value))}"


def with_floats(value: Any) -> Any:
    """Take every number as a float, as JavaScript does."""
    if isinstance(value, dict):
        return {key: with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_floats(item) for item in value]
    return float(value) if is_number(value) and abs(value) < 2**1000 else value


def unsorted(value: Any) -> str:
    value = reference_of(value)
    if isinstance(value, dict):
        return f"m{len(value)}:" + "".join(f"{len(key)}:{key}{unsorted(item)}" for key, item in value.items())
    return f"l{len(value)}:" + "".join(map(unsorted, value)) if isinstance(value, list) else reference(value)


def json_of(value: Any) -> str:
    return json.dumps(reference_of(value), ensure_ascii=False)


def reference_of_text(value: Any) -> str:
    """Encode numbers well, and texts as they come."""
    if isinstance(value, dict):
        return "".join(f"{len(key)}:{key}{reference_of_text(value[key])}" for key in sorted(value))
    if isinstance(value, list | tuple):
        return f"l{len(value)}:" + "".join(map(reference_of_text, value))
    return f"s{len(value)}:{value}" if isinstance(value, str) else reference(reference_of(value))


TWINS: dict[str, Digest] = {
    "no type tags": without_type_tags,
    "no length prefixes": without_length_prefixes,
    "no counts of items": without_counts,
    "nesting by dotted names": flattened,
    "every number a float": lambda value: reference(with_floats(reference_of(value))),
    "key order counts": unsorted,
    "true is one": lambda value: reference(reference_of(value)).replace("t", "i1;"),
    "the type of a number counts": lambda value: json.dumps(value, sort_keys=True, default=reference_of),
    "repr": repr,
    "eight bits of the digest": lambda value: digest(value)[:2],
    "compatibility normalisation": lambda value: digest(json.loads(unicodedata.normalize("NFKC", json_of(value)))),
    "no normalisation": reference_of_text,
}


SPLITTING = {"key order counts", "the type of a number counts", "repr", "no normalisation"}


@pytest.mark.parametrize("twin", TWINS)
def test_the_fuzz_notices_an_encoding_with(twin: str) -> None:
    found = str(fault(TWINS[twin], 20_000))
    assert found.startswith("split" if twin in SPLITTING else "merged"), found


def test_the_fuzz_has_nothing_to_say_about_the_reference() -> None:
    assert fault(lambda value: reference(reference_of(value)), 4_000) is None


def test_refused_values_name_their_path_wherever_they_hide() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        bad = draw.choice(
            [float("nan"), float("inf"), b"a", {1}, object(), Path("a"), {1: 2}, {"a": [1j]}, np.zeros(2)]
        )
        config: dict[str, Any] = {}
        place: Any = config
        path = ""
        for _ in range(draw.randrange(4)):
            inner: Any = draw.choice([{}, []])
            path = put_in(place, inner, path, draw)
            place = inner
        path = put_in(place, bad, path, draw)
        for key in "xy":
            config.setdefault(key, draw_value(draw))
        with pytest.raises(ConfigError) as caught:
            digest(config)
        assert f" at {path!r}"[:-1] in str(caught.value)


def put_in(place: Any, value: Any, path: str, draw: random.Random) -> str:
    if isinstance(place, list):
        place.extend([0] * draw.randrange(3))
        place.append(value)
        return f"{path}[{len(place) - 1}]"
    name = draw.choice(["lr", "optim", "größe"])
    place[name] = value
    return f"{path}.{name}" if path else name


# Directed cases.


def test_what_is_one_value_and_what_is_not() -> None:
    assert digest({"a": 1}) == digest({"a": 1.0}) == digest({"a": np.int8(1)})
    assert digest({"a": 1}) != digest({"a": True})
    assert digest({"a": 2**53 + 1}) != digest({"a": float(2**53)})
    assert digest({"a": 2**53}) == digest({"a": float(2**53)})
    assert digest({"a": 10**308}) != digest({"a": 1e308})
    assert digest({"a": int(1e308)}) == digest({"a": 1e308})
    assert digest({"a": -0.0}) == digest({"a": 0})
    assert digest({"a": {}}) != digest({})
    assert digest({"a": []}) != digest({"a": {}})
    assert digest({"lr": np.float32(0.1)}) == digest({"lr": 0.1})


def test_deep_values_are_encoded_up_to_the_limit_and_no_further() -> None:
    deep: Any = {}
    for _ in range(63):
        deep = {"a": deep}
    assert canonical(deep) == b"m1:1:a" * 63 + b"m0:"
    for more in ([deep], {"a": deep}):
        with pytest.raises(ConfigError, match="nested deeper than 64"):
            canonical(more)


def test_a_key_becomes_longer_by_four_digits() -> None:
    assert lengths(8) == (8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64)
    assert lengths(63) == (63, 64)
    assert lengths(64) == (64,)
    wrong: Any
    for wrong in (0, 65, 8.0, "8"):
        with pytest.raises(ConfigError, match="key_len"):
            lengths(wrong)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 is not 2"]),
        ({"a": True}, {"a": 1}, ["a: bool True is not number 1"]),
        ({"a": "1"}, {"a": 1}, ["a: text '1' is not number 1"]),
        ({"a": None}, {}, ["a: only the first has it, None"]),
        ({}, {"a": {"b": 1}}, ["a: only the second has it, {'b': 1}"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 is not 3"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a[1]: 2 is not 3"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a: [1, 2] is not [1]"]),
        ({"a": {}}, {"a": []}, ["a: mapping {} is not list []"]),
        ({"a.b": 1}, {"a": {"b": 1}}, ["a: only the second has it, {'b': 1}", "['a.b']: only the first has it, 1"]),
        ([1], {}, ["the whole configuration: list [1] is not mapping {}"]),
    ],
)
def test_explain_says_why_two_keys_differ(first: Any, second: Any, said: list[str]) -> None:
    assert sorted(map(str, explain(first, second))) == sorted(said)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_explain_is_empty_exactly_where_the_keys_are_equal(seed: int) -> None:
    draw = random.Random(seed)
    config = draw_config(draw)
    for other in (config, near_miss(config, draw), respelled(config, draw)):
        assert (explain(config, other) == []) == (digest(config) == digest(other))
