"""``jimmy doctor`` and ``jimmy init`` as people meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jimmy_manager import Store
from jimmy_manager.archives import filesystem
from jimmy_manager.cli.main import main
from jimmy_manager.cluster import doctor as examination
from jimmy_manager.cluster import prescription, racer
from jimmy_manager.cluster.place import Place
from jimmy_manager.cluster.races import Tally
from jimmy_manager.cluster.remark import Remark

Jimmy = Callable[..., Result]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_doctor_says_in_eighty_columns_that_all_is_well(jimmy: Jimmy, store: Path, wide: None) -> None:
    lines = jimmy("doctor", str(store)).output.splitlines()
    assert max(map(len, lines)) <= 80
    subjects = {line[9:22].strip() for line in lines if line[:9].strip() in ("ok", "note")}
    assert {"python", "torch", "devices", "store", "space", "permissions", "links", "claims"} <= subjects
    assert "50 of 50 races had one winner" in " ".join(line.strip() for line in lines)
    assert not (store / ".doctor").exists()


def test_json_is_for_scripts(jimmy: Jimmy, store: Path) -> None:
    found = json.loads(jimmy("doctor", str(store), "--json").stdout)
    assert {"level", "subject", "text", "remedy", "forbids"} == set(found["remarks"][0])


def test_where_nobody_should_train_the_exit_code_is_1(
    jimmy: Jimmy, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [Tally(kind, 50, 40, 0, 10, 3, {}) for kind in racer.KINDS]
    options = {"race": lambda place: broken, "kind": Place}
    monkeypatch.setattr(examination.examine, "__kwdefaults__", options)
    result = jimmy("doctor", str(store), code=1)
    assert "nobody should train here" in result.output
    assert "> keep the store on another file system" in result.output


def test_a_problem_that_forbids_nothing_is_no_failure(
    jimmy: Jimmy, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks = [Remark("problem", "torch", "cannot be \x1b[2J imported", "install it"), Remark("note", "umask", "0077")]
    monkeypatch.setattr(examination, "examine", lambda store: iter(remarks))
    result = jimmy("doctor", str(store))
    assert result.output.splitlines()[-1] == "1 problem, 1 note"
    assert r"\x1b[2J" in result.output


def test_nobody_comes_to_a_doctor_who_waits(jimmy: Jimmy, store: Path) -> None:
    result = jimmy("doctor", "--peer", "--timeout", "0.2", str(store), code=1)
    assert f"jimmy doctor --peer {store}" in result.stderr
    assert "nobody came within 0.2 s" in result.stderr


def test_a_refused_store_says_so_to_whoever_writes(jimmy: Jimmy, store: Path) -> None:
    prescription.write(str(store), {"doctor": {"refused": "on nfs4 (x) two won"}})
    result = jimmy("pop", "--yes", next(iter(Store(store, read_only=True).keys())), code=1)
    assert "nfs4 (x) two won; move the store to another file system" in result.stderr
    assert jimmy("ls").exit_code == 0
    assert "two won" in jimmy("doctor", str(store), code=1).output


def test_a_refused_store_that_was_moved_to_a_disk_of_one_machine_is_freed_by_reset(
    jimmy: Jimmy, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prescription.write(str(store), {"doctor": {"refused": "on nfs4 (x) two won"}, "stale_s": 33.0})
    monkeypatch.setattr(filesystem, "kind", lambda path: "nfs4")
    assert "run 'jimmy doctor --peer --reset' on both" in jimmy("doctor", "--reset", str(store), code=1).stderr
    monkeypatch.setattr(filesystem, "kind", lambda path: "ext4")
    jimmy("doctor", "--reset", str(store))
    info = Store(store).info
    assert (info.refused, info.stale_s, info.doctor) == ("", None, None)
    Store(store).register({"lr": 7.0})


def test_init_makes_a_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def jimmy(*words: str) -> Result:
        return CliRunner().invoke(main, words, prog_name="jimmy")

    assert jimmy("init", "--key-len", "12").output == "an empty store was made at store, with keys of 12 digits\n"
    assert Store("store").info.key_len == 12
    assert jimmy("init").output == "store is a store already, and nothing was changed\n"
    wrong = jimmy("init", "--key-len", "8")
    assert (wrong.exit_code, "keys of 12 digits" in wrong.output) == (2, True)
    assert Store("store").info.shared == ""


def test_init_opens_a_store_that_is_there_to_the_group(jimmy: Jimmy, store: Path) -> None:
    (store / "store.yaml").chmod(0o600)
    told = jimmy("init", str(store), "--shared", "group").output
    assert "is a store already" in told
    assert "members of the group" in told
    assert Store(store).info.shared == "group"
    assert (store / "store.yaml").stat().st_mode & 0o777 == 0o660
    assert (store / "configs").stat().st_mode & 0o7777 == 0o2770
    assert jimmy("check", "--quick").output.count("mode: ") == 0
