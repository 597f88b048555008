"""``jimmy workers``: who holds which run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.cli.columns import GAP, Columns, clipped, counted, text
from jimmy_manager.cli.options import json_option, open_store, store_option
from jimmy_manager.manager.plain_text import plain
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
_EVERY_S = 5.0
_SLURM_ANSWERS_S = 5.0
_COLOURS = {"lost": "red", "stopping": "yellow"}
_ORDER = ("lost", "stopping", "running")
"""What needs attention comes first, as a screen may not have room for all."""
_OTHER_SCREEN, _OWN_SCREEN, _HOME, _REST_OF_LINE, _REST_OF_SCREEN = (
    "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J",
)  # fmt: skip


@click.command()
@store_option
@click.option("--watch", "-w", is_flag=True, help=f"Look every {_EVERY_S:g} s, until Ctrl-C.")
@click.option("--probe", type=click.FloatRange(0.0), metavar="SECONDS", help="Look twice, and tell who gave a sign.")
@json_option
def workers(store: str, watch: bool, probe: float | None, as_json: bool) -> None:
    """Show who holds which run.

    A worker is lost when its process on this machine is gone, when Slurm says that its job has ended, or when its
    heartbeat has not moved for its lease. Of other machines the heartbeat tells, which comes every 15 s by default:
    --probe 20 looks twice, and --watch again and again.
    """
    from jimmy_manager.archives.holders import Holders

    opened = open_store(store)
    _listen_to_slurm(opened)
    holders = Holders(opened)
    if watch:
        _watch(holders, store, as_json=as_json)
        return
    held = holders.look()
    if probe is not None:
        time.sleep(probe)
        held = holders.look()
    elif opened.claims.queue is not None:
        opened.claims.queue.wait(_SLURM_ANSWERS_S)
        held = holders.look()
    _print([_row(holder, has_looked_twice=probe is not None) for holder in held], as_json=as_json)


def _listen_to_slurm(store: Store) -> None:
    """Let Slurm tell which jobs have ended, where it is there to be asked."""
    if shutil.which("squeue") is not None:
        from jimmy_manager import slurm
        from jimmy_manager.archives.owner import this_process
        from jimmy_manager.slurm_queue import Queue

        store.claims.queue = Queue(slurm.this_job(), this_process().user)


def _watch(holders: Holders, store: str, *, as_json: bool) -> None:
    is_terminal = sys.stdout.isatty() and not as_json
    if is_terminal:
        click.echo(_OTHER_SCREEN, nl=False)
    try:
        while True:
            rows = [_row(holder, has_looked_twice=True) for holder in holders.look()]
            if is_terminal:
                lines = [_title(rows, store), "", *_lines(rows)]
                click.echo(_HOME + "".join(f"{line}{_REST_OF_LINE}\n" for line in _fitting(lines)[:-1]), nl=False)
                click.echo(f"{_fitting(lines)[-1]}{_REST_OF_LINE}{_REST_OF_SCREEN}", nl=False)
            else:
                _print(rows, as_json=as_json)
            sys.stdout.flush()
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        pass  # this is how it ends
    finally:
        if is_terminal:
            click.echo(_OWN_SCREEN, nl=False)
            sys.stdout.flush()


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not sys.stdout.isatty():
        lines = [_PIPED, *([text(row[name]) for name in _PIPED] for row in rows)]
        click.echo("\n".join("\t".join(line) for line in lines))
    else:
        for line in _lines(rows):
            click.echo(line)
        if any(row["alive"] is None and row["state"] != "lost" for row in rows):
            click.secho("'jimmy workers --watch' tells who gives signs of life", dim=True)


def _title(rows: list[dict[str, Any]], store: str) -> str:
    states = Counter(row["state"] for row in rows)
    told = ", ".join(f"{states[state]} {state}" for state in sorted(states)) or "nobody"
    line = f"{told} in {plain(store)} at {time.strftime('%H:%M:%S')}; Ctrl-C ends"
    return clipped(line, shutil.get_terminal_size().columns)


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table in as many columns as the terminal has room for."""
    if not rows:
        return ["nobody holds a run"]
    rows = sorted(rows, key=lambda row: (_ORDER.index(row["state"]) if row["state"] in _ORDER else 0, row["key"]))
    shown = [
        {_SHOWN[name]: row[name] for name in _SHOWN}
        | {"since": _age(row["since"]), "node": row["node"].partition(".")[0] or row["node"]}
        for row in rows
    ]
    told = [title for name, title in _SHOWN.items() if any(row[name] not in ("", None) for row in rows)]
    columns = Columns(shown, told)
    wide = shutil.get_terminal_size().columns
    for title in (_SHOWN[name] for name in _DROPPED):
        if columns.total() > wide and title in columns.names:
            columns.drop(title)
    head, *lines = (GAP.join(cells).rstrip() for cells in columns.lines())
    coloured = (click.style(line, fg=_COLOURS.get(row["state"])) for line, row in zip(lines, rows, strict=True))
    return [click.style(head, bold=True), *coloured]


def _fitting(lines: list[str]) -> list[str]:
    """As many lines as the terminal has, the last one saying how many more there are."""
    high = shutil.get_terminal_size().lines
    if len(lines) <= high:
        return lines
    return [*lines[: high - 1], f"... and {counted(len(lines) - high + 1, 'more run')}"]


def _age(at: float) -> str:
    """How long ago; the clock of the worker's host may be ahead of this one's."""
    return f"{_short(max(0.0, time.time() - at))} ago"


def _row(holder: Holder, *, has_looked_twice: bool) -> dict[str, Any]:
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
    return f"{quiet} ago" if holder.is_alive else f"none for {quiet}"


def _short(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(seconds)
