from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from jimmy_manager import Config
from jimmy_manager.archives import filesystem, layout, store_file
from jimmy_manager.archives import store as store_module
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.memory import Memory
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import (
    AmbiguousKey,
    DamagedRecord,
    JimmyError,
    KeyNotFound,
    NoRecord,
    ReadOnlyStore,
    RunBusy,
    StoreError,
    StoreTooNew,
    UnreadableRecord,
)
from tests.archives.runs import attempt_at, commit, listing, scratch_below, train

ROOT = Path(store_module.__file__).parents[2]
A, B, C = {"lr": 0.1, "seed": 1}, {"lr": 0.1, "seed": 2}, {"lr": 0.2, "seed": 1}
ARCHIVES = ["configs", "stats", "ckpts", "previews"]


@pytest.fixture(params=["directory", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Store]:
    """A function that opens one store anew, as another process would."""
    files = Disk(tmp_path / "s") if request.param == "directory" else Memory()
    return lambda **options: Store(tmp_path / "s" if request.param == "directory" else None, files=files, **options)


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


# ---- the four mappings


def check_mapping(archive: Any, expected: Mapping[str, Any], missing: str) -> None:
    """What a mapping from key to record has to do, whichever archive it is."""
    assert isinstance(archive, Mapping)
    assert dict(archive) == dict(archive.items()) == expected
    assert list(archive.values()) == [expected[key] for key in archive.keys()]  # noqa: SIM118  # it is under test
    assert list(archive) == sorted(expected)
    assert len(archive) == len(expected)
    assert bool(archive) == bool(expected)
    for key, value in expected.items():
        assert key in archive
        assert archive[key] == archive.get(key) == value
        assert archive[key[:4]] == value
        assert key[:4] in archive
    for wrong in (missing, "", "../" + missing, 7, None):
        assert wrong not in archive
    assert archive.get(missing, "default") == archive.get("", "default") == "default"
    for error in (KeyError, KeyNotFound, JimmyError):
        with pytest.raises(error, match=missing):
            archive[missing]
    assert archive.pop(missing, "default") == "default"
    with pytest.raises(KeyNotFound):
        archive.pop(missing)
    assert str(len(expected)) in repr(archive)


def expected_of(store: Store, name: str, keys: list[str]) -> dict[str, Any]:
    return {
        "configs": dict(zip(keys, [A, B], strict=False)),
        "stats": {key: {**store.stats[key], "epoch": 2, "done": True} for key in keys},
        "ckpts": {key: {"epoch": 2} for key in keys},
        "previews": {key: {"epoch": 2} for key in keys},
    }[name]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_a_mapping(opened: Callable[..., Store], name: str) -> None:
    check_mapping(getattr(opened(), name), {}, "abcdef12")
    trained = opened()
    keys = [train(trained, A), train(trained, B)]
    for store in (trained, opened(), opened(read_only=True)):
        expected = expected_of(store, name, keys)
        archive = getattr(store, name)
        if store.read_only:
            check_mapping_of_read_only(archive, expected)
        else:
            check_mapping(archive, expected, "fedcba98")


def check_mapping_of_read_only(archive: Any, expected: Mapping[str, Any]) -> None:
    assert dict(archive.items()) == expected
    with pytest.raises(ReadOnlyStore):
        archive.pop(next(iter(expected)))
    assert dict(archive.items()) == expected


class Forgetful(dict[str, Any]):
    """A mapping whose length is not that of its iteration, as an index that is out of date would be."""

    def __len__(self) -> int:
        return 0


def test_the_contract_catches_a_mapping_that_contradicts_itself() -> None:
    with pytest.raises(AssertionError):
        check_mapping(Forgetful(abcdef12=1), {"abcdef12": 1}, "fedcba98")


def test_only_configurations_that_were_not_trained_are_in_one_archive_alone(store: Store) -> None:
    key = store.configs.add(A)
    assert list(store.configs) == [key]
    assert list(store.stats) == list(store.ckpts) == list(store.previews) == []
    assert key not in store.stats
    with pytest.raises(NoRecord, match=key):
        store.stats[key]
    with pytest.raises(KeyError):
        store.ckpts[key]
    assert store.previews.get(key) is None


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_popped_run_leaves_all_mappings_and_can_be_trained_again(opened: Callable[..., Store], name: str) -> None:
    store = opened()
    key, other = train(store, A), train(store, B)
    expected = getattr(store, name)[key]
    assert getattr(store, name).pop(key[:5]) == expected
    for looked_at in (store, opened()):
        for archive in (getattr(looked_at, name) for name in ARCHIVES):
            assert list(archive) == [other]
            assert key not in archive
            assert archive.get(key) is None
            with pytest.raises(KeyError, match=key):
                archive[key]
        with pytest.raises(KeyError, match="popped"):
            looked_at.pop(key)
    assert train(opened(), A, epochs=1) == key
    assert opened().ckpts[key] == {"epoch": 1}
    assert sorted(opened().configs) == sorted([key, other])


def test_popping_an_untrained_configuration_takes_it_out_too(store: Store) -> None:
    key = store.configs.add(A)
    assert store.configs.pop(key) == A
    assert list(store.configs) == []
    assert store.configs.add(A) == key


def test_a_live_workers_run_is_not_popped_unless_forced(store: Store) -> None:
    attempt = attempt_at(store, A)
    commit(attempt, 1)
    with pytest.raises(RunBusy, match=str(os.getpid())):
        store.stats.pop(attempt.key)
    assert attempt.key in store.stats
    store.pop(attempt.key, force=True)
    assert attempt.key not in store.stats


def test_an_ambiguous_prefix_is_an_error_that_lists_its_candidates(store: Store) -> None:
    keys = sorted(store.configs.add({"n": i}) for i in range(30))
    prefix = next(key[0] for key, after in itertools.pairwise(keys) if key[0] == after[0])
    candidates = [key for key in keys if key.startswith(prefix)]
    configs = store.configs
    for read in (lambda: configs[prefix], lambda: configs.pop(prefix), lambda: configs.pop(prefix, None)):
        with pytest.raises(AmbiguousKey) as caught:
            read()
        assert all(key in str(caught.value) for key in candidates[:8])
    assert prefix not in store.configs
    assert len(store.configs) == 30


def test_what_is_returned_is_the_readers_own(store: Store) -> None:
    key = train(store, A, ckpt={"epoch": 2, "a": np.arange(3)})
    store.configs[key].lr = 5
    store.ckpts[key]["a"][0] = 5
    store.previews[key]["epoch"] = 5
    store.stats[key]["epoch"] = 5
    assert store.configs[key] == A
    assert store.ckpts[key]["a"][0] == 0
    assert store.previews[key]["epoch"] == store.stats[key]["epoch"] == 2


# ---- configurations


def test_a_configuration_has_one_key_in_whatever_spelling(store: Store) -> None:
    key = store.configs.add({"lr": 0.1, "optim": {"betas": (0.9, 1)}})
    for spelling in (
        {"optim": {"betas": [0.9, 1.0]}, "lr": np.float32(0.1)},
        Config({"optim.betas": [0.9, 1], "lr": 0.1}),
    ):
        assert store.configs.add(spelling) == store.configs.get_key(spelling) == key
    assert store.configs.add({"lr": 0.1, "optim": {"betas": (0.9, True)}}) != key
    with pytest.raises(KeyNotFound):
        store.configs.get_key({"lr": 0.1})


@pytest.mark.parametrize(
    ("cond", "expected"),
    [
        (None, [A, B, C]), ({}, [A, B, C]), ({"seed": 1}, [A, C]), ({"seed": 1.0, "lr": 0.1}, [A]),
        ({"seed": [2, 3]}, [B]), ({"seed": (1, 2)}, [A, B, C]), ({"seed": range(2, 9)}, [B]), ({"seed": {1}}, [A, C]),
        ({"lr": lambda lr: lr > 0.1}, [C]), ({"lr": np.float64(0.2)}, [C]), ({"no.such": 1}, []), ({"seed": True}, []),
        ({"seed": [True]}, []), ({"seed": "1"}, []),
    ],
    ids=range(14),
)
def test_filtering(store: Store, cond: Any, expected: list[Any]) -> None:
    for config in (A, B, C):
        store.configs.add(config)
    found = [dict(store.configs[key]) for key in store.configs.filter(cond)]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_filtering_by_lists_and_nested_fields(store: Store) -> None:
    key = store.configs.add({"model": {"sizes": [3, 4]}, "n": 1})
    store.configs.add({"model": {"sizes": [5]}, "n": 1})
    for wanted in ([3, 4], (3, 4), [[3, 4], [9]], [(3, 4)], {"x", (3, 4)}):
        assert list(store.configs.filter({"model.sizes": wanted})) == [key]
    assert list(store.configs.filter({"model.sizes": {3, 4}})) == []


def test_comparing_tells_what_is_shared_and_what_each_has_of_its_own(store: Store) -> None:
    one = store.configs.add({"lr": 0.1, "amp": True, "optim": {"name": "sgd", "beta": 1}, "extra": {}})
    two = store.configs.add({"lr": 0.1, "amp": 1, "optim": {"name": "adam", "beta": 1.0}})
    shared, own = store.configs.compare([one, two])
    assert shared == {"lr": 0.1, "optim": {"beta": 1}}
    assert own[one] == {"amp": True, "optim": {"name": "sgd"}, "extra": {}}
    assert own[one]["amp"] is True
    assert own[two] == {"amp": 1, "optim": {"name": "adam"}}
    assert store.configs.compare([]) == ({}, {})
    assert store.configs.compare([one]) == (store.configs[one], {one: {}})


def test_grouping_puts_seeds_together(store: Store) -> None:
    a, b, c = (store.configs.add(config) for config in (A, B, C))
    d = store.configs.add({"seed": 7, "lr": 0.1})
    e = store.configs.add({"seed": 7, "lr": 1})
    f = store.configs.add({"seed": 8, "lr": 1.0})
    g = store.configs.add({"seed": 8, "lr": True})
    assert store.configs.group([a, b, c, d, e, f, g]) == [[a, b, d], [c], [e, f], [g]]
    assert store.configs.group([a, b, c], ignoring=["seed", "lr"]) == [[a, b, c]]
    assert store.configs.group([a, b], ignoring=()) == [[a], [b]]


def test_a_field_that_was_added_shows_its_birth_value_in_older_runs(opened: Callable[..., Store]) -> None:
    store = opened()
    key = train(store, A)
    store.edit_schema("add", "amp", False)
    for looked_at in (store, opened(), opened(read_only=True)):
        assert looked_at.configs[key] == {**A, "amp": False}
        assert looked_at.configs.get_key({**A, "amp": False}) == key
        assert looked_at.find({**A, "amp": True}) is None
    assert list(store.configs.filter({"amp": False})) == [key]


# ---- opening


def test_nothing_is_made_by_opening_and_looking(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    assert list(store.configs) == list(store.stats) == []
    assert store.find(A) is None
    assert "abcdef12" not in store.ckpts
    assert not (tmp_path / "s").exists()


def test_a_store_that_is_not_there_or_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*nowhere"):
        Store(tmp_path / "nowhere", read_only=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="it is a file"):
        Store(tmp_path / "file")


def test_logs_stay_in_their_place_and_memory_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("s")
    monkeypatch.chdir("/")
    assert store.logs("abcdef12") == str(tmp_path / "s/logs/ab/abcdef12")
    assert Store(None).logs("abcdef12") is None
    assert str(store) == "s"


def test_a_relative_directory_is_made_with_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = train(Store("a/b/s"), A)
    assert Store(tmp_path / "a/b/s").ckpts[key] == {"epoch": 2}


def test_a_run_at_rest_is_eight_files_and_no_scratch(tmp_path: Path) -> None:
    train(Store(tmp_path / "s"), A, epochs=5)
    names = [path.name for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert len(names) == 9  # store.yaml is the ninth
    assert scratch_below(tmp_path / "s") == []


# ---- read only


def look_at_everything(store: Store) -> dict[str, Any]:
    return {
        **{name: dict(getattr(store, name).items()) for name in ("configs", "stats", "previews")},
        "ckpts": {key: sorted(ckpt) for key, ckpt in store.ckpts.items()},
        "standing": {key: store.standing(key).state for key in store.configs},
        "info": store.info.key_len,
    }


def test_read_only_writes_nothing_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    key = train(store, A)
    store.configs.add(C)
    before = listing(tmp_path)
    looked_at = Store(tmp_path / "s", read_only=True)
    assert look_at_everything(looked_at) == look_at_everything(store)
    for write in (
        lambda: looked_at.configs.add(B),
        lambda: looked_at.pop(key),
        lambda: looked_at.edit(manager="X"),
        lambda: looked_at.edit_schema("add", "amp", False),
        lambda: looked_at.bind(lambda info: info._replace(manager="X")),
        lambda: attempt_at(looked_at, C),
        lambda: looked_at.claims.mark(looked_at.standing(key), "0" * 64, "retry"),
    ):
        with pytest.raises(ReadOnlyStore):
            write()
    assert listing(tmp_path) == before


def test_the_listing_notices_a_write(tmp_path: Path) -> None:
    train(Store(tmp_path / "s"), A)
    before = listing(tmp_path)
    Store(tmp_path / "s").files.create("configs/ab/.x", b"")
    Store(tmp_path / "s").files.remove("configs/ab/.x")
    assert listing(tmp_path) != before


LOOK = """
import os, sys
import jimmy_manager.archives.checkpoints, numpy, torch
from jimmy_manager import Store
if sys.argv[2] != "-":  # after the imports: another user may not be allowed to read this Python
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    open(os.path.join(sys.argv[1], "probe"), "w")
except OSError as error:
    print(error.errno)
store = Store(sys.argv[1], read_only=True)
for key in store.configs:
    print(key, dict(store.configs[key]), store.stats[key]["epoch"], store.previews[key], sorted(store.ckpts[key]))
"""


def look(directory: Path, uid: str, *before: str) -> list[str]:
    command = [*before, sys.executable, "-c", LOOK, str(directory), uid]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def trained_store(tmp_path: Path) -> tuple[Path, list[str]]:
    store = Store(tmp_path / "s")
    key = train(store, A)
    return tmp_path / "s", [f"{key} {A} 2 {{'epoch': 2}} ['epoch']"]


def test_read_only_works_where_another_user_may_not_write(trained_store: tuple[Path, list[str]]) -> None:
    directory, expected = trained_store
    if os.getuid() != 0:
        pytest.skip("needs root to become another user")
    for path in directory.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    directory.chmod(0o555)
    for parent in directory.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(0o755)
    before = listing(directory)
    assert look(directory, "65534") == ["13", *expected]
    assert listing(directory) == before


def test_read_only_works_on_a_read_only_mount(trained_store: tuple[Path, list[str]], tmp_path: Path) -> None:
    directory, expected = trained_store
    (tmp_path / "mnt").mkdir()
    mount = f"mount --bind {directory} {tmp_path}/mnt && mount -o remount,bind,ro {tmp_path}/mnt && exec "
    enter = ["unshare", "--mount", "sh", "-c", mount + '"$@"', "sh"]
    if os.getuid() != 0 or subprocess.run([*enter, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    before = listing(directory)
    assert look(tmp_path / "mnt", "-", *enter) == ["30", *expected]
    assert listing(directory) == before


# ---- store.yaml


INFO = StoreFile("0123456789abcdef", 12, "Digits", ("lr", "optim.beta"), stale_s=30.0, lease_s=240.0)


def test_the_store_file_comes_back() -> None:
    for info in (INFO, StoreFile("x"), INFO._replace(ledger=INFO.ledger.add("amp", False).rename("lr", "optim.lr"))):
        assert StoreFile.load(info.dump()) == info


def test_every_flipped_bit_and_truncation_of_the_store_file_is_noticed() -> None:
    raw = INFO.dump()
    for index in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[index] ^= 1 << bit
            with pytest.raises(DamagedRecord, match=r"store\.yaml"):
                StoreFile.load(bytes(changed))
        with pytest.raises(DamagedRecord, match=r"store\.yaml"):
            StoreFile.load(raw[:index])


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "x", "format: 1", "format: x\nid: a\nkey_len: 8", "format: 1\nid: a\nkey_len: long",
        "format: 1\nid: a\nkey_len: 8\nschema: [{nonsense: 1}]", "format: 1\nid: a\nkey_len: 8\nfields: 3",
        "format: 1\nformat: 1", "id: !!python/object/apply:os.mkdir [exploded]",
    ],
)
def test_a_signed_store_file_of_an_unknown_shape_is_damaged_and_nothing_worse(text: str, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/store.yaml").write_bytes(store_file.sign(text))
    with pytest.raises(DamagedRecord, match=r"store\.yaml"):
        Store(tmp_path / "s")


def test_a_store_of_a_later_format_asks_for_a_later_package(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_bytes(store_file.sign("format: 2\n"))
    with pytest.raises(StoreTooNew, match="format 2"):
        Store(tmp_path)


def test_a_store_file_that_cannot_be_read_is_named_with_its_directory(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").mkdir()
    with pytest.raises(UnreadableRecord, match=str(tmp_path)) as caught:
        Store(tmp_path)
    assert caught.value.errno is not None


def test_of_two_that_create_a_store_at_once_both_use_what_the_first_wrote(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "s", key_len=12), Store(tmp_path / "s", key_len=16)
    assert first.info == second.info
    assert second.info.key_len == 12
    assert first.configs.add(A) == second.configs.add(A)


def test_a_store_made_by_another_meanwhile_decides_the_length_of_keys(tmp_path: Path) -> None:
    early = Store(tmp_path / "s", key_len=16)
    _ = Store(tmp_path / "s", key_len=12).info
    assert early.refresh()
    assert len(early.configs.add(A)) == 12


def test_looking_again_costs_no_parsing_where_nothing_has_changed(
    opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not opened().refresh()
    writer = opened()
    writer.edit_schema("add", "amp", False)
    reader = opened()
    assert not writer.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "load", None)
        assert not reader.refresh()
        assert not writer.refresh()
    writer.edit_schema("add", "beta", 0.9)
    assert reader.refresh()
    assert reader.ledger == writer.ledger
    assert not reader.refresh()


def test_a_store_file_that_is_away_for_a_moment_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "s", stale_s=0)
    store.edit_schema("add", "amp", False)
    place, aside = tmp_path / "s" / layout.STORE_FILE, tmp_path / "aside"
    place.rename(aside)
    monkeypatch.setattr(store.claims.clock, "sleep", lambda _: aside.rename(place))
    assert not store.refresh()
    assert len(store.ledger) == 1
    place.unlink()
    monkeypatch.setattr(store.claims.clock, "sleep", lambda _: None)
    assert store.refresh()
    assert not store.exists
    assert not len(store.ledger)


@pytest.mark.parametrize("key_len", [0, 3, 65])
def test_keys_that_are_too_short_or_too_long_are_refused(tmp_path: Path, key_len: int) -> None:
    with pytest.raises(JimmyError, match=str(key_len)):
        Store(tmp_path / "s", key_len=key_len).configs.add(A)


def test_edits_by_several_processes_are_all_kept(tmp_path: Path) -> None:
    _ = Store(tmp_path / "s").info
    program = "import sys; from jimmy_manager import Store; Store(sys.argv[1]).edit_schema('add', sys.argv[2], 0)"
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "s"), f"field{i}"], cwd=ROOT) for i in range(4)
    ]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert {entry.field for entry in Store(tmp_path / "s").ledger} == {f"field{i}" for i in range(4)}


def test_an_edit_waits_for_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    store = Store(tmp_path / "s")
    _ = store.info
    monkeypatch.setattr(store_file, "_LOCK_TIMEOUT_S", 0.05)
    with filelock.FileLock(tmp_path / "s/.store.yaml.lock"), pytest.raises(StoreError, match="another process"):
        store.edit(manager="X")


# ---- the file system


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r"36 35 0:99 / /a\040disk rw - nfs4 host:/x rw,soft", ("/a disk", "0:99", "nfs4", "host:/x", "rw,soft")),
        (r"36 35 8:1 / /dätä rw,x shared:1 master:2 - ext4 /dev/a rw", ("/dätä", "8:1", "ext4", "/dev/a", "rw,x")),
        (r"36 35 0:4 / /a\134b rw - fuse.sshfs host: rw", (r"/a\b", "0:4", "fuse.sshfs", "host:", "rw")),
        (r"36 35 0:5 / /c rw - tmpfs  rw,size=1g", ("/c", "0:5", "tmpfs", "", "rw,size=1g")),
    ],
)
def test_mount_points_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch, line: str, expected: Any) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, *options: line + "\n")
    assert filesystem._mounts() == [expected]


