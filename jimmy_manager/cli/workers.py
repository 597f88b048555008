"""``jimmy workers``: who holds which run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.cli import states
from jimmy_manager.cli.columns import GAP, Columns, text
from jimmy_manager.cli.options import json_option, open_store, store_option
from jimmy_manager.manager.progress import duration
from jimmy_manager.results.table import STATES

if TYPE_CHECKING:
    from jimmy_manager.archives.holders import Holder, Holders
    from jimmy_manager.archives.store import Store

_PIPED = (
    "key", "state", "epoch", "since", "heartbeat", "generation", "owner", "node", "pid", "job", "seconds_per_epoch",
    "alive", "heard_s", "user",
)  # fmt: skip
_SHOWN = {
    "key": "key", "state": "state", "node": "node", "pid": "pid", "job": "job", "since": "since", "epoch": "epoch",
    "seconds_per_epoch": "s/epoch", "heard": "heartbeat", "generation": "gen", "user": "user",
}  # fmt: skip
_DROPPED = ("generation", "user", "pid", "since", "seconds_per_epoch", "job", "node", "heard", "epoch")
"""What a narrow terminal does without, the least important first."""
_LESS_THAN_MORE = 4
"""How many of these matter less than what a caller adds."""
EVERY_S = 5.0
_SLURM_ANSWERS_S = 5.0
_NARROWEST_TEXT = 16
_FIRST_BEAT_S = 20.0
"""For how long nobody wonders that no heartbeat has moved: they come every 15 s by default."""
_ORDER = ("lost", "stopping", "running")
"""What needs attention comes first, as a screen may not have room for all."""


@click.command()
@store_option
@click.option("--watch", "-w", is_flag=True, help=f"Look every {EVERY_S:g} s, until q or Ctrl-C.")
@click.option(
    "--metric", metavar="NAME",
    help="With --watch: the best run by NAME, the highest where its words tell (acc, f1, ...) and for -NAME.",
)  # fmt: skip
@click.option("--probe", type=click.FloatRange(0.0), metavar="SECONDS", help="Look twice, and tell who gave a sign.")
@json_option
def workers(store: str, watch: bool, metric: str | None, probe: float | None, as_json: bool) -> None:
    """Show who holds which run.

    A worker is lost when its process on this machine is gone, when Slurm says that its job has ended, or when its
    heartbeat has not moved for its lease. Of other machines the heartbeat tells, which comes every 15 s by default:
    --probe 20 looks twice, and --watch again and again; on a terminal it shows the progress of all runs, the best of
    them and the newest errors as well.
    """
    from jimmy_manager.archives.holders import Holders

    if metric is not None and not watch:
        raise click.UsageError("--metric goes with --watch")
    opened = open_store(store)
    _listen_to_slurm(opened)
    holders = Holders(opened)
    if watch:
        _watch(holders, opened, metric or "", as_json=as_json)
        return
    held = holders.look()
    if probe is not None:
        time.sleep(probe)
        held = holders.look()
    elif opened.claims.queue is not None:
        opened.claims.queue.wait(_SLURM_ANSWERS_S)
        held = holders.look()
    _print([row_of(holder, has_looked_twice=probe is not None) for holder in held], as_json=as_json)


def _listen_to_slurm(store: Store) -> None:
    """Let Slurm tell which jobs have ended, where it is there to be asked."""
    if shutil.which("squeue") is not None:
        from jimmy_manager import slurm
        from jimmy_manager.archives.owner import this_process
        from jimmy_manager.slurm_queue import Queue

        store.claims.queue = Queue(slurm.this_job(), this_process().user)


def _watch(holders: Holders, store: Store, metric: str, *, as_json: bool) -> None:
    try:
        if sys.stdout.isatty() and not as_json:
            from jimmy_manager.cli import watch
            from jimmy_manager.cli.overview import Overview

            watch.watch(holders, Overview(store, metric), str(store))
            return
        while True:
            _print([row_of(holder, has_looked_twice=True) for holder in holders.look()], as_json=as_json)
            sys.stdout.flush()
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        pass  # this is how it ends


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not sys.stdout.isatty():
        lines = [_PIPED, *([text(row[name]) for name in _PIPED] for row in rows)]
        click.echo("\n".join("\t".join(line) for line in lines))
    else:
        for line in fitted(rows, shutil.get_terminal_size().columns):
            click.echo(line)
        if any(row["alive"] is None and row["state"] != "lost" for row in rows):
            click.secho("'jimmy workers --watch' tells who gives signs of life", dim=True)


def fitted(
    rows: list[dict[str, Any]], wide: int, more: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {}
) -> list[str]:
    """The table in as many of its columns as ``wide`` ones of a terminal have room for.

    ``more`` has further columns of a row, the last of them a text that takes what room is left.
    """
    if not rows:
        return ["nobody holds a run"]
    rows = sorted(rows, key=lambda row: (_ORDER.index(row["state"]) if row["state"] in _ORDER else 0, row["key"]))
    shown = [
        {_SHOWN[name]: row[name] for name in _SHOWN}
        | {"since": _age(row["since"]), "node": row["node"].partition(".")[0] or row["node"]} | more(row)
        for row in rows
    ]  # fmt: skip
    told = [title for title in shown[0] if any(row[title] not in ("", None) for row in shown)]
    text = next(reversed(more(rows[0])), "")
    told = [title for title in told if title != text]
    columns = Columns(shown, told, show={"state": states.marked}, titles={title: title for title in told})
    of_more = [title for title in told if title not in _SHOWN.values()]
    dropped = [_SHOWN[name] for name in _DROPPED]
    for title in (*dropped[:_LESS_THAN_MORE], *of_more, *dropped[_LESS_THAN_MORE:]):
        if columns.total() > wide and title in columns.names:
            columns.drop(title)
    if text and (room := wide - columns.total() - len(GAP)) >= _NARROWEST_TEXT:
        columns = Columns(shown, [*columns.names, text], widest=room, show={"state": states.marked})
    head, *lines = columns.lines()
    for cells, row in zip(lines, rows, strict=True):
        cells[columns.names.index("state")] = states.coloured(cells[columns.names.index("state")], row["state"])
    return [click.style(GAP.join(head).rstrip(), bold=True), *(GAP.join(cells).rstrip() for cells in lines)]


def _age(at: float) -> str:
    """How long ago; the clock of the worker's host may be ahead of this one's."""
    return f"{_short(max(0.0, time.time() - at))} ago"


def row_of(holder: Holder, *, has_looked_twice: bool) -> dict[str, Any]:
    """What is told of one worker."""
    record, commit = holder.record, holder.commit
    owner, job = record.owner, record.owner.job
    is_alive = holder.is_alive if has_looked_twice else None
    return {
        "key": holder.key, "state": STATES.get(holder.state, holder.state), "owner": str(owner), "node": owner.node,
        "pid": owner.pid, "job": job.name if job else "", "user": owner.user or (job.user if job else ""),
        "generation": record.generation, "epoch": commit.epoch if commit else None,
        "seconds_per_epoch": round(commit.train_s, 3) if commit and commit.train_s else None, "since": record.at,
        "heartbeat": record.beat, "alive": is_alive, "heard_s": round(holder.quiet_s, 1) if is_alive else None,
        "heard": _heard(holder, has_looked_twice=has_looked_twice),
    }  # fmt: skip


def _heard(holder: Holder, *, has_looked_twice: bool) -> str:
    """When its heartbeat was seen to move, as far as this command has watched; else how often it has moved at all."""
    if not has_looked_twice:
        return f"beat {holder.record.beat}"
    quiet = _short(holder.quiet_s)
    if not holder.is_alive and holder.quiet_s < _FIRST_BEAT_S and holder.state in ("held", "stopping"):
        return "not yet"
    return f"{quiet} ago" if holder.is_alive else f"none for {quiet}"


def _short(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(seconds)
