"""The page on Slurm does what it says: its files are written and its commands run, on the lab's cluster, in order.

A block of ``bash`` whose second line names a file is that file. An array is as small as the test's machine, and at
every push the sweep is a tenth of the page's; ``make nightly`` trains all of its thousand configurations.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Store
from tests.cluster import slurm
from tests.docs import test_reference as reference
from tests.docs.test_cli_reference import Example, examples, matches
from tests.lab import lab

PAGE = (reference.ROOT / "docs" / "how-to" / "slurm.md").read_text("utf-8")
FEWER_RUNS = {
    "1000 configurations": "100 configurations",
    "seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]": "seed: [0]",
}
LONGEST_S = 3600.0
OPTIONS = (
    "--time-limit", "--no-requeue", "--requeue", "--stop-signals", "--script", "--dry-run", "--wait", "--peer",
    "--shared", "--watch",
)  # fmt: skip

folder = reference.folder


def changed(page: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in page, old
        page = page.replace(old, new)
    return page


def with_workers(page: str, count: int) -> str:
    return changed(page, {f"{before}32": f"{before}{count}" for before in ("--array ", "--array=1-", "* ")})


class Reader:
    """Somebody who types what a page says, with Slurm's commands those of ``cluster``."""

    def __init__(self, folder: Path, cluster: slurm.Cluster) -> None:
        self._folder = folder
        self._cluster = cluster
        path = f"{self._programs()}{os.pathsep}{os.environ['PATH']}"
        self._environ = cluster.environ | {"PATH": path, "PYTHONPATH": str(reference.ROOT), "OMP_NUM_THREADS": "1"}
        self._namespace: dict[str, Any] = {"__name__": "page"}

    def follow(self, page: str) -> None:
        for language, block in reference.BLOCK.findall(page):
            if file := re.match(r"(?:#!/bin/bash\n)?# ([\w/]+\.(?:py|yaml|sbatch))\n", block):
                (self._folder / file[1]).write_text(block, "utf-8")
            elif language == "python":
                exec(compile(block, "page", "exec"), self._namespace)
            elif language == "console":
                for example in examples(f"```console\n{block}```\n"):
                    self._type(example)
            else:
                assert language == "text", f"nobody executes a block of {language!r}:\n{block}"
        self.await_end()

    def await_end(self) -> None:
        self._cluster.wait_for("the end of all workers", lambda: not self._cluster.tasks(), LONGEST_S)

    def _type(self, example: Example) -> None:
        if example.words[:2] == ["jimmy", "stop"]:
            self._cluster.wait_for("a run in training", lambda: list(self._folder.glob("store/stats/*/*")), LONGEST_S)
        if example.words[:2] == ["jimmy", "errors"]:
            self.await_end()
        done = subprocess.run(
            example.words, env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
        )
        told = f"{shlex.join(example.words)}\n{done.stdout}{self._cluster.queue()}"
        if "--peer" in example.words:  # the nodes of the lab are one host with one mount, which the doctor notices
            assert done.returncode == 1, told
            assert done.stdout.count("start the other one on another node") == 2, told
            return
        assert done.returncode == example.code, told
        assert matches(example, done.stdout), told

    def _programs(self) -> Path:
        """A folder with this very package's ``jimmy``, and this Python."""
        place = self._folder / "bin"
        place.mkdir()
        commands = {"jimmy": "-P -m jimmy_manager.cli", "torchrun": "-m torch.distributed.run", "python": ""}
        for name, arguments in commands.items():
            (place / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            (place / name).chmod(0o755)
        return place


@pytest.fixture
def reader(folder: Path) -> Iterator[Reader]:
    pytest.importorskip("submitit", reason="submitit is not installed; pip install 'jimmy_manager[slurm]'")
    with slurm.running(lab("slurm.sh")) as cluster:
        yield Reader(folder, cluster)


def done(folder: Path) -> int:
    return sum(stats["done"] for stats in Store(folder / "store", read_only=True).stats.values())


def test_the_page_does_what_it_says_with_fewer_configurations(reader: Reader, folder: Path) -> None:
    reader.follow(with_workers(changed(PAGE, FEWER_RUNS), 2))
    assert done(folder) == 100


@pytest.mark.nightly
def test_the_page_does_what_it_says_with_all_its_configurations(reader: Reader, folder: Path) -> None:
    reader.follow(with_workers(PAGE, 8))
    assert done(folder) == 1000


def test_a_page_that_is_wrong_is_caught(reader: Reader) -> None:
    for wrong in ("console\n$ sinfo --nonsense\n", "console\n$ sinfo\nno cluster\n", "sh\nls\n"):
        with pytest.raises(AssertionError):
            reader.follow(f"```{wrong}```\n")


def test_every_link_of_the_page_leads_to_a_page_and_a_heading() -> None:
    reference.test_every_link_of_a_page_leads_to_a_page_and_a_heading("how-to/slurm.md")


def commands_of(page: str) -> set[str]:
    return set(re.findall(r"\bjimmy ([a-z]+)\b", page)) - {"job", "is"}


def test_every_command_and_option_that_is_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    from jimmy_manager.cli.main import main

    known = ""
    for name in commands_of(PAGE):
        command = main.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None, name
        with pytest.raises(SystemExit):
            main([name, "--help"], "jimmy")
        known += capsys.readouterr().out
    assert [option for option in OPTIONS if option not in PAGE or option not in known] == []
