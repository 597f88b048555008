"""A worker on a run without end: ``python endless.py FOLDER LEASE_S [BOOT]`` leaves a mark when it trains or waits.

``BOOT`` makes it believe that it is on a host of its own, so that its death is not provable. With $BRIEF its epochs
take a moment instead of ten minutes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from jimmy_manager import Manager
from jimmy_manager.archives import owner
from jimmy_manager.manager.waiting import Waiting
from jimmy_manager.signals import StopFlag

_wait = Waiting.wait


class Endless(Manager):
    """Trains one configuration for a thousand epochs."""

    num_epochs = 1000

    def train(self) -> None:
        mark("training")
        time.sleep(0.2 if os.environ.get("BRIEF") else 600)

    def eval(self) -> dict[str, float]:
        return {"loss": 1.0}


def mark(what: str) -> None:
    """Leave a file that says what this process does now."""
    (Path(sys.argv[1]) / f"{what}-{os.getpid()}").touch()


def mark_and_wait(waiting: Waiting, stop: StopFlag) -> list[str]:
    """Wait, and say so."""
    mark("waiting")
    return _wait(waiting, stop)


def main() -> None:
    folder, lease_s, boot = (*sys.argv[1:], "")[:3]
    Waiting.wait = mark_and_wait  # type: ignore[method-assign]
    if boot:
        owner._boot_id = lambda: boot
    heartbeat_s = min(3.0, float(lease_s) / 8)
    manager = Endless(
        f"{folder}/store", verbose=False, lease_s=float(lease_s), heartbeat_s=heartbeat_s, max_crashes=1000, stale_s=0.0
    )
    print(manager.batch([{"a": 1}], wait=True).stopped, flush=True)


if __name__ == "__main__":
    main()
