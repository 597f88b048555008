import math
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from jimmy_manager import TrainedManager
from jimmy_manager.datasets import DictDataset, JimmyDataset
from jimmy_manager.errors import CheckpointError, ConfigError, NonFiniteLoss, Stopped, UnknownField
from jimmy_manager.models import JimmyModel

ROOT = Path(__file__).resolve().parents[2]

# Dropout draws from the global generator, batch norm keeps buffers, the scheduler counts: all must come back.
JOB = textwrap.dedent(
    """
    import hashlib, sys
    import torch
    from torch import nn
    from jimmy_manager import TrainedManager

    def load_data():
        draw = torch.Generator().manual_seed(0)
        inputs = torch.randn(50, 6, generator=draw)
        return {"train": (inputs, (inputs[:, 0] > 0).long()), "valid": (inputs[:9], (inputs[:9, 0] > 0).long())}

    def build_model():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))

    class Little(TrainedManager):
        targets = ("little", "torch.optim")

    if __name__ == "__main__":
        from little import Little

        manager = Little(sys.argv[1], verbose=False)
        key = manager.process({
            "data": {"_target_": "little.load_data"},
            "model": {"_target_": "little.build_model"},
            "optim": {"_target_": "torch.optim.Adam", "lr": 0.02},
            "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 5},
            "batch_size": 16,
            "seed": 3,
        }, num_epochs=int(sys.argv[2]))
        manager.fetch(key)
        digest = hashlib.sha256(manager.data["train"].state_dict()["generator"].numpy().tobytes())
        for name, value in manager.model.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        for moments in manager.optimizer.state_dict()["state"].values():
            digest.update(moments["exp_avg"].numpy().tobytes() + moments["exp_avg_sq"].numpy().tobytes())
        print(manager.epoch, digest.hexdigest(), manager.optimizer.param_groups[0]["lr"], manager.ckpt["eval_records"])
    """
)


@pytest.fixture
def run_job(tmp_path):
    """Train ``JOB`` for so many epochs in all, in a process of its own, and return what it printed."""
    (tmp_path / "little.py").write_text(JOB)

    def run(store: str, num_epochs: int) -> str:
        done = subprocess.run(
            [sys.executable, "little.py", store, str(num_epochs)],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_run_that_is_resumed_in_another_process_ends_in_the_same_bytes(run_job):
    at_once = run_job("once", 4)
    assert at_once.startswith("4 ")
    assert run_job("twice", 2) != at_once
    assert run_job("twice", 4) == at_once


def load_data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 4, generator=draw)
    targets = (inputs.sum(1) > 0).long()
    return {"train": (inputs, targets), "valid": (inputs[:21], targets[:21]), "test": (inputs[21:40], targets[21:40])}


def build_drawing_model(draws: int) -> nn.Module:
    torch.rand(draws)
    return nn.Linear(4, 2)


class Small(TrainedManager):
    targets = (__name__, "torch.nn", "torch.optim")


def configuration(**fields) -> dict:
    return {
        "data": {"_target_": f"{__name__}.load_data"},
        "model": {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 2},
        "optim": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "batch_size": 16,
    } | fields


def started(manager: TrainedManager, **fields) -> TrainedManager:
    """A manager that has been set up but has trained nothing."""
    manager.fetch(manager.process(configuration(**fields), num_epochs=0))
    return manager


def weights_after(kind: type[TrainedManager], store: Path, *totals: int) -> torch.Tensor:
    """Train to each of ``totals`` in turn, each time with a new manager, and return the weights."""
    for num_epochs in totals:
        key = kind(store, device="cpu", verbose=False).process(configuration(), num_epochs=num_epochs)
    return kind(store, device="cpu", verbose=False, read_only=True).fetch(key).weight


def test_without_the_order_of_its_samples_a_resumed_run_would_end_otherwise(tmp_path):
    class Forgetful(Small):
        def load_ckpt(self):
            super().load_ckpt()
            self.data["train"].manual_seed(0)

    for kind, is_exact in ((Small, True), (Forgetful, False)):
        at_once = weights_after(kind, tmp_path / f"{kind.__name__}-once", 4)
        resumed = weights_after(kind, tmp_path / f"{kind.__name__}-twice", 2, 4)
        assert torch.equal(at_once, resumed) == is_exact


