"""``jimmy submit``: an array of workers in Slurm's queue, after what they would stumble over was looked for here."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from jimmy_manager.cli import fields as overrides
from jimmy_manager.cli import train
from jimmy_manager.cli.columns import counted
from jimmy_manager.cluster import submission
from jimmy_manager.cluster.rehearsal import rehearse
from jimmy_manager.errors import ConfigError
from jimmy_manager.grid import grid
from jimmy_manager.manager.schedule import Fixed
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager

_FOLDER = "slurm"


class _SubmitCommand(click.Command):
    """Takes what ``sweep`` takes besides its own options, and after ``--`` what ``sbatch`` takes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            args, ctx.meta["sbatch"] = args[:place], args[place + 1 :]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*train.sweep.collect_usage_pieces(_context_of_sweep(ctx)), "[-- SBATCH OPTIONS]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        swept = _context_of_sweep(ctx)
        rows = [row for each in train.sweep.get_params(swept) if (row := each.get_help_record(swept)) is not None]
        with formatter.section("Options of sweep"):
            formatter.write_dl([row for row in rows if not row[0].startswith("-h")])


def _array(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else submission.array_of(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


@click.command(cls=_SubmitCommand, context_settings={"ignore_unknown_options": True})
@click.option(
    "--array", metavar="N", callback=_array,
    help="How many workers; N%M: at most M at a time; else as sbatch takes it.  [default: 8]",
)  # fmt: skip
@click.option("--time", metavar="TIME", help="How long each may take, such as 4:00:00.  [default: an hour]")
@click.option(
    "--script", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
    help="Fill in a copy of jobs/worker.sbatch that you have edited. Its jimmy is the one in the job's PATH.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the script; nothing is made but the folder of its output.")
@click.argument("words", nargs=-1, type=click.Path())  # completed as paths, taken as they are
@click.pass_context
def submit(
    ctx: click.Context, array: str | None, time: str | None, script: str | None, dry_run: bool, words: tuple[str, ...]
) -> None:
    """Queue an array of workers for a job's grid at Slurm.

    Job, choices, fields and store are looked at first, as each worker would. Prints the number of Slurm's job, and on
    stderr how to watch it. Unless told otherwise the workers --wait for runs that others hold, and --requeue themselves
    when their time is up. NAME=VALUE and further options are those of sweep; what comes after -- goes to sbatch.
    """
    further: list[str] = ctx.meta.get("sbatch", [])
    _check_sbatch_options(further)
    swept = _context_of_sweep(ctx, words)
    points = _rehearse(swept)
    own = {"chdir": os.getcwd()}
    if array is not None:
        own["array"] = array
    if time is not None:
        own["time"] = time
    template = (submission.TEMPLATE if script is None else Path(script)).read_text("utf-8")
    if script is None:
        own["output"] = f"{_FOLDER}/%x-%A_%a.out"
        limit = submission.time_of(further) or time
        if limit is not None and (signal := submission.signal_of(limit)) is not None:
            own["signal"] = signal
    if script is None or not submission.names_its_job(template):
        own["job-name"] = _name_of(swept.params["job"])
    filled = submission.fill(template, own, further, _command(swept, words, is_own=script is None))
    submission.make_output_folders(filled)
    if dry_run:
        click.echo(filled, nl=False)
        return
    told = submission.submit(filled, [*(f"--{name}={value}" for name, value in own.items()), *further])
    if isinstance(told, int):
        ctx.exit(told)
    click.echo(told.job)
    if array is not None and (workers := re.fullmatch("1-([0-9]+)", array)) and int(workers[1]) > points:
        click.echo(f"note: {counted(points, 'configuration')} cannot keep {workers[1]} workers busy", err=True)
    _tell_how_to_watch(told, filled, points, swept.params["store"])


def _check_sbatch_options(further: Sequence[str]) -> None:
    if further and not further[0].startswith("-"):
        raise click.UsageError(f"{further[0]!r} after -- is no option of sbatch")
    if any(word == "--chdir" or word.startswith(("--chdir=", "-D")) for word in further):
        raise click.UsageError("the workers run in this directory, where the job was looked at; cd to the other first")
    if any(word.partition("=")[0] == "--wrap" for word in further):
        raise click.UsageError("--wrap would take the place of the workers; leave it out")


def _context_of_sweep(ctx: click.Context, words: Sequence[str] | None = None) -> click.Context:
    """The command line of ``sweep`` with ``words``; checked as ``sweep`` itself would, or empty and unchecked."""
    return train.sweep.make_context(ctx.info_name, list(words or ()), ctx.parent, resilient_parsing=words is None)


def _rehearse(swept: click.Context) -> int:
    """Look at what the workers will do; return how many configurations there are."""
    params = swept.params
    if swept.obj.job is not None:
        params["job"] = swept.obj.job
    known = set(inspect.signature(train.sweep.callback or train.sweep).parameters)
    settings = {name: value for name, value in params.items() if name not in known}
    settings["requeue"] = True if settings["requeue"] is None else settings["requeue"]  # as `_command` writes it
    fixed = overrides.read(params["fields"])
    with train.manager_of(params["job"], params["store"], settings) as manager:
        overrides.check(fixed, manager, params["choices"], is_sweep=True)
        manager._total(params["num_epochs"])
        points = _points(manager, params["choices"], fixed.values)
        if not points:
            raise ConfigError("there is nothing to train: the choices stand for no configuration")
        count = len(points)
        rehearse(manager, points, params["new_fields"])
    return count


def _points(manager: Manager, choices: str | None, fixed: Any) -> Sequence[Any]:
    points = grid(choices if choices is not None else manager._own_choices())
    return Fixed(points, fixed) if fixed else points


def _name_of(job: str | type[Manager]) -> str:
    return Path(job.partition(":")[0] if isinstance(job, str) else inspect.getfile(job)).stem


def _command(swept: click.Context, words: Sequence[str], *, is_own: bool) -> list[str]:
    """The line of one worker: the words as they were given, and what was left to default here but counts there."""
    job = swept.params["job"]
    named = [] if isinstance(job, str) else [f"{os.path.relpath(inspect.getfile(job))}:{job.__qualname__}"]
    added = [] if _is_given(swept, "store") else ["--store", swept.params["store"]]
    added += [f"--{name}" for name in ("wait", "requeue") if not _is_given(swept, name)]
    return [*(_jimmy() if is_own else ["jimmy"]), "sweep", *named, *words, *added]


def _is_given(swept: click.Context, name: str) -> bool:
    return swept.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _jimmy() -> list[str]:
    """The command of this environment, by its path: a job need not have the PATH of the shell that submitted it."""
    program = Path(sys.executable).with_name("jimmy")
    return [str(program)] if program.exists() else [sys.executable, "-P", "-m", "jimmy_manager.cli"]


def _tell_how_to_watch(told: submission.Submitted, script: str, points: int, store: str) -> None:
    at = "" if store == os.environ.get("JIMMY_STORE", "store") else f" --store {shlex.quote(store)}"
    cluster = f" -M {told.cluster}" if told.cluster else ""
    lines = [
        (f"squeue{cluster} -j {told.job}", "the queue"),
        (f"jimmy ls{at}", "what is done"),
        (f"jimmy workers --watch{at}", "who trains what"),
        (f"tail -f {submission.outputs(script, told.job)}", "what they print"),
        (f"jimmy stop --all{at}", "save, and leave"),
    ]
    click.echo(f"job {told.job} was submitted: {counted(points, 'configuration')} in {plain(store)}", err=True)
    width = max(len(command) for command, _ in lines)
    for command, why in lines:
        click.echo(f"  {plain(command):{width}}  # {why}", err=True)
