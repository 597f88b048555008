"""Imports run one way only, and looking never pays for torch.

The layers below are this test's own copy of section 3 of the design: a module that is in none of them fails, so that
nobody adds one without deciding where it stands.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "jimmy_manager"
SOURCE = Path(__file__).resolve().parents[1] / PACKAGE

# Each layer names whom it may import besides itself. The first matching prefix of a module decides its layer.
BASE = {"settings", "identity"}
CORE = {"settings"}
LAYERS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "settings": (
        (
            "errors", "values", "nesting", "targets", "config", "yaml12", "grid", "packing", "random_state", "signals",
            "slurm", "slurm_queue", "modes", "plain_text", "html", "better",
        ),
        {"identity"},
    ),
    "identity": (("keys", "schema"), CORE),
    "trained": (("manager.trained",), {*BASE, "archives", "manager", "data", "training"}),
    "archives": (("archives",), BASE),
    "manager": (("manager",), {*BASE, "archives"}),
    "views": (("results", "cluster"), {*BASE, "archives", "manager"}),
    "dashboard": (("dashboard",), {*BASE, "archives", "manager", "views"}),
    "cli": (("cli", "__main__"), {*BASE, "archives", "manager", "views", "dashboard"}),
    "data": (("devices", "state_files", "datasets", "models"), CORE),
    "training": (("diffusion", "training"), {*CORE, "data"}),
    "apps": (("toolbox", "vision"), {*CORE, "data", "training"}),
}
LEFT = {*BASE, "archives", "manager", "views", "dashboard", "cli"}
# The calls that go up: `python jobs/digits.py sweep` is the command line, entered through the Manager; and what can be
# asked of a Store and a Manager alike is answered by `results`, entered through `archives.looking` alone.
# Only inside a function, so that no module needs what is above it in order to be imported.
DOORS = {
    ("manager", "cli.main"),
    *(("archives", f"results.{each}") for each in ("frame", "groups", "differences", "curves", "plots", "run_results")),
    *(("archives", f"results.{each}") for each in ("summary", "gallery", "runs_by_key")),
}
HEAVY = ("torch", "tensorboard")
FREE_OF = ("torch", "pandas", "matplotlib", "numpy", "rich", "filelock", "yaml")


@dataclass(frozen=True)
class Import:
    """One import of a module, absolute, with where it stands; ``late`` ones run inside a function or never."""

    name: str
    line: int
    late: bool


def layer_of(module: str) -> str | None:
    """Name the layer of a module, given without the package's own name."""
    for layer, (prefixes, _) in LAYERS.items():
        if any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes):
            return layer
    return None


def is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def imports(tree: ast.AST, module: str, is_package: bool, late: bool = False) -> Iterator[Import]:
    """Yield every import below ``tree``, at any depth, also those through ``import_module`` with a literal name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module, is_package)
            yield from (Import(f"{source}.{alias.name}", node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node.func) in ("import_module", "__import__"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            yield from (Import(name, node.lineno, late) for name in names[:1])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == PACKAGE:
            yield Import(f"{PACKAGE}.{node.attr}", node.lineno, late)
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.body:
                yield from imports(ast.Module([child], []), module, is_package, True)
            yield from imports(ast.Module(node.orelse, []), module, is_package, late)
        else:
            deeper = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, module, is_package, late or deeper)


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Resolve ``from ..x import y`` as the interpreter would."""
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def called(function: ast.expr) -> str | None:
    return getattr(function, "id", None) or getattr(function, "attr", None)


