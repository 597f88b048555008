"""The state of the repository that a job lies in: its commit, and what tracked files have uncommitted.

Only sources are diffed, as only they are kept of a job: a tracked file of another kind that was changed is named.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from jimmy_manager.archives.code import SUFFIXES

MOST_DIFF = 1 << 18
"""Bytes of a diff that are kept; what is beyond is left out by whole files, and named."""
_MOST_NAMED = 100
_TIMEOUT_S = 10.0
_FILE = b"diff --git "
# Another git at work there finds no lock of ours, and the user's own way of showing differences is not used.
_GIT = ("git", "--no-optional-locks", "-c", "core.quotePath=false")
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")


class GitState(NamedTuple):
    """A repository: its folder ``root``, the commit, whether tracked files differ from it, and how ("": not)."""

    root: str
    commit: str
    dirty: bool
    diff: bytes


@functools.lru_cache(maxsize=8)
def of_folder(folder: str) -> GitState | None:
    """The state of the repository around ``folder``, asked once a process; None outside of one or without git."""
    try:
        commit, _, root = os.fsdecode(_git(folder, "rev-parse", "HEAD", "--show-toplevel")).partition("\n")
        root = root.removesuffix("\n")
        changed = _names(_git(root, *_DIFF, "--name-only", "-z", "HEAD"))
        sources = _names(_git(root, *_DIFF, "--name-only", "-z", "HEAD", *_sources_only())) if changed else []
        diff = _bounded(root) if sources else b""
    except (OSError, subprocess.SubprocessError):
        return None
    others = [name for name in changed if name not in set(sources)]
    return GitState(root, commit, bool(changed), _noted(diff, sources, others))


def _noted(diff: bytes, sources: list[str], others: list[str]) -> bytes:
    """``diff``, after lines that say what is not in it; ``git apply`` passes over them."""
    kept = diff.count(b"\n" + _FILE) + diff.startswith(_FILE)
    notes = [
        *_listed(sources[kept:], f"the diff would have more than {MOST_DIFF} bytes"),
        *_listed(others, "no Python, YAML or JSON file"),
    ]
    return "".join(notes).encode("utf-8", "backslashreplace") + diff


def _listed(names: list[str], why: str) -> Iterable[str]:
    for name in names[:_MOST_NAMED]:
        yield f"# changed, but not shown here ({why}): {name!r}\n"
    if len(names) > _MOST_NAMED:
        yield f"# changed, but not shown here ({why}): {len(names) - _MOST_NAMED} more files\n"


def _bounded(root: str) -> bytes:
    """The diff of as many whole files as fit into ``MOST_DIFF``; git is not heard to the end of a longer one."""
    command = [*_GIT, "-C", root, *_DIFF, "HEAD", *_sources_only()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as git:
        assert git.stdout is not None
        raw = git.stdout.read(MOST_DIFF + 1)
        if len(raw) > MOST_DIFF:
            git.kill()
            return raw[: raw.rfind(b"\n" + _FILE) + 1]
    if git.returncode:
        raise subprocess.CalledProcessError(git.returncode, command)
    return raw


def _sources_only() -> list[str]:
    return ["--", *(f":(top,glob)**/*{suffix}" for suffix in SUFFIXES)]


def _names(raw: bytes) -> list[str]:
    return os.fsdecode(raw).split("\0")[:-1]


def _git(folder: str, *arguments: str) -> bytes:
    command = [*_GIT, "-C", folder, *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S).stdout
