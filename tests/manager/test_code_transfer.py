"""The code of runs goes along with them, each file once, and no more of it is believed than of anything else."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import code, code_inspection, layout
from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.code import Snapshot
from jimmy_manager.archives.record import seal
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, StoreTooNew
from jimmy_manager.manager import gc_offline
from jimmy_manager.manager.gc import gc
from jimmy_manager.manager.tarball import END, content, header, members, padding
from jimmy_manager.manager.transfer import export, load
from tests.archives.runs import attempt_at, commit, listing, train

SOURCES = {"job.py": b"import net\n", "lib/net.py": b"x = 1\n"}
DIFF = b"diff --git a/lib/net.py b/lib/net.py\n"


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(tmp_path / "source", durable=False, stale_s=0)


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target", durable=False, stale_s=0)


def trained(store: Store, seed: int, tree: bytes | None = None, **more: bytes) -> str:
    attempt = attempt_at(store, {"seed": seed})
    snapshot = Snapshot.of("job.py", SOURCES | {f"{name}.py": data for name, data in more.items()}, {})
    digest = store.sources.keep(snapshot) if tree is None else store.sources.keep_text(tree)
    attempt.describe({"code": digest, "git": {"commit": "c0ffee", "diff": store.sources.keep_text(DIFF)}})
    commit(attempt, 1)
    attempt.finish()
    return attempt.key


def file_of(store: Store, digest: str | None) -> Path:
    assert store.directory is not None
    return Path(store.directory) / layout.code(str(digest))


def rewritten(path: Path, **changed: bytes | None) -> Path:
    """The tar with the members whose digest begins with a name replaced, left out (None), or more of them."""
    with open(path, "rb") as file:
        found = {m.name: b"".join(content(file, m, "tar")) for m in members(file, "tar").values()}
    for start, data in changed.items():
        names = [name for name in found if name.startswith("code/") and name[8:].startswith(start.lstrip("_"))]
        for name in names or [layout.code(start.lstrip("_"))]:
            found.pop(name, None)
            found |= {} if data is None else {name: data}
    path.write_bytes(b"".join(header(n, len(d)) + d + padding(len(d)) for n, d in found.items()) + END)
    return path


@pytest.mark.parametrize("dest", ["out.tar", "out/"])
def test_code_goes_along_once_and_comes_back_to_the_byte(
    source: Store, target: Store, tmp_path: Path, dest: str
) -> None:
    keys = [trained(source, 1), trained(source, 2), trained(source, 3, more=b"y = 1\n"), train(source, {"seed": 4})]
    export(source, f"{tmp_path}/{dest}")
    assert len(load(target, f"{tmp_path}/{dest}").added) == 4
    assert [target.code(key) for key in keys] == [source.code(key) for key in keys]
    assert target.code(keys[0]) == SOURCES
    assert code.uncommitted(target, keys[1]) == DIFF
    assert len(list((tmp_path / "target" / "code").rglob("?" * 64))) == 6
    assert audit(target) == []


def test_an_exported_directory_has_its_code_and_nothing_wrong(source: Store, tmp_path: Path) -> None:
    key = trained(source, 1)
    trained(source, 2, more=b"stays behind")
    export(source, f"{tmp_path}/out/", [key])
    there = Store(tmp_path / "out", read_only=True)
    assert there.code(key) == SOURCES
    assert audit(there) == []
    assert not [path for path in (tmp_path / "out").rglob("?" * 64) if path.read_bytes() == b"stays behind"]


def test_the_same_runs_give_the_same_bytes(source: Store, tmp_path: Path) -> None:
    for seed in range(4):
        trained(source, seed, more=str(seed).encode())
    for name in ("one.tar", "two.tar"):
        export(Store(tmp_path / "source", read_only=True), tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


@pytest.mark.parametrize("dest", ["out.tar", "out/", "source/"])
def test_damaged_code_stays_behind_and_the_results_go(
    source: Store, target: Store, tmp_path: Path, dest: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, other = trained(source, 1), trained(source, 2, more=b"bad")
    file_of(source, hashlib.sha256(b"bad").hexdigest()).write_bytes(b"worse")
    if dest != "source/":
        export(source, f"{tmp_path}/{dest}")
    with caplog.at_level(logging.WARNING):
        assert load(target, f"{tmp_path}/{dest}").left == {}
    assert (target.code(key), target.code(other)) == (SOURCES, None)
    assert target.stats[other]["run"]["git"] == {"commit": "c0ffee"}
    assert audit(target) == []


def test_a_foretold_import_writes_no_code(source: Store, target: Store, tmp_path: Path) -> None:
    trained(source, 1)
    export(source, tmp_path / "out.tar")
    train(target, {"seed": 9})
    before = listing(tmp_path / "target")
    assert len(load(target, tmp_path / "out.tar", dry_run=True).added) == 1
    assert listing(tmp_path / "target") == before


def refused(tmp_path: Path, target: Store, message: str, error: type[Exception] = DamagedRecord) -> None:
    with pytest.raises(error, match=message):
        load(target, tmp_path / "out.tar")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("data", [b"x = 2\n", None])
def test_a_tar_whose_code_is_not_what_its_names_say_is_refused(
    source: Store, target: Store, tmp_path: Path, data: bytes | None
) -> None:
    trained(source, 1)
    export(source, tmp_path / "out.tar")
    net = hashlib.sha256(SOURCES["lib/net.py"]).hexdigest()
    rewritten(tmp_path / "out.tar", **{f"_{net}": data})
    refused(tmp_path, target, f"code/{net[:2]}/{net}")


def test_a_tar_with_code_that_no_run_names_is_refused(source: Store, target: Store, tmp_path: Path) -> None:
    trained(source, 1)
    export(source, tmp_path / "out.tar")
    more = hashlib.sha256(b"more").hexdigest()
    rewritten(tmp_path / "out.tar", **{f"_{more}": b"more"})
    refused(tmp_path, target, "is named by no run")


@pytest.mark.parametrize(
    ("tree", "error"),
    [
        ({"job": "", "files": {"../up.py": [6, "ab" * 32]}, "left": {}}, DamagedRecord),
        ({"job": "", "files": {"a.py": [6, "ab" * 32]}, "left": 3}, DamagedRecord),
        ({"job": "", "files": {}, "left": {}}, StoreTooNew),
    ],
)
def test_a_tar_with_a_tree_that_is_none_is_refused(
    source: Store, target: Store, tmp_path: Path, tree: Any, error: type[Exception]
) -> None:
    raw = seal("code", tree)
    if error is StoreTooNew:
        body = raw.replace(b'"version":1', b'"version":9').rpartition(b',"sha256"')[0]
        raw = body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    trained(source, 1)
    export(source, tmp_path / "out.tar")
    with open(tmp_path / "out.tar", "rb") as file:
        found = {m.name: b"".join(content(file, m, "tar")) for m in members(file, "tar").values()}
    good = next(name for name, data in found.items() if name.startswith("code/") and b'"jimmy":"code"' in data)
    stats = next(name for name in found if name.startswith("stats/"))
    bad = hashlib.sha256(raw).hexdigest()
    body = found[stats].replace(good[8:].encode(), bad.encode()).rpartition(b',"sha256"')[0]
    found[stats] = body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    del found[good]
    found[layout.code(bad)] = raw
    whole = b"".join(header(n, len(d)) + d + padding(len(d)) for n, d in found.items())
    (tmp_path / "out.tar").write_bytes(whole + END)
    refused(tmp_path, target, bad, error)


def test_gc_takes_code_that_no_run_names_only_offline_and_tells_it_before(source: Store) -> None:
    key, other = trained(source, 1), trained(source, 2, more=b"of this run alone")
    source.pop(other)
    told = gc(source, offline=True)
    assert source.code(key) == SOURCES
    done = gc(source, offline=True, dry_run=False)
    assert done.items == told.items
    removed = [name for item in done.items for name in item.names if name.startswith("code/")]
    assert len(removed) == 2
    assert layout.code(hashlib.sha256(b"of this run alone").hexdigest()) in removed
    assert source.code(key) == SOURCES
    assert audit(source) == []


def test_gc_keeps_all_code_where_what_a_run_names_cannot_be_read(
    source: Store, caplog: pytest.LogCaptureFixture
) -> None:
    key = trained(source, 1)
    unnamed = code.put(source.files, b"unnamed")
    path = file_of(source, code.tree_of(code.run_of(source, key)))
    raw = path.read_bytes()
    path.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert gc(source, offline=True, dry_run=False).items == ()
    assert "is kept" in caplog.text
    path.write_bytes(raw)
    assert gc(source, offline=True, dry_run=False).items[0].names == (layout.code(unnamed),)


def test_gc_takes_no_code_that_a_worker_has_put_and_is_about_to_name(
    source: Store, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = attempt_at(source, {"seed": 1})
    digest = source.sources.keep(Snapshot.of("job.py", SOURCES, {}))
    attempt.describe({"code": digest, "git": {}})
    with caplog.at_level(logging.WARNING):
        assert gc(Store(source.directory, durable=False), offline=True, dry_run=False).items == ()
    assert f"about to name it in run {attempt.key}" in caplog.text
    commit(attempt, 1)
    attempt.finish()
    assert audit(source) == []
    assert source.code(attempt.key) == SOURCES


def test_a_gc_that_took_code_of_held_runs_would_be_caught(
    source: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc_offline, "_HELD", ())
    with pytest.raises(AssertionError):
        test_gc_takes_no_code_that_a_worker_has_put_and_is_about_to_name(source, caplog)


def test_code_that_is_named_while_gc_looks_is_kept(source: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, keys = code_inspection.listed, []

    def listed_before_a_run(store: Store) -> list[str]:
        names = listed(store)
        keys.append(trained(source, 1))
        return names

    monkeypatch.setattr(code_inspection, "listed", listed_before_a_run)
    gc(Store(source.directory, durable=False), offline=True, dry_run=False)
    assert source.code(keys[0]) == SOURCES
    assert audit(source) == []


@pytest.mark.parametrize("is_own", [True, False])
def test_code_that_gc_has_taken_is_written_again_by_who_had_put_it_before(source: Store, is_own: bool) -> None:
    source.pop(trained(source, 1))
    by = source if is_own else Store(source.directory, durable=False)
    assert any(name.startswith("code/") for item in gc(by, offline=True, dry_run=False).items for name in item.names)
    key = trained(source, 2)
    assert source.code(key) == SOURCES
    assert code.uncommitted(source, key) == DIFF
    assert audit(source) == []
