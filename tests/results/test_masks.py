"""A filter over columns keeps exactly the runs that it keeps row by row."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jimmy_manager.archives.columns import Columns, Indexed
from jimmy_manager.results import masks
from jimmy_manager.results.runs import Runs
from jimmy_manager.results.table import table_of
from jimmy_manager.results.where import where_of

EMPTY = Indexed("00000000", "done", 1, 0, 1.0, 0.5, 0.5, True, {}, {})
NAN = float("nan")

NUMBERS = st.sampled_from([0, 1, -1, 2, 1.0, 0.5, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63, -(2**63), 10**400])
SCALARS = st.one_of(NUMBERS, st.none(), st.booleans(), st.sampled_from(["", "a", "b", "1", "ab"]))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.just([[1, True]]))
RESULTS = st.one_of(SCALARS, st.sampled_from([NAN, math.inf, -math.inf]))
COLUMNS = st.sampled_from([
    VALUES, st.integers(-2, 2), st.floats(-2, 2), st.integers(-1, 1) | st.floats(-1, 1), st.booleans(), NUMBERS,
    st.sampled_from(["a", "b", ""]), st.none() | st.integers(0, 2), st.none() | st.sampled_from(["a", "b"]),
    st.booleans() | st.integers(0, 1), st.just(None), st.sampled_from([2**63 - 1, 2**63 - 2]),
])  # fmt: skip


@st.composite
def runs(draw: st.DrawFn) -> list[Indexed]:
    """Some runs, of whose fields each has values of one sort in all runs, and is there in all or in some."""
    count = draw(st.integers(0, 5))
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in ("a", "b", "c.d"):
        values, is_whole = draw(COLUMNS), draw(st.booleans())
        for row in rows:
            if is_whole or draw(st.booleans()):
                row[name] = draw(values)
    losses = [{"loss": draw(RESULTS)} if draw(st.booleans()) else {} for _ in range(count)]
    pairs = zip(rows, losses, strict=True)
    return [EMPTY._replace(key=f"{n:08x}", config=row, preview=loss) for n, (row, loss) in enumerate(pairs)]


def spelled(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


FIELDS = st.sampled_from(["a", "b", "c.d", "loss", "nowhere", "epoch"])
CONSTANTS = VALUES.map(spelled)
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
COMPARISONS = st.one_of(
    FIELDS,
    st.tuples(FIELDS | CONSTANTS, SIGNS, FIELDS | CONSTANTS).map(" ".join),
    st.tuples(FIELDS, SIGNS, CONSTANTS, SIGNS, FIELDS).map(" ".join),
    st.tuples(FIELDS | CONSTANTS, st.sampled_from(["in", "not in"]), FIELDS).map(" ".join),
    st.tuples(FIELDS | CONSTANTS, st.just("in"), st.lists(VALUES, max_size=3).map(spelled)).map(" ".join),
)
TEXTS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map("({0[0]}) {0[1]} ({0[2]})".format),
    ),
    max_leaves=4,
)
CALLABLES = st.sampled_from([lambda value: value == 1, lambda value: value is None, lambda _: "yes", lambda _: 0])
MAPPINGS = st.dictionaries(FIELDS, st.one_of(VALUES, st.just(NAN), CALLABLES), max_size=3)
OF_ROWS = st.sampled_from([lambda row: row.get("a") == 1, lambda row: "b" in row, lambda row: row["epoch"], len])


def agree(rows: list[Indexed], condition: Any) -> None:
    where = where_of(condition)
    columns = Runs(Columns.of(rows))
    expected = [row["key"] for row in table_of(rows).filtered(where).rows]
    found = [key for key, holds in zip(columns.keys(), masks.mask(where.tree, columns), strict=True) if holds]
    assert found == expected


@settings(max_examples=400)
@given(runs(), TEXTS)
def test_a_text_keeps_the_same_runs_by_rows_and_by_columns(rows: list[Indexed], text: str) -> None:
    agree(rows, text)


@settings(max_examples=100)
@given(runs(), MAPPINGS)
def test_a_mapping_keeps_the_same_runs_by_rows_and_by_columns(rows: list[Indexed], mapping: dict[str, Any]) -> None:
    agree(rows, mapping)


@given(runs(), OF_ROWS)
def test_a_function_of_rows_sees_the_same_in_both(rows: list[Indexed], function: Any) -> None:
    agree(rows, function)


@settings(max_examples=100)
@given(runs(), st.sampled_from(["a", "b", "c.d", "loss", "epoch", "key"]), st.sampled_from(["", "-"]))
def test_both_sort_alike(rows: list[Indexed], name: str, sign: str) -> None:
    table, columns = table_of(rows), Runs(Columns.of(rows))
    if name in columns.names:
        assert columns.ordered(sign + name).keys() == [row["key"] for row in table.ordered(sign + name).rows]


@settings(max_examples=100)
@given(runs(), TEXTS)
def test_both_say_alike_what_varies_and_what_is_a_number(rows: list[Indexed], text: str) -> None:
    table, columns = table_of(rows), Runs(Columns.of(rows))
    assert columns.varying() == table.varying()
    assert columns.numeric() == table.numeric()
    where = where_of(text)
    some = columns._taken(masks.mask(where.tree, columns).nonzero()[0])
    assert some.varying() == table.filtered(where).varying()


@pytest.mark.parametrize("broken", ["_is_exact", "_is_small"])
def test_the_property_catches_a_comparison_of_what_no_float_holds(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: numpy compares a large integer with a float as floats."""
    rows = [EMPTY._replace(config={"a": value}) for value in (2**53 + 1, 1)]
    agree(rows, "a == 9007199254740992.0")
    monkeypatch.setattr(masks, broken, lambda *_: True)
    with pytest.raises(AssertionError):
        agree(rows, "a == 9007199254740992.0")


