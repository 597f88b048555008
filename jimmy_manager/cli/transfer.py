"""``jimmy export`` and ``jimmy import``: runs in a tar, from one store to another."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from jimmy_manager.archives.store import Store
from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import json_option, keys_argument, open_store, store_option
from jimmy_manager.manager.plain_text import plain

_file_argument = click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))


@click.command()
@_file_argument
@keys_argument
@store_option
@click.option("--no-ckpts", is_flag=True, help="Leave the checkpoints out: small, to look at and compare.")
@json_option
@click.pass_context
def export(ctx: click.Context, /, file: str, keys: tuple[str, ...], store: str, no_ckpts: bool, as_json: bool) -> None:
    """Write runs to a tar, by default all of them.

    Unlike a copy of the directory, it is consistent while workers train.
    """
    from jimmy_manager.manager.transfer import export_tar

    exported = export_tar(open_store(store), file, keys or None, ckpts=not no_ckpts)
    if as_json:
        click.echo(json.dumps(exported._asdict(), indent=1))
    else:
        click.echo(f"{counted(len(exported.keys), 'run')} written to {plain(file)}")
    _tell_left(exported.left)
    ctx.exit(ERROR if exported.left else 0)


@click.command("import")
@_file_argument
@store_option
@json_option
@click.pass_context
def import_(ctx: click.Context, /, file: str, store: str, as_json: bool) -> None:
    """Merge the runs of a tar into a store.

    The configuration decides which run is which, and the newer epoch wins. The store is made where there is none.
    """
    from jimmy_manager.manager.transfer import load_tar

    loaded = load_tar(Store(store), file)
    if as_json:
        click.echo(json.dumps(loaded._asdict(), indent=1))
    else:
        counts = {"added": loaded.added, "updated": loaded.updated, "here already": loaded.kept}
        click.echo(", ".join(f"{len(keys)} {name}" for name, keys in counts.items()))
        for there, here in loaded.renamed.items():
            click.echo(f"run {plain(there)} is run {plain(here)} here")
    _tell_left(loaded.left)
    ctx.exit(ERROR if loaded.left else 0)


def _tell_left(left: Mapping[str, str]) -> None:
    for key, reason in left.items():
        click.echo(f"error: run {plain(key)} was left out: {plain(reason)}", err=True)
