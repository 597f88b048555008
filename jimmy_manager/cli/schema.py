"""``jimmy schema``: fields that configurations gain, lose and rename, without orphaning the runs from before."""

from __future__ import annotations

import json
from typing import Any

import click

from jimmy_manager import yaml12
from jimmy_manager.archives.schema import told
from jimmy_manager.cli.options import json_option, open_store, store_option
from jimmy_manager.plain_text import plain


@click.group()
def schema() -> None:
    """Say what changed fields mean for runs from before."""


@schema.command("list")
@store_option
@json_option
def list_entries(store: str, as_json: bool) -> None:
    """List the entries of the ledger, oldest first."""
    entries = open_store(store).ledger.to_list()
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    for entry in entries:
        click.echo(plain(told(entry)))
    if not entries:
        click.echo("no field was added, renamed or removed since the first run", err=True)


@schema.command()
@click.argument("field")
@click.argument("value")
@click.option("--into", default="", metavar="FIELD", help="The mapping that runs from before have, without the field.")
@store_option
def add(field: str, value: str, into: str, store: str) -> None:
    """Runs from before FIELD behave as FIELD = VALUE (a YAML value) and keep their keys."""
    _edit(store, "add", field, yaml12.loads(value, "VALUE"), into)


@schema.command()
@click.argument("old")
@click.argument("new")
@store_option
def rename(old: str, new: str, store: str) -> None:
    """The field or mapping OLD is called NEW from now on."""
    _edit(store, "rename", old, new)


@schema.command()
@click.argument("field")
@click.argument("value")
@click.option("--into", default="", metavar="FIELD", help="The mapping that stays without the field.")
@store_option
def remove(field: str, value: str, into: str, store: str) -> None:
    """Configurations no longer have FIELD and mean FIELD = VALUE (a YAML value)."""
    _edit(store, "remove", field, yaml12.loads(value, "VALUE"), into)


@schema.command()
@store_option
def undo(store: str) -> None:
    """Take the newest entry back: runs show again what is stored of them."""
    opened = open_store(store, read_only=False)
    entries = opened.ledger.to_list()
    opened.edit_schema("undo")
    click.echo(plain(f"no longer said: {told(entries[-1])}"))


def _edit(store: str, operation: str, *arguments: Any) -> None:
    ledger = open_store(store, read_only=False).edit_schema(operation, *arguments)
    click.echo(plain(told(ledger.to_list()[-1])))
