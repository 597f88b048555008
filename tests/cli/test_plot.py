"""``jimmy plot``: figures as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from jimmy_manager import Store
from jimmy_manager.cli import main
from tests.results.drawn_stores import logged

Jimmy = Callable[..., Result]

BEGINNINGS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["metric", "loss", "lr"], "loss-by-lr.png"),
        (["metric", "loss", "lr", "name"], "loss-by-lr-and-name.png"),
        (["metric", "nested.acc", "optim.wd"], "nested.acc-by-optim.wd.png"),
        (["parallel"], "parallel.png"),
        (["pareto", "loss", "nested.acc"], "nested.acc-and-loss.png"),
        (["timeline"], "timeline.png"),
    ],
)
def test_a_figure_gets_the_name_of_what_it_shows(jimmy: Jimmy, arguments: list[str], name: str) -> None:
    result = jimmy("plot", *arguments)
    assert result.stdout == f"{name}\n"
    assert Path(name).read_bytes().startswith(BEGINNINGS[".png"])


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_the_name_of_a_file_says_its_format(jimmy: Jimmy, suffix: str) -> None:
    result = jimmy("plot", "parallel", "loss", "--fields", "lr,act", "-o", f"mine{suffix}")
    assert result.stdout == f"mine{suffix}\n"
    assert Path(f"mine{suffix}").read_bytes().startswith(BEGINNINGS[suffix])


def test_dots_per_inch_are_the_callers(jimmy: Jimmy) -> None:
    sizes = []
    for dpi in ("50", "100"):
        jimmy("plot", "metric", "loss", "lr", "--dpi", dpi, "-o", "mine.png")
        sizes.append(int.from_bytes(Path("mine.png").read_bytes()[16:20], "big"))
    assert sizes == [330, 660]


def test_curves_are_drawn_of_what_was_asked_for(
    jimmy: Jimmy, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def curves(self: Store, keys: object = None, tags: object = None, where: object = None) -> object:
        asked.append((keys, tags, where))
        return logged(self, ["loss"], 3)

    monkeypatch.setattr(Store, "curves", curves)
    assert jimmy("plot", "curves", "loss", "--by", "lr,name", "--where", "lr < 1").stdout == "curves.png\n"
    assert jimmy("plot", "curves", "--keys", "ab,cd", "-o", "c.svg").stdout == "c.svg\n"
    assert asked == [(None, ("loss",), "lr < 1"), (["ab", "cd"], None, None)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["metric", "lsos", "lr"], 1, "error: no run has a field 'lsos'; did you mean 'loss'?"),
        (["metric", "loss", "lr", "--where", "lr >"], 1, "error: cannot read the filter"),
        (["metric", "loss", "lr", "--where", "lr > 99"], 1, "error: there is nothing to plot"),
        (["pareto", "loss", "nested.acc", "--modes", "least,most"], 1, "error: modes are two of 'min' and 'max'"),
        (["metric", "loss", "lr", "-o", "mine.jpg"], 2, "its name must end in .png, .pdf, .svg"),
        (["metric", "loss", "lr", "-o", "nowhere/mine.png"], 1, "error: cannot write 'nowhere/mine.png': No such file"),
        (["metric", "loss"], 2, "Missing argument 'BY'"),
        (["pie"], 2, "No such command 'pie'"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    jimmy: Jimmy, arguments: list[str], code: int, message: str
) -> None:
    result = jimmy("plot", *arguments, code=code)
    assert message in result.stderr
    assert list(Path().iterdir()) == []


def test_a_damaged_record_is_named_and_the_others_are_drawn(
    jimmy: Jimmy, store: Path, key_of: Callable[..., str]
) -> None:
    key = key_of(lr=0.2)
    for path in (store / "previews").rglob(f"{key}.*"):
        path.write_bytes(path.read_bytes()[:-3])
    result = jimmy("plot", "metric", "loss", "lr")
    assert f"previews/{key[:2]}/{key}.g1" in result.stderr
    assert result.stdout == "loss-by-lr.png\n"


def test_help_draws_nothing_and_loads_no_matplotlib() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom jimmy_manager.cli.plot import plot\nplot.main(['metric', '--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name[:10] == 'matplotlib'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stderr


def test_the_summary_of_the_table_is_that_of_the_group() -> None:
    from jimmy_manager.cli.plot import plot

    assert plot.get_short_help_str() == main.COMMANDS["plot"].summary
