"""A stop that comes at a step, as a signal would."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from jimmy_manager.training.jimmy_trainer import JimmyTrainer


class StopAt:
    """A stop flag that is raised once so many steps are done by its ``trainer``, which is to be set."""

    reason = "SIGTEST"

    def __init__(self, step: int) -> None:
        self.step = step
        self.trainer: JimmyTrainer | None = None

    def __bool__(self) -> bool:
        return self.trainer.loop.step >= self.step

    def installed(self) -> AbstractContextManager[None]:
        return nullcontext()
