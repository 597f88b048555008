"""The random states of several ranks: each its own from the first epoch on, saved together."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from jimmy_manager.archives import checkpoints

OTHERS = "others"


def packed(states: Mapping[str, Any]) -> str:
    """The states of one rank, as text to send."""
    file = io.BytesIO()
    checkpoints.save(states, file)
    return base64.b64encode(file.getvalue()).decode("ascii")


def joined(first: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """The states of rank 0 with those of the others, which came ``packed``."""
    return {**first, OTHERS: [checkpoints.load(io.BytesIO(base64.b64decode(each)), "of a rank") for each in others]}


def seed_of(moment: str, rank: int) -> int:
    """A seed of its own for each rank, so that no two draw the same noise.

    >>> seed_of('3 0', 1) == seed_of('3 0', 1), seed_of('3 0', 1) == seed_of('3 0', 2)
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{moment} {rank}".encode()).digest()[:8], "big")
