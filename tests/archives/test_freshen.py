"""The looks by which something is promised are made anew where a client may miss that a folder has changed.

NFS 3 tells by a time stamp: a listing made between two changes in one tick of the server's clock stays as it is until
the folder changes again, for ever if need be (`filesystem.tells_by_time_stamps`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from jimmy_manager.archives import filesystem
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.claims import Claims
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import ClaimLost, RunBusy
from tests.archives.runs import attempt_at, commit

CONFIG = {"x": 1}


class Missing(Disk):
    """A client that has missed every change of others; a change of its own lets it look again."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._listed: dict[str, list[str]] = {}

    def names(self, folder: str) -> list[str]:
        if folder not in self._listed:
            self._listed[folder] = super().names(folder)
        return self._listed[folder]

    def freshen(self, folder: str) -> None:
        self._listed.pop(folder, None)

    def create(self, name: str, data: bytes) -> bool:
        self.freshen(os.path.dirname(name))
        return super().create(name, data)

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Content:
        self.freshen(os.path.dirname(name))
        return super().write(name, fill)


@pytest.fixture
def here(tmp_path: Path) -> Store:
    """The store as the client sees it that misses changes."""
    there = Store(tmp_path)
    there.register(CONFIG)
    return Store(tmp_path, files=Missing(tmp_path))


@pytest.fixture
def there(here: Store) -> Store:
    return Store(here.directory)


@pytest.fixture(params=[False, True], ids=["freshened", "twin"])
def is_twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(Claims, "freshen", lambda self, key: None)
    return bool(request.param)


def take_over(store: Store) -> Attempt:
    """Claim what another worker holds, as after its lease."""
    run = store.register(CONFIG)
    claim = store.claims.take(store.standing(run.key)._replace(state="silent"), run.digest)
    assert claim is not None
    attempt = Attempt(store.history, claim)
    attempt.adopt()
    return attempt


def test_an_owner_that_missed_the_claim_of_its_successor_is_not_acknowledged(
    here: Store, there: Store, is_twin: bool
) -> None:
    owner = attempt_at(here, CONFIG)
    commit(owner, 1)
    here.claims.look(owner.key)
    take_over(there)
    if is_twin:
        commit(owner, 2)
        return
    with pytest.raises(ClaimLost):
        commit(owner, 2)


def test_a_successor_that_missed_the_last_commit_below_goes_on_from_it(
    here: Store, there: Store, is_twin: bool
) -> None:
    owner = attempt_at(there, CONFIG)
    here.claims.look(owner.key)  # between the two changes of the owner's commit
    commit(owner, 1)
    successor = take_over(here)
    assert successor.adopted is None
    if is_twin:
        commit(successor, 1)
        return
    with pytest.raises(NewerCommit):
        commit(successor, 1)


def test_a_pop_that_missed_a_claim_says_that_the_run_is_held(
    here: Store, there: Store, is_twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = commit(attempt_at(there, CONFIG), 1).key
    replace = here.files.replace

    def overtaken(name: str, data: bytes) -> None:
        replace(name, data)
        here.claims.look(key)
        take_over(there)

    monkeypatch.setattr(here.files, "replace", overtaken)
    if is_twin:
        here.pop(key, force=True)
        return
    with pytest.raises(RunBusy):
        here.pop(key, force=True)


def test_only_where_time_stamps_tell_of_changes_a_folder_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "claims"
    folder.mkdir()
    os.utime(folder, (1, 1))
    Disk(tmp_path).freshen("claims")
    assert folder.stat().st_mtime == 1
    monkeypatch.setattr(filesystem, "kind", lambda path: "nfs")
    Disk(tmp_path).freshen("claims")
    Disk(tmp_path).freshen("stats")
    assert folder.stat().st_mtime > 1
    assert not (tmp_path / "stats").exists()
