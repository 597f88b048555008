"""The index gives the rows of a plain scan, whatever happened to the store, to the index or to its place."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import cache, index, layout, listing, previews
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.cache import Cache
from jimmy_manager.archives.columns import Indexed
from jimmy_manager.archives.index import cache_path, read_changed, read_plainly, read_rows
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import JimmyError
from tests.archives.runs import filling
from tests.archives.runs import listing as files_below

CONFIG = {"lr": 0.1, "seed": 0}
EMPTY = Indexed("abcdef12", "new", None, None, None, None, None, False, {}, {})


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the runs that were read from the archives since the list was last cleared."""
    seen: list[str] = []
    read = listing._read

    def noting(store: Store, claims: Any, key: str, trace: Any) -> Any:
        seen.append(key)
        return read(store, claims, key, trace)

    monkeypatch.setattr(listing, "_read", noting)
    return seen


def begun(store: Store, config: Mapping[str, Any] = CONFIG, epochs: int = 1, **shown: Any) -> Attempt:
    run = store.register(config)
    claim = store.claims.take(store.standing(run.key), run.digest)
    assert claim is not None
    attempt = Attempt(store.history, claim)
    attempt.adopt()
    for epoch in range(1, epochs + 1):
        save(attempt, epoch, **shown)
    return attempt


def save(attempt: Attempt, epoch: int, **shown: Any) -> None:
    preview, _ = previews.save({"epoch": epoch, **shown}, attempt.key)
    attempt.commit(epoch=epoch, checkpoint=filling(b"checkpoint"), preview=preview)


def finished(store: Store, config: Mapping[str, Any] = CONFIG, **shown: Any) -> str:
    attempt = begun(store, config, **shown)
    attempt.finish()
    return attempt.key


def settle(store: Store) -> None:
    """Make every directory as old as those of a store that was not written to for a while."""
    long_ago = time.time() - 1000
    for folder in (Path(store.directory or "") / archive for archive in layout.ARCHIVES):
        for path in [*folder.glob("*/*"), *folder.glob("*")]:
            os.utime(path, (long_ago, long_ago))


def exactly(rows: list[Indexed]) -> str:
    """The rows with the types of all values; equality alone would take 1 for True and 1.0."""
    return repr([row._replace(config=sort(row.config), preview=sort(row.preview)) for row in rows])


def sort(fields: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(fields.items()))


def assert_equal(store: Store) -> list[Indexed]:
    rows = read_rows(store)
    assert exactly(rows) == exactly(read_plainly(store))
    return rows


def index_files(home: Path) -> list[Path]:
    return sorted((home / "jimmy_manager").glob("*.sqlite"))


def rows_of(opened: Cache) -> list[Indexed]:
    opened.begin()
    columns = opened.columns()
    assert columns is not None
    return list(columns.rows())


def test_rows_say_what_a_list_shows(store: Store) -> None:
    key = finished(store, {"optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "extra": {}}, loss=0.5)
    [row] = assert_equal(store)
    [again] = read_rows(store)
    assert row == again
    stats = store.stats[key]
    assert row == Indexed(
        key, "done", 1, 0, stats["at"], stats["train_s"], stats["eval_s"], True,
        {"optim.lr": 0.1, "optim.betas": [0.9, 0.99], "extra": {}}, {"epoch": 1, "loss": 0.5}, (),
    )


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, 1, -1, 1.0, -1.5, 1e300, 5e-324, 2**63 - 1, -(2**63), 2**63, 10**40, "", "1", "true",
        "null", "é\0x", "\ud800", [], [1, [True, None]], [{"a": 1.0}], {},
    ],
)
def test_every_value_comes_back_with_its_type(tmp_path: Path, value: Any) -> None:
    row = EMPTY._replace(config={"x": value, "y": 1}, preview={"p": value})
    other = Indexed("abcdef13", "new", 1, 2, 3.0, 0.5, 0.25, True, {"z": 2}, {}, ("damage",))
    opened = Cache(str(tmp_path / "x.sqlite"))
    opened.put([(row, False), (other, True)], [], {})
    assert exactly(rows_of(opened)) == exactly([row, other])
    assert opened.live() == ["abcdef13"]
    opened.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.0])
def test_numbers_that_are_none_come_back_from_previews(store: Store, value: float) -> None:
    finished(store, loss=value)
    assert repr(assert_equal(store)[0].preview["loss"]) == repr(value)


