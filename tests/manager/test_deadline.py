"""What is begun, what is left, and when a worker stops, with a clock that the tests move."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Config, Manager, Store, slurm
from jimmy_manager.archives.clock import Clock
from jimmy_manager.errors import ConfigError, SlurmError, Stopped
from jimmy_manager.manager import job_time
from jimmy_manager.manager.deadline import Deadline, Pace
from jimmy_manager.signals import TIME_LIMIT


class Steps(Clock):
    """Stands still but for what a test, or a hook of `Timed`, lets pass."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Timed(Manager):
    """Each of its hooks takes as many seconds as the configuration says: ``setup, train, evaluate, save``."""

    num_epochs = 100

    def get_config(self, config: Any) -> Config:
        return super().get_config(config).fill({"a": 0, "setup": 0, "train": 10, "evaluate": 0, "save": 0})

    def spend(self, hook: str) -> None:
        self.store.claims.clock.sleep(self.config[hook])

    def setup(self, config: Config) -> None:
        super().setup(config)
        self.spend("setup")

    def init_ckpt(self) -> None:
        super().init_ckpt()
        self.ckpt["steps"] = 0

    def save_ckpt(self) -> None:
        super().save_ckpt()
        self.spend("save")

    def train(self) -> None:
        self.spend("train")
        self.ckpt["steps"] += 10

    def eval(self) -> dict[str, Any]:
        self.spend("evaluate")
        return {"steps": self.ckpt["steps"]}


