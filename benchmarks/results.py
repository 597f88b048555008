"""What a table of many runs costs, cold and warm, beside one SQLite file, a plain scan and peers, measured in one run.

    python benchmarks/results.py [--quick] [--runs N] [--peers N] [--rounds N] [--dir DIR]

A synthetic store (8 nested fields, 10 numbers in each preview, 5 seeds) is written by the store's own functions and
looked through by ``jimmy check --quick``; the same rows go into one SQLite file, which pandas reads, and to each peer
that is installed, by its quickest way in. Each measurement is a process of its own, rounds alternated, so that the
start of Python and the import of pandas count, for everybody. A line gives the median wall time, its range, the median
CPU time, which neighbours disturb less, and the peak memory; then the ratio of the CPU times in the same round, ours to
the floor's or the peer's to ours.

*Cold* is without an index, and writes one: the floor reads all small records and parses them, and keeps nothing.
*Warm* has an index of an unchanged store. Further questions to an open store are asked in one process.

It cannot show what a network file system costs, nor a disk: whoever filled the store left its files in memory, for the
floor as well. Peers are asked for their own tables, whose columns differ from ours; what they would need for groups and
filters comes on top. While runs are being trained, what their workers hold is read anew at each look.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from jimmy_manager import Store, keys
from jimmy_manager.archives import layout, previews
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.owner import Owner
from jimmy_manager.archives.registry import Registered
from jimmy_manager.nesting import flattened

INSTALL = "pip install -e '.[bench]'"
WHERE = 'optim.lr < 0.5 and model.arch == "cnn"'
SEEDS = 5
METRICS = tuple(f"{name}_{split}" for split in ("train", "valid") for name in ("loss", "acc", "f1", "auc", "time"))
RUN = {
    "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False, "host": "node1", "device": "cuda:0",
    "threads": 8, "command": "jimmy sweep jobs/digits.py",
    "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "jimmy_manager": "0.3.0"},
}


def configuration(number: int) -> dict[str, Any]:
    """Eight nested fields, of which the seed changes first."""
    point, seed = divmod(number, SEEDS)
    return {
        "data": {"name": "digits", "augment": bool(point % 2)},
        "model": {"arch": ("cnn", "mlp", "vit")[point % 3], "width": 16 << point % 5, "depth": 2 + point % 7},
        "optim": {"name": ("adamw", "sgd")[point % 2], "lr": round(1e-4 * (1 + point), 6)},
        "seed": seed,
    }


def results(number: int) -> dict[str, float]:
    """Ten numbers; the first of one run in a thousand is NaN."""
    draw = random.Random(number)
    found = {name: draw.random() for name in METRICS}
    return found | {METRICS[0]: float("nan")} if number % 1000 == 7 else found


def fill(root: Path, count: int) -> None:
    """A store of ``count`` finished runs, in the format and by the functions that workers write it with."""
    store = Store(root, durable=False)
    store.edit(manager="Synthetic")
    owner = Owner("node1", 4711, 123456, "0" * 36, "4026531836", user="somebody")
    made: set[str] = set()
    for number in range(count):
        stored = store.key_form(configuration(number))
        digest = keys.digest(stored)
        if digest[:8] in made:  # a collision gets its longer key in the ordinary way
            key = store.registry.add(stored).key
        else:
            key = digest[:8]
            write(root, layout.config(key), Registered(key, digest, stored).seal())
        made.add(key)
        checkpoint, preview = b"x" * 1000, previews.save(results(number), key)[0]
        write(root, layout.ckpt(key, 1, 1), checkpoint)
        write(root, layout.preview(key, 1, 1), preview)
        at = 1.7e9 + number / 8
        commit = Commit(key, 1, 1, 10, 1000, at, 1.5, 0.25, Content.of(checkpoint), Content.of(preview), {})
        token = f"{number:032x}"
        stats = Stats(key, 1, token, (commit,), done=True, run=RUN)
        claim = ClaimRecord(key, 1, digest[:32], token, "held", 7, 120.0, owner, at)
        done = claim._replace(generation=2, state="done", beat=0, after="held", stats=stats.digest())
        write(root, layout.claim(key, 1), claim.seal())
        write(root, layout.claim(key, 2), done.seal())
        write(root, layout.stats(key, 1), stats.seal())


_FOLDERS: set[str] = set()


def write(root: Path, name: str, data: bytes) -> None:
    path = f"{root}/{name}"
    folder = os.path.dirname(path)
    if folder not in _FOLDERS:
        os.makedirs(folder, exist_ok=True)
        _FOLDERS.add(folder)
    with open(path, "wb", buffering=0) as file:
        file.write(data)


def fill_sqlite(path: Path, count: int) -> None:
    """The same rows in one file, a typed column each."""
    names = ["key", "state", "epoch", *dict(flattened(configuration(0))), *METRICS, "saved_at", "train_s", "eval_s"]
    with sqlite3.connect(path) as sql:
        columns = ", ".join(f'"{name}"' for name in names)
        sql.execute(f"CREATE TABLE runs ({columns}, PRIMARY KEY (key))")
        for number in range(count):
            fields = dict(flattened(configuration(number))).values()
            row = (f"{number:08x}", "done", 10, *fields, *results(number).values(), 1.7e9 + number / 8, 1.5, 0.25)
            sql.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(row))})", row)


def fill_signac(root: Path, count: int) -> None:
    """Job directories as signac lays them out, written without its checks."""
    import signac
    from signac.job import calc_id

    project = signac.init_project(root)
    for number in range(count):
        config = configuration(number)
        job = calc_id(config)
        write(Path(project.workspace), f"{job}/signac_statepoint.json", json.dumps(config).encode())
        write(Path(project.workspace), f"{job}/signac_job_document.json", json.dumps(results(number)).encode())


def fill_mlflow(root: Path, count: int) -> None:
    """Rows of MLflow's own tables, in bulk."""
    import mlflow

    root.mkdir()
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    experiment = mlflow.create_experiment("runs", artifact_location=str(root))
    with sqlite3.connect(root / "mlflow.db") as sql:
        for number in range(count):
            run, at = f"{number:032x}", 1_700_000_000_000 + number
            insert(sql, "runs", run_uuid=run, name=run, status="FINISHED", start_time=at, end_time=at,
                   lifecycle_stage="active", experiment_id=int(experiment), artifact_uri=f"{root}/{run}",
                   source_type="LOCAL", user_id="somebody")  # fmt: skip
            for key, value in flattened(configuration(number)):
                insert(sql, "params", key=key, value=str(value), run_uuid=run)
            for key, value in results(number).items():
                known = {"value": 0.0, "is_nan": True} if value != value else {"value": value, "is_nan": False}
                for kind in ("metrics", "latest_metrics"):
                    insert(sql, kind, key=key, timestamp=at, step=10, run_uuid=run, **known)


