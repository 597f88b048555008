from __future__ import annotations

import numpy as np
import pytest

from jimmy_manager.results.side_by_side import cells, text, width


def test_columns_stand_below_each_other_whatever_their_letters() -> None:
    lines = text(["aaaa", "bbbb"], {"config": {"名": ["日本", 1], "lr": [0.1, "x"]}}).splitlines()
    assert lines == ["      aaaa  bbbb", "config", "  名  日本  1", "  lr  0.1   x"]


@pytest.mark.parametrize("wide", [40, 80, 200])
def test_a_table_fits_the_terminal_and_leaves_no_run_out(wide: int) -> None:
    keys = [f"{n:08x}" for n in range(30)]
    sections = {"config": {"lr": [n / 7 for n in range(30)]}, "preview": {"long": ["y" * 100] * 30}}
    lines = text(keys, sections, wide).splitlines()
    narrow = [line for line in lines if "y" not in line]
    assert max(map(width, narrow)) <= wide
    assert [sum(line.split().count(key) for line in narrow) for key in keys] == [1] * 30
    assert sum(line.startswith("  lr") for line in lines) == lines.count("") + 1
    assert [line.split() for line in lines if "y" in line] == [[key, "y" * 100] for key in keys]


def test_values_that_would_look_alike_get_all_their_digits() -> None:
    assert cells([0.1234567, 0.1234568]) == ["0.1234567", "0.1234568"]
    assert cells([0.1234567, 0.2, None]) == ["0.1235", "0.2", ""]
    assert cells([float("nan"), np.zeros((2, 5))]) == ["nan", "array of float64, shape (2, 5)"]
    assert cells([np.arange(2)]) == ["array of int64, shape (2,): [0, 1]"]


def test_nothing_reaches_the_terminal_as_a_command() -> None:
    shown = text(["a", "b"], {"config": {"x\x1b[2J": ["\x07", ["\x1b", 1]]}})
    assert all(char == "\n" or char.isprintable() for char in shown)


def test_without_sections_there_is_a_line_of_keys() -> None:
    assert text(["aaaa", "bbbb"], {}).split() == ["aaaa", "bbbb"]
