"""``jimmy sweep --workers N``: N processes of the same command on this machine, each with its share.

::

    parent ── starts ──► worker 1..N          the same command line, $JIMMY_WORKER=2/3, a share of cores and GPUs
           ◄─ one byte ──                      "I have begun": a worker that dies before it is not started for ever
           ◄─ another byte, numbers ──         "I have ended": exit code 0 without it, by os._exit(0), was no end
           ◄─ a third byte ──                  "requeue the job": done once, when all have ended
           ── end of file ──►                  the parent is gone, however it went: save and stop

A worker that dies of SIGKILL or a crash is started again; a configuration that kills its worker each time ends as
``failed: crashed`` after ``max_crashes``. A signal that asks the parent to stop is handed on, once for each time, by
the loop alone: a handler that did it would miss a worker that is being started at that moment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import click

from jimmy_manager import slurm
from jimmy_manager.cli.main import ERROR, SOME_FAILED, USAGE
from jimmy_manager.manager import shares
from jimmy_manager.manager.job_time import ENDS_A_JOB
from jimmy_manager.manager.progress import duration
from jimmy_manager.manager.schedule import BatchReport
from jimmy_manager.plain_text import plain
from jimmy_manager.signals import STOPPING

MEMBER = "JIMMY_WORKER"
_PIPES = "JIMMY_WORKER_PIPES"
_SINCE = "JIMMY_WORKER_SINCE"
_BEGUN, _ENDED, _REQUEUE = b"1", b"2", b"3"
_MOST_STILLBORN = 3
_POLL_S = 0.05
_NUMBERS = re.compile(rb"\{[^{}]*\}")


class Member(NamedTuple):
    """A process of a pool: its name, such as ``2/3``, and where to report how far it is.

    ``since`` is when the pool began, on the monotonic clock that all processes of a machine share.
    """

    name: str
    reports: int
    since: float

    def report_start(self) -> None:
        """Tell the parent that the job was loaded and the store opened."""
        self._report(_BEGUN)

    def report_end(self, report: BatchReport) -> None:
        """Tell the parent what was done, and that the work came to its end: then the exit code means what it says."""
        self._report(_ENDED + json.dumps(_tally(report)).encode("ascii"))

    def report_requeue(self, job: slurm.Job) -> None:
        """Ask the parent to requeue ``job``, which would end the other workers before they have saved."""
        self._report(_REQUEUE)

    def _report(self, what: bytes) -> None:
        try:
            os.write(self.reports, what)
        except BrokenPipeError:
            pass  # the parent is gone; the thread of `join` sees to that


def join() -> Member | None:
    """The place of the calling process in a pool, if it was started by one; its children are no members."""
    name, pipes = os.environ.pop(MEMBER, None), os.environ.pop(_PIPES, None)
    if name is None or pipes is None:
        return None
    reports, alive = map(int, pipes.split(","))
    for descriptor in (reports, alive):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_stop_with_parent, args=(alive,), name="parent watch", daemon=True).start()
    return Member(name, reports, float(os.environ.pop(_SINCE, time.monotonic())))


def _stop_with_parent(alive: int) -> None:
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)


class _Worker:
    """One worker's process, started again when it dies; what it prints comes out with its number before each line."""

    def __init__(self, number: int, of: int, share: dict[str, str], alive: int) -> None:
        self.name = f"{number}/{of}"
        self.asks_requeue = False
        self.tally: dict[str, int] | None = None
        self.deaths = 0
        self._tag = f"[{number}] "
        self._share = share
        self._alive = alive
        self._stillborn = 0
        self._handed_on = 0
        self.start()

    def start(self) -> None:
        self._reports, reports = os.pipe()
        # A process that the worker left behind may keep the other end open, so nothing waits for the end of file.
        os.set_blocking(self._reports, False)
        environment = os.environ | self._share | {MEMBER: self.name, _PIPES: f"{reports},{self._alive}"}
        # A process group of its own: the terminal's Ctrl-C reaches the parent alone, which hands it on. A worker that
        # got it twice would take the second one for impatience and not save.
        self.process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, pass_fds=(reports, self._alive), process_group=0,
        )  # fmt: skip
        os.close(reports)
        self._printer = threading.Thread(target=self._print, daemon=True)
        self._printer.start()

    def ended(self) -> int | None:
        """The exit status; None while it runs."""
        return self.process.poll()

    def hand_on(self, asked: Sequence[int]) -> None:
        """Send those signals of ``asked`` that this worker has not got yet."""
        new = asked[self._handed_on :]
        self._handed_on += len(new)
        for number in new:
            self.process.send_signal(number)

    def bury(self, status: int, *, is_stopping: bool) -> int | None:
        """Clear away what ended; return its exit code, or None where it is to be started again."""
        self._printer.join(timeout=2.0)  # a process of its own may keep the pipe open
        reported, self.tally = _read_now(self._reports)
        os.close(self._reports)
        self.asks_requeue |= _REQUEUE in reported
        self._stillborn = 0 if _BEGUN in reported else self._stillborn + 1
        if status > 0 or (status == 0 and _ENDED in reported):
            return status
        code = 128 - status if status else ERROR
        self.deaths += 1
        if is_stopping:
            return code
        goes_on = self._stillborn < _MOST_STILLBORN
        then = "it is started again" if goes_on else f"{_MOST_STILLBORN} times before its first run, so it stays down"
        _tell(f"{self._tag}worker {self.name} {_death(status)}; {then}")
        return None if goes_on else code

    def _print(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                _tell(self._tag + plain(line.decode("utf-8", "replace").rstrip("\n")))


def run(count: int, signals: Sequence[signal.Signals] = STOPPING, *, is_quiet: bool = False) -> int:
    """Start ``count`` workers, wait for all of them, and return the exit code of the whole.

    Tells what several of them have done together. As the last thing the Slurm job is requeued, where one of them has
    asked for that.
    """
    began = time.monotonic()
    since = str(began)
    alive, kept = os.pipe()
    workers: list[_Worker] = []
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in signals}
    try:
        for number, share in enumerate(shares.environments(count, _cores(), _gpus()), 1):
            if not asked:
                workers.append(_Worker(number, count, share | {_SINCE: since}, alive))
        code = _merged(_wait(workers, asked), asked)
    finally:
        os.close(kept)
        os.close(alive)
        for number, handler in before.items():
            signal.signal(number, handler)
    if count > 1 and not is_quiet and (told := _summary(workers)):
        _tell(f"{told}, in {duration(time.monotonic() - began)}")
    is_over = any(signal.Signals(number).name in ENDS_A_JOB for number in asked)
    if not is_over and any(worker.asks_requeue for worker in workers) and (job := slurm.this_job()) is not None:
        slurm.requeue(job)
    return code


