"""``jimmy init``: a store before its first run."""

from __future__ import annotations

import click

from jimmy_manager.cli.columns import counted
from jimmy_manager.plain_text import plain


@click.command()
@click.argument(
    "store", metavar="[STORE]", envvar="JIMMY_STORE", default="store", type=click.Path(file_okay=False), required=False
)
@click.option("--shared", type=click.Choice(["group"]), help="Who else may read and write all of it.")
@click.option("--key-len", type=click.IntRange(4, 64), help="Digits of a key, 8 by default; fixed for ever.")
def init(store: str, shared: str | None, key_len: int | None) -> None:
    """Make an empty store, or share one with the group.

    A sweep makes its store by itself; this is for what has to be settled before. STORE is $JIMMY_STORE or 'store'
    where it is not given. --shared group lets every member of the directory's group read and write what anybody makes
    in it, whatever their umask.
    """
    from jimmy_manager.archives.store import Store

    opened = Store(store)
    if not opened.exists:
        info = Store(store, shared=shared or "", key_len=key_len or 8).info
        click.echo(f"an empty store was made at {plain(store)}, with keys of {info.key_len} digits")
    else:
        info = opened.info
        if key_len not in (None, info.key_len):
            raise click.UsageError(f"{plain(store)} is a store with keys of {info.key_len} digits, which stays so")
        click.echo(f"{plain(store)} is a store already{'' if shared else ', and nothing was changed'}")
    if shared:
        _share(store)


def _share(store: str) -> None:
    """Set the field and the modes, also of what is there already."""
    import os

    from jimmy_manager.archives import sharing
    from jimmy_manager.archives.store import Store

    Store(store).edit(shared="group")
    left = [each for each in sharing.wrong(store) if not sharing.mend(store, each.name)]
    click.echo(f"members of the group {plain(sharing.group_name(os.stat(store).st_gid))} may read and write all of it")
    if left:
        others = "are other users'" if len(left) > 1 else "is another user's"
        click.echo(f"{counted(len(left), 'file')} {others}; each of them types: {plain(sharing.chmod_line(store))}")
