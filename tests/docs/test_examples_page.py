"""The page on the examples: its commands name jobs that take them. What they train is tested small, in tests/jobs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "examples.md"
COMMANDS = re.findall(r"^python (jobs/.*)$", PAGE.read_text("utf-8"), re.MULTILINE)


def test_the_page_has_commands_and_shows_a_figure_of_each_example() -> None:
    assert len(COMMANDS) == 6
    figures = re.findall(r"\(\.\./figures/(\w+\.png)\)", PAGE.read_text("utf-8"))
    assert sorted(figures) == sorted(path.name for path in (ROOT / "docs" / "figures").iterdir())
    for link in re.findall(r"\]\((\.\./[^)]+)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / link).exists(), link


@pytest.mark.parametrize("command", [each for each in COMMANDS if " sweep" in each])
def test_a_job_of_the_page_takes_its_options(command: str) -> None:
    done = subprocess.run(
        [sys.executable, *shlex.split(command), "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "--workers" in done.stdout


@pytest.mark.parametrize("command", [each for each in COMMANDS if "_report.py" in each])
def test_a_report_of_the_page_without_arguments_says_how_it_is_called(command: str) -> None:
    script = shlex.split(command)[0]
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert f"python {script} STORE" in done.stdout + done.stderr


def test_each_example_has_a_store_of_its_own_as_a_store_is_of_one_job() -> None:
    swept = [re.search(r"--store (\S+)", each)[1] for each in COMMANDS if " sweep" in each]
    reported = [shlex.split(each)[1] for each in COMMANDS if "_report.py" in each]
    assert swept == reported
    assert len(set(swept)) == len(swept)
