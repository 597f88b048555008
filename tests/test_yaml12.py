"""YAML by the 1.2 core rules: what it means, what is refused and where, and that writing and reading are inverse."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from jimmy_manager import yaml12
from jimmy_manager.errors import ConfigError
from jimmy_manager.values import normalize

AWKWARD = [
    *(
        "",
        " ",
        "~",
        "null",
        "Null",
        "true",
        "FALSE",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "N",
        "<<",
        "=",
        "-",
        "--- a",
        "...",
    ),
    *(
        "1",
        "010",
        "0o17",
        "0x1F",
        "0b1",
        "1_000",
        "+1",
        "-0",
        "1e3",
        "1e-3",
        "1e999",
        ".5",
        "1.",
        ".inf",
        "-.INF",
        ".nan",
    ),
    *(
        "12:30",
        "1:30:00",
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "a: b",
        "a:",
        ": a",
        "a #b",
        "#a",
        "- a",
        "? a",
        "[a",
        "{",
    ),
    *(
        "]",
        "a, b",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "'a'",
        '"a"',
        "it's",
        "a\\b",
        "\\n",
        " a",
        "a ",
        "a\n",
        "\na",
    ),
    *(
        "a\nb",
        "a\n\n b",
        "\t",
        "a\tb",
        "a\r\nb",
        "\x00",
        "\x07",
        "\x7f",
        "\x85",
        "\xa0",
        "\u2028",
        "\ufeff",
        "\uffff",
        "é",
    ),
    *("\U0001f600", "x" * 300, ("word " * 60).strip(), "\U0010ffff"),
]

texts = st.one_of(
    st.sampled_from(AWKWARD), st.text(max_size=30), st.from_regex(r"[-+.0-9eExo_:~]{1,8}", fullmatch=True)
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.just(-(10**3000)),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def normalised(value: object) -> object:
    try:
        return normalize(value)
    except ConfigError:
        return {}  # two keys that are one after NFC, or a lone surrogate


def same(one: object, other: object) -> bool:
    """Equal in value and in type, everywhere inside."""
    return repr(one) == repr(other)


@given(values.map(normalised))
@example(AWKWARD)
@example({text: [text, {text: text}] for text in AWKWARD})
@example([[[]], {}, [{}], {"a": []}, [[[1]], 2]])
def test_what_is_written_is_read_back_the_same(value: object) -> None:
    text = yaml12.dump(value)
    assert same(yaml12.loads(text), value)
    assert same(yaml12.load(text), value)


@given(values.map(normalised))
def test_the_pure_python_parser_reads_the_same(value: object) -> None:
    text = yaml12.dump(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml12, "_Loader", yaml.SafeLoader)
        assert same(yaml12.loads(text), value)


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,? \n\t~01.<", max_size=40))
def test_any_text_is_read_or_refused_by_a_config_error(text: str) -> None:
    try:
        value = yaml12.loads(text)
    except ConfigError as error:
        message = str(error)
    else:
        message = "<text>:1: read"
        assert same(yaml12.loads(yaml12.dump(value)), value)
    assert re.match(r"<text>:[1-9][0-9]*: ", message)


@pytest.mark.parametrize("text", [text for text in AWKWARD if text.isprintable()])
def test_older_yaml_readers_see_the_same_strings(text: str) -> None:
    assert yaml.safe_load(yaml12.dump([text])) == [text]


def test_a_reader_by_yaml_1_1_would_not_see_the_same() -> None:
    """The twin of the tests above and below: PyYAML's own rules are the ones that they must tell apart."""
    assert yaml.safe_load("[1e-3, no, 12:30, 010]") == ["1e-3", False, 750, 8]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+3", 1000.0),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("-7", -7),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("~", None),
        ("NULL", None),
        ("", None),
        ("# only a comment", None),
        ("True", True),
        ("no", "no"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("tRUE", "tRUE"),
        ("\u0663", "\u0663"),
        ("'1'", "1"),
        ("! 1", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("!!int 1", 1),
        ("!!map {a: 1}", {"a": 1}),
        ("{no: 1, 12:30 : 2}", {"no": 1, "12:30": 2}),
        ("'<<': 1", {"<<": 1}),
        ("|\n a\n b\n", "a\nb\n"),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    assert same(yaml12.loads(text), value)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2\na: 3", 3, "duplicate field 'a', first given on line 1"),
        ("x:\n  a: 1\n  'a': 3", 3, "duplicate field 'a', first given on line 2"),
        ("a: &x 1\nb: *x", 2, "alias *x is not supported"),
        ("a: 1\n<<: {b: 1}", 2, "merge key <<"),
        ("a: 1\n1: 2", 2, "field 1 is of type int"),
        ("\nno: 1\ntrue: 2", 3, "field true is of type bool"),
        ("? [a]\n: 1", 1, "cannot be the name of a field"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a: !!python/object/apply:os.system [id]", 1, "tag !!python/object/apply:os.system is not supported"),
        ("a: !thing 1", 1, "tag !thing is not supported"),
        ("a: !!seq {}", 1, "tag !!seq is not supported"),
        ("a: !!int x", 1, "'x' does not fit its tag !!int"),
        ("a:\n  b: 1e999", 2, "larger than any float"),
        ("a: " + "9" * 5000, 1, "limit"),
        ("a: 1\nb: @x", 2, "put the text in quotes"),
        ("a: 1\n  b: 2", 2, "mapping values are not allowed"),
        ("a: [1,\nb", 2, "while parsing a flow sequence from line 1"),
        ("a: 1\nb: \x07", 2, "control characters"),
        ("a: 1\nb: \ud800", 2, "surrogate"),
    ],
)
def test_what_is_refused_is_refused_with_file_and_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yaml12.loads(text, "jobs/digits.yaml")
    message = str(caught.value)
    assert message.startswith(f"jobs/digits.yaml:{line}: ")
    assert reason in message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("loader", [yaml12._Loader, yaml.SafeLoader])
def test_a_hundred_thousand_open_brackets_are_a_clean_error(
    opening: str, loader: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml12, "_Loader", loader)
    with pytest.raises(ConfigError, match=r"<text>:1: (nested deeper than 64 levels|a mapping or list cannot be)"):
        yaml12.loads(opening * 100_000)


def test_the_deepest_value_that_may_be_written_can_be_read() -> None:
    value: object = 1
    for _ in range(64):
        value = [value]
    assert yaml12.loads(yaml12.dump(value)) == value
    with pytest.raises(ConfigError, match="nested deeper than 64"):
        yaml12.loads("[" * 65 + "]" * 65)
    with pytest.raises(ConfigError, match="nested deeper than 64"):
        yaml12.dump([value])


def test_a_billion_laughs_are_refused_at_the_first_one() -> None:
    lines = ["a0: &a0 [ha, ha]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(ConfigError, match=r"^<text>:2: alias \*a0"):
        yaml12.loads("\n".join(lines))


def test_one_object_twice_is_written_out_twice() -> None:
    shared = {"lr": 0.1}
    assert yaml12.dump({"a": shared, "b": shared}) == "a:\n  lr: 0.1\nb:\n  lr: 0.1\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, b"x", {1, 2}, {1: 2}, object()])
def test_what_no_configuration_can_hold_is_not_written(value: object) -> None:
    with pytest.raises(ConfigError):
        yaml12.dump(value)


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "digits.yaml"
    path.write_text("\ufefflr: 1e-3\n", encoding="utf-8")
    assert yaml12.load(path) == yaml12.load(str(path)) == {"lr": 0.001}
    path.write_text("lr: 1\nlr: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"digits\.yaml:2: duplicate field 'lr'"):
        yaml12.load(path)
    path.write_bytes(b"lr: 1\nname: \xff\n")
    with pytest.raises(ConfigError, match=r"digits\.yaml:2: not UTF-8"):
        yaml12.load(path)
    with pytest.raises(ConfigError, match=r"cannot read .*missing\.yaml: No such file or directory"):
        yaml12.load(tmp_path / "missing.yaml")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    text = f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/ran']]"
    with pytest.raises(ConfigError):
        yaml12.loads(text)
    assert not (tmp_path / "ran").exists()
