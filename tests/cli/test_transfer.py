"""``jimmy export`` and ``jimmy import``, with directories and dry runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from tests.archives.runs import listing

Jimmy = Callable[..., Result]


def test_a_directory_is_listed_like_the_store_itself(jimmy: Jimmy, tmp_path: Path) -> None:
    out = f"{tmp_path}/out/"
    where = ("--where", 'state == "done" and loss <= 0.2')
    assert jimmy("export", out, *where).stdout == f"3 runs written to {out}\n"
    columns = ("--columns", "key,state,epoch,loss,note", "--json")
    here = json.loads(jimmy("ls", *where, *columns).stdout)
    assert json.loads(jimmy("ls", "--store", out, *columns).stdout) == here
    assert jimmy("check", "--store", out).output == "nothing is wrong\n"
    assert "there is something already" in jimmy("export", out, code=1).output


def test_a_dry_run_tells_what_becomes_of_each_run_and_makes_no_store(jimmy: Jimmy, tmp_path: Path) -> None:
    tar, other = str(tmp_path / "x.tar"), str(tmp_path / "other")
    jimmy("export", tar)
    before = listing(tmp_path)
    told = jimmy("import", tar, "--store", other, "--dry-run", code=0).stdout.splitlines()
    assert listing(tmp_path) == before
    assert told[-1] == f"{len(told) - 1} would be added, 0 updated, 0 here already"
    assert all(line.endswith(" would be added") for line in told[:-1])
    jimmy("import", tar, "--store", other)
    again = jimmy("import", str(tmp_path / "store"), "--store", other, "--dry-run").stdout.splitlines()
    assert all(line.endswith(" would be kept as it is here") for line in again[:-1])


def test_an_unknown_field_of_a_filter_is_one_line(jimmy: Jimmy, tmp_path: Path) -> None:
    assert "did you mean 'loss'" in jimmy("export", str(tmp_path / "x.tar"), "--where", "lozs < 1", code=1).output
    assert not (tmp_path / "x.tar").exists()
