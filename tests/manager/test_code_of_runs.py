"""Each run says from which sources it was trained, none of them secret, and a fetch tells when they are others now."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Store
from jimmy_manager.archives import code, layout
from jimmy_manager.errors import CodeChanged
from jimmy_manager.manager import code_changes, git_state, own_sources
from tests.archives.runs import listing
from tests.manager import code_job
from tests.manager.code_job import git, loaded

PATHS = {
    "codejob.py", "defaults.yaml", "codejob_lib/__init__.py", "codejob_lib/net.py", "codejob_side.py",
    "codejob_lazy.py",
}  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Path]:
    git_state.of_folder.cache_clear()
    own_sources._read.clear()
    yield code_job.make(tmp_path / "work")
    code_job.forget()


def trained(file: Path, store: Path, a: int = 1) -> str:
    with loaded(file) as cls:
        return str(cls(store, verbose=False, durable=False).process({"a": a}))


def fetched(file: Path, store: Path, key: str) -> list[str]:
    """The warnings of a fetch in what would be another process."""
    own_sources._read.clear()
    with loaded(file) as cls, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cls(store, read_only=True).fetch(key)
    assert all(each.category is CodeChanged and each.filename == __file__ for each in told)
    return [str(each.message) for each in told]


def test_a_run_names_what_the_job_has_imported_and_its_defaults_and_nothing_else(job: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "S", read_only=False)
    found = store.code(trained(job, tmp_path / "S"))
    assert found is not None
    assert set(found) == PATHS
    assert all(data == (job.parent / path).read_bytes() for path, data in found.items())
    assert not [path for path in (tmp_path / "S").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_in_a_repository_paths_are_those_of_the_repository(job: Path, tmp_path: Path) -> None:
    root = job.parents[1]
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    store = Store(tmp_path / "S", read_only=False)
    key = trained(job, tmp_path / "S")
    assert set(store.code(key) or ()) == {f"jobs/{path}" for path in PATHS}
    assert store.stats[key]["run"]["git"] == {"commit": git(root, "rev-parse", "HEAD"), "dirty": False}
    assert code.uncommitted(store, key) is None


def test_uncommitted_changes_of_sources_are_kept_and_others_only_named(job: Path, tmp_path: Path) -> None:
    root = job.parents[1]
    git(root, "init", "-q")
    git(root, "add", "--force", ".")
    git(root, "commit", "-qm", "one")
    (job.parent / "codejob_side.py").write_text("x = 2\n")
    (job.parent / ".env").write_text("TOKEN=swordfish\n")
    (job.parent / "new.py").write_text("untracked\n")
    store = Store(tmp_path / "S", read_only=False)
    key = trained(job, tmp_path / "S")
    diff = (code.uncommitted(store, key) or b"").decode()
    assert store.stats[key]["run"]["git"]["dirty"] is True
    assert "-x = 1\n+x = 2\n" in diff
    assert ".env" in diff
    assert "swordfish" not in diff
    assert "untracked" not in diff
    git(root, "stash")
    (tmp_path / "d.diff").write_text(diff)
    git(root, "apply", str(tmp_path / "d.diff"))
    assert (job.parent / "codejob_side.py").read_text() == "x = 2\n"


def test_a_long_diff_is_cut_between_files_and_says_so(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = job.parents[1]
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    for path in ("codejob.py", "codejob_lazy.py", "codejob_side.py"):
        (job.parent / path).write_text("\n".join(map(str, range(100))))
    monkeypatch.setattr(git_state, "MOST_DIFF", 1_200)
    state = git_state.of_folder(str(root))
    assert state is not None
    assert state.diff.count(b"\ndiff --git ") == 1
    assert b"'jobs/codejob_lazy.py'\n" in state.diff
    assert b"'jobs/codejob_side.py'\n" in state.diff
    assert len(state.diff) < 2_000


def test_a_folder_in_no_repository_has_no_git(job: Path) -> None:
    assert git_state.of_folder(str(job.parent)) is None


def test_versions_are_those_of_what_the_job_imports(job: Path, tmp_path: Path) -> None:
    job.write_text("import yaml, click\nimport click.testing\n" + job.read_text())
    store = Store(tmp_path / "S", read_only=False)
    versions = store.stats[trained(job, tmp_path / "S")]["run"]["versions"]
    assert {"python", "jimmy_manager", "PyYAML", "click"} <= set(versions)
    assert "pandas" not in versions
    assert not {"codejob", "codejob_side", "os"} & set(versions)


def test_many_runs_write_their_code_once(job: Path, tmp_path: Path) -> None:
    trained(job, tmp_path / "S", 1)
    before = listing(tmp_path / "S" / "code")
    with loaded(job) as cls:
        cls(tmp_path / "S", verbose=False, durable=False).batch({"a": a} for a in range(2, 6))
    assert listing(tmp_path / "S" / "code") == before
    store = Store(tmp_path / "S", read_only=True)
    assert len({stats["run"]["code"] for stats in store.stats.values()}) == 1


def test_what_is_edited_while_the_job_runs_is_recorded_only_once_it_is_reloaded(job: Path, tmp_path: Path) -> None:
    side, store = job.parent / "codejob_side.py", Store(tmp_path / "S", read_only=False)
    with loaded(job) as cls:
        manager = cls(tmp_path / "S", verbose=False, durable=False)
        first = manager.process({"a": 1})
        side.write_text("x = 12345\n")
        second = manager.process({"a": 2})
        importlib.reload(sys.modules["codejob_side"])
        third = manager.process({"a": 3})
    found = [(store.code(key) or {})["codejob_side.py"] for key in (first, second, third)]
    assert found == [b"x = 1\n", b"x = 1\n", b"x = 12345\n"]


def test_what_is_too_much_is_left_out_and_named(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_sources, "MOST_IN_FILE", 1_000)
    monkeypatch.setattr(own_sources, "MOST_FILES", 3)
    (job.parent / "codejob_side.py").write_text("#" * 2_000)
    store = Store(tmp_path / "S", read_only=False)
    tree = code.recorded(store, trained(job, tmp_path / "S"))
    assert tree is not None
    assert len(tree.files) == 3
    assert tree.job == "codejob.py"
    assert "2000 bytes" in tree.left["codejob_side.py"]
    assert set(tree.files) | set(tree.left) == PATHS


def test_of_installed_packages_hidden_folders_and_the_store_nothing_is_taken(job: Path, tmp_path: Path) -> None:
    folder = job.parent
    for place in (folder / "env/lib/site-packages", folder / ".hidden", folder / "store"):
        place.mkdir(parents=True)
        (place / f"codejob_in_{place.name.strip('.')[:4]}.py").write_text("x = 1\n")
    paths = [str(folder / "env/lib/site-packages"), str(folder / ".hidden"), str(folder / "store")]
    names = "codejob_in_site, codejob_in_hidd, codejob_in_stor"
    job.write_text(f"import sys\nsys.path[:0] = {paths!r}\nimport {names}\ndel sys.path[:3]\n{job.read_text()}")
    store = Store(folder / "store", read_only=False)
    assert set(store.code(trained(job, folder / "store")) or ()) == PATHS


def test_a_fetch_warns_of_nothing_where_the_code_is_the_same_or_was_not_recorded(job: Path, tmp_path: Path) -> None:
    key = trained(job, tmp_path / "S")
    assert fetched(job, tmp_path / "S", key) == []
    (job.parent / "defaults.yaml").write_text("a: 1\nb: 2\n")
    (job.parent / "unused.py").write_text("other\n")
    assert fetched(job, tmp_path / "S", key) == []
    (stats,) = (tmp_path / "S" / "stats").rglob("*.json")
    record = Store(tmp_path / "S").history.read_stats(key, 1)
    stats.write_bytes(record._replace(run=code.without_code(record.run)).seal())
    (job.parent / "codejob_side.py").write_text("x = 2\n")
    assert fetched(job, tmp_path / "S", key) == []


def test_a_fetch_warns_with_files_lines_and_command_where_the_code_has_changed(job: Path, tmp_path: Path) -> None:
    key = trained(job, tmp_path / "S")
    (job.parent / "codejob_lib" / "net.py").write_text("def value(a):\n    b = 3.0\n    return b * a\n")
    (job.parent / "codejob_lazy.py").unlink()
    before = listing(tmp_path / "S")
    (told,) = fetched(job, tmp_path / "S", key)
    assert told == (
        f"the code has changed since run {key} was trained: codejob_lazy.py is gone, codejob_lib/net.py +2/-1; "
        f"'jimmy show {key} --store {tmp_path}/S --code DIR' gives what it was then"
    )
    assert listing(tmp_path / "S") == before


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (["a", "b", "c"], ["a", "x", "y", "c"], "+2/-1"),
        (["a"], ["a", "a"], "+1/-0"),
        (["a", "b", "a"], ["a"], "+0/-2"),
        ([], ["a"], "+1/-0"),
        (["x"] * 9_000 + ["a"] + ["x"] * 9_000, ["x"] * 9_000 + ["b"] + ["x"] * 9_000, "+1/-1"),
        (["x"] * 4_000, ["x", "y"] * 2_000, ""),
        (["0,", "1,"] * 2_000, ["1,", "0,", "2,"] * 1_500, ""),
        ([str(n) for n in range(6_000)], [f"{n}." for n in range(6_000)], ""),
    ],
)
def test_sources_are_compared_line_by_line_only_where_that_is_quick(
    before: list[str], after: list[str], told: str
) -> None:
    began = time.monotonic()
    change = code_changes._counted("a.py", *("\n".join(lines).encode() for lines in (before, after)))
    assert str(change) == f"a.py {told}".strip()
    assert time.monotonic() - began < 5


def test_a_copy_of_the_job_elsewhere_is_the_same_code(job: Path, tmp_path: Path) -> None:
    key = trained(job, tmp_path / "S")
    root = tmp_path / "elsewhere"
    copied = code_job.make(root / "deeper")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    assert fetched(copied, tmp_path / "S", key) == []
    (copied.parent / "codejob_lazy.py").write_text("y = 2\n")
    assert ["codejob_lazy.py +1/-1" in each for each in fetched(copied, tmp_path / "S", key)] == [True]


def test_a_fetch_survives_damage_of_what_was_recorded(
    job: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = trained(job, tmp_path / "S")
    digest = code.tree_of(code.run_of(Store(tmp_path / "S"), key))
    (tmp_path / "S" / layout.code(str(digest))).write_bytes(b"other")
    with caplog.at_level(logging.WARNING):
        assert fetched(job, tmp_path / "S", key) == []
    assert str(digest) in caplog.text


NOTEBOOK = """
import linecache, sys
from jimmy_manager import Manager