@pytest.mark.parametrize(
    ("kind", "stale_s"), [("ext4", 0.0), ("xfs", 0.0), ("nfs4", 30.0), ("fuse.sshfs", 30.0), ("", 30.0)]
)
def test_listings_are_fresh_on_local_disks_alone(monkeypatch: pytest.MonkeyPatch, kind: str, stale_s: float) -> None:
    monkeypatch.setattr(filesystem, "kind", lambda path: kind)
    assert filesystem.stale_s("/anywhere") == stale_s


def test_the_kind_of_a_place_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert filesystem.kind(tmp_path / "not/yet") == filesystem.kind(tmp_path) != ""
    assert filesystem.kind("/proc/self") == "proc"


def test_a_measured_stale_s_is_used_by_the_next_who_opens(tmp_path: Path) -> None:
    Store(tmp_path / "s").edit(stale_s=7.0)
    assert Store(tmp_path / "s").claims.stale_s == 7.0
    assert Store(tmp_path / "s", stale_s=0.5).claims.stale_s == 0.5


def test_names_of_every_file_of_a_store_are_known_to_the_layout(tmp_path: Path) -> None:
    train(Store(tmp_path / "s"), A)
    for path in (tmp_path / "s").rglob("*.*"):
        archive = path.relative_to(tmp_path / "s").parts[0]
        assert archive == layout.STORE_FILE or layout.parse(archive, path.name)


@pytest.mark.parametrize("use", [lambda store: store.edit_schema("add", "b", 1), lambda store: Janitor(store).sweep()])
def test_a_lock_that_cannot_be_made_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Store], object]
) -> None:
    store = Store(tmp_path / "store")
    store.register({"a": 1})

    def refuse(self: object, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(StoreError, match=r"cannot lock .*\.lock: Read-only file system"):
        use(store)
