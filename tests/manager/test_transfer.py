"""Exports are exact and repeatable, loads merge by content, and no tar is believed."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import keys
from jimmy_manager.archives import layout, previews
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.record import seal
from jimmy_manager.archives.repair import fix
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import (
    CheckpointError,
    DamagedRecord,
    JimmyError,
    ReadOnlyStore,
    SchemaError,
    StoreError,
    StoreTooNew,
    WrongManager,
)
from jimmy_manager.manager.manager import Manager
from jimmy_manager.manager.transfer import Loaded, export_tar, load_tar
from tests.archives.runs import filling, listing

CONFIG = {"lr": 0.1, "seed": 0}
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(tmp_path / "source", durable=False)


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target", durable=False)


def begun(store: Store, config: Mapping[str, Any] = CONFIG, epochs: int = 2, mark: str = "") -> Attempt:
    run = store.register(config)
    claim = store.claims.take(store.standing(run.key), run.digest)
    assert claim is not None
    attempt = Attempt(store.history, claim, run={"host": "h"})
    attempt.adopt()
    for epoch in range(1, epochs + 1):
        save(attempt, epoch, mark)
    return attempt


def save(attempt: Attempt, epoch: int, mark: str = "") -> None:
    preview, _ = previews.save({"epoch": epoch, "mark": mark}, attempt.key)
    attempt.commit(
        epoch=epoch, checkpoint=filling(f"checkpoint {epoch} {mark}".encode()), preview=preview, figures={"loss": PNG}
    )


def finished(store: Store, config: Mapping[str, Any] = CONFIG, epochs: int = 2, mark: str = "") -> str:
    attempt = begun(store, config, epochs, mark)
    attempt.finish()
    return attempt.key


def released(store: Store, config: Mapping[str, Any] = CONFIG, epochs: int = 2, mark: str = "") -> str:
    attempt = begun(store, config, epochs, mark)
    attempt.claim.release()
    return attempt.key


def shown(store: Store, key: str) -> dict[str, Any]:
    """All that a user can see of a run, except when it was written and by which generation."""
    def read(commit: Commit) -> dict[str, Any]:
        with store.history.open(commit.ckpt_name, commit.ckpt) as file:
            ckpt = file.read()
        return {"ckpt": ckpt, "epoch": commit.epoch, "preview": store.previews.read(commit)}

    stats = store.stats[key]
    seen = store.history.newest(key, read) | {"config": store.configs[key].asdict(), "done": stats["done"]}
    return seen | {"figures": store.previews.figures(key), "state": store.standing(key).state}


def test_what_is_exported_and_loaded_is_what_was_there(source: Store, target: Store, tmp_path: Path) -> None:
    done, stopped = finished(source), released(source, {"lr": 1}, 1)
    exported = export_tar(source, tmp_path / "x.tar")
    assert exported == (tuple(sorted([done, stopped])), {})
    loaded = load_tar(target, tmp_path / "x.tar")
    assert loaded == Loaded(tuple(sorted([done, stopped])), (), (), {}, {})
    for key in (done, stopped):
        assert shown(target, key) == shown(source, key)
    assert target.stats[done]["run"]["imported"]["store"] == source.info.id
    assert target.stats[done]["run"]["host"] == "h"
    assert audit(target) == []
    assert (target.info.key_len, target.info.id != source.info.id) == (source.info.key_len, True)


def test_the_same_runs_give_the_same_bytes(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lr in range(3):
        finished(source, {"lr": lr})
    export_tar(source, tmp_path / "a.tar")
    first = (tmp_path / "a.tar").read_bytes()
    monkeypatch.setattr("time.time", lambda: 0.0)
    previous = os.umask(0o077)
    try:
        export_tar(Store(tmp_path / "source", read_only=True), tmp_path / "b.tar")
    finally:
        os.umask(previous)
    assert (tmp_path / "b.tar").read_bytes() == first
    with tarfile.open(tmp_path / "a.tar") as tar:
        infos = tar.getmembers()
    assert {(i.mtime, i.uid, i.gid, i.uname, i.mode) for i in infos} == {(0, 0, 0, "", 0o644)}


def test_any_tar_program_can_read_an_export(source: Store, tmp_path: Path) -> None:
    key = finished(source)
    export_tar(source, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        ckpt = tar.extractfile(layout.ckpt(key, 1, 2))
        assert ckpt is not None
        assert ckpt.read() == b"checkpoint 2 "
        assert len(tar.getnames()) == 6


def test_chosen_runs_are_exported_by_any_prefix(source: Store, tmp_path: Path) -> None:
    first, _ = finished(source), finished(source, {"lr": 1})
    assert export_tar(source, tmp_path / "x.tar", keys=[first[:6]]).keys == (first,)


def test_an_export_appears_whole_or_not_at_all(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(source)
    (tmp_path / "x.tar").write_bytes(b"the one of yesterday")
    monkeypatch.setattr("jimmy_manager.manager.transfer.padding", _full)
    with pytest.raises(StoreError, match="space"):
        export_tar(source, tmp_path / "x.tar")
    assert (tmp_path / "x.tar").read_bytes() == b"the one of yesterday"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "x.tar"]


def _full(size: int) -> bytes:
    raise OSError(28, "No space left on device")


def test_a_damaged_run_is_left_out_by_name_and_the_rest_is_exported(source: Store, tmp_path: Path) -> None:
    good, bad = finished(source), finished(source, {"lr": 1})
    for number in (1, 2):
        (tmp_path / "source" / layout.ckpt(bad, 1, number)).write_bytes(b"")
    exported = export_tar(source, tmp_path / "x.tar")
    assert exported.keys == (good,)
    assert layout.ckpt(bad, 1, 2) in exported.left[bad]


def test_the_newer_epoch_wins_in_both_directions(source: Store, target: Store, tmp_path: Path) -> None:
    key = released(source, epochs=3, mark="theirs")
    released(target, epochs=2, mark="ours")
    ours_is_newer = released(source, {"lr": 1}, epochs=1, mark="theirs")
    released(target, {"lr": 1}, epochs=2, mark="ours")
    export_tar(source, tmp_path / "x.tar")
    loaded = load_tar(target, tmp_path / "x.tar")
    assert (loaded.updated, loaded.kept, loaded.added) == ((key,), (ours_is_newer,), ())
    assert target.previews[key] == {"epoch": 3, "mark": "theirs"}
    assert target.previews[ours_is_newer] == {"epoch": 2, "mark": "ours"}
    assert load_tar(target, tmp_path / "x.tar").kept == tuple(sorted([key, ours_is_newer]))


def test_loading_twice_changes_nothing_more(source: Store, target: Store, tmp_path: Path) -> None:
    finished(source)
    export_tar(source, tmp_path / "x.tar")
    load_tar(target, tmp_path / "x.tar")
    before = listing(tmp_path / "target")
    load_tar(target, tmp_path / "x.tar")
    assert listing(tmp_path / "target") == before


def test_a_finished_run_replaces_an_unfinished_one_of_the_same_epoch(
    source: Store, target: Store, tmp_path: Path
) -> None:
    key = finished(source)
    released(target)
    export_tar(source, tmp_path / "x.tar")
    assert load_tar(target, tmp_path / "x.tar").updated == (key,)
    assert target.standing(key).state == "done"


def test_a_run_that_is_damaged_here_is_healed(source: Store, target: Store, tmp_path: Path) -> None:
    key = finished(source)
    finished(target)
    for number in (1, 2):
        (tmp_path / "target" / layout.ckpt(key, 1, number)).write_bytes(b"")
    export_tar(source, tmp_path / "x.tar")
    assert load_tar(target, tmp_path / "x.tar").updated == (key,)
    assert shown(target, key) == shown(source, key)


def test_a_run_that_was_popped_here_comes_back(source: Store, target: Store, tmp_path: Path) -> None:
    key = finished(source)
    finished(target)
    target.pop(key)
    export_tar(source, tmp_path / "x.tar")
    assert load_tar(target, tmp_path / "x.tar").added == (key,)
    assert shown(target, key) == shown(source, key)


def test_a_run_that_a_live_worker_holds_is_left(source: Store, target: Store, tmp_path: Path) -> None:
    key, other = finished(source, epochs=5), finished(source, {"lr": 1})
    attempt = begun(target)
    export_tar(source, tmp_path / "x.tar")
    loaded = load_tar(target, tmp_path / "x.tar")
    assert loaded.added == (other,)
    assert "held by" in loaded.left[key]
    save(attempt, 3)
    attempt.finish()


def test_an_import_that_fails_leaves_its_run_free(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = finished(source)
    export_tar(source, tmp_path / "x.tar")
    write = target.files.write

    def full(name: str, fill: Callable[..., None]) -> Any:
        if name.startswith("ckpts/"):
            raise StoreError(f"cannot write {name}: No space left on device")
        return write(name, fill)

    with monkeypatch.context() as patched:
        patched.setattr(target.files, "write", full)
        with pytest.raises(StoreError, match="space"):
            load_tar(target, tmp_path / "x.tar")
    assert target.standing(key).state == "released"
    assert target.committed(key) is None
    assert load_tar(target, tmp_path / "x.tar").added == (key,)


def declared(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose worker died after it had claimed that the run is done, and before its stats said so."""
    attempt = begun(store)

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store.files, "replace", full)
        with pytest.raises(StoreError, match="full"):
            attempt.finish()
    assert not store.history.stats(attempt.key).done
    return attempt.key