def test_the_preview_holds_means_over_the_samples_of_each_split():
    manager = Small(None, device="cpu", verbose=False)
    key = manager.process(configuration(), num_epochs=2)
    model, preview = manager.fetch(key), manager.previews[key]
    assert set(preview) == {f"{name}_{split}" for name in ("loss", "acc") for split in ("train", "valid", "test")}
    for split in ("valid", "test"):
        inputs, targets = load_data()[split]
        output = model(inputs)
        loss = nn.functional.cross_entropy(output, targets).item()
        assert preview[f"loss_{split}"] == pytest.approx(loss, rel=1e-6)
        assert preview[f"acc_{split}"] == (output.argmax(1) == targets).double().mean().item()


def test_training_learns():
    manager = Small(None, device="cpu", verbose=False)
    key = manager.process(configuration(), num_epochs=30)
    records = manager.ckpts[key]["eval_records"]
    assert sorted(records) == list(range(31))
    assert records[30]["acc_valid"] > 0.9
    assert records[30]["loss_train"] < records[1]["loss_train"] / 1.5


def test_before_the_first_epoch_there_are_no_results_of_training():
    manager = Small(None, device="cpu", verbose=False)
    key = manager.process(configuration(), num_epochs=0)
    assert set(manager.previews[key]) == {"loss_valid", "acc_valid", "loss_test", "acc_test"}


def test_loss_and_metrics_can_be_overridden():
    class Regression(Small):
        def loss(self, output, targets):
            return (output[:, 0] - targets).square().mean()

        def metrics(self, output, targets):
            return {"mae": (output[:, 0] - targets).abs()}

    manager = Regression(None, device="cpu", verbose=False)
    preview = manager.previews[manager.process(configuration(), num_epochs=1)]
    assert {"loss_train", "mae_train", "loss_valid", "mae_valid"} < set(preview)
    assert preview["mae_valid"] ** 2 <= preview["loss_valid"]


def test_the_scheduler_steps_once_an_epoch():
    scheduler = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.5}
    manager = Small(None, device="cpu", verbose=False)
    manager.fetch(manager.process(configuration(scheduler=scheduler), num_epochs=3))
    assert manager.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    manager.fetch(manager.process(configuration(), num_epochs=1))
    assert manager.optimizer.param_groups[0]["lr"] == 0.1


def test_shuffled_batches_bring_every_sample_once_in_another_order_each_epoch():
    manager = started(Small(None, device="cpu", verbose=False))
    epochs = [[batch["data"] for batch in manager.data["train"]] for _ in range(2)]
    assert [len(inputs) for inputs in epochs[0]] == [16, 16, 16, 2]
    first, second = (torch.cat(epoch) for epoch in epochs)
    assert not torch.equal(first, second)
    whole = load_data()["train"][0]
    for order in (first, second):
        assert sorted(order[:, 0].tolist()) == sorted(whole[:, 0].tolist())


def test_targets_stay_with_their_inputs_when_shuffled():
    manager = started(Small(None, device="cpu", verbose=False))
    for batch in manager.data["train"]:
        assert torch.equal(batch["target"], (batch["data"].sum(1) > 0).long())


def test_the_order_of_samples_depends_on_the_seed_alone():
    orders = []
    for draws, seed in ((1, 5), (1000, 5), (1, 6)):
        model = {"_target_": f"{__name__}.build_drawing_model", "draws": draws}
        manager = started(Small(None, device="cpu", verbose=False), model=model, seed=seed)
        orders.append(torch.cat([batch["data"] for batch in manager.data["train"]]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_an_epoch_waits_for_the_device_once(monkeypatch):
    manager = started(Small(None, device="cpu", verbose=False))
    waits = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "cpu", "numpy"):
        method = getattr(torch.Tensor, name)
        counted = lambda *args, name=name, method=method, **kwargs: (waits.append(name), method(*args, **kwargs))[1]  # noqa: E731
        monkeypatch.setattr(torch.Tensor, name, counted)
    manager.trainer.meter.read_every_s = math.inf  # on a slow machine it would read in between as well
    manager.train()
    assert waits == ["tolist"]


@pytest.mark.parametrize("field", ["data", "model", "optim"])
def test_a_missing_part_is_named(field):
    fields = configuration()
    del fields[field]
    with pytest.raises(ConfigError, match=f"builds '{field}' from its '_target_'"):
        Small(None, device="cpu", verbose=False).process(fields, num_epochs=1)


class Diverging(Small):
    def loss(self, output, targets):
        return super().loss(output, targets) + math.inf


def test_a_loss_that_diverges_fails_its_run_with_the_step_and_the_batch():
    manager = Diverging(None, device="cpu", verbose=False)
    message = r"the main evaluation loss is inf after 0 of 100 epochs \(step 0\); nothing was saved"
    with pytest.raises(NonFiniteLoss, match=message):
        manager.process(configuration(), num_epochs=1)


def test_a_loss_that_diverges_is_recorded_as_it_is_where_training_is_to_go_on(caplog):
    manager = Diverging(None, device="cpu", verbose=False)
    preview = manager.previews[manager.process(configuration(trainer={"on_nan": "warn"}), num_epochs=1)]
    assert preview["loss_valid"] == math.inf
    assert "loss_train" not in preview
    assert "Train/Main is inf in epoch 0, step 0, batch 0 of 4, counted from 0 (4 such steps in all" in caplog.text


# ---- JimmyDatasets and JimmyModels, from a configuration alone


class Points(JimmyDataset):
    def __init__(self, set_name, batch_size, drop_last=False, shuffle=False, noise=0.0):
        super().__init__(set_name, batch_size, drop_last, shuffle)
        count = {"train": 50, "eval": 21, "test": 13}[set_name]
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
        self.noise, self.n_samples = noise, count

    def __getitem__(self, idx):
        x = self.x[self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]]
        return {"data": x + self.noise * torch.randn_like(x), "target": (x.sum(1) > 0).long()}


