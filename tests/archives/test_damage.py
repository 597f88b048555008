"""Promise 3: a damaged file is reported by name and never loaded, and what was committed before it is used."""

from __future__ import annotations

import errno
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jimmy_manager.archives import layout, previews
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Files
from jimmy_manager.archives.history import Commit, Stats
from jimmy_manager.archives.memory import Memory
from jimmy_manager.archives.record import seal
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import CheckpointError, DamagedRecord, KeyNotFound, NoRecord, RecordError, UnreadableRecord
from tests.archives.runs import attempt_at, commit, saved

CONFIG = {"lr": 0.1, "seed": 1}
CHECKPOINT_FLIPS = 10_000


class Ticking(Clock):
    """A clock on which waiting takes no time."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def real_ckpt(epoch: int) -> dict[str, Any]:
    """Model, optimizer and arrays of a run that was really trained, a few kilobytes."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(epoch):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return {"epoch": epoch, **states, "records": {e: np.float32(e) for e in range(epoch)}, "array": np.arange(8.0)}


def two_generations(files: Files) -> tuple[str, Callable[[], Store]]:
    """Generation 1 with epochs 1 and 2, generation 2 with 3 and 4, both released. The key, and how to open it anew."""
    store = Store(None, files=files, clock=Ticking(), stale_s=0)
    for epochs in ((1, 2), (3, 4)):
        attempt = attempt_at(store, CONFIG)
        for epoch in epochs:
            commit(attempt, epoch, real_ckpt(epoch))
        attempt.claim.release()
    return attempt.key, lambda: Store(None, files=files, clock=Ticking(), stale_s=0)


@pytest.fixture(params=["directory", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], Store]]:
    return two_generations(Disk(tmp_path / "s", durable=False) if request.param == "directory" else Memory())


@pytest.fixture
def in_memory() -> tuple[str, Store]:
    key, opened = two_generations(Memory())
    return key, opened()


def newest(store: Store, key: str) -> Commit:
    return store.history.stats(key).commits[-1]


