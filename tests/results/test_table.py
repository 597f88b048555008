"""A store as rows: every run once, in the order of keys, whatever its state; and read fast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Manager, Store
from jimmy_manager.archives.listing import read_all
from jimmy_manager.errors import UnknownField
from jimmy_manager.results.table import TIMES, Table, read_table, table_of
from jimmy_manager.results.where import parse


class Job(Manager):
    num_epochs = 1

    def train(self) -> None:
        if self.config.get("bad"):
            raise ValueError("bad")

    def eval(self) -> Mapping[str, Any]:
        return {"loss": self.config.lr, "deep": {"acc": 0.5, "list": [1]}, "lr": 7, "epoch": 8}


@pytest.fixture
def manager(tmp_path: Path) -> Job:
    return Job(tmp_path / "store", {"optim": {"wd": 0.0}, "state": "mine"}, verbose=False, device="cpu", durable=False)


def row_of(table: Table, key: str) -> dict[str, Any]:
    (row,) = (row for row in table.rows if row["key"] == key)
    return row


def test_a_row_holds_state_configuration_and_scalars_of_the_preview(manager: Job) -> None:
    key = manager.process({"lr": 0.5})
    row = row_of(read_table(manager.store), key)
    stats = manager.stats[key]
    assert [row.pop(name) for name in TIMES] == [stats[name] for name in ("at", "train_s", "eval_s")]
    assert row == {
        "key": key, "state": "done", "epoch": 1, "lr": 0.5, "optim.wd": 0.0, "config.state": "mine",
        "loss": 0.5, "deep.acc": 0.5, "preview.lr": 7, "preview.epoch": 8,
    }  # fmt: skip


def test_every_state_has_its_row_and_popped_runs_have_none(manager: Job) -> None:
    store = manager.store
    keys = {name: manager.process({"lr": number}) for number, name in enumerate(("done", "popped"))}
    store.pop(keys["popped"])
    manager.batch([{"lr": 2, "bad": True}], max_errors=9)
    names = ("new", "held", "paused")
    entries = {name: store.register(manager.get_config({"lr": lr})) for lr, name in enumerate(names, 3)}
    claims = {s: store.claims.take(store.standing(entries[s].key), entries[s].digest) for s in ("held", "paused")}
    assert claims["paused"] is not None
    claims["paused"].release()
    states = Counter(row["state"] for row in read_table(Store(store.directory, read_only=True)).rows)
    assert states == {"done": 1, "failed": 1, "new": 1, "running": 1, "paused": 1}
    assert claims["held"] is not None
    claims["held"].drop()
    assert row_of(read_table(store), entries["held"].key)["state"] == "lost"


def test_rows_come_in_the_order_of_their_keys_and_agree_with_the_careful_look(manager: Job) -> None:
    manager.sweep({"lr": [0.1, 0.2, 0.3], "seed": range(10)})
    store = Store(manager.store.directory, read_only=True)
    runs = list(read_all(store))
    assert [run.key for run in runs] == list(store.keys())
    for run in runs:
        assert run.state == store.standing(run.key).state
        assert run.record == store.standing(run.key).record
        assert run.stats == store.committed(run.key)
        assert run.config == store.config(run.key).asdict()
        assert run.preview["loss"] == store.previews[run.key]["loss"]


def test_the_store_is_listed_once_a_shard_and_read_once_a_file(manager: Job) -> None:
    manager.sweep({"lr": 0.1, "seed": range(40)})
    store = Store(manager.store.directory, read_only=True)
    calls: Counter[str] = Counter()
    names, read = store.files.names, store.files.read

    def counting_names(folder: str) -> list[str]:
        calls[folder] += 1
        return names(folder)

    def counting_read(name: str) -> bytes:
        calls[name] += 1
        return read(name)

    store.files.names, store.files.read = counting_names, counting_read  # type: ignore[method-assign]
    assert len(list(read_all(store))) == 40
    assert set(calls.values()) == {1}
    shards = len(names("configs"))
    assert sum(1 for name in calls if not name.endswith(".json")) == 3 * shards + 1
    assert sum(1 for name in calls if name.endswith(".json")) == 4 * 40


def test_a_damaged_file_is_named_and_the_rest_of_its_run_is_shown(manager: Job) -> None:
    keys = [manager.process({"lr": lr}) for lr in (0.1, 0.2, 0.3, 0.4)]
    directory = Path(manager.store.directory or "")
    for key, archive in zip(keys, ("configs", "claims", "stats", "previews"), strict=True):
        for path in (directory / archive).rglob(f"{key}.*json"):
            path.write_bytes(path.read_bytes().replace(b"sha256", b"sha265"))
    table = read_table(Store(directory, read_only=True))
    assert [row["key"] for row in table.rows] == sorted(keys)
    for key, archive in zip(keys, ("configs", "claims", "stats", "previews"), strict=True):
        if archive != "claims":  # a damaged claim counts as held until its lease is over
            assert any(f"{archive}/{key[:2]}/{key}" in message for message in table.damage), archive
    assert row_of(table, keys[0])["loss"] == 0.1
    assert row_of(table, keys[1])["state"] == "running"
    assert row_of(table, keys[2])["lr"] == 0.3
    assert row_of(table, keys[3])["epoch"] == 1


def test_a_run_that_goes_on_while_it_is_listed_is_no_damage(manager: Job) -> None:
    key = manager.process({"lr": 0.1})
    store = Store(manager.store.directory, read_only=True)
    names = store.files.names

    def late(folder: str) -> list[str]:
        listed = names(folder)
        if folder.startswith("stats/"):
            store.files.names = names  # type: ignore[method-assign]
            manager.process({"lr": 0.1}, num_epochs=9)
        return listed

    store.files.names = late  # type: ignore[method-assign]
    table = read_table(store)
    assert table.damage == ()
    assert row_of(table, key)["loss"] == 0.1


def test_only_fields_that_differ_vary() -> None:
    rows: list[dict[str, Any]] = [
        {"key": "a", "x": 1, "y": 1, "z": True, "same": [1]},
        {"key": "b", "x": 1.0, "y": 1, "z": 1, "same": [1], "only": 1},
    ]
    assert Table(rows, ("x", "y", "z", "same", "only"), ()).varying() == ("z", "only")


def test_numbers_are_metrics_and_text_is_not() -> None:
    rows = [{"a": None, "b": "x", "c": True, "d": float("nan")}, {"a": 3, "b": "y", "c": False, "d": None}]
    assert Table(rows, (), ("a", "b", "c", "d")).numeric() == ("a", "d")


@pytest.mark.parametrize("sign", ["", "-"])
def test_nan_and_what_is_missing_come_last_in_either_direction(sign: str) -> None:
    values: list[Any] = [2, float("nan"), None, 1.5, "text", float("inf"), True, float("-inf")]
    table = Table([{"x": value} for value in values] + [{}], ("x",), ()).ordered(f"{sign}x")
    found = [row.get("x") for row in table.rows]
    finite = [value for value in found if isinstance(value, (int, float)) and not math.isnan(value)]
    assert finite == sorted(finite, reverse=bool(sign))
    assert found[:5] == finite
    assert found[5] == "text"
    assert math.isnan(found[6])
    assert found[7:] == [None, None]


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownField, match="did you mean 'loss_valid'"):
        Table([{}], (), ("loss_valid",)).ordered("-loss_vaild")


def test_a_filter_sees_state_and_results(manager: Job) -> None:
    manager.sweep({"lr": [0.1, 0.2]})
    table = read_table(manager.store).filtered(parse('state == "done" and loss > 0.15'))
    assert [row["lr"] for row in table.rows] == [0.2]


def test_an_empty_store_is_an_empty_table(tmp_path: Path) -> None:
    empty = read_table(Store(None))
    assert empty == table_of([]) == Table([], (), ())
    assert empty.ordered("-anything").rows == []
