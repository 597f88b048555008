"""``jimmy ls``: the runs of a store as a table."""

from __future__ import annotations

import json
import math
import shutil
import sys
from datetime import datetime
from typing import Any

import click

from jimmy_manager.cli.columns import shown, text
from jimmy_manager.cli.options import json_option, open_store, sort_option, store_option, where_option
from jimmy_manager.plain_text import plain
from jimmy_manager.results.names import Names, condition
from jimmy_manager.results.table import Table, read_table
from jimmy_manager.results.unlike import doubts, kinds_in
from jimmy_manager.results.where import parse

_ALWAYS = ("key", "state", "epoch")


@click.command()
@store_option
@where_option
@sort_option
@click.option("--columns", metavar="A,B,C", help="These columns alone.")
@click.option("--all", "show_all", is_flag=True, help="All columns, however wide.")
@click.option("--pager/--no-pager", default=True, help="Whether a long list on a terminal goes through $PAGER.")
@json_option
def ls(
    store: str, where: str | None, sort: str | None, columns: str | None, show_all: bool, pager: bool, as_json: bool
) -> None:
    """List runs: configuration, state and results.

    By default the fields that vary between the runs and the numbers of their previews; on a terminal as many of them
    as fit, and what all runs share below. A name may be given by its last parts, as in the headings: lr for optim.lr.
    States: new, running, paused (stopped after saving), lost (its worker died; the next one goes on), failed, retry,
    done. Into a pipe or file the columns are separated by tabs.
    """
    table = read_table(open_store(store))
    for message in table.damage:
        click.echo(f"warning: {plain(message)}", err=True)
    keys = [row["key"] for row in table.rows]
    # Of what a row holds besides, such as times, nothing is shown that was not asked for.
    known = Names(table.known)
    names = _names(table, known, columns, show_all or (as_json and columns is None))
    if where is not None:
        meets = condition(where, known if table.rows else None)
        for doubt in doubts(parse(where), lambda name: _kinds(table, known, name)):
            click.echo(f"warning: {plain(doubt)}", err=True)
        table = table.filtered(meets)
    if sort is not None:
        table = table.ordered(_full(table, known, sort.removeprefix("-"), sign="-" * sort.startswith("-")))
    if as_json:
        click.echo(json.dumps([_json_row(row, names) for row in table.rows], indent=1))
    elif _is_terminal():
        dated = table._replace(rows=_with_dates(table.rows)) if "saved_at" in names else table
        _print_page(dated, names, known, keys, may_drop=not (columns or show_all), may_page=pager)
    else:
        lines = [names, *([text(row.get(name)) for name in names] for row in table.rows)]
        click.echo("\n".join("\t".join(map(plain, line)) for line in lines))


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _names(table: Table, known: Names, columns: str | None, show_all: bool) -> list[str]:
    if columns is not None:
        names = [name.strip() for name in columns.split(",") if name.strip()]
        return list(dict.fromkeys(_full(table, known, name) for name in names))
    if show_all:
        return list(table.names)
    return [*_ALWAYS, *table.varying(), *table.numeric()]


def _full(table: Table, known: Names, name: str, *, sign: str = "") -> str:
    return sign + (known.full(name) if table.rows else name)  # of no runs nothing is known


def _kinds(table: Table, known: Names, name: str) -> set[type]:
    full = _full(table, known, name)
    return kinds_in(row[full] for row in table.rows if full in row)


def _print_page(
    table: Table, names: list[str], known: Names, keys: list[str], *, may_drop: bool, may_page: bool
) -> None:
    from jimmy_manager.cli import paging, run_list

    if not table.rows:
        click.echo(f"none of {len(keys)} runs" if keys else "no runs")
        return
    wide = shutil.get_terminal_size().columns
    head, body, foot, summary = run_list.page(table, names, known, keys, wide, may_drop=may_drop)
    paging.show(head, body, foot, summary=summary, may_page=may_page)


def _json_row(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    # JSON has no NaN or infinity: null and their names are what other languages read.
    return {name: _json_value(row[name]) for name in names if name in row}


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _with_dates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``rows`` with times as a clock on the wall shows them."""
    return [row | {"saved_at": "" if row["saved_at"] is None else _date(row["saved_at"])} for row in rows]


def _date(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return shown(seconds)
