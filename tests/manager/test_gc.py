"""gc frees what it says it frees, and nothing that a reader, a worker or a person still counts on."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Manager
from jimmy_manager.archives import layout, previews
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.files import Content, PendingWrite
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import CheckpointError, ConfigError, KeyNotFound, ReadOnlyStore, RunFailed, StoreError
from jimmy_manager.manager import gc_offline, gc_plan
from jimmy_manager.manager.gc import Freed, gc
from tests.archives.runs import attempt_at, commit, listing, train
from tests.archives.stepping import Harm, Killed, Worker, World, harm_if

Monkey = pytest.MonkeyPatch
BIG = {"weights": b"w" * 50_000}


class Line(Manager):
    """Its loss is its lr; ``act`` makes it fail."""

    num_epochs = 3
    choices = None

    def train(self) -> None:
        if self.config.get("act") == "raise" and self.epoch == 1 and not os.environ.get("LINE_IS_MENDED"):
            raise ValueError("no luck")

    def eval(self) -> dict[str, Any]:
        loss = self.config.lr if self.config.lr != 9 else math.nan
        return {"loss": loss, "nested": {"acc": 1 - loss, "f1": 0.5}}

    def save_ckpt(self) -> None:
        self.ckpt["weights"] = b"w" * 20_000
        super().save_ckpt()


@pytest.fixture
def manager(tmp_path: Path) -> Line:
    return Line(tmp_path / "store", {"lr": 0.1, "seed": 0, "arch": "cnn"}, verbose=False, device="cpu", durable=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def used(manager: Manager) -> int:
    """Bytes below the directory, a hard link once, less claims: their few bytes stay for ever."""
    assert manager.store.directory is not None
    inodes = {
        found.st_ino: found.st_size for path in Path(manager.store.directory).rglob("*")
        if path.is_file() and path.parts[-3] != "claims" for found in [path.stat()]
    }
    return sum(inodes.values())


# ---- what goes


def test_a_dry_run_is_the_default_and_writes_nothing(manager: Line, tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        manager.process({"lr": lr})
    before = listing(tmp_path / "store")
    foretold = manager.gc(superseded=True, keep_best=1, metric="loss")
    assert listing(tmp_path / "store") == before
    assert [item.what for item in foretold.items] in (["checkpoint", "older commits"], ["older commits", "checkpoint"])
    assert gc(Store(tmp_path / "store", read_only=True), superseded=True).size > 0
    done = manager.gc(superseded=True, keep_best=1, metric="loss", dry_run=False)
    assert (done.size, {item.key for item in done.items}, done.left) == (
        foretold.size, {item.key for item in foretold.items}, {},
    )
    assert [sorted(item.names) for item in done.items] == [sorted(item.names) for item in foretold.items]


def test_the_bytes_that_are_told_are_the_bytes_that_are_free(manager: Line) -> None:
    for lr in (0.1, 0.2, 0.3):
        manager.process({"lr": lr})
    before = used(manager)
    freed = manager.gc(keep_best=1, metric="loss", dry_run=False)
    assert freed.size > 80_000
    assert before - used(manager) == pytest.approx(freed.size, abs=2_000)  # the new stats say a little more


def test_superseded_commits_go_and_the_newest_stays_as_it_was(manager: Line) -> None:
    key = manager.process({})
    ckpt, preview, stats = manager.ckpts[key], manager.previews[key], manager.stats[key]
    assert len(manager.store.history.stats(key).commits) == 2
    (item,) = manager.gc(superseded=True, dry_run=False).items
    assert (item.key, item.what) == (key, "older commits")
    assert len(manager.store.history.stats(key).commits) == 1
    assert (manager.ckpts[key].keys(), manager.previews[key], manager.stats[key]) == (ckpt.keys(), preview, stats)
    assert manager.store.standing(key).state == "done"
    assert audit(manager.store) == []
    assert manager.gc(superseded=True, dry_run=False) == Freed((), 0, {})


def test_the_best_of_each_group_keep_their_checkpoints(manager: Line) -> None:
    keys = {(arch, lr): manager.process({"arch": arch, "lr": lr}) for arch in ("cnn", "mlp") for lr in (0.1, 0.2, 0.3)}
    freed = manager.gc(keep_best=1, metric="loss", by="arch", dry_run=False)
    gone = {keys[arch, lr] for arch in ("cnn", "mlp") for lr in (0.2, 0.3)}
    assert {item.key for item in freed.items} == gone
    assert {key for key in keys.values() if not manager.store.history.stats(key).commits[-1].has_ckpt} == gone
    more = manager.gc(keep_best=1, metric="nested.acc", mode="min", by=["arch"])
    assert more.items == ()  # the one that is left in each group is the best of those with a checkpoint


def test_groups_of_the_best_are_of_equal_values_and_not_of_equal_texts(manager: Line) -> None:
    values = {"one": 1, "text": "1", "yes": True, "said": "True", "none": None, "word": "None"}
    keys = {name: [manager.process({"arch": value, "lr": lr}) for lr in (0.1, 0.2)] for name, value in values.items()}
    freed = manager.gc(keep_best=1, metric="loss", by="arch")
    assert {item.key for item in freed.items} == {worse for _, worse in keys.values()}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (1, 1.0, True), (1, "1", False), (1, True, False), (math.nan, float("nan"), True), (None, "None", False),
        ([1, "1"], [1, "1"], True), ([1], ["1"], False), (2**53, 2**53 + 1, False),
    ],
)
def test_a_group_is_known_by_value_and_type(one: Any, other: Any, is_same: bool) -> None:
    assert (gc_plan._group_of(one) == gc_plan._group_of(other)) == is_same


def test_a_run_without_its_checkpoint_still_lists_and_says_why_it_cannot_be_fetched(manager: Line) -> None:
    key = manager.process({})
    config, preview = manager.configs[key], manager.previews[key]
    manager.gc(keep_best=0, metric="loss", dry_run=False)
    assert (manager.configs[key], manager.previews[key], manager.stats[key]["done"]) == (config, preview, True)
    assert manager.table().loc[key, "state"] == "done"
    with pytest.raises(CheckpointError, match=rf"checkpoint of run {key} was removed by gc"):
        manager.fetch(key)
    with pytest.raises(CheckpointError, match="removed by gc"):
        manager.ckpts[key]
    assert audit(manager.store) == []


def test_a_sweep_leaves_a_finished_run_alone_whose_checkpoint_is_gone(manager: Line) -> None:
    key = manager.process({})
    manager.gc(keep_best=0, metric="loss", dry_run=False)
    report = manager.batch([{}])
    assert (report.skipped, report.failed) == ([key], [])
    with pytest.raises(CheckpointError, match="removed by gc"):
        manager.process({}, num_epochs=5)
    assert manager.store.standing(key).state == "done"
    assert manager.process({}, resume=False) == key
    assert manager.ckpts[key]["weights"] == b"w" * 20_000


def test_a_failed_run_keeps_its_error_and_a_retry_begins_from_nothing(manager: Line, monkeypatch: Monkey) -> None:
    with pytest.raises(ValueError, match="no luck"):
        manager.process({"act": "raise"})
    key = manager.store.find(manager.get_config({"act": "raise"})) or ""
    before = manager.store.standing(key)
    (item,) = manager.gc(failed=True, dry_run=False).items
    assert (item.key, item.what) == (key, "checkpoint")
    standing = manager.store.standing(key)
    assert standing.record is not None
    assert before.record is not None
    assert (standing.state, standing.record.error) == ("failed", before.record.error)
    with pytest.raises(RunFailed):
        manager.process({"act": "raise"})
    monkeypatch.setenv("LINE_IS_MENDED", "1")
    assert manager.process({"act": "raise"}, retries=1) == key
    assert manager.stats[key]["epoch"] == 3
    assert manager.ckpts[key]["weights"] == b"w" * 20_000


def test_what_gc_ended_does_not_count_as_another_failure(manager: Line) -> None:
    with pytest.raises(ValueError, match="no luck"):
        manager.process({"act": "raise"})
    manager.gc(failed=True, dry_run=False)
    with pytest.raises(ValueError, match="no luck"):  # one failure so far, so one retry tries
        manager.process({"act": "raise"}, retries=1)


def test_age_size_and_filter_narrow_what_goes(manager: Line, tmp_path: Path) -> None:
    keys = [manager.process({"lr": lr}) for lr in (0.1, 0.2, 0.3)]
    assert manager.gc(older_than="1d").items == ()
    assert manager.gc(larger_than="1G").items == ()
    assert {item.key for item in manager.gc(older_than=0).items} == set(keys)
    assert {item.key for item in manager.gc(larger_than="20k", where="lr > 0.15").items} == set(keys[1:])
    assert [item.key for item in manager.gc(keep_best=1, metric="loss", where="lr in [0.2, 0.3]").items] == [keys[2]]
    assert manager.gc(superseded=True, older_than="1w").items == ()
    assert {item.what for item in manager.gc(superseded=True, older_than=0).items} == {"older commits"}


def test_nan_is_the_worst_and_a_run_without_the_number_is_left(manager: Line) -> None:
    nan, good = manager.process({"lr": 9}), manager.process({"lr": 0.2})
    other = train(manager.store, {"lr": 1.0, "seed": 5, "arch": "cnn"})
    freed = manager.gc(keep_best=1, metric="loss")
    assert [item.key for item in freed.items] == [nan]
    assert freed.left == {other: "it has no number 'loss' to compare it by"}
    assert good not in freed.left


def test_where_no_number_is_finite_none_is_the_best_and_all_are_left(manager: Line) -> None:
    keys = {manager.process({"lr": 9, "seed": seed}) for seed in range(3)}
    freed = manager.gc(keep_best=1, metric="loss")
    assert freed.items == ()
    assert freed.left == dict.fromkeys(keys, "no run of its group has a finite 'loss'")


def shown(store: Store, config: dict[str, Any], **results: Any) -> str:
    """A finished run with these results; its key."""
    attempt = attempt_at(store, config)
    commit(attempt, 1, BIG, **results)
    attempt.finish()
    return attempt.key


def test_short_names_will_do_for_the_number_the_groups_and_the_filter(manager: Line) -> None:
    keys = [shown(manager.store, {"optim": {"lr": lr}}, eval={"loss": loss}) for lr, loss in ((1, math.nan), (2, 0.5))]
    for metric in ("loss", "eval.loss"):
        assert [item.key for item in manager.gc(keep_best=1, metric=metric).items] == keys[:1]
    assert manager.gc(keep_best=1, metric="loss", by="lr").items == ()
    assert [item.key for item in manager.gc(keep_best=0, metric="loss", where="lr > 1").items] == keys[1:]


def _nan_beside_a_whole_name(store: Store) -> tuple[str, Freed]:
    shown(store, {"n": 0}, loss=0.1)
    other = shown(store, {"n": 1}, eval={"loss": math.nan})
    return other, gc(store, keep_best=1, metric="loss")


def test_a_number_whose_name_only_ends_alike_is_not_the_one_that_was_asked_for(store: Store) -> None:
    other, freed = _nan_beside_a_whole_name(store)
    assert freed.items == ()
    assert freed.left == {other: "it has no number 'loss' to compare it by"}


def test_that_is_noticed_where_any_name_that_ends_alike_will_do(store: Store, monkeypatch: Monkey) -> None:
    monkeypatch.setattr(gc_plan, "_whole_name", lambda store, metric: f"eval.{metric}")
    other, freed = _nan_beside_a_whole_name(store)
    assert [item.key for item in freed.items] == [other]


def test_the_key_of_a_run_may_be_a_group_and_is_no_number(manager: Line) -> None:
    manager.process({})
    assert manager.gc(keep_best=1, metric="loss", by="key").items == ()
    freed = manager.gc(keep_best=0, metric="key", mode="min")
    assert freed.items == ()
    assert list(freed.left.values()) == ["it has no number 'key' to compare it by"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "what may go"),
        ({"where": "lr > 0"}, "what may go"),
        ({"metric": "loss"}, "how many of them stay"),
        ({"keep_best": 2}, "best by what"),
        ({"keep_best": -1, "metric": "loss"}, "must be 0 or more"),
        ({"keep_best": 1, "metric": "epoch"}, "is more of 'epoch' better, or less"),
        ({"keep_best": 1, "metric": "loss", "mode": "best"}, "must be 'min' or 'max'"),
        ({"older_than": "90 days"}, "'90 days' is not an age; write 90d"),
        ({"older_than": "-1d"}, "is not an age"),
        ({"older_than": math.nan}, "is not an age"),
        ({"larger_than": "huge"}, "is not a size; write 1G"),
        ({"keep_best": 1, "metric": "los"}, "did you mean 'loss'"),
        ({"keep_best": 1, "metric": "loss", "by": "arhc"}, "did you mean 'arch'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_takes_nothing(
    manager: Line, tmp_path: Path, wanted: dict[str, Any], message: str
) -> None:
    manager.process({})
    before = listing(tmp_path / "store")
    with pytest.raises(ConfigError, match=re.escape(message)):
        manager.gc(dry_run=False, **wanted)
    assert listing(tmp_path / "store") == before


def test_an_empty_store_has_nothing_to_free(store: Store) -> None:
    assert store.info.id
    assert gc(store, superseded=True, keep_best=3, metric="loss", failed=True, offline=True) == Freed((), 0, {})


def test_a_read_only_store_is_refused(manager: Line, tmp_path: Path) -> None:
    manager.process({})
    with pytest.raises(ReadOnlyStore):
        gc(Store(tmp_path / "store", read_only=True), superseded=True, dry_run=False)


def test_runs_that_a_worker_holds_or_lost_and_paused_ones_keep_their_checkpoints(store: Store) -> None:
    held, lost, paused = (attempt_at(store, {"lr": lr}) for lr in (1, 2, 3))
    for attempt in (held, lost, paused):
        for epoch in (1, 2):
            commit(attempt, epoch, BIG)
    lost.claim.drop()
    paused.claim.release()
    assert gc(store, keep_best=0, metric="epoch", mode="min", failed=True, dry_run=False).items == ()
    freed = gc(store, superseded=True, dry_run=False)
    assert [(item.key, item.what) for item in freed.items] == [(paused.key, "older commits")]
    assert store.standing(paused.key).state == "released"
    assert store.ckpts[paused.key] == BIG
    commit(held, 3)
    held.finish()


def test_a_damaged_run_is_left_by_name_and_the_others_are_done(store: Store, tmp_path: Path) -> None:
    damaged, whole = (train(store, {"lr": lr}, ckpt=BIG) for lr in (1, 2))
    path = tmp_path / "store" / store.history.stats(damaged).commits[-1].preview_name
    path.write_bytes(path.read_bytes()[:-2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a table may tell of the damage, too
        freed = gc(store, older_than=0, dry_run=False)
    assert [item.key for item in freed.items] == [whole]
    assert list(freed.left) == [damaged]
    assert "not whole" in freed.left[damaged]
    assert store.standing(damaged).state == "done"
    assert len(store.history.stats(damaged).commits) == 2


@pytest.mark.parametrize("damaged", [(2,), (1, 2)])
def test_gc_leaves_nothing_of_what_it_cannot_take_however_often_it_is_asked(
    store: Store, tmp_path: Path, damaged: tuple[int, ...]
) -> None:
    key = train(store, {"lr": 1}, ckpt=BIG)
    for number in damaged:
        path = tmp_path / "store" / layout.ckpt(key, 1, number)
        path.write_bytes(path.read_bytes()[:-2])
    before = Janitor(store).files_of(key)
    for _ in range(2):
        assert list(gc(store, superseded=True, dry_run=False).left) == [key]
        assert Janitor(store).files_of(key) == before
        assert store.standing(key).state == "done"


@pytest.mark.parametrize("operation", ["adopt", "_settle", "_write_stats"])
@pytest.mark.parametrize("error", [StoreError("disk"), KeyboardInterrupt()], ids=type)
def test_gc_that_is_interrupted_leaves_nothing_of_what_it_adopted(
    store: Store, operation: str, error: BaseException, monkeypatch: Monkey
) -> None:
    key = train(store, {"lr": 1}, ckpt=BIG)
    before, whole = Janitor(store).files_of(key), getattr(Attempt, operation)

    def interrupted(self: Attempt, *arguments: Any, **named: Any) -> None:
        if operation == "adopt":
            whole(self, *arguments, **named)
        raise error

    monkeypatch.setattr(Attempt, operation, interrupted)
    try:
        gc(store, superseded=True, dry_run=False)
    except KeyboardInterrupt:
        pass
    assert Janitor(store).files_of(key) == before
    assert store.standing(key).state == "done"


@pytest.mark.parametrize("operation", ["_acknowledge", "finish"])
def test_gc_that_is_interrupted_after_its_stats_keeps_what_they_name(
    store: Store, operation: str, monkeypatch: Monkey
) -> None:
    key = train(store, {"lr": 1}, ckpt=BIG)

    def interrupted(self: Attempt) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Attempt, operation, interrupted)
    with pytest.raises(KeyboardInterrupt):
        gc(store, superseded=True, dry_run=False)
    assert store.ckpts[key]["weights"] == BIG["weights"]
    assert [finding.kind for finding in audit(store)] == ["superseded"]
    assert store.history.stats(key).generation == 3


def test_gc_whose_stats_may_still_come_keeps_what_they_would_name(store: Store, monkeypatch: Monkey) -> None:
    key = train(store, {"lr": 1}, ckpt=BIG)
    replace, late = store.files.replace, []

    def slow(name: str, data: bytes) -> None:
        if name == layout.stats(key, 3):
            late.append((name, data))
            raise PendingWrite("it hangs")
        replace(name, data)

    monkeypatch.setattr(store.files, "replace", slow)
    assert "it hangs" in gc(store, superseded=True, dry_run=False).left[key]
    replace(*late[0])
    assert store.ckpts[key]["weights"] == BIG["weights"]
    assert [finding.kind for finding in audit(store)] == ["superseded"]


def test_generations_below_are_swept_without_a_claim(store: Store) -> None:
    key = train(store, {"lr": 1}, epochs=1)
    again = attempt_at(store, {"lr": 1})
    again.commit_adopted(done=False)
    again.claim.release()
    top = store.claims.look(key).top
    (item,) = gc(store, superseded=True, dry_run=False).items
    assert all(".g1." in name for name in item.names)
    assert store.claims.look(key).top == top


def test_an_import_brings_the_checkpoint_back(manager: Line, tmp_path: Path) -> None:
    key = manager.process({})
    manager.export_tar(tmp_path / "whole.tar")
    manager.gc(keep_best=0, metric="loss", dry_run=False)
    assert manager.load_tar(tmp_path / "whole.tar").updated == (key,)
    assert manager.ckpts[key]["weights"] == b"w" * 20_000
    assert manager.fetch(key) is manager


# ---- offline


def test_offline_takes_scratch_at_any_age_but_not_that_of_a_held_run(store: Store, tmp_path: Path) -> None:
    held, done = attempt_at(store, {"lr": 1}), train(store, {"lr": 2})
    names = [f"ckpts/{key:.2}/.{key}.g1.c9.pt.0123456789abcdef" for key in (held.key, done)]
    for name in names:
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).write_bytes(b"x" * 100)
    foretold = gc(store, offline=True)
    assert [item.names for item in foretold.items] == [(names[1],)]
    assert gc(store, offline=True, dry_run=False) == foretold
    assert [(tmp_path / "store" / name).exists() for name in names] == [True, False]
    held.claim.release()


def test_what_cannot_be_removed_of_a_popped_run_stops_what_would_go_after_it(
    manager: Line, monkeypatch: Monkey, tmp_path: Path
) -> None:
    key = manager.process({})
    manager.pop(key)
    remove = manager.store.files.remove

    def refuse(name: str) -> bool:
        if name == layout.stats(key, 1):
            raise StoreError("not yours")
        return remove(name)

    monkeypatch.setattr(manager.store.files, "remove", refuse)
    assert manager.gc(offline=True, dry_run=False).left == {key: "not yours"}
    assert (tmp_path / "store" / layout.stats(key, 3)).exists()
    assert key not in manager.configs


def test_offline_takes_all_that_a_pop_has_left_and_the_key_is_free_again(manager: Line, tmp_path: Path) -> None:
    key, other = manager.process({}), manager.process({"lr": 0.2})
    logs = Path(manager.store.logs(key) or "")
    (logs / "deep").mkdir(parents=True)
    (logs / "deep" / "events").write_bytes(b"1" * 1000)
    manager.pop(key)
    assert [item.key for item in gc(manager.store, superseded=True).items] == [other]
    (item,) = manager.gc(offline=True, dry_run=False).items
    assert (item.key, item.what) == (key, "popped run")
    assert f"{layout.logs(key)}/deep/events" in item.names
    assert list((tmp_path / "store").rglob(f"*{key}*")) == []
    assert (audit(manager.store), list(manager.configs)) == ([], [other])
    assert manager.process({}) == key
    assert manager.store.claims.look(key).claims == (1, 2)


def test_a_popped_run_stays_whose_key_another_one_had_to_lengthen(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", key_len=4, durable=False)
    for lr in range(2000):
        key = store.register({"lr": lr}).key
        if len(key) > 4:
            break
    short = key[:4]
    first = store.config(short)
    train(store, first.asdict())
    store.pop(short)
    freed = gc(store, offline=True, dry_run=False)
    assert list(freed.left) == [short]
    assert f"run {key} collided with it" in freed.left[short]
    assert store.registered({"lr": lr}).key == key  # type: ignore[union-attr]


def test_gc_that_is_killed_at_any_removal_of_a_popped_run_leaves_a_store_that_works(monkeypatch: Monkey) -> None:
    kills = 0
    while clean_up_killed_after(kills, World(monkeypatch)):
        kills += 1
    assert kills >= 6


def clean_up_killed_after(removals: int, world: World) -> bool:
    """Whether a popped run is trained anew as if nothing had been, after gc was killed; False where it ended before."""
    popped = finished(world)
    popped.act(lambda: popped.store.pop(popped.key))
    cleaner = world.worker("cleaner", "a")
    stop_at(cleaner, removals, ("remove",))
    try:
        cleaner.act(lambda: gc(cleaner.store, offline=True, dry_run=False))
        return False
    except Killed:
        harm_if(world.lineage() != "", f"what was popped is back after {removals} removals")
    again = world.worker("again", "a").start()  # which registers it anew
    again.commit(1)
    harm_if(world.lineage() != "again.1", "it does not begin from nothing")
    return True


def test_the_test_before_notices_a_tombstone_that_goes_first(monkeypatch: Monkey) -> None:
    remains = gc_offline._remains

    def reversed_remains(*arguments: Any) -> Any:
        before, logs, after = remains(*arguments)
        return after, logs, before

    monkeypatch.setattr(gc_offline, "_remains", reversed_remains)
    with pytest.raises((Harm, AssertionError)):
        test_gc_that_is_killed_at_any_removal_of_a_popped_run_leaves_a_store_that_works(monkeypatch)


def stop_at(worker: Worker, number: int, operations: tuple[str, ...]) -> None:
    """Let ``worker`` be killed after its next ``number`` + 1 of ``operations``."""
    left = [number]

    def count(operation: str) -> Callable[[], None]:
        def reached() -> None:
            left[0] -= 1
            if left[0] < 0:
                worker.die()
            else:
                worker.files.stop("after", operation, "", count(operation))

        return reached

    for operation in operations:
        worker.files.stop("after", operation, "", count(operation))


# ---- beside others


def save(worker: Worker, epoch: int) -> None:
    """``Worker.commit`` with a preview that is one, as gc lists the runs."""
    data = f"{worker.trained()} {worker.name}.{epoch}".strip().encode()
    shown, _ = previews.save({"loss": 1.0}, worker.key)
    attempt = worker.attempt
    assert attempt is not None
    worker.act(lambda: attempt.commit(epoch=epoch, checkpoint=lambda file: file.write(data), preview=shown))


def finished(world: World, name: str = "w0", host: str = "a", lr: float = 0.1) -> Worker:
    worker = world.worker(name, host, {"lr": lr}).start()
    for epoch in (1, 2):
        save(worker, epoch)
    worker.finish()
    return worker


def collect(cleaner: Worker) -> Freed:
    return cleaner.act(lambda: gc(
        cleaner.store, superseded=True, failed=True, keep_best=0, metric="loss", dry_run=False,
    ))  # fmt: skip


@pytest.fixture
def world(monkeypatch: Monkey) -> World:
    return World(monkeypatch)


ERROR = {"type": "ValueError", "message": "no luck", "traceback": ""}
WRITES = ("create", "replace", "write", "copy", "remove")


@pytest.mark.parametrize("state", ["done", "failed", "released"])
def test_gc_that_is_killed_at_any_write_leaves_a_run_as_it_stood(monkeypatch: Monkey, state: str) -> None:
    assert kill_everywhere(monkeypatch, state) >= 9


def kill_everywhere(monkeypatch: Monkey, state: str = "done") -> int:
    kills = 0
    while collect_killed_after(kills, World(monkeypatch), state):
        kills += 1
    return kills


def collect_killed_after(writes: int, world: World, state: str) -> bool:
    """Whether all is as it was after gc was killed, and a second one ends it; False where it ended before."""
    preview = at_rest(world, state).newest().preview
    cleaner = world.worker("cleaner", "a")
    stop_at(cleaner, writes, WRITES)
    try:
        collect(cleaner)
        return False
    except Killed:
        for host in ("a", "b"):  # where its death is proven, and where its silence has to tell
            check_unharmed(world.worker(f"reader after {writes} writes", host), preview, state)
    again = world.worker("again", "a")
    collect(again)
    harm_if(again.standing().state != state, "a second gc does not leave it so")
    harm_if(again.newest().has_ckpt != (state == "released"), "a second gc does not end it")
    findings = again.act(lambda: audit(again.store))
    harm_if(findings != [], str(findings))
    return True


def at_rest(world: World, state: str) -> Worker:
    if state == "done":
        return finished(world)
    worker = world.worker("w0", "a").start()
    for epoch in (1, 2):
        save(worker, epoch)
    claim = worker.attempt.claim  # type: ignore[union-attr]
    worker.act(claim.release if state == "released" else lambda: claim.fail(ERROR))
    return worker


def check_unharmed(reader: Worker, preview: Content, state: str) -> None:
    if reader.standing().state == "held":
        reader.world.clock.sleep(1e6)
    standing = reader.standing()
    harm_if(standing.state != state, f"{standing.state} for a {reader.name}")
    harm_if(state == "failed" and standing.record.error != ERROR, "another error")
    harm_if((reader.newest().preview, reader.newest().epoch) != (preview, 2), "another result")
    stats = reader.act(lambda: reader.store.history.stats(reader.key))
    harm_if(reader.act(lambda: reader.store.is_done(stats)) != (state == "done"), "not done any more")


def test_the_test_before_notices_stats_that_are_marked_done_too_late(monkeypatch: Monkey) -> None:
    committed = Attempt.commit_adopted
    monkeypatch.setattr(Attempt, "commit_adopted", lambda self, *, done: committed(self, done=False))
    with pytest.raises(Harm, match="not done any more"):
        kill_everywhere(monkeypatch)


def test_the_test_before_notices_claims_that_do_not_say_that_they_are_gcs(monkeypatch: Monkey) -> None:
    monkeypatch.setattr("jimmy_manager.archives.checkpoints.GC", "")
    with pytest.raises(Harm, match="dead for a"):
        kill_everywhere(monkeypatch)


def test_gc_that_removes_before_it_commits_is_noticed(monkeypatch: Monkey) -> None:
    def hasty(attempt: Attempt, plan: Any) -> str:
        for one in plan.stats.commits:
            for name in one.contents():
                attempt._files.remove(name)
        return ""

    monkeypatch.setattr("jimmy_manager.manager.gc._commit", hasty)
    with pytest.raises((Harm, FileNotFoundError, RuntimeError)):
        kill_everywhere(monkeypatch)


def test_a_worker_that_goes_on_between_plan_and_claim_keeps_everything(world: World) -> None:
    finished(world)
    cleaner = world.worker("cleaner", "a")
    collecting = cleaner.stall(lambda: collect(cleaner), "before", "create", "claims/")
    w1 = world.worker("w1", "a")
    assert w1.take()
    w1.adopt()
    save(w1, 3)
    freed = collecting.resume()
    assert (freed.items, list(freed.left.values())) == ((), ["another worker has just claimed it"])
    assert world.lineage() == "w0.1 w0.2 w1.3"
    save(w1, 4)
    w1.finish()
    assert world.lineage() == "w0.1 w0.2 w1.3 w1.4"


def test_a_run_that_has_changed_since_the_plan_is_left(world: World, monkeypatch: Monkey) -> None:
    finished(world)
    cleaner = world.worker("cleaner", "a")
    slept = world.clock.sleep

    def extended(seconds: float) -> None:
        monkeypatch.setattr(world.clock, "sleep", slept)
        w1 = world.worker("w1", "a")
        assert w1.take()
        w1.adopt()
        save(w1, 3)
        w1.finish()

    monkeypatch.setattr(world.clock, "sleep", extended)
    freed = collect(cleaner)
    assert list(freed.left.values()) == ["it has changed since it was looked at"]
    assert world.lineage() == "w0.1 w0.2 w1.3"


def a_worker_extends_a_run_that_gc_has_chosen_by_its_epoch(world: World, monkeypatch: Monkey) -> None:
    finished(world)
    cleaner = world.worker("cleaner", "a")
    table, asked = cleaner.store.table, []

    def then_extended(*arguments: Any) -> Any:
        rows = table(*arguments)
        asked.append(rows)
        if len(asked) == 1:
            w1 = world.worker("w1", "a")
            assert w1.take()
            w1.adopt()
            save(w1, 3)
            w1.finish()
        return rows

    monkeypatch.setattr(cleaner.store, "table", then_extended)
    cleaner.act(lambda: gc(cleaner.store, where="epoch == 2", older_than=0, dry_run=False))
    harm_if(world.lineage() != "w0.1 w0.2 w1.3", f"epoch 3 was not meant: {world.lineage()!r}")


def test_what_a_filter_says_is_true_of_the_run_that_is_claimed(world: World, monkeypatch: Monkey) -> None:
    a_worker_extends_a_run_that_gc_has_chosen_by_its_epoch(world, monkeypatch)


def test_that_schedule_does_harm_where_gc_decides_by_what_it_saw_before_the_look(
    world: World, monkeypatch: Monkey
) -> None:
    rows, seen = gc_plan._rows, []

    def first(*arguments: Any) -> Any:
        seen.append(seen[0] if seen else rows(*arguments))
        return seen[0]

    monkeypatch.setattr(gc_plan, "_rows", first)
    with pytest.raises(Harm, match="epoch 3 was not meant"):
        a_worker_extends_a_run_that_gc_has_chosen_by_its_epoch(world, monkeypatch)


def a_worker_extends_the_run_while_gc_stalls_before_its_stats(world: World) -> None:
    cleaner = world.worker("cleaner", "b")
    collecting = cleaner.stall(lambda: collect(cleaner), "before", "replace", "stats/")
    w1 = world.worker("w1")
    harm_if(w1.standing().is_free or w1.standing().state != "held", "a run that gc holds is free")
    world.clock.sleep(1e6)
    assert w1.standing().state == "done"
    assert w1.take()
    w1.adopt()
    freed = collecting.resume()
    harm_if(bool(freed.items), "gc removes what it does not own")
    save(w1, 3)
    save(w1, 4)
    w1.finish()
    harm_if(world.lineage() != "w0.1 w0.2 w1.3 w1.4", f"the worker's epochs are lost: {world.lineage()!r}")


def test_a_worker_that_overtakes_a_stalled_gc_goes_on_from_the_checkpoint(world: World) -> None:
    finished(world)
    a_worker_extends_the_run_while_gc_stalls_before_its_stats(world)


def test_that_schedule_does_harm_where_late_stats_of_gc_count_as_a_newer_commit(
    world: World, monkeypatch: Monkey
) -> None:
    finished(world)
    monkeypatch.setattr(Attempt, "_is_better_than", lambda self, found: False)
    with pytest.raises((Harm, NewerCommit)):
        a_worker_extends_the_run_while_gc_stalls_before_its_stats(world)


def test_that_schedule_does_harm_where_gc_does_not_look_after_its_commit(world: World, monkeypatch: Monkey) -> None:
    finished(world)
    monkeypatch.setattr(Attempt, "_acknowledge", lambda self: None)
    monkeypatch.setattr(Attempt, "finish", lambda self: None)
    with pytest.raises(Harm, match="does not own"):
        a_worker_extends_the_run_while_gc_stalls_before_its_stats(world)


@pytest.mark.parametrize("point", [("create", "claims/"), ("copy", "previews/"), ("replace", "stats/")])
def test_a_run_that_cannot_be_written_anew_is_left_as_it_was(world: World, point: tuple[str, str]) -> None:
    finished(world)
    cleaner = world.worker("cleaner", "a")

    def refuse() -> None:
        raise StoreError("no space left on device")

    cleaner.files.stop("before", *point, refuse)
    freed = collect(cleaner)
    assert (freed.items, list(freed.left.values())) == ((), ["no space left on device"])
    assert world.worker("reader", "a").standing().state == "done"
    assert world.lineage() == "w0.1 w0.2"
    assert len(collect(cleaner).items) == 1


def test_of_two_gcs_at_once_one_does_it(world: World) -> None:
    finished(world)
    first, second = world.worker("first", "a"), world.worker("second", "a")
    collecting = first.stall(lambda: collect(first), "after", "create", "claims/")
    assert collect(second).items == ()
    assert len(collecting.resume().items) == 1
    assert world.worker("reader", "a").standing().state == "done"


def test_a_reader_that_is_late_is_told_of_gc_and_not_of_damage(world: World) -> None:
    w0 = finished(world)
    reader = world.worker("reader")
    reading = reader.stall(lambda: reader.store.ckpts[w0.key], "before", "open", "ckpts/")
    collect(world.worker("cleaner", "a"))
    with pytest.raises(CheckpointError, match="was removed by gc"):
        reading.resume()


def test_gc_waits_once_for_all_runs_of_other_hosts_where_listings_lag(monkeypatch: Monkey) -> None:
    world = World(monkeypatch, stale_s=30.0)
    for lr in range(5):
        finished(world, f"w{lr}", f"host {lr}", lr)
    started = world.clock.t
    assert len(collect(world.worker("cleaner", "a")).items) == 5
    assert world.clock.t - started == pytest.approx(120)


def test_a_worker_and_gc_that_race_in_threads_lose_no_epoch(tmp_path: Path) -> None:
    """Twelve runs are extended while gc tries to take their checkpoints: each ends extended, or whole without one."""
    config = {"arch": "cnn", "seed": 0}
    first = Line(tmp_path / "store", config, verbose=False, device="cpu", durable=False)
    keys = [first.process({"lr": lr}) for lr in range(12)]
    outcomes: dict[str, Any] = {}

    def extend() -> None:
        worker = Line(tmp_path / "store", config, verbose=False, device="cpu", durable=False)
        for lr in sorted(range(12), key=lambda lr: first.configs.get_key(config | {"lr": lr})):  # as gc goes
            try:
                outcomes[worker.process({"lr": lr}, num_epochs=6, wait=True)] = "extended"
            except CheckpointError as error:
                outcomes[worker.store.find(worker.get_config({"lr": lr})) or ""] = str(error)

    collector = Store(tmp_path / "store", durable=False)
    gc(collector, where="epoch == 3", older_than=0)  # which imports what a first call has to
    thread = threading.Thread(target=extend)
    thread.start()
    while thread.is_alive():
        gc(collector, where="epoch == 3", older_than=0, dry_run=False)
    thread.join()
    for key in keys:
        stats = first.stats[key]
        assert (first.store.standing(key).state, stats["done"]) == ("done", True), outcomes[key]
        if outcomes[key] == "extended":
            assert stats["epoch"] == 6
            assert first.ckpts[key]["weights"] == b"w" * 20_000
        else:
            assert "removed by gc" in outcomes[key]
            assert stats["epoch"] == 3
    assert audit(first.store) == []


KILLED = """
import os, signal, sys
from jimmy_manager.archives import disk
from jimmy_manager.archives.store import Store
from jimmy_manager.manager.gc import gc

