"""``jimmy sweep`` and ``jimmy process``: training, by one worker or several."""

from __future__ import annotations

import inspect
import math
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.cli import fields as overrides
from jimmy_manager.cli import jobs, pool
from jimmy_manager.cli.main import BUSY, ERROR, SOME_FAILED
from jimmy_manager.cli.options import JobCommand, fields_argument, job_argument, store_option
from jimmy_manager.errors import ConfigError, HookError, JimmyError
from jimmy_manager.manager.job_time import check_requeue, limit_s
from jimmy_manager.manager.rank_line import here
from jimmy_manager.plain_text import plain, plain_lines
from jimmy_manager.signals import STOPPING, TIME_LIMIT, StopFlag, stop_signals

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store
    from jimmy_manager.manager.manager import Manager
    from jimmy_manager.manager.schedule import BatchReport

_MOST_IN_A_ROW = 10
_MOST_KEYS = 5
# Ends that are as asked for: what is left goes on later, or elsewhere.
_IN_ORDER = (TIME_LIMIT, "jimmy stop")

Decorated = Callable[..., Any]


def _time_limit(_: click.Context, __: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    try:
        return timedelta(seconds=limit_s(value))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


def _stop_signals(_: click.Context, __: click.Parameter, value: str | None) -> tuple[signal.Signals, ...] | None:
    try:
        return None if value is None else stop_signals(value.split(","))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


def _training_options(command: Decorated) -> Decorated:
    options = [
        click.option("--num-epochs", type=click.IntRange(0), help="Epochs in all; by default what the job says."),
        click.option("--retries", type=click.IntRange(0), default=0, help="How often to try a failed run again."),
        click.option(
            "--new-fields", type=click.Choice(["ask", "rerun"]), default="ask", show_default=True,
            help="What to do with results from before the defaults had a field.",
        ),
        click.option("--max-crashes", type=click.IntRange(1), help="Crashes in a row that make a run failed."),
        click.option("--eval-interval", type=click.IntRange(1), metavar="EPOCHS", help="Epochs between evaluations."),
        click.option("--save-interval", type=click.IntRange(1), metavar="EPOCHS", help="Epochs between saves."),
        click.option(
            "--time-limit", callback=_time_limit, metavar="TIME",
            help="Save and stop before it is over, e.g. 4:00:00 or minutes; by default that of the Slurm job.",
        ),
        click.option(
            "--requeue/--no-requeue", default=None,
            help="Requeue the Slurm job that is left with work after its time limit, SIGUSR1 or SIGUSR2.",
        ),
        click.option(
            "--stop-signals", callback=_stop_signals, metavar="NAMES",
            help="What to stop at, by default TERM,USR1,USR2,INT. NCCL catches USR1 for itself: let Slurm send USR2.",
        ),
        click.option("--device", help="cpu, cuda:1, ...; by default the first GPU."),
        click.option("--threads", type=click.IntRange(1), help="CPU threads for torch."),
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=JobCommand)
@job_argument
@fields_argument
@store_option
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Start N workers on this machine.")
@click.option("--choices", type=click.Path(exists=True, dir_okay=False), help="A YAML file instead of the job's grid.")
@click.option("--count", type=click.IntRange(0), default=0, help="Train at most this many runs (0: all).")
@click.option("--wait/--no-wait", default=None, help="Wait for runs that others hold; with --workers the default.")
@click.option(
    "--order", type=click.Choice(["random", "given"]), default="random", show_default=True,
    help="In which order to go through the grid; at random, workers seldom meet.",
)  # fmt: skip
@_training_options
@click.pass_context
def sweep(
    ctx: click.Context, /, job: str | type[Manager], fields: tuple[str, ...], store: str, workers: int | None,
    choices: str | None, count: int, wait: bool | None, order: str, num_epochs: int | None, retries: int,
    new_fields: str, **settings: Any,
) -> None:
    """Train a job's whole grid beside other workers.

    Start the same command as often and on as many machines as you like: each configuration is trained once. NAME=VALUE
    fixes a field in every configuration, e.g. optim.lr=1e-3; +NAME=VALUE one that the job does not know.

    Started by torchrun (torchrun --nproc-per-node 4 -m jimmy_manager.cli sweep JOB), it is one worker of several
    processes, which train each run together.
    """
    fixed = overrides.read(fields)
    since, signals = time.monotonic(), settings["stop_signals"] or STOPPING
    member = pool.join()
    if workers is not None and here().size > 1:
        raise click.UsageError(
            f"--workers starts processes that train different runs, but this is {here().name()}, which train each run "
            "together; leave it out, or start 'jimmy sweep --workers' without torchrun"
        )
    if workers is not None and member is None:
        if isinstance(job, str):
            jobs.path_of(job)  # one error instead of one from each worker
        check_requeue(settings["requeue"])
        ctx.exit(pool.run(workers, signals, is_quiet=settings["quiet"]))
    since = member.since if member is not None else since
    with _early(signals).installed(), manager_of(job, store, settings, since) as manager:
        if member is not None:
            member.report_start()
            manager.requeue = member.report_requeue if manager.requeue else False
        overrides.check(fixed, manager, choices, is_sweep=True)
        is_waiting = member is not None if wait is None else wait
        report = manager.sweep(
            choices, order, fixed=fixed.values, num_epochs=num_epochs, count=count, wait=is_waiting, retries=retries,
            new_fields=new_fields, max_errors=math.inf, max_in_a_row=_MOST_IN_A_ROW,
        )
        if here().is_first:
            _tell_failures(manager.store, report)
    if member is not None:
        member.report_end(report)
    ctx.exit(_code(report))


@click.command(cls=JobCommand)
@job_argument
@fields_argument
@store_option
@click.option("--resume/--fresh", default=True, help="Go on from the last commit (the default), or start from nothing.")
@click.option("--wait/--no-wait", default=False, help="Wait while another worker holds the run.")
@_training_options
@click.pass_context
def process(
    ctx: click.Context, /, job: str | type[Manager], fields: tuple[str, ...], store: str, resume: bool, wait: bool,
    num_epochs: int | None, retries: int, new_fields: str, **settings: Any,
) -> None:
    """Train one configuration and print its key.

    NAME=VALUE sets a field, e.g. optim.lr=1e-3, and +NAME=VALUE one that the job does not know; the others have the
    job's defaults.
    """
    config = overrides.read(fields)
    since, signals = time.monotonic(), settings["stop_signals"] or STOPPING
    with _early(signals).installed(), manager_of(job, store, settings, since) as manager:
        overrides.check(config, manager, is_sweep=False)
        report = manager.batch(
            [config.values], num_epochs, resume=resume, wait=wait, retries=retries, new_fields=new_fields,
            max_errors=math.inf,
        )
        if not here().is_first:  # one of several ranks tells
            ctx.exit(_code(report) or (BUSY if report.busy else 0))
        _tell_failures(manager.store, report, with_traceback=True)
        for key in (*report.done, *report.skipped):
            click.echo(key)
        for key in report.busy:
            holder = record.owner if (record := manager.store.standing(key).record) else "another worker"
            click.echo(f"error: run {key} is held by {holder}; use --wait, or see 'jimmy workers'", err=True)
    ctx.exit(_code(report) or (BUSY if report.busy else 0))


def _early(signals: Iterable[signal.Signals]) -> StopFlag:
    """Catches what Slurm sends to save, and no person, until the Manager does: importing a job may take a while."""
    return StopFlag(set(signals) - {signal.SIGINT, signal.SIGTERM})


@contextmanager
def manager_of(
    job: str | type[Manager], store: str, settings: dict[str, Any], since: float | None = None
) -> Iterator[Manager]:
    """The job's Manager over ``store``, with those settings that were given; its time limit began at ``since``."""
    given = {name: value for name, value in settings.items() if value is not None and name != "quiet"}
    given |= {"verbose": False} if settings["quiet"] else {}
    try:
        with jobs.loaded(job) if isinstance(job, str) else nullcontext(job) as cls:
            if since is not None and "time_limit" in given:
                spent = timedelta(seconds=time.monotonic() - since)
                given["time_limit"] = max(given["time_limit"] - spent, timedelta(milliseconds=1))
            try:
                inspect.signature(cls).bind(store, **given)
            except TypeError as error:
                raise HookError(
                    f"{cls.__name__}.__init__() cannot be called with (store_dir, {', '.join(given) or '...'}): "
                    f"{error}; let it take *args, **kwargs and hand them to super().__init__()"
                ) from None
            yield cls(store, **given)
    except SystemExit as error:
        # As it is, it would end the command with the code of a finished one.
        name = job if isinstance(job, str) else job.__name__
        raise HookError(f"the job {name} called sys.exit({error.code!r}); let it raise an exception instead") from error


def _tell_failures(store: Store, report: BatchReport, *, with_traceback: bool = False) -> None:
    failed, before = report.failed, set(report.failed_before)
    for key in failed[:_MOST_KEYS]:
        try:
            record = store.standing(key).record
        except JimmyError as unread:
            click.echo(f"error: run {key} failed, and its claim cannot be read: {plain(unread)}", err=True)
            continue
        error = (record.error if record else None) or {}
        if with_traceback and key not in before and error.get("traceback"):
            click.echo(plain_lines(error["traceback"]).rstrip("\n"), err=True)
        what = f"{plain(error.get('type', 'unknown'))}: {plain(error.get('message', ''))}"
        verb = "had failed before and was left alone" if key in before else "failed"
        click.echo(f"error: run {key} {verb}: {what}", err=True)
    if failed:
        more = f"{len(failed) - _MOST_KEYS} more failed; " if len(failed) > _MOST_KEYS else ""
        at = f" --store {shlex.quote(plain(store))}" if str(store) != os.environ.get("JIMMY_STORE", "store") else ""
        keys = " ".join(failed) if len(failed) <= _MOST_KEYS else "--all"
        one = f" {failed[0]}" if len(failed) == 1 else ""
        click.echo(f"{more}see 'jimmy errors{one}{at}', try again with 'jimmy retry {keys}{at}'", err=True)


def _code(report: BatchReport) -> int:
    if report.stopped in signal.Signals.__members__:
        return 128 + signal.Signals[report.stopped]
    if report.failed:
        return SOME_FAILED
    return 0 if report.stopped in ("", *_IN_ORDER) else ERROR
