"""The modes of what is there already in a store that a group shares: which are wrong, and setting them right."""

from __future__ import annotations

import grp
import os
import shlex
import stat
from collections.abc import Iterator
from typing import NamedTuple

from jimmy_manager import modes
from jimmy_manager.archives.inspection import Finding


class Wrong(NamedTuple):
    """A file or folder that keeps members of the group out: its ``name`` below the store, and how."""

    name: str
    why: str


def wrong(root: str) -> Iterator[Wrong]:
    """Everything below ``root``, itself included, that keeps members of its group out; links are passed over.

    A file may give more than it has to (a log that all can read). What vanishes meanwhile is nothing wrong.
    """
    group = os.stat(root).st_gid
    yield from _judged(root, ".", group)
    for folder, folders, files in os.walk(root):
        for last in sorted([*folders, *files]):
            yield from _judged(root, os.path.relpath(os.path.join(folder, last), root), group)


def mend(root: str, name: str) -> bool:
    """Let the group of ``root`` into ``name``; return False where it is somebody else's."""
    path = os.path.join(root, name)
    found, group = os.lstat(path), os.stat(root).st_gid
    if stat.S_ISLNK(found.st_mode) or (found.st_uid != os.geteuid() and os.geteuid() != 0):
        return False
    if found.st_gid != group:
        os.chown(path, -1, group)
    modes.give(path, _wanted(found))
    return True


def findings(root: str) -> list[Finding]:
    """What ``wrong`` finds, for ``jimmy check``."""
    return [Finding("mode", each.name, f"{each.why}; the group is kept out", remedy="share") for each in wrong(root)]


def chmod_line(root: str) -> str:
    """What an owner types to let the group in."""
    place = shlex.quote(root)
    return f"chmod -R u+rwX,g+rwX {place}; find {place} -type d -user $USER -exec chmod g+s {{}} +"


def group_name(number: int) -> str:
    """The name of a group, or its number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _judged(root: str, name: str, group: int) -> Iterator[Wrong]:
    try:
        found = os.lstat(os.path.join(root, name))
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        return
    wanted = _wanted(found)
    if found.st_mode & wanted != wanted:
        yield Wrong(name, f"has mode {stat.S_IMODE(found.st_mode):04o} instead of {wanted:04o}")
    elif found.st_gid != group:
        yield Wrong(name, f"belongs to the group {group_name(found.st_gid)} instead of {group_name(group)}")


def _wanted(found: os.stat_result) -> int:
    return modes.FOLDER if stat.S_ISDIR(found.st_mode) else modes.FILE
