"""What ``jimmy show`` tells of the sources that a run was trained from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.archives.code import read_tree, run_of, tree_of
from jimmy_manager.archives.history import Stats
from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.errors import RecordError, StoreTooNew
from jimmy_manager.plain_text import plain
from jimmy_manager.results import code_files

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store


def described(store: Store, stats: Stats | None) -> dict[str, Any] | None:
    """The recorded sources of a run as plain values; None where there are none, an ``error`` where they are damaged."""
    digest = tree_of(stats.run) if stats else None
    if digest is None:
        return None
    try:
        tree = read_tree(store.files, digest)
    except (RecordError, StoreTooNew) as error:
        return {"digest": digest, "error": str(error)}
    return {"digest": digest, "files": {path: each.sha256 for path, each in tree.files.items()}, "left": tree.left}


def shown(code: Mapping[str, Any]) -> str:
    """What ``described`` gives, in one line."""
    if "error" in code:
        return str(code["error"])
    left = f", {len(code['left'])} more left out" if code["left"] else ""
    return f"{counted(len(code['files']), 'file')}{left}, {code['digest'][:12]}; --code DIR writes them out"


def write(store: Store, key: str, folder: str, as_json: bool) -> int:
    """Write the sources of a run into ``folder`` and say so; the exit code."""
    written = code_files.write(store, key, folder)
    git = run_of(store, key).get("git")
    commit = git.get("commit") if isinstance(git, Mapping) else None
    if as_json:
        click.echo(json.dumps(written._asdict() | {"commit": commit}, indent=1))
    else:
        sources = [path for path in written.paths if path != code_files.DIFF]
        click.echo(f"{counted(len(sources), 'file')} written to {plain(folder)}")
        if commit is not None:
            changed = f" with {code_files.DIFF} on top" if code_files.DIFF in written.paths else ""
            click.echo(f"from commit {plain(commit)}{changed}")
        for path, why in written.left.items():
            click.echo(f"not recorded: {plain(path)}: {plain(why)}")
    for path, why in written.failed.items():
        click.echo(f"error: {plain(path)} was not written: {plain(why)}", err=True)
    return ERROR if written.failed else 0