class Stepping(Timed):
    """Looks at ``stop`` after each of the ten steps of an epoch."""

    name = "Timed"
    pauses = True

    def train(self) -> None:
        while True:
            self.store.claims.clock.sleep(self.config.train / 10)
            self.ckpt["steps"] += 1
            self.step += 1
            if self.ckpt["steps"] % 10 == 0:
                return
            if self.stop:
                self.pause()


Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A Manager with ``seconds`` to work in all, on a clock of its own."""

    def manager(seconds: float = math.inf, cls: type[Timed] = Timed, **settings: Any) -> Timed:
        margin = min(10.0, seconds / 19)
        limit = None if math.isinf(seconds) else timedelta(seconds=seconds + margin)
        return cls(tmp_path / "store", verbose=False, device="cpu", clock=Steps(), time_limit=limit, **settings)

    return manager


def spent(manager: Manager) -> float:
    return manager.store.claims.clock.monotonic() - 1000.0


def test_a_deadline_keeps_a_twentieth_of_the_time_but_at_most_ten_seconds() -> None:
    clock = Steps()
    assert (Deadline(clock.monotonic, 100.0).whole_s, Deadline(clock.monotonic, 3600.0).whole_s) == (95.0, 3590.0)
    assert (Deadline(clock.monotonic).whole_s, Deadline(clock.monotonic, 0.0).left_s) == (math.inf, 0.0)


def test_a_pace_takes_longer_times_at_once_and_shorter_ones_little_by_little() -> None:
    pace = Pace(Steps().monotonic)
    assert pace.of("save") == 0.0
    pace.note("save", 4.0)
    pace.note("save", 8.0)
    assert pace.of("save") == 10.0
    pace.note("save", 3.0)
    assert pace.of("save") == pytest.approx(1.25 * 7.0)


def test_a_run_borrows_the_pace_of_the_one_before_until_it_has_its_own() -> None:
    pace = Pace(Steps().monotonic)
    pace.note("train", 100.0)
    pace.note("save", 8.0)
    following = pace.of_next(train=0.0, evaluate=2.0)
    assert (following.of("train"), following.of("evaluate"), following.is_own) == (125.0, 2.5, False)
    following.note("train", 4.0)
    assert (following.of("train"), following.of("save"), following.is_own) == (5.0, 10.0, True)
    assert pace.of_next(train=4.0).is_own
    assert pace.of("train") == 125.0


def test_a_claim_needs_time_for_a_first_save() -> None:
    pace = Pace(Steps().monotonic)
    for part, seconds in (("setup", 4.0), ("train", 80.0), ("evaluate", 8.0), ("save", 16.0), ("step", 0.8)):
        pace.note(part, seconds)
    needs = {"eval_interval": 2, "pauses": False, "settle_s": 0.0}
    assert pace.to_claim_s(4, 9, **needs) == 1.25 * (4 + 80 + 16)
    assert pace.to_claim_s(5, 9, **needs) == 1.25 * (4 + 80 + 8 + 16)  # an evaluation is due after the epoch
    assert pace.to_claim_s(None, 9, **needs) == 1.25 * (4 + 8 + 16 + 80 + 16)
    assert pace.to_claim_s(9, 9, **needs) == pace.to_claim_s(10, 9, **needs) == 1.25 * (4 + 16)
    assert pace.to_claim_s(4, 9, **needs | {"pauses": True}) == pytest.approx(1.25 * (4 + 5 * 0.8 + 2 * 0.8 + 16))
    assert pace.to_claim_s(4, 9, **needs | {"settle_s": 600.0}) == 600 + 1.25 * 16


def test_a_run_that_pauses_but_counts_no_steps_needs_an_epoch() -> None:
    pace = Pace(Steps().monotonic).of_next(train=80.0)
    assert pace.to_advance_s(pauses=True, evaluates=False) == 100.0


@pytest.mark.parametrize("seconds", [20.0, 27.0, 99.0, 100.0, 101.0])
def test_no_epoch_is_begun_that_would_not_be_over_and_saved_in_time(make: Make, seconds: float) -> None:
    manager = make(seconds)
    report = manager.batch([{"train": 10, "evaluate": 2, "save": 1}])
    assert (report.stopped, report.done, report.postponed) == (TIME_LIMIT, [], [])
    assert spent(manager) <= seconds
    assert seconds - spent(manager) < 1.25 * 14  # nor was one left out that would have been
    key = next(iter(manager.stats))
    assert manager.store.standing(key).state == "released"
    assert manager.stats[key]["epoch"] == (spent(manager) - 3) // 13


def test_a_run_that_pauses_uses_its_time_to_the_last_steps(make: Make) -> None:
    manager = make(100.0, Stepping)
    manager.batch([{"train": 40, "evaluate": 5, "save": 2}])
    assert 80 < spent(manager) <= 100
    assert manager.ckpts[next(iter(manager.stats))]["steps"] % 10 != 0


def test_an_evaluation_that_is_due_as_the_time_ends_is_reckoned_with(make: Make) -> None:
    """The deadline would fall into the evaluation after the second epoch, and nothing could be saved."""
    for cls in (Timed, Stepping):
        manager = make(100.0, cls)
        manager.batch([{"a": cls.__name__, "train": 20, "evaluate": 20, "save": 1}])
        assert 50 < spent(manager) <= 100


@pytest.mark.parametrize("cls", [Timed, Stepping])
def test_a_twin_that_reckons_with_nothing_is_caught(
    make: Make, cls: type[Timed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "of", lambda self, part: 0.0)
    manager = make(100.0, cls)
    manager.batch([{"train": 20, "evaluate": 20, "save": 1}])
    assert spent(manager) > 100


def test_the_result_is_that_of_an_undisturbed_run(make: Make) -> None:
    config = {"train": 10, "evaluate": 2, "save": 1}
    whole = make(cls=Stepping)
    expected = whole.ckpts[whole.process(config | {"a": 1}, num_epochs=8)]
    attempts = 0
    while not (manager := make(29.0, Stepping)).batch([config], num_epochs=8).done:
        attempts += 1
        assert attempts < 20
    found = manager.ckpts[manager.configs.get_key(manager.get_config(config))]
    assert attempts > 3
    assert (found["steps"], found["eval_records"]) == (expected["steps"], expected["eval_records"])


def test_the_first_epoch_of_all_is_begun_as_nobody_knows_it_and_saved_though_late(make: Make) -> None:
    manager = make(50.0)
    report = manager.batch([{"train": 100}, {"a": 1, "train": 100}])
    assert (report.stopped, spent(manager)) == (TIME_LIMIT, 100.0)
    assert [stats["epoch"] for stats in manager.stats.values()] == [1]


def test_what_would_not_be_saved_in_the_time_left_is_not_claimed(make: Make) -> None:
    make().process({"train": 50}, num_epochs=1)
    manager = make(60.0)
    report = manager.batch([{"train": 50}, {"train": 5}], num_epochs=4)
    assert (len(report.done), len(report.postponed), report.stopped) == (1, 1, TIME_LIMIT)
    assert str(report).endswith("1 postponed for lack of time; stopped by time limit")
    assert manager.store.standing(report.postponed[0]).trace.claims == (1, 2)  # as they were


def test_runs_of_which_nothing_is_known_are_begun_after_one_that_is_known_to_be_too_long(make: Make) -> None:
    make().process({"train": 100}, num_epochs=1)
    report = make(60.0).batch([{"train": 100}, {"a": 1, "train": 5}, {"a": 2, "train": 5}], num_epochs=2)
    assert (len(report.postponed), len(report.done)) == (1, 2)


def test_a_run_that_no_such_job_can_advance_is_an_error_and_no_requeue(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make().process({"train": 50}, num_epochs=1)
    with pytest.raises(Stopped, match=r"needs about 1:02 until its next save, but 40\.0 s of 40\.0 s are left"):
        make(40.0).batch([{"train": 50}])
    with pytest.raises(Stopped, match="needs about 1:02 until its next save"):
        make(40.0).process({"train": 50})
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(slurm, "requeue", lambda job: pytest.fail("was requeued"))
    monkeypatch.setattr(slurm, "time_left_s", lambda: None)
    for call in ("batch", "process"):
        manager = make(40.0, requeue=True)
        with pytest.raises(SlurmError, match=r"job 12 is not requeued after time limit.*saved nothing.*about 1:02"):
            getattr(manager, call)([{"train": 50}] if call == "batch" else {"train": 50})


def test_a_batch_that_ends_with_its_time_was_not_stopped(make: Make) -> None:
    manager = make(100.0)
    report = manager.batch([{"a": 1, "train": 20}, {"a": 2, "train": 26}], num_epochs=2)
    assert (len(report.done), spent(manager), report.stopped) == (2, 92.0, "")
    assert manager.batch([{"a": 1, "train": 20}], num_epochs=2).skipped


def test_after_the_limit_nothing_is_claimed_but_what_is_complete_is_known(make: Make) -> None:
    manager = make(100.0)
    key = manager.process({}, num_epochs=1)
    manager.store.claims.clock.sleep(100.0)
    assert manager.process({}, num_epochs=1) == key
    with pytest.raises(Stopped, match="time limit came"):
        manager.process({"a": 5})
    assert manager.batch([{"a": 6}]).stopped == TIME_LIMIT
    assert len(manager.stats) == 1


def test_an_exception_after_the_limit_is_the_runs_own_and_not_of_the_limit(make: Make) -> None:
    class Broken(Timed):
        name = "Timed"

        def train(self) -> None:
            super().train()
            raise RuntimeError("no")

    manager = make(5.0, Broken)
    assert len(manager.batch([{}], max_errors=9).failed) == 1


def test_a_clock_that_is_set_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaping(Timed):
        def train(self) -> None:
            super().train()
            leaps.append(86_400 * (-1) ** self.epoch)

    leaps, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + sum(leaps))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(real()) + 105))
    manager = make(cls=Leaping)
    report = manager.batch([{"train": 10}])
    assert report.stopped == TIME_LIMIT
    assert 80 <= spent(manager) <= 100


def test_the_sooner_of_limit_and_job_counts_and_slurm_is_asked_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(slurm, "time_left_s", lambda: asked.append(1) or 50.0)  # type: ignore[func-returns-value]
    manager = make(1000.0)
    assert asked == []
    manager.batch([{}])
    manager.batch([{"a": 1}])
    assert (30 < spent(manager) <= 50, len(asked)) == (True, 1)


def test_a_job_of_which_slurm_tells_nothing_is_trained_with_a_warning(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("PATH", "")
    assert len(make().batch([{}], num_epochs=1).done) == 1
    assert "nobody knows when this job will end, so give it a time limit: there is no 'squeue' here" in caplog.text
    caplog.clear()
    make(100.0).batch([{"a": 1}], num_epochs=1)
    assert caplog.text == ""


@pytest.mark.parametrize("limit", [0, -1, "0", "0:00", "-5", "4h", "", math.inf, math.nan, timedelta(0)])
def test_a_time_limit_that_is_none_is_refused(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no time; write minutes|it must be more than nothing"):
        Timed(tmp_path / "store", time_limit=limit)
    assert not (tmp_path / "store").exists()


def test_waiting_for_others_ends_with_the_time_and_asks_for_no_requeue(make: Make, requeued: list[str]) -> None:
    manager = make(50.0, requeue=True)
    store = Store(manager.store.directory)
    entry = store.register(manager.get_config({}))
    claim = store.claims.take(store.standing(entry.key), entry.digest)
    assert claim is not None
    report = manager.batch([{}], wait=True)
    claim.release()
    assert (report.busy, report.stopped, requeued) == ([entry.key], TIME_LIMIT, [])
    assert 49 <= spent(manager) <= 52


# Requeue


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that Slurm was asked to requeue, out of the job 12_3."""
    calls: list[str] = []
    for name, value in {"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    answer = "13|{SLURM_ARRAY_JOB_ID}|{SLURM_ARRAY_TASK_ID}|0|UNLIMITED|"
    monkeypatch.setattr(slurm, "ask", lambda command: answer.format(**os.environ))
    monkeypatch.setattr(slurm, "requeue", lambda job: calls.append(job.name))
    return calls


class Signalled(Timed):
    """Is sent the signals that its configuration names in its first epoch, having looked whether to stop."""

    name = "Timed"

    def train(self) -> None:
        super().train()
        for number in self.config.get("signals", []):
            assert self.stop or number
            os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("numbers", "is_requeued"), [([10], True), ([12], True), ([12, 10], True), ([15], False), ([2], False)]
)
def test_only_usr1_usr2_and_the_time_limit_requeue(
    make: Make, requeued: list[str], numbers: list[int], is_requeued: bool
) -> None:
    report = make(cls=Signalled, requeue=True).batch([{"signals": numbers}])
    assert (bool(report.stopped), len(requeued)) == (True, is_requeued)
    with pytest.raises(Stopped):
        make(cls=Signalled, requeue=True).process({"signals": numbers, "a": 1})
    assert len(requeued) == 2 * is_requeued
    make(cls=Signalled).batch([{"signals": numbers, "a": 2}])
    assert len(requeued) == 2 * is_requeued


