"""What is said once about the package is said once, and the pins cover all that is installed."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jimmy_manager

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PUBLIC = ["Config", "Manager", "Store", "TrainedManager", "JimmyError", "grid", "from_cli"]
# What the two README commands do not install: the extras that need more than the base and the tools.
OPTIONAL = ("vision", "dashboard", "slurm", "export", "parquet", "bench")


def declared(*extras: str) -> list[Requirement]:
    """Return the requirements of the base and of the named extras."""
    table = PROJECT["project"]
    optional = table["optional-dependencies"]
    return [Requirement(line) for line in [*table["dependencies"], *(line for e in extras for line in optional[e])]]


def pins(text: str) -> dict[str, str]:
    """Read a constraints file, in which each line pins one package exactly."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pinned = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", line) for line in lines]
    assert all(pinned), [line for line, match in zip(lines, pinned, strict=True) if not match]
    return {canonicalize_name(match[1]): match[2] for match in pinned if match}


def unpinned(requirements: list[Requirement], pinned: dict[str, str]) -> list[str]:
    """Follow the installed packages' own requirements and name each that no line pins, or pins outside its range."""
    missing, seen, todo = [], set(), list(requirements)
    while todo:
        each = todo.pop()
        name = canonicalize_name(each.name)
        if name not in pinned or not each.specifier.contains(pinned[name], prereleases=True):
            missing.append(str(each))
        for extra in {"", *each.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            further = (Requirement(line) for line in metadata.requires(name) or [])
            context = {**default_environment(), "extra": extra}
            todo += [r for r in further if r.marker is None or r.marker.evaluate(context)]
    return sorted(set(missing))


def test_the_version_stands_in_one_place() -> None:
    version = jimmy_manager.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", version)
    assert "version" in PROJECT["project"]["dynamic"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jimmy_manager.__version__"}
    statements = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path in [*ROOT.glob("*.py"), *(ROOT / "jimmy_manager").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and any(getattr(t, "id", None) == "__version__" for t in node.targets)
    ]
    assert statements == [f"jimmy_manager/__init__.py: __version__ = {version!r}"]


def test_all_lists_exactly_the_public_names() -> None:
    assert sorted(jimmy_manager.__all__) == sorted([*PUBLIC, "__version__"])
    assert set(jimmy_manager.__all__) <= set(dir(jimmy_manager))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_found_where_it_is_said_to_be(name: str) -> None:
    value = getattr(jimmy_manager, name)
    assert callable(value)
    assert value.__name__ == name
    assert value.__module__ == f"jimmy_manager.{jimmy_manager._HOME[name]}"


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    tree = ast.parse(Path(jimmy_manager.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == {name: f"jimmy_manager.{home}" for name, home in jimmy_manager._HOME.items()}


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Manger'"):
        jimmy_manager.Manger  # noqa: B018  # the look-up is what is tested


@pytest.mark.parametrize(
    "before",
    ["pass", "import jimmy_manager.grid", "from jimmy_manager.grid import grid", "import jimmy_manager.config"],
)
def test_grid_is_the_function_whatever_was_imported_before(before: str) -> None:
    code = f"{before}\nfrom jimmy_manager import grid\nimport jimmy_manager.grid\n"
    code += "from jimmy_manager import grid as again\nassert grid is again and grid.__name__ == 'grid', grid\n"
    code += "assert not isinstance(grid, type(__import__('sys'))), grid"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert pinned["torch"] == "2.13.0"
    direct = declared("dev", *OPTIONAL)
    assert [str(r) for r in direct if not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))] == []
    build = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    assert unpinned(declared("dev") + build, pinned) == []


def test_a_missing_pin_is_noticed() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    del pinned["sympy"]  # of torch, which no file here names
    assert [Requirement(line).name for line in unpinned(declared("dev"), pinned)] == ["sympy"]


def test_the_command_names_a_function_that_exists() -> None:
    module, _, name = PROJECT["project"]["scripts"]["jimmy"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run"])
def test_where_packages_come_from_is_left_to_the_machine(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.findall(r"--(?:extra-)?index-url|--find-links|--trusted-host|\s-f\s|PIP_INDEX_URL|https?://", text) == []


def test_the_licence_is_the_one_that_the_metadata_name() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
