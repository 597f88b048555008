"""The command line's entry: a table of commands, each in a module that is imported when it is called.

``jimmy --help`` must not pay for what the commands need, so it prints their summaries from the table below.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jimmy_manager.errors import JimmyError
from jimmy_manager.plain_text import plain_lines

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from jimmy_manager.manager.manager import Manager

ERROR, USAGE, SOME_FAILED, BUSY = 1, 2, 3, 4


class Entry(NamedTuple):
    """One line of the table: the section of the help, the module, and the summary, which a test compares."""

    section: str
    module: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "sweep": Entry("Train", "train", "Train a job's whole grid beside other workers."),
    "process": Entry("Train", "train", "Train one configuration and print its key."),
    "submit": Entry("Train", "submit", "Queue an array of workers for a job's grid at Slurm."),
    "stop": Entry("Train", "stop", "Ask workers to save and leave."),
    "retry": Entry("Train", "failures", "Let failed runs be tried again."),
    "ls": Entry("Look", "listing", "List runs: configuration, state and results."),
    "best": Entry("Look", "results", "Show the run with the lowest METRIC, or the highest."),
    "group": Entry("Look", "results", "Average the results of runs that differ only by their seed."),
    "table": Entry("Look", "results", "Write the table of runs to a .csv, .md or .parquet FILE."),
    "show": Entry("Look", "look", "Show everything that is known of a run."),
    "diff": Entry("Look", "compare", "Compare configuration, results, code and environment of two runs."),
    "compare": Entry("Look", "compare", "Compare any number of runs: what differs between them."),
    "why": Entry("Look", "look", "Explain why two runs have different keys."),
    "plot": Entry("Look", "plot", "Draw figures of runs."),
    "errors": Entry("Look", "failures", "Show failed runs with their tracebacks."),
    "workers": Entry("Look", "workers", "Show who holds which run."),
    "tensorboard": Entry(
        "Look", "bridge", "Start TensorBoard on the runs of a store, with their configurations as HParams."
    ),
    "init": Entry("Keep", "init", "Make an empty store, or share one with the group."),
    "doctor": Entry("Keep", "doctor", "Find out whether a place is fit for a store, and what to do."),
    "check": Entry("Keep", "upkeep", "Find every inconsistency of a store, by file name."),
    "prune": Entry("Keep", "upkeep", "Remove what no reader needs again."),
    "gc": Entry("Keep", "collect", "Free space in a store; tells what would go, until --yes is given."),
    "pop": Entry("Keep", "upkeep", "Take runs out of a store."),
    "export": Entry("Keep", "transfer", "Write runs to a tar or a directory, by default all of them."),
    "import": Entry("Keep", "transfer", "Merge the runs of a tar or of another store into a store."),
    "export-model": Entry("Keep", "model_export", "Write a trained model and its configuration into a folder."),
    "schema": Entry("Keep", "schema", "Say what changed fields mean for runs from before."),
    "completion": Entry("Keep", "completion", "Print the completion script of a shell."),
}
ALIASES = {"worker": "sweep"}
SECTIONS = ("Train", "Look", "Keep")

_EPILOG = """\b
Exit codes:
  0    fine
  1    an error, told in one line on stderr
  2    the command line is wrong
  3    some runs failed
  4    the run is held by another worker (process)
  130  stopped by Ctrl-C, 143 by SIGTERM, after saving
"""


class Session:
    """What the commands of one call share: the job that was given beforehand, and whether to show tracebacks."""

    def __init__(self, job: type[Manager] | None = None) -> None:
        self.job = job
        self.debug = False


class LazyGroup(click.Group):
    """The group ``jimmy``; its errors become one line and an exit code here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        from importlib import import_module
        from keyword import iskeyword

        module = import_module(f"jimmy_manager.cli.{COMMANDS[name].module}")
        command: click.Command = getattr(module, f"{name}_" if iskeyword(name) else name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and args[0] not in ALIASES and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], [*COMMANDS, *ALIASES], n=1)
            advice = f"; did you mean {near[0]!r}?" if near else "; see 'jimmy --help'"
            ctx.fail(f"there is no command {args[0]!r}{advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in SECTIONS:
            rows = [(name, entry.summary) for name, entry in COMMANDS.items() if entry.section == section]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click itself would make it an error
            return _end_of_pipe()

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]  # the positional arguments that anybody uses
        """Run the command line and exit with its code; never a traceback for what was raised on purpose."""
        session = extra.setdefault("obj", Session())
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "jimmy", **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except click.Abort:
            code = 128 + signal.SIGINT
        except BrokenPipeError:
            code = _end_of_pipe()
        except JimmyError as error:
            if session.debug:
                raise
            click.echo(f"error: {plain_lines(error)}", err=True)
            code = ERROR
        sys.exit(code if isinstance(code, int) else 0)


def _end_of_pipe() -> int:
    """The reader (``head``) has had enough: that is no error, and nothing more may be flushed."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from jimmy_manager import __version__

        click.echo(f"jimmy_manager {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_obj
def main(session: Session, debug: bool) -> None:
    """Train many configurations on many machines that share nothing but a directory.

    A job is a Python file that defines one Manager (jobs/digits.py), or FILE:CLASS where it defines several. Commands
    that only look need no job. The store is --store, else $JIMMY_STORE, else store/. A run is named by its key or by
    any first digits of it that no other run shares.
    """
    session.debug = debug


def run_job(cls: type[Manager], argv: Sequence[str] | None = None) -> None:
    """The command line of a job file: ``sweep`` and ``process`` need no JOB there."""
    from pathlib import Path

    from jimmy_manager.cli import jobs

    if jobs.is_loading():  # a file that calls main() without asking whether it is __main__
        return
    main.main(argv, f"python {Path(sys.argv[0]).name}", obj=Session(cls))
