"""The pages about Python, grids, defaults and failures do what they say: each is executed from top to bottom.

A block whose first line names a file is that file. Of the others ``python`` is executed, ``pycon`` is executed and
compared, and ``console`` as in the reference of the command line; all of a page share one directory and one namespace.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jimmy_manager.cli.main import main
from tests.docs.test_cli_reference import FLAGS, ROOT, Example, examples, matches

PAGES = ["reference/python.md", "reference/grids.md", "how-to/defaults.md", "how-to/failures.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.(?:py|yaml))\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a page is executed; what it imports from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def execute(page: str, folder: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for language, block in BLOCK.findall(page):
        if file := FILE.match(block):
            (folder / file[1]).write_text(block, "utf-8")
        elif language == "python":
            exec(compile(block, "page", "exec"), namespace)
        elif language == "pycon":
            compare(block, namespace)
        elif language == "console":
            for example in examples(f"```console\n{block}```\n"):
                check(example)
        else:
            assert language == "text", f"nobody executes a block of {language!r}:\n{block}"


def compare(session: str, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(session, namespace, "page", None, None)
    told: list[str] = []
    failed = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append, clear_globs=False).failed
    namespace.update(test.globs)
    assert not failed, "".join(told)


def check(example: Example) -> None:
    code, output = run(example)
    assert code == example.code, (example.words, output)
    assert matches(example, output), f"{shlex.join(example.words)}\n{output}"


def run(example: Example) -> tuple[int, str]:
    """Here, which is quicker, but for commands that are no ``jimmy`` and those that a signal ends."""
    words = example.words
    if words[0] == "jimmy" and example.code < 128:
        called = CliRunner().invoke(main, words[1:], prog_name="jimmy")
        return called.exit_code, called.output
    command = [sys.executable, "-P", "-m", "jimmy_manager.cli", *words[1:]] if words[0] == "jimmy" else words
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return 128 - done.returncode if done.returncode < 0 else done.returncode, done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says_from_top_to_bottom(page: str, folder: Path) -> None:
    execute((ROOT / "docs" / page).read_text("utf-8"), folder)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_page_and_a_heading(page: str) -> None:
    here = ROOT / "docs" / page
    for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", here.read_text("utf-8")):
        target = here.parent / path if path else here
        assert target.exists(), path
        titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
        assert not heading or heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_page_on_python_has_every_argument_attribute_and_public_name() -> None:
    import inspect

    import jimmy_manager

    page = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    deprecated = {"self", "patience", "clock", "old"}
    arguments = set(inspect.signature(jimmy_manager.Manager.__init__).parameters) - deprecated
    own = {name for name in vars(jimmy_manager.Manager) if not name.startswith("_") and name != "allowed_targets"}
    for name in arguments | own | {name for name in jimmy_manager.__all__ if not name.startswith("_")}:
        assert re.search(rf"\b{name}\b", page), name


@pytest.mark.parametrize(
    "page",
    [
        "```pycon\n>>> 1 + 1\n3\n```\n",
        "```python\nassert False\n```\n",
        "```console\n$ jimmy --version\nno version\n```\n",
        "```console\n$ false\n```\n",
        "```ruby\nputs 1\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_caught(page: str, folder: Path) -> None:
    with pytest.raises(AssertionError):
        execute(page, folder)
