"""A ``_target_`` reaches the classes and functions of trusted packages, and nothing that those have imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jimmy_manager.errors import ConfigError, JimmyError, TargetRefused
from jimmy_manager.targets import find_target


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of a user, with the traps that real packages have."""
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "__init__.py").write_text(
        "import os\nfrom os import system\nfrom collections import OrderedDict\nfrom .nets import Net\n"
        "import trusted.nets as alias\nSIZE = 3\n"
    )
    (tmp_path / "trusted" / "nets.py").write_text(
        "import subprocess\nclass Net:\n    class Inner: pass\n    runner = subprocess\n    _hidden = int\n"
        "    @classmethod\n    def wide(cls): return cls()\ndef make(): return Net()\n"
    )
    (tmp_path / "trusted" / "broken.py").write_text("import no_such_module_at_all\nclass Net: pass\n")
    (tmp_path / "trustedly.py").write_text("class Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "trusted"
    for name in [name for name in sys.modules if name.partition(".")[0] in ("trusted", "trustedly")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    ["trusted.Net", "trusted.nets.Net", "trusted.nets.Net.Inner", "trusted.nets.Net.wide", "trusted.nets.make"],
)
def test_classes_and_functions_of_a_trusted_package_are_found(package: str, target: str) -> None:
    assert callable(find_target(target, [package]))
    assert find_target(target, ["trusted", "other"]).__module__ == "trusted.nets"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("os.system", "not in the allow-list"),
        ("builtins.eval", "not in the allow-list"),
        ("trustedly.Net", "not in the allow-list"),
        ("trusted.os.system", "is private or not inside a class or module"),
        ("trusted.alias.subprocess.run", "is private or not inside"),
        ("trusted.nets.subprocess.run", "is private or not inside"),
        ("trusted.nets.Net.runner.run", "is private or not inside"),
        ("trusted.nets.Net._hidden", "is private or not inside"),
        ("trusted.nets.Net.__init__.__globals__", "is private or not inside"),
        ("trusted.__builtins__.eval", "is private or not inside"),
        ("trusted.system", "is defined in posix, which is not in the allow-list"),
        ("trusted.OrderedDict", "is defined in collections, which is not in the allow-list"),
        ("trusted.os", "is a module, not a class or function"),
        ("trusted.SIZE", "is a int, not a class or function"),
    ],
)
def test_nothing_else_is_reached_through_it(package: str, target: str, reason: str) -> None:
    with pytest.raises(TargetRefused) as caught:
        find_target(target, [package])
    assert reason in str(caught.value)


def test_the_error_names_the_line_that_would_allow_it(package: str) -> None:
    with pytest.raises(TargetRefused) as caught:
        find_target("trusted.nets.Net", ("torch.nn",))
    line = str(caught.value).rpartition("Manager: ")[2]
    scope: dict[str, tuple[str, ...]] = {}
    exec(line, scope)
    assert scope["targets"] == ("torch.nn", "trusted.nets")
    assert find_target("trusted.nets.Net", scope["targets"])


def test_what_is_allowed_by_its_very_name_may_come_from_elsewhere(package: str) -> None:
    from collections import OrderedDict

    assert find_target("trusted.OrderedDict", [package, "trusted.OrderedDict"]) is OrderedDict


def test_a_module_that_was_not_imported_before_is_imported(package: str) -> None:
    assert "trustedly" not in sys.modules
    assert find_target("trustedly.Net", ["trustedly"]).__name__ == "Net"


def test_an_import_that_fails_inside_a_trusted_module_is_not_hidden(package: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        find_target("trusted.broken.Net", [package])


@pytest.mark.parametrize("target", ["trusted.Nett", "trusted.nothing.Net", "trusted.nets.Net.Other"])
def test_a_misspelled_target_is_said_not_to_exist(package: str, target: str) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        find_target(target, [package])
    assert not isinstance(caught.value, TargetRefused)


@pytest.mark.parametrize("target", [None, 3, "", "Net", ".Net", "a..b", "a.b()", "os.system('x')", "a b.c"])
def test_what_is_no_dotted_name_is_refused(target: object) -> None:
    with pytest.raises(JimmyError, match="is not the dotted name"):
        find_target(target, ["a", "os", "Net", ""])


def test_nothing_is_imported_before_the_allow_list_is_asked(package: str) -> None:
    with pytest.raises(TargetRefused):
        find_target("trustedly.Net", [package])
    assert "trustedly" not in sys.modules
