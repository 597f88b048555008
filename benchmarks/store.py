"""What the store costs, beside the floors of this machine, measured in one run with the two alternated.

    python benchmarks/store.py [--quick] [--dir DIR]

Floors are what anybody would pay for the same promise: plain files for registering, the same number of fsynced
writes and renames for a run, one listing of the directories for finding what is left. Each line gives median, p90, p99
and maximum of the single operations of all rounds, each timed by the process that does it; where one round is one
operation there are about ten of them, and p99 is the maximum. The ratio is that of whole rounds, the median of ours to
the median of the floor: a slow operation in a hundred counts there, and with several processes what they get done
together.

It cannot show what a shared file system costs, nor what neighbours on this machine do to a single round: look at the
spread before believing a ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jimmy_manager import Manager, Store
from jimmy_manager.archives import previews
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.index import read_plainly
from jimmy_manager.archives.registry import Registered
from jimmy_manager.manager.progress import Progress
from jimmy_manager.results.table import read_table
from jimmy_manager.results.where import parse


class Trivial(Manager):
    """A run of one epoch that trains nothing."""

    num_epochs = 0

    def eval(self) -> dict[str, float]:
        return {"loss": 0.5}


def configurations(count: int) -> list[dict[str, Any]]:
    optim = {"name": "adamw", "decay": 0.1}
    return [{"arch": "mlp", "optim": optim | {"lr": i * 1e-5}, "width": 64, "seed": i} for i in range(count)]


def timed(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return time.perf_counter() - started


class Times:
    """What one side of a comparison took: ``single`` operations, and ``rounds``, as seconds for each operation."""

    def __init__(self) -> None:
        self.single: list[float] = []
        self.rounds: list[float] = []

    def add(self, operations: Iterable[Callable[[], object]]) -> None:
        """Run a round, and time each of its operations."""
        singles = [timed(operation) for operation in operations]
        self.single += singles
        self.rounds.append(statistics.fmean(singles))

    def shown(self, unit: float) -> str:
        """Median, p90, p99 and maximum, by nearest rank."""
        ordered = sorted(self.single)
        values = [ordered[math.ceil(share * len(ordered)) - 1] / unit for share in (0.5, 0.9, 0.99, 1)]
        return " ".join(f"{value:7.1f}" if value < 10_000 else f"{value:7.0f}" for value in values)


def report(name: str, ours: Times, floor: Times, unit: float, aim: str = "") -> None:
    ratio = statistics.median(ours.rounds) / statistics.median(floor.rounds)
    print(f"{name:35} {ours.shown(unit)}  {floor.shown(unit)} {ratio:6.2f}x  {aim}".rstrip(), flush=True)


def write_durably(folder: str, name: str, data: bytes) -> None:
    scratch = f"{folder}/.{name}.{secrets.token_hex(8)}"
    descriptor = os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o666)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(scratch, f"{folder}/{name}")
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def shards(root: Path, *archives: str) -> Path:
    for archive in archives:
        for number in range(256):
            (root / archive / f"{number:02x}").mkdir(parents=True)
    return root


def registering(directory: Path, count: int, rounds: int, durable: bool) -> None:
    """Registering configurations, beside writing the same JSON to as many files in as many folders."""
    configs = configurations(count)
    ours, floor = Times(), Times()
    for _ in range(rounds):
        root = shards(directory / secrets.token_hex(4), "configs")

        def plain(i: int, config: dict[str, Any], root: Path = root) -> None:
            data = json.dumps(config).encode()
            folder = f"{root}/configs/{i % 256:02x}"
            if durable:
                write_durably(folder, f"{i:08x}.json", data)
            else:
                with open(f"{folder}/{i:08x}.json", "wb") as file:
                    file.write(data)

        floor.add(partial(plain, i, config) for i, config in enumerate(configs))
        store = Store(shards(directory / secrets.token_hex(4), "configs"), durable=durable)
        ours.add(partial(store.register, config) for config in configs)
    what = "fsynced" if durable else "not fsynced"
    report(f"register {count}, {what} (us)", ours, floor, 1e-6, "<= 1.5x" if durable else "<= 1.3x")


class Stopwatch(Progress):
    """Notes how long each run took, the search for it included."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self._since = time.perf_counter()

    def end_run(self, key: str, state: str, message: str = "") -> None:
        now = time.perf_counter()
        self.took.append(now - self._since)
        self._since = now


