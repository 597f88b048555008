"""Warnings of what a command calls, told as the command line tells them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from jimmy_manager.plain_text import plain_lines


@contextmanager
def warnings_told() -> Iterator[None]:
    """Tell each warning once on stderr, without the line of code that it came from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for message in dict.fromkeys(str(each.message) for each in caught):
                click.echo(f"warning: {plain_lines(message)}", err=True)
