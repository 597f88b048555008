"""What a user of ``Manager`` relies on: the order of hooks, the ends of a run, the arguments of batch and sweep."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jimmy_manager import Config, Manager
from jimmy_manager.errors import (
    CheckpointError,
    HookError,
    NoRecord,
    ReadOnlyStore,
    RunBusy,
    RunFailed,
    SchemaChanged,
    SchemaError,
    Stopped,
    WrongManager,
)


class Trivial(Manager):
    """Sums random numbers; writes down which hooks were called."""

    num_epochs = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[str] = []

    def get_config(self, config: Any) -> Config:
        self.calls.append("get_config")
        return super().get_config(config)

    def setup(self, config: Config) -> None:
        self.calls.append("setup")
        super().setup(config)

    def init_ckpt(self) -> None:
        self.calls.append("init_ckpt")
        super().init_ckpt()
        self.ckpt["total"] = torch.zeros(3)

    def load_ckpt(self) -> None:
        self.calls.append("load_ckpt")
        super().load_ckpt()

    def save_ckpt(self) -> None:
        self.calls.append("save")
        super().save_ckpt()

    def train(self) -> None:
        self.calls.append("train")
        self.ckpt["total"] += torch.rand(3) + np.random.rand() * self.config.get("lr", 1.0)

    def eval(self) -> dict[str, float]:
        self.calls.append("eval")
        return {"loss": float(self.ckpt["total"].sum())}

    def hooks(self) -> str:
        """The calls since the last look; get_config is called twice to check that it is idempotent."""
        made = " ".join(self.calls).replace("get_config get_config", "get_config")
        self.calls.clear()
        return made


@pytest.fixture(params=["disk", "memory"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Trivial:
    return Trivial(tmp_path / "store" if request.param == "disk" else None)


def test_hooks_are_called_in_the_documented_order(tmp_path: Path) -> None:
    manager = Trivial(tmp_path / "store", eval_interval=2, save_interval=3)
    manager.process({"a": 1}, num_epochs=5)
    assert manager.hooks() == (
        "get_config setup load_ckpt init_ckpt eval save train train eval train save train eval train eval save"
    )


def test_a_complete_run_is_left_alone(manager: Trivial) -> None:
    key = manager.process({"a": 1})
    manager.hooks()
    assert manager.process({"a": 1}) == key
    assert manager.process({"a": 1}, num_epochs=1) == key
    assert manager.calls == ["get_config"] * 2


def test_a_larger_total_goes_on_from_where_the_run_ended(manager: Trivial) -> None:
    key = manager.process({"a": 1})
    manager.hooks()
    manager.process({"a": 1}, num_epochs=3)
    assert manager.hooks() == "get_config setup load_ckpt train eval save"
    assert manager.stats[key]["epoch"] == 3
    assert sorted(manager.ckpts[key]["eval_records"]) == [0, 1, 2, 3]


def test_no_epochs_are_an_evaluation_only_run(manager: Trivial) -> None:
    key = manager.process({"a": 1}, num_epochs=0)
    assert manager.hooks() == "get_config setup load_ckpt init_ckpt eval save"
    assert manager.stats[key]["epoch"] == 0
    assert manager.stats[key]["done"]
    assert manager.previews[key] == {"loss": 0.0}


def test_without_resume_the_run_starts_from_nothing(manager: Trivial) -> None:
    key = manager.process({"a": 1})
    first = manager.previews[key]
    manager.hooks()
    assert manager.process({"a": 1}, resume=False) == key
    assert manager.hooks() == "get_config setup load_ckpt init_ckpt eval save train eval save train eval save"
    assert manager.previews[key] == first


def test_a_run_at_rest_is_few_files_however_often_it_was_taken_over(tmp_path: Path) -> None:
    manager = Trivial(tmp_path / "store")
    for total in range(1, 6):
        key = manager.process({"a": 1}, num_epochs=total)
    kept = sorted(p.relative_to(tmp_path / "store").as_posix() for p in (tmp_path / "store").rglob(f"{key}*"))
    assert [name for name in kept if not name.startswith(("claims/", "logs/"))] == sorted(
        [f"configs/{key[:2]}/{key}.json", f"stats/{key[:2]}/{key}.g9.json"]
        + [f"ckpts/{key[:2]}/{key}.g9.c{c}.pt" for c in (0, 1)]
        + [f"previews/{key[:2]}/{key}.g9.c{c}.json" for c in (0, 1)]
    )
    assert manager.stats[key]["epoch"] == 5


def test_training_in_two_parts_equals_training_at_once(tmp_path: Path) -> None:
    whole, parts = Trivial(tmp_path / "whole"), Trivial(tmp_path / "parts")
    key = whole.process({"a": 1}, num_epochs=4)
    for total in (1, 2, 4):
        torch.rand(7)  # whatever happens in between
        np.random.rand(7)
        parts.process({"a": 1}, num_epochs=total)
    assert torch.equal(whole.ckpts[key]["total"], parts.ckpts[key]["total"])
    assert whole.ckpts[key]["eval_records"] == parts.ckpts[key]["eval_records"]


def test_the_order_of_runs_does_not_change_their_results(tmp_path: Path) -> None:
    one, other = Trivial(tmp_path / "one"), Trivial(tmp_path / "other")
    one.batch([{"a": 1}, {"a": 2}])
    other.batch([{"a": 2}, {"a": 1}])
    assert {k: one.previews[k] for k in one.stats} == {k: other.previews[k] for k in other.stats}


def test_count_is_the_number_of_models_trained(manager: Trivial) -> None:
    manager.process({"a": 0})
    report = manager.batch(({"a": a} for a in range(10)), count=3)
    assert (len(report.done), len(report.skipped), report.stopped) == (3, 1, "")
    assert len(manager.stats) == 4


def test_configurations_may_come_from_a_generator_and_are_consumed_once(manager: Trivial) -> None:
    taken = []

    def configs() -> Iterator[dict[str, int]]:
        for a in range(3):
            taken.append(a)
            yield {"a": a}

    assert len(manager.batch(configs()).done) == 3
    assert taken == [0, 1, 2]


class Raising(Trivial):
    """Fails for the configurations that ask for it."""

    def train(self) -> None:
        if self.config.get("bad"):
            raise RuntimeError(f"no luck with {self.config.a}")
        super().train()


def test_the_first_error_is_raised_and_the_run_is_marked_failed(tmp_path: Path) -> None:
    manager = Raising(tmp_path / "store")
    with pytest.raises(RuntimeError, match="no luck with 1"):
        manager.batch([{"a": 1, "bad": True}, {"a": 2}])
    key = manager.configs.get_key({"a": 1, "bad": True})
    record = manager.store.standing(key).record
    assert record is not None
    assert record.state == "failed"
    assert record.error is not None
    assert record.error["type"] == "RuntimeError"
    assert "no luck with 1" in record.error["message"]
    assert "in train" in record.error["traceback"]
    with pytest.raises(RunFailed, match=r"no luck with 1.*jimmy retry"):
        manager.process({"a": 1, "bad": True})


def test_with_max_errors_the_batch_goes_on_until_so_many_failed(tmp_path: Path) -> None:
    manager = Raising(tmp_path / "store")
    configs = [{"a": a, "bad": a % 2 == 0} for a in range(10)]
    report = manager.batch(configs, max_errors=3)
    assert (len(report.done), len(report.failed)) == (2, 3)
    assert report.stopped.startswith("3 failures")
    report = manager.batch(configs, max_errors=99)
    assert (len(report.done), len(report.skipped), len(report.failed), report.stopped) == (3, 2, 5, "")


def test_failures_in_a_row_end_a_batch(tmp_path: Path) -> None:
    configs = [{"a": a, "bad": a in (1, 3, 4, 5, 7)} for a in range(10)]
    report = Raising(tmp_path / "store").batch(configs, max_errors=99, max_in_a_row=3)
    assert (len(report.done), len(report.failed), report.stopped) == (2, 4, "4 failures, 3 of them in a row")


def test_a_second_ctrl_c_interrupts_at_once_and_leaves_the_run_free(tmp_path: Path) -> None:
    class Impatient(Trivial):
        def train(self) -> None:
            super().train()
            if self.epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    manager = Impatient(tmp_path / "store", save_interval=1)
    with pytest.raises(KeyboardInterrupt):
        manager.process({"a": 1}, num_epochs=5)
    key = manager.configs.get_key({"a": 1})
    assert manager.store.standing(key).state == "released"
    assert manager.stats[key]["epoch"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_loading_does_not_restart_a_run(tmp_path: Path) -> None:
    class Interrupted(Trivial):
        def load_ckpt(self) -> None:
            super().load_ckpt()
            raise KeyboardInterrupt

    store = tmp_path / "store"
    key = Trivial(store).process({"a": 1})
    before = Trivial(store).ckpts[key]["total"]
    manager = Interrupted(store)
    with pytest.raises(KeyboardInterrupt):
        manager.process({"a": 1}, num_epochs=4)
    assert "init_ckpt" not in manager.calls
    assert torch.equal(manager.ckpts[key]["total"], before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_stop_signal_saves_at_the_next_epoch_and_hands_the_run_on(tmp_path: Path, number: signal.Signals) -> None:
    class Signalled(Trivial):
        def train(self) -> None:
            super().train()
            if self.epoch == 2:
                os.kill(os.getpid(), number)

    manager = Signalled(tmp_path / "store", save_interval=10)
    report = manager.batch([{"a": 1}, {"a": 2}], num_epochs=6)
    assert (report.done, report.stopped) == ([], number.name)
    key = manager.configs.get_key({"a": 1})
    assert manager.store.standing(key).state == "released"
    assert manager.stats[key]["epoch"] == 3
    with pytest.raises(Stopped, match=number.name):
        manager.process({"a": 2}, num_epochs=6)

    undisturbed = Trivial(tmp_path / "undisturbed", save_interval=10)
    undisturbed.process({"a": 1}, num_epochs=6)
    continued = Trivial(tmp_path / "store", save_interval=10)
    continued.process({"a": 1}, num_epochs=6)
    assert torch.equal(continued.ckpts[key]["total"], undisturbed.ckpts[key]["total"])


class Pausing(Manager):
    """Adds three random numbers an epoch, one a step, and may stop after each."""

    num_epochs = 3
    stop_after = -1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ended: list[bool] = []

    def init_ckpt(self) -> None:
        super().init_ckpt()
        self.ckpt["total"] = torch.zeros(())

    def train(self) -> None:
        for _ in range(self.step % 3, 3):
            self.ckpt["total"] = self.ckpt["total"] + torch.rand(())
            self.step += 1
            if self.step == self.stop_after:
                os.kill(os.getpid(), signal.SIGTERM)
            if self.stop and self.step % 3:
                self.pause()

    def eval(self) -> dict[str, float]:
        return {"total": self.ckpt["total"].item()}

    def end_run(self, is_done: bool) -> None:
        self.ended.append(is_done)


@pytest.mark.parametrize("step", range(1, 9))
def test_a_train_that_pauses_is_saved_within_its_epoch_and_goes_on_there(tmp_path: Path, step: int) -> None:
    whole = Pausing(None, verbose=False)
    key = whole.process({"a": 1})
    manager = Pausing(tmp_path, verbose=False)
    manager.stop_after = step
    with pytest.raises(Stopped):
        manager.process({"a": 1})
    newest = manager.store.committed(key).commits[-1]
    assert (newest.epoch, newest.step) == (step // 3, step)
    assert manager.store.standing(key).state == "released"
    assert manager.ended == [False]
    manager = Pausing(tmp_path, verbose=False)
    manager.process({"a": 1})
    assert manager.previews[key] == whole.previews[key]
    assert torch.equal(manager.ckpts[key]["total"], whole.ckpts[key]["total"])
    assert manager.stats[key]["epoch"] == 3


def test_pausing_where_nothing_is_to_stop_is_an_error(tmp_path: Path) -> None:
    class Hasty(Pausing):
        def train(self) -> None:
            self.pause()

    with pytest.raises(HookError, match=r"pause\(\) was called where nothing is to stop"):
        Hasty(tmp_path, verbose=False).process({"a": 1})


def test_what_a_run_opened_is_let_go_of_however_it_ended(tmp_path: Path) -> None:
    class Failing(Pausing):
        def eval(self) -> dict[str, float]:
            raise RuntimeError("no")

    manager, failing = Pausing(tmp_path / "a", verbose=False), Failing(tmp_path / "b", verbose=False)
    manager.batch([{"a": 1}, {"a": 2}])
    assert manager.ended == [True, True]
    with pytest.raises(RuntimeError, match="no"):
        failing.process({"a": 1})
    assert failing.ended == [False]


def test_defaults_may_be_changed_after_the_base_constructor(tmp_path: Path) -> None:
    class Late(Trivial):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, defaults={"lr": 0.1})
            self.defaults.fill({"width": 8, "lr": 9.9})
            self.defaults["depth"] = 2

    manager = Late(tmp_path / "store")
    assert manager.configs[manager.process({"a": 1})] == {"a": 1, "lr": 0.1, "width": 8, "depth": 2}
    manager.defaults = Config({"lr": 0.2, "width": 8, "depth": 2})
    assert manager.configs[manager.process({"a": 1})] == {"a": 1, "lr": 0.2, "width": 8, "depth": 2}
    assert len(manager.stats) == 2


def test_defaults_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "defaults.yaml"
    path.write_text("lr: 1e-3\noptim: {name: adam}\n")
    manager = Trivial(None, defaults=str(path))
    assert manager.get_config({"optim": {"beta": 0.9}}) == {"lr": 0.001, "optim": {"name": "adam", "beta": 0.9}}


def test_grid_points_that_become_one_configuration_are_trained_once(manager: Trivial) -> None:
    class Canonical(Trivial):
        def get_config(self, config: Any) -> Config:
            whole = super().get_config(config)
            if whole.arch == "linear":
                whole["depth"] = 0
            return whole

    canonical = Canonical(None)
    report = canonical.sweep({"arch": ["linear", "mlp"], "depth": [1, 2, 3]})
    assert (len(report.done), len(report.failed), len(canonical.stats)) == (4, 0, 4)
    assert canonical.hooks().count("init_ckpt") == 4


def test_a_get_config_that_is_not_idempotent_is_refused(tmp_path: Path) -> None:
    class Growing(Trivial):
        def get_config(self, config: Any) -> Config:
            whole = super().get_config(config)
            whole["width"] = whole.get("width", 1) * 2
            return whole

    with pytest.raises(HookError, match=r"not idempotent.*'width'"):
        Growing(tmp_path / "store").process({"a": 1})
    assert not (tmp_path / "store" / "claims").exists()


def test_a_get_config_that_changes_only_a_type_is_refused_as_well(tmp_path: Path) -> None:
    class Counting(Trivial):
        def get_config(self, config: Any) -> Config:
            whole = super().get_config(config)
            whole["amp"] = 1 if whole.get("amp") is True else True
            return whole

    with pytest.raises(HookError, match=r"not idempotent.*'amp'"):
        Counting(tmp_path / "store").process({"a": 1})
    assert not (tmp_path / "store" / "claims").exists()


def test_conditions_may_be_values_lists_or_callables(manager: Trivial) -> None:
    manager.sweep({"a": [1, 2, 3], "optim": {"lr": [0.1, 0.01]}})

    def found(cond: dict[str, Any]) -> list[tuple[int, float]]:
        return sorted((config.a, config.optim.lr) for _, config in manager.completed_items(cond=cond))

    assert found({"optim.lr": lambda lr: lr < 0.05, "a": [1, 3]}) == [(1, 0.01), (3, 0.01)]
    assert found({"a": 2}) == [(2, 0.01), (2, 0.1)]
    assert found({"missing": lambda _: True}) == []
    assert list(manager.completed(min_epoch=3)) == []


def test_an_array_changed_in_place_after_the_save_does_not_change_what_was_saved(manager: Trivial) -> None:
    seen = []

    class InPlace(Trivial):
        def init_ckpt(self) -> None:
            super().init_ckpt()
            self.ckpt["trace"] = np.zeros(3)

        def train(self) -> None:
            self.ckpt["trace"] += 1
            if self.epoch > 0:
                seen.append(self.ckpts[self.key]["trace"].tolist())

    in_place = InPlace(manager.store.directory)
    in_place.process({"a": 1}, num_epochs=3)
    assert seen == [[1.0] * 3, [2.0] * 3]


def test_the_best_run_has_the_lowest_loss_or_the_highest_accuracy(tmp_path: Path) -> None:
    class Scored(Trivial):
        def eval(self) -> dict[str, float]:
            return {"loss_test": self.config.x, "acc": self.config.x if self.config.x < 3 else float("nan")}

    manager = Scored(tmp_path / "store", defaults={})
    manager.sweep({"x": [1.0, 2.0, 3.0]})
    assert manager.configs[manager.best_work()].x == 1.0
    assert manager.configs[manager.best_work(p_key="acc")].x == 2.0
    assert manager.configs[manager.best_work(reverse=True)].x == 3.0
    assert manager.configs[manager.best_work(cond={"x": lambda x: x > 1.5})].x == 2.0
    with pytest.raises(KeyError, match="no completed run has a number 'f1'"):
        manager.best_work(p_key="f1")
    frame = manager.overview(p_keys=["acc"])
    assert list(frame.columns) == ["epoch", "x", "acc"]
    assert len(manager.overview([{"x": 2.0}, {"x": 9.0}])) == 1


def test_a_popped_run_is_trained_anew_under_its_key(manager: Trivial) -> None:
    key = manager.process({"a": 1})
    first = manager.previews[key]
    assert manager.pop(key[:5]) == {"a": 1}
    assert key not in manager.stats
    assert list(manager.configs) == []
    manager.hooks()
    assert manager.process({"a": 1}) == key
    assert "init_ckpt" in manager.hooks()
    assert manager.previews[key] == first


def test_a_run_that_another_live_worker_holds_is_busy(manager: Trivial) -> None:
    entry = manager.store.register({"a": 1})
    claim = manager.store.claims.take(manager.store.standing(entry.key), entry.digest)
    assert claim is not None
    with pytest.raises(RunBusy, match=rf"{entry.key} is held by .*:{os.getpid()}"):
        manager.process({"a": 1})
    report = manager.batch([{"a": 1}, {"a": 2}])
    assert (report.busy, len(report.done)) == ([entry.key], 1)
    claim.release()
    assert manager.process({"a": 1}) == entry.key


def test_fetch_gives_the_trained_model_and_writes_nothing(tmp_path: Path) -> None:
    class Linear(Manager):
        num_epochs = 1
        state = ("model",)

        def setup(self, config: Config) -> None:
            super().setup(config)
            self.model = torch.nn.Linear(2, 1)

        def train(self) -> None:
            with torch.no_grad():
                self.model.weight.fill_(7.0)

        def eval(self) -> None:
            return None

    store = tmp_path / "store"
    key = Linear(store).process({"a": 1})
    before = sorted((str(p), p.stat().st_mtime_ns) for p in store.rglob("*"))
    model = Linear(store, read_only=True).fetch(key[:4])
    assert model.weight.tolist() == [[7.0, 7.0]]
    assert not model.training
    assert sorted((str(p), p.stat().st_mtime_ns) for p in store.rglob("*")) == before


def test_a_missing_state_is_refused_by_name(tmp_path: Path) -> None:
    class Old(Trivial):
        name = "Job"

    class New(Trivial):
        name = "Job"
        state = ("model",)

        def setup(self, config: Config) -> None:
            super().setup(config)
            self.model = torch.nn.Linear(1, 1)

    key = Old(tmp_path / "store").process({"a": 1})
    with pytest.raises(CheckpointError, match=f"checkpoint of run {key} has no state 'model'"):
        New(tmp_path / "store").process({"a": 1}, num_epochs=3)


def test_only_the_absence_of_a_checkpoint_leads_to_a_fresh_start(tmp_path: Path) -> None:
    class Reading(Trivial):
        def load_ckpt(self) -> None:
            super().load_ckpt()
            raise NoRecord("some other record that this hook wanted")

    store = tmp_path / "store"
    Trivial(store).process({"a": 1})
    manager = Reading(store)
    with pytest.raises(NoRecord, match="some other record"):
        manager.process({"a": 1}, num_epochs=3)
    assert "init_ckpt" not in manager.calls


def test_a_value_that_cannot_be_stored_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    class Unstorable(Trivial):
        def eval(self) -> dict[str, Any]:
            self.ckpt["hook"] = {"f": [lambda: 0]}
            return {}

    with pytest.raises(CheckpointError, match=r"ckpt\['hook'\]\['f'\]\[0\] is of type builtins.function"):
        Unstorable(tmp_path / "store").process({"a": 1})
    assert not list((tmp_path / "store").rglob("*.pt"))


def test_a_preview_that_is_the_ckpt_works(manager: Trivial) -> None:
    class Same(Trivial):
        def eval(self) -> None:
            self.ckpt["loss"] = 0.5
            self.preview = self.ckpt

    same = Same(manager.store.directory)
    key = same.process({"a": 1})
    assert same.previews[key]["loss"] == 0.5
    assert len(same.previews[key]["total"]) == 3


def test_a_store_belongs_to_one_job(tmp_path: Path) -> None:
    class Variant(Trivial):
        """The same job: a name is inherited."""

    class Other(Trivial):
        name = "Other"

    class Fresh(Manager):
        """A job that said nothing is called after its class."""

    assert (Trivial.name, Variant.name, Other.name, Fresh.name) == ("Trivial", "Trivial", "Other", "Fresh")
    Trivial(tmp_path / "store").process({"a": 1})
    with pytest.raises(WrongManager, match=r"belongs to 'Trivial'.*is 'Other'.*--store store/Other"):
        Other(tmp_path / "store").process({"a": 1})
    assert list(Other(tmp_path / "store").stats)
    Variant(tmp_path / "store").process({"a": 2})


def test_a_gained_default_stops_everything_before_any_training(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Trivial(store, defaults={"lr": 0.1}).sweep({"a": [1, 2]})
    grown = {"lr": 0.1, "optim": {"beta": 0.9}}
    manager = Trivial(store, defaults=grown)
    with pytest.raises(SchemaChanged, match=r"gained 'optim\.beta'.*\n.*jimmy schema add optim\.beta 0\.9 --store"):
        manager.sweep({"a": [3, 2]}, order="given")
    assert "setup" not in manager.calls

    manager.store.edit_schema("add", "optim.beta", 0.9)
    report = Trivial(store, defaults=grown).sweep({"a": [1, 2, 3, 4]})
    assert (len(report.skipped), len(report.done)) == (2, 2)
    shown = manager.configs[manager.configs.get_key({"a": 1, **grown})]
    assert shown == {"a": 1, **grown}


def test_runs_trained_with_a_gained_default_before_it_was_declared_keep_their_keys(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Trivial(store, defaults={"lr": 0.1}).sweep({"a": [1, 2]})
    grown = {"lr": 0.1, "beta": 0.9}
    between = Trivial(store, defaults=grown).sweep({"a": [3]}).done
    with pytest.raises(SchemaChanged):
        Trivial(store, defaults=grown).sweep({"a": [1, 3]})

    Trivial(store).store.edit_schema("add", "beta", 0.9)
    manager = Trivial(store, defaults=grown)
    assert manager.configs.get_key({"a": 3, **grown}) == between[0]
    report = manager.sweep({"a": [1, 2, 3, 4]})
    assert (len(report.skipped), len(report.done)) == (3, 1)
    assert all(config.beta == 0.9 for config in manager.configs.values())


def test_a_worker_that_read_the_ledger_before_an_edit_gives_no_second_key(tmp_path: Path) -> None:
    store, grown = tmp_path / "store", {"lr": 0.1, "beta": 0.9}
    first = Trivial(store, defaults={"lr": 0.1}).process({"a": 1})

    def points() -> Iterator[dict[str, int]]:
        Trivial(store).store.edit_schema("add", "beta", 0.9)
        yield {"a": 2}
        yield {"a": 1}

    report = Trivial(store, defaults=grown).batch(points())
    assert (len(report.done), report.skipped) == (1, [first])
    manager = Trivial(store, defaults=grown)
    assert manager.sweep({"a": [1, 2]}).done == []
    assert sorted(manager.configs) == sorted([first, *report.done])


def test_a_worker_in_the_middle_of_a_sweep_follows_an_edit_of_the_ledger(tmp_path: Path) -> None:
    store, grown = tmp_path / "store", {"lr": 0.1, "beta": 0.9}
    Trivial(store, defaults={"lr": 0.1}).process({"a": 1})

    class Edited(Trivial):
        def train(self) -> None:
            super().train()
            if not len(Trivial(store).store.ledger):
                Trivial(store).store.edit_schema("add", "beta", 0.9)

    worker = Edited(store, defaults=grown)
    assert len(worker.sweep({"a": [2, 3]}, order="given").done) == 2
    manager = Trivial(store, defaults=grown)
    assert len(manager.sweep({"a": [1, 2, 3]}).skipped) == 3
    key = manager.configs.get_key({"a": 3, **grown})
    assert manager.store.registry.read(key).stored == {"a": 3, "lr": 0.1}


def test_a_gained_default_orphans_no_run_that_was_popped(tmp_path: Path) -> None:
    store = tmp_path / "store"
    manager = Trivial(store, defaults={"lr": 0.1})
    manager.pop(manager.process({"a": 1}))
    manager.process({"a": 2})
    grown = Trivial(store, defaults={"lr": 0.1, "beta": 0.9})
    assert grown.stats[grown.process({"a": 1})]["done"]
    with pytest.raises(SchemaChanged):
        grown.process({"a": 2})


def test_the_advice_names_the_value_of_the_defaults_and_not_that_of_one_configuration(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Trivial(store, defaults={"lr": 0.1}).process({"a": 1})
    with pytest.raises(SchemaChanged, match=r"jimmy schema add decay 0\.0 --store"):
        Trivial(store, defaults={"lr": 0.1, "decay": 0.0}).process({"a": 1, "decay": 0.5})


def test_a_lost_default_stops_everything_until_it_is_said_what_became_of_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = Trivial(store, defaults={"lr": 0.1, "momentum": 0.9}).process({"a": 1})
    renamed = {"lr": 0.1, "optim": {"mom": 0.9}}
    lines = r"schema remove momentum VALUE(.|\n)*schema rename momentum optim\.mom"
    with pytest.raises(SchemaChanged, match=rf"lost 'momentum'(.|\n)*{lines}"):
        Trivial(store, defaults=renamed).process({"a": 1})
    with pytest.raises(SchemaChanged, match="lost 'momentum'"):
        Trivial(store, defaults={"lr": 0.1}).process({"a": 1})
    assert Trivial(store, defaults={"lr": 0.1}).process({"a": 2, "momentum": 0.5})  # it was only moved to the choices

    manager = Trivial(store, defaults=renamed)
    manager.store.edit_schema("rename", "momentum", "optim.mom")
    assert manager.process({"a": 1}) == first
    manager.store.edit_schema("undo")
    manager.store.edit_schema("remove", "momentum", 0.9)
    manager = Trivial(store, defaults={"lr": 0.1})
    assert manager.process({"a": 1}) == first


def test_a_lost_default_is_asked_about_once_where_the_answer_is_to_train_anew(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Trivial(store, defaults={"lr": 0.1, "momentum": 0.9}).process({"a": 1})
    Trivial(store, defaults={"lr": 0.1}).process({"a": 1}, new_fields="rerun")
    Trivial(store, defaults={"lr": 0.1}).process({"a": 2})
    assert len(Trivial(store).stats) == 3


def test_only_a_field_that_some_run_has_can_be_renamed_or_removed(tmp_path: Path) -> None:
    manager = Trivial(tmp_path / "store", defaults={"optim": {"momentum": 0.9}})
    manager.process({"a": 1})
    for edit in (("rename", "optim.momntum", "optim.mom"), ("remove", "optim.momntum", 0.9)):
        with pytest.raises(SchemaError, match=r"no run has a field 'optim\.momntum'; did you mean 'optim\.momentum'"):
            manager.store.edit_schema(*edit)
    manager.store.edit_schema("rename", "optim", "opt")


def test_a_popped_run_does_not_stand_in_the_way_of_an_entry(tmp_path: Path) -> None:
    manager = Trivial(tmp_path / "store")
    manager.process({"rate": 3})
    manager.process({"lr": 0.1})
    with pytest.raises(SchemaError):
        manager.store.edit_schema("rename", "lr", "rate")
    manager.pop(manager.configs.get_key({"rate": 3}))
    manager.store.edit_schema("rename", "lr", "rate")
    assert manager.configs.get_key({"rate": 0.1})


def test_the_longer_of_two_leases_counts(tmp_path: Path) -> None:
    Trivial(tmp_path / "store").store.edit(lease_s=600.0)
    assert Trivial(tmp_path / "store").store.claims.lease_s == 600.0
    assert Trivial(tmp_path / "store", lease_s=900.0).store.claims.lease_s == 900.0


def test_a_gained_default_may_be_trained_anew_when_asked(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Trivial(store, defaults={"lr": 0.1}).sweep({"a": [1, 2]})
    report = Trivial(store, defaults={"lr": 0.1, "beta": 0.9}).sweep({"a": [1, 2]}, new_fields="rerun")
    assert len(report.done) == 2


def test_a_changed_default_is_another_configuration(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = Trivial(store, defaults={"lr": 0.1}).process({"a": 1})
    assert Trivial(store, defaults={"lr": 0.2}).process({"a": 1}) != first


def test_a_read_only_manager_refuses_to_train(tmp_path: Path) -> None:
    Trivial(tmp_path / "store").process({"a": 1})
    with pytest.raises(ReadOnlyStore, match="opened read-only"):
        Trivial(tmp_path / "store", read_only=True).process({"a": 1})


def test_the_arguments_of_jarvis_are_accepted_with_a_note() -> None:
    with pytest.warns(DeprecationWarning, match="s_path_len means nothing"):
        Trivial(None, s_path_len=2)
    with pytest.warns(DeprecationWarning, match="patience"):
        manager = Trivial(None, patience=0.01)
    assert manager.store.claims.lease_s == 36.0
    with pytest.raises(TypeError, match="unexpected argument 'evil_interval'"):
        Trivial(None, evil_interval=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_epochs": -1}, "num_epochs is -1"),
        ({"new_fields": "maybe"}, "new_fields is 'maybe'"),
    ],
)
def test_a_senseless_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trivial(None).process({"a": 1}, **arguments)


def test_how_long_must_be_said() -> None:
    class Endless(Trivial):
        num_epochs = None

    with pytest.raises(HookError, match=r"give num_epochs, or set Endless\.num_epochs"):
        Endless(None).process({"a": 1})
    with pytest.raises(HookError, match="sweep over what"):
        Endless(None).sweep()


def test_the_thread_share_is_applied_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("JIMMY_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    manager = Trivial(None)
    try:
        key = manager.process({"a": 1})
        assert torch.get_num_threads() == 1
        assert manager.stats[key]["run"]["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_a_run_whose_newest_preview_is_damaged_is_fetched_as_it_was_a_commit_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Trivial(tmp_path / "store")
    key = manager.process({"a": 1}, num_epochs=3)
    newest = max((tmp_path / "store" / "previews").rglob("*.json"), key=lambda path: int(path.stem.rpartition(".c")[2]))
    newest.write_bytes(newest.read_bytes()[:50])
    fetched = Trivial(tmp_path / "store", read_only=True).fetch(key)
    assert (fetched.epoch, fetched.preview["loss"]) == (2, float(fetched.ckpt["total"].sum()))
    assert newest.name in caplog.text
