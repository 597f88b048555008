"""A directory is one process's as long as it trains there."""

import errno
import logging
from pathlib import Path

import filelock
import pytest

from jimmy_manager.errors import ConfigError
from jimmy_manager.training.run_directory import held


def test_a_directory_is_held_until_the_end_and_whoever_comes_meanwhile_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("jimmy_manager.training.run_directory._PATIENCE_S", 0.1)
    refusal = pytest.raises(ConfigError, match=r"another process trains in .*; wait until it has ended, or choose")
    with held(tmp_path, is_new=True), refusal, held(tmp_path, is_new=False):
        pass
    with held(tmp_path, is_new=True) as path:
        assert path == tmp_path


def test_a_directory_is_let_go_where_a_run_was_saved_in_it_meanwhile(tmp_path: Path):
    (tmp_path / "last.pth").touch()
    with pytest.raises(ConfigError, match="holds a run"), held(tmp_path, is_new=True):
        pass
    with held(tmp_path, is_new=False):
        pass


def test_a_file_system_without_locks_is_trained_on_all_the_same(tmp_path: Path, monkeypatch, caplog):
    def refuse(self: filelock.FileLock) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    caplog.set_level(logging.DEBUG)
    with held(tmp_path, is_new=True) as path:
        assert path == tmp_path
    assert "nothing keeps other processes away from" in caplog.text
