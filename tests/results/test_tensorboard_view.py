"""The directory for TensorBoard holds every run, follows the store, and never leads out of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from jimmy_manager.archives.store import Store
from jimmy_manager.errors import StoreError, UnknownField, WhereError
from jimmy_manager.results.tensorboard_view import refresh
from tests.archives.runs import attempt_at, commit, listing, train

HOSTILE = "../../evil\x1b]0;x\x07<b>\udc80/"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def finished(store: Store, config: dict[str, Any], epoch: int = 3, **shown: Any) -> str:
    attempt = attempt_at(store, config)
    commit(attempt, epoch, {}, **shown)
    attempt.finish()
    return attempt.key


def logs(store: Store, key: str, name: str, content: bytes) -> Path:
    path = Path(store.logs(key) or "") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def line(epoch: int, step: int = 0, **values: Any) -> bytes:
    return json.dumps({"epoch": epoch, "step": step, "at": 1.7e9 + epoch, "values": values}).encode() + b"\n"


def run_of(root: Path, key: str) -> Path:
    (found,) = root.glob(f"{key}*")
    return found


def read(root: Path, key: str) -> tuple[dict[str, list[tuple[int, float]]], dict[str, Any], str]:
    """Scalars, hyperparameters and status of a run, as TensorBoard's own reader finds them."""
    events = EventAccumulator(str(run_of(root, key)))
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    told = events.summary_metadata
    start = metadata.parse_session_start_info_plugin_data(told[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    given = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    status = "running"
    if metadata.SESSION_END_INFO_TAG in told:
        end = metadata.parse_session_end_info_plugin_data(told[metadata.SESSION_END_INFO_TAG].plugin_data.content)
        status = {1: "success", 2: "failure"}[end.status]
    return scalars, given, status


def test_configuration_and_results_of_every_run_are_there(store: Store) -> None:
    config = {"lr": 0.1, "arch": "cnn", "deep": {"bias": True, "sizes": [1, 2]}}
    done = finished(store, config, loss=0.5, nested={"f1": 1})
    paused = attempt_at(store, {"lr": 0.2, "arch": "cnn"})
    commit(paused, 2, {}, loss=float("nan"), note="text")
    paused.claim.release()
    failed = attempt_at(store, {"lr": 0.3, "arch": "mlp"})
    failed.claim.fail({"type": "ValueError", "message": "", "traceback": ""})
    root = refresh(store)
    scalars, given, status = read(root, done)
    assert scalars == {"epoch": [(3, 3.0)], "loss": [(3, 0.5)], "nested.f1": [(3, 1.0)]}
    assert given == {"lr": 0.1, "arch": "cnn", "deep.bias": True, "deep.sizes": "[1, 2]"}
    assert (status, read(root, paused.key)[2]) == ("success", "running")
    assert str(read(root, paused.key)[0]["loss"]) == "[(2, nan)]"
    assert read(root, failed.key)[0::2] == ({}, "failure")
    assert {path.name for path in root.iterdir()} == {
        f"{done} lr=0.1 arch=cnn bias=True sizes=_1,_2_", f"{paused.key} lr=0.2 arch=cnn",
        f"{failed.key} lr=0.3 arch=mlp",
    }  # fmt: skip


def test_evaluations_of_a_plain_manager_become_curves(store: Store) -> None:
    key = finished(store, {"lr": 0.1}, epoch=3, loss=0.25, extra=1)
    first = line(0, loss=4) + line(1, loss=2) + line(2, loss=1.5)
    logs(store, key, "evals.g1.jsonl", first + b'{"epoch": 3, "st')
    logs(store, key, "evals.g2.jsonl", line(2, loss=1) + b"[]\nnull\n" + line(3, loss=0.25, acc="nan"))
    scalars = read(refresh(store), key)[0]
    assert scalars["loss"] == [(0, 4.0), (1, 2.0), (2, 1.0), (3, 0.25)]
    assert scalars["extra"] == [(3, 1.0)]
    assert "acc" in scalars


def test_steps_count_where_a_run_counts_them(store: Store) -> None:
    key = finished(store, {"lr": 0.1}, epoch=2, best=7)
    logs(store, key, "evals.g1.jsonl", line(1, 40, loss=2) + line(2, 80, loss=1))
    scalars = read(refresh(store), key)[0]
    assert (scalars["loss"], scalars["best"]) == ([(40, 2.0), (80, 1.0)], [(80, 7.0)])


def test_what_a_run_has_logged_is_linked_and_nothing_that_is_a_link_itself(store: Store, tmp_path: Path) -> None:
    key = finished(store, {"lr": 0.1})
    logged = logs(store, key, "events.out.tfevents.1.host", b"")
    deep = logs(store, key, "train/events.out.tfevents.2.host", b"")
    logs(store, key, "worker.log", b"")
    (tmp_path / "events.out.tfevents.secret").write_bytes(b"secret")
    os.symlink(tmp_path / "events.out.tfevents.secret", logged.with_name("events.out.tfevents.3"))
    os.symlink(tmp_path, logged.with_name("outside"))
    os.symlink(tmp_path / "events.out.tfevents.secret", logged.with_name("evals.g9.jsonl"))
    place = run_of(refresh(store), key)
    links = {str(path.relative_to(place)): os.readlink(path) for path in place.rglob("*") if path.is_symlink()}
    assert links == {"events.out.tfevents.1.host": str(logged), "train/events.out.tfevents.2.host": str(deep)}
    first = min(path.name for path in place.glob("*tfevents*"))
    assert first == "events.out.tfevents.0000000000.jimmy"  # read first, as it ends


def test_a_second_call_rewrites_only_what_has_changed(store: Store) -> None:
    same, changing, gone = (finished(store, {"lr": lr}) for lr in (1, 2, 3))
    logged = logs(store, gone, "events.out.tfevents.1.host", b"")
    root = refresh(store)
    before = {path: path.lstat().st_ino for path in root.rglob("*tfevents*")}
    train(store, {"lr": 2}, epochs=5)
    store.pop(gone)
    logged.unlink()
    assert refresh(store) == root
    after = {path: path.lstat().st_ino for path in root.rglob("*tfevents*")}
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path.parent.name.split()[0] for path in changed} == {changing, gone}
    assert {path.name.split()[0] for path in root.iterdir()} == {same, changing}


def test_a_filter_has_a_directory_of_its_own(store: Store) -> None:
    one, two = (finished(store, {"lr": lr}) for lr in (1, 2))
    whole, part = refresh(store), refresh(store, "lr < 2")
    assert whole != part
    assert [path.name for path in part.iterdir()] == [one]
    assert len(list(whole.iterdir())) == 2
    assert two not in str(list(part.iterdir()))
    with pytest.raises(UnknownField, match="did you mean 'lr'"):
        refresh(store, "lrr < 2")
    with pytest.raises(WhereError):
        refresh(store, "lr <")


def test_names_from_a_configuration_lead_nowhere(store: Store) -> None:
    good = HOSTILE.replace("\udc80", "")
    config = {"name": good, good.replace(".", ""): 1, "long": "x" * 500}
    keys = [finished(store, config), finished(store, {"name": "a"})]
    root = refresh(store)
    names = [path.name for path in root.iterdir()]
    assert sorted(name[:8] for name in names) == sorted(keys)
    assert all(len(name) <= 120 and name.isprintable() and "<" not in name for name in names)
    assert {path.parent.parent for path in root.rglob("*tfevents*")} == {root}
    assert read(root, keys[0])[1]["name"] == good


def test_a_read_only_store_is_only_read(store: Store, tmp_path: Path) -> None:
    finished(store, {"lr": 1})
    before = listing(tmp_path / "store")
    refresh(Store(tmp_path / "store", read_only=True))
    assert listing(tmp_path / "store") == before


def test_an_empty_store_is_an_empty_directory(store: Store) -> None:
    assert store.info.id
    assert list(refresh(store).iterdir()) == []


def test_where_there_is_no_place_the_error_says_what_to_do(store: Store, cache: Path) -> None:
    finished(store, {"lr": 1})
    cache.write_text("a file")
    with pytest.raises(StoreError, match="set XDG_CACHE_HOME"):
        refresh(store)
    with pytest.raises(StoreError, match="no place for links to the runs of memory"):
        refresh(Store(None))
