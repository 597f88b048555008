from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from jimmy_manager.archives import layout
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.janitor import SCRATCH_AGE_S, Janitor, Swept
from jimmy_manager.archives.layout import ARCHIVES
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, KeyNotFound, ReadOnlyStore, StoreError
from tests.archives.stepping import FakeClock, Killed, Served, Server, Worker, World

Log = pytest.LogCaptureFixture
Monkey = pytest.MonkeyPatch
SCRATCH = "ckpts/{0:.2}/.{0}.g1.c1.pt.0123456789abcdef"


@pytest.fixture
def world(monkeypatch: Monkey) -> World:
    return World(monkeypatch)


@pytest.fixture
def remote(monkeypatch: Monkey) -> World:
    """A world whose listings may be 30 s old."""
    return World(monkeypatch, stale_s=30.0)


class Cleaner:
    """A worker with a janitor."""

    def __init__(self, world: World) -> None:
        self.worker = world.worker("cleaner", "a")
        self.janitor = Janitor(self.worker.store)

    def sweep(self, **options: bool) -> Swept:
        return self.worker.act(lambda: self.janitor.sweep(**options))


def all_files(worker: Worker) -> set[str]:
    files = worker.files.below
    folders = [f"{archive}/{worker.key[:2]}" for archive in ARCHIVES]
    return {f"{folder}/{name}" for folder in folders for name in files.names(folder)}


def trained_by(world: World, generations: int) -> Worker:
    """The last of several workers, each of which committed once and died."""
    for i in range(1, generations + 1):
        worker = world.worker(f"w{i}", "a").start()
        worker.commit(i)
        worker.die()
    return worker


def test_generations_below_the_highest_whole_one_go_and_nothing_else_does(world: World) -> None:
    worker = trained_by(world, 3)
    before = all_files(worker)
    swept = Cleaner(world).sweep()
    assert set(swept.names) == {name for name in before if ".g1." in name or ".g2." in name} - {
        layout.claim(worker.key, 1), layout.claim(worker.key, 2),
    }
    assert all_files(worker) == before - set(swept.names)
    assert world.lineage() == "w1.1 w2.2 w3.3"


def test_a_sweep_finds_nothing_more_after_a_sweep(world: World) -> None:
    trained_by(world, 3)
    cleaner = Cleaner(world)
    assert cleaner.sweep().names
    assert cleaner.sweep() == Swept()


def test_the_sizes_of_what_was_removed_are_added_up(world: World) -> None:
    worker = trained_by(world, 2)
    sizes = {name: worker.files.below.size(name) for name in all_files(worker)}
    swept = Cleaner(world).sweep()
    assert swept.size == sum(sizes[name] for name in swept.names) > 0


def test_a_dry_run_tells_what_a_sweep_then_removes(world: World) -> None:
    worker = trained_by(world, 3)
    before = all_files(worker)
    foretold = Cleaner(world).sweep(dry_run=True)
    assert all_files(worker) == before
    assert Cleaner(world).sweep() == foretold != Swept()


def test_a_dry_run_works_on_a_read_only_store_where_a_sweep_is_refused(world: World) -> None:
    worker = trained_by(world, 2)
    store = Store("anywhere", files=worker.files.below, clock=world.clock, stale_s=0.0, read_only=True)
    assert Janitor(store).sweep(dry_run=True).names
    with pytest.raises(ReadOnlyStore):
        Janitor(store).sweep()


def test_a_run_of_one_generation_is_not_even_read(world: World) -> None:
    trained_by(world, 1)
    cleaner = Cleaner(world)
    cleaner.worker.files.stop("before", "open", "ckpts/", lambda: pytest.fail("read for nothing"))
    assert cleaner.sweep() == Swept()


def test_nothing_goes_where_listings_lag_until_all_hosts_must_have_seen_it(remote: World) -> None:
    trained_by(remote, 2)
    cleaner = Cleaner(remote)
    assert cleaner.sweep() == Swept()
    remote.clock.sleep(59)
    assert cleaner.sweep() == Swept()
    remote.clock.sleep(1)
    assert cleaner.sweep().names


def test_a_sweep_that_waits_decides_at_once(remote: World) -> None:
    trained_by(remote, 2)
    started = remote.clock.t
    assert Cleaner(remote).sweep(wait=True).names
    assert remote.clock.t - started == pytest.approx(60)


