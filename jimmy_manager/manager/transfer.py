"""Runs handed over: ``export`` writes them to a tar or a directory, ``load`` merges them into a store.

::

    store.yaml                        Manager name, fields, schema ledger
    configs/ab/KEY.json               as in the store, for each run
    stats/ab/KEY.gN.json              with the newest whole commit alone
    previews/..., ckpts/...           the files of that commit
    code/ab/SHA256                    the sources that any of the runs names, each once

That is the tar; ``folder`` says what a directory has besides. The same runs give the same bytes. Failures and logs stay
behind. A copy of a store in use is not promised to be consistent; an export is, run by run.

Nothing that is loaded is believed: before anything is written every member is checked, by name, kind, size and
digest. Then each run is written as a worker would do it, under a claim, in a generation of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from jimmy_manager.archives import layout
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import CHUNK, Content, store_error
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import DamagedRecord, NoRecord, ReadOnlyStore, StoreError
from jimmy_manager.manager import joining
from jimmy_manager.manager.carried_code import CarriedCode
from jimmy_manager.manager.checked_runs import CheckedRuns, Source, TarSource
from jimmy_manager.manager.folder import FolderSource, alone, new_folder
from jimmy_manager.manager.merge import Loaded, Merge
from jimmy_manager.manager.tarball import END, header, padding

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition


class Exported(NamedTuple):
    """The runs that were written, and why others were left out."""

    keys: tuple[str, ...]
    left: dict[str, str]


class Sink(Protocol):
    """Where ``export`` puts runs."""

    def begin(self, info: StoreFile) -> None:
        """What holds for all of them."""

    def put(self, digest: str, config: bytes, stats: Stats, opened: dict[str, tuple[BinaryIO, Content]]) -> None:
        """One run: its configuration and that one's digest, stats of one commit, and that one's open files."""

    def put_small(self, name: str, data: bytes) -> None:
        """A file that belongs to no one run."""

    def end(self) -> None:
        """There are no more."""


def export(
    store: Store, dest: str | os.PathLike[str], keys: Iterable[str] | str | None = None, where: Condition = None,
    ckpts: bool = True, *, as_dir: bool = False,
) -> Exported:
    """Write the newest whole commit of each run, of ``keys`` and that meet ``where``, to ``dest``, whole or not at all.

    ``dest`` is a tar; with a slash at its end, where it is a directory, or with ``as_dir`` a directory that is itself a
    store, and not inside of this one. ``keys`` may be one key. Without ``ckpts`` it is small; finished runs can be
    looked at and compared from it, none be continued.
    """
    is_dir = as_dir or os.fspath(dest).endswith("/") or os.path.isdir(dest)
    chosen = _chosen(store, keys, where)
    if not is_dir:
        return _export_tar(store, Path(dest), chosen, ckpts)
    if store.directory is not None and Path(store.directory).resolve() in Path(dest).resolve().parents:
        raise StoreError(f"cannot export to {os.fspath(dest)}: it is inside of the store itself; name another place")
    with new_folder(Path(dest).absolute()) as sink:
        return _write(store, chosen, ckpts, sink)


def export_tar(
    store: Store, path: str | os.PathLike[str], keys: Iterable[str] | str | None = None, ckpts: bool = True
) -> Exported:
    """``export`` to a tar."""
    return _export_tar(store, Path(path), _chosen(store, keys, None), ckpts)


def _chosen(store: Store, keys: Iterable[str] | str | None, where: Condition) -> list[str]:
    named = [keys] if isinstance(keys, str) else keys
    chosen = None if named is None else {store.resolve(key) for key in named}
    if where is not None:
        met = set(store.table(where, columns=["state"]).index)
        chosen = met & (set(store.committed_keys()) if chosen is None else chosen)
    return sorted(store.committed_keys() if chosen is None else chosen)


def _export_tar(store: Store, path: Path, chosen: list[str], ckpts: bool) -> Exported:
    target = path.absolute()
    exported: list[Exported] = []

    def fill(file: BinaryIO) -> None:
        exported.append(_write(store, chosen, ckpts, _TarSink(file)))

    Disk(target.parent).write(target.name, fill)
    return exported[-1]


def _write(store: Store, chosen: list[str], ckpts: bool, sink: Sink) -> Exported:
    done: list[str] = []
    left: dict[str, str] = {}
    carried = CarriedCode(store.files)
    sink.begin(store.info._replace(stale_s=None, lease_s=None))
    for key in chosen:
        try:
            config = store.registry.read(key)
            with ExitStack() as stack:
                stats, opened = store.history.newest(key, partial(_open, store, stack, ckpts))
                # Only now: whatever of a run could not be had is noticed before a byte of it is written.
                run, sources = carried.take(stats.run)
                for name, data in sources.items():
                    sink.put_small(name, data)
                sink.put(config.digest, config.seal(), stats._replace(run=run), opened)
            done.append(key)
        except (NoRecord, DamagedRecord) as error:
            left[key] = str(error)
    sink.end()
    return Exported(tuple(done), left)


def _open(
    store: Store, stack: ExitStack, ckpts: bool, commit: Commit
) -> tuple[Stats, dict[str, tuple[BinaryIO, Content]]]:
    """The stats of this commit alone, and its verified files, which stay readable though its owner prunes them."""
    stats = alone(store, commit)
    wanted = {
        name: expected for name, expected in commit.contents().items()
        if name != commit.ckpt_name or (ckpts and commit.has_ckpt)
    }
    opened = {name: stack.enter_context(store.history.open(name, expected)) for name, expected in wanted.items()}
    return stats, {name: (opened[name], expected) for name, expected in wanted.items()}


class _TarSink:
    """Where runs are put into a tar."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def begin(self, info: StoreFile) -> None:
        self.put_small(layout.STORE_FILE, info.dump())

    def put(self, digest: str, config: bytes, stats: Stats, opened: dict[str, tuple[BinaryIO, Content]]) -> None:
        self.put_small(layout.config(stats.key), config)
        self.put_small(stats.name, stats.seal())
        for name in sorted(opened):
            self._copy(name, *opened[name])

    def end(self) -> None:
        self._file.write(END)

    def put_small(self, name: str, data: bytes) -> None:
        self._file.write(header(name, len(data)) + data + padding(len(data)))

    def _copy(self, name: str, source: BinaryIO, expected: Content) -> None:
        self._file.write(header(name, expected.size))
        size = 0
        while part := source.read(CHUNK):
            self._file.write(part)
            size += len(part)
        if size != expected.size:
            raise store_error("read", name, OSError(0, "it changed while it was exported; export again"))
        self._file.write(padding(size))


