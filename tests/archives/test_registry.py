from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import keys
from jimmy_manager.archives import disk, layout
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.memory import Memory
from jimmy_manager.archives.registry import Registry
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import AmbiguousKey, DamagedRecord, KeyNotFound, UnreadableRecord
from tests.archives.runs import attempt_at, commit, train

A, B, C = {"name": "a"}, {"name": "b"}, {"name": "c"}


def colliding(config: Any, shared: int = 8) -> str:
    """A digest whose first ``shared`` digits are the same for every configuration."""
    return "0" * shared + hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[shared:]


@pytest.fixture
def collision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "digest", colliding)


class Ticking(Clock):
    """A clock on which waiting takes no time."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(params=[True, False], ids=["directory", "memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """A function that opens one store anew, as another process would."""
    files = Disk(tmp_path / "s") if request.param else Memory()
    return lambda: Store(tmp_path / "s" if request.param else None, files=files, clock=Ticking())


def test_the_key_is_the_start_of_the_digest_and_registering_again_changes_nothing(stores: Any) -> None:
    store = stores()
    key = store.configs.add(A)
    assert key == keys.digest(A)[:8]
    raw = store.files.read(layout.config(key))
    assert stores().configs.add({"name": "a"}) == key
    assert store.files.read(layout.config(key)) == raw
    assert list(stores().configs) == [key]


@pytest.mark.usefixtures("collision")
@pytest.mark.parametrize("first", ["a", "b"])
def test_of_two_that_collide_the_first_keeps_the_short_key_and_both_are_found_again(stores: Any, first: str) -> None:
    one, two = ({"name": first}, B if first == "a" else A)
    short, long = stores().configs.add(one), stores().configs.add(two)
    assert (len(short), len(long)) == (8, 12)
    assert long.startswith(short)
    for order in ((one, two), (two, one)):
        store = stores()
        assert {store.configs.add(config) for config in order} == {short, long}
        assert [stores().configs.get_key(config) for config in order] == [stores().find(config) for config in order]
        assert stores().configs.get_key(one) == short
        assert stores().configs.get_key(two) == long
    assert stores().configs[short] == one
    assert stores().configs[long] == two


@pytest.mark.usefixtures("collision")
def test_a_third_gets_sixteen_digits_where_twelve_collide_too(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "digest", lambda config: colliding(config, 12))
    found = [stores().configs.add(config) for config in (A, B, C)]
    assert [len(key) for key in found] == [8, 12, 16]
    assert [stores().configs.get_key(config) for config in (A, B, C)] == found


@pytest.mark.usefixtures("collision")
def test_popping_the_first_of_two_does_not_give_its_key_away(stores: Any) -> None:
    """claims.md 13: A has the short key and is popped; B must not win it, or it would have two keys."""
    store = stores()
    short, long = train(store, A), train(store, B)
    store.pop(short)
    for _ in range(2):
        other = stores()
        assert other.configs.add(B) == long
        assert other.configs.get_key(B) == long
        assert other.configs.add(A) == short
    assert list(stores().configs) == [long]
    assert stores().previews[long] == {"epoch": 2}


@pytest.mark.usefixtures("collision")
def test_popping_by_removing_the_name_would_give_one_configuration_two_keys(stores: Any) -> None:
    """The broken twin of the test above: what design rule 7 forbids."""
    store = stores()
    short, long = store.configs.add(A), store.configs.add(B)
    store.files.remove(layout.config(short))
    assert stores().configs.add(B) == short != long


@pytest.mark.usefixtures("collision")
def test_a_look_up_of_eight_digits_never_reads_the_files_of_twelve(stores: Any) -> None:
    store = stores()
    short, long = store.configs.add(A), train(store, B)
    assert store.claims.look(short).top == 0
    assert short not in store.stats
    assert long in store.stats


def _register(directory: str, names: list[str], results: Any) -> None:
    keys.digest = lambda config: colliding(config, 8)
    store = Store(directory, durable=False)
    results.put({name: store.configs.add({"name": name}) for name in names})


def test_processes_that_register_colliding_configurations_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names = [chr(97 + i) for i in range(6)]
    for attempt in range(4):
        results, directory = context.Queue(), str(tmp_path / f"s{attempt}")
        orders = [names[i:] + names[:i] for i in range(4)]
        workers = [context.Process(target=_register, args=(directory, order, results)) for order in orders]
        for worker in workers:
            worker.start()
        told = [results.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        assert all(found == told[0] for found in told)
        assert len(set(told[0].values())) == len(names)
        # All six collide at 8 digits and no two at 12, so one of them has the short key.
        assert sorted(len(key) for key in told[0].values()) == [8, 12, 12, 12, 12, 12]


CRASH = """
import os, sys, errno
from jimmy_manager.archives import disk
from jimmy_manager.archives.store import Store
def no_links(*args):
    raise OSError(errno.EPERM, "no hard links here")
