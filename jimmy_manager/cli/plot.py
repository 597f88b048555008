"""``jimmy plot``: figures of runs as files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.cli.options import open_store, store_option, where_option
from jimmy_manager.cli.warned import warnings_told
from jimmy_manager.errors import JimmyError
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

_FORMATS = (".png", ".pdf", ".svg")


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


def _checked(_: click.Context, __: click.Parameter, output: str | None) -> str | None:
    if output is not None and Path(output).suffix.lower() not in _FORMATS:
        raise click.BadParameter(f"its name must end in {', '.join(_FORMATS)}, which says the format")
    return output


_OPTIONS = (
    store_option,
    where_option,
    click.option("-o", "--output", metavar="FILE", callback=_checked, help="FILE.png, .pdf or .svg."),
    click.option("--dpi", type=click.IntRange(20, 1200), default=150, show_default=True, help="Dots per inch."),
)


def _drawing(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def plot() -> None:
    """Draw figures of runs.

    The picture goes into a file, whose name is printed; without -o into one in this directory, named after what it
    shows. Runs whose metric is missing or NaN are left out, and counted below the picture.
    """


@plot.command()
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option("--by", callback=_names, metavar="A,B", help="A line for each value of these; else of all that vary.")
@click.option("--over", callback=_names, metavar="A,B", default="seed", show_default=True, help="Averaged over these.")
@click.option("--keys", callback=_names, metavar="A,B", help="These runs alone.")
@_drawing
def curves(
    tags: tuple[str, ...], by: list[str] | None, over: list[str], keys: list[str] | None, **given: Any
) -> None:
    """Draw learning curves with bands over seeds.

    What was logged against the epoch, a panel for each TAG, a line for each group of runs.
    """
    _write("curves", lambda store, where: store.plot.curves(tags or None, by, over, keys, where), **given)


@plot.command()
@click.argument("metric")
@click.argument("by")
@click.argument("by2", required=False)
@click.option("--kind", type=click.Choice(["line", "points", "heat"]), help="By default what suits the fields.")
@_drawing
def metric(metric: str, by: str, by2: str | None, kind: Any, **given: Any) -> None:
    """Draw a metric against one field or two.

    A line of means over a field of numbers, points over another, a heat map over two.
    """
    name = f"{metric}-by-{by}" + (f"-and-{by2}" if by2 else "")
    _write(name, lambda store, where: store.plot.metric(metric, by, by2, kind, where), **given)


@plot.command()
@click.argument("metrics", metavar="[METRIC]...", nargs=-1)
@click.option("--fields", callback=_names, metavar="A,B", help="These fields; else all that vary.")
@_drawing
def parallel(metrics: tuple[str, ...], fields: list[str] | None, **given: Any) -> None:
    """Draw runs as lines across all fields.

    The first METRIC colours them, by default the first number of the previews; the best run is highlighted.
    """
    _write("parallel", lambda store, where: store.plot.parallel(metrics or None, fields, where), **given)


@plot.command()
@click.argument("x")
@click.argument("y")
@click.option("--modes", callback=_names, metavar="X,Y", help="min or max of each; by default their names tell.")
@_drawing
def pareto(x: str, y: str, modes: Any, **given: Any) -> None:
    """Draw two metrics and their front.

    The runs that no other beats in both are labelled with their keys.
    """
    _write(f"{y}-and-{x}", lambda store, where: store.plot.pareto(x, y, modes, where), **given)


@plot.command()
@_drawing
def timeline(**given: Any) -> None:
    """Draw who trained what when.

    A row for each worker, a bar for each time that it held a run, coloured by what became of it.
    """
    _write("timeline", lambda store, where: store.plot.timeline(where), **given)


def _write(
    name: str, draw: Callable[[Store, str | None], Any], *, store: str, where: str | None, output: str | None, dpi: int
) -> None:
    with warnings_told():
        figure = draw(open_store(store), where)
    path = output or re.sub(r"[^\w.-]+", "_", name)[:100].lstrip(".") + ".png"
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise JimmyError(f"cannot write {path!r}: {error.strerror or error}") from error
    click.echo(plain(path))