def load(store: Store, source: str | os.PathLike[str], *, dry_run: bool = False, manager: str = "") -> Loaded:
    """Merge the runs of ``source``, a tar that ``export`` wrote or the directory of a store, into ``store``.

    The configuration decides which run is which, and the newer epoch wins; at one epoch a finished run stays beside an
    unfinished one. A run that a live worker holds is left. An import that fails, or is killed, leaves the run that it
    is at as it stood: done, failed with its error, or paused. A store without runs takes over name and schema ledger of
    the other; else the names (and ``manager``, where given) must be one, and the ledger here must begin with the other.
    With ``dry_run`` nothing at all is written, and what would happen is told. Raises ``DamagedRecord`` for a tar that
    is not what ``export`` writes, before anything is written; of a directory the runs are left that are damaged, or
    that a worker trains on or a janitor sweeps meanwhile.
    """
    if store.read_only and not dry_run:
        raise ReadOnlyStore(f"cannot load {os.fspath(source)} into {store}: it was opened read-only")
    with _opened(store, source) as opened:
        runs = CheckedRuns(opened)
        store.refresh()
        if dry_run:
            return Merge(joining.rehearse(store, runs, manager), runs, dry_run=True).all()
        joining.join(store, runs, manager)
        return Merge(store, runs).all()


def load_tar(store: Store, path: str | os.PathLike[str], *, manager: str = "") -> Loaded:
    """``load`` from a tar."""
    return load(store, path, manager=manager)


@contextmanager
def _opened(store: Store, source: str | os.PathLike[str]) -> Iterator[Source]:
    if os.path.isdir(source):
        if store.directory is not None and os.path.exists(store.path("") or "") and os.path.samefile(
            source, store.path("") or ""
        ):
            raise StoreError(f"cannot load {os.fspath(source)} into itself; name another store")
        yield FolderSource(Store(source, read_only=True))
        return
    try:
        file = open(source, "rb")  # noqa: SIM115  # closed below; only the opening has this error
    except OSError as error:
        raise store_error("read", os.fspath(source), error) from error
    with file:
        yield TarSource(file, os.fspath(source))
