"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.errors import JimmyError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from jimmy_manager.archives.store import Store

_ENOUGH = 500


def _complete_job(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Python files below what was typed, folders to go on with, and after a colon the classes of the file."""
    import re
    from pathlib import Path

    from click.shell_completion import CompletionItem

    file, colon, name = incomplete.partition(":")
    if colon:
        # Not imported: that would run the job's code, and torch's, at each press of the key.
        source = Path(file).read_text("utf-8", "replace") if Path(file).is_file() else ""
        found = re.findall(r"^class (\w+)\(", source, re.MULTILINE)
        return [CompletionItem(f"{file}:{each}") for each in found if each.startswith(name)]
    folder, slash, start = incomplete.rpartition("/")
    items = []
    for path in sorted(Path(folder + slash or ".").iterdir()) if Path(folder + slash or ".").is_dir() else ():
        if path.name.startswith(start) and not path.name.startswith((".", "_")):
            if path.is_dir() and any(path.rglob("*.py")):
                items.append(CompletionItem(f"{folder}{slash}{path.name}/"))
            elif path.suffix == ".py":
                items.append(CompletionItem(f"{folder}{slash}{path.name}"))
    return items


def complete_key(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys of the store that the line names so far; of a large one the first few."""
    import os
    from itertools import islice

    from click.shell_completion import CompletionItem

    try:
        # Click fills in no defaults while a line is still being typed.
        store = open_store(ctx.params.get("store") or os.environ.get("JIMMY_STORE") or "store")
        keys = (key for key in store.registry if key.startswith(incomplete))
        return [CompletionItem(key) for key in islice(keys, _ENOUGH)]
    except JimmyError:
        return []  # there is no place for a message in the middle of a command line


def open_store(directory: str, *, read_only: bool = True) -> Store:
    """The store of a command that needs no job; it must exist."""
    from jimmy_manager.archives.store import Store

    store = Store(directory, read_only=True)
    return store if read_only else Store(directory)


job_argument = click.argument("job", metavar="JOB", shell_complete=_complete_job)
key_argument = click.argument("key", shell_complete=complete_key)
keys_argument = click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=complete_key)
fields_argument = click.argument("fields", metavar="[NAME=VALUE]...", nargs=-1)
store_option = click.option(
    "--store", metavar="DIR", envvar="JIMMY_STORE", default="store", show_default=True, is_eager=True,
    type=click.Path(file_okay=False), help="The store; else $JIMMY_STORE.",
)
where_option = click.option("--where", metavar="FILTER", help="""E.g. 'optim.lr < 0.01 and arch == "cnn"'.""")
sort_option = click.option("--sort", metavar="NAME", help="Sort by a column; -NAME puts the highest first.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


class JobCommand(click.Command):
    """A command whose JOB is known already where the job's own file was run."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        return [each for each in params if each.name != "job"] if _given_job(ctx) is not None else params

    def invoke(self, ctx: click.Context) -> Any:
        if (job := _given_job(ctx)) is not None:
            ctx.params["job"] = job
        return super().invoke(ctx)


def _given_job(ctx: click.Context) -> Any:
    return getattr(ctx.find_root().obj, "job", None)
