"""Write the pinned store ``tests/golden/store-v1``: what format 1 looks like, for every later version to read.

Run once, from the repository root: ``python tests/golden/make_store_v1.py``. Never run again over what is committed:
a store that later versions wrote proves nothing about older ones.
"""

from __future__ import annotations

import itertools
import secrets
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jimmy_manager.archives import checkpoints, claims, layout, previews
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.owner import Owner
from jimmy_manager.archives.store import Store

PLACE = Path(__file__).parent / "store-v1"


class Frozen(Clock):
    """Noon of one day."""

    def now(self) -> float:
        return 1_700_000_000.0


def begin(store: Store, config: dict[str, Any]) -> Attempt:
    run = store.register(config)
    claim = store.claims.take(store.standing(run.key), run.digest)
    assert claim is not None
    attempt = Attempt(store.history, claim, run={"version": "1"})
    attempt.adopt()
    return attempt


def commit(attempt: Attempt, epoch: int) -> None:
    ckpt = {"epoch": epoch, "w": torch.full((2,), float(epoch)), "a": np.arange(epoch), "s": {1, (2, 3)}, "n": 2**3_000}
    shown = {"loss": 1 / epoch, "best": float("inf"), "by_epoch": {epoch: [np.float32(0.5)]}, "a": np.arange(2.0)}
    preview, _ = previews.save(shown, attempt.key)
    attempt.commit(
        epoch=epoch, step=10 * epoch, train_s=1.5, eval_s=0.5, preview=preview, figures={"loss": b"\x89PNG"},
        checkpoint=lambda file: checkpoints.save(ckpt, file),
    )


def main() -> None:
    if PLACE.exists():
        sys.exit(f"{PLACE} is there already, and must stay as it is")
    numbers = itertools.count(1)
    secrets.token_hex = lambda size: f"{next(numbers):0{2 * size}x}"
    claims.this_process = claims.this_worker = lambda: Owner("golden", 1, 1, "golden-boot", "1", "SLURM_JOB_ID=7")
    store = Store(PLACE, clock=Frozen(), stale_s=0)
    store.edit(manager="Golden", fields=("arch", "optim.lr", "seed"))

    def config(seed: int) -> dict[str, Any]:
        return {"arch": "mlp", "optim": {"lr": 0.1, "betas": [0.9, 1]}, "seed": seed, "note": "größer", "none": None}

    store.register(config(0))
    finished = begin(store, config(1))
    for epoch in (1, 2, 3):
        commit(finished, epoch)
    finished.finish()
    released = begin(store, config(2))
    commit(released, 1)
    released.claim.release()
    interrupted = begin(store, config(2))
    commit(interrupted, 2)
    failed = begin(store, config(3))
    commit(failed, 1)
    failed.claim.fail({"type": "ValueError", "message": "loss is nan", "traceback": "Traceback ..."})
    popped = begin(store, config(4))
    commit(popped, 1)
    popped.claim.release()
    store.pop(popped.key)
    store.edit_schema("add", "amp", False)
    for path in sorted(PLACE.rglob("*")):
        if path.name.endswith(".lock"):
            path.unlink()
        elif path.is_file():
            assert path.name == layout.STORE_FILE or layout.parse(path.relative_to(PLACE).parts[0], path.name), path


if __name__ == "__main__":
    main()
