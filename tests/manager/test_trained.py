import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from jimmy_manager import TrainedManager
from jimmy_manager.errors import ConfigError
from jimmy_manager.manager.trained import RunningMeans, SeededGenerator

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
        digest = hashlib.sha256(manager.generator.get_state().numpy().tobytes())
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


def test_without_the_state_of_its_generator_a_resumed_run_would_end_otherwise(tmp_path):
    class Forgetful(Small):
        state = ("model", "optimizer", "scheduler")

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
    assert "scheduler" in manager.state
    manager.fetch(manager.process(configuration(), num_epochs=1))
    assert "scheduler" not in manager.state


def test_shuffled_batches_bring_every_sample_once_in_another_order_each_epoch():
    manager = started(Small(None, device="cpu", verbose=False))
    epochs = [[inputs for inputs, _ in manager.batches("train", shuffle=True)] for _ in range(2)]
    assert [len(inputs) for inputs in epochs[0]] == [16, 16, 16, 2]
    first, second = (torch.cat(epoch) for epoch in epochs)
    assert not torch.equal(first, second)
    whole = load_data()["train"][0]
    for order in (first, second):
        assert sorted(order[:, 0].tolist()) == sorted(whole[:, 0].tolist())


def test_targets_stay_with_their_inputs_when_shuffled():
    manager = started(Small(None, device="cpu", verbose=False))
    for inputs, targets in manager.batches("train", shuffle=True):
        assert torch.equal(targets, (inputs.sum(1) > 0).long())


def test_the_order_of_samples_depends_on_the_seed_alone():
    orders = []
    for draws, seed in ((1, 5), (1000, 5), (1, 6)):
        model = {"_target_": f"{__name__}.build_drawing_model", "draws": draws}
        manager = started(Small(None, device="cpu", verbose=False), model=model, seed=seed)
        orders.append(torch.cat([inputs for inputs, _ in manager.batches("train", shuffle=True)]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_an_epoch_waits_for_the_device_once(monkeypatch):
    manager = started(Small(None, device="cpu", verbose=False))
    waits = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "cpu", "numpy"):
        method = getattr(torch.Tensor, name)
        counted = lambda *args, name=name, method=method, **kwargs: (waits.append(name), method(*args, **kwargs))[1]  # noqa: E731
        monkeypatch.setattr(torch.Tensor, name, counted)
    manager.train()
    assert waits == ["tolist"]


@pytest.mark.parametrize("field", ["data", "model", "optim"])
def test_a_missing_part_is_named(field):
    fields = configuration()
    del fields[field]
    with pytest.raises(ConfigError, match=f"builds '{field}' from its '_target_'"):
        Small(None, device="cpu", verbose=False).process(fields, num_epochs=1)


def test_a_loss_that_diverges_is_recorded_as_it_is():
    class Diverging(Small):
        def loss(self, output, targets):
            return super().loss(output, targets) + math.inf

    manager = Diverging(None, device="cpu", verbose=False)
    preview = manager.previews[manager.process(configuration(), num_epochs=1)]
    assert preview["loss_train"] == math.inf
    assert preview["loss_valid"] == math.inf


def test_running_means_weigh_batches_by_their_samples():
    means = RunningMeans("cpu")
    means.add(3, loss=torch.tensor(1.0), acc=torch.tensor([True, True, False]))
    means.add(1, loss=torch.tensor(5.0), acc=torch.tensor([False]))
    assert means.read("valid") == {"loss_valid": 2.0, "acc_valid": 0.5}
    assert RunningMeans("cpu").read("valid") == {}


def test_a_seeded_generator_goes_on_where_its_state_was_taken():
    generator, other = SeededGenerator(1), SeededGenerator(-2)
    torch.rand(5, generator=generator)
    state = generator.state_dict()
    expected = torch.rand(5, generator=generator)
    other.load_state_dict(state)
    assert torch.equal(torch.rand(5, generator=other), expected)
