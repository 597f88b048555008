"""``jimmy errors`` and ``jimmy retry``: what failed, why, and another try."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from jimmy_manager.archives.listing import Listed, read_all
from jimmy_manager.cli import paging
from jimmy_manager.cli.columns import clipped, counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import complete_key, json_option, keys_argument, open_store, store_option
from jimmy_manager.errors import KeyNotFound
from jimmy_manager.plain_text import plain, plain_lines
from jimmy_manager.results.table import STATES


@click.command()
@click.argument("key", required=False, shell_complete=complete_key)
@store_option
@click.option("--short", is_flag=True, help="One line each, without tracebacks.")
@json_option
def errors(key: str | None, store: str, short: bool, as_json: bool) -> None:
    """Show failed runs with their tracebacks."""
    opened = open_store(store)
    whole = None if key is None else opened.resolve(key)
    failed = [run for run in read_all(opened) if run.state == "failed" and whole in (None, run.key)]
    if as_json:
        click.echo(json.dumps([{"key": run.key, **_error(run)} for run in failed], indent=1))
        return
    if not sys.stdout.isatty():
        click.echo("".join(f"{line}\n" for line in _told(failed, short=short)), nl=False)
    elif failed:
        wide = shutil.get_terminal_size().columns
        lines = [clipped(line, wide) for line in _told(failed, short=True)] if short else _told(failed, short=False)
        keys, one = (failed[0].key, "it") if len(failed) == 1 else ("--all", "them")
        at = f" --store {shlex.quote(plain(store))}" if store != os.environ.get("JIMMY_STORE", "store") else ""
        foot = f"{counted(len(failed), 'run')} failed; 'jimmy retry {keys}{at}' lets {one} be tried again"
        paging.show(
            "", [_in_bold(line) for line in lines], ["", click.style(clipped(foot, wide), dim=True)],
            summary=f"{counted(len(failed), 'run')} failed",
        )  # fmt: skip
    if not failed:
        click.echo(f"run {whole} has not failed" if whole else "no run has failed", err=True)


@click.command()
@keys_argument
@click.option("--all", "every", is_flag=True, help="Every failed run.")
@store_option
@click.pass_context
def retry(ctx: click.Context, /, keys: tuple[str, ...], every: bool, store: str) -> None:
    """Let failed runs be tried again.

    The next worker that comes by takes them and goes on from what they had saved.
    """
    if every == bool(keys):
        raise click.UsageError("name the runs, or give --all")
    opened = open_store(store, read_only=False)
    if every:
        chosen = [run.key for run in read_all(opened) if run.state == "failed"]
    else:
        chosen = [opened.resolve(key) for key in keys]
    refused = 0
    for key in chosen:
        standing = opened.standing(key)
        if standing.state != "failed":
            refused += 1
            click.echo(f"error: run {key} is {STATES.get(standing.state, standing.state)}, not failed", err=True)
        elif opened.claims.mark(standing, opened.registry.read(key).digest, "retry") is None:
            refused += 1
            click.echo(f"error: run {key} was claimed by another worker a moment ago", err=True)
        else:
            click.echo(f"run {key} will be tried again")
    if not chosen:
        click.echo("no run has failed", err=True)
    ctx.exit(ERROR if refused else 0)


def _told(failed: Sequence[Listed], *, short: bool) -> list[str]:
    """The lines about ``failed``, with tracebacks unless ``short``."""
    lines: list[str] = []
    for run in failed:
        error = _error(run)
        if lines and not short:
            lines.append("")
        lines.append(f"run {run.key}: {plain(error.get('type', 'unknown'))}: {plain(error.get('message', ''))}")
        if not short and error.get("traceback"):
            lines += plain_lines(error["traceback"]).rstrip("\n").split("\n")
    return lines


def _in_bold(line: str) -> str:
    """A line of a run with its beginning emphasised."""
    found = re.match(r"run [0-9a-f]+: ", line)
    return click.style(found[0], bold=True) + line[found.end() :] if found else line


def _error(run: Listed) -> dict[str, Any]:
    if run.record is None:
        raise KeyNotFound(f"run {run.key} has no claim")
    return run.record.error or {}
