"""How a run ends in each way that a hook, a signal, another process or a disk can end it."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Config, Manager, Store
from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import ClaimRecord
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.disk import Disk
from jimmy_manager.errors import ConfigError, HookError, StoreError, UnknownField


class Counting(Manager):
    """Counts its epochs."""

    num_epochs = 2

    def init_ckpt(self) -> None:
        super().init_ckpt()
        self.ckpt["count"] = 0

    def train(self) -> None:
        self.ckpt["count"] += 1

    def eval(self) -> dict[str, Any]:
        return {"count": self.ckpt["count"]}


def state_of(manager: Manager, config: dict[str, Any]) -> str:
    return manager.store.standing(manager.configs.get_key(config)).state


def heartbeats() -> int:
    return sum(thread.name.startswith("heartbeat") for thread in threading.enumerate())


def test_leaving_by_sys_exit_is_a_failure_of_the_run(tmp_path: Path) -> None:
    class Leaving(Counting):
        def train(self) -> None:
            if self.config.a == 1:
                sys.exit(0)
            super().train()

    manager = Leaving(tmp_path / "store")
    report = manager.batch([{"a": 1}, {"a": 2}], max_errors=9)
    assert (len(report.failed), len(report.done)) == (1, 1)
    assert state_of(manager, {"a": 1}) == "failed"
    with pytest.raises(HookError, match=r"left by sys\.exit\(0\)"):
        manager.process({"a": 1, "b": 1})


def test_a_save_ckpt_that_saves_nothing_is_an_error_at_once(tmp_path: Path) -> None:
    class Forgetting(Counting):
        def save_ckpt(self) -> None:
            self.ckpt["extra"] = 1

    manager = Forgetting(tmp_path / "store")
    with pytest.raises(HookError, match=r"Forgetting\.save_ckpt\(\) saved nothing.*super\(\)\.save_ckpt\(\)"):
        manager.process({"a": 1})
    assert manager.ckpt["count"] == 0


def test_nothing_of_one_run_is_left_for_the_next(tmp_path: Path) -> None:
    class Independent(Counting):
        def setup(self, config: Config) -> None:
            self.width = config.a

        def init_ckpt(self) -> None:
            assert (self.epoch, self.ckpt, self.preview) == (0, {}, {})
            self.ckpt["count"] = 0

    manager = Independent(tmp_path / "store")
    keys = manager.batch([{"a": 1}, {"a": 2}]).done
    assert [manager.stats[key]["epoch"] for key in keys] == [2, 2]
    assert [manager.ckpts[key]["count"] for key in keys] == [2, 2]


def test_a_manager_in_training_refuses_to_fetch_or_to_train_another_run(tmp_path: Path) -> None:
    class Teacher(Counting):
        name = "Counting"

    class Nested(Counting):
        def train(self) -> None:
            getattr(self, self.config.call)(*([{"a": 9}] if self.config.call == "process" else ["ab"]))

    Teacher(tmp_path / "store").process({"a": 0})
    manager = Nested(tmp_path / "store")
    for call, reason in (("process", "holds one run at a time"), ("fetch", "would replace the run in training")):
        with pytest.raises(HookError, match=reason):
            manager.process({"call": call})
        assert state_of(manager, {"call": call}) == "failed"
    assert not manager.is_training


def test_a_second_manager_may_be_used_in_a_hook(tmp_path: Path) -> None:
    class Student(Counting):
        def train(self) -> None:
            teacher = Counting(tmp_path / "teachers")
            self.ckpt["count"] += teacher.previews[teacher.process({"a": 1})]["count"]

    manager = Student(tmp_path / "store")
    assert manager.previews[manager.process({"a": 1})] == {"count": 4}


def test_a_signal_during_a_nested_run_stops_both_and_fails_neither(tmp_path: Path) -> None:
    class Inner(Counting):
        def train(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    class Outer(Counting):
        def train(self) -> None:
            Inner(tmp_path / "inner").process({"a": 1})

    manager = Outer(tmp_path / "outer")
    report = manager.batch([{"a": 1}, {"a": 2}])
    assert (report.stopped, report.failed, report.done) == ("SIGTERM", [], [])
    assert state_of(manager, {"a": 1}) == "released"
    assert state_of(Inner(tmp_path / "inner"), {"a": 1}) == "released"


def test_an_exception_whose_text_cannot_be_had_ends_the_claim_too(tmp_path: Path) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Raising(Counting):
        def train(self) -> None:
            raise Mute

    before = heartbeats()
    manager = Raising(tmp_path / "store")
    with pytest.raises(Mute):
        manager.process({"a": 1})
    assert state_of(manager, {"a": 1}) == "failed"
    assert heartbeats() == before


def test_an_exception_after_a_stop_signal_leaves_the_run_free(tmp_path: Path) -> None:
    class Broken(Counting):
        def train(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("data loader worker was killed")

    manager = Broken(tmp_path / "store")
    report = manager.batch([{"a": 1}])
    assert (report.stopped, report.failed) == ("SIGTERM", [])
    assert state_of(manager, {"a": 1}) == "released"


def test_ctrl_c_twice_interrupts_also_after_another_signal(tmp_path: Path) -> None:
    class Stubborn(Counting):
        def train(self) -> None:
            for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGINT):
                os.kill(os.getpid(), number)
            pytest.fail("was not interrupted")

    with pytest.raises(KeyboardInterrupt):
        Stubborn(tmp_path / "store").process({"a": 1})


def test_a_process_that_a_hook_forked_can_be_terminated(tmp_path: Path) -> None:
    class Forking(Counting):
        def train(self) -> None:
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            os.kill(child.pid or 0, signal.SIGUSR1)  # goes to a whole job, and is not for it
            time.sleep(0.05)
            assert child.is_alive()
            child.terminate()
            child.join(10)
            self.ckpt["count"] += child.exitcode == -signal.SIGTERM

    manager = Forking(tmp_path / "store")
    assert manager.previews[manager.process({"a": 1}, num_epochs=1)] == {"count": 1}


def test_a_death_after_the_claim_said_stopping_is_no_crash_and_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "store")
    entry = store.register({"a": 1})
    for _ in range(6):
        claim = store.claims.take(store.standing(entry.key), entry.digest, max_crashes=5)
        assert claim is not None
        claim.start_heartbeat(lambda: True)
        deadline = time.monotonic() + 10
        while not store.claims.read(entry.key, claim.generation).stopping:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        claim.drop()
        name = layout.claim(entry.key, claim.generation)
        record = ClaimRecord.unseal(store.files.read(name), name)
        ended = record.owner._replace(start=record.owner.start + 1)  # as if it had been another process, now gone
        store.files.replace(name, record._replace(owner=ended).seal())
        assert store.standing(entry.key).state == "dead"
    assert store.claims.take(store.standing(entry.key), entry.digest, max_crashes=5) is not None
    told = [message for message in caplog.messages if "killed before they could save anything" in message]
    assert [re.search(r"its last (\d) attempts", each)[1] for each in told] == ["3", "4", "5", "6"]  # type: ignore[index]


class Leaping(Clock):
    """A clock that a test sets."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time


