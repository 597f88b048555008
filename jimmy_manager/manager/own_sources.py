"""The job's own sources: what of its folder, or of the repository around that, this process has imported.

A module is read when it is first seen, and again where it was reloaded: what somebody edits after the import is not
what runs. Of files that are no modules only those are taken that the job names: its defaults and its choices. Left out
are hidden folders, installed packages, the standard library, this package and the store.
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from jimmy_manager.archives.code import Snapshot, is_source_path
from jimmy_manager.manager import git_state, notebook_source

MOST_FILES = 500
MOST_BYTES = 4 << 20
MOST_IN_FILE = 1 << 19
_MOST_LEFT = 50
_MOST_JOBS = 16
_INSTALLED = ("site-packages", "dist-packages")
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_read: dict[str, tuple[tuple[Any, Any], bytes | str]] = {}
"""By path: the module and spec as which it was read, and the bytes, or why there are none."""
_known: dict[tuple[type, str | None], OwnSources] = {}


def folder_of(job: type) -> str:
    """The folder of a job's file, links resolved; of a job without one, the working directory."""
    file = _file_of(job)
    return os.path.dirname(file) if file else os.getcwd()


def of_job(job: type, store: str | None) -> OwnSources:
    """The sources of ``job`` in this process; ``store`` is a directory of which nothing is taken."""
    known = _known.get((job, store))
    if known is None:
        if len(_known) >= _MOST_JOBS:  # a notebook that defines its class again and again
            del _known[next(iter(_known))]
        known = _known[job, store] = OwnSources(job, store)
    return known


class OwnSources:
    """The sources of one job, as this process has imported them."""

    def __init__(self, job: type, store: str | None) -> None:
        self._job = job
        self.folder = folder_of(job)
        git = git_state.of_folder(self.folder)
        self.root = os.path.realpath(git.root) if git else self.folder
        kept = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
        self._foreign = tuple(f"{os.path.realpath(each)}/" for each in (*kept, PACKAGE, store) if each)
        self._paths: dict[str, str] = {}
        self._own: dict[str, ModuleType] = {}
        self._seen: tuple[Any, ...] = ()
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """The sources now; the same object as before where nothing was imported or reloaded since."""
        seen = (len(sys.modules), *self._marks())
        if self._snapshot is None or seen != self._seen:
            self._snapshot = self._take()
            self._seen = (len(sys.modules), *self._marks())
        return self._snapshot

    def _marks(self) -> Iterator[Any]:
        """What changes where a module was reloaded, or something in a notebook was defined anew."""
        for name, module in self._own.items():
            yield sys.modules.get(name) is module and id(module.__dict__.get("__spec__"))
        for definition in notebook_source.definitions().values():
            yield notebook_source.mark(definition)

    def _take(self) -> Snapshot:
        self._own = {}
        modules: dict[str, ModuleType] = {}
        for name, module in list(sys.modules.items()):
            file = _dict_of(module).get("__file__")
            if isinstance(file, str) and (path := self._path(file)):
                self._own[name] = module
                modules[path] = module
        job_path = self._path(_file_of(self._job) or "")
        found: dict[str, bytes | str] = {path: self._content(path, None) for path in self._named_by_job()}
        found |= {path: self._content(path, module) for path, module in modules.items()}
        if job_path and job_path not in found:
            found[job_path] = self._content(job_path, None)
        found |= self._notebook()
        first = [job_path] if job_path else []
        return _bounded(job_path, {path: found[path] for path in [*first, *sorted(found)]})

    def _content(self, path: str, module: ModuleType | None) -> bytes | str:
        place = os.path.join(self.root, path)
        now = (module, _dict_of(module).get("__spec__"))
        before, content = _read.get(place, ((None, None), ""))
        if place in _read and (module is None or (before[0] is now[0] and before[1] is now[1])):
            return content
        _read[place] = now, content_of(place)
        return _read[place][1]

    def _notebook(self) -> dict[str, bytes | str]:
        """A file for each class and function of the notebook; why there is none for the job, should that be so."""
        found: dict[str, bytes | str] = {}
        for name, definition in notebook_source.definitions().items():
            text = notebook_source.source(definition)
            if text is not None:
                found[f"{notebook_source.FOLDER}/{name}.py"] = text.encode("utf-8", "replace")
            else:
                found[name] = notebook_source.UNKNOWN
        if _file_of(self._job) is None and f"{notebook_source.FOLDER}/{self._job.__name__}.py" not in found:
            found[self._job.__name__] = notebook_source.UNKNOWN
        return found

    def _named_by_job(self) -> Iterator[str]:
        for name in ("default_config", "choices"):
            file = getattr(self._job, name, None)
            if isinstance(file, (str, os.PathLike)) and (path := self._path(os.path.join(self.folder, file))):
                yield path

    def _path(self, file: str) -> str:
        """The path of ``file`` below the root; "" where it is none of the job's own."""
        if file not in self._paths:
            self._paths[file] = self._find_path(file)
        return self._paths[file]

    def _find_path(self, file: str) -> str:
        if not file or any(f"/{each}/" in file for each in _INSTALLED):
            return ""
        place = os.path.realpath(file)
        below = place.removeprefix(f"{self.root.rstrip('/')}/")
        is_own = below != place and not place.startswith(self._foreign) and os.path.isfile(place)
        return below if is_own and is_source_path(below) and not set(below.split("/")) & set(_INSTALLED) else ""


def _bounded(job: str, found: dict[str, bytes | str]) -> Snapshot:
    """The snapshot of as much of ``found``, in its order, as a store should hold."""
    sources: dict[str, bytes] = {}
    left: dict[str, str] = {}
    size = 0
    for path, content in found.items():
        if isinstance(content, str):
            left[path] = content
        elif len(sources) >= MOST_FILES:
            left[path] = f"there are more than {MOST_FILES} files"
        elif size + len(content) > MOST_BYTES:
            left[path] = f"all files together have more than {MOST_BYTES} bytes"
        else:
            sources[path] = content
            size += len(content)
    if len(left) > _MOST_LEFT:
        more = len(left) - _MOST_LEFT
        left = dict(list(left.items())[:_MOST_LEFT]) | {"...": f"{more} more"}
    return Snapshot.of(job if job in sources else "", sources, left)


def content_of(place: str) -> bytes | str:
    """The bytes of a source file, or why it is none to keep."""
    try:
        size = os.stat(place).st_size
        if size > MOST_IN_FILE:
            return f"it has {size} bytes, more than {MOST_IN_FILE}"
        with open(place, "rb") as file:
            return file.read(MOST_IN_FILE + 1)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _file_of(job: type) -> str | None:
    try:
        return os.path.realpath(inspect.getfile(job))
    except (TypeError, OSError):  # defined in a notebook or at a prompt
        return None


def _dict_of(module: Any) -> dict[str, Any]:
    """The names of a module; what else stands in ``sys.modules`` has none, and a lazy one is not woken."""
    return module.__dict__ if isinstance(module, ModuleType) else {}
