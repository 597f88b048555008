"""The tutorial does what it says: its page is executed from top to bottom."""

import re
from pathlib import Path

import pytest

from tests.docs import test_reference as reference

PAGE = "tutorial/training.md"

folder = reference.folder


def test_the_tutorial_on_training_does_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = (reference.ROOT / "docs" / PAGE).read_text("utf-8")
    # The one line for a shell starts a server.
    page, shells = re.subn(r"^```sh\ntensorboard --logdir Runs\n```$", "", page, flags=re.MULTILINE)
    assert shells == 1
    reference.execute(page, folder)
    assert {path.name for path in folder.glob("Runs/Spirals/*/*")} > {"baseline", "interrupted", "edited"}


def test_every_link_of_the_tutorial_leads_to_a_page_and_a_heading() -> None:
    reference.test_every_link_of_a_page_leads_to_a_page_and_a_heading(PAGE)
