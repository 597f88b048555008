"""What a notebook shows of a Store and a Manager, whatever is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Manager, Store
from jimmy_manager.results.summary import MOST_DAMAGE, NEWEST
from tests.archives.runs import attempt_at, commit, train
from tests.test_html import HOSTILE, check


class Job(Manager):
    num_epochs = 1

    def train(self) -> None:
        if self.config.get("bad"):
            raise ValueError("bad")

    def eval(self) -> Mapping[str, Any]:
        return {"loss": self.config.lr}


@pytest.fixture
def manager(tmp_path: Path) -> Job:
    return Job(tmp_path / "store", {"lr": 1.0, "name": HOSTILE}, verbose=False, device="cpu", durable=False)


def test_a_manager_introduces_itself_by_states_newest_runs_and_defaults(manager: Job) -> None:
    keys = [manager.process({"lr": lr / 8}) for lr in range(1, NEWEST + 2)]
    manager.batch([{"lr": 2, "bad": True}], max_errors=9)
    text = check(manager._repr_html_()).text
    for part in ("Job", f"{NEWEST + 2} runs", f"{NEWEST + 1} done", "1 failed", "lr", "loss", "0.375", "defaults"):
        assert part in text
    assert keys[-1] in text
    assert not any(key in text for key in keys[:2])
    assert "</script>" in text


def test_a_manager_names_its_store_also_where_its_construction_failed(manager: Job) -> None:
    assert repr(manager) == f"<Job on Store({manager.store.directory!r})>"
    assert repr(Job.__new__(Job)) == "<Job on no store yet>"


def test_defaults_may_be_a_plain_dict(manager: Job) -> None:
    manager.defaults = {"optim.lr": 0.5}  # type: ignore[assignment]
    assert "optim" in check(manager._repr_html_()).text


def test_a_store_needs_no_job_and_says_that_it_is_read_only(manager: Job) -> None:
    key = manager.process({})
    text = check(Store(manager.store.directory, read_only=True)._repr_html_()).text
    for part in ("Store", "(read-only)", "1 run", "1 done", key):
        assert part in text
    assert "defaults" not in text


def test_an_empty_store_and_one_that_is_not_there_and_one_in_memory_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert "nothing was trained yet" in check(store._repr_html_()).text
    assert not (tmp_path / "store").exists()
    _ = store.info
    assert "0 runs" in check(store._repr_html_()).text
    memory = Store(None)
    train(memory, {"lr": 1})
    assert "in memory" in check(memory._repr_html_()).text


def test_damage_is_told_by_name_and_the_rest_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    keys = [train(store, {"seed": seed}) for seed in range(MOST_DAMAGE + 5)]
    whole = keys.pop()
    for key in keys:
        for path in tmp_path.glob(f"store/previews/*/{key}.*"):
            path.write_bytes(b"{}")
    text = check(store._repr_html_()).text
    assert "24 records are damaged" in text
    assert text.count("damaged file previews/") == MOST_DAMAGE
    assert "and 4 more; 'jimmy check' names all of them" in text
    assert whole in text


def test_hostile_names_of_fields_and_results_are_text(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    for seed in range(2):
        attempt = attempt_at(store, {HOSTILE.replace(".", ""): seed})
        commit(attempt, 1, **{HOSTILE: 0.5, "text": HOSTILE})
        attempt.finish()
    assert "onerror" in check(store._repr_html_()).text


def test_a_thousand_fields_are_cut_to_what_fits(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    for seed in range(2):
        train(store, {f"field{i}": seed for i in range(1_000)})
    assert len(check(store._repr_html_()).text) < 2_000