class Classifier(JimmyModel):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.train_loss_names = ["Train/Main"]
        self.eval_loss_names = ["Eval/Main", "Eval/Top-1 Acc"]
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, 2))

    def forward(self, x):
        return self.net(x)

    def evalStep(self, data_dict):
        losses, outputs = self.testStep(data_dict)
        hits = outputs["output"].argmax(1) == data_dict["target"]
        return {**losses, "Eval/Top-1 Acc": hits.float().mean()}, outputs


def core_configuration(**fields) -> dict:
    return {
        "data": {"_target_": f"{__name__}.Points", "noise": 0.1},
        "model": {"_target_": f"{__name__}.Classifier", "width": 8, "ema_decay": 0.9, "clip_grad": 1.0},
        "optim": {"_target_": "torch.optim.AdamW", "lr": 0.02},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 4},
        "batch_size": 8,
        "seed": 1,
    } | fields


class Core(Small):
    splits = ("train", "eval", "test")


def test_a_jimmy_dataset_and_a_jimmy_model_are_built_and_trained_from_a_configuration():
    manager = Core(None, device="cpu", verbose=False)
    key = manager.process(core_configuration(), num_epochs=20)
    preview = manager.previews[key]
    assert set(preview) == {"loss_train", "loss_eval", "top_1_acc_eval", "loss_test", "top_1_acc_test"}
    assert preview["top_1_acc_eval"] > 0.85
    model = manager.fetch(key)
    assert isinstance(model, Classifier)
    assert not model.training
    assert [(each.set_name, each.shuffle, len(each)) for each in manager.data.values()] == [
        ("train", True, 50), ("eval", False, 21), ("test", False, 13)
    ]  # fmt: skip
    assert type(manager.optimizer) is torch.optim.AdamW
    assert manager.step == 20 * 7


def test_the_fetched_model_has_the_averaged_weights_that_were_evaluated():
    manager = Core(None, device="cpu", verbose=False)
    key = manager.process(core_configuration(), num_epochs=3)
    model = manager.fetch(key)
    raw = manager.ckpts[key]["model"]
    averages = manager.ckpts[key]["ema"]
    assert all(torch.equal(value, averages[name]) for name, value in model.named_parameters())
    assert not torch.equal(raw["net.0.weight"], averages["net.0.weight"])


def test_the_model_brings_its_own_optimizer_where_the_configuration_names_none():
    fields = core_configuration()
    del fields["optim"], fields["scheduler"]
    manager = Core(None, device="cpu", verbose=False)
    manager.fetch(manager.process(fields, num_epochs=1))
    assert type(manager.optimizer) is torch.optim.Adam


def test_arguments_of_the_trainer_come_from_the_configuration_and_wrong_ones_are_named():
    manager = Core(None, device="cpu", verbose=False)
    manager.fetch(manager.process(core_configuration(trainer={"on_nan": "skip", "moving_avg": 3}), num_epochs=1))
    assert manager.trainer.on_nan == "skip"
    with pytest.raises(UnknownField, match=r"trainer\.moving_average.*did you mean 'moving_avg'"):
        manager.process(core_configuration(trainer={"moving_average": 3}), num_epochs=1)
    with pytest.raises(UnknownField, match=r"trainer\.n_epochs, which is no option of the trainer; there are on_nan"):
        manager.process(core_configuration(trainer={"n_epochs": 3}), num_epochs=1)


