"""Runs that contradict a new ledger entry only by holding its value themselves keep their keys."""

from __future__ import annotations

import pytest

from jimmy_manager.errors import SchemaError
from jimmy_manager.keys import canonical
from jimmy_manager.schema import Ledger


def is_found(ledger: Ledger, stored: dict[str, object]) -> bool:
    return any(canonical(form) == canonical(stored) for form in ledger.forms(ledger.shown_form(stored)))


def test_a_run_that_holds_an_added_value_itself_is_found_in_its_own_form() -> None:
    old, between = {"a": 1}, {"a": 2, "optim": {"beta": 0.9}}
    ledger = Ledger().add("optim.beta", 0.9).fitted([("k1", old), ("k2", between)])
    assert ledger.to_list() == [{"add": "optim.beta", "value": 0.9, "kept": True}]
    assert is_found(ledger, old)
    assert is_found(ledger, between)
    assert Ledger(ledger.to_list()) == ledger


def test_an_entry_that_no_run_contradicts_is_not_marked() -> None:
    ledger = Ledger().add("beta", 0.9).fitted([("k1", {"a": 1}), ("k2", {"a": 2, "beta": 0.5})])
    assert ledger.to_list() == [{"add": "beta", "value": 0.9}]
    assert ledger.forms({"a": 1, "beta": 0.9}) == [{"a": 1}]


def test_the_form_without_the_field_comes_first() -> None:
    ledger = Ledger([{"add": "beta", "value": 0.9, "kept": True}])
    assert ledger.forms({"a": 1, "beta": 0.9}) == [{"a": 1}, {"a": 1, "beta": 0.9}]
    assert ledger.forms({"a": 1, "beta": 0.5}) == [{"a": 1, "beta": 0.5}]


def test_a_run_that_lacks_a_removed_field_is_found_as_well() -> None:
    old, without = {"a": 1, "verbose": True}, {"a": 2}
    ledger = Ledger().remove("verbose", True).fitted([("k1", old), ("k2", without)])
    assert is_found(ledger, old)
    assert is_found(ledger, without)


def test_a_kept_field_may_be_renamed_later() -> None:
    stored = [("k1", {"a": 1}), ("k2", {"a": 2, "beta": 0.9}), ("k3", {"a": 3, "beta": 0.1})]
    ledger = Ledger().add("beta", 0.9).fitted(stored).rename("beta", "optim.beta").fitted(stored)
    assert all(is_found(ledger, run) for _, run in stored)
    assert ledger.shown_form({"a": 2, "beta": 0.9}) == {"a": 2, "optim": {"beta": 0.9}}


def test_a_rename_that_would_merge_two_meanings_is_still_refused() -> None:
    with pytest.raises(SchemaError, match="run k2 could not be told from another one"):
        Ledger().rename("lr", "rate").fitted([("k1", {"lr": 0.1}), ("k2", {"rate": 3})])


def test_kept_is_refused_on_a_rename() -> None:
    with pytest.raises(SchemaError, match="takes no into and no kept"):
        Ledger([{"rename": "a", "to": "b", "kept": True}])


def test_undo_takes_the_newest_entry_back() -> None:
    ledger = Ledger().add("beta", 0.5)
    assert ledger.undo() == Ledger()
    assert ledger.undo().add("beta", 0.9).shown_form({"a": 1}) == {"a": 1, "beta": 0.9}
    with pytest.raises(SchemaError, match="nothing to undo"):
        Ledger().undo()
