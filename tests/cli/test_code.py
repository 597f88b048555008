"""``jimmy show --code`` and ``jimmy export-model``: what a run was trained from, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from jimmy_manager import Store
from jimmy_manager.archives import code, layout
from jimmy_manager.archives.code import Snapshot
from jimmy_manager.archives.record import seal
from jimmy_manager.cli.main import main
from jimmy_manager.errors import StoreError
from jimmy_manager.manager import git_state, own_sources
from jimmy_manager.results import code_files
from jimmy_manager.yaml12 import loads
from tests.archives.runs import attempt_at, commit, listing, train
from tests.manager import code_job

SOURCES = {"jobs/first.py": b"import net\n", "jobs/lib/net.py": b"raise SystemExit('never run')\n"}
DIFF = b"diff --git a/jobs/net.py b/jobs/net.py\n"
MODEL = """
import torch

class Model(torch.nn.Linear):
    pass
"""
EXPORTED = """
from jimmy_manager import Manager
from codejob_model import Model

class Exported(Manager):
    num_epochs = 1
    state = ("model",)

    def setup(self, config):
        super().setup(config)
        self.model = Model(2, 2)

    def train(self): pass
    def eval(self): return {"loss": 1.5}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "S", durable=False, stale_s=0)


@pytest.fixture
def key(store: Store) -> str:
    attempt = attempt_at(store, {"seed": 0})
    tree = store.sources.keep(Snapshot.of("jobs/first.py", SOURCES, {"jobs/big\x1b.py": "it has 9 bytes\x1b"}))
    attempt.describe({"code": tree, "git": {"commit": "c0ffee", "dirty": True, "diff": store.sources.keep_text(DIFF)}})
    commit(attempt, 1)
    attempt.finish()
    return attempt.key


