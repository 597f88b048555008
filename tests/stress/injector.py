"""Faults at each file-changing system call of one ``process()``, in turn, and what is found afterwards.

Run as a program of its own (``python -m tests.stress.injector '{"folder": ...}'``); prints one line of JSON. It imports
torch once and forks a victim for each point, to which strace is attached while it waits: so a point costs a tenth of a
second, and the counts concern the victim's calls alone. The points come from a dry run of the same program.

``KILL`` strikes on entering the call, which is then not executed. An error's name stands for the call's failure
without effect; ``SHORT`` is a write that takes nothing and says so; ``LIE`` is one that says it took four bytes and
took none, as broken hardware does: nothing wrong may ever be loaded, but a damaged file may stop the rerun by its name.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jimmy_manager import Config, Store
from jimmy_manager.archives import layout
from jimmy_manager.archives.archive import Ckpts
from jimmy_manager.errors import JimmyError
from jimmy_manager.manager import own_sources
from jimmy_manager.manager.provenance import Provenance
from tests.stress import twins
from tests.stress.witness import (
    Witness,
    broken_claims,
    broken_result,
    configurations,
    late_acknowledgements,
    read_journals,
)

ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EACCES", "ESTALE")
_CHANGING = (
    "openat", "open", "creat", "write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "rename", "renameat",
    "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "ftruncate", "truncate",
    "fallocate", "chmod", "fchmod", "fchmodat", "symlink", "symlinkat", "copy_file_range", "sendfile", "utimensat",
)
_CALL = re.compile(r"\d+ +(\w+)\((.*)")
_PATH = re.compile(r'"([^"]*)"|\d<([^>]*)>')
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
_CONFIG = configurations(1)[0]


class Plan(NamedTuple):
    """What to inject: every ``parts``-th point from ``part`` on, of the scenario ``fresh`` or ``resumed``.

    ``limits`` are sizes to which files may grow, tried without strace. ``only`` leaves out the calls about other
    paths than those that begin with it, ``twin`` says what is wrong on purpose.
    """

    folder: str
    scenario: str
    actions: tuple[str, ...] = ()
    limits: tuple[int, ...] = ()
    part: int = 0
    parts: int = 1
    only: str = ""
    twin: str = ""
    most_violations: int = 20


class Call(NamedTuple):
    """One file-changing call of the dry run: the ``number``-th of its name, about ``path`` within the store."""

    name: str
    number: int
    path: str
    source: str
    failed: bool

    @property
    def target(self) -> str:
        """The name that a message should tell: what the scratch file was meant for."""
        folder, _, last = self.path.rpartition("/")
        return f"{folder}/{layout.scratch_target(last) or last}".lstrip("/")

    @property
    def about(self) -> tuple[str, str]:
        """What does not change from one run to the next."""
        return self.name, self.target

    def is_tolerated(self, error: str) -> bool:
        """Whether the run may, and so must, go on after ``error`` here."""
        if error in ("SHORT", "LIE"):
            return True
        if error == "ESTALE":
            return True  # asked or written again
        if self.path == "logs" or self.path.startswith("logs/"):
            return True  # logged without
        if self.name == "unlink":
            return not self.failed  # a scratch file or a superseded one, left to the janitor
        if self.name == "link":
            is_adoption = layout.scratch_target(self.source.rpartition("/")[2]) is None
            return is_adoption or error == "EACCES"  # copied, or created without a link, instead
        return False


class Small(Witness):
    """A model of one layer beside the journal."""

    name = "small"
    state = ("model", "optimizer")

    def setup(self, config: Config) -> None:
        import torch

        super().setup(config)
        self.model = torch.nn.Linear(3, 2, bias=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)

    def eval(self) -> Mapping[str, Any]:
        return {**super().eval(), "loss": 1 / (1 + self.epoch)}  # so that there is a log of evaluations as well

    def train(self) -> None:
        import torch

        super().train()
        self.optimizer.zero_grad()
        self.model(torch.rand(4, 3)).square().sum().backward()
        self.optimizer.step()


class Dying(Small):
    """Dies in its second epoch, so that the first one can be resumed."""

    def train(self) -> None:
        if self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        super().train()


class Injector:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = Path(plan.folder)
        self._template = self._folder / "template"
        self._epochs = 1 if plan.scenario == "fresh" else 3
        self._undisturbed: dict[str, Any] = {}
        self.violations: list[str] = []

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        self._make_template()
        calls = self._dry_run() if self._plan.actions else []
        points = [(call, action) for call in calls for action in self._plan.actions if self._applies(action, call)]
        done: Counter[str] = Counter()
        for call, action in points[self._plan.part :: self._plan.parts]:
            self._inject(call, action)
            done[action] += 1
            if len(self.violations) >= self._plan.most_violations:
                break
        for size in self._plan.limits:
            self._limit(size)
            done["LIMIT"] += 1
        return {
            "calls": Counter(call.name for call in calls), "points": len(points), "done": done,
            "violations": self.violations, "seconds": round(time.monotonic() - started, 1),
        }

    def _applies(self, action: str, call: Call) -> bool:
        return call.path.startswith(self._plan.only) and ("write" in call.name or action not in ("SHORT", "LIE"))

    def _make_template(self) -> None:
        """What every point begins with, and what an undisturbed run makes of it."""
        (self._template / "journals").mkdir(parents=True)
        if self._plan.scenario == "resumed":
            status, told = _forked(lambda: self._process(self._template, Dying))
            assert os.WIFSIGNALED(status), told
        folder = self._begin()

        def undisturbed() -> dict[str, Any]:
            self._process(folder)
            return _content(folder)

        status, told = _forked(undisturbed)
        assert status == 0, told
        self._undisturbed = json.loads(_last_line(told))

    def _begin(self) -> Path:
        folder = self._folder / "point"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._template, folder)
        return folder

    def _process(self, folder: Path, job: type[Witness] = Small, *, wait: bool = False, **options: Any) -> None:
        manager = job(f"{folder}/store", folder / "journals", **options)
        twins.apply(self._plan.twin, manager)
        manager.process(_CONFIG, self._epochs, wait=wait)

    def _dry_run(self) -> list[Call]:
        folder = self._begin()
        log = self._folder / "dry.log"
        pid, status, told = self._traced(folder, ["-e", f"trace=?{',?'.join(_CHANGING)}"], log)
        assert status == 0, told
        calls = _parse(log, f"{folder}/store", pid)
        assert len(calls) > 50, f"strace told of {len(calls)} calls only"
        return calls

    def _inject(self, call: Call, action: str) -> None:
        folder = self._begin()
        log = self._folder / "point.log"
        how = {"KILL": "signal=KILL", "SHORT": "retval=0", "LIE": "retval=4"}.get(action, f"error={action}")
        options = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:{how}:when={call.number}"]
        pid, status, told = self._traced(folder, options, log)
        struck = [each for each in _parse(log, f"{folder}/store", pid) if each.number == call.number]
        place = f"{action} at {call.name} {call.number} of {call.path}"
        if [each.about for each in struck] != [call.about]:
            self.violations.append(f"{place}: it struck at {struck}, the dry run is no guide")
            return
        self.violations += [f"{place}: {what}" for what in self._judge_end(call, action, folder, status, told)]
        left = self._judge_store(folder, call.target if action == "LIE" else "")
        self.violations += [f"{place}: {what}" for what in left]

    def _limit(self, size: int) -> None:
        """Let no file grow beyond ``size`` bytes: the write that crosses it is cut short, and the next one fails."""
        folder = self._begin()
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limit() -> None:
            Provenance.facts = lambda _: {}  # type: ignore[method-assign]  # sources are longer than checkpoints here
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))

        status, told = _await(*_fork(lambda: self._process(folder), prepare=limit))
        place = f"files limited to {size} bytes"
        expected = (f"cannot write {folder}/store/ckpts/", os.strerror(errno.EFBIG))
        if status == 0 or any(part not in told for part in expected):
            self.violations.append(f"{place}: the run ended with {status}: {told}")
        self.violations += [f"{place}: {what}" for what in self._judge_store(folder)]

    def _judge_end(self, call: Call, action: str, folder: Path, status: int, told: str) -> list[str]:
        if action == "KILL":
            died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            return [] if died else [f"the victim did not die by SIGKILL, its status is {status}"]
        if action == "LIE":
            return []
        if call.is_tolerated(action):
            return [] if status == 0 else [f"the run should have gone on, but said: {told}"]
        if not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0:
            return [f"the run should have ended with an error, its status is {status}"]
        path, cause = f"{folder}/store/{call.target}".rstrip("/"), os.strerror(getattr(errno, action))
        return [f"the message does not tell {part!r}: {told}" for part in (path, cause) if part not in told]

    def _judge_store(self, folder: Path, lied_about: str = "") -> list[str]:
        """Look at the store as it was left, run again without a fault, and compare with the undisturbed run."""
        status, told = _forked(lambda: self._look_and_rerun(folder, bool(lied_about)))
        if status != 0 and lied_about and lied_about in _last_line(told):
            return []  # refused, by the name of the file
        return json.loads(_last_line(told)) if status == 0 else [f"the rerun failed: {told}"]

    def _look_and_rerun(self, folder: Path, is_lie: bool) -> list[str]:
        found = [] if is_lie else _left_behind(folder)
        # A claim that is damaged, by a lie or a twin, is taken over when it was silent for the lease of who looks.
        self._process(folder, wait=True, lease_s=0.3 if is_lie or self._plan.twin else 120.0)
        content = _content(folder)
        found += [f"the rerun has another {name}" for name in content if content[name] != self._undisturbed[name]]
        if not is_lie:
            lines = read_journals(folder / "journals")
            store, key, value = _open(folder), lines[0].key, self._undisturbed["value"]
            found += broken_claims(store, key, lines) + late_acknowledgements(lines)
            found += broken_result(store, key, lines, self._epochs, value)
        return found

    def _traced(self, folder: Path, options: list[str], log: Path) -> tuple[int, int, str]:
        """The end of a victim that was traced from its first call on: its pid, its wait status, and what it said."""
        ready, go = os.pipe()

        def victim() -> None:
            os.read(ready, 1)
            self._process(folder)

        # Where Yama forbids tracing others than one's children, the victim has to allow it.
        pid, output = _fork(victim, prepare=lambda: ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY))
        strace = ["strace", "-f", "-y", "-o", str(log), *options, "-p", str(pid)]
        with subprocess.Popen(strace, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            first = tracer.stderr.readline()
            if "attached" not in first:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise SystemExit(f"strace cannot attach: {first}")
            os.write(go, b"!")
            ended = _await(pid, output)
        os.close(ready)
        os.close(go)
        return pid, *ended


def _parse(log: Path, store: str, main: int) -> list[Call]:
    """The calls in ``log`` that change something in ``store``, numbered among all of their name by the main thread.

    strace counts for each thread on its own; the heartbeat does nothing within the time that this takes.
    """
    numbers: Counter[str] = Counter()
    calls = []
    for line in log.read_text("utf-8", "replace").splitlines():
        if (match := _CALL.match(line)) is None or not line.startswith(f"{main} "):
            continue
        name, rest = match.groups()
        numbers[name] += 1
        paths = [quoted or opened for quoted, opened in _PATH.findall(rest)]
        inside = [path[len(store) :].strip("/") for path in paths if path == store or path.startswith(f"{store}/")]
        if inside and (name not in ("openat", "open") or "O_CREAT" in rest):
            calls.append(Call(name, numbers[name], inside[-1], inside[0], "= -1 E" in rest))
    return calls


def _left_behind(folder: Path) -> list[str]:
    """What is wrong with the store as the victim left it; every commit that it names must be whole."""
    lines = read_journals(folder / "journals")
    acknowledged = [line.mark for line in lines if line.event == "acknowledged"]
    if not (folder / "store" / layout.STORE_FILE).exists():
        return [f"there is no store, yet {acknowledged} were acknowledged"] if acknowledged else []
    store = _open(folder)
    key = store.find(_CONFIG)
    stats = None if key is None else store.committed(key)
    if key is None or stats is None:
        return [f"nothing is committed, yet {acknowledged} were acknowledged"] if acknowledged else []
    lineage: list[str] = []
    for commit in stats.commits:
        store.history.verify(commit)
        store.previews.read(commit)
        lineage = store.ckpts.read(commit)["lineage"]
    missing = sorted(set(acknowledged) - set(lineage))
    return [f"{missing} were acknowledged, but the newest commit descends from {lineage}"] if missing else []


def _open(folder: Path) -> Store:
    return Store(f"{folder}/store", read_only=True)


def _content(folder: Path) -> dict[str, Any]:
    """Everything that two equal runs have in common, as JSON values."""
    store = _open(folder)
    key = store.find(_CONFIG)
    assert key is not None
    stats = store.history.stats(key)
    ckpt = Ckpts(store).read(stats.commits[-1])
    del ckpt["lineage"]
    return {
        "epoch": stats.commits[-1].epoch, "value": ckpt["value"], "preview": store.previews.read(stats.commits[-1]),
        "ckpt": _described(ckpt),
    }


def _described(value: Any) -> str:
    """``value`` to the bit, as text."""
    import numpy
    import torch

    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)}{bytes(value.contiguous().view(-1).view(torch.uint8).tolist()).hex()}"
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{_described(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_described, value)) + "]"
    return repr(value)


def _fork(work: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> tuple[int, int]:
    """A child that does ``work`` and prints its result as JSON, or ends with 1 and the error; pid and pipe."""
    output, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, output
    status = 1
    try:
        os.dup2(write, 1)
        os.dup2(write, 2)
        prepare()
        told = json.dumps(work())
        status = 0
    except JimmyError as error:
        told = "".join(traceback.format_exception_only(error))
    except BaseException:  # noqa: BLE001  # a forked child ends here, whatever happened
        told = traceback.format_exc()
    with os.fdopen(write, "w") as file:
        file.write(told)
    os._exit(status)


def _await(pid: int, output: int) -> tuple[int, str]:
    with os.fdopen(output) as file:
        told = file.read()
    return os.waitpid(pid, 0)[1], told


def _last_line(told: str) -> str:
    """The result, after what was logged on the way."""
    return told.rstrip().rpartition("\n")[2]


def _forked(work: Callable[[], Any]) -> tuple[int, str]:
    return _await(*_fork(work))


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    own_sources.MOST_FILES = 2  # each is written like the other, and would cost as many points
    warm = Path(plan.folder) / "warm-up"
    (warm / "journals").mkdir(parents=True)
    for epochs in (1, 2):  # the second one resumes: children find imported all that a run needs
        Small(f"{warm}/store", warm / "journals").process(_CONFIG, epochs)
    _described(_content(warm))
    gc.freeze()
    print(json.dumps(Injector(plan).run()))


if __name__ == "__main__":
    main()
