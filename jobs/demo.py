"""``make demo``: three workers train the grid of digits, one of them is killed, and the comparison is printed.

python jobs/demo.py [STORE]                 by default store/demo, which is started anew each time
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from digits_report import plot, print_table, read_runs

from jimmy_manager import Store, grid

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "jobs" / "digits.py"
CHOICES = ROOT / "jobs" / "digits.yaml"
EPOCHS = 30
WORKERS = 3
LONGEST_S = 300
TELL_EVERY_S = 5
PICTURE = "digits.png"
MARK = "made-by-demo.txt"
OWN_FILES = {MARK, PICTURE, *(f"worker-{number}.log" for number in range(1, WORKERS + 1))}
STORE_FILES = {"store.yaml", "configs", "claims", "ckpts", "previews", "stats", "logs"}


class Death(NamedTuple):
    """What was lost with a killed worker: a run in the middle, and how far it had been committed."""

    key: str
    generation: int
    epoch: int


class Worker:
    """One process of one thread that sweeps the grid; what it says goes to a log in the store."""

    def __init__(self, number: int, directory: Path) -> None:
        self.name = f"worker {number}"
        self.log = directory / f"worker-{number}.log"
        # One thread each: three workers at full width are nine times slower on two cores. No GPU: these networks are
        # too small for one to help.
        options = ["--store", str(directory), "--wait", "--threads", "1", "--device", "cpu"]
        command = [sys.executable, str(JOB), "sweep", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.process.pid

    def is_done(self) -> bool:
        """Whether the worker found nothing left to do; ends the demo where it ended in any other way."""
        status = self.process.poll()
        if status:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise SystemExit(f"{self.name} ended with status {status}; the end of {self.log}:\n{tail}")
        return status == 0

    def kill(self) -> None:
        """Kill the process with SIGKILL, which it cannot notice, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask the process to save and stop, and make sure that it does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def main() -> None:
    """Run the demo in the directory that the command line names."""
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        raise SystemExit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the workers are stopped as well
    directory = Path(sys.argv[1] if len(sys.argv) == 2 else os.path.relpath(ROOT / "store" / "demo"))
    start = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - start:5.1f} s  {text}", flush=True)

    with fresh_directory(directory), ExitStack() as stack:
        total = len(grid(CHOICES))
        print(f"{WORKERS} workers train the {total} configurations of jobs/digits.yaml, {EPOCHS} epochs each;")
        print(f"all that they share is the directory {directory}", flush=True)
        workers = [Worker(number, directory) for number in range(1, WORKERS + 1)]
        for worker in workers:
            stack.callback(worker.stop)
        victim, others = workers[1], [workers[0], workers[2]]
        store = Store(directory)
        found = wait_for_middle_of_run(store, workers, victim)
        victim.kill()
        death = found._replace(epoch=store.stats[found.key]["epoch"])
        tell(f"{victim.name} (process {victim.pid}) is killed with SIGKILL in the middle of run {death.key}:")
        tell(f"    {death.epoch} of its {EPOCHS} epochs are committed")
        watch(store, others, death, total, tell)
        check_weights(directory, death.key)
        tell("trained once more without a break, the interrupted run ends in the same weights, bit by bit")
        print_comparison(store, directory)
        tell("done")


@contextmanager
def fresh_directory(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this demo, emptied of an earlier one; a directory of anybody else's is left alone."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise SystemExit(f"{directory} is not a directory; name another one for the demo")
    found = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    if found and MARK not in found:
        raise SystemExit(f"{directory} was not made by this demo, so nothing in it is touched; name a new directory")
    foreign = sorted(found - OWN_FILES - STORE_FILES)
    if foreign:
        raise SystemExit(f"{directory} holds {foreign[0]!r}, which is not of this demo; move it away first")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / MARK).open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another demo is running in {directory}; name another directory") from None
        mark.truncate(0)
        mark.write("jobs/demo.py made this store, and empties it whenever it starts here again.\n")
        mark.flush()
        for name in found - {MARK}:
            path = directory / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield


