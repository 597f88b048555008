"""``jimmy best``, ``group`` and ``table``: the results of many runs, for people and for other programs."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from jimmy_manager.cli.columns import GAP, Columns, counted, shown, text
from jimmy_manager.cli.options import json_option, open_store, sort_option, store_option, where_option
from jimmy_manager.cli.warned import warnings_told
from jimmy_manager.plain_text import plain, plain_lines

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.results.runs import Runs


@click.command()
@click.argument("metric")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Default: as the name tells (acc, f1, loss), else min.")
@where_option
@click.option("--key", "only_key", is_flag=True, help="Print the key alone: jimmy show $(jimmy best loss --key).")
@store_option
@json_option
def best(
    metric: str, mode: Literal["min", "max"] | None, where: str | None, only_key: bool, store: str, as_json: bool
) -> None:
    """Show the run with the lowest METRIC, or the highest.

    The highest where its name has a word such as acc, accuracy, return, reward, auc, f1 or score. Where no word tells
    what is better, the lowest is shown, and stderr says so. Runs without a finite number there are passed over. Fields
    that vary and numbers of the preview are shown.
    """
    from jimmy_manager.better import is_more_better
    from jimmy_manager.results.frame import best_of

    runs = _read(store)
    metric = runs.full(metric)
    with warnings_told():
        key = best_of(runs, metric, mode, where)
    if mode is None and is_more_better(metric) is None:
        click.echo(f"lowest {plain(metric)}, as its name does not say what is better (--mode max)", err=True)
    names = list(dict.fromkeys(["state", "epoch", *runs.varying(), *runs.numeric(), metric]))
    row = next(runs.where({"key": key}).rows())
    if only_key:
        click.echo(key)
    elif as_json:
        click.echo(json.dumps({"key": key} | {name: _json_value(row[name]) for name in names if name in row}, indent=1))
    elif sys.stdout.isatty():
        click.secho(key, bold=True)
        widest = max(len(plain(name)) for name in names)
        for name in names:
            line = f"  {plain(name):{widest}}  {shown(row.get(name))}".rstrip()
            click.secho(line, fg="green" if name == metric else None)
    else:
        names = ["key", *names]
        _print_tabbed(names, [[text(row.get(name)) for name in names]])


@click.command()
@click.argument("by", nargs=-1)
@click.option("--over", metavar="A,B", default="seed", show_default=True, help="Fields whose values are repetitions.")
@click.option("--metrics", metavar="A,B", help="These results alone.")
@where_option
@store_option
@json_option
def group(
    by: tuple[str, ...], over: str, metrics: str | None, where: str | None, store: str, as_json: bool
) -> None:
    """Average the results of runs that differ only by their seed.

    A row for each combination of the fields BY, by default of all that vary but the seed; what varies besides is
    averaged, too, and named. On a terminal the mean and
    half the width of its 95 % interval; pipes and --json get n, mean, std, min, max and ci95 of every metric.
    """
    from jimmy_manager.results.groups import group_of

    runs = _read(store)
    with warnings_told():
        frame = group_of(runs, by or None, _split(over), where, None if metrics is None else _split(metrics))
        told = {name if name == "seed" else runs.full(name) for name in (*by, *_split(over))}
        others = [name for name in runs.where(where).varying() if name not in told] if by else []
    if others:
        click.echo(f"also averaged over: {plain(', '.join(others))}", err=True)
    found = list(_groups(frame))
    if as_json:
        click.echo(json.dumps([each.as_json() for each in found], indent=1))
    elif sys.stdout.isatty():
        _print_groups(found)
    else:
        head = [*map(str, frame.index.names), *(".".join(column) for column in frame.columns)]
        _print_tabbed(head, [each.as_texts() for each in found])


@click.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@where_option
@click.option("--columns", metavar="A,B,C", help="These columns alone.")
@sort_option
@store_option
def table(file: str | None, where: str | None, columns: str | None, sort: str | None, store: str) -> None:
    """Write the table of runs to a .csv, .md or .parquet FILE.

    Without FILE, or for -, CSV goes to stdout. By default state, epoch, the fields that vary, results and times.
    """
    from jimmy_manager.results import table_files

    if file not in (None, "-"):
        table_files.check_path(str(file))
    from jimmy_manager.results.frame import frame_of

    with warnings_told():
        runs = _read(store).where(where)
    frame = frame_of(runs if sort is None else runs.ordered(sort), None if columns is None else _split(columns))
    if file in (None, "-"):
        csv = table_files.as_csv(frame)
        click.echo(plain_lines(csv) if sys.stdout.isatty() else csv, nl=False)
    else:
        table_files.write_table(frame, str(file))
        click.echo(f"wrote {counted(len(frame), 'run')} to {plain(file)}", err=True)


def _read(store: str) -> Runs:
    from jimmy_manager.results.runs import read_runs

    runs = read_runs(open_store(store))
    for message in runs.damage:
        click.echo(f"warning: {plain(message)}", err=True)
    return runs


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _print_tabbed(head: list[str], lines: list[list[str]]) -> None:
    click.echo("\n".join("\t".join(map(plain, line)) for line in (head, *lines)))


class _Group(NamedTuple):
    """One row of a grouped table: the fields that its runs share, and the statistics of each metric."""

    fields: dict[str, Any]
    metrics: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        metrics = {name: {stat: _json_value(value) for stat, value in m.items()} for name, m in self.metrics.items()}
        return {"by": {name: _json_value(value) for name, value in self.fields.items()}, "metrics": metrics}

    def as_texts(self) -> list[str]:
        return [text(value) for each in (self.fields, *self.metrics.values()) for value in each.values()]

    def as_row(self) -> dict[str, Any]:
        """For people; a metric's name begins with a blank there, as a field may have the same one."""
        most = max((stats["n"] for stats in self.metrics.values()), default=0)
        return self.fields | {"n": most} | {f" {name}": _mean(stats, most) for name, stats in self.metrics.items()}


