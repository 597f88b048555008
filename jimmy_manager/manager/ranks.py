"""Several processes that train one run together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jimmy_manager.manager import run as loop

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager


class Alone:
    """A process that trains by itself."""

    def do(self, manager: Manager, run: Any, step: str, **details: Any) -> Any:
        """Call what belongs to ``step``."""
        return loop.STEPS[step](manager, run, **details)