disk.os.link = no_links
store = Store(sys.argv[1])
store.info
real = disk._write_all
def killed(file, data):
    if hasattr(file, "fileno") and "/." not in os.readlink(f"/proc/self/fd/{file.fileno()}"):
        real(file, data[:int(sys.argv[2])])
        os.kill(os.getpid(), 9)
    real(file, data)
disk._write_all = killed
store.configs.add({"name": "a"})
"""


@pytest.mark.parametrize("written", [0, 40])
def test_what_a_crash_of_a_creation_without_links_left_is_healed_and_makes_no_second_key(
    tmp_path: Path, written: int
) -> None:
    """claims.md 14."""
    root = Path(disk.__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path / "s"), str(written)], cwd=root)
    assert result.returncode == -9
    key = keys.digest(A)[:8]
    assert (tmp_path / "s" / layout.config(key)).stat().st_size == written
    store = Store(tmp_path / "s")
    assert store.configs.add(A) == key
    assert Store(tmp_path / "s").configs.get_key(A) == key
    assert list(Store(tmp_path / "s").configs) == [key]
    assert len(list((tmp_path / "s/damaged").iterdir())) == 1, "what was there is kept for a person to look at"


def test_a_damaged_record_is_an_error_for_who_only_looks(stores: Any) -> None:
    store = stores()
    key = store.configs.add(A)
    store.files.replace(layout.config(key), b"")
    with pytest.raises(DamagedRecord, match=key):
        stores().configs.get_key(A)
    with pytest.raises(DamagedRecord, match=key):
        stores().configs[key]


def test_a_stalled_creator_whose_file_was_moved_aside_does_not_think_it_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """claims.md 14: the creator sleeps in the middle of the fallback, another worker heals, the creator wakes."""
    monkeypatch.setattr(keys, "digest", colliding)

    def no_links(*args: Any) -> None:
        raise OSError(1, "no hard links here")

    monkeypatch.setattr(disk.os, "link", no_links)
    stalled, other = Store(tmp_path / "s"), Store(tmp_path / "s")
    _ = stalled.info, other.info
    below, real, healed = stalled.files, disk._write_all, []

    def stall(file: Any, data: bytes) -> None:
        in_place = hasattr(file, "fileno") and "/." not in os.readlink(f"/proc/self/fd/{file.fileno()}")
        if in_place and not healed:
            healed.append("in progress")
            healed.append(other.configs.add(B))
        real(file, data)

    monkeypatch.setattr(disk, "_write_all", stall)
    key = stalled.configs.add(A)
    assert len(healed[1]) == 8
    assert len(key) == 12
    assert below.read(layout.config(healed[1]))
    assert Store(tmp_path / "s").configs.get_key(A) == key
    assert Store(tmp_path / "s").configs.get_key(B) == healed[1]


def test_a_damaged_record_whose_claims_exist_is_written_again_by_registering(stores: Any) -> None:
    store = stores()
    key = train(store, A)
    whole = store.files.read(layout.config(key))
    for damaged in (b"", whole[:-1], whole.replace(b"a", b"b")):
        store.files.replace(layout.config(key), damaged)
        assert stores().configs.get_key(A) == key, "claims carry the digest"
        assert stores().configs.add(A) == key
        assert store.files.read(layout.config(key)) == whole


@pytest.mark.usefixtures("collision")
def test_a_damaged_record_whose_claims_are_anothers_is_left_alone(stores: Any) -> None:
    store = stores()
    short = train(store, A)
    store.files.replace(layout.config(short), b"")
    long = stores().configs.add(B)
    assert len(long) == 12
    assert store.files.read(layout.config(short)) == b""
    assert stores().configs.add(A) == short
    assert stores().configs.get_key(B) == long


def heal_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, puts_back: bool) -> tuple[str, str]:
    """A and B find the shared name damaged; B has healed and taken it before A moves what stands there aside."""
    monkeypatch.setattr(keys, "digest", colliding)
    slow, quick = (Store(tmp_path / "s", clock=Ticking()) for _ in range(2))
    _ = slow.info
    slow.files.create(layout.config("0" * 8), b"")
    real, took = slow.files.move, []

    def late(name: str, target: str) -> None:
        took.append(quick.configs.add(B))
        real(name, target)

    monkeypatch.setattr(slow.files, "move", late)
    if not puts_back:
        monkeypatch.setattr(slow.registry, "_put_back_if_whole", lambda aside, name: None)
    return slow.configs.add(A), took[0]


def test_healing_puts_back_what_another_healer_has_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = heal_side_by_side(tmp_path, monkeypatch, puts_back=True)
    assert (len(a), len(b)) == (12, 8)
    assert Store(tmp_path / "s").configs.get_key(B) == b


def test_healing_that_does_not_look_at_what_it_moved_gives_two_runs_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = heal_side_by_side(tmp_path, monkeypatch, puts_back=False)
    assert a == b


def test_a_record_that_cannot_be_read_is_never_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipping it would give one configuration two keys."""
    key = Store(tmp_path / "s").configs.add(A)
    store = Store(tmp_path / "s")

    def unreadable(name: str) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store.files, "read", unreadable)
    for call in (store.configs.add, store.configs.get_key, lambda config: store.registry.read(key)):
        with pytest.raises(UnreadableRecord, match=rf"{key}\.json: Input/output error") as caught:
            call(A)
        assert caught.value.errno == 5
    assert (tmp_path / "s" / layout.config(key)).exists()
    assert len(list((tmp_path / "s/configs").rglob("*.json"))) == 1