def test_a_run_that_was_declared_done_is_exported_as_done(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = declared(source, monkeypatch)
    export_tar(source, tmp_path / "declared.tar", ckpts=False)
    assert load_tar(target, tmp_path / "declared.tar").added == (key,)
    assert target.stats[key]["done"]
    assert load_tar(source, tmp_path / "declared.tar").kept == (key,)
    assert [repair.outcome for repair in fix(source, audit(source))] == ["mark"]
    export_tar(source, tmp_path / "marked.tar", ckpts=False)
    assert (tmp_path / "marked.tar").read_bytes() == (tmp_path / "declared.tar").read_bytes()


def test_an_older_commit_than_the_one_declared_done_is_not_exported_as_done(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = declared(source, monkeypatch)
    source.files.remove(layout.ckpt(key, 1, 2))
    export_tar(source, tmp_path / "x.tar")
    load_tar(target, tmp_path / "x.tar")
    assert (target.stats[key]["epoch"], target.stats[key]["done"]) == (1, False)


def test_without_checkpoints_finished_runs_can_be_looked_at_and_no_other_is_taken(
    source: Store, target: Store, tmp_path: Path
) -> None:
    done, stopped = finished(source), released(source, {"lr": 1})
    export_tar(source, tmp_path / "light.tar", ckpts=False)
    loaded = load_tar(target, tmp_path / "light.tar")
    assert loaded.added == (done,)
    assert "without its checkpoint" in loaded.left[stopped]
    assert target.previews[done] == source.previews[done]
    assert audit(target) == []
    with pytest.raises(CheckpointError, match=rf"{done} was exported without its checkpoint.*import.*resume=False"):
        target.ckpts[done]
    export_tar(target, tmp_path / "light2.tar")
    assert load_tar(target, tmp_path / "light2.tar").kept == (done,)
    export_tar(source, tmp_path / "whole.tar")
    assert load_tar(target, tmp_path / "whole.tar").updated == (done,)
    assert shown(target, done) == shown(source, done)


def test_a_light_export_never_replaces_what_can_be_continued(source: Store, target: Store, tmp_path: Path) -> None:
    key = finished(source, epochs=3)
    released(target, epochs=2)
    export_tar(source, tmp_path / "light.tar", ckpts=False)
    assert "can be continued" in load_tar(target, tmp_path / "light.tar").left[key]
    assert target.stats[key]["epoch"] == 2


def test_a_collision_lengthens_the_key_and_is_told(tmp_path: Path) -> None:
    source = Store(tmp_path / "source", key_len=4, durable=False)
    target = Store(tmp_path / "target", key_len=4, durable=False)
    first = {"n": 0}
    prefix = keys.digest(first)[:4]
    second = next({"n": n} for n in range(1, 10**6) if keys.digest({"n": n})[:4] == prefix)
    assert finished(target, first) == finished(source, second) == prefix
    export_tar(source, tmp_path / "x.tar")
    loaded = load_tar(target, tmp_path / "x.tar")
    longer = keys.digest(second)[:8]
    assert (loaded.added, loaded.renamed) == ((longer,), {prefix: longer})
    assert target.configs[prefix].asdict() == first
    assert shown(target, longer) == shown(source, prefix)
    assert audit(target) == []


def test_a_new_store_gives_the_runs_the_keys_that_they_had(tmp_path: Path) -> None:
    source = Store(tmp_path / "source", key_len=6, durable=False)
    key = finished(source)
    export_tar(source, tmp_path / "x.tar")
    target = Store(tmp_path / "target", durable=False)
    assert load_tar(target, tmp_path / "x.tar").renamed == {}
    assert key in Store(tmp_path / "target").configs


def test_the_name_of_the_manager_travels_and_another_one_is_refused(
    source: Store, target: Store, tmp_path: Path
) -> None:
    finished(source)
    source.edit(manager="Digits", fields=("lr", "seed"))
    export_tar(source, tmp_path / "x.tar")
    with pytest.raises(WrongManager, match="store/Digits"):
        load_tar(target, tmp_path / "x.tar", manager="Other")
    assert not (tmp_path / "target" / "configs").exists()
    load_tar(target, tmp_path / "x.tar")
    assert (target.info.manager, target.info.fields) == ("Digits", ("lr", "seed"))
    other = Store(tmp_path / "other", durable=False)
    other.edit(manager="Other")
    before = listing(tmp_path / "other")
    with pytest.raises(WrongManager, match="'Digits'"):
        load_tar(other, tmp_path / "x.tar")
    assert listing(tmp_path / "other") == before


def test_only_fields_that_both_sides_had_from_the_start_count_as_such(
    source: Store, target: Store, tmp_path: Path
) -> None:
    finished(source)
    source.edit(manager="M", fields=("lr",))
    target.edit(manager="M", fields=("lr", "seed"))
    export_tar(source, tmp_path / "x.tar")
    load_tar(target, tmp_path / "x.tar")
    assert target.info.fields == ("lr",)


def test_the_ledger_travels_into_an_empty_store(source: Store, target: Store, tmp_path: Path) -> None:
    key = finished(source)
    source.edit_schema("add", "amp", False)
    export_tar(source, tmp_path / "x.tar")
    load_tar(target, tmp_path / "x.tar")
    assert target.find({**CONFIG, "amp": False}) == key
    assert target.configs[key].asdict() == {**CONFIG, "amp": False}


def test_a_tar_from_before_a_ledger_entry_means_the_same_runs(source: Store, target: Store, tmp_path: Path) -> None:
    key = finished(source, epochs=3)
    export_tar(source, tmp_path / "x.tar")
    finished(target, epochs=2)
    target.edit_schema("add", "amp", False)
    assert load_tar(target, tmp_path / "x.tar").updated == (key,)
    assert target.configs[key].asdict() == {**CONFIG, "amp": False}


def test_a_birth_value_that_a_tar_spells_out_is_the_run_without_it(
    source: Store, target: Store, tmp_path: Path
) -> None:
    finished(source, {**CONFIG, "amp": False}, epochs=3)
    export_tar(source, tmp_path / "x.tar")
    key = finished(target, epochs=2)
    target.edit_schema("add", "amp", False)
    loaded = load_tar(target, tmp_path / "x.tar")
    assert loaded.updated == (key,)
    assert list(loaded.renamed.values()) == [key]


def test_an_import_knows_a_run_under_the_form_that_a_kept_entry_allows(
    source: Store, target: Store, tmp_path: Path
) -> None:
    key = finished(source, {**CONFIG, "amp": False})
    source.edit_schema("add", "amp", False)
    assert next(iter(source.ledger)).kept
    export_tar(source, tmp_path / "x.tar")
    assert load_tar(source, tmp_path / "x.tar").kept == (key,)
    assert list(source.registry) == [key]

    finished(target, {**CONFIG, "amp": False}, epochs=1)
    target.edit_schema("add", "amp", False)
    loaded = load_tar(target, tmp_path / "x.tar")
    assert (loaded.updated, loaded.renamed) == ((key,), {})
    assert list(target.registry) == [key]


def test_ledger_entries_that_are_missing_here_are_named_with_the_commands(
    source: Store, target: Store, tmp_path: Path
) -> None:
    finished(source)
    finished(target)
    source.edit_schema("add", "amp", False)
    source.edit_schema("rename", "lr", "optim.lr")
    export_tar(source, tmp_path / "x.tar")
    before = listing(tmp_path / "target")
    with pytest.raises(SchemaError, match=r"jimmy schema add amp false\n    jimmy schema rename lr optim.lr"):
        load_tar(target, tmp_path / "x.tar")
    target.edit_schema("add", "other", 1)
    with pytest.raises(SchemaError, match="from entry 1 on"):
        load_tar(target, tmp_path / "x.tar")
    assert {name: seen for name, seen in listing(tmp_path / "target").items() if "configs" in name} == {
        name: seen for name, seen in before.items() if "configs" in name
    }


def test_a_read_only_store_takes_nothing_and_a_missing_tar_is_named(source: Store, tmp_path: Path) -> None:
    finished(source)
    export_tar(source, tmp_path / "x.tar")
    with pytest.raises(ReadOnlyStore):
        load_tar(Store(tmp_path / "source", read_only=True), tmp_path / "x.tar")
    with pytest.raises(StoreError, match=r"nowhere\.tar"):
        load_tar(source, tmp_path / "nowhere.tar")


def test_a_store_in_memory_exports_and_loads_alike(source: Store, tmp_path: Path) -> None:
    key = finished(source)
    export_tar(source, tmp_path / "x.tar")
    memory = Store(None)
    assert load_tar(memory, tmp_path / "x.tar").added == (key,)
    assert shown(memory, key) == shown(source, key)


class Trivial(Manager):
    def train(self) -> None: ...

    def eval(self) -> dict[str, Any]:
        return {"loss_test": 1.0}


def test_a_manager_exports_loads_and_prunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Trivial(tmp_path / "first", verbose=False, durable=False)
    key = first.process({"lr": 1}, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Janitor, "tidy", lambda self, key: False)  # a worker that ended before it had tidied up
        first.process({"lr": 1}, 2)
    assert first.prune().names
    assert not first.prune().names
    assert first.export_tar(tmp_path / "x.tar").keys == (key,)
    second = Trivial(tmp_path / "second", verbose=False, durable=False)
    assert second.load_tar(tmp_path / "x.tar").added == (key,)
    assert second.previews[key] == first.previews[key]
    assert second.process({"lr": 1}, 3) == key
    assert second.stats[key]["epoch"] == 3

    class Another(Trivial):
        name = "Another"

    with pytest.raises(WrongManager):
        Another(tmp_path / "third", verbose=False).load_tar(tmp_path / "x.tar")


def test_a_run_that_came_without_its_checkpoint_says_so_when_it_is_to_go_on(tmp_path: Path) -> None:
    first = Trivial(tmp_path / "first", verbose=False, durable=False)
    key = first.process({"lr": 1}, 1)
    first.export_tar(tmp_path / "light.tar", ckpts=False)
    first.export_tar(tmp_path / "whole.tar")
    second = Trivial(tmp_path / "second", verbose=False, durable=False)
    second.load_tar(tmp_path / "light.tar")
    assert second.process({"lr": 1}, 1) == key
    for use in (lambda: second.process({"lr": 1}, 2), lambda: second.fetch(key)):
        with pytest.raises(CheckpointError, match=f"{key} was exported without its checkpoint"):
            use()
    second.load_tar(tmp_path / "whole.tar")
    assert second.process({"lr": 1}, 2) == key
    assert second.stats[key]["epoch"] == 2


# Hostile tars: each begins as a good one, of which one thing is changed.


class Tar:
    """The members of a good export, to be changed and written again."""

    def __init__(self, store: Store, path: Path) -> None:
        export_tar(store, path)
        self.path = path
        with tarfile.open(path) as tar:
            self.members = [(info, _content(tar, info)) for info in tar.getmembers()]

    def index(self, part: str) -> int:
        return next(i for i, (info, _) in enumerate(self.members) if part in info.name)

    def replace(self, part: str, raw: bytes) -> None:
        info = self.members[self.index(part)][0]
        self.members[self.index(part)] = (_info(info.name, len(raw)), raw)

    def add(self, info: tarfile.TarInfo, raw: bytes = b"") -> None:
        self.members.append((info, raw))

    def write(self) -> Path:
        with tarfile.open(self.path, "w", format=tarfile.PAX_FORMAT) as tar:
            for info, raw in self.members:
                tar.addfile(info, io.BytesIO(raw))
        return self.path


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    return file.read()


def _info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


@pytest.fixture
def tar(source: Store, tmp_path: Path) -> Tar:
    finished(source)
    return Tar(source, tmp_path / "x.tar")


def refused(tar: Path, target: Store, tmp_path: Path, message: str, kind: type[JimmyError] = DamagedRecord) -> None:
    outside = {p.name for p in tmp_path.iterdir()}
    with pytest.raises(kind, match=message):
        load_tar(target, tar)
    assert not (tmp_path / "target").exists(), "nothing is half-written"
    assert {p.name for p in tmp_path.iterdir()} == outside


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tarfile.SYMTYPE, "symbolic link"), (tarfile.LNKTYPE, "hard link"), (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"), (tarfile.FIFOTYPE, "pipe"), (tarfile.DIRTYPE, "folder"),
        (tarfile.CONTTYPE, "type"), (tarfile.GNUTYPE_SPARSE, "type"), (b"Z", "type"),
        (tarfile.GNUTYPE_LONGNAME, "type"),
    ],
)
def test_anything_but_a_regular_file_is_refused(
    tar: Tar, target: Store, tmp_path: Path, kind: bytes, says: str
) -> None:
    tar.add(_info("configs/ab/abcdef12.json", kind=kind, link="/etc/passwd"))
    refused(tar.write(), target, tmp_path, rf"'configs/ab/abcdef12\.json/?' is .*{says}")


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/passwd", "configs/../../evil", "configs/ab/../ab/abcdef12.json", "./store.yaml", "evil",
        "configs/ab/abcdef12.json/", "configs//abcdef12.json", "configs/cd/abcdef12.json", "logs/ab/abcdef12/x",
        "claims/ab/abcdef12.g1.json", "configs/ab/abcdef12.g1.json", "ckpts/ab/ABCDEF12.g1.c1.pt", "damaged/x",
        "configs/ab/abcdef12.json\n", "stats/ab/abcdef12.g01.json", "configs/ab/.abcdef12.json.0123456789abcdef", "",
        "configs\\ab\\abcdef12.json", "previews/ab/abcdef12.g1.c1.../x.png",
    ],
)
def test_names_that_the_layout_does_not_know_are_refused(
    tar: Tar, target: Store, tmp_path: Path, name: str
) -> None:
    tar.add(_info(name, 1), b"x")
    refused(tar.write(), target, tmp_path, "is no file that export_tar writes|ends with|has the size|folder")


