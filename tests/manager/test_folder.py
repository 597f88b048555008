"""Runs are handed over as a directory that is a store, and a dry run of an import foretells what it then does."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import CheckpointError, SchemaError, StoreError, WrongManager
from jimmy_manager.manager.manager import Manager
from jimmy_manager.manager.transfer import Loaded, export, export_tar, load
from tests.archives.runs import attempt_at, commit, listing, train

BIG = {"weights": b"w" * 5000}


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(tmp_path / "source", durable=False)


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target", durable=False)


def paused(store: Store, config: dict[str, Any], epoch: int = 1) -> str:
    attempt = attempt_at(store, config)
    commit(attempt, epoch, BIG)
    attempt.claim.release()
    return attempt.key


def content(root: Path) -> dict[str, str]:
    """The bytes of every file below ``root``."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*")) if path.is_file()
    }


# ---- export to a directory


def test_an_exported_directory_is_a_store_in_which_nothing_is_wrong(source: Store, tmp_path: Path) -> None:
    done, stopped = train(source, {"lr": 1}, ckpt=BIG), paused(source, {"lr": 2})
    again = attempt_at(source, {"lr": 1})  # so that its generation is another than 1
    commit(again, 3, BIG, loss=0.5)
    again.finish()
    exported = export(source, f"{tmp_path}/out/")
    assert exported == (tuple(sorted([done, stopped])), {})
    out = Store(tmp_path / "out", read_only=True)
    for key in (done, stopped):
        assert (out.configs[key], out.previews[key], out.ckpts[key]) == (
            source.configs[key], source.previews[key], source.ckpts[key],
        )
        assert out.stats[key] == source.stats[key]
    assert (out.standing(done).state, out.standing(stopped).state) == ("done", "released")
    assert (out.table().loc[done, "state"], out.best("loss")) == ("done", done)
    assert audit(out) == []
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_runs_give_the_same_bytes(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lr in range(3):
        train(source, {"lr": lr}, ckpt=BIG)
    export(source, f"{tmp_path}/a/")
    monkeypatch.setattr("time.time", lambda: 0.0)
    export(Store(tmp_path / "source", read_only=True), tmp_path / "b", as_dir=True)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(content(tmp_path / "a")) == 1 + 3 * 6
    load(Store(tmp_path / "c", durable=False), tmp_path / "a")
    assert content(tmp_path / "c") != content(tmp_path / "a")  # the comparison can fail


def test_the_umask_decides_who_may_read(source: Store, tmp_path: Path) -> None:
    train(source, {"lr": 1})
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        previous = os.umask(umask)
        try:
            export(source, f"{tmp_path}/{umask}/")
            export(source, f"{tmp_path}/{umask}.tar")
        finally:
            os.umask(previous)
        files = [path for path in (tmp_path / str(umask)).rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in [*files, tmp_path / f"{umask}.tar"]} == {mode}


def test_a_directory_appears_whole_or_not_at_all(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(source, {"lr": 1})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jimmy_manager.manager.folder.shutil.copyfileobj", fail)
    with pytest.raises(StoreError, match="No space left"):
        export(source, f"{tmp_path}/out/")
    assert sorted(os.listdir(tmp_path)) == ["source"]


def test_nothing_that_is_there_is_overwritten(source: Store, tmp_path: Path) -> None:
    train(source, {"lr": 1})
    (tmp_path / "empty").mkdir()
    assert export(source, tmp_path / "empty").keys
    for taken in ("empty", "source"):
        before = content(tmp_path / taken)
        with pytest.raises(StoreError, match="there is something already"):
            export(source, f"{tmp_path}/{taken}/")
        assert content(tmp_path / taken) == before


def test_a_filter_and_keys_choose_together(source: Store, tmp_path: Path) -> None:
    keys = [train(source, {"lr": lr}) for lr in range(4)]
    assert export(source, tmp_path / "x.tar", where="lr > 1").keys == tuple(sorted(keys[2:]))
    assert export(source, f"{tmp_path}/x/", keys[:3], "lr > 1").keys == (keys[2],)
    assert export(source, tmp_path / "y.tar", where={"lr": 9}).keys == ()


def test_without_checkpoints_a_directory_lists_and_says_what_it_lacks(source: Store, tmp_path: Path) -> None:
    key = train(source, {"lr": 1}, ckpt=BIG)
    export(source, f"{tmp_path}/out/", ckpts=False)
    out = Store(tmp_path / "out", read_only=True)
    assert (out.previews[key], out.standing(key).state, audit(out)) == (source.previews[key], "done", [])
    with pytest.raises(CheckpointError, match="exported without its checkpoint"):
        out.ckpts[key]


def test_a_damaged_run_is_left_out_and_the_others_are_written(source: Store, tmp_path: Path) -> None:
    damaged, whole = train(source, {"lr": 1}, epochs=1), train(source, {"lr": 2})
    (tmp_path / "source" / source.history.stats(damaged).commits[-1].ckpt_name).write_bytes(b"x")
    exported = export(source, f"{tmp_path}/out/")
    assert (exported.keys, list(exported.left)) == ((whole,), [damaged])
    assert audit(Store(tmp_path / "out", read_only=True)) == []


def test_one_goes_on_in_an_exported_directory_as_in_any_store(source: Store, tmp_path: Path) -> None:
    key = paused(source, {"lr": 1})
    export(source, f"{tmp_path}/out/")
    out = Store(tmp_path / "out", durable=False)
    attempt = attempt_at(out, {"lr": 1})
    assert attempt.adopted is not None
    assert attempt.adopted.epoch == 1
    commit(attempt, 2)
    attempt.finish()
    assert out.stats[key]["epoch"] == 2
    assert all(finding.kind == "superseded" for finding in audit(out))


# ---- import from a directory


def test_a_store_is_merged_into_another_as_its_tar_would_be(source: Store, target: Store, tmp_path: Path) -> None:
    newer, older, equal = ({"lr": lr} for lr in (1, 2, 3))
    for store, epochs in ((source, (3, 1, 2)), (target, (1, 3, 2))):
        for config, count in zip((newer, older, equal), epochs, strict=True):
            train(store, config, epochs=count)
    added = paused(source, {"lr": 4})
    keys = [source.find(config) for config in (newer, older, equal)]
    loaded = load(target, tmp_path / "source")
    assert loaded == Loaded((added,), (keys[0],), tuple(sorted(keys[1:])), {}, {})  # type: ignore[type-var]
    assert [target.stats[key]["epoch"] for key in keys] == [3, 3, 2]  # type: ignore[index]
    assert target.stats[keys[0]]["run"]["imported"]["store"] == source.info.id  # type: ignore[index]
    assert load(target, tmp_path / "source").kept == tuple(sorted([*keys, added]))  # type: ignore[type-var]


def test_an_exported_directory_and_its_tar_load_alike(source: Store, tmp_path: Path) -> None:
    train(source, {"lr": 1}, ckpt=BIG)
    paused(source, {"lr": 2})
    export(source, f"{tmp_path}/out/")
    export_tar(source, tmp_path / "out.tar")
    both = [Store(tmp_path / name, durable=False) for name in ("a", "b")]
    assert load(both[0], tmp_path / "out") == load(both[1], tmp_path / "out.tar")
    for key in both[0].configs:
        assert both[0].ckpts[key] == both[1].ckpts[key]
        assert both[0].previews[key] == both[1].previews[key]


def test_a_damaged_run_of_a_directory_is_left_by_name(source: Store, target: Store, tmp_path: Path) -> None:
    damaged, whole = train(source, {"lr": 1}, epochs=1), train(source, {"lr": 2})
    name = source.history.stats(damaged).commits[-1].ckpt_name
    (tmp_path / "source" / name).write_bytes(b"x")
    loaded = load(target, tmp_path / "source")
    assert (loaded.added, list(loaded.left)) == ((whole,), [damaged])
    assert name in loaded.left[damaged]


def test_a_file_that_changes_between_the_look_and_the_copy_is_noticed(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = train(source, {"lr": 1}, ckpt=BIG)
    path = tmp_path / "source" / source.history.stats(key).commits[-1].ckpt_name
    take = target.claims.take

    def spoil(*arguments: Any, **options: Any) -> Any:
        path.write_bytes(b"x" * path.stat().st_size)
        return take(*arguments, **options)

    monkeypatch.setattr(target.claims, "take", spoil)
    assert "is not what its stats say" in load(target, tmp_path / "source").left[key]
    assert target.committed(key) is None
    monkeypatch.undo()
    assert load(target, tmp_path / "source").added == (key,)  # the commit before it, as readers there do


def test_a_run_that_a_worker_trains_on_meanwhile_is_left_and_the_others_are_taken(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = sorted(paused(source, {"lr": lr}) for lr in range(4))
    attempt = attempt_at(source, source.configs[keys[2]].asdict())
    paused(target, source.configs[keys[2]].asdict(), epoch=0)
    take = target.claims.take

    def extend(standing: Any, *arguments: Any, **options: Any) -> Any:
        if standing.key == keys[2]:
            for epoch in range(2, 6):
                commit(attempt, epoch, BIG)
            attempt.finish()
            Janitor(source).tidy(keys[2])
        return take(standing, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(target.claims, "take", extend)
        loaded = load(target, tmp_path / "source")
    assert (list(loaded.added), loaded.updated, list(loaded.left)) == ([*keys[:2], keys[3]], (), [keys[2]])
    assert "changed while it was imported; import again" in loaded.left[keys[2]]
    assert (target.standing(keys[2]).state, target.stats[keys[2]]["epoch"]) == ("released", 0)
    assert load(target, tmp_path / "source").updated == (keys[2],)


def test_a_run_whose_files_refuse_to_be_read_is_left(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, other = sorted(train(source, {"lr": lr}, ckpt=BIG) for lr in (1, 2))
    opened = Disk.open

    def refuse(self: Disk, name: str) -> Any:
        if name.startswith("ckpts/") and refused in name and target.standing(refused).state == "held":
            raise OSError(5, "Input/output error")
        return opened(self, name)

    monkeypatch.setattr(Disk, "open", refuse)
    loaded = load(target, tmp_path / "source")
    assert (loaded.added, list(loaded.left)) == ((other,), [refused])
    assert "Input/output error" in loaded.left[refused]
    assert target.standing(refused).state == "released"


def test_what_cannot_be_written_here_is_no_fault_of_the_run(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(source, {"lr": 1})

    def full(*_: object) -> None:
        raise StoreError("No space left on device")

    monkeypatch.setattr(target.files, "write", full)
    with pytest.raises(StoreError, match="No space"):
        load(target, tmp_path / "source")


@pytest.mark.parametrize("dest", ["source/inner/", "source/ckpts/deep/er/", "link/inner/"])
def test_runs_are_not_exported_into_their_own_store(source: Store, tmp_path: Path, dest: str) -> None:
    train(source, {"lr": 1})
    (tmp_path / "link").symlink_to("source")
    before = listing(tmp_path)
    with pytest.raises(StoreError, match="inside of the store itself"):
        export(source, f"{tmp_path}/{dest}")
    assert listing(tmp_path) == before
    assert export(source, f"{tmp_path}/source2/").keys


def test_one_key_is_a_key_and_not_its_letters(source: Store, tmp_path: Path) -> None:
    key, _ = (train(source, {"lr": lr}) for lr in (1, 2))
    assert export(source, f"{tmp_path}/out/", key[:5]).keys == (key,)
    assert export(source, tmp_path / "out.tar", key).keys == (key,)
    assert export_tar(source, tmp_path / "out2.tar", key).keys == (key,)


def test_a_store_is_not_merged_into_itself_and_what_is_no_store_is_named(source: Store, tmp_path: Path) -> None:
    train(source, {"lr": 1})
    with pytest.raises(StoreError, match="into itself"):
        load(source, tmp_path / "source")
    (tmp_path / "photos").mkdir()
    with pytest.raises(StoreError, match=r"there is no store at .*photos"):
        load(source, tmp_path / "photos")
    with pytest.raises(StoreError, match="No such file"):
        load(source, tmp_path / "missing.tar")


# ---- the dry run


def collided(tmp_path: Path) -> Path:
    """A store with a run whose key is longer than those of the store that it goes to."""
    target, seen = Store(tmp_path / "target", key_len=4, durable=False), {}
    for lr in range(10_000):
        key = target.key_form({"lr": lr})
        digest = Store(None, key_len=64).register(key).key
        if digest[:4] in seen:
            train(target, {"lr": seen[digest[:4]]})
            source = Store(tmp_path / "short", key_len=4, durable=False)
            train(source, {"lr": lr})
            return tmp_path / "short"
        seen[digest[:4]] = lr
    raise AssertionError("no two keys collide")


def held(tmp_path: Path) -> Path:
    attempt = attempt_at(Store(tmp_path / "target", durable=False), {"lr": 1})
    commit(attempt, 1)
    source = Store(tmp_path / "source", durable=False)
    train(source, {"lr": 1}, epochs=3)
    return tmp_path / "source"


def light(tmp_path: Path) -> Path:
    source = Store(tmp_path / "source", durable=False)
    train(source, {"lr": 1})
    paused(source, {"lr": 2})
    export_tar(source, tmp_path / "light.tar", ckpts=False)
    Store(tmp_path / "target", durable=False).register({"lr": 7})
    return tmp_path / "light.tar"


def newer_and_older(tmp_path: Path) -> Path:
    for name, epochs in (("source", (1, 3, 2)), ("target", (3, 1, 2))):
        store = Store(tmp_path / name, durable=False)
        for lr, count in enumerate(epochs):
            train(store, {"lr": lr}, epochs=count)
    train(Store(tmp_path / "source", durable=False), {"lr": 9})
    return tmp_path / "source"


def into_nothing(tmp_path: Path) -> Path:
    source = Store(tmp_path / "source", key_len=12, durable=False)
    train(source, {"lr": 1})
    source.edit_schema("add", "clip", 0)
    train(source, {"lr": 2, "clip": 1})
    return tmp_path / "source"


@pytest.mark.parametrize("case", [collided, held, light, newer_and_older, into_nothing])
def test_a_dry_run_writes_nothing_and_foretells_what_an_import_does(
    case: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = case(tmp_path)
    before = (listing(tmp_path), content(tmp_path))
    target = Store(tmp_path / "target", durable=False)
    foretold = load(target, source, dry_run=True)
    assert (listing(tmp_path), content(tmp_path)) == before
    assert load(target, source) == foretold
    assert any(foretold)
    is_written = bool(foretold.added or foretold.updated)
    assert ((listing(tmp_path), content(tmp_path)) != before) == is_written  # the comparison can fail


def test_a_lengthened_key_is_told_beforehand(tmp_path: Path) -> None:
    ((there, here),) = load(Store(tmp_path / "target"), collided(tmp_path), dry_run=True).renamed.items()
    assert (len(there), len(here), here.startswith(there)) == (4, 8, True)


def test_a_dry_run_works_read_only(source: Store, target: Store, tmp_path: Path) -> None:
    train(source, {"lr": 1})
    train(target, {"lr": 2})
    assert load(Store(tmp_path / "target", read_only=True), tmp_path / "source", dry_run=True).added


def test_a_dry_run_refuses_what_an_import_would_refuse(source: Store, target: Store, tmp_path: Path) -> None:
    train(source, {"lr": 1})
    train(target, {"lr": 2})
    source.edit(manager="A", fields=("lr",))
    target.edit(manager="B", fields=("lr",))
    before = content(tmp_path)
    for dry_run in (True, False):
        with pytest.raises(WrongManager):
            load(target, tmp_path / "source", dry_run=dry_run)
    target.edit(manager="A")
    source.edit_schema("add", "clip", 0)
    for dry_run in (True, False):
        with pytest.raises(SchemaError, match="jimmy schema add clip 0"):
            load(target, tmp_path / "source", dry_run=dry_run)
    assert before.keys() - content(tmp_path).keys() == set()


class Line(Manager):
    num_epochs = 1

    def train(self) -> None: ...

    def eval(self) -> dict[str, float]:
        return {"loss": 1.0}


def test_a_manager_exports_and_loads_either(tmp_path: Path) -> None:
    first = Line(tmp_path / "first", {"lr": 0.1}, verbose=False, device="cpu", durable=False)
    key = first.process({})
    assert first.export(f"{tmp_path}/out/", where="loss == 1").keys == (key,)
    assert first.export(tmp_path / "out.tar", keys=[key[:3]], ckpts=False).keys == (key,)
    second = Line(tmp_path / "second", {"lr": 0.1}, verbose=False, device="cpu", durable=False)
    assert second.load(tmp_path / "out", dry_run=True).added == (key,)
    assert not (tmp_path / "second").exists()
    assert second.load(tmp_path / "out").added == (key,)
    assert second.load(tmp_path / "out.tar").kept == (key,)
    assert second.fetch(key) is second