def _wait(workers: Sequence[_Worker], asked: Sequence[int]) -> list[int]:
    running, codes = list(workers), []
    told = 0
    while running:
        time.sleep(_POLL_S)
        if len(asked) > told:
            told = len(asked)
            again = "; once more interrupts them" if asked[-1] == signal.SIGINT and told == 1 else ""
            who = "1 worker, which saves" if len(running) == 1 else f"{len(running)} workers, which save"
            _tell(f"stopping {who} first{again}")
        for worker in list(running):
            status = worker.ended()
            if status is None:
                worker.hand_on(asked)
                continue
            code = worker.bury(status, is_stopping=bool(asked))
            if code is None:
                worker.start()
            else:
                running.remove(worker)
                codes.append(code)
    return codes


def _merged(codes: Sequence[int], asked: Sequence[int]) -> int:
    """One exit code for all: the stop signal, else the gravest of theirs."""
    if asked:
        return 128 + asked[0]
    for grave in (USAGE, ERROR):
        if grave in codes:
            return grave
    others = [code for code in codes if code not in (0, SOME_FAILED)]
    return others[0] if others else max(codes)


def _death(status: int) -> str:
    if status == 0:
        return "left with exit code 0 in the middle of its work"
    is_known = -status in signal.Signals.__members__.values()
    return f"died of {signal.Signals(-status).name if is_known else f'signal {-status}'}"


def _read_now(descriptor: int) -> tuple[bytes, dict[str, int] | None]:
    """What a worker has reported: single bytes, and the numbers of its end, if it came to that."""
    try:
        reported = os.read(descriptor, 4096)
    except BlockingIOError:
        return b"", None
    found = _NUMBERS.search(reported)
    return _NUMBERS.sub(b"", reported), json.loads(found[0]) if found else None


def _tally(report: BatchReport) -> dict[str, int]:
    failed_now = len(set(report.failed) - set(report.failed_before))
    complete = len(report.done) + len(report.skipped)
    return {"done": len(report.done), "failed": failed_now, "complete": complete, "busy": len(report.busy)}


def _summary(workers: Sequence[_Worker]) -> str:
    """What the workers have done together; empty where none of them came to its end.

    What one that died had done before is not known, and counted as complete before by those that came after it.
    """
    tallies = [worker.tally for worker in workers if worker.tally is not None]
    if not tallies:
        return ""
    done, failed, busy = (sum(each[name] for each in tallies) for name in ("done", "failed", "busy"))
    is_whole = len(tallies) == len(workers) and not any(worker.deaths for worker in workers)
    parts = [f"{'' if is_whole else 'at least '}{done} done"]
    if is_whole and not busy:  # else none of them has seen all runs complete
        parts.append(f"{max(each['complete'] for each in tallies) - done} complete before")
    parts += [f"{failed} failed"] if failed else []
    return f"all {len(workers)} workers: {', '.join(parts)}"


def _tell(text: str) -> None:
    """Print a line; where nobody can read it any more, go on without."""
    try:
        click.echo(text, err=True)
    except OSError:
        pass  # the terminal is gone; a worker whose output nobody takes would stop at its next line


def _cores() -> int:
    text = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if text.isdecimal() and text != "0":
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """How many GPUs torch would see, asked of another process: the parent itself never pays for torch."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists() and not Path("/dev/dxg").exists():
        return 0
    code = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(asked.stdout) if asked.returncode == 0 else 0