def test_a_name_in_an_extended_header_is_judged_like_any_other(tar: Tar, target: Store, tmp_path: Path) -> None:
    info = _info("configs/ab/abcdef12.json", 1)
    info.pax_headers = {"path": "../evil"}
    tar.add(info, b"x")
    refused(tar.write(), target, tmp_path, r"'\.\./evil' is no file")


@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.major": "1"}, {"linkpath": "/etc"}, {"size": "-1"}, {"size": "9" * 30}]
)
def test_extended_headers_that_no_plain_file_needs_are_refused(
    tar: Tar, target: Store, tmp_path: Path, headers: dict[str, str]
) -> None:
    info = _info("configs/ab/abcdef12.json", 1)
    info.pax_headers = headers
    tar.add(info, b"x")
    refused(tar.write(), target, tmp_path, "extended header|has the size")


def test_a_chain_or_a_flood_of_extended_headers_is_refused(tar: Tar, target: Store, tmp_path: Path) -> None:
    record = b"12 path=abc\n"
    once = _info("h", len(record), tarfile.XHDTYPE).tobuf() + record + bytes(512 - len(record))
    good = tar.path.read_bytes()
    tar.path.write_bytes(once * 2 + good)
    refused(tar.path, target, tmp_path, "more headers")
    flood = b"x" * (1 << 17)
    tar.path.write_bytes(_info("h", len(flood), tarfile.XHDTYPE).tobuf() + flood + good)
    refused(tar.path, target, tmp_path, "more headers")
    tar.path.write_bytes(once.replace(b"12 path", b"99 path") + good)
    refused(tar.path, target, tmp_path, "extended header of 'h' is damaged")


