"""``jimmy workers``: who holds which run, once and again and again, on a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from jimmy_manager import Store
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.cli import workers
from tests.archives.runs import attempt_at
from tests.cli.terminals import Terminal, visible

Jimmy = Callable[..., Result]
KeyOf = Callable[..., str]
ROOT = Path(__file__).resolve().parents[2]
JOB = (
    "SLURM_CLUSTER_NAME=lab,SLURM_JOB_ID=15,SLURM_ARRAY_JOB_ID=12,SLURM_ARRAY_TASK_ID=3,SLURMD_NODENAME=n4,"
    "SLURM_JOB_USER=ada"
)


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """The one held run of a store, by a task of an array on another host."""
    monkeypatch.setenv("JIMMY_STORE", str(tmp_path / "own"))
    attempt = attempt_at(Store(tmp_path / "own", durable=False, stale_s=0.0), {"lr": 0.1})
    record = attempt.claim.record
    attempt.claim._replace(record._replace(owner=record.owner._replace(boot="another", slurm=JOB, user="ada")))
    return attempt


@pytest.fixture
def look(attempt: Attempt, jimmy: Jimmy) -> Callable[..., Result]:
    store = attempt.claim.claims.files.root  # type: ignore[attr-defined]
    return lambda *options: jimmy("workers", "--store", store, *options)


def test_it_tells_who_holds_what(jimmy: Jimmy, store: Path, key_of: KeyOf) -> None:
    opened = Store(store)
    key = key_of(lr=0.9)
    claim = opened.claims.take(opened.standing(key), opened.registry.read(key).digest)
    assert claim is not None
    (row,) = json.loads(jimmy("workers", "--json").stdout)
    assert (row["key"], row["state"], row["generation"], row["heartbeat"]) == (key, "running", 1, 0)
    assert (row["pid"], row["alive"], row["job"]) == (os.getpid(), None, "")
    claim.drop()
    assert json.loads(jimmy("workers", "--json").stdout)[0]["state"] == "lost"
    assert jimmy("workers").stdout.splitlines()[1].startswith(f"{key}\tlost\t")


def test_a_task_of_an_array_is_shown_with_node_job_user_and_pace(attempt: Attempt, look: Callable[..., Result]) -> None:
    attempt.commit(epoch=4, train_s=12.34, checkpoint=lambda file: file.write(b"x"), preview=b"")
    (row,) = json.loads(look("--json").stdout)
    shown = {name: row[name] for name in ("node", "job", "user", "epoch", "seconds_per_epoch", "generation")}
    assert shown == {
        "node": "n4", "job": "12_3", "user": "ada", "epoch": 4, "seconds_per_epoch": 12.34, "generation": 1,
    }  # fmt: skip


def test_a_probe_tells_who_gave_a_sign(
    attempt: Attempt, look: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(look("--json", "--probe", "0").stdout)[0]["alive"] is False
    monkeypatch.setattr(workers, "time", SimpleNamespace(sleep=lambda _: attempt.claim.renew(), time=time.time))
    (row,) = json.loads(look("--json", "--probe", "20").stdout)
    assert (row["alive"], row["heartbeat"]) == (True, 1)
    assert row["heard_s"] is not None


def test_a_pipe_gets_whole_values_and_a_heading(look: Callable[..., Result], attempt: Attempt) -> None:
    head, row = (line.split("\t") for line in look().stdout.splitlines())
    told = dict(zip(head, row, strict=True))
    assert (told["key"], told["owner"]) == (attempt.key, f"n4:{os.getpid()} (job 12_3)")
    assert look("--probe", "0").stdout.count("\n") == 2


def test_a_job_that_has_ended_is_lost(
    look: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This squeue and this scontrol are programs of ours."""
    programs = {"squeue": "echo '1|ada|R|0|'", "scontrol": "echo 'ClusterName = lab'"}
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    assert json.loads(look("--json").stdout)[0]["state"] == "running"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert json.loads(look("--json").stdout)[0]["state"] == "lost"


# On a terminal


@pytest.mark.parametrize("columns", [30, 50, 60, 80, 120])
def test_the_table_fits_the_terminal_and_leaves_out_what_matters_least(attempt: Attempt, columns: int) -> None:
    attempt.commit(epoch=3, train_s=1234.5, checkpoint=lambda file: file.write(b"x"), preview=b"")
    terminal = Terminal(columns, 24, "workers")
    lines = visible(terminal.read_until(lambda text: "signs of life" in text))
    assert terminal.end() == 0
    table = [line for line in lines if line.startswith(("key", attempt.key))]
    assert len(table) == 2
    assert max(map(len, table)) <= columns
    order = [workers._SHOWN[name] for name in workers._DROPPED]
    left = [title for title in order if title in table[0].split()]
    assert left == order[len(order) - len(left) :], "what matters less goes first"
    assert (len(left) < len(order)) == (columns < 120)


def test_a_watch_shows_heartbeats_until_ctrl_c(attempt: Attempt) -> None:
    terminal = Terminal(100, 30, "workers", "--watch")
    terminal.read_until(lambda text: "not yet" in text)
    attempt.claim.renew()
    text = terminal.read_until(lambda text: re.search(r"\d+ s ago {2}ada|\d+ s ago\S* *\r?\n|\d+ s ago +1", text))
    assert "1 running in" in text
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    assert terminal.text.rstrip().endswith("\x1b[?1049l"), "the terminal is left as it was"


def test_a_watch_of_more_runs_than_lines_says_how_many_more(attempt: Attempt, tmp_path: Path) -> None:
    store = Store(tmp_path / "own", durable=False, stale_s=0.0)
    kept = [attempt_at(store, {"lr": number}) for number in range(1, 30)]
    terminal = Terminal(80, 12, "workers", "--watch")
    text = terminal.read_until(lambda text: "more runs" in text)
    terminal.process.send_signal(signal.SIGINT)
    terminal.end()
    first = visible(text.partition("more runs")[0] + "more runs")
    assert len(first) == 12
    assert first[-1].endswith("... and 23 more runs")
    assert len(kept) == 29


def test_a_watch_in_a_pipe_goes_on_printing(attempt: Attempt) -> None:
    command = [sys.executable, "-P", "-m", "jimmy_manager.cli", "workers", "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert [line.partition("\t")[0] for line in lines] == ["key", attempt.key] * 2
    assert process.returncode == 0
