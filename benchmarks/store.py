"""What the store costs, beside the floors of this machine, measured in one run with the two alternated.

    python benchmarks/store.py [--quick] [--dir DIR]

Floors are what anybody would pay for the same promise: plain files for registering, the same number of fsynced
writes and renames for a run, one listing of the directories for finding what is left. Each line gives median, p90
and maximum over the rounds, and the ratio of the medians.

It cannot show what a shared file system costs, nor what neighbours on this machine do to a single round: look at the
spread before believing a ratio.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jimmy_manager import Manager, Store
from jimmy_manager.archives import previews
from jimmy_manager.archives.attempt import Attempt


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


def report(name: str, ours: list[float], floor: list[float], unit: float, aim: str) -> None:
    def spread(seconds: list[float]) -> str:
        ordered = [s / unit for s in sorted(seconds)]
        return f"{statistics.median(ordered):9.1f} {ordered[int(0.9 * (len(ordered) - 1))]:9.1f} {ordered[-1]:9.1f}"

    ratio = statistics.median(ours) / statistics.median(floor)
    print(f"{name:44} {spread(ours)}   {spread(floor)}   {ratio:6.2f}x  {aim}", flush=True)


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
    ours, floor = [], []
    for _ in range(rounds):
        root = shards(directory / secrets.token_hex(4), "configs")

        def plain(root: Path = root) -> None:
            for i, config in enumerate(configs):
                data = json.dumps(config).encode()
                folder = f"{root}/configs/{i % 256:02x}"
                if durable:
                    write_durably(folder, f"{i:08x}.json", data)
                else:
                    with open(f"{folder}/{i:08x}.json", "wb") as file:
                        file.write(data)

        floor.append(timed(plain) / count)
        store = Store(shards(directory / secrets.token_hex(4), "configs"), durable=durable)
        ours.append(timed(lambda store=store: [store.register(config) for config in configs]) / count)
    what = "fsynced" if durable else "not fsynced"
    report(f"register {count}, {what} (us each)", ours, floor, 1e-6, "aim <= 1.5x" if durable else "aim <= 1.3x")


def cycles(directory: Path, count: int, rounds: int, processes: int) -> None:
    """Claim to done of a run of no epochs, beside seven fsynced writes and renames: what such a run promises.

    Seven: configuration, claim, checkpoint, preview, stats, the claim that says done, stats marked done.
    """
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    names = ("configs", "claims", "ckpts", "previews", "stats")
    ours, floor = [], []

    def in_processes(work: Callable[[int], None]) -> float:
        workers = [context.Process(target=work, args=(number,)) for number in range(processes)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(worker.exitcode == 0 for worker in workers)
        return (time.perf_counter() - started) / count

    for _ in range(rounds):
        root = shards(directory / secrets.token_hex(4), *names)

        def plain(number: int, root: Path = root) -> None:
            for i in range(number, count, processes):
                for archive in (*names, "claims", "stats"):
                    name = f"{i:08x}.{secrets.token_hex(2)}"
                    write_durably(f"{root}/{archive}/{i % 256:02x}", name, b"x" * 400)

        def work(number: int, root: Path) -> None:
            del number
            Trivial(root, verbose=False).sweep({"grid": {"point": range(count)}})

        floor.append(in_processes(plain))
        store = shards(directory / secrets.token_hex(4), *names)
        ours.append(in_processes(lambda number, store=store: work(number, store)))
        assert sum(1 for _ in Store(store, read_only=True).stats) == count
    report(f"claim to done, {count} runs, {processes} processes (us each)", ours, floor, 1e-6, "aim <= 3x")


def claims_alone(directory: Path, count: int, rounds: int) -> None:
    """Taking a claim, beside one fsynced file and one link."""
    ours, floor = [], []
    for _ in range(rounds):
        root = shards(directory / secrets.token_hex(4), "claims")

        def plain(root: Path = root) -> None:
            for i in range(count):
                folder = f"{root}/claims/{i % 256:02x}"
                descriptor = os.open(f"{folder}/.{i}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o666)
                os.write(descriptor, b"x" * 400)
                os.fsync(descriptor)
                os.close(descriptor)
                os.link(f"{folder}/.{i}", f"{folder}/{i:08x}")
                sync_folder(folder)

        floor.append(timed(plain) / count)
        store = Store(shards(directory / secrets.token_hex(4), "claims", "configs"))
        entries = [store.register(config) for config in configurations(count)]


        def take(store: Store = store, entries: list[Any] = entries) -> None:
            for entry in entries:
                assert store.claims.take(store.standing(entry.key), entry.digest)

        ours.append(timed(take) / count)
    report(f"claim {count} (us each)", ours, floor, 1e-6, "")


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


def first_claim(root: Path, count: int, rounds: int) -> None:
    """From a new Manager to its first claim, beside listing the store's directories once."""

    class Stopping(Trivial):
        name = "Trivial"

        def setup(self, config: Any) -> None:
            raise KeyboardInterrupt

    def ours(order: str) -> None:
        manager = Stopping(root, verbose=False)
        try:
            manager.sweep({"grid": {"point": range(count)}}, order=order)
        except KeyboardInterrupt:
            return
        raise AssertionError("nothing was claimed")

    def listing() -> None:
        for archive in ("configs", "claims", "stats"):
            for shard in os.listdir(root / archive):
                os.listdir(root / archive / shard)

    listing()
    pairs = [(timed(lambda: ours("random")), timed(listing)) for _ in range(rounds)]
    report(f"first claim of {count}, 99 % done (ms)", *map(list, zip(*pairs, strict=True)), 1e-3, "aim <= 2x")


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
        pairs = [
            (timed(lambda c=command: subprocess.run(c, check=True, capture_output=True)),
             timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)))
            for _ in range(9)
        ]
        ours, floor = map(list, zip(*pairs, strict=True))
        report(f"{name} (ms)", ours, floor, 1e-3, f"aim <= {aim} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--dir", help="where to write; default: a temporary directory")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="jimmy-bench-", dir=arguments.dir))
    scale, rounds = (10, 2) if arguments.quick else (1, 5)
    print(f"{'':44} {'ours: median, p90, max':^29}   {'floor: median, p90, max':^29}    ratio")
    try:
        registering(directory, 10_000 // scale, rounds, durable=False)
        registering(directory, 2_000 // scale, rounds, durable=True)
        claims_alone(directory, 1_000 // scale, rounds)
        for processes in (1, 4, 16):
            cycles(directory, 1_000 // scale, 3 if rounds > 2 else 1, processes)
        first_claim(nearly_done(directory, 10_000 // scale), 10_000 // scale, 2 * rounds + 1)
        commands(directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