@pytest.mark.parametrize("part", ["store.yaml", "configs/", "stats/", "ckpts/", "loss.png"])
def test_a_member_that_is_there_twice_is_refused(tar: Tar, target: Store, tmp_path: Path, part: str) -> None:
    tar.members.append(tar.members[tar.index(part)])
    refused(tar.write(), target, tmp_path, f"{part}.*twice")


def test_every_truncation_is_noticed(tar: Tar, target: Store, tmp_path: Path) -> None:
    whole = tar.path.read_bytes()
    for length in {*range(0, len(whole) - 512, 512), *range(1, len(whole) - 512, 371)}:
        tar.path.write_bytes(whole[:length])
        refused(tar.path, target, tmp_path, "ends in the middle|ends before|no plain tar|has lost")


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(tar: Tar, tmp_path: Path, source: Store) -> None:
    whole = bytearray(tar.path.read_bytes())
    key = next(source.committed_keys())
    refusals = 0
    for position in range(0, len(whole), 13):
        whole[position] ^= 1 << (position % 8)
        tar.path.write_bytes(whole)
        target = Store(None)
        try:
            load_tar(target, tar.path)
        except JimmyError:
            refusals += 1
        else:  # the padding of a header, say
            assert shown(target, key) == shown(source, key)
        whole[position] ^= 1 << (position % 8)
    assert refusals > len(whole) / 13 / 3


