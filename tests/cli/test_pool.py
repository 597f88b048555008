"""The parent of several workers: what reaches them, and what becomes of it when its terminal goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.cli import pool

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import os, sys, time
from pathlib import Path
reports, alive = map(int, os.environ["JIMMY_WORKER_PIPES"].split(","))
here = Path(os.environ["MARKS"])
number = len(list(here.glob("start-*")))
(here / f"start-{number}").touch()
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let workers be a few lines of Python instead of the command line of the test."""
    monkeypatch.setenv("MARKS", str(tmp_path))

    def set_to(code: str) -> None:
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", WORKER + code])

    return set_to


def test_a_signal_that_comes_while_a_worker_is_being_started_reaches_it(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work("time.sleep(20); (here / 'survived').touch(); os.write(reports, b'2')")

    class Signalled(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(pool.subprocess, "Popen", Signalled)
    assert pool.run(1) == 128 + signal.SIGTERM
    assert not (tmp_path / "survived").exists()


def test_a_signal_that_comes_while_a_worker_is_being_started_again_reaches_it(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work("number or os.kill(os.getpid(), 9)\ntime.sleep(20); (here / 'survived').touch(); os.write(reports, b'2')")
    started: list[int] = []

    class Signalled(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)
            if len(started) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(pool.subprocess, "Popen", Signalled)
    assert pool.run(1) == 128 + signal.SIGTERM
    assert (len(started), (tmp_path / "survived").exists()) == (2, False)


def test_each_signal_is_handed_on_once(work: Any, tmp_path: Path) -> None:
    work("""
import signal
def note(number, frame):
    with open(here / "caught", "a") as file:
        file.write(f"{number} ")
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
os.kill(os.getppid(), signal.SIGUSR1)
while not (here / "caught").exists():
    time.sleep(0.01)
os.kill(os.getppid(), signal.SIGUSR2)
while (here / "caught").read_text().count(" ") < 2:
    time.sleep(0.01)
time.sleep(0.3)
os.write(reports, b"2")
""")
    assert pool.run(1) == 128 + signal.SIGUSR1
    assert (tmp_path / "caught").read_text() == f"{int(signal.SIGUSR1)} {int(signal.SIGUSR2)} "


@pytest.mark.parametrize(("end", "code", "starts"), [("os.write(reports, b'12')", 0, 1), ("", 1, 3)])
def test_exit_code_0_counts_only_where_the_worker_said_that_it_had_ended(
    work: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, code: int, starts: int
) -> None:
    work(end)
    assert pool.run(1) == code
    assert len(list(tmp_path.glob("start-*"))) == starts
    assert capsys.readouterr().err.count("left with exit code 0 in the middle of its work") == (starts if code else 0)


NUMBERS = """
if number == 0 and DIES:
    os.kill(os.getpid(), 9)
import json
tally = {"done": 3, "failed": number, "complete": 7, "busy": 0}
os.write(reports, b"12" + json.dumps(tally).encode())
"""


@pytest.mark.parametrize(
    ("dies", "told"), [(False, "all 2 workers: 6 done, 1 complete before"), (True, "all 2 workers: at least 6 done, ")]
)
def test_the_parent_tells_what_all_workers_have_done(
    work: Any, capsys: pytest.CaptureFixture[str], dies: bool, told: str
) -> None:
    work(NUMBERS.replace("DIES", str(dies)))
    assert pool.run(2) == 0
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert pool.run(2, is_quiet=True) == 0
    assert "all 2" not in capsys.readouterr().err


@pytest.mark.parametrize("reported", [b"", b"1", b"12", b"3", b'13{"done": 123, "busy": 2}', b'{"done": 1}2'])
def test_numbers_of_a_report_are_never_taken_for_its_bytes(reported: bytes) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    if reported:
        os.write(writer, reported)
    marks, numbers = pool._read_now(reader)
    os.close(reader)
    os.close(writer)
    assert marks == reported.partition(b"{")[0] + reported.partition(b"}")[2]
    assert (numbers is not None) == (b"{" in reported)


PARENT = """
import os, signal, sys
from jimmy_manager.cli import pool
signal.signal(signal.SIGHUP, signal.SIG_IGN)
code = pool.run(1)
open(os.environ["MARKS"] + "/code", "w").write(str(code))
"""


def test_workers_can_print_after_the_terminal_of_their_parent_has_gone(tmp_path: Path) -> None:
    worker = """
    import os, time
    from pathlib import Path
    here, reports = Path(os.environ["MARKS"]), int(os.environ["JIMMY_WORKER_PIPES"].split(",")[0])
    os.write(reports, b"1")
    print("hello", flush=True)
    while not (here / "gone").exists():
        time.sleep(0.01)
    for _ in range(5000):
        print("x" * 80, flush=True)
    os.write(reports, b"2")
    """
    text = "import os\nif 'JIMMY_WORKER' in os.environ:\n" + worker + "\nelse:\n" + "".join(
        f"    {line}\n" for line in PARENT.splitlines()
    )
    (tmp_path / "both.py").write_text(text)
    master, slave = pty.openpty()
    environment = os.environ | {"MARKS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "both.py"], stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"hello" not in shown:
        shown += os.read(master, 4096)
    os.close(master)
    (tmp_path / "gone").touch()
    parent.wait(timeout=60)
    assert (tmp_path / "code").read_text() == "0"
