"""The filter expressions of `jimmy ls --where`."""

from __future__ import annotations

import operator
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jimmy_manager.errors import ConfigError, UnknownField, WhereError
from jimmy_manager.results import where as module
from jimmy_manager.results.where import MAX_LENGTH, check_fields, parse

ROW: dict[str, Any] = {
    "optim.lr": 0.001,
    "arch": "cnn",
    "width": 64,
    "amp": True,
    "note": None,
    "tags": ["a", "b"],
    "layers.0": 3,
    "empty": "",
    "my-field": 1,
    "größe": 2,
    "nan": float("nan"),
    "sizes": [1, [2, True]],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('optim.lr < 0.01 and arch == "cnn"', True),
        ("optim.lr < 1e-4 or arch == 'cnn'", True),
        ("optim.lr<0.01", True),
        ("optim.lr >= 1e-3", True),
        ("width <= 63.5", False),
        ("-1 < width", True),
        ("0.0001 < optim.lr < 0.01", True),
        ("0.0001 < optim.lr < 0.0005", False),
        ('arch in ["cnn", "mlp"]', True),
        ('arch not in ["cnn", "mlp"]', False),
        ('arch not in ["vit"]', True),
        ("arch in []", False),
        ("arch in ['cnn',]", True),
        ("width in [64.0]", True),
        ('"a" in tags', True),
        ('"c" not in tags', True),
        ('"nn" in arch', True),
        ("64 in arch", False),
        ("64 not in arch", True),
        ("arch in tags", False),
        ('tags == ["a", "b"]', True),
        ("sizes == [1.0, [2, true]]", True),
        ("sizes == [1.0, [2, 1]]", False),
        ("[2, true] in sizes", True),
        ("amp", True),
        ("not amp", False),
        ("not note", True),
        ("empty", False),
        ("missing", False),
        ("not missing", True),
        ("layers.0 == 3", True),
        ("`my-field` == 1", True),
        ("größe == 2", True),
        ("gro\u0308ße == 2", True),
        # `and` binds closer than `or`, `not` closer than both.
        ("amp or amp and missing", True),
        ("(amp or amp) and missing", False),
        ("not missing and amp", True),
        ("not (missing and amp)", True),
        ("not not amp", True),
        ("not arch == 'mlp'", True),
        ("not arch in ['mlp']", True),
        # True is not 1, text is no number, and nothing is comparable to none.
        ("amp == true", True),
        ("amp == 1", False),
        ("amp != 1", True),
        ("amp < 2", False),
        ("width == '64'", False),
        ("width != '64'", True),
        ("width < '65'", False),
        ("arch < 5", False),
        ("arch < 'd'", True),
        ("note == none", True),
        ("note == None and note == null", True),
        ("note < 1", False),
        ("width != none", True),
        ("tags < ['c']", False),
        ("nan == nan", False),
        ("nan != nan", True),
        # Every comparison with a missing field is false, and the negation of one is true.
        ("missing == none", False),
        ("missing != none", False),
        ("missing < 1", False),
        ("missing in [1]", False),
        ("missing not in [1]", False),
        ("1 not in missing", False),
        ("width not in missing", False),
        ("not (missing < 1)", True),
        ("missing != missing", False),
        ("width == width", True),
        ("width > layers.0", True),
        (r'arch != "say \"hi\"\\ \n"', True),
    ],
)
def test_a_filter_says(text: str, expected: bool) -> None:
    assert parse(text)(ROW) is expected


def test_the_fields_come_in_their_order_and_once() -> None:
    where = parse("b.x > 1 and a and (b.x < 3 or `c d` in [1])")
    assert where.fields == ("b.x", "a", "c d")
    assert repr(where) == "parse('b.x > 1 and a and (b.x < 3 or `c d` in [1])')"


def test_words_of_the_grammar_are_field_names_below_a_dot() -> None:
    assert parse("a.in == 1 and a.not.or == 2").fields == ("a.in", "a.not.or")


