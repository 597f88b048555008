"""A store that the first version wrote stays readable, and can be gone on from, for ever."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jimmy_manager import keys
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import KeyNotFound
from tests.archives.runs import attempt_at, commit, listing

GOLDEN = Path(__file__).parents[1] / "golden/store-v1"
UNTRAINED, FINISHED, INTERRUPTED, FAILED, POPPED = "a1364074", "563932f7", "5c88a171", "3fe29299", "2495b148"
EPOCHS = {FINISHED: 3, INTERRUPTED: 2, FAILED: 1}
DIGEST_OF_ALL = "72d31d1307d2c7a3a7013548eb05591adddbc455aa20220268e59ad541792fa8"


def config(seed: int, **more: Any) -> dict[str, Any]:
    fields = {"arch": "mlp", "optim": {"lr": 0.1, "betas": [0.9, 1]}, "seed": seed, "note": "größer", "none": None}
    return {**fields, **more}


@pytest.fixture
def store() -> Store:
    return Store(GOLDEN, read_only=True)


def test_the_pinned_store_is_as_it_was_made() -> None:
    """It is never written again: a store of a later version would prove nothing about this one."""
    whole = hashlib.sha256()
    for path in sorted(GOLDEN.rglob("*")):
        if path.is_file():
            whole.update(f"{path.relative_to(GOLDEN)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    assert whole.hexdigest() == DIGEST_OF_ALL


def test_reading_it_writes_nothing(store: Store) -> None:
    before = listing(GOLDEN)
    for archive in (store.configs, store.stats, store.ckpts, store.previews):
        dict(archive.items())
    for key in EPOCHS:
        store.standing(key)
        store.previews.figures(key)
    assert listing(GOLDEN) == before


def test_what_is_true_of_the_whole_store(store: Store) -> None:
    assert (store.info.id, store.info.key_len, store.info.manager) == ("0000000000000001", 8, "Golden")
    assert store.info.fields == ("arch", "optim.lr", "seed")
    assert store.ledger.to_list() == [{"add": "amp", "value": False}]


def test_configurations_have_the_keys_that_they_had(store: Store) -> None:
    expected = {UNTRAINED: 0, FINISHED: 1, INTERRUPTED: 2, FAILED: 3}
    assert dict(store.configs.items()) == {key: config(seed, amp=False) for key, seed in expected.items()}
    for key, seed in {**expected, POPPED: 4}.items():
        assert store.configs.get_key(config(seed, amp=False)) == key == keys.digest(config(seed))[:8]
    with pytest.raises(KeyNotFound, match="popped"):
        store.configs[POPPED]


def test_stats_show_what_was_committed(store: Store) -> None:
    assert {key: stats["epoch"] for key, stats in store.stats.items()} == EPOCHS
    assert store.stats[FINISHED] == {
        "epoch": 3, "step": 30, "at": 1_700_000_000.0, "train_s": 1.5, "eval_s": 0.5, "done": True,
        "run": {"version": "1"},
    }
    assert not store.stats[INTERRUPTED]["done"]


def test_checkpoints_and_previews_hold_what_was_saved(store: Store) -> None:
    for key, epoch in EPOCHS.items():
        ckpt, preview = store.ckpts[key], store.previews[key]
        assert ckpt["epoch"] == epoch
        assert ckpt["w"].equal(torch.full((2,), float(epoch)))
        assert ckpt["a"].dtype == np.dtype("<i8")
        assert ckpt["a"].tolist() == list(range(epoch))
        assert ckpt["s"] == {1, (2, 3)}
        assert ckpt["n"] == 2**3_000
        assert preview["a"].tolist() == [0.0, 1.0]
        assert {k: preview[k] for k in preview if k != "a"} == {
            "loss": 1 / epoch, "best": math.inf, "by_epoch": {epoch: [0.5]},
        }
        assert store.previews.figures(key) == {"loss": b"\x89PNG"}


def test_runs_stand_where_they_stood(store: Store) -> None:
    states = {key: store.standing(key).state for key in (UNTRAINED, *EPOCHS, POPPED)}
    assert states == {UNTRAINED: "new", FINISHED: "done", INTERRUPTED: "held", FAILED: "failed", POPPED: "popped"}
    failed = store.standing(FAILED).record
    assert failed is not None
    assert failed.error == {"type": "ValueError", "message": "loss is nan", "traceback": "Traceback ..."}
    held = store.standing(INTERRUPTED).record
    assert held is not None
    assert str(held.owner) == "golden:1 (job 7)"
    assert (held.generation, held.lease_s, held.beat) == (2, 120.0, 0)


def test_the_interrupted_run_is_gone_on_with_from_its_last_commit(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "s")

    class Later(Clock):
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        def sleep(self, seconds: float) -> None:
            self.time += seconds

    clock = Later()
    store = Store(tmp_path / "s", clock=clock, stale_s=0)
    assert store.standing(INTERRUPTED).state == "held"
    clock.time += 121
    attempt = attempt_at(store, config(2, amp=False))
    assert attempt.key == INTERRUPTED
    assert attempt.adopted is not None
    assert (attempt.generation, attempt.adopted.epoch) == (3, 2)
    commit(attempt, 3)
    attempt.finish()
    assert Store(tmp_path / "s", read_only=True).stats[INTERRUPTED]["epoch"] == 3
    assert Store(tmp_path / "s", read_only=True).standing(INTERRUPTED).state == "done"
