"""One run of a store, for a prompt or a notebook: what it was, what came of it, and its model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from jimmy_manager import html
from jimmy_manager.archives import eval_log
from jimmy_manager.config import Config
from jimmy_manager.errors import HookError, NoRecord, RecordError
from jimmy_manager.manager.manager import Manager
from jimmy_manager.nesting import flattened
from jimmy_manager.plain_text import plain, plain_lines
from jimmy_manager.results import side_by_side
from jimmy_manager.results.table import STATES

if TYPE_CHECKING:
    import pandas as pd

    from jimmy_manager.archives.looking import Looking

_LONGEST_LOG = 1 << 20
_SHOWN_RESULTS = 3
_SHOWN_FIELDS = 40
_SHOWN_FIGURES = 12


class RunResults:
    """The run ``key`` of the Store or Manager ``asked``; everything is read anew at each access.

    Nothing here loads a checkpoint, but `model`.
    """

    def __init__(self, asked: Looking, key: str) -> None:
        self.key = key
        self._asked = asked
        self._store = asked._looked_at()
        self._store.configs[key]  # a popped run is an error here, and not later

    @property
    def config(self) -> Config:
        """Its configuration, as the schema ledger shows it."""
        return self._store.configs[self.key]

    @property
    def preview(self) -> dict[str, Any]:
        """Its small results, figures as their labels; empty where nothing is saved yet."""
        try:
            return self._store.previews[self.key]
        except NoRecord:
            return {}

    @property
    def stats(self) -> dict[str, Any]:
        """Epoch, step, times and circumstances of its newest commit; empty where nothing is saved yet."""
        try:
            return self._store.stats[self.key]
        except NoRecord:
            return {}

    @property
    def state(self) -> str:
        """How ``jimmy ls`` calls its state: ``new``, ``running``, ``paused``, ``lost``, ``failed``, ``done``, ..."""
        state = self._store.standing(self.key).state
        return STATES.get(state, state)

    @property
    def epoch(self) -> int | None:
        """The epoch of its newest commit; None where nothing is saved yet."""
        return self.stats.get("epoch")

    @property
    def figures(self) -> dict[str, bytes]:
        """The PNG of each figure in its preview, by label."""
        try:
            return self._store.previews.figures(self.key)
        except NoRecord:
            return {}

    @property
    def error(self) -> str | None:
        """The traceback that it failed with, else its message; None where it has not failed."""
        record = self._store.standing(self.key).record
        found = (record.error if record else None) or {}
        message = f"{found.get('type', 'unknown')}: {found.get('message', '')}"
        return plain_lines(found.get("traceback") or message) if found else None

    @property
    def log(self) -> str:
        """The end of each ``*.log`` and ``*.txt`` that the job left among its logs, and a line for each evaluation."""
        place = self._store.logs(self.key)
        return "\n".join([*_texts(place), *_evaluations(place)]) if place else ""

    def curves(self, tags: Iterable[str] | str | None = None) -> pd.DataFrame:
        """Its learning curves; see `Looking.curves`."""
        return self._asked.curves(self.key, tags)

    def model(self, device: str | None = None) -> Any:
        """What `Manager.fetch` returns of it: the trained model in eval mode, on ``device``.

        Only a Manager knows how to build one: raises ``HookError`` where a Store was asked.
        """
        if not isinstance(self._asked, Manager):
            raise HookError(
                f"a Store cannot build the model of run {self.key}, its Manager can: "
                f"MyManager({str(self._store)!r}).run({self.key!r}).model()"
            )
        return self._asked.fetch(self.key, device)

    def __repr__(self) -> str:
        try:
            return f"<{plain(self._summary())}>"
        except RecordError as error:
            return f"<run {self.key}: {plain(error)}>"

    def _repr_html_(self) -> str:
        try:
            return self._card()
        except RecordError as error:
            return html.page(html.element("b", f"run {self.key}"), ": ", error)

    def _card(self) -> str:
        preview, fields = dict(flattened(self.preview)), dict(flattened(self.config.asdict()))
        figures = self.figures
        results = {name: each for name, each in preview.items() if not (isinstance(each, str) and each in figures)}
        parts: list[object] = [html.element("b", self._summary())]
        parts += [_section(*each) for each in (("config", fields), ("preview", results)) if each[1]]
        parts += [html.image(png, label) for label, png in list(figures.items())[:_SHOWN_FIGURES]]
        if (error := self.error) is not None:
            parts.append(html.element("div", error.strip().splitlines()[-1], class_="dim"))
        return html.page(*parts)

    def _summary(self) -> str:
        epoch = self.epoch
        text = f"run {self.key}: {self.state}" + (f" after epoch {epoch}" if epoch is not None else "")
        shown = {name: value for name, value in self.preview.items() if name != "eval_records"}
        numbers = islice(eval_log.numbers(shown), _SHOWN_RESULTS)
        return ", ".join([text, *(f"{name} {side_by_side.cells([value])[0]}" for name, value in numbers)])


def _section(title: str, values: dict[str, Any]) -> html.Markup:
    rows = [(name, *side_by_side.cells([value])) for name, value in list(values.items())[:_SHOWN_FIELDS]]
    more = len(values) - len(rows)
    return html.joined([
        html.table([title, ""], rows), html.element("div", f"and {more} more", class_="dim") if more else ""
    ])  # fmt: skip


def _texts(place: str) -> Iterator[str]:
    """The texts that a job has left in its folder, each below its name."""
    try:
        names = sorted(eval_log.names(place))
    except OSError:  # of which the evaluations tell
        return
    for name in names:
        if name.endswith((".log", ".txt")):
            try:
                with eval_log.open_regular(os.path.join(place, name)) as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - _LONGEST_LOG))
                    yield f"{plain(name)}:\n{plain_lines(file.read().decode('utf-8', 'replace')).rstrip()}\n"
            except OSError as error:
                yield f"{plain(name)}: cannot be read: {error.strerror or error}\n"


def _clock(at: float) -> str:
    """A time as a clock on the wall shows it; the number itself where no calendar has that year."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:g}"


def _evaluations(place: str) -> Iterator[str]:
    damage: list[str] = []
    for each in eval_log.read(place, damage):
        when = _clock(each.at)
        step = f", step {each.step}" if each.step else ""
        values = ", ".join(f"{plain(name)} {value:.6g}" for name, value in each.values.items())
        yield f"{when} epoch {each.epoch}{step}: {values}"
    yield from map(plain, damage)
