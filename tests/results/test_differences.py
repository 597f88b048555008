"""What differs between runs, on a store with one of everything."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401  # loaded later, it would be a difference between two runs

from jimmy_manager import Manager, Store
from jimmy_manager.errors import AmbiguousKey, KeyNotFound, StoreError
from jimmy_manager.results import differences
from jimmy_manager.results.differences import Difference
from tests.archives.runs import attempt_at, commit

HOSTILE = "<script>alert(1)</script>\x1b[2J"


class Line(Manager):
    num_epochs = 2

    def train(self) -> None:
        pass

    def eval(self) -> dict[str, Any]:
        lr = self.config.lr
        return {
            "loss": lr / (1 + self.epoch), "acc": 0.5, "nan": float("nan"), "note": self.config.note,
            "curve": np.arange(3.0) * lr, "deep": {"list": [lr, 1], "flag": True}, **({"extra": 1} if lr > 1 else {}),
        }  # fmt: skip


DEFAULTS = {"lr": 1.0, "note": "plain", "optim": {"wd": 0.0}, "sizes": [1, 2], "one": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "store"
    manager = Line(directory, DEFAULTS, verbose=False, device="cpu")
    for fields in ({}, {"lr": 2.0}, {"lr": 2.0, "note": HOSTILE}, {"one": True}, {"optim.nesterov": None}):
        manager.process(fields)
    manager.process({"lr": 2.0}, num_epochs=3)
    manager.store.register(manager.get_config({"lr": 9.0}))
    return directory


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(made, tmp_path / "store"), read_only=True)


def key_of(store: Store, **fields: Any) -> str:
    from jimmy_manager import Config

    whole = Config(DEFAULTS)
    whole.update(fields)
    return store.configs.get_key(whole)


def test_two_runs_differ_in_what_differs_and_in_nothing_else(store: Store) -> None:
    a, b = key_of(store), key_of(store, lr=2.0)
    found = store.diff(a[:6], b)
    assert found.keys == (a, b)
    assert found.run == {"epoch": (2, 3)}
    assert found.config == {"lr": (1.0, 2.0)}
    assert list(found.preview) == ["loss", "curve", "deep.list", "extra"]
    assert found.preview["loss"] == (1.0 / 3, 2.0 / 4)
    assert found.preview["extra"] == (None, 1)
    assert found.preview["deep.list"] == ([1.0, 1], [2.0, 1])
    assert (found.code, found.environment) == ({}, {})
    assert found.equal_fields == 4


def check_that_kinds_are_told_apart(store: Store, pairs: Callable[[Any, Any], Any]) -> None:
    assert pairs(1, True), "True is not 1"
    assert not pairs(1, 1.0), "1 is 1.0"
    assert pairs(None, differences._MISSING), "a field that is None is not one that is missing"
    assert not pairs(math.nan, math.nan), "NaN is NaN"
    assert pairs(math.nan, 1.0)
    assert not pairs([1, math.nan], [1, math.nan])
    assert pairs([1], [True])
    assert pairs({"a": [0]}, {"a": [False]})
    assert pairs(np.arange(2), np.arange(2.0))
    assert not pairs(np.array([np.nan]), np.array([np.nan]))
    assert pairs(np.arange(2), [0, 1])


def test_values_are_the_same_as_they_are_for_keys(store: Store) -> None:
    check_that_kinds_are_told_apart(store, lambda a, b: not differences._is_same(a, b))
    assert store.diff(key_of(store), key_of(store, one=True)).config == {"one": (1, True)}
    assert store.diff(key_of(store), key_of(store, **{"optim.nesterov": None})).config == {
        "optim.nesterov": (None, None)
    }


@pytest.mark.parametrize("broken", [lambda a, b: a != b, lambda a, b: repr(a) != repr(b)])
def test_a_comparison_by_equality_or_by_text_is_caught(store: Store, broken: Callable[[Any, Any], Any]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_that_kinds_are_told_apart(store, broken)


def test_code_and_environment_are_told_apart(store: Store) -> None:
    a, b = key_of(store), key_of(store, lr=2.0)

    def other(key: str) -> Any:
        stats = committed(key)
        run = dict(stats.run) | {"host": "node7", "git": {"commit": "f" * 40, "dirty": True}}
        return stats._replace(run=run) if key == b else stats

    committed, store.committed = store.committed, other  # type: ignore[method-assign]
    run = store.stats[a]["run"]
    found = store.diff(a, b)
    assert found.environment == {"host": (run["host"], "node7")}
    assert found.code["commit"][1] == "f" * 40
    assert store.compare([a, b]).loc[("run", "commit"), b] == "f" * 40
    text = str(found)
    assert "f" * 12 in text
    assert "f" * 13 not in text
    assert "environment" in text.splitlines()


JOB = """
import sys
from jimmy_manager import Manager