def insert(sql: sqlite3.Connection, kind: str, **values: Any) -> None:
    sql.execute(f"INSERT INTO {kind} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", [*values.values()])


def fill_optuna(root: Path, count: int) -> None:
    """A journal to which a study has added finished trials."""
    import optuna

    root.mkdir()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=journal(root), study_name="runs")
    trials = []
    for number in range(count):
        config, found = dict(flattened(configuration(number))), results(number)
        anything = optuna.distributions.CategoricalDistribution
        trials.append(optuna.create_trial(
            params=config, distributions={name: anything([value]) for name, value in config.items()},
            value=found["loss_valid"], user_attrs={k: v for k, v in found.items() if v == v},
        ))  # fmt: skip
    study.add_trials(trials)


def journal(root: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(root / "journal.log")))


def read_signac(root: Path) -> Any:
    import signac

    return signac.get_project(root).to_dataframe()


def read_mlflow(root: Path) -> Any:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    return mlflow.search_runs(experiment_names=["runs"], max_results=1_000_000)


def read_optuna(root: Path) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(storage=journal(root), study_name="runs").trials_dataframe()


def read_sqlite(root: Path) -> Any:
    import pandas as pd

    return pd.read_sql_query("SELECT * FROM runs", sqlite3.connect(root / "runs.sqlite"), index_col="key")


