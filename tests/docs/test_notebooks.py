"""The notebooks run from top to bottom, and show what they are stored with, as far as that is the same everywhere."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from tests.docs import notebooks
from tests.docs.notebooks import NOTEBOOKS, ROOT, code_cells, execute, is_measured, keys, outputs, read, stored

MOST_BYTES = 250_000
PLACE = re.compile(r"(?<![\w+/=.])/(?:tmp|home|root|usr|var|mnt)\S*")


def check(executed: NotebookNode, kept: NotebookNode) -> None:
    """Fail where what came out is not what is stored."""
    for new, old in zip(code_cells(executed), code_cells(kept), strict=True):
        assert new.source == old.source
        assert outputs(new) == outputs(old), new.source
    assert keys(executed) == keys(kept)


def complaints(notebook: NotebookNode) -> list[str]:
    """What somebody who reads the stored notebook on a web page should not meet."""
    found = [f"cell {cell.source[:40]!r} was not executed" for cell in code_cells(notebook) if not cell.execution_count]
    shown = [output for cell in code_cells(notebook) for output in cell.outputs]
    found += [f"an error: {output.ename}" for output in shown if output.output_type == "error"]
    found += [f"on stderr: {output.text}" for output in shown if output.get("name") == "stderr"]
    texts = [str(text) for output in shown for text in (output.get("text", ""), *output.get("data", {}).values())]
    return found + [f"a place on a machine: {each}" for text in texts for each in PLACE.findall(text)]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], NotebookNode]:
    done: dict[str, NotebookNode] = {}

    def once(name: str) -> NotebookNode:
        if name not in done:
            done[name] = execute(name, tmp_path_factory.mktemp("notebook"))
        return done[name]

    return once


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_what_it_is_stored_with(name: str, executed: Callable[[str], NotebookNode]) -> None:
    check(executed(name), read(name))
    assert complaints(executed(name)) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_stored_notebook_can_be_read_as_it_is(name: str) -> None:
    notebook = read(name)
    assert complaints(notebook) == []
    assert stored(copy.deepcopy(notebook)) == (ROOT / name).read_text("utf-8")
    assert (ROOT / name).stat().st_size < MOST_BYTES
    shown = {kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= shown
    assert len(keys(notebook)) == 12
    assert sum(map(is_measured, code_cells(notebook))) < len(code_cells(notebook))


def test_every_notebook_of_the_repository_is_executed() -> None:
    found = [path.relative_to(ROOT) for each in ("docs", "jobs") for path in (ROOT / each).rglob("*.ipynb")]
    assert {str(path) for path in found if ".ipynb_checkpoints" not in path.parts} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_link_of_a_notebook_leads_to_a_page(name: str) -> None:
    for cell in read(name).cells:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", cell.source if cell.cell_type == "markdown" else ""):
            assert ((ROOT / name).parent / link).exists(), link


def of_code(*sources: str) -> NotebookNode:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return notebook


def showing(text: str, *tags: str) -> NotebookNode:
    notebook = of_code("a cell")
    shown = {"text/plain": "<A>", "text/html": f"<style>x</style><b>{text}</b>"}
    output = nbformat.v4.new_output("execute_result", shown)
    notebook.cells[0].update(outputs=[output], metadata={"tags": list(tags)})
    return notebook


def run(notebook: NotebookNode, folder: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookNode:
    monkeypatch.setattr(notebooks, "read", lambda name: copy.deepcopy(notebook))
    return execute(NOTEBOOKS[0], folder)


KEPT = "abcdef12 done 0.25 at 2026-12-01 16:45"


@pytest.mark.parametrize(
    "same", [KEPT, "abcdef12 done -1.5e-7 at 2027-01-31 06:45", "abcdef12  done nan\nat 2026-12-01 16:45"]
)
def test_measured_numbers_and_times_may_differ(same: str) -> None:
    check(showing(same), showing(KEPT))


@pytest.mark.parametrize("other", [KEPT.replace("done", "new"), KEPT.replace("12 ", "13 "), KEPT.replace("0.25", "1")])
def test_other_words_keys_and_kinds_of_numbers_are_caught(other: str) -> None:
    with pytest.raises(AssertionError):
        check(showing(other), showing(KEPT))


def test_of_a_measured_cell_the_keys_and_the_kinds_of_outputs_are_compared() -> None:
    check(showing("abcdef12 is best", "measured"), showing("best of abcdef12", "measured"))
    with pytest.raises(AssertionError):
        check(showing("abcdef13", "measured"), showing("abcdef12", "measured"))
    silent = showing("", "measured")
    silent.cells[0].outputs = []
    with pytest.raises(AssertionError):
        check(silent, showing("", "measured"))


def test_a_kernel_is_this_interpreter_with_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = of_code("import jimmy_manager, sys; print(sys.executable, *jimmy_manager.__path__)")
    done = run(asked, tmp_path, monkeypatch)
    assert done.cells[0].outputs[0].text.split() == [sys.executable, str(ROOT / "jimmy_manager")]


def test_a_cell_that_fails_fails_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(of_code("1 / 0"), tmp_path, monkeypatch)


def test_what_nobody_should_meet_is_found() -> None:
    notebook = of_code("bad", "fine")
    output = nbformat.v4.new_output
    notebook.cells[0].outputs = [
        output("error", ename="ValueError", evalue="", traceback=[]), output("stream", name="stderr", text="warning"),
        output("stream", name="stdout", text="in /home/me/store"),
    ]  # fmt: skip
    notebook.cells[1].execution_count = 1
    assert [each.partition(":")[0] for each in complaints(notebook)] == [
        "cell 'bad' was not executed", "an error", "on stderr", "a place on a machine",
    ]  # fmt: skip
