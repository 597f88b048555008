"""Text of unknown origin reaches a terminal only as text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.plain_text import plain, plain_lines

# What a terminal acts upon, written down anew: C0, DEL, C1, and marks that reorder what is read.
ACTIVE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029]")


@pytest.mark.parametrize(
    "attack",
    [
        "\x1b[2J\x1b[H",  # clears the screen
        "\x1b]0;title\x07",  # sets the window's title
        "\x1b]52;c;cm0gLXJmIH4=\x07",  # writes to the clipboard
        "\x9b31m",  # the same as ESC [ in one byte
        "safe\rerror: nothing",  # overwrites the line
        "\u202egnp.exe",  # reads backwards
        "\x08\x08\x08fake",
        "\x1bP+q544e\x1b\\",  # asks the terminal to type an answer
    ],
)
def test_attacks_on_a_terminal_are_spelled_out(attack: str) -> None:
    for made in (plain(f"a{attack}b"), plain_lines(f"a{attack}b")):
        assert ACTIVE.search(made) is None
        assert "\\" in made
        assert made.startswith("a")
        assert made.endswith("b")


def test_markup_stays_as_it_was_typed() -> None:
    assert plain("[bold red]x[/]") == "[bold red]x[/]"


def test_lines_of_a_traceback_stay_lines() -> None:
    assert plain_lines("one\n\ttwo\r\nthree") == "one\n    two\nthree"
    assert plain("one\ntwo") == "one\\ntwo"


def test_text_of_people_stays_as_it_is() -> None:
    for text in ("naïve 学习率 λ=0.1 …", "👩‍🔬", "C:\\data", "été"):
        assert plain(text) == text


@given(st.text(st.characters(), max_size=50))
def test_whatever_comes_in_nothing_active_comes_out_and_it_can_be_encoded(text: str) -> None:
    for made in (plain(text), plain_lines(text).replace("\n", "")):
        assert ACTIVE.search(made) is None
        made.encode("utf-8")


def test_values_that_are_no_text_are_shown_by_str() -> None:
    assert plain(0.5) == "0.5"
    assert plain(KeyError("\x1b")) == "'\\x1b'"