def test_fields_beyond_the_last_column_come_back_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_COLUMNS", 3)
    rows = [
        EMPTY._replace(key=f"abcdef{i}0", config={f"f{j}": [j, True] for j in range(i)}, preview={f"g{i}": None})
        for i in range(8)
    ]
    opened = Cache(str(tmp_path / "x.sqlite"))
    opened.put([(row, False) for row in rows], [], {})
    assert exactly(rows_of(opened)) == exactly(rows)
    opened.close()


def test_hostile_field_names_are_only_names(tmp_path: Path) -> None:
    config = {'x"; DROP TABLE runs; --': 1, "key": 2, "c0": 3, "": 4, "\ud800": 5, "ÀÉ": 6}
    row = EMPTY._replace(config=config)
    opened = Cache(str(tmp_path / "x.sqlite"))
    opened.put([(row, False)], [], {})
    assert exactly(rows_of(opened)) == exactly([row])
    opened.close()


def test_what_has_not_changed_is_not_read_again(store: Store, reads: list[str]) -> None:
    for n in range(20):
        finished(store, {"n": n})
    registered = store.register({"n": 99}).key
    settle(store)
    assert_equal(store)
    reads.clear()
    assert len(read_rows(store)) == 21
    assert reads == []
    finished(store, {"n": 99})
    assert [row.state for row in read_rows(store) if row.key == registered] == ["done"]
    assert reads == [registered]


def test_a_heartbeat_makes_only_its_own_run_be_read(store: Store, reads: list[str]) -> None:
    attempt = begun(store)
    neighbour = next(
        key for n in range(10**6) if (key := store.register({"n": n}).key)[:2] == attempt.key[:2]
    )
    settle(store)
    assert_equal(store)
    attempt.claim.renew()
    reads.clear()
    read_rows(store)
    assert set(reads) == {attempt.key}
    assert neighbour not in reads
    attempt.claim.drop()


def test_the_state_of_a_held_run_is_judged_anew_each_time(store: Store) -> None:
    attempt = begun(store)
    settle(store)
    assert [row.state for row in assert_equal(store)] == ["held"]
    attempt.claim.drop()  # nothing changes on disk, but nobody holds it now
    assert [row.state for row in assert_equal(store)] == ["dropped"]
    attempt = begun(store)
    attempt.claim.release()
    assert [row.state for row in assert_equal(store)] == ["released"]


