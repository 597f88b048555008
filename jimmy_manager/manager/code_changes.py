"""How the sources of a job differ from those that a run was trained from."""

from __future__ import annotations

import difflib
import logging
import os
import posixpath
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from jimmy_manager.archives import code
from jimmy_manager.archives.code import Snapshot, Tree
from jimmy_manager.archives.files import Content
from jimmy_manager.errors import CodeChanged, RecordError
from jimmy_manager.manager import own_sources
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

log = logging.getLogger(__name__)

_MOST_SHOWN = 5
_MOST_LINES = 5_000
_MOST_PAIRS = 50_000
"""Between the first line that differs and the last one: where there are more lines, or more pairs of equal ones, as in
tables of one value, they are not compared line by line, which would take minutes."""


class Change(NamedTuple):
    """One source that is another one now: lines ``added`` and ``removed`` since, None where nobody counted them."""

    path: str
    added: int | None
    removed: int | None
    is_gone: bool = False

    def __str__(self) -> str:
        if self.is_gone:
            return f"{plain(self.path)} is gone"
        return f"{plain(self.path)} +{self.added}/-{self.removed}" if self.added is not None else plain(self.path)


def changes(manager: Manager, key: str) -> list[Change]:
    """How this process's sources differ from those of run ``key``; nothing where none were recorded.

    Compared are the Python sources that the run was trained from, each with what stands at its place beside the job's
    file. What the job has gained since is used by one of these, or by nobody.
    """
    then = code.recorded(manager.store, key)
    if then is None:
        return []
    own = own_sources.of_job(type(manager), manager.store.directory)
    return list(_compared(manager, then, own, own.snapshot()))


def warn_of_changes(manager: Manager, key: str) -> None:
    """Warn with ``CodeChanged`` where the job's code is not that of run ``key``; damage of the record is logged."""
    try:
        found = changes(manager, key)
    except RecordError as error:  # the model is whole, and that is what was asked for
        log.warning("whether the code of run %s has changed is not known: %s", key, error)
        return
    if found:
        warnings.warn(CodeChanged(_message(manager, key, found)), stacklevel=_callers_level())


def _callers_level() -> int:
    """Which frame above `warn_of_changes` is the first outside of this package, whoever's ``fetch`` came in between."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own_sources.PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _message(manager: Manager, key: str, found: list[Change]) -> str:
    shown = ", ".join(str(change) for change in found[:_MOST_SHOWN])
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    place = manager.store.directory
    command = f"'jimmy show {key} --store {shlex.quote(place)} --code DIR'" if place else f"store.code({key!r})"
    return f"the code has changed since run {key} was trained: {shown}{more}; {command} gives what it was then"


def _compared(manager: Manager, then: Tree, own: own_sources.OwnSources, now: Snapshot) -> Iterator[Change]:
    beside = {_place(path, now.tree.job): data for path, data in now.sources.items()}
    folder = os.path.join(own.root, posixpath.dirname(now.tree.job))
    for path, content in then.files.items():
        if not path.endswith(".py"):
            continue  # defaults and choices went into the configuration, which is the run's own
        place = _place(path, then.job)
        data = beside.get(place)
        if data is None:
            data = _on_disk(folder, place, own.root)
        if data is None:
            yield Change(path, None, None, is_gone=True)
        elif Content.of(data) != content:
            yield _counted(path, code.source(manager.store, content.sha256), data)


def _place(path: str, job: str) -> str:
    """Where ``path`` is from the folder of the job's file: a job is the same one in a copy of its folder."""
    return posixpath.relpath(path, posixpath.dirname(job) or ".")


def _on_disk(folder: str, place: str, root: str) -> bytes | None:
    """A source that was not imported in this process, such as one that only training needs."""
    file = os.path.realpath(os.path.join(folder, place))
    if not file.startswith(f"{root.rstrip('/')}/") or not os.path.isfile(file):
        return None
    content = own_sources.content_of(file)
    return content if isinstance(content, bytes) else None


def _counted(path: str, then: bytes, now: bytes) -> Change:
    before, after = (data.decode("utf-8", "replace").splitlines() for data in (then, now))
    before, after = _without_equal_ends(before, after)
    counts = Counter(after)
    if max(len(before), len(after)) > _MOST_LINES or sum(counts[line] for line in before) > _MOST_PAIRS:
        return Change(path, None, None)
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    equal = sum(block.size for block in blocks)
    return Change(path, len(after) - equal, len(before) - equal)


def _without_equal_ends(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    """Both from the first line that differs to the last one, which count the same lines added and removed."""
    shorter = min(len(before), len(after))
    start = next((place for place in range(shorter) if before[place] != after[place]), shorter)
    most = shorter - start
    end = next((place for place in range(most) if before[-1 - place] != after[-1 - place]), most)
    return before[start : len(before) - end], after[start : len(after) - end]
