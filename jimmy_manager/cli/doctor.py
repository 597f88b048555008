"""``jimmy doctor``: whether a place is fit for a store, on one node or between two."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from jimmy_manager.cli.columns import counted
from jimmy_manager.cli.main import ERROR
from jimmy_manager.cli.options import json_option
from jimmy_manager.plain_text import plain

if TYPE_CHECKING:
    from jimmy_manager.cluster.remark import Remark

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
_LEVEL, _SUBJECT = 9, 13
_EVERY_S = 10.0


@click.command()
@click.argument(
    "store", metavar="[STORE]", envvar="JIMMY_STORE", default="store", type=click.Path(file_okay=False), required=False
)
@click.option("--peer", is_flag=True, help="Measure together with the same command on another node.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.0), default=120.0, show_default=True,
    help="Seconds to wait for it.",
)
@click.option("--quick", is_flag=True, help="Half a minute instead of two; may only raise what is recorded.")
@click.option("--reset", is_flag=True, help="Forget what earlier examinations found.")
@click.option("--no-record", is_flag=True, help="Leave the store as it is.")
@json_option
@click.pass_context
def doctor(
    ctx: click.Context, /, store: str, peer: bool, timeout_s: float, quick: bool, reset: bool, no_record: bool,
    as_json: bool,
) -> None:
    """Find out whether a place is fit for a store, and what to do.

    STORE is $JIMMY_STORE or 'store' where it is not given; it need not be there yet. With --peer, started on two nodes
    at once, the two find each other through that directory, try whether claims are safe between them, measure how old
    what they see may be, and record it in store.yaml, where workers go by it. Ends with exit code 1 where claims cannot
    be safe.
    """
    from jimmy_manager.cluster import doctor as examination
    from jimmy_manager.cluster import prescription

    if peer:
        remarks, data = _by_two(store, timeout_s, quick, reset, no_record)
        for remark in [] if as_json else remarks:
            _print(remark)
    else:
        if reset:
            prescription.forget(store)
        remarks, data = [], {}
        for remark in examination.examine(store):
            remarks.append(remark)
            if not as_json:
                _print(remark)
    if as_json:
        click.echo(json.dumps({"remarks": [remark._asdict() for remark in remarks], **data}, indent=1))
    else:
        click.echo(_summary(remarks))
    ctx.exit(ERROR if any(remark.forbids for remark in remarks) else 0)


class _Teller:
    """Progress on stderr: steps as lines; ticks on one line that is written over, or now and then where none can be."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._told_at = -_EVERY_S

    def say(self, text: str) -> None:
        click.echo(f"{self.clear()}  {plain(text)}", err=True)

    def tick(self, text: str) -> None:
        if self._is_terminal:
            click.echo(f"{self.clear()}  {plain(text)}", nl=False, err=True)
        elif time.monotonic() - self._told_at >= _EVERY_S:
            self._told_at = time.monotonic()
            click.echo(f"  {plain(text)}", err=True)

    def clear(self) -> str:
        """What takes an unfinished line away."""
        return "\r\x1b[K" if self._is_terminal else ""


def _by_two(
    store: str, timeout_s: float, quick: bool, reset: bool, no_record: bool
) -> tuple[list[Remark], dict[str, Any]]:
    """Examine the store together with another node; the remarks, and what a script wants to know."""
    from jimmy_manager.cluster.consultation import consult
    from jimmy_manager.cluster.peer import LONG, QUICK

    line = f"jimmy doctor --peer{' --quick' if quick else ''} {shlex.quote(os.path.abspath(store))}"
    click.echo(f"on another node, within {timeout_s:g} s, type\n\n    {plain(line)}\n", err=True)
    teller = _Teller()
    advice = consult(
        store, QUICK if quick else LONG, teller, timeout_s=timeout_s, reset=reset, record=not no_record
    )
    click.echo(teller.clear(), err=True)
    return advice.remarks, {"measured": _plainly(advice.measured), "recorded": advice.recorded}


def _plainly(value: Any) -> Any:
    """Named tuples as mappings, for JSON."""
    if hasattr(value, "_asdict"):
        return {name: _plainly(each) for name, each in value._asdict().items()}
    return [_plainly(each) for each in value] if isinstance(value, (list, tuple)) else value


def _summary(remarks: Sequence[Remark]) -> str:
    levels = [remark.level for remark in remarks]
    problems, notes = levels.count("problem"), levels.count("note")
    found = [counted(problems, "problem")] * bool(problems) + [counted(notes, "note")] * bool(notes)
    if any(remark.forbids for remark in remarks):
        return f"{', '.join(found)}: nobody should train here"
    return ", ".join(found) if found else "all is well"


def _print(remark: Remark) -> None:
    """One remark, fitted to the terminal; its remedy below it."""
    width = max(40, min(shutil.get_terminal_size().columns, 120))
    indent = " " * (_LEVEL + _SUBJECT)
    head = click.style(f"{remark.level:<{_LEVEL}}", fg=_COLOURS[remark.level], bold=remark.level != "ok")
    lines = textwrap.wrap(plain(remark.text), width - len(indent), break_on_hyphens=False) or [""]
    click.echo(f"{head}{remark.subject:<{_SUBJECT}}{lines[0]}")
    for line in lines[1:]:
        click.echo(f"{indent}{line}")
    if remark.remedy:
        first, *more = textwrap.wrap(plain(remark.remedy), width - len(indent) - 2, break_on_hyphens=False)
        for line in [f"> {first}", *(f"  {each}" for each in more)]:
            click.secho(f"{indent}{line}", fg="cyan")