def cycles(directory: Path, count: int, rounds: int, processes: int) -> None:
    """Claim to done of a run of no epochs, beside seven fsynced writes and renames: what such a run promises.

    Seven: configuration, claim, checkpoint, preview, stats, the claim that says done, stats marked done.
    """
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    names = ("configs", "claims", "ckpts", "previews", "stats")
    ours, floor = Times(), Times()

    def in_processes(times: Times, work: Callable[[int], list[float]]) -> None:
        answers = [directory / f"{number}.json" for number in range(processes)]

        def target(number: int) -> None:
            answers[number].write_text(json.dumps(work(number)))

        workers = [context.Process(target=target, args=(number,)) for number in range(processes)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        times.rounds.append((time.perf_counter() - started) / count)
        assert all(worker.exitcode == 0 for worker in workers)
        times.single += [took for answer in answers for took in json.loads(answer.read_text())]

    for _ in range(rounds):
        root = shards(directory / secrets.token_hex(4), *names)

        def one(i: int, root: Path = root) -> None:
            for archive in (*names, "claims", "stats"):
                write_durably(f"{root}/{archive}/{i % 256:02x}", f"{i:08x}.{secrets.token_hex(2)}", b"x" * 400)

        def plain(number: int) -> list[float]:
            return [timed(partial(one, i)) for i in range(number, count, processes)]

        def work(number: int, root: Path) -> list[float]:
            del number
            manager = Trivial(root, verbose=False)
            manager.progress = stopwatch = Stopwatch()
            manager.sweep({"grid": {"point": range(count)}})
            return stopwatch.took

        in_processes(floor, plain)
        store = shards(directory / secrets.token_hex(4), *names)
        in_processes(ours, partial(work, root=store))
        assert sum(1 for _ in Store(store, read_only=True).stats) == count
    several = "1 process" if processes == 1 else f"{processes} processes"
    report(f"claim to done, {several} (us)", ours, floor, 1e-6, "<= 3x")


def claims_alone(directory: Path, count: int, rounds: int) -> None:
    """Taking a claim, beside one fsynced file and one link."""
    ours, floor = Times(), Times()
    for _ in range(rounds):
        root = shards(directory / secrets.token_hex(4), "claims")

        def plain(i: int, root: Path = root) -> None:
            folder = f"{root}/claims/{i % 256:02x}"
            descriptor = os.open(f"{folder}/.{i}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o666)
            os.write(descriptor, b"x" * 400)
            os.fsync(descriptor)
            os.close(descriptor)
            os.link(f"{folder}/.{i}", f"{folder}/{i:08x}")
            sync_folder(folder)

        floor.add(partial(plain, i) for i in range(count))
        store = Store(shards(directory / secrets.token_hex(4), "claims", "configs"))
        entries = [store.register(config) for config in configurations(count)]

        def take(entry: Registered, store: Store = store) -> None:
            assert store.claims.take(store.standing(entry.key), entry.digest)

        ours.add(partial(take, entry) for entry in entries)
    report(f"claim {count} (us)", ours, floor, 1e-6)


def nearly_done(directory: Path, count: int) -> Path:
    """A store of ``count`` configurations of which 99 % are done."""
    root = directory / "nearly"
    store = Store(root, durable=False)
    store.edit(manager="Trivial")
    preview = previews.save({"loss": 0.5}, "")[0]
    for i in range(count):
        entry = store.register({"grid": {"point": i}})
        if i % 100:
            claim = store.claims.take(store.standing(entry.key), entry.digest)
            assert claim is not None
            attempt = Attempt(store.history, claim)
            attempt.commit(epoch=0, checkpoint=lambda file: file.write(b"x" * 1000), preview=preview)
            attempt.finish()
    return root


def listings(root: Path, rounds: int) -> None:
    """Listing and filtering every run, beside reading every configuration, claim, stats and preview as plain JSON."""
    where = parse("grid.point >= 100 and loss < 1")

    def plain() -> None:
        rows = []
        for archive in ("configs", "claims", "stats", "previews"):
            for path in sorted((root / archive).glob("*/*.json")):
                rows.append(json.loads(path.read_bytes()))
        assert rows

    def scan() -> None:
        assert read_plainly(Store(root, read_only=True))

    def through_index() -> None:
        assert read_table(Store(root, read_only=True)).filtered(where).rows

    def some_configs() -> None:
        assert sum(1 for _ in Store(root, read_only=True).configs.filter({"grid.point": lambda point: point >= 100}))

    time.sleep(2.5)  # so long a directory that changed is not trusted by the index
    through_index()
    for name, ours in (
        ("list all, no index (ms)", scan),
        ("list and filter, warm index (ms)", through_index),
        ("configs.filter (ms)", some_configs),
    ):
        measured, floor = Times(), Times()
        for _ in range(rounds):
            floor.add([plain])
            measured.add([ours])
        report(name, measured, floor, 1e-3)


def first_claim(root: Path, count: int, rounds: int) -> None:
    """From a new Manager to its first claim, beside listing the store's directories once."""

    class Stopping(Trivial):
        name = "Trivial"

        def setup(self, config: Any) -> None:
            raise KeyboardInterrupt

    def ours() -> None:
        manager = Stopping(root, verbose=False)
        try:
            manager.sweep({"grid": {"point": range(count)}})
        except KeyboardInterrupt:
            return
        raise AssertionError("nothing was claimed")

    def listing() -> None:
        for archive in ("configs", "claims", "stats"):
            for shard in os.listdir(root / archive):
                os.listdir(root / archive / shard)

    listing()
    times = alternated(ours, listing, rounds)
    report(f"first claim of {count}, 99% done (ms)", *times, 1e-3, "<= 2x")


def alternated(ours: Callable[[], object], floor: Callable[[], object], rounds: int) -> tuple[Times, Times]:
    times = Times(), Times()
    for _ in range(rounds):
        times[0].add([ours])
        times[1].add([floor])
    return times


def commands(directory: Path) -> None:
    """Whole processes, Python's own start included."""
    root = directory / "ls"
    manager = Trivial(root, verbose=False, durable=False)
    manager.sweep({"grid": {"point": range(1000)}, "optim": {"lr": [0.1]}})
    jimmy = str(Path(sys.executable).with_name("jimmy"))
    for name, command, aim in (
        ("jimmy ls, 1 000 runs", [jimmy, "ls", "--store", str(root)], 400),
        ("jimmy --help", [jimmy, "--help"], 140),
        ("import jimmy_manager", [sys.executable, "-c", "import jimmy_manager"], 60),
    ):
        ours = partial(subprocess.run, command, check=True, capture_output=True)
        floor = partial(subprocess.run, [sys.executable, "-c", "pass"], check=True)
        report(f"{name} (ms)", *alternated(ours, floor, 9), 1e-3, f"<= {aim} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--dir", help="where to write; default: a temporary directory")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="jimmy-bench-", dir=arguments.dir))
    scale, rounds = (10, 2) if arguments.quick else (1, 5)
    print(f"{'':35} {'ours: median, p90, p99, max':^31}  {'floor: median, p90, p99, max':^31}   ratio  aim")
    try:
        registering(directory, 10_000 // scale, rounds, durable=False)
        registering(directory, 2_000 // scale, rounds, durable=True)
        claims_alone(directory, 1_000 // scale, rounds)
        for processes in (1, 4, 16):
            cycles(directory, 1_000 // scale, 3 if rounds > 2 else 1, processes)
        nearly = nearly_done(directory, 10_000 // scale)
        first_claim(nearly, 10_000 // scale, 2 * rounds + 1)
        listings(nearly, rounds)
        commands(directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