def wait_for_middle_of_run(store: Store, workers: list[Worker], victim: Worker) -> Death:
    """Wait until ``victim`` has committed between a third and half of a run that it still holds."""
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        finished = [worker.is_done() for worker in workers]
        if any(finished):
            break
        for key in store.stats:
            standing = store.standing(key)
            if standing.state == "held" and standing.record and standing.record.owner.pid == victim.pid:
                epoch = store.stats[key]["epoch"]
                if EPOCHS // 3 <= epoch <= EPOCHS // 2:
                    return Death(key, standing.record.generation, epoch)
        time.sleep(0.02)
    raise SystemExit(f"{victim.name} was never found in the middle of a run, so nothing was killed; see {victim.log}")


def watch(store: Store, workers: list[Worker], death: Death, total: int, tell: Callable[[str], None]) -> None:
    """Wait for ``workers`` to finish the grid, and say when one of them goes on with the run of the dead one."""
    deadline = time.monotonic() + LONGEST_S
    has_resumed, is_finished, told_at = False, False, time.monotonic()
    while not is_finished:
        if time.monotonic() > deadline:
            raise SystemExit(f"the grid was not finished within {LONGEST_S} s; see {workers[0].log}")
        time.sleep(0.1)
        is_finished = all([worker.is_done() for worker in workers])  # noqa: C419  # looks at each of them
        stats = store.committed(death.key)
        if not has_resumed and stats and stats.generation > death.generation:
            # Each epoch is a commit, and a new generation counts its own from 1.
            resumed_at = stats.commits[-1].epoch - stats.commits[-1].number
            owner = store.claims.read(death.key, stats.generation).owner
            heir = next(worker for worker in workers if worker.pid == owner.pid)
            tell(f"{heir.name} goes on with run {death.key} after epoch {resumed_at}")
            has_resumed = True
        if time.monotonic() - told_at > TELL_EVERY_S and not is_finished:
            tell(f"{count_done(store)} of {total} runs are done")
            told_at = time.monotonic()
    if not has_resumed:
        raise SystemExit(f"nobody went on with run {death.key}; see {workers[0].log}")
    if count_done(store) != total:
        raise SystemExit(f"only {count_done(store)} of {total} runs are done; see {workers[0].log}")
    tell(f"all {total} runs are done, by {len(workers)} workers that were never told about the death")


def count_done(store: Store) -> int:
    """How many runs have all their epochs behind them."""
    return sum(stats["done"] for stats in store.stats.values())


def check_weights(directory: Path, key: str) -> None:
    """Train the configuration of ``key`` in memory, uninterrupted, and compare the weights with those in the store."""
    import torch
    from digits import DigitsManager

    kept = DigitsManager(directory, read_only=True, device="cpu", threads=1).fetch(key).state_dict()
    manager = DigitsManager(None, device="cpu", threads=1, verbose=False)
    anew = manager.fetch(manager.process(Store(directory, read_only=True).configs[key])).state_dict()
    differing = [name for name in kept if not torch.equal(kept[name], anew[name])]
    if differing or kept.keys() != anew.keys():
        raise SystemExit(f"run {key} was not resumed exactly: {', '.join(differing)} differ from an uninterrupted run")


def print_comparison(store: Store, directory: Path) -> None:
    """Print the table and the best run, and draw the picture."""
    runs = read_runs(store)
    best, picture = runs[0], directory / PICTURE
    print_table(runs)
    plot(runs, picture)
    is_here, python = Path.cwd() == ROOT, Path(sys.executable)
    python = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    print(f"""
The best run by validation is {best.key}: {best.arch}, width {best.width}, lr {best.lr:g},
weight decay {best.weight_decay:g}, seed {best.seed}. Its validation accuracy is {best.acc_valid:.2%};
on the test split, which had no say in the choice, it reaches {best.acc_test:.2%}.

To have the trained model, in {python} started in {"this folder" if is_here else ROOT}:
    from jobs.digits import DigitsManager
    model = DigitsManager({str(directory if is_here else directory.resolve())!r}, read_only=True).fetch({best.key!r})

Accuracy against learning rate, as a picture: {picture}
""")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