class Job(Manager):
    def train(self): pass
    def eval(self): return {"loss": VALUE}

print(Job("store", {"lr": 0.1}, verbose=False, device="cpu").process({"lr": float(sys.argv[1])}, 1))
"""


def test_sources_that_differ_are_named_each(tmp_path: Path) -> None:
    def train(value: int) -> str:
        (tmp_path / "job.py").write_text(JOB.replace("VALUE", str(value)))
        command = [sys.executable, "job.py", str(value)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    one, two = train(1), train(2)
    store = Store(tmp_path / "store", read_only=True)
    found = store.diff(one, two)
    assert found.code.keys() == {"sources", "job.py"}
    assert all(len(digest) == 64 for digest in found.code["job.py"])
    assert ("run", "sources") in store.compare([one, two]).index
    assert ("run", "job.py") not in store.compare([one, two]).index


def test_a_difference_is_readable_and_has_no_control_characters(store: Store) -> None:
    found = store.diff(key_of(store, lr=2.0), key_of(store, lr=2.0, note=HOSTILE))
    text = str(found)
    assert text.splitlines()[0].split() == list(found.keys)
    assert "config" in text.splitlines()
    assert "<script>alert(1)</script>\\x1b[2J" in text
    assert all(char == "\n" or char.isprintable() for char in text)
    assert text.endswith("4 more fields of the configurations are equal")


def test_in_html_everything_is_escaped(store: Store) -> None:
    html = store.diff(key_of(store, lr=2.0), key_of(store, lr=2.0, note=HOSTILE))._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html
    assert Difference(("a<b", "c"), {}, {"<i>": (1, 2)}, {}, {}, {})._repr_html_().count("<i>") == 0


def test_a_difference_of_one_run_says_so(store: Store) -> None:
    found = store.diff(key_of(store), key_of(store))
    assert found.to_dict() == {
        "keys": [key_of(store)] * 2, "run": {}, "config": {}, "preview": {}, "code": {}, "environment": {}
    }  # fmt: skip
    assert str(found) == f"both are run {key_of(store)}"
    assert "both are run" in found._repr_html_()


def test_a_run_without_results_is_compared_by_its_configuration(store: Store) -> None:
    found = store.diff(key_of(store), key_of(store, lr=9.0))
    assert found.run == {"state": ("done", "new"), "epoch": (2, None)}
    assert found.config == {"lr": (1.0, 9.0)}
    assert found.preview["acc"] == (0.5, None)
    json.dumps({name: each for name, each in found.to_dict().items() if name != "preview"})


def test_many_runs_are_compared_row_by_row(store: Store) -> None:
    keys = [key_of(store), key_of(store, lr=2.0), key_of(store, lr=9.0)]
    frame = store.compare([keys[0][:5], *keys[1:], keys[0]])
    assert list(frame.columns) == keys
    assert frame.index.names == ["section", "name"]
    assert frame.loc["config"].index.tolist() == ["lr"]
    assert frame.loc[("config", "lr")].tolist() == [1.0, 2.0, 9.0]
    assert frame.loc[("run", "epoch")].tolist() == [2, 3, None]
    assert frame.loc[("run", "state")].tolist() == ["done", "done", "new"]
    assert {"loss", "acc", "extra", "deep.flag"} <= set(frame.loc["preview"].index)
    assert not {"curve", "deep.list"} & set(frame.loc["preview"].index)


def test_what_is_equal_in_all_runs_is_no_row(store: Store) -> None:
    frame = store.compare([key_of(store, lr=2.0), key_of(store, lr=2.0, note=HOSTILE)])
    assert set(frame.index) == {("run", "epoch"), ("config", "note"), ("preview", "note"), ("preview", "loss")}
    for keys in ([key_of(store)], key_of(store), []):
        empty = store.compare(keys)
        assert len(empty) == 0
        assert empty.index.names == ["section", "name"]


def test_the_ledger_s_view_counts(store: Store) -> None:
    Store(store.directory).edit_schema("rename", "lr", "optim.lr")
    seen = Store(store.directory, read_only=True)
    keys = sorted(seen.keys())[:3]
    assert ("config", "lr") not in seen.compare(keys).index
    assert seen.table(columns=["optim.lr"]).shape[1] == 1


def test_damage_is_named_and_the_rest_is_compared(store: Store) -> None:
    a, b = key_of(store), key_of(store, lr=2.0)
    for path in (Path(store.directory or "") / "previews").rglob(f"{b}.*"):
        path.write_bytes(b"x")
    for path in (Path(store.directory or "") / "configs").rglob(f"{a}.*"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="some runs are shown in part") as told:
        frame = store.compare([a, b])
    with pytest.warns(UserWarning, match="some runs are shown in part"):
        assert store.diff(a, b).run == {"epoch": (2, 3)}
    assert frame.loc[("preview", "acc")].tolist() == [0.5, None]
    assert frame.loc[("config", "lr")].tolist() == [None, 2.0]
    assert f"previews/{b[:2]}/{b}" in str(told[0].message)
    assert f"configs/{a[:2]}/{a}" in str(told[0].message)
    assert told[0].filename == __file__


def test_runs_that_are_not_there_are_one_clear_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyNotFound):
        store.diff(key_of(store), "ffffffff")
    with pytest.raises(KeyNotFound):
        store.compare(["", key_of(store)])
    writable = Store(store.directory)
    others = [writable.register(DEFAULTS | {"lr": 20.0 + n}).key for n in range(17)]
    shared = next(key[0] for key in others if sum(other[0] == key[0] for other in others) > 1)
    with pytest.raises(AmbiguousKey):
        store.compare([shared])
    writable.pop(key_of(store))
    with pytest.raises(KeyNotFound, match="popped"):
        store.diff(key_of(store, lr=2.0), key_of(store))
    with pytest.raises(StoreError):
        Store(tmp_path / "nowhere", read_only=True)


def test_a_thousand_fields_are_compared_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    keys = [store.register({f"field{n}": n + each for n in range(1000)}).key for each in range(3)]
    assert len(store.compare(keys)) == 1000
    assert len(str(store.diff(*keys[:2])).splitlines()) == 1000 + 3


def test_comparing_writes_nothing_and_reads_no_checkpoint(store: Store) -> None:
    for path in (Path(store.directory or "") / "ckpts").rglob("*.pt"):
        path.unlink()
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in Path(store.directory or "").rglob("*"))
    store.compare(list(store.keys()))
    store.diff(*list(store.keys())[:2])
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in Path(store.directory or "").rglob("*")) == before


def test_what_no_encoding_writes_is_spelled_out_for_a_notebook(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    for number, note in enumerate(("a\udc80", "b")):
        commit(attempt_at(store, {"number": number}), 1, note=note, **{note: number})
    found = store.compare(store.keys())
    assert "a\\udc80" in found._repr_html_().encode().decode()
    assert ("preview", "a\\udc80") in found.index
    assert found.to_csv().encode()
