"""What a worker tells of its progress; the base class tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jimmy_manager.manager.schedule import BatchReport


class Progress:
    """Told by ``Manager`` what happens; every method may be left out by a subclass."""

    def begin_batch(self, total: int | None) -> None:
        """A batch of ``total`` configurations begins; None where nobody knows how many."""

    def begin_run(self, key: str, config: Mapping[str, Any], epoch: int, last: int) -> None:
        """A run is about to be trained from ``epoch`` to ``last``."""

    def after_epoch(self, key: str, epoch: int, last: int, preview: Mapping[str, Any]) -> None:
        """An epoch of the run ended; ``preview`` is that of the newest evaluation."""

    def end_run(self, key: str, state: str, message: str = "") -> None:
        """The run ended here as ``done``, ``stopped``, ``lost`` or ``failed``."""

    def after_config(self, report: BatchReport) -> None:
        """One more configuration of the batch was dealt with."""

    def end_batch(self, report: BatchReport) -> None:
        """The batch is over."""

    def close(self) -> None:
        """Give the terminal back; may be called any number of times."""