def flips(size: int, bits: int = 8, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Every byte with ``bits`` of its bits, drawn where they are not all."""
    drawn = random.Random(seed)
    for index in range(size):
        for bit in sorted(drawn.sample(range(8), bits)):
            yield index, 1 << bit


def flipped(raw: bytes, index: int, mask: int) -> bytes:
    changed = bytearray(raw)
    changed[index] ^= mask
    return bytes(changed)


# ---- small records


def readers(store: Store, key: str) -> dict[str, Callable[[], Any]]:
    """Every small record of a run, with the function that reads it."""
    shown = newest(store, key)
    return {
        layout.config(key): lambda: store.registry.read(key),
        layout.claim(key, 1): lambda: store.claims.read(key, 1),
        layout.claim(key, 2): lambda: store.claims.read(key, 2),
        layout.stats(key, 1): lambda: store.history.read_stats(key, 1),
        layout.stats(key, 2): lambda: store.history.read_stats(key, 2),
        shown.preview_name: lambda: store.previews.read(shown),
    }


def test_every_flipped_bit_and_every_truncation_of_each_small_record_is_reported_by_name(
    in_memory: tuple[str, Store],
) -> None:
    key, store = in_memory
    for name, read in readers(store, key).items():
        raw, whole = store.files.read(name), read()
        damages = [flipped(raw, *flip) for flip in flips(len(raw))] + [raw[:size] for size in range(len(raw))]
        assert len(damages) == 9 * len(raw) > 1_000
        for damaged in damages:
            store.files.replace(name, damaged)
            with pytest.raises(DamagedRecord) as caught:
                read()
            assert name in str(caught.value)
        store.files.replace(name, raw)
        assert read() == whole


def test_a_preview_notices_a_flip_by_its_own_digest_too(in_memory: tuple[str, Store]) -> None:
    """Whoever reads one without its stats (an index, an export) is warned as well."""
    key, store = in_memory
    name = newest(store, key).preview_name
    raw = store.files.read(name)
    for flip in flips(len(raw)):
        with pytest.raises(DamagedRecord, match=r"previews/.*\.c2\.json"):
            previews.load(flipped(raw, *flip), name)


def test_one_flip_in_each_byte_is_reported_through_the_mappings(
    in_memory: tuple[str, Store], caplog: pytest.LogCaptureFixture
) -> None:
    key, store = in_memory
    files = store.files
    name = layout.config(key)
    raw = files.read(name)
    for flip in flips(len(raw), bits=1):
        files.replace(name, flipped(raw, *flip))
        with pytest.raises(DamagedRecord, match=rf"{key}\.json"):
            Store(None, files=files, clock=Ticking()).configs[key]
    files.replace(name, raw)
    for name, archive, fallback in (
        (layout.stats(key, 2), store.stats, 2),
        (newest(store, key).preview_name, store.previews, 3),
    ):
        raw = files.read(name)
        for flip in flips(len(raw), bits=1):
            files.replace(name, flipped(raw, *flip))
            caplog.clear()
            assert archive[key]["epoch"] == fallback
            assert name in caplog.text
        files.replace(name, raw)


# ---- checkpoints


@pytest.fixture
def torch_sees(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that is handed to ``torch.load``."""
    seen: list[bytes] = []
    real = torch.load

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(file.read())
        file.seek(0)
        return real(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    return seen


def random_flips(size: int, count: int, seed: int) -> Iterator[tuple[int, int]]:
    drawn = random.Random(seed)
    for _ in range(count):
        yield drawn.randrange(size), 1 << drawn.randrange(8)


def test_flips_and_every_truncation_of_a_checkpoint_are_reported_by_name_before_torch_sees_them(
    in_memory: tuple[str, Store], torch_sees: list[bytes]
) -> None:
    key, store = in_memory
    shown = newest(store, key)
    raw = store.files.read(shown.ckpt_name)
    assert 3_000 < len(raw) < 20_000
    damages = [flipped(raw, *flip) for flip in random_flips(len(raw), CHECKPOINT_FLIPS, seed=1)]
    damages += [raw[:size] for size in range(len(raw))] + [raw + b"\0", b"\0" + raw]
    for damaged in damages:
        store.files.replace(shown.ckpt_name, damaged)
        with pytest.raises(DamagedRecord) as caught:
            store.ckpts.read(shown)
        assert shown.ckpt_name in str(caught.value)
    assert torch_sees == []
    store.files.replace(shown.ckpt_name, raw)
    assert store.ckpts.read(shown)["epoch"] == 4
    assert torch_sees == [raw]


def fall_back(key: str, store: Store, name: str, damaged: bytes, caplog: pytest.LogCaptureFixture) -> Any:
    store.files.replace(name, damaged)
    caplog.clear()
    found = store.ckpts[key]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert name in caplog.text
    return found["epoch"]


def check_fall_backs(run: tuple[str, Callable[[], Store]], step: int, caplog: pytest.LogCaptureFixture) -> None:
    key, opened = run
    store = opened()
    name = newest(store, key).ckpt_name
    raw = store.files.read(name)
    damages = [flipped(raw, *flip) for flip in random_flips(len(raw), CHECKPOINT_FLIPS // step, seed=2)]
    damages += [raw[:size] for size in range(0, len(raw), step)]
    for damaged in damages:
        assert fall_back(key, store, name, damaged, caplog) == 3
    store.files.replace(name, raw)
    assert store.ckpts[key]["epoch"] == 4


def test_a_run_falls_back_to_the_commit_before(
    run: tuple[str, Callable[[], Store]], caplog: pytest.LogCaptureFixture
) -> None:
    check_fall_backs(run, 50, caplog)


@pytest.mark.nightly
def test_a_run_falls_back_to_the_commit_before_at_every_byte(
    run: tuple[str, Callable[[], Store]], caplog: pytest.LogCaptureFixture
) -> None:
    check_fall_backs(run, 1, caplog)


def test_without_the_digest_most_flips_would_be_loaded(
    in_memory: tuple[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: torch itself verifies nothing, so the tests above have something to find."""
    key, store = in_memory
    shown = newest(store, key)
    raw = store.files.read(shown.ckpt_name)
    monkeypatch.setattr(store.history, "open", lambda name, content: store.files.open(name))
    wrong = 0
    for flip in random_flips(len(raw), 300, seed=3):
        store.files.replace(shown.ckpt_name, flipped(raw, *flip))
        try:
            wrong += saved(store.ckpts.read(shown)) != raw
        except CheckpointError:
            continue
    assert wrong > 100


# ---- the order of what is used, and the three errors


def damage(store: Store, *names: str) -> None:
    for name in names:
        store.files.replace(name, b"damaged")


def names_of(store: Store, key: str) -> dict[str, str]:
    """Checkpoints by what they are: 'g2c2' the newest, then 'g2c1', 'g1c2', 'g1c1'."""
    return {f"g{g}c{c}": layout.ckpt(key, g, c) for g in (1, 2) for c in (1, 2)}


def test_commit_after_commit_and_then_a_lower_generation_is_used(
    run: tuple[str, Callable[[], Store]], caplog: pytest.LogCaptureFixture
) -> None:
    key, opened = run
    store, names = opened(), names_of(opened(), key)
    assert store.ckpts[key]["epoch"] == 4
    used = []
    for name in ("g2c2", "g2c1", "g1c2"):
        damage(store, names[name])
        caplog.clear()
        used.append(opened().ckpts[key]["epoch"])
        assert all(names[earlier] in caplog.text for earlier in ("g2c2", "g2c1", "g1c2")[: len(used)])
    assert used == [3, 2, 1]
    damage(store, names["g1c1"])
    with pytest.raises(DamagedRecord, match=names["g2c2"].replace(".", r"\.")):
        opened().ckpts[key]


@pytest.mark.parametrize("harm", [b"", b"damaged", None], ids=["empty", "other", "missing"])
def test_the_next_generation_adopts_the_newest_whole_commit(
    run: tuple[str, Callable[[], Store]], harm: bytes | None
) -> None:
    key, opened = run
    store = opened()
    name = names_of(store, key)["g2c2"]
    store.files.remove(name) if harm is None else store.files.replace(name, harm)
    attempt = attempt_at(opened(), CONFIG)
    assert attempt.adopted is not None
    assert (attempt.generation, attempt.adopted.epoch) == (3, 3)
    commit(attempt, 4, real_ckpt(4))
    assert opened().ckpts[key]["epoch"] == 4
    assert opened().history.stats(key).generation == 3


def test_a_run_whose_commits_are_all_damaged_is_not_started_afresh(run: tuple[str, Callable[[], Store]]) -> None:
    key, opened = run
    damage(opened(), *names_of(opened(), key).values())
    with pytest.raises(DamagedRecord, match=r"\.g2\.c2\.pt"):
        attempt_at(opened(), CONFIG)


def test_a_file_that_is_only_late_is_waited_for(in_memory: tuple[str, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """For 2 stale_s a mismatch is this node's cache, and no damage."""
    key, store = in_memory
    late = Store(None, files=store.files, clock=Ticking(), stale_s=5)
    name, real = newest(store, key).ckpt_name, store.files.open
    clock = late.claims.clock

    def lagging(asked: str) -> Any:
        if asked == name and clock.monotonic() < 9:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), asked)
        return real(asked)

    monkeypatch.setattr(store.files, "open", lagging)
    assert late.ckpts[key]["epoch"] == 4
    assert clock.monotonic() >= 9


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("what", ["ckpt", "preview", "stats"])
def test_what_cannot_be_read_is_never_passed_over_for_something_older(
    run: tuple[str, Callable[[], Store]], monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    key, opened = run
    store = opened()
    shown = newest(store, key)
    name = {"ckpt": shown.ckpt_name, "preview": shown.preview_name, "stats": layout.stats(key, 2)}[what]
    for function in ("read", "open"):
        real = getattr(store.files, function)

        def refuse(asked: str, real: Any = real) -> Any:
            if asked == name:
                raise OSError(code, os.strerror(code), asked)
            return real(asked)

        monkeypatch.setattr(store.files, function, refuse)
    archive = store.previews if what == "preview" else store.ckpts
    with pytest.raises(UnreadableRecord, match=os.strerror(code)) as caught:
        archive[key]
    assert name in str(caught.value)


@pytest.mark.parametrize("unreadable", ["stats/", ".c0.pt", ".c0.json"])
def test_what_cannot_be_read_is_never_adopted_over(
    run: tuple[str, Callable[[], Store]], monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    """``c0`` are the names under which a new generation verifies what it has adopted."""
    _, opened = run
    store = opened()
    for function in ("read", "open"):
        real = getattr(store.files, function)

        def refuse(asked: str, real: Any = real) -> Any:
            if unreadable in asked:
                raise OSError(errno.EIO, os.strerror(errno.EIO), asked)
            return real(asked)

        monkeypatch.setattr(store.files, function, refuse)
    with pytest.raises(RecordError, match="Input/output error"):
        attempt_at(store, CONFIG)


def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    key, opened = two_generations(Disk(tmp_path / "s", durable=False))
    store = opened()
    (tmp_path / "s" / newest(store, key).ckpt_name).chmod(0)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:  # who may read everything
            os.setuid(65534)
        try:
            store.ckpts[key]
        except UnreadableRecord as error:
            os._exit(error.errno or 100)
        except BaseException:  # noqa: BLE001  # the child must not go on as a second pytest
            os._exit(101)
        os._exit(102)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES


def test_absent_unreadable_and_damaged_are_three_errors(run: tuple[str, Callable[[], Store]]) -> None:
    key, opened = run
    store = opened()
    with pytest.raises(KeyNotFound):
        store.ckpts["fedcba98"]
    other = store.configs.add({"lr": 0.5})
    with pytest.raises(NoRecord):
        store.ckpts[other]
    damage(store, *names_of(store, key).values())
    with pytest.raises(DamagedRecord):
        store.ckpts[key]
    kinds = (NoRecord, UnreadableRecord, DamagedRecord)
    assert not any(issubclass(one, two) for one in kinds for two in kinds if one is not two)


def test_a_damaged_run_is_still_counted_and_does_not_hide_the_others(run: tuple[str, Callable[[], Store]]) -> None:
    key, opened = run
    store = opened()
    attempt = attempt_at(store, {"lr": 0.5})
    commit(attempt, 1)
    damage(store, layout.stats(key, 1), layout.stats(key, 2))
    assert sorted(store.stats) == sorted([key, attempt.key])
    assert key in store.stats
    assert store.stats[attempt.key]["epoch"] == 1
    with pytest.raises(DamagedRecord, match=rf"stats/{key[:2]}/{key}\.g2\.json"):
        store.stats[key]


def test_files_of_another_run_under_a_runs_names_are_damage(run: tuple[str, Callable[[], Store]]) -> None:
    """A restored backup, a hand that copies: whole records, at the wrong place."""
    key, opened = run
    store = opened()
    attempt = attempt_at(store, {"lr": 0.5})
    commit(attempt, 1)
    for ours, theirs, read in (
        (layout.stats(key, 2), layout.stats(attempt.key, 1), lambda: store.history.read_stats(key, 2)),
        (layout.claim(key, 2), layout.claim(attempt.key, 1), lambda: store.claims.read(key, 2)),
        (layout.config(key), layout.config(attempt.key), lambda: store.registry.read(key)),
    ):
        store.files.replace(ours, store.files.read(theirs))
        with pytest.raises(DamagedRecord, match="it was written as"):
            read()


@pytest.mark.parametrize("data", [{}, {"key": 3}, {"key": "ab", "generation": 1, "commits": 7, "token": ""}])
def test_a_sealed_record_of_the_wrong_shape_is_damaged(data: dict[str, Any]) -> None:
    with pytest.raises(DamagedRecord, match=r"claims/ab/abcdef12\.g1\.json"):
        ClaimRecord.unseal(seal("claim", data), "claims/ab/abcdef12.g1.json")
    with pytest.raises(DamagedRecord, match=r"stats/ab/abcdef12\.g1\.json"):
        Stats.unseal(seal("stats", data), "stats/ab/abcdef12.g1.json")


def test_a_run_whose_configuration_is_damaged_can_be_popped(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entry = store.register({"a": 1})
    claim = store.claims.take(store.standing(entry.key), entry.digest)
    assert claim is not None
    claim.release()
    (tmp_path / "store" / layout.config(entry.key)).write_bytes(b"")
    Store(tmp_path / "store").pop(entry.key)
    assert Store(tmp_path / "store").is_popped(entry.key)
