"""The code of runs is kept once under its digest, believed only as far as it was checked, and missed by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import code, layout
from jimmy_manager.archives.audit import audit
from jimmy_manager.archives.code import Snapshot, Tree
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.record import seal
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import DamagedRecord, StoreTooNew
from tests.archives.runs import attempt_at, commit, listing, train

SOURCES = {"jobs/first.py": b"import net\n", "jobs/net.py": b"x = 1\n"}
DIFF = b"diff --git a/jobs/net.py b/jobs/net.py\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False, stale_s=0)


def trained(store: Store, sources: dict[str, bytes] = SOURCES, seed: int = 0, **git: Any) -> str:
    attempt = attempt_at(store, {"seed": seed})
    tree = store.sources.keep(Snapshot.of("jobs/first.py", sources, {"big.py": "too big"}))
    attempt.describe({"code": tree, "git": git})
    commit(attempt, 1)
    attempt.finish()
    return attempt.key


def place(store: Store, digest: str) -> Path:
    assert store.directory is not None
    return Path(store.directory) / layout.code(digest)


def sealed(**data: Any) -> bytes:
    whole = {"job": "", "files": {}, "left": {}} | data
    return seal("code", whole)


def test_what_was_trained_from_is_read_back_to_the_byte(store: Store) -> None:
    key = trained(store)
    found = code.tree(store, key)
    assert found == {path: hashlib.sha256(data).hexdigest() for path, data in SOURCES.items()}
    assert {path: code.source(store, digest) for path, digest in found.items()} == SOURCES
    assert store.code(key[:5]) == SOURCES
    whole = code.recorded(store, key)
    assert whole is not None
    assert (whole.job, whole.left) == ("jobs/first.py", {"big.py": "too big"})


def test_a_run_from_before_has_no_code(store: Store) -> None:
    key = train(store, {"seed": 1})
    assert (code.tree(store, key), code.uncommitted(store, key), store.code(key)) == (None, None, None)
    assert list(code.needed(store.files, code.run_of(store, key))) == []


def test_a_thousand_runs_keep_one_copy_and_write_nothing_again(store: Store, tmp_path: Path) -> None:
    trained(store)
    before = listing(tmp_path / "store" / "code")
    for seed in range(1, 5):
        trained(Store(tmp_path / "store", durable=False, stale_s=0), seed=seed)
    assert listing(tmp_path / "store" / "code") == before
    assert len(list((tmp_path / "store" / "code").rglob("?" * 64))) == 3


def test_what_a_run_needs_is_its_tree_its_sources_and_its_diff(store: Store) -> None:
    key = trained(store, diff=store.sources.keep_text(DIFF))
    needed = list(code.needed(store.files, code.run_of(store, key)))
    assert sorted(needed) == sorted(path.name for path in place(store, needed[0]).parents[1].rglob("?" * 64))
    assert needed[-1] == code.tree_of(code.run_of(store, key))
    assert code.uncommitted(store, key) == DIFF
    assert code.without_code(code.run_of(store, key)) == {"git": {}}


def test_a_half_written_file_is_mended_by_whoever_has_it(store: Store) -> None:
    digest = code.put(store.files, b"x = 1\n")
    place(store, digest).write_bytes(b"x =")
    with pytest.raises(DamagedRecord, match=digest):
        code.read(store.files, digest)
    assert code.put(store.files, b"x = 1\n") == digest
    assert code.read(store.files, digest) == b"x = 1\n"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/cron.py", "../up.py", "a/../../up.py", "a/./b.py", "a//b.py", "", ".py", ".git/hooks.py", "a\\b.py",
        "a\0.py", "a\nb.py", "\x1b[2J.py", "\u202e.py", "key.pem", "id_rsa", ".env", "x" * 300 + ".py",
        "a/" * 600 + "b.py", "\ud800.py",
    ],
)  # fmt: skip
def test_a_tree_with_a_path_that_leads_elsewhere_is_refused(store: Store, path: str) -> None:
    digest = code.put(store.files, sealed(files={path: [1, "ab" * 32]}))
    with pytest.raises(DamagedRecord, match=digest):
        code.read_tree(store.files, digest)


@pytest.mark.parametrize(
    "data",
    [
        {"files": {"a.py": [1, "ab" * 32], "a.py/b.py": [1, "ab" * 32]}}, {"files": {"a.py": [1, "../../store.yaml"]}},
        {"files": {"a.py": [-1, "ab" * 32]}}, {"files": {"a.py": [True, "ab" * 32]}}, {"files": {"a.py": [1]}},
        {"files": ["a.py"]}, {"job": "b.py"}, {"job": []}, {"left": {"a.py": 3}}, {"left": None},
    ],
)  # fmt: skip
def test_a_tree_with_other_values_is_refused(store: Store, data: dict[str, Any]) -> None:
    digest = code.put(store.files, sealed(**data))
    with pytest.raises(DamagedRecord, match=digest):
        code.read_tree(store.files, digest)


def test_the_good_twin_of_a_refused_tree_is_read(store: Store) -> None:
    digest = code.put(store.files, sealed(files={"a b/größe.py": [1, "ab" * 32]}))
    assert code.read_tree(store.files, digest) == Tree("", {"a b/größe.py": Content(1, "ab" * 32)}, {})


def test_a_tree_of_a_later_version_asks_for_an_upgrade(store: Store) -> None:
    body = sealed().replace(b'"version":1', b'"version":9').rpartition(b',"sha256"')[0]
    raw = body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    with pytest.raises(StoreTooNew, match="version 9"):
        code.read_tree(store.files, code.put(store.files, raw))


@pytest.mark.parametrize("named", ["../../etc", 3, None, ["ab" * 32], "AB" * 32])
def test_what_is_no_digest_names_no_code(named: Any) -> None:
    assert code.tree_of({"code": named}) is None
    assert code.diff_of({"git": {"diff": named}}) is None
    assert code.diff_of({"git": named}) is None


def test_check_is_content_with_code_that_is_whole_and_with_names_that_nobody_names(store: Store) -> None:
    trained(store, diff=store.sources.keep_text(DIFF))
    code.put(store.files, b"of a run that was popped")
    assert store.directory is not None
    (Path(store.directory) / "code" / "ab" / "later.kind").parent.mkdir(exist_ok=True)
    (Path(store.directory) / "code" / "ab" / "later.kind").write_text("of a later version")
    assert audit(store) == []


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")])
def test_check_names_each_file_of_code_that_is_missing_or_damaged(store: Store, spoil: Any) -> None:
    key = trained(store, diff=store.sources.keep_text(DIFF))
    trained(store, seed=1)
    tree = code.tree(store, key)
    assert tree is not None
    digests = [hashlib.sha256(DIFF).hexdigest(), tree["jobs/net.py"]]
    for digest in digests:
        spoil(place(store, digest))
    found = audit(store)
    assert {finding.name for finding in found} == {layout.code(digest) for digest in digests}
    assert any("jobs/net.py" in finding.message for finding in found)
    spoil(place(store, str(code.tree_of(code.run_of(store, key)))))
    assert {layout.code(str(code.tree_of(code.run_of(store, key))))} <= {finding.name for finding in audit(store)}


def test_check_names_a_tree_that_is_whole_but_none(store: Store) -> None:
    attempt = attempt_at(store, {"seed": 0})
    attempt.describe({"code": code.put(store.files, sealed(files={"../up.py": [1, "ab" * 32]}))})
    commit(attempt, 1)
    attempt.finish()
    assert [(finding.kind, finding.key) for finding in audit(store)] == [("damaged", attempt.key)]


def test_the_janitor_takes_what_killed_writers_left_and_nothing_else_of_the_code(store: Store) -> None:
    key = trained(store)
    unnamed = code.put(store.files, b"written by a worker that has not committed yet")
    scratch = layout.scratch(layout.code(unnamed))
    store.files.create(scratch, b"half")
    assert Janitor(store).sweep(offline=True).names == (scratch,)
    assert store.code(key) == SOURCES
    assert code.read(store.files, unnamed)
