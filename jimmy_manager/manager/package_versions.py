"""The versions that a result may depend on: the interpreter, this package, and what the job's sources import."""

from __future__ import annotations

import ast
import functools
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata

import jimmy_manager

MOST = 40
_ALWAYS = ("torch", "numpy")
# The usual names of what is not called as it is imported: to look any other up, every installed package is read.
_CALLED = {
    "PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "PyYAML",
}  # fmt: skip


def of_sources(sources: Iterable[bytes]) -> dict[str, str]:
    """The versions of python, jimmy_manager, torch, numpy and of each installed package that ``sources`` import.

    Only what is loaded counts, and of very many packages the first ``MOST`` in the order of the alphabet.
    """
    found = {"python": platform.python_version(), "jimmy_manager": jimmy_manager.__version__}
    found |= {name: sys.modules[name].__version__ for name in _ALWAYS if name in sys.modules}
    tops = {name for source in sources for name in _imported(source)} - sys.stdlib_module_names - found.keys()
    for name in sorted(tops & sys.modules.keys()):
        if len(found) < MOST and (known := _distribution(name)) is not None:
            found.setdefault(*known)
    return found


@functools.lru_cache(maxsize=1024)
def _imported(source: bytes) -> frozenset[str]:
    """The first names of all absolute imports in ``source``; none where it is not Python."""
    try:
        return frozenset(_first_names(ast.parse(source)))
    except (SyntaxError, ValueError):
        return frozenset()


def _first_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@functools.lru_cache(maxsize=256)
def _distribution(module: str) -> tuple[str, str] | None:
    """Name and version of the package that ``module`` comes from; None for one that is not installed."""
    name = _CALLED.get(module, module)
    try:
        return name, metadata.version(name)
    except metadata.PackageNotFoundError:
        file = getattr(sys.modules[module], "__file__", None) or ""
        if "-packages/" not in file:
            return None
        name = next(iter(_all_distributions().get(module, ())), "")
        return (name, metadata.version(name)) if name else None


@functools.cache
def _all_distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())