@pytest.fixture
def jimmy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("JIMMY_STORE", str(store))

    def call(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(main, list(map(str, arguments)), prog_name="jimmy")
        assert result.exit_code == code, result.output
        assert "\x1b" not in result.output
        return result

    return call


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_show_tells_how_many_files_were_recorded(jimmy: Callable[..., Result], store: Store, key: str) -> None:
    digest = str(code.tree_of(code.run_of(store, key)))
    assert f"code  2 files, 1 more left out, {digest[:12]}; --code DIR" in jimmy("show", key).stdout
    told = json.loads(jimmy("show", key, "--json").stdout)["code"]
    assert (told["digest"], sorted(told["files"])) == (digest, sorted(SOURCES))
    other = train(store, {"seed": 1})
    assert json.loads(jimmy("show", other, "--json").stdout)["code"] is None
    assert "  code" not in jimmy("show", other).stdout


def test_the_sources_of_then_are_written_with_what_was_uncommitted(
    jimmy: Callable[..., Result], store: Store, key: str, tmp_path: Path
) -> None:
    before = listing(tmp_path / "S")
    told = jimmy("show", key, "--code", tmp_path / "then").stdout
    assert files_of(tmp_path / "then") == {**SOURCES, "uncommitted.diff": DIFF}
    assert told.splitlines() == [
        f"2 files written to {tmp_path}/then", "from commit c0ffee with uncommitted.diff on top",
        "not recorded: jobs/big\\x1b.py: it has 9 bytes\\x1b",
    ]
    assert listing(tmp_path / "S") == before
    told = jimmy("show", key, "--code", tmp_path / "again", "--json").stdout
    assert json.loads(told)["paths"] == [*SOURCES, "uncommitted.diff"]


def test_a_folder_that_holds_anything_is_refused(jimmy: Callable[..., Result], key: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    assert "not empty" in jimmy("show", key, "--code", tmp_path / "full", code=1).stderr
    assert files_of(tmp_path / "full") == {".hidden": b"mine"}
    jimmy("show", key, "--code", tmp_path / "full" / ".hidden", code=2)
    (tmp_path / "empty").mkdir()
    jimmy("show", key, "--code", tmp_path / "empty")


def test_a_run_without_code_says_so(jimmy: Callable[..., Result], store: Store, tmp_path: Path) -> None:
    key = train(store, {"seed": 1})
    assert "no record of its code" in jimmy("show", key, "--code", tmp_path / "then", code=1).stderr
    assert not (tmp_path / "then").exists()


def test_a_damaged_source_is_named_and_the_others_are_written(
    jimmy: Callable[..., Result], store: Store, key: str, tmp_path: Path
) -> None:
    tree = code.tree(store, key)
    assert tree is not None
    (tmp_path / "S" / layout.code(tree["jobs/first.py"])).write_bytes(b"other")
    told = jimmy("show", key, "--code", tmp_path / "then", code=1).stderr
    assert told.startswith("error: jobs/first.py was not written: damaged file code/")
    assert set(files_of(tmp_path / "then")) == {"jobs/lib/net.py", "uncommitted.diff"}
    (tmp_path / "S" / layout.code(str(code.tree_of(code.run_of(store, key))))).unlink()
    assert "missing file code/" in jimmy("show", key).stdout
    assert "missing file code/" in jimmy("show", key, "--code", tmp_path / "no", code=1).stderr


@pytest.mark.parametrize("path", ["../up.py", "/tmp/codejob_root.py", "a/../../up.py", ".git/hooks/x.py", ".bashrc"])
def test_a_tree_that_leads_out_of_the_folder_writes_nothing(
    jimmy: Callable[..., Result], store: Store, tmp_path: Path, path: str
) -> None:
    attempt = attempt_at(store, {"seed": 2})
    digest = store.sources.keep_text(b"owned\n")
    tree = {"job": "", "files": {"good.py": [6, digest], path: [6, digest]}, "left": {}}
    attempt.describe({"code": store.sources.keep_text(seal("code", tree))})
    commit(attempt, 1)
    before = set(tmp_path.rglob("*"))
    assert "paths or values that no tree has" in jimmy("show", attempt.key, "--code", tmp_path / "t", code=1).stderr
    assert {each for each in set(tmp_path.rglob("*")) - before if "stats" not in str(each)} == set()


def test_a_link_that_somebody_puts_into_the_folder_is_not_followed(
    store: Store, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = code_files._write

    def racing(target: Path, path: str, data: bytes) -> None:
        if path == "jobs/lib/net.py":
            (target / "jobs" / "lib").symlink_to(tmp_path / "elsewhere")
        real(target, path, data)

    monkeypatch.setattr(code_files, "_write", racing)
    with pytest.raises(StoreError, match="leads out of"):
        code_files.write(store, key, tmp_path / "then")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    job = tmp_path / "jobs" / "codejob_export.py"
    job.parent.mkdir()
    job.write_text(EXPORTED)
    (job.parent / "codejob_model.py").write_text(MODEL)
    git_state.of_folder.cache_clear()
    own_sources._read.clear()
    with code_job.loaded(job) as cls:
        yield job, cls(tmp_path / "S", verbose=False, durable=False).process({"a": 1})
    code_job.forget()
    own_sources._read.clear()


def test_export_model_writes_weights_and_configuration_and_warns_where_the_code_has_changed(
    jimmy: Callable[..., Result], exported: tuple[Path, Any], tmp_path: Path
) -> None:
    job, key = exported
    code_job.forget()
    told = jimmy("export-model", job, key[:4], tmp_path / "out")
    assert (told.stdout, told.stderr) == (f"run {key} was written to {tmp_path}/out\n", "")
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == {"weight", "bias"}
    assert loads((tmp_path / "out" / "config.yaml").read_text())["metrics"] == {"loss": 1.5}
    assert "exists already" in jimmy("export-model", job, key, tmp_path / "out", code=1).stderr
    code_job.forget()
    own_sources._read.clear()
    (job.parent / "codejob_model.py").write_text(MODEL + "# more\n")
    told = jimmy("export-model", job, key, tmp_path / "other")
    assert told.stderr.startswith(f"warning: the code has changed since run {key} was trained: codejob_model.py +1/-0;")
