"""Numbers of a column: points below each other, digits that the column needs, nothing cut that a person typed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.cli import numbers
from jimmy_manager.cli.numbers import aligned

# Rounded up, the largest float of all is none any more.
ANY = st.floats().filter(lambda value: not 1e308 < abs(value) < math.inf)
FLOATS = st.one_of(st.none(), st.integers(-(10**20), 10**20), ANY, st.floats(1e-3, 10.0))


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([1, 20, 300], ["  1", " 20", "300"]),
        ([0.1, 0.003, 3e-05, None], ["0.1  ", "0.003", "3e-05", ""]),
        ([0.5, 12.25, 1], [" 0.5 ", "12.25", " 1   "]),
        ([0.123456, 1.5, 12.0], [" 0.123", " 1.500", "12.000"]),
        ([0.123456, math.nan], ["0.1235", "   nan"]),
        ([1.234567e-7, 2.2e-6, 0.0], ["1.235e-07", "2.200e-06", "0        "]),
        ([0.1 * 3, 0.5], ["0.3", "0.5"]),
        ([100000.0, 1.0], ["100000", "     1"]),
        ([0.43211, 0.12345, 0.2111, 0.31111, 0.15555, 0.51234, 1e-9], None),
        ([], []),
        ([None], [""]),
    ],
)
def test_columns_look_as_people_would_write_them(values: list[float | None], cells: list[str] | None) -> None:
    shown = aligned(values)
    if cells is not None:
        assert shown == cells
    else:
        assert shown[:2] + shown[-1:] == ["0.4321 ", "0.1235 ", "1.0e-09"]


def point(cell: str) -> int:
    return min(place for place in (cell.find("."), cell.find("e"), len(cell.rstrip())) if place >= 0)


@given(st.lists(FLOATS))
def test_points_are_below_each_other_and_no_value_is_shown_wrongly(values: list[float | None]) -> None:
    cells = aligned(values)
    there = [(cell, value) for cell, value in zip(cells, values, strict=True) if value is not None]
    assert all(cell == "" for cell, value in zip(cells, values, strict=True) if value is None)
    assert len({len(cell) for cell, _ in there}) <= 1
    finite = [(cell, value) for cell, value in there if math.isfinite(value)]
    assert len({point(cell) for cell, _ in finite}) <= 1
    largest = max((abs(value) for _, value in finite), default=0.0)
    for cell, value in finite:
        error = abs(float(cell) - float(value))
        assert error <= max(0.051 * abs(value), 1e-6 * largest, 1e-300), (cell, value)
        assert (float(cell) == 0.0) == (value == 0.0), "a small value is never shown as zero"


def test_a_twin_that_gives_each_cell_its_own_digits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "aligned", lambda values: [f"{value:.4g}" for value in values])
    cells = numbers.aligned([0.123456, 12.0])
    assert len({point(cell) for cell in cells}) > 1
