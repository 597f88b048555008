"""``jimmy ls``: the runs of a store as a table."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections import Counter
from typing import Any

import click

from jimmy_manager.cli.columns import GAP, Columns, text
from jimmy_manager.cli.options import json_option, open_store, store_option
from jimmy_manager.manager.plain_text import plain
from jimmy_manager.results.table import Table, read_table

_ALWAYS = ("key", "state", "epoch")
_METRICS_KEPT = 2
_COLORS = {"done": "green", "running": "cyan", "failed": "red", "lost": "yellow", "unreadable": "red"}


@click.command()
@store_option
@click.option("--where", metavar="FILTER", help="""E.g. 'optim.lr < 0.01 and arch == "cnn"'.""")
@click.option("--sort", metavar="NAME", help="Sort by a column; -NAME puts the highest first.")
@click.option("--columns", metavar="A,B,C", help="These columns alone.")
@click.option("--all", "show_all", is_flag=True, help="All columns, however wide.")
@json_option
def ls(
    store: str, where: str | None, sort: str | None, columns: str | None, show_all: bool, as_json: bool
) -> None:
    """List runs: configuration, state and results.

    By default the fields that vary between the runs and the numbers of their previews; on a terminal as many of them
    as fit. States: new, running, paused (stopped after saving), lost (its worker died; the next one goes on), failed,
    retry, done. Into a pipe or file the columns are separated by tabs.
    """
    table = read_table(open_store(store))
    for message in table.damage:
        click.echo(f"warning: {plain(message)}", err=True)
    names = _names(table, columns, show_all or (as_json and columns is None))
    if where is not None:
        from jimmy_manager.results.where import check_fields, parse

        condition = parse(where)
        if table.rows:
            check_fields(condition, table.names)
        table = table.filtered(condition)
    if sort is not None:
        table = table.ordered(sort)
    if as_json:
        click.echo(json.dumps([_json_row(row, names) for row in table.rows], indent=1))
    elif _is_terminal():
        _print_columns(table, names, may_drop=not (columns or show_all))
    else:
        lines = [names, *([text(row.get(name)) for name in names] for row in table.rows)]
        click.echo("\n".join("\t".join(map(plain, line)) for line in lines))


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _names(table: Table, columns: str | None, show_all: bool) -> list[str]:
    if columns is not None:
        names = [name.strip() for name in columns.split(",") if name.strip()]
        table.check(names)
        return names
    if show_all:
        return list(table.names)
    return [*_ALWAYS, *table.varying(), *table.numeric()]


def _json_row(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    # JSON has no NaN or infinity: null and their names are what other languages read.
    return {name: _json_value(row[name]) for name in names if name in row}


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _print_columns(table: Table, names: list[str], *, may_drop: bool) -> None:
    if not table.rows:
        click.echo("no runs")
        return
    columns = Columns(table.rows, names)
    dropped = _fit(columns, table) if may_drop else []
    head, *lines = columns.lines()
    out = [click.style(GAP.join(head).rstrip(), bold=True)]
    place = columns.names.index("state") if "state" in columns.names else -1
    for cells in lines:
        if place >= 0 and (color := _COLORS.get(cells[place].strip())):
            cells[place] = click.style(cells[place], fg=color)
        out.append(GAP.join(cells).rstrip())
    states = Counter(row["state"] for row in table.rows)
    total = f"{len(table.rows)} runs: " if len(table.rows) != 1 else "1 run: "
    out.append(click.style(total + ", ".join(f"{count} {state}" for state, count in states.most_common()), dim=True))
    if dropped:
        note = f"no room for {plain(', '.join(dropped))} (--columns chooses, --all shows all)"
        lines_of_note = textwrap.wrap(note, shutil.get_terminal_size().columns, break_on_hyphens=False)
        out += [click.style(line, dim=True) for line in lines_of_note]
    click.echo("\n".join(out))


def _fit(columns: Columns, table: Table) -> list[str]:
    """Leave out columns from the right until a line fits, results before fields, but keep some results."""
    most = shutil.get_terminal_size().columns
    metrics = [name for name in columns.names if name in table.metrics]
    fields = [name for name in columns.names if name in table.fields]
    results, more_results = metrics[:_METRICS_KEPT], metrics[_METRICS_KEPT:]
    dropped = []
    for name in (*reversed(more_results), *reversed(fields[1:]), *reversed(results), *fields[:1]):
        if columns.total() <= most:
            break
        columns.drop(name)
        dropped.append(name)
    return dropped[::-1]
