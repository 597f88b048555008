"""The reference of the command line shows what the command line does: every example is executed and compared."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from jimmy_manager.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Example(NamedTuple):
    words: list[str]
    code: int
    output: str


def examples(page: str) -> list[Example]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            code = re.search(r"# exit code (\d+)$", line)
            found.append(Example(shlex.split(line, comments=True), int(code[1]) if code else 0, output))
    return found


def matches(example: Example, output: str) -> bool:
    return doctest.OutputChecker().check_output(example.output, output, FLAGS)


def test_every_command_has_an_example() -> None:
    shown = {example.words[1] for example in examples(PAGE) if example.words[0] == "jimmy"}
    assert shown == set(COMMANDS)


def run(words: list[str]) -> tuple[int, str]:
    """Training in a process of its own; what only looks is called here, which is quicker."""
    if words[1] not in ("sweep", "process"):
        called = CliRunner().invoke(main, words[1:], prog_name="jimmy")
        return called.exit_code, called.output
    command = [sys.executable, "-P", "-m", "jimmy_manager.cli", *words[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_every_example_does_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    for example in examples(PAGE):
        code, output = run(example.words)
        assert code == example.code, (example.words, output)
        assert matches(example, output), f"{shlex.join(example.words)}\n{output}"


@pytest.mark.parametrize("output", ["run 51f8563c: failed\n", "nothing is wrong", ""])
def test_a_page_that_says_something_else_is_caught(output: str) -> None:
    (example,) = examples("```console\n$ jimmy show 51f8     # exit code 3\nrun 51f8563c: done...\n```\n")
    assert (example.words, example.code) == (["jimmy", "show", "51f8"], 3)
    assert matches(example, "run 51f8563c: done after epoch 2\n")
    assert not matches(example, output)
