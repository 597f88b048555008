"""The runs below ``Runs/{Dataset}/{Model}/{run}/`` as a table."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.text import Text

log = logging.getLogger(__name__)

State = Literal["incomplete", "trained", "tested", "unreadable"]

_STYLES: dict[State, str] = {"incomplete": "yellow", "trained": "cyan", "tested": "green", "unreadable": "red"}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")
_ALL = tuple(range(7))
_COMMENT = 24  # characters of a comment that are worth more than the time of the last change


@dataclass(frozen=True)
class RunRecord:
    """One run: ``incomplete`` without ``best.pth``, ``tested`` with one and any ``.csv``, else ``trained``.

    ``comment`` is the first line of ``comments.txt``. ``size``, in bytes, and ``changed``, the time of the last change,
    are those of all files in the directory and below.
    """

    dataset: str
    model: str
    name: str
    path: Path
    state: State
    comment: str
    size: int
    changed: datetime


class RunRecordManager:
    """Tells what runs there are below ``root``; it only reads.

    Directories at the depth of a run are runs, whatever they hold. Files in other places, broken links and hidden
    directories are passed over; a directory that cannot be listed is ``unreadable``, or above the runs a warning in
    the log.
    """

    def __init__(self, root: str | os.PathLike[str] = "./Runs") -> None:
        self.root = Path(root)

    def records(
        self, datasets: str | Collection[str] | None = None, models: str | Collection[str] | None = None
    ) -> list[RunRecord]:
        """Return the runs of the named datasets and models, or of all, the newest last."""
        records = []
        for dataset in _directories(self.root, _wanted(datasets)):
            for model in _directories(dataset, _wanted(models)):
                for run in _directories(model, None):
                    record = _record(run, dataset.name, model.name)
                    records += [record] if record else []
        return sorted(records, key=lambda record: (record.changed, record.path))

    def printRecords(
        self, datasets: str | Collection[str] | None = None, models: str | Collection[str] | None = None
    ) -> None:
        """Print the runs of the named datasets and models, or of all, as a table, the newest last."""
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        records = self.records(datasets, models)
        if not records:
            chosen = [f"{name} {value!r}" for name, value in (("dataset", datasets), ("model", models)) if value]
            found = f"no runs{' of ' if chosen else ''}{' and '.join(chosen)} in {self.root.absolute()}"
            console.print(Text(_plain(found)), soft_wrap=True)
            return
        is_page = console.is_terminal or console.is_jupyter
        for line in _lines(records, console.width if is_page else None):
            if is_page:
                console.print(line, no_wrap=True, overflow="ellipsis")
            else:
                console.print(line, soft_wrap=True)


def size_text(size: float) -> str:
    """A number of bytes as people say it.

    >>> [size_text(size) for size in (0, 999, 1000, 123_456, 999_960, 3_200_000_000)]
    ['0 B', '999 B', '1.0 kB', '123.5 kB', '1.0 MB', '3.2 GB']
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < (1000 if unit == "B" else 999.95):
            return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class _Contents:
    """What counts of a run's files, gathered without following links."""

    def __init__(self, run: Path) -> None:
        self.size = 0
        self.has_csv = False
        self.changed = run.stat().st_mtime
        self._has_files = False
        self._look(run, is_top=True)

    def _look(self, directory: Path | str, *, is_top: bool = False) -> None:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._take(entry)
        except OSError as error:
            if is_top:
                raise
            log.debug("size and change are without %s: %s", directory, error)

    def _take(self, entry: os.DirEntry[str]) -> None:
        if entry.is_dir(follow_symlinks=False):
            self._look(entry.path)
            return
        try:
            about = entry.stat(follow_symlinks=False)
        except OSError:  # removed a moment ago
            return
        self.size += about.st_size
        self.has_csv |= entry.name.endswith(".csv") and stat.S_ISREG(about.st_mode)
        # A directory itself changes when something is removed from it.
        self.changed = max(self.changed, about.st_mtime) if self._has_files else about.st_mtime
        self._has_files = True


def _record(run: Path, dataset: str, model: str) -> RunRecord | None:
    """The record of one directory; None where it went away while it was read."""
    try:
        contents = _Contents(run)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.debug("%s cannot be read: %s", run, error)
        return RunRecord(dataset, model, run.name, run, "unreadable", error.strerror or str(error), 0, _moment(0))
    state: State = "tested" if contents.has_csv else "trained"
    if not (run / "best.pth").is_file():
        state = "incomplete"
    changed = _moment(contents.changed)
    return RunRecord(dataset, model, run.name, run, state, _first_line(run / "comments.txt"), contents.size, changed)


def _directories(parent: Path, names: Collection[str] | None) -> Iterator[Path]:
    """The directories below ``parent``, and links to some, whose names are among ``names``, by name."""
    try:
        found = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        log.warning("the runs in %s cannot be listed: %s", parent, error)
        return
    for path in found:
        if (names is None or path.name in names) and path.is_dir():
            yield path


def _wanted(names: str | Collection[str] | None) -> Collection[str] | None:
    return [names] if isinstance(names, str) else names


def _first_line(path: Path) -> str:
    """The first line that is not empty; nothing where there is no such file, or it is a pipe that would block."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            text = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _moment(seconds: float) -> datetime:
    """Local time; what no calendar has is brought to its nearest end."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), 253_000_000_000.0), UTC).astimezone()


def _lines(records: Sequence[RunRecord], width: int | None) -> Iterator[Text]:
    """The table line by line, with what fits into ``width``, and a summary."""
    from rich.text import Text

    heads = ("Dataset", "Model", "Run", "State", "Changed", "Size", "Comment")
    shown = _fitting([heads, *map(_cells, records)], width)
    for index, cells in enumerate(shown):
        line = Text("  ".join(cells[:3]) + "  ", "" if index else "bold")
        line.append(cells[3], _STYLES[records[index - 1].state] if index else "")
        line.append("  ".join(["", *cells[4:]]))
        line.rstrip()
        yield line
    counts = Counter(record.state for record in records)
    told = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state])
    runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
    yield Text(f"{runs}, {size_text(sum(record.size for record in records))}: {told}", "dim")


def _cells(record: RunRecord) -> tuple[str, ...]:
    names = (_plain(name) for name in (record.dataset, record.model, record.name))
    is_known = record.state != "unreadable"
    changed, size = (f"{record.changed:%Y-%m-%d %H:%M}", size_text(record.size)) if is_known else ("", "")
    return (*names, record.state, changed, size, _plain(record.comment))


def _fitting(rows: Sequence[tuple[str, ...]], width: int | None) -> list[list[str]]:
    """Cells padded to columns; for room to read the comments the time goes, then the size, then the date."""
    from rich.cells import cell_len, set_cell_size

    for day, columns in ((False, _ALL), (True, _ALL), (True, (0, 1, 2, 3, 4, 6)), (True, (0, 1, 2, 3, 6))):
        cut = [[cell[:10] if day and i == 4 else cell for i, cell in enumerate(row)] for row in rows]
        widths = {i: max(cell_len(row[i]) for row in cut) for i in columns}
        if width is None or sum(widths.values()) + 2 * len(widths) - 2 - max(0, widths[6] - _COMMENT) <= width:
            break
    return [
        [row[i].rjust(widths[i]) if i == 5 else set_cell_size(row[i], widths[i]) for i in columns] for row in cut
    ]  # fmt: skip


def _plain(text: str) -> str:
    r"""Text of unknown origin, made fit for a terminal.

    >>> _plain("a\x1b[2J run\n")
    'a\\x1b[2J run\\n'
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
