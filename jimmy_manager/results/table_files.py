"""Tables of runs as files for other programs and for people: CSV, Markdown, Parquet."""

from __future__ import annotations

import html
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jimmy_manager.archives.layout import scratch
from jimmy_manager.errors import ConfigError, MissingExtra, StoreError
from jimmy_manager.plain_text import plain

SUFFIXES = (".csv", ".md", ".parquet")


def check_path(path: str | os.PathLike[str]) -> str:
    """The suffix of ``path``, which names the format; ``ConfigError`` for one that is none of ``SUFFIXES``."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"cannot tell the format of {os.fspath(path)!r}; its name must end in {', '.join(SUFFIXES)}")
    return suffix


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write ``frame``, as ``Looking.table`` returns it, in the format that the end of ``path`` names.

    A file that is there is replaced once the new one is whole.
    """
    suffix, path = check_path(path), os.fspath(path)
    beside = scratch(path)
    try:
        if suffix == ".parquet":
            _write_parquet(frame, beside)
        else:
            Path(beside).write_text(as_csv(frame) if suffix == ".csv" else as_markdown(frame), "utf-8", newline="")
        os.replace(beside, path)
    except OSError as error:
        raise StoreError(f"cannot write {path!r}: {error.strerror or error}") from error
    finally:
        Path(beside).unlink(missing_ok=True)


def as_csv(frame: pd.DataFrame) -> str:
    """The table as CSV with every digit, the key first; lists as JSON, what is missing as nothing."""
    text: str = _without_lists(frame).to_csv(lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S.%fZ")
    # A lone surrogate, which a preview may hold, has no bytes.
    return text.encode("utf-8", "backslashreplace").decode()


def as_markdown(frame: pd.DataFrame) -> str:
    r"""The table as Markdown for people: four digits, numbers to the right, names and texts without any markup.

    >>> print(as_markdown(pd.DataFrame({"lr": [0.1], "arch": ["a|b"]}, index=pd.Index(["ab"], name="key"))), end="")
    | key |   lr | arch |
    | --- | ---: | ---- |
    | ab  |  0.1 | a\|b |
    """
    names = [str(frame.index.name), *map(str, frame.columns)]
    columns = [frame.index.to_series(), *(frame.iloc[:, place] for place in range(frame.shape[1]))]
    is_right = [column.dtype.kind in "if" for column in columns]
    cells = [[_cell(name), *map(_cell, column)] for name, column in zip(names, columns, strict=True)]
    widths = [max(3 + right, *map(len, column)) for column, right in zip(cells, is_right, strict=True)]
    marks = ["-" * (width - right) + ":" * right for width, right in zip(widths, is_right, strict=True)]
    lines = [list(line) for line in zip(*cells, strict=True)]
    laid_out = [
        [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, is_right, strict=True)]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (laid_out[0], marks, *laid_out[1:]))


def _write_parquet(frame: pd.DataFrame, path: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtra("Parquet files need pyarrow: pip install 'jimmy_manager[parquet]'") from error
    _without_lists(frame, only_text=True).to_parquet(path, engine="pyarrow")


def _without_lists(frame: pd.DataFrame, *, only_text: bool = False) -> pd.DataFrame:
    """``frame`` with JSON for lists; with ``only_text`` for all of a column whose values are of several types."""
    changed = {}
    for place, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, np.dtype) and dtype.kind == "O":
            values = [None if _is_missing(value) else value for value in frame.iloc[:, place]]
            kinds = {type(value) for value in values if value is not None}
            is_mixed = only_text and kinds not in ({bool}, {str})
            spelled = (list, dict) if not is_mixed else object
            changed[place] = [json.dumps(v) if v is not None and isinstance(v, spelled) else v for v in values]
    if not changed:
        return frame
    frame = frame.copy()
    for place, values in changed.items():
        # Left to itself pandas would make its own kind of text of it, which cannot hold a lone surrogate.
        frame.isetitem(place, pd.Series(values, index=frame.index, dtype=object))  # type: ignore[arg-type]  # pandas takes it
    return frame


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _cell(value: Any) -> str:
    if value is None or value is pd.NaT:
        return ""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return html.escape(plain(value), quote=False).replace("\\", "\\\\").replace("|", "\\|")
