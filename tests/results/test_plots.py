"""Figures: legible whatever is drawn, honest about what is left out, and no business of anybody else's process."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, style
from matplotlib.figure import Figure
from matplotlib.text import Text

from jimmy_manager import Store
from jimmy_manager.errors import ConfigError, JimmyError, KeyNotFound, UnknownField, WhereError
from jimmy_manager.results.plot_curves import averaged
from jimmy_manager.results.plot_data import interval
from jimmy_manager.results.plot_pareto import front
from tests.archives.runs import attempt_at, commit, listing
from tests.results.drawn_stores import HOSTILE, faults, logged, loss_of, product_of, put_curves, trained, written
from tests.results.figures import FIGURES, drawn, figure, store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jimmy_manager.results.plots import Plots


def texts(drawn: Any) -> list[str]:
    return [text for text, _ in written(drawn)]


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_or_lies_over_another(name: str) -> None:
    one = drawn(name)
    for dpi in (300, 100):  # that of a file, and its own
        one.set_dpi(dpi)
        assert faults(one) == []


def test_the_check_notices_texts_that_overlap_or_are_cut() -> None:
    spoiled = figure("metric-line")
    spoiled.text(0.5, 0.5, "one over")
    spoiled.text(0.51, 0.5, "the other")
    spoiled.text(0.97, 0.7, "off the edge")
    assert faults(spoiled) == ["'off the edge' leaves the figure", "'the other' overlaps 'one over'"]


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_store_holds_is_neither_mathematics_nor_a_command_nor_a_lacking_glyph(name: str) -> None:
    for text in texts(drawn(name)):
        assert text.replace("\n", "").isprintable(), text
        assert "$" not in text.replace("\\$", "") or "mathdefault" in text
        assert "训" not in text


DRAWINGS: dict[str, Callable[[Plots, Axes | None], Any]] = {
    "curves": lambda plot, ax: plot.curves("Eval/loss", ax=ax),
    "metric": lambda plot, ax: plot.metric("loss", "lr", ax=ax),
    "heat": lambda plot, ax: plot.metric("loss", "lr", "width", ax=ax),
    "parallel": lambda plot, ax: plot.parallel("loss", ax=ax),
    "pareto": lambda plot, ax: plot.pareto("seconds", "loss", ax=ax),
    "timeline": lambda plot, ax: plot.timeline(ax=ax),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_a_figure_comes_back_or_the_axes_that_were_given(draw: Callable[..., Any]) -> None:
    plot = store("logged grid").plot
    made = draw(plot, None)
    assert isinstance(made, Figure)
    assert made._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
    mine = Figure(figsize=(9, 6), layout="constrained").add_subplot()
    assert draw(plot, mine) is mine


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_on_axes_of_a_dark_figure_texts_stay_light(draw: Callable[..., Any]) -> None:
    with mpl.rc_context():
        style.use("dark_background")
        mine = Figure(figsize=(9, 6), layout="constrained").add_subplot()
        draw(store("logged grid").plot, mine)
    title = mine.get_title("left") or mine.get_title("right")
    assert title
    assert mine.title.get_color() == "white"
    assert {colors.to_hex(text.get_color()) for text in mine.texts if text.get_text()} <= {
        "#ffffff", "#000000", "#6b6b6b",  # on cells and bars the ink that suits them
    }  # fmt: skip
    assert mine._left_title.get_color() == "white"  # type: ignore[attr-defined]


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_drawing_changes_no_settings_of_the_process(draw: Callable[..., Any]) -> None:
    def settings() -> dict[str, Any]:
        # Whoever asks for the backend imports pyplot.
        return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}

    before = settings()
    draw(store("logged grid").plot, None)
    assert settings() == before


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys\nfrom tests.results.figures import figure\n"
        "[figure(name).savefig('/dev/null', format='png') for name in ('metric-one', 'timeline-one', 'pareto-one')]\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_several_threads_may_draw_at_once() -> None:
    names = ["metric-line", "metric-heat", "parallel-two", "pareto-one", "timeline-one"]

    def picture(name: str) -> bytes:
        return bytes(figure(name)._repr_png_())

    alone = {name: picture(name) for name in names}
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(picture, names * 2)) == [alone[name] for name in names * 2]


def test_a_users_choice_of_latex_does_not_meet_names_with_underscores() -> None:
    with mpl.rc_context({"text.usetex": True}):
        for name in ("metric-names", "pareto-names", "timeline-slurm", "parallel-two"):
            assert not any(text.get_usetex() for text in figure(name).findobj(Text))


def test_a_read_only_store_is_drawn_without_a_checkpoint_and_left_as_it_was(tmp_path: Path) -> None:
    made = Store(tmp_path / "store", durable=False)
    for lr in (0.1, 0.01):
        attempt = attempt_at(made, {"lr": lr})
        commit(attempt, 1, loss=lr, acc=1 - lr)
        attempt.finish()
    for path in (tmp_path / "store").rglob("*.pt"):
        path.write_bytes(b"")
    before = listing(tmp_path / "store")
    plot = Store(tmp_path / "store", read_only=True).plot
    for made_of_it in (plot.metric("loss", "lr"), plot.parallel(), plot.pareto("loss", "acc"), plot.timeline()):
        assert faults(made_of_it) == []
    assert listing(tmp_path / "store") == before


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_an_empty_store_is_one_clear_error(draw: Callable[..., Any]) -> None:
    empty = Store(None)
    nothing = put_curves(Store(None), pd.DataFrame(columns=["key", "tag", "step", "epoch", "value", "at"]))
    with pytest.raises(KeyNotFound, match="nothing to plot"):
        draw((nothing if draw is DRAWINGS["curves"] else empty).plot, None)


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda plot: plot.metric("lsos", "lr"), UnknownField, "did you mean 'loss'"),
        (lambda plot: plot.metric("loss", "widht"), UnknownField, "did you mean 'width'"),
        (lambda plot: plot.metric("loss", "lr", "widht"), UnknownField, "did you mean 'width'"),
        (lambda plot: plot.parallel("lsos"), UnknownField, "did you mean 'loss'"),
        (lambda plot: plot.parallel("loss", ["lrr"]), UnknownField, "did you mean 'lr'"),
        (lambda plot: plot.pareto("loss", "aac"), UnknownField, "did you mean 'acc'"),
        (lambda plot: plot.pareto("loss", "acc", ["min"]), ConfigError, "modes"),
        (lambda plot: plot.metric("loss", "lr", kind="pie"), ConfigError, "'pie'.*line, points, heat"),
        (lambda plot: plot.metric("loss", "lr", kind="heat"), ConfigError, "second field"),
        (lambda plot: plot.metric("loss", "lr", where="lr >"), WhereError, "cannot read"),
        (lambda plot: plot.metric("loss", "lr", where="lr > 7"), KeyNotFound, "no run .* that meets the filter"),
        (lambda plot: plot.timeline(where={"lr": 7}), KeyNotFound, "nothing to plot"),
        (lambda plot: plot.curves("Eval/loss", by="widht"), UnknownField, "did you mean 'width'"),
        (lambda plot: plot.curves("nothing"), KeyNotFound, "nothing to plot"),
        (lambda plot: plot.curves(ax=Figure().add_subplot()), ConfigError, "one axes shows one tag.*'Eval/acc'"),
    ],
)
def test_bad_requests_get_one_clear_error(draw: Callable[..., Any], error: type[JimmyError], message: str) -> None:
    with pytest.raises(error, match=message):
        draw(store("logged grid").plot)


def test_a_metric_of_words_is_refused_with_those_that_are_numbers() -> None:
    made = trained([{"lr": 1}, {"lr": 2}], lambda _: {"note": "fine", "loss": 1.0})
    with pytest.raises(UnknownField, match=r"'note' holds no numbers; there are .*loss"):
        made.plot.metric("note", "lr")


def test_runs_without_a_number_are_counted_by_reason() -> None:
    results = iter([{"loss": 1.0}, {"loss": math.nan}, {"loss": math.inf}, {}, {"loss": math.nan}])
    made = trained([{"lr": lr} for lr in range(1, 6)], lambda _: next(results))
    made.register({"lr": 9})
    for each in (made.plot.metric("loss", "lr"), made.plot.parallel("loss"), made.plot.pareto("loss", "loss")):
        (note,) = (text.replace("\n", " ") for text in texts(each) if "left out" in text)
        assert "loss is NaN in 2 runs" in note
        assert "missing in 2 runs" in note
        assert "infinite in 1 run" in note


def test_nothing_is_said_of_runs_left_out_where_all_are_drawn() -> None:
    assert not any("left out" in text for text in texts(drawn("metric-line")))


def test_the_line_goes_through_the_means_and_its_bars_are_the_interval() -> None:
    made = trained(product_of(lr=[1, 2], seed=range(5)), lambda config: {"loss": config["lr"] * 10.0 + config["seed"]})
    line, _, (bars,) = made.plot.metric("loss", "lr").axes[0].containers[0]
    assert line.get_ydata().tolist() == [12.0, 22.0]
    half = 2.776 * np.std(range(5), ddof=1) / math.sqrt(5)
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([mean - half, mean + half], rel=2e-3) for mean in (12.0, 22.0)
    ]


@pytest.mark.parametrize(
    ("count", "quantile"), [(4, 3.18245), (5, 2.77645), (10, 2.26216), (31, 2.04227), (1000, 1.9623)]
)
def test_the_interval_is_students(count: int, quantile: float) -> None:
    assert interval(1.0, count) == pytest.approx(quantile / math.sqrt(count), rel=0.01)


def test_of_few_seeds_the_range_is_shown_and_the_legend_says_so() -> None:
    for seeds, meaning in ((3, "min to max of 3 runs"), (5, "95 % interval of 5 runs")):
        made = trained(product_of(lr=[0.1, 0.01], seed=range(seeds)), loss_of)
        assert meaning in texts(put_curves(made, logged(made)).plot.curves())


def test_a_curve_counts_where_it_has_points() -> None:
    short, long = (np.array([1.0, 2.0]), np.array([0.0, 0.0])), (np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    curve = averaged([short, long], is_interval=False)
    assert curve.x.tolist() == [1, 2, 3]
    assert curve.mean.tolist() == [1.0, 1.5, 4.0]
    assert (curve.low.tolist(), curve.high.tolist()) == ([0, 0, 4], [2, 3, 4])


def test_a_run_that_logged_an_epoch_twice_is_drawn_as_it_was_logged_last() -> None:
    made = trained([{"lr": 1}], loss_of)
    (key,) = made.keys()
    rows = [(key, "loss", 1, 1, 5.0, 2.0), (key, "loss", 1, 1, 1.0, 1.0), (key, "loss", 2, 2, 4.0, 3.0)]
    frame = pd.DataFrame(rows, columns=["key", "tag", "step", "epoch", "value", "at"])
    (line,) = put_curves(made, frame).plot.curves().axes[0].lines
    assert line.get_ydata().tolist() == [5.0, 4.0]


@pytest.mark.parametrize(("unknown", "across"), [("epoch", "step"), ("step", "epoch")])
def test_curves_go_by_what_is_known_of_them(unknown: str, across: str) -> None:
    made = trained([{"lr": 1}], loss_of)
    (ax,) = put_curves(made, logged(made).assign(**{unknown: math.nan})).plot.curves().axes
    assert ax.get_xlabel() == across
    assert len(ax.lines[0].get_xdata()) == 30


@pytest.mark.parametrize("modes", [("min", "min"), ("min", "max"), ("max", "min"), ("max", "max")])
def test_the_front_is_what_no_other_run_beats(modes: tuple[str, str]) -> None:
    draw = np.random.default_rng(0)
    points = [(float(a), float(b)) for a, b in draw.integers(0, 12, (80, 2))]
    signs = np.array([1 if mode == "min" else -1 for mode in modes])
    signed = np.array(points) * signs

    def is_beaten(one: Any) -> bool:
        return bool(((signed <= one).all(1) & (signed < one).any(1)).any())

    assert front(points, modes) == [index for index, one in enumerate(signed) if not is_beaten(one)]


def test_runs_at_one_place_of_the_front_share_a_label() -> None:
    assert [text for text in texts(drawn("pareto-constant")) if "+5" in text] != []


def test_the_best_run_is_named_whichever_way_is_better() -> None:
    made = store("grid")
    for metric in ("loss", "acc"):
        assert any(f"best: {made.best(metric)}" in text for text in texts(made.plot.parallel(metric)))


def test_values_in_cells_stand_out_from_them() -> None:
    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    ax = drawn("metric-cells").axes[0]
    (image,) = ax.images
    for text in ax.texts:
        x, y = map(int, text.get_position())
        cell, ink = luminance(image.to_rgba(image.get_array())[y, x]), luminance(text.get_color())
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) > 4.4, text.get_text()


def test_values_that_differ_in_their_fifth_digit_are_two() -> None:
    made = trained([{"lr": 0.123456}, {"lr": 0.123457}], loss_of)
    line = made.plot.metric("loss", "lr").axes[0].containers[0][0]
    assert len(line.get_xdata()) == 2


def test_seeds_that_agree_to_the_last_digit_have_no_bars() -> None:
    """The mean of three times 0.1 is above 0.1, and a bar must not be shorter than nothing."""
    made = trained([{"lr": lr, "seed": seed} for lr in (0.01, 0.1) for seed in range(3)], lambda config: {"loss": 0.1})
    made.plot.metric("loss", "lr")


def test_an_axis_spans_decades_in_powers() -> None:
    assert drawn("metric-line").axes[0].get_xscale() == "log"
    assert drawn("metric-some-nan").axes[0].get_yscale() == "log"
    assert drawn("metric-line").axes[0].get_yscale() == "linear"


def test_of_many_workers_every_run_is_a_bar() -> None:
    rows = [row for row in drawn("timeline").axes[0].collections if row.get_alpha() is None]
    assert len(rows) == 16
    assert sum(len(row.get_paths()) for row in rows) == 200
    assert any("200 runs by 16 workers on 4 nodes" in text for text in texts(drawn("timeline")))


def test_a_hostile_name_is_told_apart_from_others_in_a_legend() -> None:
    assert any(text.startswith("evil") for text in texts(drawn("curves-names")))
    assert HOSTILE not in texts(drawn("curves-names"))


def test_one_legend_holds_for_all_panels() -> None:
    made = trained(product_of(lr=[0.1, 0.01], seed=range(4)), loss_of)
    frame = logged(made, ["first", "second"])
    gone = frame["key"].isin(made.table("lr == 0.1").index) & (frame["tag"] == "second")
    put_curves(made, frame[~gone])
    assert {"0.1", "0.01", "95 % interval of 4 runs"} <= set(texts(made.plot.curves()))
    # One logarithmic axis has no room for an interval below zero: then no panel shows intervals.
    frame.loc[frame["tag"] == "first", "value"] **= 12
    assert "min to max of 4 runs" in texts(put_curves(made, frame).plot.curves())
