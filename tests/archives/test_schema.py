"""``schema`` of a Store and of a Manager does what ``jimmy schema`` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager.archives.schema import Schema
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import ReadOnlyStore, SchemaChanged, SchemaError
from jimmy_manager.manager.manager import Manager
from tests.archives.runs import listing, train


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def test_old_runs_keep_their_keys_and_show_what_was_entered(store: Store, tmp_path: Path) -> None:
    key = train(store, {"lr": 0.1, "augment": {}})
    store.schema.add("clip", 0)
    store.schema.add("augment.flip", False, into="augment")
    store.schema.rename("lr", "optim.lr")
    assert store.configs[key].asdict() == {"augment": {"flip": False}, "clip": 0, "optim": {"lr": 0.1}}
    assert store.find({"optim": {"lr": 0.1}, "augment": {"flip": False}, "clip": 0}) == key
    store.schema.remove("clip", 0)
    entries = store.schema.list()
    assert [next(iter(entry)) for entry in entries] == ["add", "add", "rename", "remove"]
    assert Store(tmp_path / "store", read_only=True).schema.list() == entries
    store.schema.undo()
    assert store.schema.list() == entries[:-1]


def test_what_another_process_entered_is_listed(store: Store, tmp_path: Path) -> None:
    train(store, {"lr": 0.1})
    assert repr(store.schema) == "no field was added, renamed or removed since the first run"
    Store(tmp_path / "store").schema.rename("lr", "rate")
    assert repr(store.schema) == "lr is called rate"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda schema: schema.rename("lrr", "rate"), "did you mean 'lr'"),
        (lambda schema: schema.remove("clip", 0), "no run has a field 'clip'"),
        (lambda schema: schema.add("lr", {"a": 1}), "would be a mapping"),
        (lambda schema: schema.undo(), "nothing to undo"),
    ],
)
def test_an_edit_that_makes_no_sense_changes_nothing(
    store: Store, tmp_path: Path, edit: Callable[[Schema], None], message: str
) -> None:
    train(store, {"lr": 0.1})
    before = (tmp_path / "store/store.yaml").read_bytes()
    with pytest.raises(SchemaError, match=message):
        edit(store.schema)
    assert (tmp_path / "store/store.yaml").read_bytes() == before


def test_a_read_only_store_lists_and_refuses_edits(store: Store, tmp_path: Path) -> None:
    train(store, {"lr": 0.1})
    before = listing(tmp_path / "store")
    with pytest.raises(ReadOnlyStore):
        Store(tmp_path / "store", read_only=True).schema.add("clip", 0)
    assert listing(tmp_path / "store") == before


class Line(Manager):
    num_epochs = 1

    def train(self) -> None: ...

    def eval(self) -> dict[str, float]:
        return {"loss": 1.0}


class WithSchema(Line):
    """A job that has an attribute of that name, as one from before may have."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.schema = "mine"  # type: ignore[assignment]


def test_the_call_that_a_new_default_asks_for_is_the_call_that_helps(tmp_path: Path) -> None:
    key = Line(tmp_path / "store", {"lr": 0.1}, verbose=False, device="cpu").process({})
    manager = Line(tmp_path / "store", {"lr": 0.1, "clip": "off"}, verbose=False, device="cpu")
    with pytest.raises(SchemaChanged) as raised:
        manager.process({})
    (call,) = [part for part in str(raised.value).replace(")", "\n").splitlines() if "manager.schema" in part]
    assert call.endswith("manager.schema.add('clip', 'off'")
    eval(call.partition(": ")[2] + ")", {"manager": manager})
    assert manager.process({}) == key
    assert manager.configs[key].clip == "off"


def test_an_attribute_of_that_name_in_a_job_does_no_harm(tmp_path: Path) -> None:
    manager = WithSchema(tmp_path / "store", {"lr": 0.1}, verbose=False, device="cpu")
    manager.process({})
    assert manager.schema == "mine"
    manager.store.schema.add("clip", 0)
