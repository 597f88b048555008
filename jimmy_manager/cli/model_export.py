"""``jimmy export-model``: the trained model of one run, for those who have neither its job nor its store."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from jimmy_manager.cli.options import JobCommand, job_argument, key_argument, store_option
from jimmy_manager.cli.train import manager_of
from jimmy_manager.errors import CodeChanged
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager


@click.command("export-model", cls=JobCommand)
@job_argument
@key_argument
@click.argument("folder", metavar="DIR", type=click.Path())
@store_option
@click.option("--device", default="cpu", show_default=True, help="Where to build the model.")
def export_model(job: str | type[Manager], key: str, folder: str, store: str, device: str) -> None:
    """Write a trained model and its configuration into a folder.

    The folder DIR must not exist; it gets model.safetensors and config.yaml. The model is built by JOB, so a warning
    tells where that has changed since. Needs safetensors: pip install 'jimmy_manager[export]'.
    """
    with manager_of(job, store, {"read_only": True, "device": device, "quiet": True}) as manager, _told_warnings():
        manager.export_model(key, folder)
    click.echo(f"run {manager.key} was written to {plain(folder)}")


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Tell warnings in one line, as errors are told."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CodeChanged)
        warnings.showwarning = lambda message, *_: click.echo(f"warning: {plain(message)}", err=True)
        yield
