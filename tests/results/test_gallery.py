"""Figures of many runs beside each other: the right ones, few and small, and no damage hides the rest."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jimmy_manager import Store
from jimmy_manager.errors import UnknownField
from jimmy_manager.results import gallery as module
from jimmy_manager.results.gallery import HIGHEST, MOST_RUNS, WIDEST, Gallery, thumbnail
from tests.archives.runs import attempt_at, commit, train
from tests.test_html import HOSTILE, check


def figure(width: float = 6.4) -> Figure:
    drawn = Figure(figsize=(width, 4.8))
    drawn.subplots().plot([0, 1], [0, 1])
    return drawn


def with_figures(store: Store, config: dict[str, Any], **shown: Any) -> str:
    attempt = attempt_at(store, config)
    commit(attempt, 1, **shown)
    attempt.finish()
    return attempt.key


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def test_the_thumbnails_are_those_of_the_runs_beside_their_results(store: Store) -> None:
    keys = [with_figures(store, {"lr": lr}, loss=-lr, curve=figure()) for lr in (1, 2)]
    bare = train(store, {"lr": 3})
    store.register({"lr": 4})
    shown = store.gallery(sort="loss", columns=["state", "loss"])
    assert list(shown.thumbnails) == keys[::-1]
    assert shown.labels == ["curve"]
    found = check(shown._repr_html_())
    assert found.tags.count("img") == 2
    assert [v for n, v in found.attributes if n == "alt"] == [f"curve of {key}" for key in keys[::-1]]
    assert "done" in found.text
    assert bare not in found.text
    assert repr(shown) == "<figures of 2 runs: curve>"


def test_a_thumbnail_is_the_picture_made_small(store: Store) -> None:
    key = with_figures(store, {}, curve=figure(12))
    full = store.previews.figures(key)["curve"]
    small = store.gallery().thumbnails[key]["curve"]
    assert isinstance(small, bytes)
    assert len(small) < len(full)
    with Image.open(io.BytesIO(small)) as picture:
        assert picture.width <= WIDEST
        assert picture.height <= HIGHEST
        assert abs(picture.width / picture.height - 12 / 4.8) < 0.05


def test_where_chooses_and_an_unknown_field_is_an_error(store: Store) -> None:
    keys = [with_figures(store, {"lr": lr}, curve=figure()) for lr in (1, 2)]
    assert list(store.gallery("lr > 1").thumbnails) == keys[1:]
    with pytest.raises(UnknownField, match="did you mean 'lr'"):
        store.gallery(sort="lrr")


def test_no_more_is_read_than_is_shown_and_the_note_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    for lr in range(4):
        with_figures(store, {"lr": lr}, curve=figure(1))
    read: list[str] = []
    monkeypatch.setattr(store.previews, "figures", lambda key: (read.append(key), {"curve": png()})[1])
    shown = store.gallery(sort="lr")
    assert len(read) == len(shown) == 2
    assert "the first 2 of 4 runs" in check(shown._repr_html_()).text
    assert MOST_RUNS <= 50


def test_where_nothing_has_a_figure_it_says_how_far_it_looked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.gallery().note == "no runs"
    for lr in range(3):
        train(store, {"lr": lr})
    assert "none of the 3 runs has a figure" in check(store.gallery()._repr_html_()).text
    monkeypatch.setattr(module, "MOST_SEARCHED", 2)
    assert repr(store.gallery()) == "<figures of 0 runs: none of the first 2 of 3 runs has a figure in its preview>"


def test_a_damaged_figure_is_told_by_name_and_the_others_are_shown(store: Store, tmp_path: Path) -> None:
    keys = [with_figures(store, {"lr": lr}, curve=figure()) for lr in (1, 2)]
    (path,) = tmp_path.glob(f"store/previews/*/{keys[0]}.*.png")
    path.write_bytes(path.read_bytes()[:-1])
    shown = store.gallery(sort="lr")
    assert f"damaged file previews/{keys[0][:2]}/{path.name}" in str(shown.thumbnails[keys[0]]["damage"])
    assert check(shown._repr_html_()).tags.count("img") == 1


def test_what_is_no_picture_or_too_large_a_one_is_not_decoded() -> None:
    header = struct.pack(">IIBBBBB", 1_000_000, 1_000_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    broken = png((64, 64))
    for bad in (b"", HOSTILE.encode("utf-8"), b"GIF89a", bomb, broken[:-30], broken[:40]):
        told = thumbnail(bad)
        assert isinstance(told, str)
        assert told
    assert isinstance(thumbnail(png()), bytes)


def test_a_column_of_labels_is_not_shown_beside_its_pictures() -> None:
    frame = pd.DataFrame({"lr": [1, 2], "plots.curve": ["plots_curve", None], "note": ["x", None]}, index=["a", "b"])
    pictures: dict[str, dict[str, bytes | str]] = {"a": {"plots_curve": png()}, "b": {"other": png()}}
    text = check(Gallery(frame, pictures)._repr_html_()).text
    assert text.startswith("keylrnoteplots_curveother")


def test_hostile_labels_fields_and_values_are_text(store: Store) -> None:
    name = HOSTILE.replace(".", "")
    for value in (HOSTILE, "x"):
        with_figures(store, {name: value}, **{HOSTILE: figure(1), "text": HOSTILE})
    assert "onerror" in check(store.gallery()._repr_html_()).text