def test_after_an_early_stop_the_epochs_that_are_left_train_nothing():
    manager = Core(None, device="cpu", verbose=False)
    steep = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": 0.1}
    fields = core_configuration(scheduler=steep, trainer={"early_stop_lr": 0.001})
    manager.fetch(manager.process(fields, num_epochs=6))
    assert manager.epoch == 6
    assert manager.step == 2 * 7
    records = manager.ckpt["eval_records"]
    assert records[6] == records[2] != records[1]


def test_a_plain_module_needs_batches_with_data_and_target():
    class Unnamed(Small):
        pass

    data = {"_target_": f"{__name__}.load_unnamed"}
    with pytest.raises(ConfigError, match=r"'data' and 'target'.*'inputs'"):
        Unnamed(None, device="cpu", verbose=False).process(configuration(data=data), num_epochs=1)


def load_unnamed() -> dict:
    return {"train": DictDataset({"inputs": torch.ones(4, 4)}, 2)}


class Interrupted(Core):
    """Asks itself to stop after so many steps, as a signal would."""

    stop_at = 10**9

    def setup(self, config):
        super().setup(config)
        step = self.trainer.model.trainStep

        def counted(batch):
            result = step(batch)
            if self.trainer.loop.step + 1 == type(self).stop_at:
                self.stop.set("SIGTEST")
            return result

        self.trainer.model.trainStep = counted


def checkpoint_of(manager, key) -> str:
    return repr(sorted((name, str(value)) for name, value in flat(manager.ckpts[key])))


def flat(value, path=""):
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from flat(item, f"{path}.{name}")
    elif isinstance(value, torch.Tensor):
        yield path, value.tolist()
    else:
        yield path, value


@pytest.mark.parametrize("fields", [core_configuration(), configuration()], ids=["core", "plain"])
def test_a_run_stopped_in_the_middle_of_an_epoch_is_saved_there_and_ends_in_the_same_bytes(fields, monkeypatch):
    whole = Interrupted(None, device="cpu", verbose=False)
    key = whole.process(fields, num_epochs=4)
    expected = checkpoint_of(whole, key)
    per_epoch = whole.step // 4
    for stop_at in range(1, 4 * per_epoch):
        manager = Interrupted(None, device="cpu", verbose=False)
        monkeypatch.setattr(Interrupted, "stop_at", stop_at)
        with pytest.raises(Stopped):
            manager.process(fields, num_epochs=4)
        commit = manager.store.committed(key).commits[-1]
        assert commit.step == stop_at
        assert commit.epoch == stop_at // per_epoch
        monkeypatch.setattr(Interrupted, "stop_at", 10**9)
        manager.stop.reason = ""
        assert manager.process(fields, num_epochs=4) == key
        assert checkpoint_of(manager, key) == expected, stop_at