def test_a_change_within_one_tick_of_the_clock_is_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory keeps its mtime, as on a file system whose time stamps are coarse."""
    attempt = begun(store, loss=1.0)
    shard = Path(store.directory or "") / "stats" / attempt.key[:2]
    name = shard / f"{attempt.key}.g1.json"
    attempt.claim.release()

    def freeze() -> None:
        for path in (name, shard):
            os.utime(path, ns=(tick, tick))

    tick = time.time_ns()
    freeze()
    assert assert_equal(store)[0].epoch == 1
    changed = store.history.read_stats(attempt.key, 1)
    newest = changed.commits[-1]._replace(epoch=7)
    raw = changed._replace(commits=(newest,)).seal()
    assert len(raw) == name.stat().st_size, "the same size"
    name.write_bytes(raw)
    freeze()
    assert assert_equal(store)[0].epoch == 7


def test_the_guard_against_one_tick_is_what_sees_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_TICK_S", -1e9)
    with pytest.raises(AssertionError):
        test_a_change_within_one_tick_of_the_clock_is_seen(store, monkeypatch)


def test_a_new_ledger_shows_in_every_row(store: Store) -> None:
    finished(store)
    settle(store)
    assert_equal(store)
    store.edit_schema("add", "amp", False)
    assert assert_equal(store)[0].config["amp"] is False


def test_who_has_a_store_open_sees_what_others_enter_into_the_ledger(store: Store) -> None:
    finished(store, {"optim": {"lr": 0.1}})
    settle(store)
    assert list(store.table("optim.lr == 0.1").index)
    Store(store.directory).schema.rename("optim.lr", "rate")
    assert list(store.table("rate == 0.1").index)


def test_two_views_of_a_store_whose_ledger_was_edited_read_no_run_again(store: Store, reads: list[str]) -> None:
    finished(store, {"lr": 0.1})
    settle(store)
    other = Store(store.directory)
    other.schema.rename("lr", "rate")
    assert read_rows(other)[0].config == {"rate": 0.1}
    settle(store)
    read_rows(other)
    reads.clear()
    for view in (store, other, store, other):
        assert read_rows(view)[0].config == {"rate": 0.1}
    assert reads == []


def test_damage_is_told_until_it_is_gone(store: Store) -> None:
    key = finished(store)
    path = Path(store.directory or "") / layout.preview(key, 1, 1)
    raw = path.read_bytes()
    path.write_bytes(b"")
    assert assert_equal(store)[0].damage
    settle(store)
    assert assert_equal(store)[0].damage
    path.write_bytes(raw)
    assert assert_equal(store)[0].damage == ()


def test_nothing_is_written_into_the_store(store: Store) -> None:
    finished(store)
    root = Path(store.directory or "")
    before = files_below(root)
    only_looking = Store(root, read_only=True)
    assert_equal(only_looking)
    assert_equal(only_looking)
    assert files_below(root) == before


def test_a_spoilt_index_is_made_anew_and_never_an_error(store: Store, cache_home: Path) -> None:
    for n in range(30):
        finished(store, {"n": n})
    wanted = exactly(assert_equal(store))
    [path] = index_files(cache_home)
    whole = path.read_bytes()
    for spoilt in (b"", b"not a database" * 100, whole[:100], whole[: len(whole) // 2], bytes(len(whole))):
        path.write_bytes(spoilt)
        assert exactly(read_rows(store)) == wanted
    generator = random.Random(0)
    for _ in range(25):
        raw = bytearray(path.read_bytes())
        for position in range(100, len(raw), generator.randrange(100, 3000)):
            raw[position] = generator.randrange(256)
        path.write_bytes(raw)
        read_rows(store)  # which rows it gives is not promised: SQLite has no checksums
        path.unlink(missing_ok=True)
        assert exactly(read_rows(store)) == wanted


def test_an_index_of_another_version_or_shape_is_made_anew(store: Store, cache_home: Path) -> None:
    finished(store)
    wanted = exactly(assert_equal(store))
    [path] = index_files(cache_home)
    for statement in (
        "PRAGMA user_version = 99", "DROP TABLE shards", "DROP TABLE runs", "ALTER TABLE runs DROP COLUMN done",
        "UPDATE shards SET names = '{', is_settled = 0", "UPDATE runs SET damage = '['", "UPDATE runs SET more = x'ff'",
        "CREATE TABLE other (x)", "DELETE FROM meta", "UPDATE shards SET names = '[]', is_settled = 0",
        "UPDATE shards SET names = '{\"a\": 1}', is_settled = 0", "UPDATE shards SET mtime = 'x'",
        "UPDATE shards SET seen = 'x', is_settled = 0", "UPDATE runs SET damage = '7'", "UPDATE runs SET more = '7'",
        "UPDATE runs SET state = NULL", "UPDATE runs SET epoch = 'x'", "UPDATE runs SET key = '../../etc', is_live = 1",
        "UPDATE fields SET side = 'x'", "UPDATE fields SET path = NULL", "UPDATE runs SET c0 = x'ff'",
        "UPDATE shards SET archive = x'00' WHERE archive = 'stats'", "DELETE FROM fields",
    ):
        sql = sqlite3.connect(path)
        sql.execute(statement)
        sql.commit()
        sql.close()
        assert exactly(read_rows(store)) == wanted, statement


def test_without_a_place_for_it_there_is_no_index(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(store)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_path(store) is None
    assert_equal(store)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    path = cache_path(store)
    assert path is not None
    Path(path).mkdir()
    assert_equal(store)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = cache_path(store)
    assert path is not None
    assert path.startswith(str(tmp_path / "home" / ".cache" / "jimmy_manager"))
    assert cache_path(Store(None)) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_directory_that_must_not_be_written_is_left_alone(store: Store, cache_home: Path) -> None:
    finished(store)
    (cache_home / "jimmy_manager").mkdir(parents=True)
    (cache_home / "jimmy_manager").chmod(0o500)
    assert_equal(store)


def test_while_another_process_writes_the_rows_are_right_all_the_same(
    store: Store, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "BUSY_S", 0.01)
    finished(store)
    assert_equal(store)
    [path] = index_files(cache_home)
    for kind in ("IMMEDIATE", "EXCLUSIVE"):
        finished(store, {"kind": kind})
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute(f"BEGIN {kind}")
        assert_equal(store)
        writer.execute("ROLLBACK")
        writer.close()
        assert_equal(store)


def test_two_stores_never_share_an_index_though_one_is_a_copy(
    store: Store, tmp_path: Path, cache_home: Path
) -> None:
    import shutil

    finished(store)
    assert_equal(store)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    copy = Store(tmp_path / "copy", durable=False)
    finished(copy, {"only": "here"})
    assert (len(assert_equal(copy)), len(assert_equal(store))) == (2, 1)
    assert len(index_files(cache_home)) == 2


_WORKER = """
import sys
from jimmy_manager.archives.index import read_plainly, read_rows
from jimmy_manager.archives.store import Store
for _ in range(12):
    rows = read_rows(Store(sys.argv[1], read_only=True))
