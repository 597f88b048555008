"""The directory of one run, made without ever writing into that of another."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from jimmy_manager.errors import CheckpointError, ConfigError
from jimmy_manager.training.process_group import ProcessGroup

log = logging.getLogger(__name__)

_PATIENCE_S = 2.0
"""Not 0: the helpers of a process that was killed hold its lock until they notice."""


def make_directory(parent: Path, name: str | None) -> Path:
    """Make ``parent/name``, or without a name one called after the time, which nobody else has; return its path.

    Raises ConfigError for a name that leads elsewhere, and where a run was saved there.
    """
    return _made_for_now(parent) if name is None else make_unused(named(parent, name))


def named(parent: Path, name: str) -> Path:
    """Return ``parent/name``; ConfigError for a name that leads elsewhere."""
    if not name or name.startswith(".") or Path(name).name != name:
        raise ConfigError(f"dir_name is {name!r}, no name of a directory; a whole path goes into constants['save_dir']")
    return parent / name


def last_in(directory: Path) -> Path:
    """Return the ``last.pth`` of a directory; CheckpointError where there is none."""
    if not (directory / "last.pth").is_file():
        there = "; there is a best.pth: name that file to start from its weights"
        also = there if (directory / "best.pth").is_file() else ""
        raise CheckpointError(f"the directory {str(directory)!r} holds no last.pth{also}")
    return directory / "last.pth"


def make_unused(path: Path) -> Path:
    """Make ``path``, if need be, and return it; ConfigError says how to go on where a run was saved there."""
    if (path / "last.pth").exists():
        last = str(path / "last.pth")
        raise ConfigError(f"{path} holds a run; go on with it by start(checkpoint={last!r}), or choose another name")
    if (path / "best.pth").exists():
        raise ConfigError(f"{path} holds the best.pth of a run; choose another name, or move it away")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def held(path: Path, *, is_new: bool) -> Iterator[Path]:
    """Keep other processes of this host from training in ``path`` as long as this one does, by its file ``.lock``.

    It does not hold across hosts, which may share ``path`` without sharing its locks, nor where the file system knows
    none. The file stays, because whoever waits for it must find the same one.

    Raises ConfigError where another process trains there, and for a new run where one was saved there meanwhile.
    """
    # Not comments.txt itself: some releases of filelock empty or remove the file.
    lock = filelock.FileLock(path / ".lock", timeout=_PATIENCE_S)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"another process trains in {path}; wait until it has ended, or choose another name"
        ) from None
    except OSError as error:
        log.debug("nothing keeps other processes away from %s: %s", path, error)
    try:
        yield make_unused(path) if is_new else path
    finally:
        lock.release()


def discard_empty(path: Path) -> None:
    """Remove ``path``, and the directories around it, as far as nothing is in them."""
    with suppress(OSError):
        os.removedirs(path)


def agreed(group: ProcessGroup | None, make: Callable[[], Path]) -> Path:
    """Call ``make`` in the first process of ``group``; all return its path, or raise its error."""
    if group is None:
        return make()
    made: Path | Exception | None = None
    if group.is_first:
        try:
            made = make()
        except (ConfigError, OSError) as error:
            made = error
    made = group.first_of(made)
    if isinstance(made, Path):
        return made
    raise made


def _made_for_now(parent: Path) -> Path:
    stamp = time.strftime("%y%m%d_%H%M%S")
    path, count = parent / stamp, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another start in the same second, by this process or any
            count += 1
            path = parent / f"{stamp}_{count}"
        else:
            return path