def _groups(frame: pd.DataFrame) -> Iterator[_Group]:
    names = list(map(str, frame.index.names))
    columns: list[Any] = list(frame.columns)
    for label, values in zip(frame.index, frame.to_numpy(dtype=object).tolist(), strict=True):
        metrics: dict[str, dict[str, float]] = {}
        for (metric, stat), value in zip(columns, values, strict=True):
            metrics.setdefault(str(metric), {})[str(stat)] = value
        labels = label if isinstance(label, tuple) else (label,)
        yield _Group(dict(zip(names, map(_value, labels), strict=True)), metrics)


def _print_groups(found: list[_Group]) -> None:
    if not found:
        click.echo("no runs")
        return
    rows = [each.as_row() for each in found]
    columns = Columns(rows, list(rows[0]))
    dropped: list[str] = []
    while columns.total() > shutil.get_terminal_size().columns and len(columns.names) > len(found[0].fields) + 2:
        dropped.insert(0, columns.names[-1].strip())
        columns.drop(columns.names[-1])
    head, *lines = columns.lines()
    click.secho(GAP.join(head).rstrip(), bold=True)
    click.echo("\n".join(GAP.join(cells).rstrip() for cells in lines))
    click.secho(f"{counted(len(rows), 'group')}: mean ± half of the 95 % interval", dim=True)
    if dropped:
        note = f"no room for {plain(', '.join(dropped))} (--metrics chooses)"
        for line in textwrap.wrap(note, shutil.get_terminal_size().columns, break_on_hyphens=False):
            click.secho(line, dim=True)


def _mean(stats: dict[str, float], most: float) -> str:
    if not stats["n"]:
        return "nan"
    spread = f" ±{stats['ci95']:.2g}" if math.isfinite(stats["ci95"]) else ""
    return f"{stats['mean']:.4g}{spread}" + (f" (n={stats['n']:g})" if stats["n"] < most else "")


def _value(value: Any) -> Any:
    """A label as Python has it; None where there is none."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