def test_texts_compare_in_nfc() -> None:
    assert parse("name == 'e\u0301'")({"name": "\u00e9"})


def test_escapes_are_read() -> None:
    assert parse(r"""a == "x\"\'\\\n\t" """)({"a": "x\"'\\\n\t"})


def test_large_integers_are_exact() -> None:
    assert parse(f"a == {2**53 + 1}")({"a": 2**53 + 1})
    assert not parse(f"a == {2**53 + 1}")({"a": float(2**53)})


@pytest.mark.parametrize(
    ("text", "reason", "place"),
    [
        ("", "expected a field or a value", 0),
        ("   ", "expected a field or a value", 3),
        ("a = 1", "write == to compare", 2),
        ("a && b", "write and", 2),
        ("a | b", "write or", 2),
        ("!a", "write not", 0),
        ("my-field", "`backquotes`", 2),
        ("a <", "but the filter ends", 3),
        ("a < < 1", "expected a field or a value here, not '<'", 4),
        ("a b", "expected 'and', 'or' or the end here, not 'b'", 2),
        ("a not b", "not 'not'", 2),
        ("(a", "expected ')'", 2),
        ("a)", "expected 'and', 'or' or the end", 1),
        ("a in 5", "only a list, a text or a field", 5),
        ("a in [x]", "a list holds values", 6),
        ("a in [1, 2", "expected ']'", 10),
        ("a in [,]", "expected a field or a value", 6),
        ("5", "expected a comparison", 1),
        ("true", "expected a comparison", 4),
        ("a == 'x", "the quote is not closed", 5),
        ('a == "x', "the quote is not closed", 5),
        ("`a", "the backquote is not closed", 0),
        (r"a == '\q'", "unknown escape", 6),
        ("a == 1.2.3", "unexpected '1'", 5),
        ("a == 3b", "unexpected '3'", 5),
        ("a == 0x10", "unexpected '0'", 5),
        ("a.", "unexpected '.'", 1),
        ("a..b", "unexpected '.'", 1),
        ("__import__('os')", "expected 'and', 'or' or the end here, not '('", 10),
        ("a + b", "unexpected '+'", 2),
        ("lambda: 1", "unexpected ':'", 6),
    ],
)
def test_a_fault_is_pointed_at(text: str, reason: str, place: int) -> None:
    with pytest.raises(WhereError, match=re.escape(reason)) as caught:
        parse(text)
    shown, caret = str(caught.value).splitlines()[-2:]
    assert shown == f"  {text}"
    assert caret == " " * (place + 2) + "^"


def test_a_long_filter_is_shown_around_the_fault_in_printable_characters() -> None:
    with pytest.raises(WhereError) as caught:
        parse("aaaa and\n" * 50 + "\x1b[31m" + "x" * 100)
    shown, caret = str(caught.value).splitlines()[-2:]
    assert "\x1b" not in str(caught.value).replace("\\x1b", "")
    assert shown.startswith("  ...")
    assert shown.endswith("...")
    assert shown[caret.index("^") :].startswith(" [31m")


@pytest.mark.parametrize(
    "text",
    ["(" * 2000, "[" * 2000, "not " * 900 + "a", "a in " + "[" * 1900 + "]" * 1900, "(" * 60 + "a" + ")" * 60],
)
def test_nesting_is_limited(text: str) -> None:
    with pytest.raises(WhereError, match="nested deeper than 50 levels"):
        parse(text)


def test_nesting_up_to_the_limit_is_parsed_and_run() -> None:
    assert parse("(" * 50 + "a" + ")" * 50)({"a": 1})
    assert parse("not " * 50 + "a")({"a": 1})
    assert parse(" and ".join(["(a)"] * 500))({"a": 1})


