"""``jimmy export`` and ``jimmy import``: runs in a tar or a directory, from one store to another."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from jimmy_manager.archives.store import Store
from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import json_option, keys_argument, open_store, store_option, where_option
from jimmy_manager.cli.warned import warnings_told
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.manager.merge import Loaded


@click.command()
@click.argument("dest", type=click.Path())
@keys_argument
@where_option
@store_option
@click.option("--no-ckpts", is_flag=True, help="Leave the checkpoints out: small, to look at and compare.")
@click.option("--dir", "as_dir", is_flag=True, help="Write a directory, which is a store; as DEST/ does.")
@json_option
@click.pass_context
def export(
    ctx: click.Context, /, dest: str, keys: tuple[str, ...], where: str | None, store: str, no_ckpts: bool,
    as_dir: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write runs to a tar or a directory, by default all of them.

    Unlike a copy of the store, it is consistent while workers train. The same runs give the same bytes. A directory is
    itself a store: 'jimmy ls --store DEST'.
    """
    from jimmy_manager.manager.transfer import export

    with warnings_told():
        exported = export(open_store(store), dest, keys or None, where, not no_ckpts, as_dir=as_dir)
    if as_json:
        click.echo(json.dumps(exported._asdict(), indent=1))
    else:
        click.echo(f"{counted(len(exported.keys), 'run')} written to {plain(dest)}")
    _tell_left(exported.left)
    ctx.exit(ERROR if exported.left else 0)


@click.command("import")
@click.argument("source", metavar="SRC", type=click.Path())
@store_option
@click.option("--dry-run", is_flag=True, help="Only tell what would become of each run; nothing is written.")
@json_option
@click.pass_context
def import_(ctx: click.Context, /, source: str, store: str, dry_run: bool, as_json: bool) -> None:
    """Merge the runs of a tar or of another store into a store.

    The configuration decides which run is which, and the newer epoch wins. The store is made where there is none.
    """
    from jimmy_manager.manager.transfer import load

    loaded = load(Store(store, read_only=dry_run and os.path.exists(store)), source, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(loaded._asdict(), indent=1))
    else:
        _tell(loaded, would="would be " if dry_run else "")
    _tell_left(loaded.left)
    ctx.exit(ERROR if loaded.left else 0)


def _tell(loaded: Loaded, would: str) -> None:
    if would:
        fates = {"added": loaded.added, "updated": loaded.updated, "kept as it is here": loaded.kept}
        told = {key: fate for fate, keys in fates.items() for key in keys}
        for key in sorted(told):
            click.echo(f"run {plain(key)} would be {told[key]}")
    for there, here in loaded.renamed.items():
        click.echo(f"run {plain(there)} {'would be' if would else 'is'} run {plain(here)} here")
    counts = {f"{would}added": loaded.added, "updated": loaded.updated, "here already": loaded.kept}
    click.echo(", ".join(f"{len(keys)} {name}" for name, keys in counts.items()))


def _tell_left(left: Mapping[str, str]) -> None:
    for key, reason in left.items():
        click.echo(f"error: run {plain(key)} was left out: {plain(reason)}", err=True)
