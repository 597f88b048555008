"""Figures look as they did when somebody last looked at them.

After a change that is meant, ``REDRAW=1 pytest tests/results/test_plot_references.py`` writes them anew; look at
each before it is committed. They hold for the versions in ``constraints.txt``.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from tests.results.drawn_stores import grid_store
from tests.results.figures import figure

REDRAW = bool(os.environ.get("REDRAW"))
REFERENCES = Path(__file__).parent / "reference"
NAMES = [
    "metric-line", "metric-heat", "metric-rows", "metric-names", "parallel-two-metrics", "pareto-min", "timeline-slurm",
    "curves", "curves-log",
]  # fmt: skip
TILE, MOST = 25, 12.0
"""Root mean square over the pixels of each square of so many, of 255: one changed digit makes more, wherever it is."""


def pixels(source: Any) -> np.ndarray[Any, Any]:
    return np.round(imread(source, format="png")[..., :3] * 255)


def picture(drawn: Any) -> bytes:
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=75)
    return file.getvalue()


def difference(drawn: Any, reference: Path) -> float:
    new, old = pixels(io.BytesIO(picture(drawn))), pixels(reference)
    if new.shape != old.shape:
        return float("inf")
    squares = ((new - old) ** 2).mean(axis=2)
    high, wide = (-(-size // TILE) for size in squares.shape)
    padded = np.zeros((high * TILE, wide * TILE))
    padded[: squares.shape[0], : squares.shape[1]] = squares
    return float(np.sqrt(padded.reshape(high, TILE, wide, TILE).mean(axis=(1, 3)).max()))


@pytest.fixture(autouse=True)
def _no_settings_of_ours() -> Any:
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_looks_as_it_did(name: str) -> None:
    reference = REFERENCES / f"{name}.png"
    if REDRAW:
        reference.write_bytes(picture(figure(name)))
        pytest.skip(f"{reference} was drawn anew: look at it")
    assert difference(figure(name), reference) < MOST


def test_there_is_no_reference_that_nobody_compares() -> None:
    assert sorted(path.stem for path in REFERENCES.iterdir()) == sorted(NAMES)


def _another_number(drawn: Any) -> None:
    drawn.axes[0].texts[0].set_text("0.94")


def _another_colour(drawn: Any) -> None:
    drawn.axes[0].images[0].set_cmap("cividis")


def _another_tick(drawn: Any) -> None:
    drawn.axes[0].set_xticks([0, 1, 2, 3], ["0.0001", "0.001", "0.01", "0.2"])


def _another_size(drawn: Any) -> None:
    drawn.set_size_inches(drawn.get_figwidth() + 0.02, drawn.get_figheight())


@pytest.mark.parametrize("change", [_another_number, _another_colour, _another_tick, _another_size])
def test_a_changed_figure_is_noticed(change: Any) -> None:
    drawn = figure("metric-heat")
    assert difference(drawn, REFERENCES / "metric-heat.png") < MOST
    change(drawn)
    assert difference(drawn, REFERENCES / "metric-heat.png") > MOST


def test_another_line_is_noticed() -> None:
    other = grid_store().plot.metric("loss", "lr", where="seed < 4")
    assert difference(other, REFERENCES / "metric-line.png") > MOST
