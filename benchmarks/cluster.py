"""What a cluster's queue, preemption and lost workers cost a run, and what workers ask of a shared directory.

    python benchmarks/cluster.py [--quick] [--dir DIR] [--only PART]

*Submitted*: from the start of ``jimmy submit`` to the first epoch, beside ``sbatch`` of the same script, alternated.
*Preempted*: from the end of the last epoch that counts to the beginning of the next one that does, so what
has to be trained again is part of it; Slurm's own part is from the end of the process to the start of the script,
or nothing where a sibling takes the run over. *Taken over*: from the death of a worker to its successor's claim. A lost
host is a stopped worker that seems to run under another boot id: only its silence tells, and the lease is subtracted.
*Operations*: system calls on files of the store as strace counts them, a second in windows of half a minute; what a
page cache answers by itself is counted all the same, and what reaches an NFS server is counted by its client in the
lab's virtual machine. Whoever waits makes five calls and then none for five seconds: such a window may hold 0.15 a
second more than the mean, which is what the aim is about.

Each line gives median, p90, p99 and maximum; of the ten or so values that there are, p99 is the maximum. What needs
Slurm or NFS runs in the lab, a cluster of four nodes on this machine and a virtual machine, and is not run where that
is absent.

It cannot show how long a busy cluster lets a job wait, what a slow shared file system adds to each operation, nor a
real host's loss; Slurm's part is that of the lab, which lets a requeued job wait for 5 s (elsewhere up to 120 s).
"""

from __future__ import annotations

import argparse
import atexit
import math
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from jimmy_manager import Manager, Store
from jimmy_manager.archives import owner

ROOT = Path(__file__).resolve().parents[1]
LAB = Path(os.environ.get("JIMMY_LAB", ROOT.parent / "shared" / "lab")) / "slurm.sh"
NOTES = "BENCH_NOTES"
EPOCH_S = 0.25
WINDOW_S = 30.0
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
FORK = multiprocessing.get_context("fork")


class Epochs(Manager):
    """Epochs in which nothing happens but the time; notes when each begins and ends, for whoever measures."""

    num_epochs = 40
    choices: ClassVar[dict[str, Any]] = {"run": [0]}
    epoch_s = EPOCH_S

    def train(self) -> None:
        note("begin", self.epoch)
        time.sleep(self.epoch_s)
        note("end", self.epoch)

    def eval(self) -> dict[str, float]:
        return {"loss": 0.5}


class Note(NamedTuple):
    """One line of the notes: ``start``, ``begin``, ``end`` or ``left``, in seconds since 1970."""

    event: str
    attempt: str
    at: float
    epoch: int = -1

    @classmethod
    def parse(cls, line: str) -> Note:
        event, attempt, at, epoch = line.split()
        return cls(event, attempt, float(at), int(epoch))


def note(event: str, epoch: int = -1) -> None:
    """Append a line to the file named by ``$BENCH_NOTES``; nothing where there is none."""
    if path := os.environ.get(NOTES):
        task, restart = (os.environ.get(f"SLURM_{name}", "0") for name in ("ARRAY_TASK_ID", "RESTART_COUNT"))
        with open(path, "ab", buffering=0) as file:
            file.write(f"{event} {task}.{restart} {time.time()} {epoch}\n".encode())


def notes(path: Path) -> list[Note]:
    return [Note.parse(line) for line in path.read_text().splitlines()] if path.exists() else []


def be_host(name: str) -> None:
    """Let this process seem to run on a host of its own, whose processes nobody else can look at."""
    boot_id = owner._boot_id
    owner._boot_id = lambda: f"{boot_id()} {name}"


if os.environ.get(NOTES) and "SLURMD_NODENAME" in os.environ:  # a task of an array, with this file as its job
    be_host(os.environ["SLURMD_NODENAME"])
    note("start")
    atexit.register(note, "left")


def report(name: str, values: Iterable[float], unit: str, aim: float | None = None) -> None:
    """Median, p90, p99 and maximum, by nearest rank."""
    ordered = sorted(values)
    shown = [ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99, 1)]
    figures = " ".join(f"{value:8.2f}" for value in shown)
    aimed = "" if aim is None else f"<= {aim:g} {unit}"
    print(f"{name:58} {figures} {unit:4} {aimed}".rstrip(), flush=True)


