"""Names by their last parts: found where one name ends so, refused with the candidates where several do."""

from __future__ import annotations

import pytest

from jimmy_manager.errors import UnknownField
from jimmy_manager.results import names as names_module
from jimmy_manager.results.names import Names, condition

KNOWN = ("key", "state", "epoch", "optim.lr", "enc.width", "dec.width", "loss", "eval.loss", "a.b.c", "x.epoch")


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("lr", "optim.lr"), ("optim.lr", "optim.lr"), ("loss", "loss"), ("b.c", "a.b.c"), ("c", "a.b.c"),
        ("epoch", "epoch"),
    ],
)  # fmt: skip
def test_a_name_is_found_by_its_last_parts_and_a_whole_one_wins(typed: str, full: str) -> None:
    assert Names(KNOWN).full(typed) == full


@pytest.mark.parametrize("name", KNOWN)
def test_every_heading_can_be_typed(name: str) -> None:
    known = Names(KNOWN)
    assert known.full(known.short(name)) == name
    assert len(known.short(name)) <= len(name)


def test_what_may_be_two_fields_is_refused_with_both() -> None:
    for ask in (lambda: Names(KNOWN).full("width"), lambda: condition("width > 1", Names(KNOWN))):
        with pytest.raises(UnknownField, match=r"'width' may be 'enc\.width' or 'dec\.width'; write more of its name"):
            ask()


def test_a_name_that_is_confused_with_many_lists_some() -> None:
    with pytest.raises(UnknownField, match=r"or 12 more; write more"):
        Names(f"part{number}.lr" for number in range(20)).full("lr")


@pytest.mark.parametrize(("typed", "near"), [("optm.lr", "optim.lr"), ("lrr", "lr"), ("widht", "width")])
def test_a_mistyped_name_is_told_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(UnknownField, match=f"did you mean '{near}'"):
        Names(KNOWN).full(typed)


def test_of_a_thousand_names_few_are_listed() -> None:
    with pytest.raises(UnknownField) as caught:
        Names(f"field{number}" for number in range(1000)).full("!")
    assert len(str(caught.value)) < 200


ROW = {"key": "k", "optim.lr": 0.1, "enc.width": 8, "dec.width": 4, "loss": 1.0, "eval.loss": 2.0}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("lr < 1", True), ("lr > 1", False), ("optim.lr == 0.1 and lr == 0.1", True), ("loss == 1", True),
        ("enc.width == 8 and not lr == 3", True), ("c == 1", False), ("c != 1", False), ("lr", True), ("c", False),
    ],
)  # fmt: skip
def test_a_filter_takes_short_names(text: str, holds: bool) -> None:
    assert condition(text, Names(KNOWN))(ROW) is holds


def test_a_filter_points_at_the_name_it_does_not_know() -> None:
    with pytest.raises(UnknownField, match=r"unknown field 'lrr' in the filter; did you mean 'lr'\?\n.*\n *\^"):
        condition("loss > 0 and lrr > 1", Names(KNOWN))
    with pytest.raises(UnknownField, match=r"\n  loss > 0 and width > 1\n {15}\^"):
        condition("loss > 0 and width > 1", Names(KNOWN))


def test_without_runs_any_name_may_be_right() -> None:
    assert condition("anything > 1", None)({}) is False


def test_a_twin_that_takes_the_first_of_several_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Names.meant
    monkeypatch.setattr(names_module.Names, "meant", lambda self, name: whole(self, name)[:1])
    with pytest.raises(pytest.fail.Exception):
        test_what_may_be_two_fields_is_refused_with_both()
