"""Labels beside points never meet, whatever the points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.results.plot_labels import Box, spread
from jimmy_manager.results.plot_text import fitted, label, labels, wide

FRAME = Box(0, 0, 400, 300)
POINTS = st.lists(st.tuples(st.floats(-20, 420), st.floats(-20, 320)), max_size=25)
SIZES = st.tuples(st.floats(5, 120), st.floats(5, 30))


def meet(boxes: list[Box]) -> bool:
    return any(box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[:index])


@given(points=POINTS, size=SIZES, towards=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_no_two_labels_overlap_or_cover_a_point_or_leave_the_frame(
    points: list[tuple[float, float]], size: tuple[float, float], towards: tuple[float, float]
) -> None:
    marks = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    placed = spread(points, [size] * len(points), FRAME, marks, towards=towards)
    boxes = [box for box in placed if box is not None]
    assert not meet(boxes)
    assert not any(box.overlaps(mark) for box in boxes for mark in marks)
    assert all(FRAME.holds(box) for box in boxes)
    assert all(box.x1 - box.x0 == pytest.approx(size[0]) and box.y1 - box.y0 == pytest.approx(size[1]) for box in boxes)


def test_the_check_notices_labels_that_are_not_spread() -> None:
    points = [(100.0, 100.0), (104.0, 100.0)]
    assert meet([Box(x, y, x + 40, y + 10) for x, y in points])
    assert not meet([box for box in spread(points, [(40, 10)] * 2, FRAME) if box])


def test_where_there_is_room_every_point_gets_its_label_in_the_direction_asked_for() -> None:
    placed = spread([(50.0 * step, 40.0 * step) for step in range(1, 7)], [(30, 10)] * 6, FRAME, towards=(-1, 1))
    for step, box in enumerate(placed, 1):
        assert box is not None
        assert (box.x0 + box.x1) / 2 < 50.0 * step
        assert (box.y0 + box.y1) / 2 > 40.0 * step


def test_a_point_without_room_gets_no_label() -> None:
    assert spread([(5, 5)], [(30, 10)], Box(0, 0, 20, 8)) == [None]


@pytest.mark.parametrize("name", ["a$b$c", "$x_1$", "\\frac", "cost$", "50 % of \\$3", "a\x1b[2J\n"])
def test_no_name_is_taken_for_mathematics(name: str) -> None:
    from matplotlib.cbook import is_math_text

    shown = label(name)
    assert not is_math_text(shown)
    assert shown.replace("\\$", "$") == name.replace("\x1b", "\\x1b").replace("\n", "\\n")


def test_a_glyph_that_the_font_lacks_is_spelled_out() -> None:
    assert label("训") == "\\u8bad"
    assert label("é") == "é"


@pytest.mark.parametrize("pattern", ["{}.a.very.long.name.of.a.block.of.layers", "a.very.long.name.of.a.block.{}.of.it",
                                     "a.very.long.name.of.a.block.of.layers.{}"])  # fmt: skip
def test_long_names_are_shortened_where_they_stay_distinct(pattern: str) -> None:
    short = labels([pattern.format(index) for index in range(30)], 20)
    assert len(set(short)) == 30
    assert all(len(text) <= 25 for text in short)


def test_texts_are_shortened_to_the_room_there_is() -> None:
    texts = fitted(["W" * 40, "i" * 40], 80)
    assert all(0 < wide(text) <= 80 for text in texts)