def wait_for(what: str, found: Callable[[], Any], longest_s: float = 300.0) -> Any:
    deadline = time.monotonic() + longest_s
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not in {longest_s:g} s")
        time.sleep(0.02)
    return value


# On Slurm


class Queue:
    """Slurm's commands for one measurement after the other, each in a folder of its own."""

    def __init__(self, cluster: Any, directory: Path) -> None:
        self.cluster = cluster
        self._directory = directory

    def job(self, *, array: int = 1) -> Submitting:
        return Submitting(self.cluster, Path(tempfile.mkdtemp(dir=self._directory)), array)

    def preempt(self, node: str) -> None:
        """Let a job of higher priority have the whole of ``node`` for a moment."""
        script = "#!/bin/sh\nexec sleep 0.5\n"
        self.cluster.sbatch("--partition=high", f"--nodelist={node}", "--exclusive", script=script)


class Submitting:
    """One sweep of one run, submitted by ``jimmy submit`` or by ``sbatch`` of the same script."""

    def __init__(self, cluster: Any, folder: Path, array: int) -> None:
        self._cluster, self._folder = cluster, folder
        self._command = [
            sys.executable, "-m", "jimmy_manager.cli", "submit", str(Path(__file__).resolve()), "--store",
            str(folder / "store"), "--array", str(array), "--time", "10",
        ]  # fmt: skip
        self._path = folder / "notes"
        self._environ = cluster.environ | {
            NOTES: str(self._path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        }  # fmt: skip

    @property
    def notes(self) -> list[Note]:
        return notes(self._path)

    def script(self) -> str:
        return self._run([*self._command, "--dry-run"])

    def submit(self) -> float:
        """Submit, and return the moment just before."""
        started = time.time()
        self._run(self._command)
        return started

    def sbatch(self, script: str) -> float:
        """Have Slurm run ``script``, and return the moment just before."""
        started = time.time()
        self._run(["sbatch"], script)
        return started

    def first(self, event: str) -> Note:
        """Wait for the first note of an event."""
        return wait_for(f"{event!r}", lambda: next((each for each in self.notes if each.event == event), None))

    def end(self) -> None:
        """Cancel what is left, and wait until nothing is in the queue."""
        self._cluster.run("scancel", "--user", str(os.getuid()))
        wait_for("an empty queue", lambda: not self._cluster.tasks())

    def _run(self, command: list[str], stdin: str = "") -> str:
        done = subprocess.run(
            command, env=self._environ, cwd=self._folder, input=stdin, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed: {done.stderr}")
        return done.stdout


def submitted(queue: Queue, rounds: int) -> None:
    ours, bare = [], []
    for _ in range(rounds):
        job = queue.job()
        ours.append(-job.submit() + job.first("begin").at)
        job.end()
        job = queue.job()
        script = job.script()
        bare.append(-job.sbatch(script) + job.first("begin").at)
        job.end()
    report("submitted: 'jimmy submit' to the first epoch", ours, "s")
    report("  'sbatch' of the same script", bare, "s")


def preempted(queue: Queue, rounds: int) -> None:
    """One worker, which Slurm starts again."""
    losses = []
    for _ in range(rounds):
        job = queue.job()
        job.submit()
        losses.append(_loss(queue, job))
        job.end()
    report("preempted, started again by Slurm: seconds lost", [loss.whole for loss in losses], "s")
    report("  trained again", [loss.again for loss in losses], "s")
    report("  Slurm's part: process ended to script started", [loss.slurm for loss in losses], "s")
    report("  the rest: save, end, Python and torch, load", [loss.whole - loss.slurm for loss in losses], "s")


def handed_over(queue: Queue, rounds: int) -> None:
    """Two workers on two nodes, of which one trains the only run and the other waits."""
    losses = []
    for _ in range(rounds):
        job = queue.job(array=2)
        job.submit()
        wait_for("both workers", lambda job=job: sum(each.event == "start" for each in job.notes) == 2)
        losses.append(_loss(queue, job))
        job.end()
    report("preempted, taken over by an idle sibling: seconds lost", [loss.whole for loss in losses], "s")
    report("  trained again", [loss.again for loss in losses], "s")


class Loss(NamedTuple):
    """What a preemption cost, in seconds: all in all, what was trained twice, and between two processes of a task."""

    whole: float
    again: float
    slurm: float


def _loss(queue: Queue, job: Submitting) -> Loss:
    """Preempt the task that trains once it is in its stride, and see where the run goes on."""
    wait_for("some epochs", lambda: sum(each.event == "end" for each in job.notes) > 12)
    before = job.notes
    first = next(each.attempt for each in before if each.event == "begin")
    queue.preempt(next(task.node for task in queue.cluster.tasks("R") if task.name.endswith(f"_{first.split('.')[0]}")))

    def again() -> Note | None:
        return next((each for each in job.notes if each.event == "begin" and each.attempt != first), None)

    resumed = wait_for("the run to go on", again)
    trained = [each for each in job.notes if each.attempt == first]
    left = next(each.at for each in trained if each.event == "left")
    counts = max(each.at for each in trained if each.event == "end" and each.epoch < resumed.epoch)
    begun = {each.epoch: each.at for each in trained if each.event == "begin" and each.epoch >= resumed.epoch}
    ended = {each.epoch: each.at for each in trained if each.event == "end"}
    twice = sum(ended.get(epoch, left) - at for epoch, at in begun.items())
    started = next((each.at for each in job.notes if each.event == "start" and each.attempt == resumed.attempt), left)
    return Loss(resumed.at - counts, twice, max(0.0, started - left))


# On one host


class Pair:
    """A worker that trains a run of epochs without end, and another one that waits for it; both are forks."""

    def __init__(self, directory: Path, *, host: str = "", **options: Any) -> None:
        self.store = Path(tempfile.mkdtemp(dir=directory)) / "store"
        self._options = options
        self.holder = self._fork(host)
        wait_for("the first epoch", lambda: self._claims() == 1 and any(Store(self.store, read_only=True).stats))
        self.waiter = self._fork("")

    def await_takeover(self, since: float) -> float:
        """Seconds from ``since`` to the second claim."""
        wait_for("the takeover", lambda: self._claims() == 2)
        store = Store(self.store, read_only=True)
        return store.claims.read(next(iter(store.registry)), 2).at - since

    def end(self) -> None:
        for process in (self.holder, self.waiter):
            process.kill()
            process.join()

    def _fork(self, host: str) -> Any:
        process = FORK.Process(target=_work, args=(self.store, host, 1e9, self._options))
        process.start()
        return process

    def _claims(self) -> int:
        return sum(1 for _ in self.store.glob("claims/*/*.g*.json"))


def _work(store: Path, host: str, epochs: float, options: dict[str, Any], runs: int = 1, epoch_s: float = 0.1) -> None:
    if host:
        be_host(host)
    Epochs.epoch_s = epoch_s
    manager = Epochs(store, verbose=False, **options)
    manager.sweep({"run": range(runs)}, num_epochs=int(epochs), wait=True)


def killed(directory: Path, count: int) -> None:
    """Workers that are killed on the host of those who wait for their runs."""
    delays = []
    for _ in range(count):
        pair = Pair(directory)
        settle(pair.waiter, 1.0)
        moment = time.time()
        pair.holder.kill()
        delays.append(pair.await_takeover(moment))
        pair.end()
    report("taken over after SIGKILL on the same host", delays, "s", 2)


def lost(directory: Path, count: int, lease_s: float) -> None:
    """Workers of other hosts that stop from one moment to the next."""
    pairs = [Pair(directory, host=f"host {number}", lease_s=lease_s) for number in range(count)]
    stopped = {}
    for pair in pairs:
        settle(pair.waiter, lease_s / 4)
        stopped[pair] = time.time()
        os.kill(pair.holder.pid, signal.SIGSTOP)
    delays = [pair.await_takeover(stopped[pair]) - lease_s for pair in pairs]
    for pair in pairs:
        pair.end()
    report(f"taken over after a lost host, beyond the lease of {lease_s:g} s", delays, "s", 5)


def settle(process: Any, longer_s: float = 0.0) -> None:
    """Wait until a worker does nothing but wait, and up to ``longer_s`` more, to come at any moment of its turns."""
    used = -1.0
    while (now := _cpu_s(process.pid)) - used > 0.05:
        used = now
        time.sleep(1.0)
    time.sleep(random.uniform(0.0, longer_s))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def operations(directory: Path, windows: int) -> None:
    """System calls on the store, of workers that wait and of workers that train, all watched at the same time."""
    with ExitStack() as stack:
        watched = {
            f"waiting for {runs} run{'s' * (runs > 1)}": _idle(stack, directory, runs) for runs in (1, 16)
        } | {
            "training, a commit each second": _training(stack, directory, 1.0),
            "training, heartbeats alone": _training(stack, directory, 1e6),
        }
        rates = counted(watched, windows)
    for name, rate in rates.items():
        report(f"operations a second on the store, {name}", rate, "/s", 1 if name.startswith("waiting") else None)


def _idle(stack: ExitStack, directory: Path, runs: int) -> tuple[int, Path]:
    """A worker that waits for as many runs of workers on other hosts, and the store."""
    store = Path(tempfile.mkdtemp(dir=directory)) / "store"
    for number in range(runs):
        forked(stack, partial(_work, store, f"host {number}", 1e9, {}, runs, 1e6))
    wait_for("all to be held", lambda: sum(1 for _ in store.glob("stats/*/*.json")) == runs)
    idle = forked(stack, partial(_work, store, "idle", 1e9, {}, runs))
    settle(idle)
    return idle.pid, store


def _training(stack: ExitStack, directory: Path, epoch_s: float) -> tuple[int, Path]:
    store = Path(tempfile.mkdtemp(dir=directory)) / "store"
    training = forked(stack, partial(_work, store, "", 1e9, {}, 1, epoch_s))
    wait_for("the first commit", lambda: any(store.glob("stats/*/*.json")))
    return training.pid, store


def forked(stack: ExitStack, work: Callable[[], None]) -> Any:
    process = FORK.Process(target=work)
    process.start()
    stack.callback(process.join)
    stack.callback(process.kill)
    return process


def counted(watched: dict[str, tuple[int, Path]], windows: int) -> dict[str, list[float]]:
    """For each worker's pid and store: calls a second on its files, by name or descriptor."""
    with ExitStack() as stack:
        for pid, store in watched.values():
            command = ["strace", "-f", "-ttt", "-y", "-e", "trace=%file,%desc", "-o", str(_trace(store))]
            strace = stack.enter_context(subprocess.Popen([*command, f"-p{pid}"], stderr=subprocess.PIPE))
            stack.callback(strace.send_signal, signal.SIGINT)
            if strace.stderr is None or b"attached" not in strace.stderr.readline():
                raise RuntimeError(f"strace cannot watch process {pid}; is tracing forbidden here?")
        since = time.time()
        time.sleep(windows * WINDOW_S)
    return {name: _rates(store, since, windows) for name, (_, store) in watched.items()}


def _trace(store: Path) -> Path:
    return store.with_name("strace")


def _rates(store: Path, since: float, windows: int) -> list[float]:
    lines = [line for line in _trace(store).read_text().splitlines() if str(store) in line]
    found = [(float(line.split()[1]) - since) // WINDOW_S for line in lines]
    return [found.count(window) / WINDOW_S for window in range(windows)]


# On NFS


def on_nfs(directory: Path, seconds: int) -> None:
    """Calls to an NFS 4.2 server in the lab's virtual machine: of a holder's heartbeats, then with a worker that waits.

    The kernel there counts the calls of both clients together.
    """
    script = LAB.with_name("nfs.sh")
    if missing := [name for name in ("linux.uml", "exportfs", "rpcbind") if shutil.which(name, path=SBIN) is None]:
        print(f"not run: calls to an NFS server; {', '.join(missing)} not installed")
        return
    if not script.is_file():
        print(f"not run: calls to an NFS server; there is no {script}")
        return
    this, held = shlex.join([sys.executable, str(Path(__file__).resolve())]), directory / "held"
    command = _NFS.format(this=this, held=shlex.quote(str(held)), seconds=seconds)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [str(script), "run", command, "--timeout", "600"], env=environ, text=True, capture_output=True, check=False
    )
    if told.returncode:
        raise RuntimeError(f"the lab's nfs.sh failed: {told.stdout}{told.stderr}")
    first, second, third, fourth = map(int, told.stdout.split())
    alone = (second - first) / seconds
    report("calls a second to an NFS 4.2 server, heartbeats of one run", [alone], "/s")
    report("calls a second to an NFS 4.2 server, waiting for that run", [(fourth - third) / seconds - alone], "/s", 1)


_NFS = """
calls() {{ awk '/^proc4/ {{ for (i = 3; i <= NF; i++) sum += $i }} END {{ print sum }}' /proc/net/rpc/nfs; }}
onA {this} --hold "$A/store" --mark {held} >&2 & holder=$!
until [ -e {held} ]; do sleep 0.5; done
calls; sleep {seconds}; calls
onB {this} --wait "$B/store" >&2 & waiter=$!
sleep 40
calls; sleep {seconds}; calls
kill $holder $waiter
"""


def hold(store: Path, mark: Path) -> None:
    """Hold the run of `Epochs` without training it, which torch would be needed for, and leave ``mark``."""
    be_host("A")
    manager = Epochs(store, verbose=False)
    entry = manager.store.register({"run": 0})
    claim = manager.store.claims.take(manager.store.standing(entry.key), entry.digest)
    if claim is None:
        raise RuntimeError(f"somebody else holds the run in {store}")
    claim.start_heartbeat()
    mark.touch()
    signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to see that it runs")
    parser.add_argument("--dir", help="where to write; default: a temporary directory")
    parser.add_argument("--only", choices=("slurm", "takeover", "operations", "nfs"), help="one part alone")
    for role in ("--hold", "--wait", "--mark"):  # the two processes in the virtual machine
        parser.add_argument(role, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        return hold(arguments.hold, arguments.mark)
    if arguments.wait:
        return _work(arguments.wait, "B", 1, {})
    directory = Path(tempfile.mkdtemp(prefix="jimmy-bench-", dir=arguments.dir))
    print(f"{'':58} {'median':>8} {'p90':>8} {'p99':>8} {'max':>8}      aim")
    try:
        if arguments.only in (None, "nfs"):
            on_nfs(directory, 30 if arguments.quick else 60)
        if arguments.only in (None, "takeover", "operations"):
            on_this_host(directory, arguments.only, is_quick=arguments.quick)
        if arguments.only in (None, "slurm"):
            on_slurm(directory, 2 if arguments.quick else 7)
    finally:
        shutil.rmtree(directory)


def on_this_host(directory: Path, part: str | None, *, is_quick: bool) -> None:
    import torch  # before the forks, which would each import it

    torch.set_num_threads(1)
    if part != "operations":
        killed(directory, 2 if is_quick else 10)
        lost(directory, 2 if is_quick else 8, lease_s=30.0)
    if part == "takeover":
        return
    if shutil.which("strace") is None:
        print("not run: the operations; strace is not installed")
    else:
        operations(directory, 1 if is_quick else 5)


def on_slurm(directory: Path, rounds: int) -> None:
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name, path=SBIN) is None]
    if missing or not LAB.is_file():
        reason = f"{', '.join(missing)} not installed" if missing else f"there is no {LAB}"
        print(f"not run: submitting and preemption, which need the lab's Slurm; {reason}")
        return
    sys.path.insert(0, str(ROOT))
    from tests.cluster import slurm  # the driver of the lab

    with slurm.running(LAB) as cluster:
        queue = Queue(cluster, directory)
        submitted(queue, rounds)
        preempted(queue, rounds)
        handed_over(queue, rounds)


if __name__ == "__main__":
    main()
