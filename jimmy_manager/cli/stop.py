"""``jimmy stop``: asks workers to save and leave, on whatever machine they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from jimmy_manager.archives import stops
from jimmy_manager.archives.owner import Owner, is_provably_dead
from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import keys_argument, open_store, store_option
from jimmy_manager.errors import RecordError
from jimmy_manager.plain_text import plain
from jimmy_manager.results.table import STATES

if TYPE_CHECKING:
    from jimmy_manager.archives.holders import Holder
    from jimmy_manager.archives.store import Store

_LOOK_EVERY_S = 1.0
_LOOKS = 4
_BETWEEN_RUNS_S = 0.25


class _Asked(NamedTuple):
    """A run whose owner was asked to stop, and that owner, None where its claim cannot be read."""

    key: str
    generation: int
    owner: Owner | None


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
    looks = 1 if wait is None else _LOOKS
    asked = _ask_everybody(opened, looks) if everybody else _ask(opened, [opened.resolve(key) for key in keys])
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
        owner = standing.record.owner if standing.record else None
        is_new = stops.ask_owner(store.files, store.claims.clock, key, standing.trace.top)
        if stops.is_over(store.claims, key, standing.trace.top):
            stops.withdraw(store.files, key, standing.trace.top)
            click.echo(f"run {key}: {_name(owner)} has left a moment ago")
            continue
        silent = ", which has given no sign for its lease" if standing.state == "silent" else ""
        told = "is asked" if is_new else "had been asked before"
        click.echo(f"run {key}: {_name(owner)} {told} to save and leave{silent}")
        asked.append(_Asked(key, standing.trace.top, owner))
    return asked


def _ask_everybody(store: Store, looks: int) -> list[_Asked]:
    """Ask all, and name who holds a run at one of so many ``looks``: between two runs a worker holds none."""
    from jimmy_manager.archives.holders import Holders

    stops.ask_everybody(store.files, store.claims.clock)
    holders = Holders(store)
    asked: dict[Owner, _Asked] = {}
    for number in range(looks):
        store.claims.clock.sleep(_BETWEEN_RUNS_S if number else 0.0)
        for holder in holders.look():
            owner = holder.record.owner
            if owner in asked:
                continue
            if STATES.get(holder.state) == "lost":
                told = f"nobody to ask, its worker {_name(owner)} is gone" if number == 0 else ""
            else:
                asked[owner] = _Asked(holder.key, holder.record.generation, owner)
                told = f"{_name(owner)} is asked to save and leave"
            if told:
                click.echo(f"run {holder.key}: {told}")
    click.echo("workers that hold no run at this moment are asked as well")
    return list(asked.values())


def _await(store: Store, asked: list[_Asked], seconds: float) -> list[_Asked]:
    """Wait until the owners have left, and say so of each; return those that have not in ``seconds``.

    An owner that ended its run without having heard may hold the next one a moment later: it has left when its process
    is gone, or when it has held nothing for as long as it takes to hear.
    """
    from jimmy_manager.archives.holders import Holders

    clock, holders = store.claims.clock, Holders(store)
    deadline, left = clock.monotonic() + seconds, list(asked)
    idle_since: dict[Owner | None, float] = {}
    while True:
        holding: dict[Owner | None, Holder] = {holder.record.owner: holder for holder in holders.look()}
        for each in list(left):
            if (holder := holding.get(each.owner)) is not None:
                idle_since.pop(each.owner, None)
                if holder.key != each.key:
                    left[left.index(each)] = each._replace(key=holder.key, generation=holder.record.generation)
            elif _has_left(store, each, clock.monotonic() - idle_since.setdefault(each.owner, clock.monotonic())):
                left.remove(each)
                click.echo(f"run {each.key}: {_name(each.owner)} has left")
                stops.withdraw(store.files, each.key, each.generation)
        if not left or clock.monotonic() >= deadline:
            break
        clock.sleep(min(_LOOK_EVERY_S, max(0.0, deadline - clock.monotonic())))
    for each in left:
        click.echo(f"error: run {each.key}: {_name(each.owner)} has not left in {seconds:g} s", err=True)
    if left:
        click.echo(f"{counted(len(left), 'worker')} may be in the middle of a long step; see 'jimmy workers'", err=True)
    return left


def _has_left(store: Store, asked: _Asked, idle_s: float) -> bool:
    """Whether an owner that holds nothing now takes no further run."""
    if not stops.is_over(store.claims, asked.key, asked.generation):
        return False
    try:
        has_heard = store.claims.read(asked.key, asked.generation).stopping
    except RecordError:
        has_heard = False
    is_gone = asked.owner is None or is_provably_dead(asked.owner)
    return has_heard or is_gone or idle_s >= 2 * store.claims.heartbeat_s


def _name(owner: Owner | None) -> str:
    return plain(owner or "its worker")
