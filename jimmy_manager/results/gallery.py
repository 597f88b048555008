"""Figures of many runs beside each other, for notebooks.

A thing of its own and no column of ``table()``: that is read for numbers, of a hundred thousand runs as of ten, and
pictures are not. Here as many runs are shown as somebody looks at, the first ones of the order asked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from jimmy_manager import html
from jimmy_manager.errors import KeyNotFound, NoRecord, RecordError
from jimmy_manager.plain_text import plain
from jimmy_manager.results.frame import table
from jimmy_manager.results.summary import marked

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.archives.store import Store

MOST_RUNS = 24
MOST_FIGURES = 8
"""Figures of one run that are shown."""
MOST_COLUMNS = 8
MOST_SEARCHED = 1_000
"""Runs of the table in which figures are looked for."""
WIDEST, HIGHEST = 240, 180
MOST_PIXELS = 40_000_000


@dataclass(frozen=True, eq=False)
class Gallery:
    """The runs of ``frame`` with ``thumbnails[key][label]``, small PNGs; a text in place of one says what is wrong."""

    frame: pd.DataFrame
    thumbnails: dict[str, dict[str, bytes | str]]
    note: str = ""

    @property
    def labels(self) -> list[str]:
        """The names of all figures, in the order of their first use."""
        return list(dict.fromkeys(label for each in self.thumbnails.values() for label in each))

    def __len__(self) -> int:
        return len(self.thumbnails)

    def __repr__(self) -> str:
        what = f"figures of {len(self)} runs" if len(self) != 1 else "figures of 1 run"
        return f"<{what}: {plain(', '.join(self.labels))}>" if self.thumbnails else f"<{what}: {self.note}>"

    def _repr_html_(self) -> str:
        names = [name for name in self.frame.columns if not self._is_of_figures(name)][:MOST_COLUMNS]
        lines = [
            [
                html.element("code", key),
                *(_cell(name, self.frame.at[key, name]) for name in names),
                *(_picture(found.get(label, ""), f"{label} of {key}") for label in self.labels),
            ]
            for key, found in self.thumbnails.items()
        ]
        shown = html.table(["key", *names, *self.labels], lines) if lines else ""
        return html.page(shown, html.element("div", self.note, class_="dim"))

    def _is_of_figures(self, name: str) -> bool:
        """Whether a column holds nothing but the labels of the figures that are shown anyway."""
        cells = self.frame.loc[list(self.thumbnails), name].dropna().tolist()
        return bool(cells) and all(isinstance(each, str) and each in self.labels for each in cells)


def gallery(
    store: Store, where: Condition = None, columns: Iterable[str] | None = None, sort: str | None = None
) -> Gallery:
    """The first runs of ``table(where, columns, sort)`` that have figures; see ``Looking.gallery``."""
    frame = table(store, where, columns, sort)
    thumbnails: dict[str, dict[str, bytes | str]] = {}
    keys = iter(frame.index[:MOST_SEARCHED])
    while len(thumbnails) < MOST_RUNS and (key := next(keys, None)) is not None:
        if found := _thumbnails(store, key):
            thumbnails[key] = found
    return Gallery(frame, thumbnails, _note(len(thumbnails), len(frame)))


def _note(shown: int, runs: int) -> str:
    if shown == MOST_RUNS < runs:
        return f"the first {shown} of {runs} runs; 'where' and 'sort' choose others"
    looked_at = f"the first {MOST_SEARCHED} of {runs}" if runs > MOST_SEARCHED else f"the {runs}"
    return f"none of {looked_at} runs has a figure in its preview" if not shown and runs else "" if runs else "no runs"


def _thumbnails(store: Store, key: str) -> dict[str, bytes | str]:
    try:
        found = store.previews.figures(key)
    except (NoRecord, KeyNotFound):  # not saved yet, or popped since it was listed
        return {}
    except RecordError as error:
        return {"damage": str(error)}
    return {label: thumbnail(png) for label, png in islice(found.items(), MOST_FIGURES)}


def thumbnail(png: bytes) -> bytes | str:
    """A small version of a PNG; a text that says why where it is none, or one too large to be looked at."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return f"too large: {picture.width} x {picture.height} pixels"
            small = picture.convert("RGBA")
    except UnidentifiedImageError:
        return "not a PNG file"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"not a whole PNG file: {error}"
    small.thumbnail((WIDEST, HIGHEST))
    file = io.BytesIO()
    # 256 colours: a third of the bytes, which a notebook that is kept carries for ever.
    small.quantize().save(file, "PNG", optimize=True)
    return file.getvalue()


def _cell(name: str, value: Any) -> Any:
    import pandas as pd

    if name == "state":
        return marked(value)
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M}"
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _picture(found: bytes | str, title: str) -> html.Markup:
    return html.image(found, title) if isinstance(found, bytes) else html.markup(html.clipped(found))
