"""The random states of Python, numpy and torch: seeding, taking and restoring them."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

from jimmy_manager.errors import CheckpointError

log = logging.getLogger(__name__)


def seed(value: int) -> None:
    """Seed every generator from ``value``, any int.

    Imports numpy and torch, as the first save would anyway: a library imported later starts unseeded.
    """
    import numpy
    import torch

    random.seed(value)
    numpy.random.seed(value % 2**32)
    # Not torch.manual_seed: for each kind of device that is not there it keeps the call with its whole stack.
    torch.default_generator.manual_seed(value % 2**63)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(value % 2**63)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value % 2**63)


def take() -> dict[str, Any]:
    """The states as values that a checkpoint can hold."""
    import numpy
    import torch

    version, internal, gauss = random.getstate()
    legacy: Any = numpy.random.get_state()
    name, words, position, has_gauss, cached = legacy
    states: dict[str, Any] = {
        # As arrays: 1 250 Python numbers would take most of the time of a small commit.
        "python": [version, numpy.array(internal, dtype=numpy.uint32), gauss],
        "numpy": [name, words, position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if _uses_cuda():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore(states: Mapping[str, Any], key: str) -> None:
    """Put the states back; ``CheckpointError`` names one that is missing."""
    import numpy
    import torch

    for name in ("python", "numpy", "torch"):
        if name not in states:
            raise CheckpointError(
                f"the checkpoint of run {key} has no random state of {name}, so it cannot be resumed exactly; "
                "train it anew with resume=False"
            )
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    name, words, position, has_gauss, cached = states["numpy"]
    numpy.random.set_state((name, words, position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if _uses_cuda():
        if len(states.get("cuda", ())) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        else:
            log.warning("run %s was saved with other GPUs than this machine has, so it does not go on bit by bit", key)


def _uses_cuda() -> bool:
    import torch

    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
