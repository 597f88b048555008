"""Shell completion, asked for as the shells ask: through the environment, of a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jimmy_manager import Store

if TYPE_CHECKING:
    from click.testing import Result

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def complete(store: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """What bash would offer for the last word of a line, typed in ``tmp_path``."""

    def ask(*words: str) -> list[str]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "JIMMY_STORE": str(store), "_JIMMY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["jimmy", *words]), "COMP_CWORD": str(len(words)),
        }  # fmt: skip
        command = [sys.executable, "-P", "-m", "jimmy_manager.cli"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    return ask


def test_commands_are_completed(complete: Callable[..., list[str]]) -> None:
    assert complete("e") == ["errors", "export", "export-model"]
    assert complete("schema", "re") == ["remove", "rename"]


def test_keys_are_completed_from_the_store(complete: Callable[..., list[str]], store: Path) -> None:
    keys = list(Store(store, read_only=True).registry)
    assert complete("show", "") == keys
    assert complete("diff", keys[0], keys[1][:4]) == [keys[1]]
    assert complete("show", "zz") == []


def test_keys_are_completed_from_the_store_that_the_line_names(
    complete: Callable[..., list[str]], tmp_path: Path
) -> None:
    Store(tmp_path / "two").configs.add({"lr": 1})
    assert complete("show", "--store", "two", "") == list(Store(tmp_path / "two", read_only=True).registry)
    assert complete("show", "--store", "nowhere", "") == []


def test_job_files_and_their_classes_are_completed(complete: Callable[..., list[str]], job: Path) -> None:
    (job.parent / "notes.txt").touch()
    assert complete("sweep", "jo") == ["jobs/"]
    assert complete("sweep", "jobs/") == ["jobs/sample_job.py"]
    assert complete("process", "jobs/sample_job.py:") == ["jobs/sample_job.py:Job"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_asks_in_its_own_way(jimmy: Callable[..., Result], shell: str) -> None:
    assert f"_JIMMY_COMPLETE={shell}_complete" in jimmy("completion", shell).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself_completes_a_key(store: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "jimmy"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -P -m jimmy_manager.cli \"$@\"\n")
    program.chmod(0o755)
    key = next(iter(Store(store, read_only=True).registry))
    script = f"""
        eval "$(jimmy completion bash)"
        COMP_WORDS=(jimmy show {key[:5]}); COMP_CWORD=2
        _jimmy_completion jimmy; echo "${{COMPREPLY[@]}}"
    """
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "JIMMY_STORE": str(store),
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (key, "")