PASSWORD = "hunter2"

def cell(number, text):
    name = f"<cell {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), globals())

cell(1, 'PASSWORD = "hunter2"\\ndef twice(a):\\n    return 2 * a\\n')
cell(2, '''class Noted(Manager):
    num_epochs = 1
    def train(self): pass
    def eval(self): return {"loss": twice(self.config.a)}
''')
class Unknown(Manager): pass
manager = Noted("S", {"a": 1}, verbose=False)
one = manager.process({})
cell(3, 'def twice(a):\\n    return a + a\\n')
two = manager.process({"a": 2})
print(one, two)
"""


def test_of_a_notebook_the_classes_and_functions_are_kept_and_no_whole_cell(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-W", "error", "-c", "import sys; exec(sys.stdin.read(), globals())"]
    done = subprocess.run(command, input=NOTEBOOK, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "S", read_only=True)
    found: list[Any] = [store.code(key) for key in done.stdout.split()]
    assert [each["notebook/twice.py"] for each in found] == [
        b"def twice(a):\n    return 2 * a\n", b"def twice(a):\n    return a + a\n",
    ]
    assert found[0]["notebook/Noted.py"].startswith(b"class Noted(Manager):\n    num_epochs = 1\n")
    tree = code.recorded(store, done.stdout.split()[0])
    assert tree is not None
    assert "not known" in tree.left["Unknown"]
    assert b"hunter2" not in b"".join(path.read_bytes() for path in (tmp_path / "S").rglob("*") if path.is_file())


def test_a_model_that_does_not_load_any_more_is_preceded_by_the_warning(job: Path, tmp_path: Path) -> None:
    """That is when it is needed most: what torch says of missing keys does not tell why they are missing."""
    key = trained(job, tmp_path / "S")
    job.write_text(job.read_text() + "\n    def load_ckpt(self):\n        raise RuntimeError('Missing key(s)')\n")
    own_sources._read.clear()
    with loaded(job) as cls, pytest.warns(CodeChanged, match="codejob.py"), pytest.raises(RuntimeError):
        cls(tmp_path / "S", read_only=True).fetch(key)
