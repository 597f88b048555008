"""Under which names the file of a job may be written in a ``_target_``."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path


def names_of(cls: type) -> tuple[str, ...]:
    """The prefixes that mean the module of ``cls``: its package, and the stem of its file.

    ``digits.load_splits`` names the same function whether ``jobs/digits.py`` was run (``__main__``), imported from its
    folder (``digits``) or as part of a package (``jobs.digits``): in the first and the last case the module gets the
    stem as a second name, unless another module has that name.
    """
    return _names_of(cls.__module__)


@functools.lru_cache(maxsize=64)  # asked for each configuration of a sweep
def _names_of(module_name: str) -> tuple[str, ...]:
    first = module_name.partition(".")[0]
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if module is None or file is None:  # defined in a notebook or at a prompt
        return (first,)
    stem = Path(file).stem
    if stem == "__init__":
        return (first,)
    if stem in sys.modules:
        is_ours = _is_file(getattr(sys.modules[stem], "__file__", None), file)
    else:
        spec = importlib.util.find_spec(stem) if stem.isidentifier() else None
        is_ours = stem.isidentifier() and (spec is None or _is_file(spec.origin, file))
        if is_ours:
            sys.modules[stem] = module
    return (first, stem) if is_ours and stem != first else (first,)


def _is_file(origin: str | None, file: str) -> bool:
    return origin is not None and Path(origin).resolve() == Path(file).resolve()