@pytest.mark.parametrize("what", ["claims", "stats"])
def test_an_empty_claim_or_stats_without_one_hold_a_run_for_a_lease_only(tmp_path: Path, what: str) -> None:
    clock = Leaping()
    store = Store(tmp_path / "store", clock=clock)
    entry = store.register({"a": 1})
    name = layout.claim(entry.key, 1) if what == "claims" else layout.stats(entry.key, 1)
    store.files.create(name, b"")
    assert store.standing(entry.key).state == "held"
    clock.time = 121.0
    assert store.standing(entry.key).state == "silent"


def test_a_run_that_another_host_trained_to_the_end_and_never_declared_done_is_waited_for(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jimmy_manager.archives.attempt.Attempt.finish", lambda attempt: attempt.claim.drop())
        key = Counting(tmp_path / "store", lease_s=0.2).process({"a": 1})
    store = Store(tmp_path / "store")
    record = store.claims.read(key, 1)
    elsewhere = record.owner._replace(boot="another")
    store.files.replace(layout.claim(key, 1), record._replace(owner=elsewhere).seal())
    report = Counting(tmp_path / "store", lease_s=0.2).batch([{"a": 1}], wait=True)
    assert report.done == [key]
    assert store.standing(key).state == "done"


def test_a_finished_run_whose_stats_are_not_listed_yet_is_not_trained_again(tmp_path: Path) -> None:
    key = Counting(tmp_path / "store").process({"a": 1})
    stats = tmp_path / "store" / layout.stats(key, 1)
    stats.rename(tmp_path / "stats")
    report = Counting(tmp_path / "store", stale_s=30.0).batch([{"a": 1}])
    assert report.busy == [key]
    lagging = Counting(tmp_path / "store", stale_s=0.5)
    threading.Timer(0.1, (tmp_path / "stats").rename, [stats]).start()
    assert lagging.batch([{"a": 1}], wait=True).skipped == [key]
    assert lagging.store.claims.look(key).claims == (1, 2)


def test_a_claim_whose_creation_raised_is_released_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Counting(tmp_path / "store")
    entry = manager.store.register({"a": 1})
    create = Disk.create

    def failing(self: Disk, name: str, data: bytes) -> bool:
        create(self, name, data)
        if name.startswith("claims"):
            raise StoreError("cannot make durable claims: Input/output error")
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "create", failing)
        for _ in range(6):
            with pytest.raises(StoreError, match="Input/output"):
                manager.process({"a": 1})
            assert state_of(manager, {"a": 1}) == "released"
    assert manager.process({"a": 1}) == entry.key