def test_a_name_that_is_taken_but_stays_invisible_is_an_error(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores()
    _ = store.info
    monkeypatch.setattr(store.files, "create", lambda name, data: False)
    with pytest.raises(UnreadableRecord, match="not visible here"):
        store.configs.add(A)


def test_a_record_under_anothers_name_is_damaged(stores: Any) -> None:
    store = stores()
    key = store.configs.add(A)
    other = "0" * 8
    store.files.replace(layout.config(other), store.files.read(layout.config(key)))
    with pytest.raises(DamagedRecord, match=rf"{other}\.json: it was written as {key}"):
        store.registry.read(other)


def test_what_another_worker_registers_later_is_found(stores: Any) -> None:
    mine, other = stores(), stores()
    assert mine.find(A) is None
    assert mine.find(B) is None
    key = other.configs.add(A)
    assert mine.find(A) == key
    assert mine.configs.get_key(A) == key
    assert mine.find(B) is None


@pytest.mark.parametrize("length", [4, 5, 16, 64])
def test_the_length_of_keys_is_fixed_by_the_first_who_opens_the_store(tmp_path: Path, length: int) -> None:
    key = Store(tmp_path / "s", key_len=length).configs.add(A)
    assert key == keys.digest(A)[:length]
    assert Store(tmp_path / "s", key_len=8).configs.add(A) == key


def test_prefixes_of_one_digit_and_more_find_the_key(stores: Any) -> None:
    store = stores()
    key = store.configs.add(A)
    for length in range(1, 9):
        assert store.resolve(key[:length]) == key
    for wrong in ("", "x", "g" * 8, key + "0", key[::-1] + "0", "../" + key, key.upper() + " ", "*"):
        with pytest.raises(KeyNotFound):
            store.resolve(wrong)


def test_an_ambiguous_prefix_lists_its_candidates(stores: Any) -> None:
    store = stores()
    found = sorted(store.configs.add({"n": i}) for i in range(40))
    with pytest.raises(AmbiguousKey, match=r"begins \d+ keys: .*; type more digits") as caught:
        store.resolve(next(key[0] for key, after in itertools.pairwise(found) if key[0] == after[0]))
    listed = str(caught.value).partition("keys: ")[2].partition(";")[0].removesuffix(", ...").split(", ")
    assert 2 <= len(listed) <= 8
    assert set(listed) <= set(found)


@pytest.mark.usefixtures("collision")
def test_a_whole_key_is_found_though_longer_ones_begin_with_it(stores: Any) -> None:
    store = stores()
    short, long = store.configs.add(A), store.configs.add(B)
    assert store.resolve(short) == short
    assert store.resolve(long[:9]) == long
    with pytest.raises(AmbiguousKey, match=f"{short}, {long}"):
        store.resolve(short[:7])


@pytest.mark.usefixtures("collision")
def test_a_popped_run_does_not_make_a_prefix_ambiguous(stores: Any) -> None:
    store = stores()
    short, long = train(store, A), train(store, B)
    store.pop(long)
    assert store.resolve(short[:5]) == short


def test_registering_with_a_cold_registry_costs_no_reading_of_others(tmp_path: Path) -> None:
    """One open file a look-up, whatever else is registered (jarvis scanned them all)."""
    store = Store(tmp_path / "s", durable=False)
    for i in range(200):
        store.configs.add({"n": i})
    cold = Store(tmp_path / "s", durable=False)
    reads, real = [], cold.files.read
    cold.files.read = lambda name: reads.append(name) or real(name)  # type: ignore[method-assign,func-returns-value]
    cold.configs.get_key({"n": 7})
    assert reads == [layout.config(cold.find({"n": 7}))]


def test_the_registry_lists_keys_in_order_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", durable=False)
    found = sorted(store.configs.add({"n": i}) for i in range(50))
    folder = tmp_path / "s/configs"
    (folder / "README").write_text("not ours")
    (folder / "zz").mkdir()
    (folder / found[0][:2] / f".{found[0]}.json.0123456789abcdef").write_text("scratch")
    (folder / found[0][:2] / f"{found[0]} (copy).json").write_text("a person's")
    assert list(Registry(store.claims, 8)) == found


def test_a_crashed_attempt_does_not_change_the_key(stores: Any) -> None:
    store = stores()
    attempt = attempt_at(store, A)
    commit(attempt, 1)
    assert stores().configs.get_key(A) == attempt.key