def test_true_is_not_one_in_a_column_either() -> None:
    rows = [EMPTY._replace(key=f"{n:08x}", config={"a": value}) for n, value in enumerate([1, True, 1.0, "1", [1]])]
    for condition in ("a == 1", {"a": 1}, {"a": [1, 7]}):
        columns = Runs(Columns.of(rows))
        found = masks.mask(where_of(condition).tree, columns).tolist()
        # A list of values is met by a field that is one of them, or that is this very list.
        assert found == [True, False, True, False, False]
    assert masks.mask(where_of({"a": [[1]]}).tree, Runs(Columns.of(rows))).tolist()[-1]


def test_numbers_of_numpy_and_pandas_are_as_good_as_pythons() -> None:
    import numpy as np
    import pandas as pd

    rows = [EMPTY._replace(key=f"{n:08x}", config={"a": n, "b": [n, 2]}) for n in range(3)]
    for wanted in (np.int64(1), np.float32(1), np.array([1, 9]), pd.Series([1, 9]), pd.Index([1]), {1}, range(1, 2)):
        assert masks.mask(where_of({"a": wanted}).tree, Runs(Columns.of(rows))).tolist() == [False, True, False]
    assert masks.mask(where_of({"b": [np.array([1, 2])]}).tree, Runs(Columns.of(rows))).tolist() == [False, True, False]


def test_a_function_of_a_value_is_not_asked_where_there_is_none() -> None:
    rows = [EMPTY._replace(key="00000001", config={"a": 1}), EMPTY._replace(key="00000002")]
    asked: list[Any] = []
    mask = masks.mask(where_of({"a": lambda value: asked.append(value) or True}).tree, Runs(Columns.of(rows)))
    assert (mask.tolist(), asked) == ([True, False], [1])


def test_a_nested_mapping_is_a_mapping_of_dotted_names() -> None:
    rows = [EMPTY._replace(key=f"{n:08x}", config={"optim.lr": n}) for n in range(2)]
    assert masks.mask(where_of({"optim": {"lr": 1}}).tree, Runs(Columns.of(rows))).tolist() == [False, True]
