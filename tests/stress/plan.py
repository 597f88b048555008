"""What a herd is to do, and what befalls it meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from jimmy_manager.archives.filesystem import SHARED_STALE_S


class Plan(NamedTuple):
    """One run of the herd. ``signal`` is KILL or STOP, ``hits`` how many of them, ``twin`` what is wrong on purpose.

    ``group`` configurations are worked on at a time, each group to its end: then a stopped worker's are waited for.
    Hits come about ``pace_s`` apart, and an epoch waits for up to ``hold_s`` where the work is ahead of them.

    ``mounts`` are directories that show one and the same, on a server: the workers are split over them, each under the
    host name of the namespace in ``uts`` where that is given. ``hosts`` says who has a boot id of its own, so that
    others tell its death from its silence alone: each ``mount`` or each ``worker``. ``stale_s`` None is the store's
    own choice. ``disturbance`` is a shell command that begins amid the work.
    """

    folder: str
    workers: int
    configs: int
    hits: int
    signal: str
    seed: int
    epochs: int = 3
    group: int = 0
    lease_s: float = 120.0
    pause_s: float = 0.0
    twin: str = ""
    deadline_s: float = 600.0
    pace_s: float = 0.0
    hold_s: float = 2.0
    mounts: tuple[str, ...] = ()
    uts: tuple[str, ...] = ()
    hosts: str = ""
    stale_s: float | None = 0.0
    disturbance: str = ""
    durable: bool = True
    syncs_journals: bool = False

    @property
    def store(self) -> str:
        return f"{self.folder}/store"

    @property
    def journals(self) -> Path:
        return Path(self.folder) / "journals"

    @property
    def finished(self) -> str:
        return f"{self.folder}/finished"

    @property
    def hit(self) -> str:
        return f"{self.folder}/hit"

    @property
    def lease(self) -> float:
        """The shortest lease of this plan's claims, in seconds."""
        return max(self.lease_s, 4 * (SHARED_STALE_S if self.stale_s is None else self.stale_s))

    @property
    def progress(self) -> float:
        return _size(self.finished) / self.configs

    def pause(self) -> None:
        """Hold a worker back that is about to train while the work is ahead of the hits, on a fast machine."""
        time.sleep(self.pause_s)
        deadline = time.monotonic() + self.hold_s
        while time.monotonic() < deadline and self._is_ahead():
            time.sleep(0.01)

    def _is_ahead(self) -> bool:
        return self.hits > 0 and _size(self.hit) / self.hits < min(1.0, self.progress)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0