def test_one_damaged_run_does_not_keep_the_others_from_training(tmp_path: Path) -> None:
    manager = Counting(tmp_path / "store")
    key = manager.process({"a": 1})
    (tmp_path / "store" / layout.stats(key, 1)).write_bytes(b"{}")
    report = Counting(tmp_path / "store").batch([{"a": 0}, {"a": 1}, {"a": 2}], num_epochs=3, max_errors=9)
    assert (report.failed, len(report.done)) == ([key], 2)


def test_a_report_tells_what_failed_now_from_what_had_failed_before(tmp_path: Path) -> None:
    class Bad(Counting):
        def train(self) -> None:
            raise RuntimeError("no")

    manager = Bad(tmp_path / "store")
    first = manager.batch([{"a": 1}], max_errors=9)
    second = manager.batch([{"a": 1}, {"a": 2}], max_errors=9)
    assert (len(first.failed), first.failed_before) == (1, [])
    assert (len(second.failed), second.failed_before) == (2, first.failed)
    assert str(second) == "0 done, 0 complete before, 1 failed, 1 failed before and left alone"


def test_retries_are_made_in_the_same_call(tmp_path: Path) -> None:
    class Flaky(Counting):
        tries = 0

        def train(self) -> None:
            Flaky.tries += 1
            if Flaky.tries < 3:
                raise RuntimeError("not yet")
            super().train()

    manager = Flaky(tmp_path / "store")
    assert manager.stats[manager.process({"a": 1}, num_epochs=1, retries=2)]["done"]
    assert Flaky.tries == 3


def test_a_report_names_each_key_once() -> None:
    class Collapsing(Counting):
        def get_config(self, config: Any) -> Config:
            return Config({"a": 1})

    manager = Collapsing(None)
    report = manager.sweep({"a": [1, 2, 3]})
    assert (len(report.done), report.skipped) == (1, [])
    assert len(manager.sweep({"a": [1, 2, 3]}).skipped) == 1


def test_a_seed_may_be_any_spelling_of_an_int_or_none() -> None:
    manager = Counting(None)
    assert [manager.seed(Config({"seed": value})) for value in (3, 3.0, None)] == [3, 3, 0]
    assert manager.seed(Config()) == 0
    for value in (True, 0.5, "3"):
        with pytest.raises(ConfigError, match="seed is"):
            manager.seed(Config({"seed": value}))


def test_a_record_that_changes_in_place_later_stays_as_it_was(tmp_path: Path) -> None:
    class Growing(Counting):
        def setup(self, config: Config) -> None:
            super().setup(config)
            self.curve: list[int] = []

        def eval(self) -> dict[str, Any]:
            self.curve.append(self.epoch)
            return {"curve": self.curve}

    manager = Growing(tmp_path / "store")
    records = manager.ckpts[manager.process({"a": 1})]["eval_records"]
    assert {epoch: record["curve"] for epoch, record in records.items()} == {0: [0], 1: [0, 1], 2: [0, 1, 2]}


def test_a_misspelt_default_is_refused_unless_strict_is_off(tmp_path: Path) -> None:
    class Loose(Counting):
        strict = False

    class Strict(Counting):
        strict = True

    defaults = {"optim": {"lr": 0.1, "momentum": 0.9}, "width": 8, "net": {"_target_": "a.B", "depth": 2}}
    manager = Counting(None, defaults=defaults)
    typos: list[tuple[dict[str, Any], str]] = [
        ({"optm": {"lr": 1}}, "optim"), ({"optim": {"momentun": 1}}, "optim.momentum"), ({"widht": 1}, "width"),
    ]
    for typo, meant in typos:
        with pytest.raises(UnknownField, match=rf"did you mean '{meant}'.*strict = False in Counting"):
            manager.process(typo)
        Loose(None, defaults=defaults).get_config(typo)
    manager.get_config({"a": 1, "optim": {"nesterov": True}})
    manager.get_config({"width": 4, "widths": [4, 8]})
    manager.get_config({"net": {"_target_": "a.C", "dept": 3}})
    with pytest.raises(UnknownField, match="'a'"):
        Strict(None, defaults=defaults).process({"a": 1})