def test_a_size_that_lies_is_refused_before_anything_is_read(tar: Tar, target: Store, tmp_path: Path) -> None:
    good = tar.path.read_bytes()
    bomb = _info("ckpts/ab/abcdef12.g1.c1.pt", 1 << 40).tobuf(tarfile.GNU_FORMAT)
    tar.path.write_bytes(good[:-1024] + bomb + bytes(1024))
    refused(tar.path, target, tmp_path, r"'ckpts/ab/abcdef12\.g1\.c1\.pt' claims 1099511627776 bytes")
    negative = bytearray(bomb)
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative[:512])
    tar.path.write_bytes(good[:-1024] + bytes(negative) + bytes(1024))
    refused(tar.path, target, tmp_path, "has the size -")


@pytest.mark.parametrize("part", ["store.yaml", "configs/", "stats/", "g1.c2.json"])
def test_a_small_record_that_is_huge_is_refused_unread(tar: Tar, target: Store, tmp_path: Path, part: str) -> None:
    tar.replace(part, bytes((1 << 22) + 1))
    refused(tar.write(), target, tmp_path, rf"{part}.* has \d+ bytes")


@pytest.mark.parametrize("part", ["ckpts/", "g1.c2.json", "loss.png"])
def test_a_file_with_another_size_or_digest_than_its_stats_say_is_refused(
    tar: Tar, target: Store, tmp_path: Path, part: str
) -> None:
    raw = tar.members[tar.index(part)][1]
    tar.replace(part, raw + b"more")
    refused(tar.write(), target, tmp_path, rf"{part}.*its stats say {len(raw)}")
    tar.replace(part, raw[:-1] + bytes([raw[-1] ^ 1]))
    refused(tar.write(), target, tmp_path, f"{part}.*digest differs")


