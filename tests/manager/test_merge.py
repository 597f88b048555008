"""An import that fails or is killed leaves each run standing as it stood; one that succeeds, as it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import NoRecord, StoreError
from jimmy_manager.manager.gc import gc
from jimmy_manager.manager.manager import Manager
from jimmy_manager.manager.transfer import Loaded, export_tar, load
from tests.archives.runs import attempt_at, commit, train
from tests.archives.stepping import Harm, Killed, Worker, World, harm_if
from tests.manager.test_gc import ERROR, WRITES, at_rest, stop_at

Monkey = pytest.MonkeyPatch
CONFIG = {"lr": 0.1}
LEFTOVERS = ("superseded", "unreferenced", "unfinished")
"""Findings after any writer that was killed: none is damage, and ``unfinished`` is a result that is not marked yet."""


def tar_of(place: Path, *, is_done: bool, epochs: int = 5) -> Path:
    """A tar with the run of ``CONFIG`` at epoch 5."""
    source = Store(place / "source", durable=False)
    if is_done:
        train(source, CONFIG, epochs=epochs)
    else:
        paused(source, epochs)
    export_tar(source, place / "x.tar")
    return place / "x.tar"


def paused(store: Store, epochs: int) -> str:
    attempt = attempt_at(store, CONFIG)
    for epoch in range(1, epochs + 1):
        commit(attempt, epoch)
    attempt.claim.release()
    return attempt.key


def take_in(worker: Worker, tar: Path) -> Loaded:
    return worker.act(lambda: load(worker.store, tar))


# ---- killed


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("state", ["done", "failed", "released", "new"])
def test_an_import_that_is_killed_at_any_write_leaves_a_run_as_it_stood(
    monkeypatch: Monkey, tmp_path: Path, state: str, is_done: bool
) -> None:
    assert kill_everywhere(monkeypatch, tar_of(tmp_path, is_done=is_done), state, is_done) >= 5


def kill_everywhere(monkeypatch: Monkey, tar: Path, state: str, is_done: bool) -> int:
    kills = 0
    while import_killed_after(kills, World(monkeypatch), tar, state, is_done):
        kills += 1
    return kills


def import_killed_after(writes: int, world: World, tar: Path, state: str, is_done: bool) -> bool:
    """Whether all is as it was after the import was killed, and a second one ends it; False where it ended before."""
    ours = None if state == "new" else at_rest(world, state).newest()
    importer = world.worker("importer", "a")
    stop_at(importer, writes, WRITES)
    try:
        take_in(importer, tar)
        return False
    except Killed:
        for host in ("a", "b"):  # where its death is proven, and where its silence has to tell
            check_unharmed(world.worker(f"reader after {writes} writes", host), ours, state, is_done)
    again = world.worker("again", "a")
    loaded = take_in(again, tar)
    harm_if(again.newest().epoch != 5, "a second import does not end it")
    is_left_so = bool(loaded.kept) and again.standing().state in (state, "dead")
    harm_if(again.standing().state != ("done" if is_done else "released") and not is_left_so, "it is not as it came")
    findings = again.act(lambda: audit(again.store))
    harm_if(any(finding.kind not in LEFTOVERS for finding in findings), str(findings))
    return True


def check_unharmed(reader: Worker, ours: Commit | None, state: str, is_done: bool) -> None:
    if reader.standing().state == "held":
        reader.world.clock.sleep(1e6)
    standing = reader.standing()
    try:
        newest = reader.newest()
    except NoRecord:
        harm_if(ours is not None, "it has lost its commits")
        harm_if(standing.state == "new" and standing.trace.top > 0, "new, though somebody may commit")
        harm_if(not standing.is_free, f"nobody may train it, {standing.state} for a {reader.name}")
        return
    is_ours = ours is not None and newest.preview == ours.preview
    harm_if(not is_ours and newest.epoch != 5, "another result")
    is_ended = not is_ours and standing.state == ("done" if is_done else "released")
    if state == "new":
        harm_if(not (is_ended or standing.is_free), f"{standing.state} for a {reader.name}")
        return
    harm_if(standing.state != state and not is_ended, f"{standing.state} for a {reader.name}")
    harm_if(standing.state == "failed" and standing.record.error != ERROR, "another error")
    harm_if(standing.state == "done" and standing.record.error is not None, "done with an error")
    stats = reader.act(lambda: reader.store.history.stats(reader.key))
    stays_done = state == "done" and (is_ours or is_done)
    harm_if(stays_done and not reader.act(lambda: reader.store.is_done(stats)), "not done any more")


@pytest.mark.parametrize("state", ["done", "failed"])
def test_the_test_before_notices_claims_that_do_not_say_that_they_are_an_imports(
    monkeypatch: Monkey, tmp_path: Path, state: str
) -> None:
    monkeypatch.setattr("jimmy_manager.manager.merge.IMPORT", "")
    with pytest.raises(Harm, match=r"(dead|silent) for a"):
        kill_everywhere(monkeypatch, tar_of(tmp_path, is_done=True), state, True)


def test_the_test_before_notices_stats_that_are_marked_done_too_late(monkeypatch: Monkey, tmp_path: Path) -> None:
    committed = Attempt.commit
    monkeypatch.setattr(Attempt, "commit", lambda self, **given: committed(self, **given | {"done": False}))
    with pytest.raises(Harm, match="not done any more"):
        kill_everywhere(monkeypatch, tar_of(tmp_path, is_done=True), "done", True)


def test_the_test_before_notices_a_run_that_is_new_again(monkeypatch: Monkey, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "jimmy_manager.archives.claims._AT_REST", ("new", "done", "failed", "released", "retry"),
    )  # fmt: skip
    with pytest.raises(Harm, match="new, though"):
        kill_everywhere(monkeypatch, tar_of(tmp_path, is_done=True), "new", True)


def test_killed_imports_count_as_no_crashes_of_the_run(monkeypatch: Monkey, tmp_path: Path) -> None:
    tar, world = tar_of(tmp_path, is_done=True), World(monkeypatch)
    for number in range(6):
        importer = world.worker(f"importer {number}", "a")
        importer.files.stop("after", "create", "claims/", importer.die)
        with pytest.raises(Killed):
            take_in(importer, tar)
    worker = world.worker("worker", "a")
    assert worker.standing().state == "dead"
    assert worker.take()
    assert worker.attempt is not None
    assert worker.attempt.claim.record.settle


# ---- failed


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("point", [("create", "claims/"), ("write", "ckpts/"), ("replace", "stats/")])
@pytest.mark.parametrize("state", ["done", "failed", "released"])
def test_an_import_that_fails_leaves_a_run_as_it_stood(
    monkeypatch: Monkey, tmp_path: Path, state: str, point: tuple[str, str], is_done: bool
) -> None:
    tar, world = tar_of(tmp_path, is_done=is_done), World(monkeypatch)
    ours = at_rest(world, state).newest()
    importer = world.worker("importer", "a")

    def refuse() -> None:
        raise StoreError("no space left on device")

    importer.files.stop("before", *point, refuse)
    with pytest.raises(StoreError, match="no space"):
        take_in(importer, tar)
    reader = world.worker("reader", "b")
    standing = reader.standing()
    assert (standing.state, reader.newest().preview) == (state, ours.preview)
    assert standing.record.error == (ERROR if state == "failed" else None)
    assert take_in(importer, tar).updated == (reader.key,)
    after = reader.standing()
    assert (after.state, after.record.error) == ("done" if is_done else "released", None)


def test_a_sweep_leaves_a_finished_run_alone_whose_import_failed_and_whose_checkpoint_is_gone(
    tmp_path: Path, monkeypatch: Monkey
) -> None:
    manager = Line(tmp_path / "target", CONFIG, verbose=False, device="cpu", durable=False)
    key = manager.process({})
    gc(manager.store, keep_best=0, metric="loss", dry_run=False)
    write = manager.store.files.write

    def full(name: str, fill: Any) -> Any:
        if name.startswith("ckpts/"):
            raise StoreError(f"cannot write {name}: No space left on device")
        return write(name, fill)

    with monkeypatch.context() as patched:
        patched.setattr(manager.store.files, "write", full)
        with pytest.raises(StoreError, match="space"):
            manager.load(tar_of(tmp_path, is_done=True))
    assert manager.store.standing(key).state == "done"
    assert not manager.sweep({"lr": [0.1]}).failed
    assert [finding for finding in audit(manager.store) if finding.kind not in LEFTOVERS] == []


class Line(Manager):
    num_epochs = 2
    is_broken = False

    def train(self) -> None:
        if self.is_broken:
            raise ValueError("no luck")

    def eval(self) -> dict[str, float]:
        return {"loss": 1.0}


def test_an_import_that_failed_is_no_failure_of_the_run_and_one_that_succeeded_ends_the_row(
    tmp_path: Path, monkeypatch: Monkey
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Line, "num_epochs", 1)
        Line(tmp_path / "source", CONFIG, verbose=False, device="cpu", durable=False).process({})
    monkeypatch.setattr(Line, "is_broken", True)
    manager = Line(tmp_path / "target", CONFIG, verbose=False, device="cpu", durable=False)
    with pytest.raises(ValueError, match="no luck"):
        manager.process({})
    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "commit", _refused)
        with pytest.raises(StoreError, match="no space"):
            manager.load(tmp_path / "source")
    with pytest.raises(ValueError, match="no luck"):  # one failure so far, so one retry tries
        manager.process({}, retries=1)
    assert manager.load(tmp_path / "source").updated
    for retries in (0, 1):
        with pytest.raises(ValueError, match="no luck"):
            manager.process({}, retries=retries)


def _refused(*_: object, **__: object) -> None:
    raise StoreError("no space left on device")


# ---- what is newer


def test_a_finished_run_stays_as_it_finished_beside_an_unfinished_one_of_its_epoch(tmp_path: Path) -> None:
    target = Store(tmp_path / "target", durable=False)
    key = train(target, CONFIG, epochs=3)
    gc(target, older_than=0, dry_run=False)
    assert not target.history.stats(key).commits[-1].has_ckpt
    tar = tar_of(tmp_path, is_done=False, epochs=3)
    for dry_run in (True, False):
        assert load(target, tar, dry_run=dry_run).kept == (key,)
    assert (target.standing(key).state, target.stats[key]["done"]) == ("done", True)
    train(Store(tmp_path / "source", durable=False), CONFIG, epochs=3)
    assert load(target, tmp_path / "source").updated == (key,)  # finished there, too: it brings the checkpoint
    assert target.ckpts[key] == {"epoch": 3}
    assert target.standing(key).state == "done"


def test_a_run_keeps_its_key_where_it_held_a_field_before_that_was_declared(tmp_path: Path) -> None:
    """Its stored form is longer than the one that such a run would get today, and a key is for ever."""
    store = Store(tmp_path / "a", durable=False)
    for config in ({"lr": 1}, {"lr": 2, "clip": 0}):
        attempt = attempt_at(store, config)
        commit(attempt, 1)
        attempt.finish()
    store.schema.add("clip", 0)
    keys = set(store.keys())
    export_tar(store, tmp_path / "a.tar")
    other = Store(tmp_path / "b", durable=False)
    foretold = load(other, tmp_path / "a.tar", dry_run=True)
    done = load(other, tmp_path / "a.tar")
    assert set(foretold.added) == set(done.added) == set(other.keys()) == keys
    assert done.renamed == {}
    assert [other.find({"lr": 2, "clip": 0}) in keys, other.find({"lr": 1, "clip": 0}) in keys] == [True, True]