@pytest.mark.parametrize("seconds", [math.inf, 5.0])
def test_a_job_that_is_cancelled_while_it_saves_stays_cancelled(
    make: Make, requeued: list[str], seconds: float
) -> None:
    report = make(seconds, Signalled, requeue=True).batch([{"signals": [12, 15]}])
    assert (report.stopped, requeued) == ("SIGUSR2" if math.isinf(seconds) else TIME_LIMIT, [])


def test_the_requeue_names_the_task_and_comes_after_everything_else(make: Make, requeued: list[str]) -> None:
    seen: list[Any] = []

    def ask(job: slurm.Job) -> None:
        key = next(iter(manager.stats))
        is_caught = signal.getsignal(signal.SIGTERM) == manager.stop._catch
        seen.append((job.name, manager.store.standing(key).state, manager.is_training, is_caught))

    manager = make(50.0, requeue=ask)
    manager.batch([{}])
    assert seen == [("12_3", "released", False, False)]
    make(50.0, requeue=True).batch([{}])
    assert requeued == ["12_3"]


def test_a_function_is_not_called_where_slurm_does_not_tell_which_job_this_is(
    make: Make, requeued: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(command: list[str]) -> str:
        raise SlurmError("no answer")

    monkeypatch.setattr(slurm, "ask", silent)
    with pytest.raises(SlurmError, match="no answer"):
        make(50.0, requeue=lambda job: pytest.fail("was called")).batch([{}])


def test_what_is_done_or_failed_or_was_stopped_by_a_person_is_not_requeued(make: Make, requeued: list[str]) -> None:
    manager = make(1000.0, requeue=True)
    assert manager.batch([{}], num_epochs=1).done
    manager.process({"a": 1}, num_epochs=1)

    class Stopping(Timed):
        name = "Timed"

        def train(self) -> None:
            super().train()
            self.stop.set("jimmy stop")

    assert make(1000.0, Stopping, requeue=True).batch([{"a": 2}]).stopped == "jimmy stop"
    assert requeued == []


def test_a_job_that_saved_nothing_is_not_requeued_for_ever(make: Make, requeued: list[str]) -> None:
    make().process({"setup": 60}, num_epochs=1)
    with pytest.raises(SlurmError, match=r"job 12_3 is not requeued after time limit, as it saved nothing"):
        make(50.0, requeue=True).batch([{"setup": 60}])
    assert requeued == []


def test_a_job_whose_time_was_over_before_it_began_is_not_requeued_either(make: Make, requeued: list[str]) -> None:
    manager = make(50.0, requeue=True)
    manager._time  # noqa: B018  # known from here on, and over
    manager.store.claims.clock.sleep(60.0)
    with pytest.raises(SlurmError, match=r"saved nothing since it began: run \w+ was not even begun"):
        manager.batch([{}])
    assert requeued == []


def test_outside_of_a_job_nothing_is_requeued(make: Make, requeued: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert make(50.0, requeue=True).batch([{}]).stopped == TIME_LIMIT
    assert requeued == []


def test_a_job_that_would_start_from_nothing_each_time_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="start from nothing each time"):
        make(requeue=True).process({}, resume=False)


STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_TASKS_PER_NODE": "1(x2)"}


@pytest.mark.parametrize("requeue", [True, lambda job: None])
def test_processes_of_one_step_cannot_each_requeue_their_job(
    make: Make, requeued: list[str], monkeypatch: pytest.MonkeyPatch, requeue: Any
) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    manager = make(50.0, requeue=requeue)
    for call in (manager.process, lambda config: manager.batch([config])):
        with pytest.raises(ConfigError, match=r"one of 2 processes of a step .* 'jimmy sweep --workers N'"):
            call({})
    assert len(manager.stats) == 0
    make(50.0).batch([{}])
    assert requeued == []


@pytest.mark.parametrize(
    "changed", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_TASKS_PER_NODE": "2"}, {"SLURM_STEP_NUM_TASKS": ""}]
)
def test_a_step_of_one_process_and_a_batch_script_may_requeue_their_job(
    make: Make, requeued: list[str], monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    """A batch script that a step has submitted inherits the size of that step, but has task counts of its own."""
    for name, value in (STEP | changed).items():
        monkeypatch.setenv(name, value)
    make(50.0, requeue=True).batch([{}])
    assert requeued == ["12_3"]


def test_a_requeued_job_goes_through_a_sweep_in_the_order_of_before(
    make: Make, requeued: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = ([job_time.random_order().random() for _ in range(2)] for _ in range(2))
    assert first == again
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    slurm._lines.clear()
    assert job_time.random_order().random() != first[0]
    choices = {"a": list(range(20))}
    for _ in range(8):
        make(30.0, requeue=True).sweep(choices, num_epochs=3)
    # No run was begun before the one that had been left was done.
    epochs = sorted(stats["epoch"] for stats in make().stats.values())
    assert len(epochs) > 2
    assert set(epochs[1:]) == {3}


def test_a_limit_that_is_over_does_not_go_along_into_another_process(make: Make) -> None:
    manager = make(50.0)
    manager.batch([{}])
    assert manager._time.left_s < 15
    assert manager.__getstate__()["_deadline"] is None
