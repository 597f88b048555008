"""Sections of ``jimmy show`` on terminals: long values below each other, long names on lines of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from jimmy_manager import Store
from jimmy_manager.cli import columns
from jimmy_manager.cli.sections import folded
from tests.archives.runs import attempt_at
from tests.cli.terminals import Terminal, visible


@pytest.mark.parametrize("wide", [6, 10, 33])
@pytest.mark.parametrize(
    "line", ["", "word", "many short words", "x" * 70, "学習率" * 20, "a " + "y" * 30 + " b", " lead"]
)
def test_folding_loses_nothing_and_keeps_to_the_width(line: str, wide: int) -> None:
    lines = folded(line, wide)
    assert max(map(columns.width, lines)) <= wide
    assert "".join(lines).replace(" ", "") == line.replace(" ", "")


@pytest.fixture
def shown(tmp_path: Path, hostile: str) -> Terminal:
    store = Store(tmp_path / "s", durable=False, stale_s=0.0)
    config = {"lr": 0.1, "a": {"long" * 20: 1}, hostile: hostile, "学習率": "長い" * 60, "layers": [512] * 40}
    attempt = attempt_at(store, config)
    attempt.claim.fail({"type": "ValueError", "message": f"one\n{hostile} {'long ' * 30}", "traceback": "T"})
    terminal = Terminal(80, 200, "show", attempt.key, "--store", str(tmp_path / "s"))
    assert terminal.end() == 0
    return terminal


def test_a_run_is_shown_within_the_terminal_whatever_its_names_are(shown: Terminal) -> None:
    lines = visible(shown.text)
    assert max(map(columns.width, lines)) <= 80
    assert "\x1b]0;" not in shown.text
    assert "  lr      0.1" in lines
    assert "          1" in lines, "below its name"
    layers = next(number for number, line in enumerate(lines) if line.startswith("  layers"))
    assert lines[layers + 1].startswith(" " * 10 + "512")
    error = lines.index("error")
    assert lines[error + 1 : error + 3] == ["  ValueError: one", lines[error + 2]]
    assert lines[error + 2].startswith("  evil\\x1b]0;")
