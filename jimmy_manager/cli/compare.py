"""``jimmy diff`` and ``jimmy compare``: runs side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from jimmy_manager.cli.look import finite, first_argument, second_argument
from jimmy_manager.cli.options import complete_key, json_option, open_store, store_option
from jimmy_manager.cli.warned import warnings_told
from jimmy_manager.plain_text import plain
from jimmy_manager.results import differences, side_by_side


@click.command()
@first_argument
@second_argument
@store_option
@json_option
def diff(first: str, second: str, store: str, as_json: bool) -> None:
    """Compare configuration, results, code and environment of two runs.

    Only what differs is shown.
    """
    with warnings_told():
        found = differences.diff(open_store(store), first, second)
    if as_json:
        click.echo(json.dumps(finite(found.to_dict()), indent=1))
    elif _is_terminal():
        _echo(found.text(side_by_side.terminal_width()))
    else:
        _echo_tabs(found.keys, found.sections())


@click.command()
@click.argument("keys", metavar="KEY...", nargs=-1, required=True, shell_complete=complete_key)
@store_option
@json_option
def compare(keys: tuple[str, ...], store: str, as_json: bool) -> None:
    """Compare any number of runs: what differs between them.

    State, epoch and code version, the fields of the configurations and the numbers and texts of the previews. Into a
    pipe or file the columns are separated by tabs.
    """
    with warnings_told():
        frame = differences.compare(open_store(store), keys)
    whole = list(frame.columns)
    sections: dict[str, dict[str, list[Any]]] = {}
    for (section, name), row in zip(frame.index, frame.values.tolist(), strict=True):
        sections.setdefault(section, {})[name] = row
    if as_json:
        rows = {section: {name: dict(zip(whole, row, strict=True)) for name, row in each.items()}
                for section, each in sections.items()}  # fmt: skip
        click.echo(json.dumps(finite({"keys": whole} | rows), indent=1))
    elif _is_terminal():
        _echo(side_by_side.text(whole, sections, side_by_side.terminal_width()) if sections else "nothing differs")
    else:
        _echo_tabs(whole, sections)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _echo(text: str) -> None:
    for number, line in enumerate(text.splitlines()):
        is_heading = number == 0 or not line.startswith(" ")
        click.secho(line, bold=is_heading)


def _echo_tabs(keys: Sequence[str], sections: side_by_side.Sections) -> None:
    click.echo("\t".join(["section", "name", *keys]))
    for section, rows in sections.items():
        for name, values in rows.items():
            click.echo("\t".join([section, plain(name), *map(side_by_side.whole, values)]))