def test_a_commit_starts_the_wait_anew(remote: World) -> None:
    trained_by(remote, 1)
    worker = remote.worker("w2", "a").start()
    worker.commit(2)
    cleaner = Cleaner(remote)
    for epoch in (3, 4):
        assert cleaner.sweep() == Swept()
        remote.clock.sleep(50)
        worker.act(worker.attempt.claim.renew)
        worker.commit(epoch)
    assert cleaner.sweep() == Swept()
    remote.clock.sleep(60)
    assert cleaner.sweep().names


@pytest.mark.parametrize("name", [layout.ckpt, layout.preview, layout.stats])
def test_a_damaged_generation_is_no_reason_to_remove_what_it_superseded(world: World, name: Callable[..., str]) -> None:
    worker = trained_by(world, 3)
    damaged = name(worker.key, 3) if name is layout.stats else name(worker.key, 3, 1)
    files = worker.files.below
    files.replace(damaged, files.read(damaged)[:-1])
    swept = Cleaner(world).sweep()
    assert swept.names
    assert all(".g1." in name for name in swept.names)
    assert world.lineage() == "w1.1 w2.2"


def test_a_checkpoint_that_cannot_be_read_keeps_all_that_is_below(world: World, caplog: Log) -> None:
    trained_by(world, 3)
    cleaner = Cleaner(world)

    def refuse() -> None:
        cleaner.worker.files.stop("before", "open", "ckpts/", refuse)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    cleaner.worker.files.stop("before", "open", "ckpts/", refuse)
    assert cleaner.sweep() == Swept()
    assert "cannot read ckpts/" in caplog.text


def test_the_files_of_a_popped_run_go_and_it_stays_popped(world: World) -> None:
    worker = trained_by(world, 2)
    person = world.worker("person", "a")
    person.act(lambda: person.store.pop(person.key))
    swept = Cleaner(world).sweep()
    assert len(swept.names) >= 6
    assert not any(name.startswith(("ckpts/", "previews/")) for name in all_files(worker))
    assert layout.stats(worker.key, 3) in all_files(worker)
    assert world.lineage() == ""
    with pytest.raises(KeyNotFound):
        person.act(lambda: person.store.pop(person.key))


def test_a_janitor_that_is_killed_at_any_removal_leaves_what_readers_find_and_no_dangling_stats(world: World) -> None:
    worker = trained_by(world, 4)
    files = worker.files.below
    total = len(Cleaner(world).sweep(dry_run=True).names)
    assert total >= 9
    for _ in range(total):
        cleaner = Cleaner(world)
        cleaner.worker.files.stop("after", "remove", "", cleaner.worker.die)
        with pytest.raises(Killed):
            cleaner.sweep()
        assert world.lineage() == "w1.1 w2.2 w3.3 w4.4"
        reader = world.worker("reader")
        for generation in reader.claims.look(worker.key).stats:
            for commit in reader.history.read_stats(worker.key, generation).commits:
                assert all(files.size(name) == content.size for name, content in commit.contents().items())
    assert Cleaner(world).sweep() == Swept()


def test_the_test_before_notices_files_that_go_before_their_stats(world: World, monkeypatch: Monkey) -> None:
    monkeypatch.setattr("jimmy_manager.archives.janitor.SWEPT_ARCHIVES", ("ckpts", "previews", "stats"))
    with pytest.raises(FileNotFoundError):
        test_a_janitor_that_is_killed_at_any_removal_leaves_what_readers_find_and_no_dangling_stats(world)


def test_what_an_owner_is_about_to_name_stays(world: World) -> None:
    trained_by(world, 1)
    worker = world.worker("w2", "a").start()
    worker.commit(2)
    committing = worker.stall(lambda: worker.commit(3), "before", "replace", "stats/")
    assert Cleaner(world).sweep().names
    committing.resume()
    assert world.lineage() == "w1.1 w2.2 w2.3"


def test_a_reader_with_an_old_listing_finds_the_files_gone_and_then_the_newer_ones(remote: World) -> None:
    trained_by(remote, 1)
    remote.clock.sleep(100)
    worker = remote.worker("w2", "a").start()
    worker.commit(2)
    reader = remote.worker("reader")
    reader.view.lag_s = 70.0  # more than is promised, or it would have seen what the janitor waited for
    assert Cleaner(remote).sweep(wait=True).names
    assert reader.lineage() == "w1.1 w2.2"


