"""The numbers of every evaluation, a line each, so that learning curves are read without a checkpoint.

``logs/ab/KEY/evals.gN.jsonl`` is written by the owner of generation N alone::

    {"epoch": 3, "step": 120, "at": 1700000000.5, "values": {"loss": 0.25, "top5.acc": "nan"}}

It is a log, and not promised: nothing is made durable, what cannot be written is left out, and after a crash the lines
of epochs that are trained again stand in a lower generation. Hence the order of reading: generation by generation, and
a line takes the place of all before it that tell of its epoch or a later one. A line that is no JSON is passed over.
"""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from jimmy_manager import modes
from jimmy_manager.archives import layout
from jimmy_manager.values import MAX_DEPTH

log = logging.getLogger(__name__)

_MOST = 2**63
_TEXTS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Evaluation(NamedTuple):
    """One line: the numbers by dotted name; ``at`` counts seconds from 1970, ``step`` is 0 where none are counted."""

    epoch: int
    step: int
    at: float
    values: dict[str, float]


class EvalLog:
    """Appends to the file of one generation in the folder ``place`` (None: nowhere), which is made at the first line.

    Never raises: the first failure is logged, and each later line is tried again.
    """

    def __init__(self, place: str | None, generation: int) -> None:
        self._path = place and os.path.join(place, os.path.basename(layout.evals("", generation)))
        self._descriptor: int | None = None
        self._is_torn = self._has_warned = False

    def append(self, epoch: int, step: int, at: float, values: Mapping[Any, Any]) -> None:
        """Write the numbers among ``values``, if there are any, in one write."""
        if not self._path or not (found := dict(numbers(values))):
            return
        safe = {name: value if math.isfinite(value) else str(value) for name, value in found.items()}
        line = json.dumps({"epoch": epoch, "step": step, "at": round(at, 3), "values": safe}).encode() + b"\n"
        try:
            if self._descriptor is None:
                self._descriptor = _open(self._path)
            line = b"\n" + line if self._is_torn else line
            self._is_torn = os.write(self._descriptor, line) < len(line)
        except OSError as error:
            self._warn(error.strerror)
        else:
            if self._is_torn:
                self._warn("only a part of a line fitted")

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.close(descriptor)
            except OSError as error:  # NFS tells only now that the disk is full
                self._warn(error.strerror)

    def _warn(self, reason: str | None) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("evaluations are not logged to %s, and training goes on: %s", self._path, reason)


def numbers(values: Mapping[Any, Any], above: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """The numbers in nested ``values`` by dotted name, also 0-d arrays and tensors; what else there is is left out.

    >>> dict(numbers({"loss": 0.5, "note": "text", "top": {1: 2, "is_best": True}}))
    {'loss': 0.5, 'top.1': 2}
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            if depth < MAX_DEPTH:  # a mapping may hold itself
                yield from numbers(value, f"{above}{name}.", depth + 1)
        elif (number := _number(value)) is not None:
            yield f"{above}{name}", number


def read(place: str, damage: list[str]) -> list[Evaluation]:
    """The evaluations in the folder ``place``, by epoch; why a file could not be read goes to ``damage``."""
    kept: list[Evaluation] = []
    try:
        generations = sorted(filter(None, map(layout.parse_evals, names(place))))
    except OSError as error:
        damage.append(f"cannot list {place}: {error.strerror or error}")
        return kept
    for generation in generations:
        path = os.path.join(place, os.path.basename(layout.evals("", generation)))
        try:
            with open_regular(path) as file:
                lines = file.read().split(b"\n")
        except OSError as error:
            damage.append(f"cannot read {path}: {error.strerror or error}")
            continue
        for line in filter(None, map(_parsed, lines)):
            while kept and kept[-1].epoch >= line.epoch:
                kept.pop()
            kept.append(line)
    return kept


def open_regular(path: str) -> BinaryIO:
    """Open a file of whose name nobody has made a link, a pipe or a device; ``OSError`` where somebody has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return open(descriptor, "rb")


def names(place: str) -> list[str]:
    """The names in the folder of a run's logs; none where there is no folder."""
    try:
        return os.listdir(place)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _open(path: str) -> int:
    modes.make_folders(os.path.dirname(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    modes.share_file(path)
    return descriptor


def _number(value: Any) -> float | None:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if (numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)) and value.ndim == 0) or (
        torch is not None and isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_meta
    ):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else float(value)
    except OverflowError:  # an integer that no float can hold
        return None


def _parsed(line: bytes) -> Evaluation | None:
    """What a line says; None for a half one and for what nobody here has written."""
    try:
        data = json.loads(line)
        epoch, step, at = data["epoch"], data["step"], float(data["at"])
        values = {name: _TEXTS[each] if isinstance(each, str) else float(each) for name, each in data["values"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    is_ours = all(type(each) is int and 0 <= each < _MOST for each in (epoch, step)) and math.isfinite(at)
    return Evaluation(epoch, step, at, values) if is_ours else None