@pytest.mark.parametrize("part", ["store.yaml", "configs/", "stats/"])
def test_a_damaged_record_is_refused_by_name(tar: Tar, target: Store, tmp_path: Path, part: str) -> None:
    raw = tar.members[tar.index(part)][1]
    tar.replace(part, raw[:-5] + b"xxxxx")
    refused(tar.write(), target, tmp_path, f"damaged.*{part}|{part}.*damaged")


@pytest.mark.parametrize("part", ["store.yaml", "configs/", "stats/", "g1.c2.json", "loss.png"])
def test_a_record_that_is_missing_is_refused_by_name(tar: Tar, target: Store, tmp_path: Path, part: str) -> None:
    del tar.members[tar.index(part)]
    refused(tar.write(), target, tmp_path, "x.tar: ")


def test_files_that_no_record_names_are_refused(tar: Tar, target: Store, tmp_path: Path, source: Store) -> None:
    key = next(source.committed_keys())
    tar.add(_info(layout.ckpt(key, 1, 7), 4), b"evil")
    refused(tar.write(), target, tmp_path, r"c7\.pt' is not named by")


def test_a_second_stats_record_of_a_run_is_refused(tar: Tar, target: Store, tmp_path: Path, source: Store) -> None:
    key = next(source.committed_keys())
    tar.add(_info(layout.stats(key, 2), 1), b"x")
    refused(tar.write(), target, tmp_path, "second record")


