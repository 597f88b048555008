"""``jimmy gc`` tells first, and does the same then."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from jimmy_manager import Store
from tests.archives.runs import listing

Jimmy = Callable[..., Result]


def test_without_yes_it_tells_each_file_and_writes_nothing(
    jimmy: Jimmy, store: Path, key_of: Callable[..., str]
) -> None:
    before = listing(store)
    told = jimmy("gc", "--keep-best", "1", "--metric", "loss").stdout.splitlines()
    assert listing(store) == before
    heads = [line for line in told if line.startswith("run ")]
    assert {line.split(": checkpoint, ")[0] for line in heads} == {
        f"run {key_of(lr=0.2)}", f"run {key_of(lr=0.3)}",
        *[f"run {key}" for key, config in Store(store).configs.items() if config.name.startswith("evil")],
    }
    assert told[-1].startswith("3 runs, ")
    assert told[-1].endswith(" would be freed; --yes does it")
    names = [line.strip() for line in told if line.startswith("    ")]
    assert names
    assert all((store / name).is_file() for name in names)


def test_with_yes_it_does_what_was_told(jimmy: Jimmy, store: Path) -> None:
    foretold = json.loads(jimmy("gc", "--keep-best", "1", "--metric", "loss", "--json").stdout)
    done = json.loads(jimmy("gc", "--keep-best", "1", "--metric", "loss", "--json", "--yes").stdout)
    assert (done["size"], done["left"]) == (foretold["size"], {})
    assert not any((store / name).exists() for item in done["items"] for name in item["names"])
    assert jimmy("gc", "--keep-best", "1", "--metric", "loss", "--yes").stdout == "0 runs, 0 bytes freed\n"
    told = jimmy("show", next(item["key"] for item in done["items"] if item["key"])).stdout
    assert "without its checkpoint" in told
    assert re.search(r"gc +took the checkpoint 20", told)
    jimmy("prune")  # what the popped run has left
    assert jimmy("check").output == "nothing is wrong\n"


def test_nothing_asked_for_and_what_is_not_clear_are_one_line(jimmy: Jimmy) -> None:
    assert jimmy("gc", code=1).output.startswith("error: what may go? superseded commits (--superseded)")
    assert "--mode" in jimmy("gc", "--keep-best", "1", "--metric", "loss", "--mode", "up", code=2).output
    assert "did you mean 'loss'" in jimmy("gc", "--keep-best", "1", "--metric", "los", code=1).output
    assert "^" in jimmy("gc", "--superseded", "--where", "lr <", code=1).output


def test_popped_runs_go_with_offline(jimmy: Jimmy, store: Path) -> None:
    told = jimmy("gc", "--offline", "--yes").stdout
    assert "popped run" in told
    assert jimmy("check").output == "nothing is wrong\n"


def test_show_and_ls_show_a_run_without_its_checkpoint_as_finished(
    jimmy: Jimmy, key_of: Callable[..., str]
) -> None:
    key = key_of(lr=0.1)
    jimmy("gc", "--older-than", "0s", "--yes")
    assert f"run {key}: done after epoch 2" in jimmy("show", key).stdout
    rows = json.loads(jimmy("ls", "--json", "--where", f'key == "{key}"').stdout)
    assert rows[0]["state"] == "done"