assert rows
print("fine")
"""


def test_processes_that_use_one_index_at_once_do_not_disturb_each_other(store: Store, cache_home: Path) -> None:
    keys = [finished(store, {"n": n}) for n in range(20)]
    command = [sys.executable, "-c", _WORKER, str(store.directory)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    n = 100
    while any(worker.poll() is None for worker in workers) and n < 300:
        keys.append(finished(store, {"n": n}))
        n += 1
        time.sleep(0.02)
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert (out, err) == (b"fine\n", b"")
    assert [row.key for row in assert_equal(store)] == sorted(keys)


class Story:
    """Random operations on a store, of every kind that changes what a list shows."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.held: list[Attempt] = []
        self.epochs: dict[str, int] = {}
        self.fields = 0

    def step(self) -> str:
        operation: Callable[[], None] = self.random.choice(
            [
                self.register, self.begin, self.begin, self.save, self.save, self.save, self.finish, self.release,
                self.fail, self.die, self.pop, self.retry, self.beat, self.prune, self.edit, self.spoil, self.restart,
            ]
        )
        try:
            operation()
        except JimmyError:
            pass  # refused, as it may be: what the list shows must agree all the same
        return operation.__name__

    def config(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"n": self.random.randrange(12), "arch": self.random.choice(["cnn", None, True, [1]])}
        return fields | ({"more": {"deep": self.random.random()}} if self.random.random() < 0.1 else {})

    def register(self) -> None:
        self.store.register(self.config())

    def begin(self) -> None:
        run = self.store.register(self.config())
        standing = self.store.standing(run.key)
        if standing.state != "held" and (claim := self.store.claims.take(standing, run.digest)):
            attempt = Attempt(self.store.history, claim)
            attempt.adopt()
            self.held.append(attempt)

    def attempt(self, *, take: bool = False) -> Attempt:
        if not self.held:
            raise JimmyError("none is held")
        place = self.random.randrange(len(self.held))
        return self.held.pop(place) if take else self.held[place]

    def save(self) -> None:
        attempt = self.attempt()
        epoch = self.epochs[attempt.key] = self.epochs.get(attempt.key, 0) + 1
        save(attempt, epoch, loss=self.random.random(), **{f"m{self.random.randrange(4)}": epoch})

    def finish(self) -> None:
        self.attempt(take=True).finish()

    def release(self) -> None:
        self.attempt(take=True).claim.release()

    def fail(self) -> None:
        self.attempt(take=True).claim.fail({"type": "E", "message": "m", "traceback": ""})

    def die(self) -> None:
        self.attempt(take=True).claim.drop()

    def key(self) -> str:
        keys = sorted(self.store.keys())
        if not keys:
            raise JimmyError("none is there")
        return self.random.choice(keys)

    def pop(self) -> None:
        self.store.pop(self.key(), force=self.random.random() < 0.3)

    def retry(self) -> None:
        key = self.key()
        if self.store.standing(key).state in ("failed", "done"):
            self.store.claims.mark(self.store.standing(key), self.store.registry.read(key).digest, "retry")

    def beat(self) -> None:
        self.attempt().claim.renew()

    def prune(self) -> None:
        from jimmy_manager.archives.janitor import Janitor

        Janitor(self.store).sweep()

    def edit(self) -> None:
        self.fields += 1
        self.store.edit_schema("add", f"added{self.fields}", self.fields)

    def spoil(self) -> None:
        """Damage that arrives as a replacement, which is how files change in a store."""
        archive = self.random.choice(["stats", "claims"])
        names = list((Path(self.store.directory or "") / archive).rglob("*.json"))
        if names and self.random.random() < 0.3:
            path = self.random.choice(sorted(names))
            scratch = path.with_name("scratch")
            scratch.write_bytes(b"damaged")
            scratch.rename(path)

    def restart(self) -> None:
        """What a new process knows: nothing."""
        self.store.refresh()


