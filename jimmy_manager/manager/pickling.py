"""A Manager in another process, whose class is found there by the file of its job.

pickle names a class by its module. That of a job is often ``__main__``, or lies in a folder that only the first process
searches. cloudpickle, which submitit uses, copies a class of ``__main__`` without its file: what goes by the file, as
``choices = 'digits.yaml'`` and ``_target_: digits.load_splits`` do, would mean something else there, or nothing.
"""

from __future__ import annotations

import importlib.util
import operator
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jimmy_manager.errors import ConfigError

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager


def home_of(cls: type) -> tuple[str, str] | None:
    """The file and the name by which ``cls`` is found again; None where pickle's own way is the better one.

    That is so for a class of a package, and for one that no file defines at its top: in a notebook or in a function.
    """
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if "." in cls.__module__ or file is None or "<locals>" in cls.__qualname__:
        return None
    try:
        is_there = operator.attrgetter(cls.__qualname__)(module) is cls
    except AttributeError:
        return None
    return (str(Path(file).resolve()), cls.__qualname__) if is_there else None


def blank(file: str, name: str) -> Manager:
    """A Manager of the class ``name`` in ``file``, to be filled with its state; imports the file once a process."""
    cls: Any = operator.attrgetter(name)(_loaded(file) or _imported(file))
    manager: Manager = cls.__new__(cls)
    return manager


def _loaded(file: str) -> ModuleType | None:
    for name in ("__main__", Path(file).stem):
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None)
        if origin is not None and str(Path(origin).resolve()) == file:
            return module
    return None


def _imported(file: str) -> ModuleType:
    """The job's file as the module of its stem, with its folder first on the path, as for ``jimmy sweep``."""
    name, folder = Path(file).stem, str(Path(file).parent)
    if name in sys.modules:
        raise ConfigError(f"cannot import {file} as {name!r}: that is the name of another module; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise ConfigError(f"the job {file} is not here; a Manager goes to another process without its file")
    module = importlib.util.module_from_spec(spec)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