def scan(root: Path) -> None:
    for archive in ("configs", "claims", "stats", "previews"):
        for shard in sorted(os.listdir(root / "store" / archive)):
            folder = f"{root}/store/{archive}/{shard}"
            for name in sorted(os.listdir(folder)):
                with open(f"{folder}/{name}", "rb") as file:
                    json.loads(file.read())


def ours(root: Path) -> Store:
    return Store(root / "store", read_only=True)


MEASURED: dict[str, Callable[[Path], Any]] = {
    "table": lambda root: ours(root).table(),
    "filter": lambda root: ours(root).table(WHERE),
    "group": lambda root: ours(root).group(),
    "best": lambda root: ours(root).best("loss_valid"),
    "pandas, one SQLite file": read_sqlite,
    "plain scan": scan,
    "signac": lambda root: read_signac(root / "signac"),
    "MLflow": lambda root: read_mlflow(root / "mlflow"),
    "Optuna": lambda root: read_optuna(root / "optuna"),
}
AIMS = {"MLflow": ">= 80x ours", "signac": ">= 20x ours"}
PEERS = {"signac": fill_signac, "MLflow": fill_mlflow, "Optuna": fill_optuna}


class Took(NamedTuple):
    """One process: seconds of the clock and of the CPU, peak memory, and the rows and bytes of its table."""

    wall: float
    cpu: float
    peak: int
    rows: int
    own: int