@pytest.mark.parametrize("seed", range(6))
def test_after_any_operations_the_index_equals_a_plain_scan(
    store: Store, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logging.Logger.warning", lambda *_, **__: None)
    story = Story(store, seed)
    store.info  # noqa: B018  # created by being asked for
    steps = []
    for number in range(60):
        steps.append(story.step())
        if number % 3 == 0:
            if story.random.random() < 0.3:
                settle(store)
            rows, plain = read_rows(store), read_plainly(store)
            assert exactly(rows) == exactly(plain), steps[-4:]
    assert len(set(steps)) > 8
    for attempt in story.held:
        attempt.claim.drop()


def test_an_index_that_believed_names_alone_would_be_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: without signatures of the stats a commit goes unseen."""
    names = index._names
    monkeypatch.setattr(index, "_names", lambda folder, with_signatures: names(folder, with_signatures=False))
    monkeypatch.setattr(index, "_is_live", lambda row: False)
    attempt = begun(store)
    assert_equal(store)
    save(attempt, 2)
    with pytest.raises(AssertionError):
        assert_equal(store)
    attempt.claim.drop()


def test_whoever_asks_again_is_told_that_nothing_has_changed(store: Store) -> None:
    for n in range(5):
        finished(store, {"n": n})
    settle(store)
    known, columns = read_changed(store, "")
    assert columns is not None
    assert known
    assert read_changed(store, known) == (known, None)
    finished(store, {"n": 9})
    later, columns = read_changed(store, known)
    assert columns is not None
    assert columns.height == 6
    assert later != known


def test_while_a_run_is_held_nothing_is_said_to_be_unchanged(store: Store) -> None:
    attempt = begun(store)
    settle(store)
    read_changed(store, "")
    known, columns = read_changed(store, "")
    assert (known, columns is not None) == ("", True)
    attempt.claim.drop()


def test_what_another_process_has_written_is_noticed_by_who_had_read_before(store: Store, tmp_path: Path) -> None:
    finished(store)
    settle(store)
    known, _ = read_changed(store, "")
    other = Store(tmp_path / "store", read_only=True)
    finished(store, {"n": 1})
    assert len(read_rows(other)) == 2, "the index is up to date by now"
    _, columns = read_changed(store, known)
    assert columns is not None
    assert columns.height == 2


class Meddling:
    """Another process that keeps an older state of a run, just after this one has written the newer one."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left = times
        put = Cache.put
        row, path = index.read_rows(store)[0], str(cache_path(store))

        def meddled(cache: Cache, *arguments: Any) -> None:
            put(cache, *arguments)
            if self.left:
                self.left -= 1
                other = Cache(path)
                other.begin()
                put(other, [(row, False)], [], {("stats", row.key[:2]): None})
                other.close()

        monkeypatch.setattr(Cache, "put", meddled)


def test_an_older_row_that_another_process_keeps_meanwhile_is_not_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begun(store, loss=1.0)
    attempt.claim.release()
    meddling = Meddling(store, monkeypatch, times=2)
    attempt = begun(store, loss=2.0)
    save(attempt, 2, loss=2.0)
    attempt.finish()
    assert assert_equal(store)[0].epoch == 2
    assert meddling.left == 0


def test_where_others_write_all_the_time_the_archives_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    test_an_older_row_that_another_process_keeps_meanwhile_is_not_shown(store, monkeypatch)
    Meddling(store, monkeypatch, times=10**6)
    key = finished(store, {"n": 1})
    assert key in {row.key for row in assert_equal(store)}


def test_an_index_that_did_not_look_for_others_would_be_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: the state that was written is taken for that of its own rows."""
    read = Cache._read_state
    monkeypatch.setattr(Cache, "_read_state", lambda cache: cache.state or read(cache))
    with pytest.raises(AssertionError):
        test_an_older_row_that_another_process_keeps_meanwhile_is_not_shown(store, monkeypatch)