def test_records_of_a_later_version_ask_for_an_upgrade(tar: Tar, target: Store, tmp_path: Path) -> None:
    for part in ("configs/", "stats/"):
        good = tar.members[tar.index(part)][1]
        body = good[: -(64 + 14)].replace(b'"version":1', b'"version":2')
        tar.replace(part, body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n')
        refused(tar.write(), target, tmp_path, "version 2", StoreTooNew)
        tar.replace(part, good)
    text = tar.members[tar.index("store.yaml")][1].rpartition(b"# sha256")[0].replace(b"format: 1", b"format: 2")
    tar.replace("store.yaml", text + b"# sha256 " + hashlib.sha256(text).hexdigest().encode() + b"\n")
    refused(tar.write(), target, tmp_path, "format 2", StoreTooNew)


def _stats_with(tar: Tar, change: Callable[[Stats], Stats]) -> None:
    info, raw = tar.members[tar.index("stats/")]
    tar.replace("stats/", change(Stats.unseal(raw, info.name)).seal())


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s._replace(commits=()),
        lambda s: s._replace(commits=(s.commits[0]._replace(epoch="9"),)),
        lambda s: s._replace(commits=(s.commits[0]._replace(epoch=-1),)),
        lambda s: s._replace(commits=(s.commits[0]._replace(epoch=True),)),
        lambda s: s._replace(commits=(s.commits[0]._replace(at="<script>"),)),
        lambda s: s._replace(commits=(s.commits[0]._replace(number=[1]),)),
        lambda s: s._replace(commits=(s.commits[0]._replace(figures={"../../x": s.commits[0].preview}),)),
        lambda s: s._replace(run=["list"]),
        lambda s: s._replace(done="yes"),
    ],
)
def test_sealed_stats_with_values_of_other_types_are_refused(
    tar: Tar, target: Store, tmp_path: Path, change: Callable[[Stats], Stats]
) -> None:
    _stats_with(tar, change)
    refused(tar.write(), target, tmp_path, r"x\.tar: .*(stats|previews)/")


