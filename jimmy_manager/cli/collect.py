"""``jimmy gc``: frees space in a store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click

from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import json_option, open_store, store_option, where_option
from jimmy_manager.cli.warned import warnings_told
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.manager.gc import Freed


@click.command()
@click.option("--superseded", is_flag=True, help="Take all commits but the newest of each run at rest.")
@click.option("--keep-best", type=click.IntRange(0), metavar="K", help="Take all checkpoints but those of the K best.")
@click.option("--metric", metavar="NAME", default="", help="Best by this number of the previews.")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Whether less or more of it is better.")
@click.option("--by", metavar="A,B", default="", help="The K best of each group with equal values of these fields.")
@click.option("--failed", is_flag=True, help="Take the checkpoints of failed runs; a retry begins from nothing.")
@click.option("--older-than", metavar="AGE", help="Only of runs last saved so long ago: 90d; alone, of all finished.")
@click.option("--larger-than", metavar="SIZE", help="Only where that frees more (1G, 500M); alone, of all finished.")
@where_option
@click.option("--offline", is_flag=True, help="Nobody else uses the store now: take leftovers, and what pops left.")
@click.option("--yes", "-y", is_flag=True, help="Do it, instead of only telling.")
@store_option
@json_option
@click.pass_context
def gc(
    ctx: click.Context, /, superseded: bool, keep_best: int | None, metric: str, mode: Literal["min", "max"] | None,
    by: str, failed: bool, older_than: str | None, larger_than: str | None, where: str | None, offline: bool,
    yes: bool, store: str, as_json: bool,
) -> None:
    """Free space in a store; tells what would go, until --yes is given.

    A run without its checkpoint is listed and compared as before, but can be neither continued nor fetched. Only
    finished and failed runs lose theirs. A run that a worker holds is never touched. Safe while workers train, but for
    --offline.
    """
    from jimmy_manager.manager.gc import gc as free

    opened = open_store(store, read_only=not yes)
    if yes and (seconds := 4 * opened.claims.stale_s):
        click.echo(f"waiting {seconds:g} s in all for what other machines may still write here", err=True)
    with warnings_told():
        freed = free(
            opened, superseded=superseded, keep_best=keep_best, metric=metric, mode=mode,
            by=[name.strip() for name in by.split(",") if name.strip()], failed=failed, older_than=older_than,
            larger_than=larger_than, where=where, offline=offline, dry_run=not yes,
        )  # fmt: skip
    if as_json:
        found = {"items": [item._asdict() for item in freed.items], "size": freed.size, "left": freed.left}
        click.echo(json.dumps(found, indent=1))
    else:
        _tell(freed, is_done=yes)
    for key, reason in freed.left.items():
        click.echo(f"run {plain(key)} was left: {plain(reason)}", err=True)
    ctx.exit(ERROR if freed.left and yes else 0)


def _tell(freed: Freed, *, is_done: bool) -> None:
    for item in freed.items:
        run = f"run {item.key}: " if item.key else ""
        click.echo(f"{run}{item.what}, {counted(len(item.names), 'file')}, {in_units(item.size)}")
        for name in item.names:
            click.echo(f"    {plain(name)}")
    verb, advice = ("freed", "") if is_done else ("would be freed", "; --yes does it" if freed.items else "")
    size = f"{freed.size} bytes" + (f" ({in_units(freed.size)})" if freed.size >= _UNITS[0][0] else "")
    runs = counted(len({item.key for item in freed.items if item.key}), "run")
    click.echo(f"{runs}, {size} {verb}{advice}")


_UNITS = ((1 << 10, "KB"), (1 << 20, "MB"), (1 << 30, "GB"), (1 << 40, "TB"))


def in_units(size: int) -> str:
    """A size for people.

    >>> in_units(512), in_units(1536), in_units(3 << 30)
    ('512 bytes', '1.5 KB', '3.0 GB')
    """
    unit, name = max(((unit, name) for unit, name in _UNITS if unit <= size), default=(1, "bytes"))
    return f"{size} {name}" if unit == 1 else f"{size / unit:.1f} {name}"
