"""``jimmy check``, ``prune`` and ``pop``: keeping a store in order."""

from __future__ import annotations

import json
import sys

import click

from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import json_option, keys_argument, open_store, store_option
from jimmy_manager.plain_text import plain


@click.command()
@store_option
@click.option("--fix", is_flag=True, help="Repair what can be repaired; nothing that a reader would use is deleted.")
@click.option("--quick", is_flag=True, help="Compare sizes only, instead of reading every checkpoint.")
@json_option
@click.pass_context
def check(ctx: click.Context, /, store: str, fix: bool, quick: bool, as_json: bool) -> None:
    """Find every inconsistency of a store, by file name.

    Ends with exit code 1 where something is wrong that was not repaired, leftovers that only take space aside.
    """
    from jimmy_manager.archives import audit

    findings, repairs = audit.check(store, fix=fix, contents=not quick)
    done_by = {done.finding: done for done in repairs}
    left = [found for found in findings if found not in done_by or done_by[found].outcome == "left"]
    if as_json:
        told = [{"name": done.finding.name, "outcome": done.outcome, "message": done.message} for done in repairs]
        found = {"findings": [finding._asdict() for finding in findings], "repairs": told}
        click.echo(json.dumps(found, indent=1))
    else:
        for finding in findings:
            click.echo(f"{plain(finding.kind)}: {plain(finding.name)}: {plain(finding.message)}")
            if finding in done_by:
                repair = done_by[finding]
                click.echo(f"    {repair.outcome}{f': {plain(repair.message)}' if repair.message else ''}")
        fixable = sum(1 for finding in findings if finding.remedy)
        advice = "" if fix or not fixable else f"; 'jimmy check --fix' can repair {fixable}"
        mended = f", {len(findings) - len(left)} repaired" if fix else ""
        click.echo(f"{counted(len(findings), 'finding')}{mended}{advice}" if findings else "nothing is wrong", err=True)
    ctx.exit(ERROR if any(not finding.is_clutter for finding in left) else 0)


@click.command()
@store_option
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--offline", is_flag=True, help="Nobody else uses the store now: leftovers go at any age.")
def prune(store: str, dry_run: bool, offline: bool) -> None:
    """Remove what no reader needs again.

    That is superseded generations; with --offline also what killed writers left behind.
    """
    from jimmy_manager.archives.janitor import Janitor

    opened = open_store(store, read_only=dry_run)
    if seconds := 2 * opened.claims.stale_s:
        click.echo(f"watching for {seconds:g} s whether other machines still write here", err=True)
    swept = Janitor(opened).sweep(dry_run=dry_run, offline=offline, wait=True)
    for name in swept.names:
        click.echo(plain(name))
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{counted(len(swept.names), 'file')}, {swept.size} bytes {verb}", err=True)


@click.command()
@keys_argument
@store_option
@click.option("--force", is_flag=True, help="Also runs that a worker holds; it will find out.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def pop(keys: tuple[str, ...], store: str, force: bool, yes: bool) -> None:
    """Take runs out of a store.

    A popped run is listed nowhere and trained anew when it is asked for again. 'jimmy prune' frees the space.
    """
    if not keys:
        raise click.UsageError("which run? name it by its key")
    opened = open_store(store, read_only=False)
    whole = [opened.resolve(key) for key in keys]
    if not yes and sys.stdin.isatty():
        click.confirm(f"take {', '.join(whole)} out of {plain(store)}?", abort=True, err=True)
    for key in whole:
        opened.pop(key, force=force)
        click.echo(f"run {key} was popped")
