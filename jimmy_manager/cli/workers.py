"""``jimmy workers``: who holds which run."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from jimmy_manager.archives.listing import Listed, read_all
from jimmy_manager.cli.columns import GAP, Columns, text
from jimmy_manager.cli.options import json_option, open_store, store_option
from jimmy_manager.manager.progress import duration
from jimmy_manager.results.table import STATES

_NAMES = ("key", "state", "epoch", "since", "heartbeat", "generation", "owner")


@click.command()
@store_option
@click.option("--probe", type=click.FloatRange(0.0), metavar="SECONDS", help="Look twice, and tell who gave a sign.")
@json_option
def workers(store: str, probe: float | None, as_json: bool) -> None:
    """Show who holds which run.

    A worker on this machine whose process is gone is shown as lost; of other machines only the heartbeat tells,
    a number that grows every 15 s by default. --probe 20 looks twice and compares.
    """
    opened = open_store(store)
    before = {run.key: _beat(run) for run in read_all(opened)} if probe is not None else {}
    if probe is not None:
        time.sleep(probe)
    held = [run for run in read_all(opened) if run.record is not None and run.record.state == "held"]
    rows = [_row(run, before.get(run.key), is_probed=probe is not None) for run in held]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif not sys.stdout.isatty():
        click.echo("\n".join("\t".join(line) for line in [_NAMES, *([text(row[n]) for n in _NAMES] for row in rows)]))
    elif not rows:
        click.echo("nobody holds a run")
    else:
        head, *lines = Columns([row | {"since": _age(row["since"])} for row in rows], _NAMES, widest=60).lines()
        click.secho(GAP.join(head).rstrip(), bold=True)
        for cells in lines:
            click.echo(GAP.join(cells).rstrip())


def _age(at: float) -> str:
    """How long ago; the clock of the worker's host may be ahead of this one's."""
    return f"{duration(max(0.0, time.time() - at))} ago"


def _beat(run: Listed) -> tuple[int, int] | None:
    return (run.record.generation, run.record.beat) if run.record else None


def _row(run: Listed, before: tuple[int, int] | None, *, is_probed: bool) -> dict[str, Any]:
    assert run.record is not None
    beat: Any = run.record.beat
    if is_probed:
        beat = f"{beat} ({'no sign' if _beat(run) == before else 'alive'})"
    return {
        "key": run.key, "state": STATES.get(run.state, run.state), "owner": str(run.record.owner),
        "generation": run.record.generation, "epoch": run.commit.epoch if run.commit else None,
        "since": run.record.at, "heartbeat": beat,
    }  # fmt: skip
