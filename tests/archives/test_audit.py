"""``jimmy check`` finds each kind of damage by file name, repairs what it safely can, and deletes nothing readable."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import layout, previews, repair
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.audit import audit, check, fix
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.inspection import Finding
from jimmy_manager.archives.record import seal
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, ReadOnlyStore, StoreError
from tests.archives.runs import filling, listing

CONFIG = {"lr": 0.1, "seed": 0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def begun(store: Store, config: Mapping[str, Any] = CONFIG, epochs: int = 2) -> Attempt:
    run = store.register(config)
    claim = store.claims.take(store.standing(run.key), run.digest)
    assert claim is not None
    attempt = Attempt(store.history, claim)
    attempt.adopt()
    for epoch in range(1, epochs + 1):
        save(attempt, epoch)
    return attempt


def save(attempt: Attempt, epoch: int) -> None:
    preview, _ = previews.save({"epoch": epoch}, attempt.key)
    attempt.commit(epoch=epoch, checkpoint=filling(f"checkpoint {epoch} of {attempt.key}".encode()), preview=preview)


def finished(store: Store, config: Mapping[str, Any] = CONFIG) -> str:
    attempt = begun(store, config)
    attempt.finish()
    return attempt.key


def path(store: Store, name: str) -> Path:
    assert store.directory is not None
    return Path(store.directory) / name


def spoil(store: Store, name: str) -> bytes:
    raw = path(store, name).read_bytes()
    path(store, name).write_bytes(raw[:-5] + b"XXXXX")
    return path(store, name).read_bytes()


def found(store: Store) -> set[tuple[str, str, str]]:
    return {(one.kind, one.name, one.remedy) for one in audit(store)}


def outcomes(store: Store) -> dict[str, str]:
    return {one.finding.name: one.outcome for one in fix(store, audit(store))}


def aside(store: Store, name: str) -> list[Path]:
    folder, _, last = f"{layout.DAMAGED}/{name}".rpartition("/")
    return [p for p in path(store, folder).glob(".*") if layout.scratch_target(p.name) == last]


def test_a_sound_store_has_no_findings(store: Store) -> None:
    finished(store)
    attempt = begun(store, {"lr": 1})
    attempt.claim.release()
    running = begun(store, {"lr": 2})
    failed = begun(store, {"lr": 3})
    failed.claim.fail({"type": "E", "message": "", "traceback": ""})
    popped = finished(store, {"lr": 4})
    store.pop(popped)
    store.register({"lr": 5})
    assert {one for one in audit(store) if one.key != popped} == set()
    running.claim.drop()


def test_without_fixing_nothing_is_written_and_a_read_only_store_will_do(store: Store) -> None:
    key = finished(store)
    spoil(store, layout.stats(key, 1))
    root = path(store, "")
    before = listing(root)
    only_looking = Store(root, read_only=True)
    findings = audit(only_looking)
    assert findings
    assert check(root) == (findings, [])
    assert listing(root) == before
    assert {one.outcome for one in fix(only_looking, findings)} == {"left"}
    assert listing(root) == before
    with pytest.raises(ReadOnlyStore):
        only_looking.files.remove("x")


def test_damaged_stats_go_aside_and_the_previous_generation_is_used(store: Store) -> None:
    attempt = begun(store)
    attempt.claim.release()
    second = begun(store, epochs=0)
    save(second, 3)
    second.claim.release()
    name = layout.stats(second.key, 2)
    raw = spoil(store, name)
    assert ("damaged", name, "move") in found(store)
    assert outcomes(store)[name] == "move"
    assert [p.read_bytes() for p in aside(store, name)] == [raw]
    stats = store.committed(second.key)
    assert stats is not None
    assert (stats.generation, stats.commits[-1].epoch) == (1, 2)
    assert store.claims.look(second.key).top == 2, "its number stays taken"


def test_every_small_record_damaged_in_any_way_is_told_by_name(store: Store) -> None:
    key = finished(store)
    names = [layout.config(key), layout.claim(key, 1), layout.claim(key, 2), layout.stats(key, 1),
             layout.preview(key, 1, 2)]
    for name in names:
        whole = path(store, name).read_bytes()
        for broken in (b"", whole[:40], whole.replace(b'"jimmy"', b'"timmy"', 1), b"\0" * len(whole), seal("x", {}),
                       seal(name.split("/")[0].rstrip("s"), {}), seal("stats", {})):
            path(store, name).write_bytes(broken)
            assert ("damaged", name) in {one[:2] for one in found(store)}, (name, broken[:40])
        path(store, name).write_bytes(whole)
    assert found(store) == set()


def test_claims_and_claimed_configurations_are_never_moved(store: Store) -> None:
    key = finished(store)
    for name in (layout.config(key), layout.claim(key, 1)):
        raw = spoil(store, name)
        assert ("damaged", name, "") in found(store)
        assert outcomes(store)[name] == "left"
        assert path(store, name).read_bytes() == raw
    assert "rewrites it" in next(one for one in audit(store) if one.name == layout.config(key)).message
    Store(path(store, "")).register(CONFIG)
    assert layout.config(key) not in {one.name for one in audit(store)}


def test_a_damaged_configuration_that_nobody_claimed_is_moved(store: Store) -> None:
    key = store.register(CONFIG).key
    spoil(store, layout.config(key))
    assert outcomes(store) == {layout.config(key): "move"}
    assert aside(store, layout.config(key))
    assert Store(path(store, "")).register(CONFIG).key == key


def test_a_live_run_is_reported_and_left_alone(store: Store) -> None:
    attempt = begun(store)
    name = layout.stats(attempt.key, 1)
    raw = spoil(store, name)
    path(store, "stats/" + attempt.key[:2] + f"/.{attempt.key}.g1.json.0123456789abcdef").write_bytes(b"half")
    findings = audit(store)
    assert [(one.kind, one.name, one.remedy) for one in findings] == [("damaged", name, "")]
    assert "may still hold" in findings[0].message
    assert {one.outcome for one in fix(store, findings)} == {"left"}
    assert path(store, name).read_bytes() == raw
    attempt.claim.drop()


def test_a_run_that_came_alive_after_the_audit_is_left_alone(store: Store) -> None:
    attempt = begun(store)
    attempt.claim.release()
    name = layout.stats(attempt.key, 1)
    raw = spoil(store, name)
    findings = audit(store)
    run = store.register(CONFIG)
    claim = store.claims.take(store.standing(run.key), run.digest)
    assert claim is not None
    assert [one.outcome for one in fix(store, findings)] == ["left"] * len(findings)
    assert path(store, name).read_bytes() == raw
    claim.drop()


def test_stats_that_turn_out_whole_when_moved_are_put_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = begun(store)
    attempt.claim.release()
    name = layout.stats(attempt.key, 1)
    whole = path(store, name).read_bytes()
    spoil(store, name)
    findings = audit(store)
    move = store.files.move

    def replaced_just_before(source: str, target: str) -> None:
        path(store, source).write_bytes(whole)
        move(source, target)

    monkeypatch.setattr(store.files, "move", replaced_just_before)
    assert [one.outcome for one in fix(store, findings)] == ["left"]
    assert path(store, name).read_bytes() == whole
    assert not aside(store, name)


def test_newer_stats_are_not_overwritten_by_putting_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = begun(store)
    attempt.claim.release()
    name = layout.stats(attempt.key, 1)
    whole = path(store, name).read_bytes()
    newer = Stats.unseal(whole, name)._replace(run={"newer": True}).seal()
    spoil(store, name)
    findings = audit(store)
    move = store.files.move

    def overtaken(source: str, target: str) -> None:
        path(store, source).write_bytes(whole)
        move(source, target)
        path(store, source).write_bytes(newer)

    monkeypatch.setattr(store.files, "move", overtaken)
    fix(store, findings)
    assert path(store, name).read_bytes() == newer
    assert [p.read_bytes() for p in aside(store, name)] == [whole], "readable, so kept"


def test_a_whole_record_left_aside_by_a_killed_repair_comes_back(store: Store) -> None:
    attempt = begun(store)
    attempt.claim.release()
    name = layout.stats(attempt.key, 1)
    whole = path(store, name).read_bytes()
    store.files.move(name, layout.scratch(f"{layout.DAMAGED}/{name}"))
    assert ("missing", name, "return") in found(store)
    assert outcomes(store)[name] == "return"
    assert path(store, name).read_bytes() == whole
    assert found(store) == set()


def test_a_finished_run_without_its_last_checkpoint_is_trained_on_from_the_one_before(store: Store) -> None:
    key = finished(store)
    name = layout.ckpt(key, 1, 2)
    raw = spoil(store, name)
    assert {("damaged", name, "move"), ("damaged", layout.stats(key, 1), "retry")} <= found(store)
    assert outcomes(store) == {name: "move", layout.stats(key, 1): "retry"}
    assert [p.read_bytes() for p in aside(store, name)] == [raw]
    assert store.standing(key).is_free
    attempt = begun(store, epochs=0)
    assert attempt.adopted is not None
    assert attempt.adopted.epoch == 1
    save(attempt, 2)
    attempt.finish()
    outcomes(store)
    assert found(store) == set(), "clean once it was trained again"


def test_without_any_whole_checkpoint_a_finished_run_is_left_to_people(store: Store) -> None:
    key = finished(store)
    path(store, layout.ckpt(key, 1, 1)).unlink()
    path(store, layout.ckpt(key, 1, 2)).unlink()
    assert found(store) == {
        ("missing", layout.ckpt(key, 1, 1), ""), ("missing", layout.ckpt(key, 1, 2), ""),
        ("damaged", layout.stats(key, 1), ""),
    }
    assert set(outcomes(store).values()) == {"left"}
    assert store.standing(key).state == "done"


def test_sizes_alone_are_compared_when_contents_are_not_read(store: Store) -> None:
    key = finished(store)
    name = layout.ckpt(key, 1, 2)
    spoil(store, name)
    assert audit(store, contents=False) == []
    path(store, name).write_bytes(b"short")
    assert ("damaged", name) in {(one.kind, one.name) for one in audit(store, contents=False)}


def test_a_done_run_that_was_not_marked_is_marked_where_the_digests_agree(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begun(store)
    with monkeypatch.context() as patched:
        patched.setattr(store.files, "replace", _die)
        with pytest.raises(KeyboardInterrupt):
            attempt.finish()
    name = layout.stats(attempt.key, 1)
    assert found(store) == {("unfinished", name, "mark")}
    assert outcomes(store) == {name: "mark"}
    stats = store.committed(attempt.key)
    assert stats is not None
    assert stats.done
    assert found(store) == set()


def _die(*_: Any) -> None:
    raise KeyboardInterrupt


def test_stats_other_than_those_declared_done_are_not_marked(store: Store) -> None:
    key = finished(store)
    name = layout.stats(key, 1)
    stats = Stats.unseal(path(store, name).read_bytes(), name)
    path(store, name).write_bytes(stats._replace(commits=stats.commits[1:], done=False).seal())
    assert ("mismatch", name, "") in found(store)
    assert "mark" not in outcomes(store).values()


def test_stats_declared_done_that_are_gone_are_missed(store: Store) -> None:
    key = finished(store)
    path(store, layout.stats(key, 1)).unlink()
    assert ("missing", layout.stats(key, 1), "") in found(store)


def test_a_half_popped_run_is_buried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = finished(store)
    with monkeypatch.context() as patched:
        patched.setattr(store.files, "replace", _die)
        with pytest.raises(KeyboardInterrupt):
            store.pop(key)
    assert not store.is_popped(key)
    name = layout.stats(key, 3)
    assert ("unfinished", name, "bury") in found(store)
    assert outcomes(store)[name] == "bury"
    assert store.is_popped(key)
    outcomes(store)
    assert found(store) == set()


def test_superseded_generations_go_as_the_janitor_decides(store: Store) -> None:
    begun(store).claim.release()
    second = begun(store, epochs=0)
    save(second, 3)
    second.claim.release()
    key = second.key
    # Commit 2 of generation 1 was linked: as commit 0 of generation 2 it stays a fallback.
    assert ("superseded", layout.stats(key, 1), "sweep") in found(store)
    assert outcomes(store) == {layout.stats(key, 1): "sweep"}
    assert found(store) == set()
    assert not path(store, layout.ckpt(key, 1, 2)).exists()
    assert path(store, layout.claim(key, 1)).exists()


def test_files_of_a_killed_commit_go_aside_once_their_owner_has_ended(store: Store) -> None:
    attempt = begun(store)
    name = layout.ckpt(attempt.key, 1, 3)
    path(store, name).write_bytes(b"never committed")
    assert found(store) == set(), "a live owner may be about to name it"
    attempt.claim.release()
    assert found(store) == {("unreferenced", name, "move")}
    assert outcomes(store) == {name: "move"}
    assert [p.read_bytes() for p in aside(store, name)] == [b"never committed"]
    assert found(store) == set()


def test_files_of_a_generation_whose_stats_are_damaged_are_not_called_unreferenced(store: Store) -> None:
    begun(store).claim.release()
    key = store.register(CONFIG).key
    spoil(store, layout.stats(key, 1))
    assert found(store) == {("damaged", layout.stats(key, 1), "move")}


def test_scratch_files_of_runs_that_nobody_holds_are_removed(store: Store) -> None:
    key = finished(store)
    names = [layout.scratch(layout.ckpt(key, 1, 9)), layout.scratch(layout.config(key)), layout.scratch("store.yaml")]
    for name in names:
        path(store, name).write_bytes(b"half")
    assert found(store) == {("scratch", name, "remove") for name in names}
    assert set(outcomes(store).values()) == {"remove"}
    assert found(store) == set()


def test_foreign_files_links_and_folders_are_told_and_left(store: Store) -> None:
    key = finished(store)
    root = path(store, "")
    (root / "notes.txt").write_text("mine")
    (root / "stats" / "old").mkdir()
    shard = root / "stats" / key[:2]
    (shard / f"{key}.g01.json").write_text("{}")
    (shard / "zz345678.g1.json").write_text("{}")
    (shard / "folder").mkdir()
    other = "00" if key[:2] != "00" else "01"
    (shard / f"{other}345678.g1.json").write_text("{}")
    moved = root / "elsewhere.pt"
    shutil.move(root / layout.ckpt(key, 1, 1), moved)
    os.symlink(moved, root / layout.ckpt(key, 1, 1))
    before = listing(root)
    names = {one.name for one in audit(store) if one.kind == "foreign"}
    folder = f"stats/{key[:2]}"
    assert names == {
        "notes.txt", "elsewhere.pt", "stats/old", f"{folder}/{key}.g01.json", f"{folder}/zz345678.g1.json",
        f"{folder}/folder", f"{folder}/{other}345678.g1.json", layout.ckpt(key, 1, 1),
    }
    outcomes(store)
    assert listing(root) == before


def test_records_that_contradict_each_other_are_told(store: Store) -> None:
    first, second = finished(store), finished(store, {"lr": 0.2})
    claim = path(store, layout.claim(first, 2))
    raw = path(store, layout.claim(first, 2)).read_bytes()
    record = store.claims.read(first, 2)
    claim.write_bytes(record._replace(digest="0" * 32).seal())
    assert ("mismatch", layout.claim(first, 2), "") in found(store)
    claim.write_bytes(raw)

    config = path(store, layout.config(first))
    raw = config.read_bytes()
    config.write_bytes(path(store, layout.config(second)).read_bytes())
    assert ("damaged", layout.config(first), "") in found(store)
    config.write_bytes(seal("config", {"digest": first + "0" * (64 - len(first)), "config": CONFIG}))
    assert any(one.name == layout.config(first) and "hashes to" in one.message for one in audit(store))
    config.write_bytes(raw)

    longer = store.registry.read(first).digest[:12]
    path(store, layout.config(longer)).write_bytes(raw)
    assert ("mismatch", layout.config(longer), "") in found(store)


def test_what_is_gone_is_missed_by_name(store: Store) -> None:
    key = finished(store)
    for name in (layout.config(key), layout.claim(key, 1), layout.preview(key, 1, 2)):
        raw = path(store, name).read_bytes()
        path(store, name).unlink()
        assert ("missing", name) in {one[:2] for one in found(store)}
        path(store, name).write_bytes(raw)
    assert found(store) == set()


def test_records_of_a_later_version_are_told_apart_from_damage(store: Store) -> None:
    begun(store).claim.release()
    key = store.register(CONFIG).key
    raw = path(store, layout.stats(key, 1)).read_bytes()
    body = raw[: -(64 + 14)].replace(b'"version":1', b'"version":2')
    path(store, layout.stats(key, 1)).write_bytes(
        body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    )
    assert found(store) == {("newer", layout.stats(key, 1), "")}


def test_store_yaml_edited_by_hand_is_accepted_where_every_run_keeps_its_key(store: Store) -> None:
    key = finished(store)
    root = path(store, "")
    name = root / layout.STORE_FILE
    original = name.read_text()
    name.write_text(original.replace("key_len: 8", "key_len: 6"))
    with pytest.raises(DamagedRecord, match="check --fix"):
        Store(root)
    findings, repairs = check(root)
    assert [(one.name, one.remedy) for one in findings] == [(layout.STORE_FILE, "sign")]
    assert repairs == []
    findings, repairs = check(root, fix=True)
    assert (repairs[0].finding.name, repairs[0].outcome) == (layout.STORE_FILE, "sign")
    assert Store(root).info.key_len == 6
    assert key in Store(root).configs
    assert [p.read_text() for p in (root / layout.DAMAGED).glob(".store.yaml.*")]


@pytest.mark.parametrize(
    "edit",
    [("key_len: 8", "key_len: 12"), ("key_len: 8", "key_len: ["), ("key_len: 8", ""), ("format: 1", "format: 9")],
)
def test_store_yaml_edited_into_nonsense_is_told_and_left(store: Store, edit: tuple[str, str]) -> None:
    finished(store)
    root = path(store, "")
    name = root / layout.STORE_FILE
    name.write_text(name.read_text().replace(*edit))
    broken = name.read_bytes()
    findings, repairs = check(root, fix=True)
    assert [(one.name, one.remedy) for one in findings] == [(layout.STORE_FILE, "")]
    assert repairs == []
    assert name.read_bytes() == broken


def test_a_lost_store_yaml_is_missed_and_not_made_anew(store: Store) -> None:
    finished(store)
    root = path(store, "")
    (root / layout.STORE_FILE).unlink()
    findings, _ = check(root, fix=True)
    assert [(one.kind, one.name) for one in findings] == [("missing", layout.STORE_FILE)]
    assert not (root / layout.STORE_FILE).exists()


def test_a_directory_that_is_no_store_is_an_error_and_is_not_made_one(tmp_path: Path) -> None:
    for fixing in (False, True):
        with pytest.raises(StoreError, match="no store"):
            check(tmp_path / "mistyped", fix=fixing)
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_no_run_fits_is_told(store: Store) -> None:
    finished(store)
    store.edit(ledger=store.ledger.add("seed", 0))
    assert ("mismatch", layout.STORE_FILE, "") in found(store)


def test_a_store_in_memory_is_audited_alike() -> None:
    store = Store(None)
    key = finished(store)
    store.files.replace(layout.stats(key, 1), b"")
    store.files.replace(layout.scratch(layout.config(key)), b"half")
    assert {one.kind for one in audit(store)} == {"damaged", "scratch"}
    fix(store, audit(store))
    assert ("missing", layout.stats(key, 1)) in {(one.kind, one.name) for one in audit(store)}


def test_what_only_one_of_two_looks_sees_is_not_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = begun(store)
    name = layout.stats(attempt.key, 1)
    whole = path(store, name).read_bytes()
    spoil(store, name)
    monkeypatch.setattr(store.claims.clock, "sleep", lambda _: path(store, name).write_bytes(whole))
    assert audit(store) == []
    attempt.claim.drop()


def test_an_unreadable_file_is_told_and_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = finished(store)
    name = layout.stats(key, 1)
    read = store.files.read

    def refused(wanted: str) -> bytes:
        if wanted == name:
            raise PermissionError(13, "Permission denied", wanted)
        return read(wanted)

    monkeypatch.setattr(store.files, "read", refused)
    assert found(store) == {("unreadable", name, "")}


def test_no_byte_of_any_readable_file_is_lost_by_fixing_everything(store: Store) -> None:
    """The promise, over all kinds of damage at once: what could be read before lies somewhere afterwards."""
    kept = finished(store, {"lr": 1})
    broken = finished(store, {"lr": 2})
    begun(store, {"lr": 3}).claim.release()
    spoil(store, layout.stats(broken, 1))
    spoil(store, layout.ckpt(kept, 1, 2))
    path(store, layout.ckpt(kept, 1, 5)).write_bytes(b"orphan")
    root = path(store, "")
    before = {p.read_bytes() for p in root.rglob("*") if p.is_file()}
    for _ in range(3):
        outcomes(store)
    after = {p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert before <= after


def test_every_remedy_has_its_function_and_every_finding_a_known_remedy(store: Store) -> None:
    with pytest.raises(KeyError):
        fix(store, [Finding("damaged", "stats/ab/abcdef12.g1.json", "", "abcdef12", "burn")])
    assert set(repair._REMEDIES) == {"move", "return", "mark", "bury", "retry", "remove", "sign", "share"}
