"""``jimmy tensorboard``: TensorBoard on the runs of a store."""

from __future__ import annotations

import os
import sys

import click

from jimmy_manager.cli.options import open_store, store_option, where_option
from jimmy_manager.cli.warned import warnings_told
from jimmy_manager.plain_text import plain

_OURS = ("--logdir", "--logdir_spec", "--host", "--bind_all")


@click.command()
@click.argument("options", metavar="[-- OPTION...]", nargs=-1, type=click.UNPROCESSED)
@where_option
@click.option("--logdir-only", is_flag=True, help="Print the directory that it would show, instead of starting it.")
@store_option
def tensorboard(options: tuple[str, ...], where: str | None, logdir_only: bool, store: str) -> None:
    """Start TensorBoard on the runs of a store, with their configurations as HParams.

    All runs are there, also those that logged nothing, with the numbers of their previews. What is after -- goes to
    TensorBoard, e.g. --port 6007. It listens on this machine alone, as it lets everybody in: from elsewhere use
    ssh -L 6006:localhost:6006 HOST.
    """
    for option in options:
        name = option.partition("=")[0]
        if len(name) > 2 and any(ours.startswith(name) for ours in _OURS):  # it takes abbreviations
            raise click.UsageError(
                f"{plain(name)} is not for you to give: TensorBoard has no password, so it listens on this machine "
                "alone, on a directory that is made for it; from elsewhere use ssh -L 6006:localhost:6006 HOST"
            )
    from jimmy_manager.results.tensorboard_view import refresh

    with warnings_told():
        root = refresh(open_store(store), where)
    if logdir_only:
        click.echo(plain(root))
        return
    click.echo(f"the runs of {plain(store)} as they are now, by links in {plain(root)}", err=True)
    sys.stdout.flush()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(root), "--host", "localhost", *options]
    os.execv(sys.executable, command)