def exports(source: Path) -> dict[str, str]:
    """Map the public names of the package to the modules that they come from, read from its ``_HOME`` table."""
    for node in ast.parse((source / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "_HOME":
            table: dict[str, str] = ast.literal_eval(node.value)
            return table
    raise AssertionError("jimmy_manager/__init__.py has no _HOME table")


def module_name(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(source: Path) -> list[str]:
    """Say of each import under ``source`` that runs against the layers where it stands and what it reaches."""
    homes, found = exports(source), []
    for path in sorted(source.rglob("*.py")):
        module = module_name(path, source)
        if not module:
            continue  # the lazy facade: it imports nothing when it is imported, which has its own test below
        here, where = layer_of(module), path.relative_to(source.parent)
        if here is None:
            found.append(f"{where}: {module} belongs to no layer; add it to LAYERS in tests/test_imports.py")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for each in imports(tree, module, path.name == "__init__.py"):
            if here in LEFT and not each.late and each.name.split(".")[0] in HEAVY:
                found.append(f"{where}:{each.line}: {each.name} at module level on the store side")
            if not each.name.startswith(PACKAGE + "."):
                continue
            target = each.name.removeprefix(PACKAGE + ".")
            first, _, rest = target.partition(".")
            if first.startswith("__") and first != "__main__":
                continue  # __version__ and the like: of the package itself
            target = homes[first] if first in homes and not (rest or (source / f"{first}.py").exists()) else target
            there = layer_of(target)
            is_door = each.late and any(here == a and f"{target}.".startswith(f"{b}.") for a, b in DOORS)
            if there != here and there not in LAYERS[here][1] and not is_door:
                found.append(f"{where}:{each.line}: {here} must not import {target} ({there or 'no layer'})")
    return found


def run(code: str) -> str:
    """Run ``code`` in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_run_one_way_only() -> None:
    assert violations(SOURCE) == []


def test_every_module_of_the_package_is_looked_at() -> None:
    looked_at = {module_name(path, SOURCE) for path in SOURCE.rglob("*.py")}
    assert {"", "errors"} <= looked_at
    assert all(path.parent == SOURCE or (path.parent / "__init__.py").exists() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize(
    ("where", "code", "complaint"),
    [
        ("archives/store.py", "from jimmy_manager.manager.manager import Manager", "archives must not import manager"),
        ("archives/store.py", "def f():\n    from jimmy_manager.manager import manager", "archives must not import"),
        (
            "archives/store.py",
            "def f():\n    from ..manager.manager import Manager",
            "archives must not import manager",
        ),
        ("archives/__init__.py", "from ..manager import manager", "archives must not import manager"),
        (
            "archives/store.py",
            "class A:\n    def f(self):\n        from jimmy_manager import Manager",
            "manager.manager",
        ),
        ("archives/store.py", "import jimmy_manager\ndef f():\n    return jimmy_manager.Manager", "manager.manager"),
        (
            "archives/store.py",
            "from importlib import import_module\nimport_module('jimmy_manager.cli.main')",
            "cli.main",
        ),
        (
            "keys.py",
            "if TYPE_CHECKING:\n    from jimmy_manager.archives.store import Store",
            "identity must not import",
        ),
        ("manager/manager.py", "from jimmy_manager.cli.main import main", "manager must not import cli.main"),
        ("manager/manager.py", "def f():\n    import jimmy_manager.results.table", "manager must not import results"),
        (
            "manager/manager.py",
            "def f():\n    import jimmy_manager.manager.trained",
            "manager must not import manager.t",
        ),
        ("training/trainer.py", "from jimmy_manager.keys import digest", "training must not import keys"),
        ("datasets/base.py", "from jimmy_manager.training.trainer import Trainer", "data must not import training"),
        (
            "cli/main.py",
            "try:\n    import torch.nn as nn\nexcept ImportError:\n    nn = None",
            "torch.nn at module level",
        ),
        ("results/table.py", "from torch import Tensor", "torch.Tensor at module level"),
        ("helpers.py", "", "helpers belongs to no layer"),
    ],
)
def test_the_checker_catches_a_broken_twin(tmp_path: Path, where: str, code: str, complaint: str) -> None:
    twin = broken_twin(tmp_path, where, code)
    assert [complaint in each for each in violations(twin)] == [True], violations(twin)


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("archives/checkpoints.py", "def f():\n    import torch"),
        ("archives/store.py", "from jimmy_manager import Config, JimmyError, __version__\nfrom .. import errors"),
        ("archives/store.py", "if TYPE_CHECKING:\n    import torch"),
        ("manager/trained.py", "import torch\nfrom jimmy_manager.training.trainer import Trainer"),
        ("manager/manager.py", "def main():\n    from jimmy_manager.cli.main import main"),
        ("cli/main.py", "from jimmy_manager import Manager, Store"),
        ("vision/train.py", "import torch\nfrom jimmy_manager.datasets.images import read"),
    ],
)
def test_the_checker_lets_good_imports_pass(tmp_path: Path, where: str, code: str) -> None:
    assert violations(broken_twin(tmp_path, where, code)) == []


def broken_twin(tmp_path: Path, where: str, code: str) -> Path:
    """Build a package with the real facade and one module."""
    twin = tmp_path / PACKAGE
    path = twin / where
    path.parent.mkdir(parents=True)
    (twin / "__init__.py").write_text((SOURCE / "__init__.py").read_text(encoding="utf-8"), encoding="utf-8")
    path.write_text(code, encoding="utf-8")
    return twin


def test_importing_the_package_loads_none_of_its_dependencies() -> None:
    loaded = run("import jimmy_manager, sys; print(*sys.modules)").split()
    assert "jimmy_manager" in loaded
    assert [name for name in loaded if name.split(".")[0] in FREE_OF] == []


def test_importing_the_whole_store_side_does_not_load_torch() -> None:
    modules = [module_name(path, SOURCE) for path in sorted(SOURCE.rglob("*.py"))]
    left = [f"{PACKAGE}.{m}" for m in modules if m and layer_of(m) in LEFT and not m.endswith("__main__")]
    loaded = run(f"import importlib, sys\nfor m in {left!r}: importlib.import_module(m)\nprint(*sys.modules)").split()
    assert f"{PACKAGE}.errors" in loaded
    assert [name for name in loaded if name.split(".")[0] in HEAVY] == []


def test_no_module_of_the_package_has_a_name_that_says_nothing() -> None:
    parts = {part for path in SOURCE.rglob("*.py") for part in module_name(path, SOURCE).split(".")}
    assert [part for part in parts if re.fullmatch(r"_?(utils?|helpers?|common|misc)", part)] == []