def measure(root: Path, name: str, cache: Path) -> Took:
    """Run one measurement as a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--dir", str(root)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out = process.communicate()[0]
    wall = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{name} has failed; see {' '.join(command)}")
    return Took(wall, *json.loads(out.splitlines()[-1]))


def measured(root: Path, name: str) -> None:
    """The inside of such a process."""
    found = MEASURED[name](root)
    is_frame = hasattr(found, "memory_usage")
    own = int(found.memory_usage(deep=True).sum()) if is_frame else 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    # Not ru_maxrss: that begins with what the process was forked from.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps([cpu, peak, len(found) if is_frame else 0, own]))


def asked_again(root: Path, rounds: int) -> dict[str, list[float]]:
    """Questions to a store that stays open."""
    store = ours(root)
    store.table()
    questions: dict[str, Callable[[], Any]] = {
        "table": store.table, "filter": lambda: store.table(WHERE), "group": store.group,
        "best": lambda: store.best("loss_valid"),
    }  # fmt: skip
    took: dict[str, list[float]] = {name: [] for name in questions}
    for _ in range(rounds):
        for name, question in questions.items():
            started = time.perf_counter()
            question()
            took[name].append(time.perf_counter() - started)
    return took


def line(name: str, took: list[Took], ratios: list[float] | None = None, aim: str = "") -> None:
    walls, cpu = sorted(each.wall for each in took), statistics.median(each.cpu for each in took)
    peak = max(each.peak for each in took) / 2**20
    ratio = f"{statistics.median(ratios):7.2f}x" if ratios else " " * 8
    shown = f"{statistics.median(walls):8.2f} {walls[0]:8.2f} {walls[-1]:8.2f} {cpu:8.2f} {peak:7.0f}"
    print(f"{name:34} {shown} {ratio}  {aim}".rstrip(), flush=True)


def over(ones: list[Took], others: list[Took]) -> list[float]:
    return [one.cpu / other.cpu for one, other in zip(ones, others, strict=True)]


def race(root: Path, count: int, peers: list[str], rounds: int) -> None:
    """Everything about a store of ``count`` runs."""
    warm = root / "cache"
    for _ in range(2):
        measure(root, "table", warm)
        time.sleep(2.5)  # so long a directory that changed is not trusted by the index
    took: dict[str, list[Took]] = {}
    for number in range(rounds):
        for name in MEASURED:
            if name in PEERS and (name not in peers or number > 0):  # minutes each: once will do
                continue
            took.setdefault(name, []).append(measure(root, name, warm))
            if name == "table" or (number == 0 and name in ("filter", "group", "best")):
                took.setdefault(f"{name}, cold", []).append(measure(root, name, root / f"cold-{number}-{name}"))
    assert {each.rows for name in ("table", "table, cold") for each in took[name]} == {count}
    print(f"\n{count} runs")
    print(f"{'':34} {'wall s':>8} {'least':>8} {'most':>8} {'CPU s':>8} {'peak MB':>7} {'ratio':>8}  aim")
    floor, plain, table = took["pandas, one SQLite file"], took["plain scan"], took["table"]
    line("pandas, one SQLite file", floor)
    line("table, warm", table, over(table, floor), "<= 1.5x of the file")
    for name in ("filter", "group", "best"):
        line(f"{name}, warm", took[name], over(took[name], floor))
    line("plain scan", plain)
    for name in ("table", "filter", "group", "best"):
        cold = took[f"{name}, cold"]
        line(f"{name}, cold", cold, over(cold, plain[: len(cold)]), "<= 1.3x of the scan" if name == "table" else "")
    for name in peers:
        line(name, took[name], over(took[name], table[:1]), AIMS.get(name, ""))
    for name, seconds in asked_again(root, rounds).items():
        aim = "  <= 0.2 s" if name == "filter" else ""
        shown = f"{statistics.median(seconds):8.3f} {min(seconds):8.3f} {max(seconds):8.3f}"
        print(f"{name + ', asked again (s)':34} {shown}{aim}")
    empty = measure(root, "import", warm)
    for name in ("table", "table, cold"):
        over_own = statistics.median(each.peak - empty.peak - each.own for each in took[name]) / count
        print(f"{name + ': over the DataFrame (B a run)':44} {over_own:6.0f}  <= 1024")


def import_alone(_: Path) -> None:
    import pandas  # noqa: F401


MEASURED["import"] = import_alone


def prepare(root: Path, count: int, peers: list[str]) -> None:
    root.mkdir(parents=True)
    fill(root / "store", count)
    fill_sqlite(root / "runs.sqlite", count)
    for name in peers:
        started = time.perf_counter()
        PEERS[name](root / name.lower(), count)
        print(f"{name} was filled in {time.perf_counter() - started:.0f} s", flush=True)


def check_sample(root: Path) -> None:
    """What is generated is a whole store."""
    fill(root, 50)
    jimmy = [sys.executable, "-P", "-m", "jimmy_manager.cli", "check", "--quick", "--store", str(root)]
    subprocess.run(jimmy, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 runs, to see that it works")
    parser.add_argument("--runs", type=int, action="append", help="the size of the store; default: 10000 and 100000")
    parser.add_argument("--peers", type=int, default=10_000, help="the largest store that peers are timed on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where to write; default: a temporary directory")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measured(Path(arguments.dir), arguments.measure)
    directory = Path(tempfile.mkdtemp(prefix="jimmy-bench-", dir=arguments.dir))
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    peers = [name for name in PEERS if find_spec(name.lower()) is not None]
    for name in (name for name in PEERS if name not in peers):
        print(f"{name} is not installed and not compared: {INSTALL}")
    try:
        check_sample(directory / "sample")
        for count in [300] if arguments.quick else arguments.runs or [10_000, 100_000]:
            here = peers if count <= max(arguments.peers, 300) else []
            prepare(directory / str(count), count, here)
            os.environ["XDG_CACHE_HOME"] = str(directory / str(count) / "cache")
            race(directory / str(count), count, here, 1 if arguments.quick else arguments.rounds)
    finally:
        shutil.rmtree(directory)
    return None


if __name__ == "__main__":
    main()
