"""The learning rate in a small file that a person may edit while training runs."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jimmy_manager import yaml12
from jimmy_manager.errors import CheckpointError, ConfigError
from jimmy_manager.training.scheduler_adapter import assign_rates

if TYPE_CHECKING:
    from torch.optim import Optimizer

log = logging.getLogger(__name__)

_NOTE = "# written by training as LR: {}; another value takes effect at the next epoch\n"
_NOTED = re.compile(r"^# written by training as LR: (\S+);", re.MULTILINE)
_EXAMPLE = "write one line such as 'LR: 0.1'"


class RuntimeParams:
    """``runtime_param_buffer.yaml``: the rate of the first parameter group as ``LR: 0.1``, for reading and for editing.

    Call `read` before each epoch and `write` after it. An edit wins over a scheduler that moved the rate in the same
    epoch, because `write` leaves a file alone that holds one. What cannot be used (bad YAML, no ``LR``, not a number
    above 0) is reported as a warning, once, and ignored; it is not overwritten either, so that a half-finished edit is
    not lost. A file that vanished is reported and written anew. Training never ends because of this file.

    An edit multiplies the rates of all parameter groups by one factor, so that their ratios stay, and the rest of the
    schedule with it, see `set_rate`. An edit made after the checkpoint from which a killed run goes on is taken again,
    if the file still holds it; what training itself wrote after that checkpoint is recognised and is no edit.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # The rate in the file as this training knows it. None: the file, if there is one, belongs to an earlier one.
        self._seen: float | None = None
        self._is_resumed = False
        self._complaint: str | None = None

    def read(self, optimizer: Optimizer, scheduler: Any = None) -> float | None:
        """Apply what the user has written since the last call and return it; None where nothing was edited.

        The first call of a new training makes the file. ``scheduler`` is told of an edit by its ``follow_edit``, if it
        has one.
        """
        rate = self.edited()
        if rate is not None:
            set_rate(optimizer, rate, scheduler)
            self._seen = rate
        elif self._seen is None or not self.path.exists():
            self.write(optimizer)
        return rate

    def edited(self) -> float | None:
        """Return the rate that the user asks for, or None, without applying it: for one process to tell the others."""
        try:
            found = self._look()
        except ConfigError as error:
            self._complain(f"{error}; this file is ignored until it is right")
            return None
        if found is None:
            if self._seen is not None and not self._is_resumed:
                self._complain(f"{self.path} has vanished; it is written anew")
            return None
        self._complaint = None
        return found.rate if self._is_edit(found) else None

    def write(self, optimizer: Optimizer) -> None:
        """Put the present rate into the file, unless it stands there already or the user has edited the file."""
        try:
            found = self._look()
        except ConfigError:
            return  # somebody is editing it; `read` complains
        rate = float(optimizer.param_groups[0]["lr"])
        if found is None or (not self._is_edit(found) and found.rate != rate):
            self._replace(rate)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the file of an earlier process; ``CheckpointError`` names what the state lacks."""
        if "seen" not in state:
            raise CheckpointError(
                "the saved runtime parameters have no 'seen', so an edit could not be told from a move"
            )
        self._seen = state["seen"]
        self._is_resumed = True

    def _look(self) -> _Found | None:
        """Return what this training's file holds, None where there is none; ConfigError says why it cannot be used."""
        if self._seen is None:
            return None
        try:
            text = self.path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path} is not UTF-8 ({error.reason}); {_EXAMPLE}") from error
        match = _NOTED.search(text)
        noted = match.group(1) if match else None
        return _Found(_rate_in(text, self.path, noted), noted)

    def _is_edit(self, found: _Found) -> bool:
        if self._is_resumed and found.noted == repr(found.rate):
            # Written by the process before, maybe after the checkpoint from which this one goes on.
            self._seen = found.rate
        self._is_resumed = False
        return found.rate != self._seen

    def _replace(self, rate: float) -> None:
        # A name no other process can pick: with a fixed suffix two writers would share one scratch file.
        scratch = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                scratch.write_text(yaml12.dump({"LR": rate}) + _NOTE.format(repr(rate)), encoding="utf-8")
                os.replace(scratch, self.path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            self._complain(
                f"cannot write {self.path}: {error.strerror or error}; the rate cannot be edited until it can"
            )
            return
        self._seen = rate
        self._is_resumed = False

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.warning("%s", complaint)
        self._complaint = complaint


def set_rate(optimizer: Optimizer, rate: float, scheduler: Any = None) -> None:
    """Give the first parameter group the learning rate ``rate``, and multiply every other one by the same factor.

    ``scheduler.follow_edit(factor)``, where it exists, multiplies the rest of the schedule too: after an edit from 0.1
    to 0.05 everything to come is half of what it would have been, whether a scheduler multiplies the present rate
    (StepLR, ReduceLROnPlateau) or computes each rate from its base (LambdaLR, OneCycleLR). In a warm-up this holds for
    the peak as well, except for JimmyLRScheduler, whose warm-up ends. Absolute floors (``eta_min``, ``min_lr``) stay.
    Where the present rate is 0 the factor is infinite: the groups get their initial proportions, the schedule stays.
    """
    groups = optimizer.param_groups
    present = [float(group["lr"]) for group in groups]
    factor = rate / present[0] if present[0] else math.inf
    if math.isinf(factor):
        initial = [float(group.get("initial_lr", 0.0)) for group in groups]
        rates = [rate * (each / initial[0] if initial[0] else 1.0) for each in initial]
        log.info("learning rate edited from %r to %r; the schedule goes on as it was", present[0], rate)
    else:
        rates = [rate, *(each * factor for each in present[1:])]
        log.info("learning rate edited from %r to %r; the rest of the schedule follows", present[0], rate)
    assign_rates(optimizer, rates)
    if hasattr(scheduler, "follow_edit"):
        scheduler.follow_edit(factor)


class _Found(NamedTuple):
    """What stands in the file: the rate, and the rate that training says it wrote, as text."""

    rate: float
    noted: str | None


def _rate_in(text: str, path: Path, noted: str | None) -> float:
    content = yaml12.loads(text, str(path))
    if not isinstance(content, dict) or set(content) != {"LR"}:
        has = f"the fields {list(content)}" if isinstance(content, dict) else f"{content!r}"
        raise ConfigError(f"{path} holds {has}, not the one field 'LR'; {_EXAMPLE}")
    rate = content["LR"]
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    # Nobody asks for 0, but a schedule may begin or end there, and then training has written it.
    is_own = is_number and not rate and noted == repr(float(rate))
    if not is_number or not (0 < rate <= sys.float_info.max or is_own):
        raise ConfigError(f"LR is {rate!r} in {path}; it must be a number above 0: {_EXAMPLE}")
    return float(rate)