def test_a_file_that_may_not_be_removed_does_not_keep_the_others(world: World, caplog: Log) -> None:
    trained_by(world, 2)
    cleaner = Cleaner(world)

    def refuse() -> None:
        raise StoreError("cannot remove it: Permission denied")

    cleaner.worker.files.stop("before", "remove", "ckpts/", refuse)
    swept = cleaner.sweep()
    assert {name.split("/")[0] for name in swept.names} == {"stats", "previews"}
    assert "Permission denied" in caplog.text
    assert [name.split("/")[0] for name in cleaner.sweep().names] == ["ckpts"]


def put_scratch(world: World, size: int = 3) -> str:
    worker = world.worker("writer")
    name = SCRATCH.format(worker.key)
    worker.view.replace(name, b"x" * size)
    return name


def test_scratch_goes_after_an_hour_without_growth(world: World) -> None:
    name = put_scratch(world)
    cleaner = Cleaner(world)
    assert cleaner.sweep() == Swept()
    world.clock.sleep(SCRATCH_AGE_S - 1)
    assert cleaner.sweep() == Swept()
    world.clock.sleep(1)
    assert cleaner.sweep() == Swept((name,), 3)


def test_scratch_that_grows_stays(world: World) -> None:
    cleaner = Cleaner(world)
    for size in range(5):
        put_scratch(world, size)
        assert cleaner.sweep() == Swept()
        world.clock.sleep(SCRATCH_AGE_S)


def test_scratch_goes_at_any_age_where_nobody_else_works(world: World) -> None:
    name = put_scratch(world)
    assert Cleaner(world).sweep(offline=True).names == (name,)


def test_what_was_moved_aside_as_damaged_stays(world: World) -> None:
    worker = world.worker("w0")
    aside = layout.scratch(f"{layout.DAMAGED}/{worker.key}.json")
    worker.view.replace(aside, b"?")
    assert Cleaner(world).sweep(offline=True) == Swept()
    assert worker.view.read(aside) == b"?"


def test_a_writer_whose_scratch_was_swept_writes_again(tmp_path: Path, monkeypatch: Monkey) -> None:
    world = World(monkeypatch, server=Disk(tmp_path, durable=False))
    worker = world.worker("w0").start()
    rename, swept = os.rename, []

    def sweep_first(source: str, target: str) -> None:
        if len(swept) < 3:
            swept.extend(Cleaner(world).sweep(offline=True).names)
        rename(source, target)

    monkeypatch.setattr(os, "rename", sweep_first)
    worker.commit(1)
    assert len(swept) == 3
    assert world.lineage() == "w0.1"


def test_a_second_janitor_leaves_the_work_to_the_first(tmp_path: Path, monkeypatch: Monkey) -> None:
    world = World(monkeypatch, server=Disk(tmp_path, durable=False))
    trained_by(world, 2)
    janitor = Janitor(Store(tmp_path, stale_s=0.0, clock=FakeClock()))
    with filelock.FileLock(tmp_path / ".janitor.lock"):
        assert janitor.sweep() == Swept()
    assert janitor.sweep().names


def test_a_sweep_of_nothing_makes_nothing(tmp_path: Path) -> None:
    assert Janitor(Store(tmp_path / "mistyped")).sweep() == Swept()
    assert not (tmp_path / "mistyped").exists()


def test_a_run_of_which_nothing_is_whole_is_left_alone(world: World) -> None:
    worker = trained_by(world, 3)
    files = worker.files.below
    for i in (1, 2, 3):
        files.replace(layout.ckpt(worker.key, i, 1), b"")
    # Each generation also holds the commit that it adopted; damage those as well.
    for i in (2, 3):
        files.replace(layout.ckpt(worker.key, i, 0), b"")
    before = all_files(worker)
    assert Cleaner(world).sweep() == Swept()
    assert all_files(worker) == before
    reader = world.worker("reader")
    with pytest.raises(DamagedRecord):
        reader.act(lambda: reader.history.newest(reader.key, reader.history.verify))


def test_the_stage_itself_lets_listings_lag() -> None:
    clock = FakeClock()
    server = Server(clock)
    mine, other = Served(server), Served(server)
    other.lag_s = 10
    mine.replace("stats/ab/x", b"")
    assert (mine.names("stats/ab"), other.names("stats/ab")) == (["x"], [])
    clock.sleep(10)
    assert other.names("stats/ab") == ["x"]
