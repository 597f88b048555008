"""``jimmy show`` and ``why``: one run, and why two of them have different keys."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import Standing
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.cli import recorded_code
from jimmy_manager.cli.columns import counted, shown
from jimmy_manager.cli.options import complete_key, json_option, key_argument, open_store, store_option
from jimmy_manager.cli.sections import folded, print_section
from jimmy_manager.errors import NoRecord
from jimmy_manager.keys import explain
from jimmy_manager.manager.progress import duration
from jimmy_manager.nesting import flattened
from jimmy_manager.plain_text import plain, plain_lines
from jimmy_manager.results.table import STATES

if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store

first_argument = click.argument("first", metavar="A", shell_complete=complete_key)
second_argument = click.argument("second", metavar="B", shell_complete=complete_key)


class Facts(NamedTuple):
    """What is known of one run."""

    key: str
    standing: Standing
    stats: Stats | None
    config: dict[str, Any]
    preview: dict[str, Any]
    figures: tuple[str, ...]

    @property
    def state(self) -> str:
        return STATES.get(self.standing.state, self.standing.state)

    @property
    def newest(self) -> Commit | None:
        return self.stats.commits[-1] if self.stats else None


@click.command()
@key_argument
@store_option
@click.option(
    "--code", "folder", metavar="DIR", type=click.Path(file_okay=False),
    help="Write the sources that it was trained from into DIR, which is new or empty.",
)
@json_option
@click.pass_context
def show(ctx: click.Context, /, key: str, store: str, folder: str | None, as_json: bool) -> None:
    """Show everything that is known of a run.

    Its configuration, progress, results and figures, where and from which code it was trained, its error, its files.
    """
    opened = open_store(store)
    if folder is not None:
        ctx.exit(recorded_code.write(opened, opened.resolve(key), folder, as_json))
    facts = _facts(opened, opened.resolve(key))
    files = dict(_files(opened, facts.key))
    code = recorded_code.described(opened, facts.stats)
    if as_json:
        click.echo(json.dumps(_as_json(facts, files) | {"code": code}, indent=1))
        return
    run = facts.stats.run if facts.stats else {}
    _print_title(facts)
    print_section("configuration", flattened(facts.config))
    print_section("preview", ((name, _shown_result(value)) for name, value in flattened(facts.preview)))
    print_section("progress", _progress(facts))
    print_section("provenance", _provenance(run, code))
    _print_error(facts.standing)
    print_section("files", ((name, counted(size, "byte") if size >= 0 else "gone") for name, size in files.items()))


@click.command()
@first_argument
@second_argument
@store_option
@json_option
def why(first: str, second: str, store: str, as_json: bool) -> None:
    """Explain why two runs have different keys.

    Compares what was hashed: the configurations as they were when the runs began, before the schema ledger's view.
    """
    opened = open_store(store)
    keys = [opened.resolve(key) for key in (first, second)]
    differences = explain(*(opened.registry.read(key).stored for key in keys))
    if as_json:
        click.echo(json.dumps([difference._asdict() for difference in differences], indent=1))
    elif not differences:
        click.echo(f"both are run {keys[0]}")
    else:
        for difference in differences:
            click.echo(plain(difference))


def _facts(store: Store, key: str) -> Facts:
    stats = store.committed(key)
    try:
        preview = store.previews[key] if stats else {}
    except NoRecord:
        preview = {}
    labels = tuple(stats.commits[-1].figures) if stats else ()
    return Facts(key, store.standing(key), stats, store.config(key).asdict(), preview, labels)


def _files(store: Store, key: str) -> Iterable[tuple[str, int]]:
    """Every file of a run with its size; -1 where it disappeared meanwhile."""
    for archive in layout.ARCHIVES:
        folder = layout.shard(archive, key)
        for last in sorted(store.files.names(folder)):
            parsed = layout.parse(archive, last)
            if parsed and parsed.key == key:
                name = f"{folder}/{last}"
                try:
                    yield name, store.files.size(name)
                except FileNotFoundError:
                    yield name, -1


def _print_title(facts: Facts) -> None:
    epoch = f" after epoch {facts.newest.epoch}" if facts.newest else ""
    lack = ", without its checkpoint" if facts.newest and not facts.newest.has_ckpt else ""
    click.secho(f"run {facts.key}: {facts.state}{epoch}{lack}", bold=True)


def _progress(facts: Facts) -> Iterable[tuple[str, Any]]:
    if (newest := facts.newest) is not None:
        yield "epoch", newest.epoch
        if newest.step:
            yield "step", newest.step
        yield "saved", ago(newest.at)
        yield "training", f"{duration(newest.train_s)} an epoch, evaluation {duration(newest.eval_s)}"
    if (record := facts.standing.record) is not None:
        yield "generation", record.generation
        yield {"held": "held by", "done": "finished by"}.get(record.state, "last held by"), record.owner
        yield "claimed", ago(record.at)
    if facts.figures:
        yield "figures", ", ".join(facts.figures)


def _provenance(run: Mapping[str, Any], code: Mapping[str, Any] | None) -> Iterable[tuple[str, Any]]:
    if git := run.get("git"):
        yield "git", f"{git.get('commit', '?')}{', with changes since' if git.get('dirty') else ''}"
    if code is not None:
        yield "code", recorded_code.shown(code)
    for name, value in run.items():
        if name == "versions" and isinstance(value, dict):
            yield name, ", ".join(f"{package} {version}" for package, version in value.items())
        elif name in ("imported", "gc") and isinstance(value, dict):
            place = f"from store {value['store']}, saved there " if "store" in value else "took the checkpoint "
            yield name, f"{place}{ago(value['at']) if isinstance(value.get('at'), int | float) else ''}".rstrip()
        elif name not in ("git", "code") and value not in (None, ""):
            yield name, value


def _print_error(standing: Standing) -> None:
    error = (standing.record.error if standing.record else None) or {}
    if error:
        click.secho("\nerror", bold=True)
        told = f"{error.get('type', 'unknown')}: {error.get('message', '')}"
        for line in plain_lines(told).splitlines():
            for part in folded(line, shutil.get_terminal_size().columns - 2) if sys.stdout.isatty() else [line]:
                click.secho(f"  {part}", fg="red")
        for line in plain_lines(error.get("traceback", "")).splitlines():
            click.echo(f"  {line}")


def ago(at: float) -> str:
    """A time since 1970 for people; other hosts' clocks may differ from this one's."""
    passed = time.time() - at
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return f"{stamp} ({duration(passed)} ago)" if passed >= 0 else stamp


def _shown_result(value: Any) -> str:
    if _is_array(value):
        return f"array of {value.dtype}, shape {tuple(value.shape)}"
    return shown(value)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _as_json(facts: Facts, files: Mapping[str, int]) -> Any:
    newest, record = facts.newest, facts.standing.record
    return finite({
        "key": facts.key,
        "state": facts.state,
        "config": facts.config,
        "preview": facts.preview,
        "epoch": newest.epoch if newest else None,
        "step": newest.step if newest else None,
        "saved_at": newest.at if newest else None,
        "train_s": newest.train_s if newest else None,
        "eval_s": newest.eval_s if newest else None,
        "figures": list(facts.figures),
        "generation": record.generation if record else None,
        "owner": record.owner.as_record() if record else None,
        "error": record.error if record else None,
        "run": facts.stats.run if facts.stats else {},
        "files": dict(files),
    })  # fmt: skip


def finite(value: Any) -> Any:
    """NaN as null and infinities by name: JSON has none of them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return finite(value.tolist()) if _is_array(value) else value
