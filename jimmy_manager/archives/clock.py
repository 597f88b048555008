"""Time as the store sees it: a seam, so that tests step through leases without waiting for them."""

from __future__ import annotations

import time


class Clock:
    """The clock of this host.

    Leases are judged on ``monotonic`` alone; ``now`` is written into records for people to read and is
    never compared with another host's.
    """

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward; its origin means nothing."""
        return time.monotonic()

    def now(self) -> float:
        """Seconds since 1970 (UTC)."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        time.sleep(seconds)