def test_the_events_for_tensorboard_stand_in_the_store_with_the_configuration(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    manager = Core(tmp_path / "store", device="cpu", verbose=False)
    key = manager.process(core_configuration(), num_epochs=3)
    assert manager.trainer.tm is None
    events = EventAccumulator(manager.store.logs(key)).Reload()
    assert {"Train/Main", "Eval/Main", "Eval/Top-1 Acc", "LR"} <= set(events.Tags()["scalars"])
    assert [each.step for each in events.Scalars("Eval/Main")] == [7, 14, 21]
    assert {"_hparams_/session_start_info", "_hparams_/session_end_info"} <= events.summary_metadata.keys()
    manager.fetch(key)
    assert len(list((tmp_path / "store" / "logs" / key[:2] / key).glob("*tfevents*"))) == 1


def test_the_log_of_a_run_that_was_stopped_does_not_say_that_it_is_finished(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    manager = Interrupted(tmp_path / "store", device="cpu", verbose=False)
    monkeypatch.setattr(Interrupted, "stop_at", 5)
    with pytest.raises(Stopped):
        manager.process(core_configuration(), num_epochs=3)
    events = EventAccumulator(manager.store.logs(manager.key)).Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert "_hparams_/session_end_info" not in events.summary_metadata


def test_a_plain_module_has_its_training_and_its_evaluation_logged_apart(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    manager = Small(tmp_path / "store", device="cpu", verbose=False)
    key = manager.process(configuration(), num_epochs=2)
    events = EventAccumulator(manager.store.logs(key)).Reload()
    assert {"Train/Main", "Train/acc", "Eval/Main", "Eval/acc"} <= set(events.Tags()["scalars"])
    assert [each.step for each in events.Scalars("Eval/Main")] == [4, 8]
    assert events.Scalars("Eval/acc")[-1].value == pytest.approx(manager.previews[key]["acc_valid"])


def test_a_log_that_cannot_be_written_does_not_fail_the_run(tmp_path, caplog):
    manager = Core(tmp_path / "store", device="cpu", verbose=False)
    key = manager.process(core_configuration(), num_epochs=0)
    shutil.rmtree(tmp_path / "store" / "logs")
    (tmp_path / "store" / "logs").write_text("in the way")
    assert manager.process(core_configuration(), num_epochs=1) == key
    assert manager.stats[key]["done"]
    assert "the run is trained without a log" in caplog.text


def test_the_data_s_own_shuffle_and_drop_last_count_for_training_alone():
    manager = Core(None, device="cpu", verbose=False)
    data = {"_target_": f"{__name__}.Points", "shuffle": False, "drop_last": True}
    manager.fetch(manager.process(core_configuration(data=data), num_epochs=1))
    assert [(each.shuffle, each.drop_last) for each in manager.data.values()] == [
        (False, True), (False, False), (False, False)
    ]  # fmt: skip


def test_a_dataset_that_takes_a_device_gets_that_of_the_manager():
    manager = Core(None, device="meta", verbose=False)
    manager.config = manager.get_config(core_configuration(data={"_target_": f"{__name__}.OnDevice"}))
    assert {each.device for each in manager._build_data().values()} == {"meta"}


class OnDevice(Points):
    def __init__(self, set_name, batch_size, drop_last=False, shuffle=False, *, device="cpu"):
        super().__init__(set_name, batch_size, drop_last, shuffle)
        self.device = device


def test_losses_that_would_have_one_name_in_the_preview_are_refused():
    manager = Core(None, device="cpu", verbose=False)
    fields = core_configuration(model={"_target_": f"{__name__}.Alike", "width": 4})
    with pytest.raises(ConfigError, match=r"two of the losses .* one name in the preview, \['loss', 'a_b'\]"):
        manager.process(fields, num_epochs=1)


class Alike(Classifier):
    def __init__(self, width):
        super().__init__(width)
        self.eval_loss_names = ["Eval/Main", "Eval/A b", "Eval/a_b"]

    def evalStep(self, data_dict):
        return {"Eval/Main": 1.0, "Eval/A b": 2.0, "Eval/a_b": 3.0}, {}


def test_looking_at_a_run_writes_no_log(tmp_path):
    manager = Core(tmp_path / "store", device="cpu", verbose=False)
    key = manager.process(core_configuration(), num_epochs=0)
    Core(tmp_path / "store", device="cpu", verbose=False, read_only=True).fetch(key)
    assert not list((tmp_path / "store" / "logs").rglob("*tfevents*"))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}}, r"no field 'optimizer'; did you mean 'optim'\?"),
        ({"batchsize": 4}, r"no field 'batchsize'; did you mean 'batch_size'\?"),
        ({"model": {"_target_": f"{__name__}.Classifier", "widht": 4}}, "Classifier needs the argument 'width'"),
        ({"scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "stepsize": 4}}, "did you mean 'step_size'"),
    ],
)
def test_what_would_be_passed_over_or_does_not_fit_is_refused_by_name(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Core(None, device="cpu", verbose=False).process(core_configuration(**fields), num_epochs=1)


def test_a_field_of_one_s_own_may_have_any_name():
    class Own(Core):
        strict = False

    manager = Own(None, device="cpu", verbose=False)
    manager.process(core_configuration(optimizer="mine", augment=3), num_epochs=1)
    assert manager.config.optimizer == "mine"


def test_a_model_is_fetched_although_the_rest_of_its_checkpoint_is_another_version_s(monkeypatch):
    from jimmy_manager.training.loop_state import LoopState

    manager = Core(None, device="cpu", verbose=False)
    whole = LoopState.state_dict
    older = lambda self: {name: value for name, value in whole(self).items() if name != "eval_losses"}  # noqa: E731
    monkeypatch.setattr(LoopState, "state_dict", older)
    key = manager.process(core_configuration(), num_epochs=1)
    monkeypatch.setattr(LoopState, "state_dict", whole)
    model = manager.fetch(key)
    averages = manager.ckpts[key]["ema"]
    assert all(torch.equal(value, averages[name]) for name, value in model.named_parameters())
    with pytest.raises(CheckpointError, match="eval_losses"):
        manager.process(core_configuration(), num_epochs=2)
