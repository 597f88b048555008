"""Rows and columns of the index say the same, whatever a run lacks and whatever replaces it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.archives import columns as module
from jimmy_manager.archives.columns import LACKS, Columns, Indexed

VALUES = st.sampled_from([None, True, 1, 1.0, "a", [1], {}])
FIELDS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Indexed]:
    keys = draw(st.sets(st.sampled_from([f"abcdef{n:02}" for n in range(8)])))
    states = st.sampled_from(["done", "held"])
    return {
        key: Indexed(key, draw(states), 1, 2, 3.0, 0.5, 0.25, True, draw(FIELDS), draw(FIELDS)) for key in sorted(keys)
    }


def exactly(rows: Any) -> str:
    """Equality would take 1 for True."""
    return repr([row._replace(config=sorted(row.config.items()), preview=sorted(row.preview.items())) for row in rows])


def updated(before: dict[str, Indexed], fresh: dict[str, Indexed | None]) -> None:
    expected = {key: row for key, row in {**before, **fresh}.items() if row is not None}
    found = Columns.of(before.values()).updated(fresh)
    assert exactly(found.rows()) == exactly(row for _, row in sorted(expected.items()))
    for side in (found.config, found.preview):
        assert all(column.kinds == frozenset(map(type, column.values)) for column in side.values())


@given(runs())
def test_columns_give_back_the_rows_that_they_were_made_of(rows: dict[str, Indexed]) -> None:
    assert exactly(Columns.of(rows.values()).rows()) == exactly(rows.values())


@given(runs(), runs(), st.sets(st.sampled_from([f"abcdef{n:02}" for n in range(8)])))
def test_rows_that_were_read_again_replace_those_of_their_keys(
    before: dict[str, Indexed], fresh: dict[str, Indexed], gone: set[str]
) -> None:
    updated(before, {**fresh, **dict.fromkeys(gone)})


def test_old_rows_that_stayed_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: what is there already is kept."""
    row = Indexed("abcdef00", "held", 1, 2, 3.0, 0.5, 0.25, True, {"a": 1}, {})
    other = row._replace(key="abcdef01")
    newer: dict[str, Indexed | None] = {row.key: row._replace(state="done", epoch=9)}
    updated({row.key: row, other.key: other}, newer)
    monkeypatch.setattr(module, "_picked", lambda values, order: values[: len(order)])
    with pytest.raises(AssertionError):
        updated({row.key: row, other.key: other}, newer)


def test_what_a_run_lacks_is_not_none() -> None:
    row = Indexed("abcdef00", "new", None, None, None, None, None, False, {"a": None}, {})
    column = Columns.of([row, row._replace(config={})]).config["a"]
    assert column.values == [None, LACKS]
    assert repr(LACKS) == "LACKS"
