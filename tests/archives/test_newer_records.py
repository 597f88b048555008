"""A record that a newer version wrote is told by name with what to do, and hides no other run."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from jimmy_manager import Store
from jimmy_manager.archives import layout, listing, store_file
from jimmy_manager.archives.index import read_plainly, read_rows
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.cli.main import main
from jimmy_manager.errors import RecordError, StoreTooNew
from jimmy_manager.manager.gc import gc
from tests.archives.runs import attempt_at, commit, train

NAMES = {
    "configs": layout.config,
    "claims": lambda key: layout.claim(key, 2),
    "stats": lambda key: layout.stats(key, 1),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def by_a_newer_version(store: Store, name: str) -> str:
    """Make the record ``name`` one of version 2."""
    path = Path(store.directory or "") / name
    body, separator, _ = path.read_bytes().rpartition(b',"sha256":"')
    body = body.replace(b'"version":1', b'"version":2')
    path.write_bytes(body + separator + hashlib.sha256(body).hexdigest().encode() + b'"}\n')
    return name


@pytest.mark.parametrize("archive", ["configs", "claims", "stats"])
def test_a_record_of_a_newer_version_is_named_and_the_other_runs_are_shown(store: Store, archive: str) -> None:
    keys = {train(store, {"lr": lr}) for lr in (1, 2, 3)}
    newer = max(keys)
    name = by_a_newer_version(store, NAMES[archive](newer))
    for rows in (read_plainly(store), read_rows(store), read_rows(store)):
        assert {row.key for row in rows} == keys
        told = {row.key: row.damage for row in rows if row.damage}
        assert told == {newer: (f"{name} has record version 2, this package reads up to 1; upgrade it",)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert set(store.table(sort="lr").index) == keys
    assert name in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert store.best("epoch", "max") in keys
        assert len(store.group("lr", metrics=["epoch"])) >= 2
    assert set(store.configs) == keys
    assert len(store.stats) == 3


@pytest.mark.parametrize("archive", ["configs", "claims", "stats"])
def test_jimmy_ls_names_it_below_the_other_runs(store: Store, archive: str) -> None:
    keys = [train(store, {"lr": lr}) for lr in (1, 2)]
    name = by_a_newer_version(store, NAMES[archive](keys[0]))
    done = CliRunner().invoke(main, ["ls", "--store", str(store.directory), "--json"], prog_name="jimmy")
    assert done.exit_code == 0, done.output
    assert {run["key"] for run in json.loads(done.stdout)} == set(keys)
    assert f"{name} has record version 2" in done.stderr
    assert "upgrade it" in done.stderr


def test_a_list_that_did_not_expect_it_would_be_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "StoreTooNew", RecordError)
    with pytest.raises(StoreTooNew):
        test_a_record_of_a_newer_version_is_named_and_the_other_runs_are_shown(store, "stats")


def test_gc_leaves_a_run_of_a_newer_version_and_takes_of_the_others(store: Store) -> None:
    one, other = (train(store, {"lr": lr}) for lr in (1, 2))
    name = by_a_newer_version(store, layout.stats(one, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        freed = gc(store, superseded=True, dry_run=False)
    assert [item.key for item in freed.items] == [other]
    assert name in freed.left[one]


def test_the_janitor_removes_nothing_below_what_a_newer_version_wrote(store: Store) -> None:
    first = attempt_at(store, {"lr": 1})
    commit(first, 1)
    first.claim.release()
    train(store, {"lr": 1})
    by_a_newer_version(store, layout.stats(first.key, 2))
    before = Janitor(store).files_of(first.key)
    assert {1, 2} <= set(before)
    assert Janitor(store).sweep().names == ()
    assert Janitor(store).files_of(first.key) == before


def test_a_store_of_a_newer_format_refuses_everything_with_one_error(store: Store) -> None:
    train(store, {"lr": 1})
    path = Path(store.directory or "") / layout.STORE_FILE
    text = path.read_text().rpartition("# sha256 ")[0].replace("format: 1", "format: 2")
    path.write_bytes(store_file.sign(text))
    for ask in (lambda: Store(store.directory), store.table):
        with pytest.raises(StoreTooNew, match=r"store.yaml has format 2, .*; upgrade it"):
            ask()