def test_a_filter_is_limited_in_length_and_quick_at_the_limit() -> None:
    with pytest.raises(WhereError, match=f"has {MAX_LENGTH + 1} characters; at most {MAX_LENGTH}"):
        parse("a" * (MAX_LENGTH + 1))
    start = time.perf_counter()
    for piece in ("'", '"', "\\", "a.", "1", "1.", "+", "`", " ", "'\\", "a or ", "a<", "[1,"):
        try:
            parse((piece * MAX_LENGTH)[:MAX_LENGTH])
        except WhereError:
            continue
    assert time.perf_counter() - start < 2


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab.<>=!()[],'\"\\ \n\t10-+e`not and or in", max_size=60) | st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        where = parse(text)
    except WhereError:
        return
    assert isinstance(where({}), bool)
    assert isinstance(where(dict.fromkeys(where.fields, 1)), bool)


OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBERS = st.integers(-5, 5) | st.floats(-5, 5).map(lambda number: round(number, 2))
CLAUSE = st.tuples(st.sampled_from(["a", "b.c"]), st.sampled_from(sorted(OPERATORS)), NUMBERS)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        CLAUSE,
        lambda inner: st.one_of(
            st.tuples(st.just("not"), inner),
            st.tuples(st.sampled_from(["and", "or"]), inner, inner),
        ),
        max_leaves=8,
    ),
    st.fixed_dictionaries({"a": NUMBERS}, optional={"b.c": NUMBERS}),
)
def test_a_written_tree_means_what_it_says(tree: Any, row: dict[str, Any]) -> None:
    assert parse(written(tree))(row) is meant(tree, row)


def test_a_parser_without_precedence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: `and` and `or` bind alike."""

    def flat(self: Any) -> Any:
        test = self._one()
        while self._token.text in ("and", "or"):
            both, left = self._token.text == "and", test
            self._next += 1
            right = self._one()
            test = lambda row, left=left, right=right, both=both: (  # noqa: E731
                (left(row) and right(row)) if both else (left(row) or right(row))
            )
        return test

    tree = ("or", ("a", "==", 1), ("and", ("a", "==", 1), ("a", "==", 2)))
    assert parse(written(tree))({"a": 1}) is meant(tree, {"a": 1}) is True
    monkeypatch.setattr(module._Parser, "_expression", flat)
    assert parse(written(tree))({"a": 1}) is not meant(tree, {"a": 1})


def written(tree: Any, tight: int = 0) -> str:
    """Write ``tree`` with as few parentheses as the grammar needs."""
    if tree[0] == "not":
        return f"not {written(tree[1], 2)}"
    if tree[0] in ("and", "or"):
        binds = 1 if tree[0] == "and" else 0
        text = f"{written(tree[1], binds)} {tree[0]} {written(tree[2], binds)}"
        return f"({text})" if tight > binds else text
    return f"{tree[0]} {tree[1]} {tree[2]!r}"


def meant(tree: Any, row: dict[str, Any]) -> bool:
    if tree[0] == "not":
        return not meant(tree[1], row)
    if tree[0] in ("and", "or"):
        left, right = meant(tree[1], row), meant(tree[2], row)
        return (left and right) if tree[0] == "and" else (left or right)
    return tree[0] in row and bool(OPERATORS[tree[1]](row[tree[0]], tree[2]))


def test_an_unknown_field_is_reported_with_the_nearest_name_and_its_place() -> None:
    where = parse("arch == 'cnn' and optim.lrr < 1")
    check_fields(where, ["arch", "optim.lrr"])
    with pytest.raises(UnknownField) as caught:
        check_fields(where, ["arch", "optim.lr"])
    assert str(caught.value) == (
        "unknown field 'optim.lrr' in the filter; did you mean 'optim.lr'?\n"
        "  arch == 'cnn' and optim.lrr < 1\n"
        "                    ^"
    )
    assert isinstance(caught.value, ConfigError)


def test_the_last_name_alone_suggests_the_whole_path() -> None:
    with pytest.raises(UnknownField, match=r"did you mean 'optim\.lr'"):
        check_fields(parse("lr < 1"), ["lars", "optim.lr"])
    with pytest.raises(UnknownField, match=r"unknown field 'qqq' in the filter\n"):
        check_fields(parse("qqq"), ["lr"])