def test_sealed_records_that_hold_something_else_are_refused(
    tar: Tar, target: Store, tmp_path: Path, source: Store
) -> None:
    key = next(source.committed_keys())
    good = tar.members[tar.index("configs/")][1]
    for data in ({}, {"digest": 7, "config": CONFIG}, {"digest": key, "config": {}}, {"digest": key, "config": [1]}):
        tar.replace("configs/", seal("config", data))
        refused(tar.write(), target, tmp_path, "configs/")
    tar.replace("configs/", good)
    bad = seal("preview", {"key": key, "preview": {"$array": {"dtype": "O", "shape": [1], "raw": "AAAAAAAAAAA="}}})
    tar.replace("g1.c2.json", bad)
    _stats_with(tar, lambda s: s._replace(commits=(s.commits[0]._replace(preview=Content.of(bad)),)))
    refused(tar.write(), target, tmp_path, "g1.c2.json' is no preview")


def test_what_is_no_tar_is_said_to_be_none(target: Store, tmp_path: Path, source: Store) -> None:
    finished(source)
    for mode in ("w:gz", "w:xz"):
        export_tar(source, tmp_path / "plain.tar")
        with tarfile.open(tmp_path / "x.tar", mode) as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "plain.tar", "x")
        refused(tmp_path / "x.tar", target, tmp_path, "no plain tar|ends in the middle")
    (tmp_path / "x.tar").write_bytes(b"hello " * 1000)
    refused(tmp_path / "x.tar", target, tmp_path, "no plain tar")
    (tmp_path / "x.tar").write_bytes(bytes(10240))
    refused(tmp_path / "x.tar", target, tmp_path, r"no store\.yaml")
    (tmp_path / "x.tar").write_bytes((tmp_path / "plain.tar").read_bytes() + b"more")
    refused(tmp_path / "x.tar", target, tmp_path, "follows the end")
