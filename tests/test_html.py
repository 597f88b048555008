"""Nothing that is put into a page can become part of it, and a page needs nothing but itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager import Config, html

HOSTILE = """</td><script>alert(1)</script><img src=x onerror="x" title='y'>&amp;\x1b[2J\u202e"""


class Tags(HTMLParser):
    """The tags and the text of a page, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


TABLES = {"table", "thead", "tbody", "tr", "th", "td"}
ALLOWED = TABLES | {"style", "div", "details", "summary", "span", "code", "b", "img"}


def check(page: str) -> Tags:
    """Fail unless ``page`` is well-formed, without scripts and without anything from elsewhere."""
    found = Tags(page)
    assert set(found.tags) <= ALLOWED
    assert {name for name, _ in found.attributes} <= {"class", "style", "colspan", "open", "src", "alt", "title"}
    assert all(str(value).startswith("data:image/png;base64,") for name, value in found.attributes if name == "src")
    assert not re.search(r"https?:|url\(|@import", page)
    return found


def page_of(value: object) -> str:
    text = str(value)
    return html.page(
        html.element("div", text, title=text), html.table([text, "n"], [[value, 1], [text, None]]),
        html.fields({text: value, "below": {text: {text: [value]}}}), html.fold(text, text), html.image(b"png", text),
    )


def test_a_hostile_text_stays_text_everywhere() -> None:
    page = page_of(HOSTILE)
    found = check(page)
    assert "script" not in found.tags
    assert found.tags.count("img") == 1
    assert "</td><script>alert(1)</script>" in found.text
    assert "\x1b" not in page
    assert "\u202e" not in page


@given(st.text() | st.floats() | st.integers() | st.none() | st.lists(st.text()))
def test_any_value_gives_a_whole_page(value: object) -> None:
    check(page_of(value))


@pytest.mark.parametrize("forgotten", ["<script>", "<img src='https://example.org/x'>", "<td>", "<a href='x'>y</a>"])
def test_a_text_that_was_not_escaped_is_caught(forgotten: str) -> None:
    with pytest.raises(AssertionError):
        check(html.page(html.Markup(forgotten)))


def test_numbers_stand_to_the_right_with_their_heading() -> None:
    table = html.table(["name", "loss"], [["a", 0.123456], ["b", None]])
    assert '<th class="num">loss</th>' in table
    assert '<td class="num">0.1235</td>' in table
    assert "<th>name</th>" in table


def test_what_is_long_is_cut_and_says_so() -> None:
    page = html.page(html.fields({f"field{i}": "x" * 10_000 for i in range(1_000)}))
    assert "and 800 more" in check(page).text
    assert len(page) < 100_000


def test_a_configuration_is_a_nested_table_with_exact_values() -> None:
    config = Config({"optim": {"lr": 0.123456789, "betas": [0.9, {"x": HOSTILE}]}, "none": None, "empty": {}})
    found = check(config._repr_html_())
    for part in ("optim", "2 fields", "0.123456789", "{'x': ", "None", "{}"):
        assert part in found.text
    assert ("open", "") in found.attributes


def test_long_parts_of_a_configuration_are_folded() -> None:
    assert ("open", "") not in check(Config({"model": {f"f{i}": i for i in range(50)}})._repr_html_()).attributes


def test_an_empty_configuration_says_that_it_is_one() -> None:
    assert check(Config()._repr_html_()).text == "Config({})"