left = int(sys.argv[2])

def counted(name):
    real = getattr(disk.os, name)
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

for name in ("link", "rename", "unlink"):
    setattr(disk.os, name, counted(name))
gc(Store(sys.argv[1]), superseded=True, older_than=0, keep_best=1, metric="loss", dry_run=False)
"""


def test_sigkill_of_gc_anywhere_leaves_every_run_done_and_a_second_gc_ends_it(manager: Line, tmp_path: Path) -> None:
    keys = [manager.process({"lr": lr}) for lr in (0.1, 0.2)]
    previews = {key: manager.previews[key] for key in keys}
    kills = 0
    for number in range(0, 40, 3):
        place = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "store", place)
        done = subprocess.run([sys.executable, "-c", KILLED, str(place), str(number)], capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        kills += done.returncode != 0
        store = Store(place)
        for key in keys:
            assert store.previews[key] == previews[key]
            assert (store.standing(key).state, store.stats[key]["done"]) == ("done", True)
        assert store.ckpts[keys[0]]["weights"] == b"w" * 20_000
        gc(store, superseded=True, older_than=0, keep_best=1, metric="loss", dry_run=False)
        assert [store.history.stats(key).commits[-1].has_ckpt for key in keys] == [True, False]
        gc(store, offline=True, dry_run=False)
        assert audit(store) == []
    assert kills >= 6


def test_a_popped_run_is_unknown_afterwards(manager: Line) -> None:
    key = manager.process({})
    manager.pop(key)
    manager.gc(offline=True, dry_run=False)
    with pytest.raises(KeyNotFound):
        manager.fetch(key)
