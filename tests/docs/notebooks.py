"""Executing the notebooks, and what of their outputs is the same wherever they are executed.

``python -m tests.docs.notebooks`` executes them anew and stores what came out, for people who read them on a web page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ("docs/tutorial.ipynb", "jobs/fetch.ipynb")
MEASURED = "measured"
"""The tag of a cell that shows which runs are newest or best: only the kinds of its outputs are compared."""
_NUMBER = re.compile(r"-?\b\d+\.\d+(?:e[+-]?\d+)?|\b(?:nan|inf)\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::[\d.]+)?(?:\+00:00)?")
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_KEY = re.compile(r"\b[0-9a-f]{8}\b")


@contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """Let kernels be this interpreter with this package, whatever kernels and settings the user has."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3",
        "language": "python",
    }  # fmt: skip
    kernel = folder / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(spec), "utf-8")
    given = {
        "JUPYTER_DATA_DIR": "data", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython", "XDG_CACHE_HOME": "cache", "MPLCONFIGDIR": "matplotlib",
    }  # fmt: skip
    before = os.environ.copy()
    os.environ.update({name: str(folder / place) for name, place in given.items()})
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", JUPYTER_PLATFORM_DIRS="1")
    for name in ("JUPYTER_PATH", "MPLBACKEND"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def execute(name: str, folder: Path) -> NotebookNode:
    """The notebook ``name``, executed in a copy of the files beside it; raises what a cell raises."""
    copy = folder / "copy"
    left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for each in ("jobs", "docs"):
        shutil.copytree(ROOT / each, copy / each, ignore=left_out)
    shutil.copy(ROOT / "defaults.yaml", copy)
    notebook = read(name)
    with surroundings(folder / "jupyter"):
        place = {"metadata": {"path": str((copy / name).parent)}}
        NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3", resources=place).execute()
    return notebook


def read(name: str) -> NotebookNode:
    """The stored notebook."""
    return nbformat.read(ROOT / name, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(cell: NotebookNode) -> list[tuple[str, str]]:
    """What a cell shows, as kinds and texts without what differs from machine to machine."""
    return [(_kind(output), "" if is_measured(cell) else _comparable(output)) for output in cell.outputs]


def is_measured(cell: NotebookNode) -> bool:
    return MEASURED in cell.metadata.get("tags", ())


def keys(notebook: NotebookNode) -> set[str]:
    """The keys of runs that its outputs show."""
    texts = (text for cell in code_cells(notebook) for output in cell.outputs for text in _texts(output))
    return {key for text in texts for key in _KEY.findall(text)}


def _kind(output: NotebookNode) -> str:
    shown = sorted(output.get("data", {}))
    return " ".join([output.output_type, output.get("name", ""), *shown])


def _comparable(output: NotebookNode) -> str:
    text = " ".join(_texts(output))
    for pattern, mark in ((_TIME, "<time>"), (_NUMBER, "<number>"), (_ADDRESS, "<address>")):
        text = pattern.sub(mark, text)
    return " ".join(text.split())


def _texts(output: NotebookNode) -> Iterator[str]:
    data = output.get("data", {})
    yield output.get("text", "")
    if "text/html" in data:
        yield unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", data["text/html"], flags=re.DOTALL))
    elif "image/png" not in data:  # beside a picture stands only its size in this version of matplotlib
        yield data.get("text/plain", "")


def stored(notebook: NotebookNode) -> str:
    """The text of a notebook as it is kept: without what each execution would change for nothing."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
    text: str = nbformat.writes(notebook)
    return text if text.endswith("\n") else f"{text}\n"


def main() -> None:
    """Execute all and store the outputs."""
    for name in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook: Any = execute(name, Path(folder))
        (ROOT / name).write_text(stored(notebook), "utf-8")


if __name__ == "__main__":
    main()
