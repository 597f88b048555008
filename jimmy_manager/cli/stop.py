"""``jimmy stop``: asks workers to save and leave, on whatever machine they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import click

from jimmy_manager.archives import stops
from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import keys_argument, open_store, store_option
from jimmy_manager.manager.plain_text import plain
from jimmy_manager.results.table import STATES

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

_LOOK_EVERY_S = 1.0


class _Asked(NamedTuple):
    """A run whose owner was asked to stop, and how to call that owner."""

    key: str
    generation: int
    owner: str


@click.command()
@keys_argument
@store_option
@click.option("--all", "everybody", is_flag=True, help="All workers, also those that only wait for runs of others.")
@click.option("--wait", type=click.FloatRange(0.0), metavar="SECONDS", help="Wait until they have left.")
@click.pass_context
def stop(ctx: click.Context, /, keys: tuple[str, ...], store: str, everybody: bool, wait: float | None) -> None:
    """Ask workers to save and leave.

    The worker that holds run KEY finds the request at its next heartbeat, within 15 s by default, saves at the next
    step or epoch, and ends with exit code 0; anybody may go on with its run. Workers that start later are not asked.
    With --wait those that have not left in time are named, and the exit code is 1.
    """
    if bool(keys) == everybody:
        raise click.UsageError("which worker? name the run that it holds, or --all" if not keys else "KEY or --all?")
    opened = open_store(store, read_only=False)
    asked = _ask_everybody(opened) if everybody else _ask(opened, [opened.resolve(key) for key in keys])
    if wait is not None and asked:
        ctx.exit(ERROR if _await(opened, asked, wait) else 0)


def _ask(store: Store, keys: list[str]) -> list[_Asked]:
    """Ask the owners of these runs, and say of each what came of it."""
    asked = []
    for key in dict.fromkeys(keys):
        standing = store.standing(key)
        if standing.state not in ("held", "silent"):
            state = STATES.get(standing.state, standing.state)
            why = "its worker is gone" if state == "lost" else f"it is {state}"
            click.echo(f"run {key}: nobody to ask, {why}")
            continue
        owner = plain(standing.record.owner if standing.record else "its worker")
        is_new = stops.ask_owner(store.files, store.claims.clock, key, standing.trace.top)
        if stops.is_over(store.claims, key, standing.trace.top):
            stops.withdraw(store.files, key, standing.trace.top)
            click.echo(f"run {key}: {owner} has left a moment ago")
            continue
        silent = ", which has given no sign for its lease" if standing.state == "silent" else ""
        click.echo(f"run {key}: {owner} {'is asked' if is_new else 'had been asked before'} to save and leave{silent}")
        asked.append(_Asked(key, standing.trace.top, owner))
    return asked


def _ask_everybody(store: Store) -> list[_Asked]:
    from jimmy_manager.archives.holders import Holders

    stops.ask_everybody(store.files, store.claims.clock)
    asked = []
    for holder in Holders(store).look():
        owner = plain(holder.record.owner)
        if STATES.get(holder.state) == "lost":
            click.echo(f"run {holder.key}: nobody to ask, its worker {owner} is gone")
            continue
        click.echo(f"run {holder.key}: {owner} is asked to save and leave")
        asked.append(_Asked(holder.key, holder.record.generation, owner))
    click.echo("workers that hold no run at this moment are asked as well")
    return asked


def _await(store: Store, asked: list[_Asked], seconds: float) -> list[_Asked]:
    """Wait until the owners have left, and say so of each; return those that have not in ``seconds``."""
    deadline = time.monotonic() + seconds
    left = list(asked)
    while True:
        for each in list(left):
            if stops.is_over(store.claims, each.key, each.generation):
                left.remove(each)
                click.echo(f"run {each.key}: {each.owner} has left")
                stops.withdraw(store.files, each.key, each.generation)
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(min(_LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))
    for each in left:
        click.echo(f"error: run {each.key}: {each.owner} has not left in {seconds:g} s", err=True)
    if left:
        click.echo(f"{counted(len(left), 'worker')} may be in the middle of a long step; see 'jimmy workers'", err=True)
    return left
