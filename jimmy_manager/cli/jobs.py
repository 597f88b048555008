"""Finding a job: ``jobs/digits.py:DigitsManager``, or the file alone where it defines one Manager.

The file is imported as the module of its stem, so that a ``_target_`` such as ``digits.load_splits`` means the same
function for ``jimmy sweep jobs/digits.py`` and for ``python jobs/digits.py sweep``. While a job runs, its folder is the
first place of imports, as for any script; afterwards it is not.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from jimmy_manager.errors import ConfigError

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_loading: list[Path] = []


def is_loading() -> bool:
    """Whether a job file is being imported right now, so that a call of ``main()`` in it means nothing."""
    return bool(_loading)


@contextmanager
def loaded(spec: str) -> Iterator[type[Manager]]:
    """Import the job that ``spec`` names, for the time of the block."""
    file, colon, name = spec.partition(":")
    with _imported(path_of(spec)) as module:
        yield _find(module, file, name if colon else None)


def path_of(spec: str) -> Path:
    """The file of the job that ``spec`` names; it must exist, and is not imported."""
    file = spec.partition(":")[0]
    if not Path(file).is_file():
        raise ConfigError(f"there is no job file {file!r}; a job is named like jobs/digits.py or jobs/digits.py:Digits")
    return Path(file).resolve()


@contextmanager
def _imported(path: Path) -> Iterator[ModuleType]:
    stem, folder = path.stem, str(path.parent)
    taken = sys.modules.get(stem)
    if taken is not None or stem in sys.stdlib_module_names:
        where = getattr(taken, "__file__", None) or "the standard library"
        raise ConfigError(f"cannot import {path} as {stem!r}: that is the name of {where} already; rename the file")
    spec = importlib.util.spec_from_file_location(stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"cannot import {path}: a job is a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    sys.modules[stem] = module
    try:
        _loading.append(path)
        try:
            spec.loader.exec_module(module)
        finally:
            _loading.pop()
        yield module
    finally:
        sys.modules.pop(stem, None)
        if folder in sys.path:
            sys.path.remove(folder)


def _find(module: ModuleType, file: str, name: str | None) -> type[Manager]:
    from jimmy_manager.manager.manager import Manager

    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Manager) and value.__module__ == module.__name__
    }
    if name is not None:
        job = getattr(module, name, None)
        if isinstance(job, type) and issubclass(job, Manager):
            return job
        raise ConfigError(f"{file} defines no Manager {name!r}; it has {', '.join(sorted(found)) or 'none at all'}")
    if not found:
        raise ConfigError(f"{file} defines no Manager; write a class that derives from Manager or TrainedManager")
    if len(found) > 1:
        choices = ", ".join(f"{file}:{each}" for each in found)
        raise ConfigError(f"{file} defines several Managers; name one of {choices}")
    return next(iter(found.values()))
