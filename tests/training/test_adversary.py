"""Odd but legal programs, and hostile surroundings: nothing is lost, wrong, or different after a resume unnoticed."""

import copy
import os
import pickle
import random
import resource
import signal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jimmy_manager import random_state
from jimmy_manager.datasets import DictDataset, JimmyDataset, MultiThreadLoader, TorchDataset
from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError, Stopped
from jimmy_manager.models import JimmyModel
from jimmy_manager.signals import StopFlag
from jimmy_manager.state_files import load_state
from jimmy_manager.training import DynamicConfig, JimmyExperiment
from jimmy_manager.training.jimmy_lr_scheduler import JimmyLRScheduler
from jimmy_manager.training.jimmy_trainer import JimmyTrainer
from tests.training.stop_at import StopAt

N_EPOCHS = 4
N_BATCHES = 7


class Net(JimmyModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def data(count: int = 53, batch_size: int = 8, shuffle: bool = True, drop_last: bool = False) -> DictDataset:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(5))
    return DictDataset({"data": x, "target": (x[:, 0] > 0).long()}, batch_size, drop_last, shuffle)


def trainer_of(model_type=Net, train=data, evaluate=lambda: data(30, 8, False), scheduler=None, model=None,
               trainer_type=JimmyTrainer, **options):
    random_state.seed(11)
    built = model_type(**(model or {}))
    built.initialize()
    return trainer_type(
        train(), evaluate and evaluate(), built, scheduler and scheduler(built.optimizer),
        **{"n_epochs": N_EPOCHS, "moving_avg": 5, "show_progress": False, **options},
    )  # fmt: skip


# Files


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "last.pth"
    trainer = trainer_of(n_epochs=1, save_dir=path.parent)
    trainer.start()
    return path.read_bytes()


def loaded(content: bytes, path) -> str | None:
    """What can be loaded from such a file, as text; None where it is refused as it should be."""
    path.write_bytes(content)
    try:
        return repr(pinned(load_state(path)))
    except CheckpointError:
        return None


def pinned(value):
    if isinstance(value, dict):
        return {name: pinned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [pinned(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def test_a_state_with_one_flipped_bit_is_refused_or_reads_as_it_was(saved, tmp_path):
    path, draw, refused = tmp_path / "last.pth", random.Random(1), 0
    whole = loaded(saved, path)
    places = [*range(200), *range(len(saved) - 200, len(saved)), *draw.sample(range(len(saved)), 300)]
    for place in places:
        harmed = bytearray(saved)
        harmed[place] ^= 1 << draw.randrange(8)
        read = loaded(bytes(harmed), path)
        assert read in (None, whole), place
        refused += read is None
    assert refused > len(places) / 2


def test_without_the_sums_a_flipped_bit_would_be_loaded(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("jimmy_manager.state_files._check_sums", lambda path: None)
    path, whole = tmp_path / "last.pth", loaded(saved, tmp_path / "last.pth")
    wrong = 0
    for place in range(2000, 4000, 50):
        harmed = bytearray(saved)
        harmed[place] ^= 4
        wrong += loaded(bytes(harmed), path) not in (None, whole)
    assert wrong


def test_a_state_that_was_cut_is_refused_at_every_length(saved, tmp_path):
    for length in [*range(40), *range(40, len(saved), 97), len(saved) - 1]:
        assert loaded(saved[:length], tmp_path / "last.pth") is None, length


def test_a_damaged_state_is_called_so_and_no_advice_to_trust_it_is_passed_on(saved, tmp_path):
    path = tmp_path / "last.pth"
    path.write_bytes(saved[:5000])
    with pytest.raises(CheckpointError, match=r"cannot load '.*last\.pth': it is damaged \(.*\); take another copy"):
        load_state(path)
    torch.save({"model": JimmyModel()}, path)
    with pytest.raises(CheckpointError, match=r"refused .*GLOBAL .*JimmyModel") as refusal:
        load_state(path)
    assert "Re-running" not in str(refusal.value)


def test_files_of_torch_without_sums_are_read_as_well(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    assert load_state(path)["a"].tolist() == [1.0] * 3
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_state(path)["a"].tolist() == [1.0] * 3


def test_a_full_disk_is_an_error_that_names_the_file_and_the_state_before_stays(tmp_path):
    trainer = trainer_of(save_dir=tmp_path)
    trainer.save()
    before = (tmp_path / "last.pth").read_bytes()
    heeded = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"too large: '.*last\.pth'") as full:
            trainer.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heeded)
    assert "is whole" in full.value.__notes__[0]
    assert {each.name for each in tmp_path.iterdir()} == {"best.pth", "last.pth"}
    assert (tmp_path / "last.pth").read_bytes() == before
    trainer.start()  # with room again, and nothing lost
    assert load_state(tmp_path / "last.pth")["loop"]["epoch"] == N_EPOCHS


# Evaluation


class Drawing(Net):
    """Draws one figure a batch, or two."""

    pair = False

    def evalStep(self, data_dict: dict) -> tuple:
        from matplotlib import pyplot

        losses, _ = self._plain_step(data_dict)
        return losses, {"fig": [pyplot.figure(), pyplot.figure()] if self.pair else pyplot.figure()}


@pytest.mark.parametrize("has_log", [True, False])
@pytest.mark.parametrize("pair", [True, False])
def test_no_figure_stays_open_after_training_and_testing(pair, has_log, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    monkeypatch.setattr(Drawing, "pair", pair)
    trainer = trainer_of(Drawing, n_epochs=1, log_dir=tmp_path if has_log else None)
    trainer.start()
    assert pyplot.get_fignums() == []
    trainer.evaluate(data(), compute_avg=False)
    assert pyplot.get_fignums() == []


def test_steps_may_return_no_outputs_at_all():
    class Bare(Net):
        def trainStep(self, data_dict):
            return super().trainStep(data_dict)[0], None

        def evalStep(self, data_dict):
            return self._plain_step(data_dict)[0], None

    trainer = trainer_of(Bare, n_epochs=1)
    trainer.start()
    assert len(trainer.evaluate(data(), compute_avg=False)["Eval/Main"]) == 53


# Learning rates


def from_zero(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1.0, epoch / 2))


@pytest.mark.parametrize("scheduler", [from_zero, lambda optimizer: JimmyLRScheduler(optimizer, 1e-3, 0.0, 2)])
def test_the_file_of_the_rate_works_where_a_warm_up_begins_at_zero(scheduler, tmp_path, caplog):
    trainer = trainer_of(scheduler=scheduler, log_dir=tmp_path, early_stop_lr=1e-4)
    file = tmp_path / "runtime_param_buffer.yaml"
    rates = []
    evaluate = trainer.eval_epoch

    def look():
        rates.append(float(file.read_text().split()[1]))
        if len(rates) == 3:
            file.write_text("LR: 0.5")
        return evaluate()

    trainer.eval_epoch = look
    trainer.start()
    assert caplog.messages == []
    assert rates[:2] == pytest.approx([5e-4, 1e-3])
    assert trainer.loop.epoch == N_EPOCHS
    assert trainer.model.lr > 0.4


def test_a_user_who_asks_for_a_rate_of_zero_is_told(tmp_path, caplog):
    trainer = trainer_of(log_dir=tmp_path)
    trainer.train_epoch()
    (tmp_path / "runtime_param_buffer.yaml").write_text("LR: 0.0")
    trainer.train_epoch()
    assert "LR is 0.0" in caplog.text
    assert trainer.model.lr == 1e-3


def test_an_evaluation_set_without_batches_is_refused_before_anything_is_trained():
    with pytest.raises(DatasetError, match="eval_set has no batches, of 3 samples"):
        trainer_of(evaluate=lambda: data(3, drop_last=True))


# Resuming: whatever a program keeps


def stopped(step: int, folder, **of) -> None:
    flag = StopAt(step)
    flag.trainer = trainer = trainer_of(save_dir=folder, stop=flag, **of)
    with pytest.raises(Stopped):
        trainer.start()
    flag.trainer = None  # no circle: workers of a loader that become garbage later disturb those of the next


def resumed(folder, **of) -> JimmyTrainer:
    trainer = trainer_of(save_dir=folder, **of)
    random_state.seed(12345)  # whatever the new process has drawn
    trainer.resume()
    return trainer


def goes_on_exactly(folder, steps=(3, 10, 14), **of) -> None:
    """Check that all ends as it would have, whether training is stopped within an epoch, at its end, or never."""
    expected = outcome(trainer_of(**of))
    for step in steps:
        stopped(step, folder / str(step), **of)
        found = outcome(resumed(folder / str(step), **of))
        assert [name for name in expected if repr(found[name]) != repr(expected[name])] == [], step


def outcome(trainer: JimmyTrainer) -> dict:
    trainer.start()
    return pinned(trainer.state_dict())


class NoisyJudge(Net):
    def evalStep(self, data_dict: dict) -> tuple:
        x = data_dict["data"]
        return self._plain_step({**data_dict, "data": x + torch.randn_like(x)})


def test_a_shuffled_evaluation_set_with_random_steps_resumes(tmp_path):
    goes_on_exactly(tmp_path, model_type=NoisyJudge, evaluate=lambda: data(37))


def test_one_shuffled_set_to_train_and_to_evaluate_on_resumes(tmp_path):
    class Same(JimmyTrainer):
        def __init__(self, train_set, eval_set, *args, **kwargs):
            super().__init__(train_set, train_set, *args, **kwargs)

    goes_on_exactly(tmp_path, trainer_type=Same)


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=1)


def test_a_scheduler_that_takes_the_metric_at_each_step_resumes(tmp_path):
    goes_on_exactly(tmp_path, scheduler=plateau, scheduler_interval="step")


def test_its_rates_do_not_depend_on_how_fast_the_machine_is():
    fast, slow = (trainer_of(scheduler=plateau, scheduler_interval="step") for _ in range(2))
    slow.meter.read_every_s = -1.0
    rates = []
    for trainer in (fast, slow):
        random_state.seed(1)
        trainer.start()
        rates.append(trainer.model.lr)
    assert rates[0] == rates[1] < 1e-3


@pytest.mark.parametrize(("count", "size"), [(54, 8), (53, 9), (106, 16)])
def test_the_middle_of_a_pass_over_other_data_is_refused(count, size, tmp_path):
    stopped(10, tmp_path)
    with pytest.raises(CheckpointError, match=r"saved after batch 3 of a pass of (7 batches|53 samples), but"):
        resumed(tmp_path, train=lambda: data(count, size))


def test_between_passes_data_may_change_but_not_without_a_word(tmp_path, caplog):
    stopped(14, tmp_path)
    assert caplog.messages == []
    trainer = resumed(tmp_path, train=lambda: data(106, 16))
    assert "a pass has 106 samples, not 53" in caplog.text
    trainer.start()
    assert trainer.loop.step == 14 + 2 * 7


# Losses


class Odd(Net):
    """Returns what it goes on to change, and numbers among tensors."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.train_loss_names = ["Train/Main", "Train/Running", "Train/Temperature", "Train/Now and then"]
        self.running = torch.zeros(())
        self.temperature = nn.Parameter(torch.ones(()))
        self.told: list[list[float]] = []

    def trainStep(self, data_dict: dict) -> tuple:
        loss = self.criterion(self(data_dict["data"]) * self.temperature, data_dict["target"])
        self.backwardOptimize(loss)
        self.running.mul_(0.9).add_(loss.detach(), alpha=0.1)
        other = 0.1 if len(self.told) % 3 else loss.detach() * 2
        losses = dict(zip(self.train_loss_names, (loss, self.running, self.temperature, other), strict=True))
        self.told.append([each.item() if isinstance(each, Tensor) else each for each in losses.values()])
        return losses, {}


@pytest.mark.parametrize("every_s", [-1.0, 1e9])
def test_losses_are_those_of_their_step_however_late_they_are_read(every_s):
    trainer = trainer_of(Odd, moving_avg=100)
    trainer.meter.read_every_s = every_s
    trainer.start()
    kept = [window.toList() for window in trainer.averages._windows]
    assert [list(row) for row in zip(*kept, strict=True)] == trainer.model.told
    assert len(trainer.model.told) == N_EPOCHS * N_BATCHES


def test_evaluation_steps_in_inference_mode_may_return_a_running_mean():
    class Inferring(Net):
        @torch.inference_mode()
        def evalStep(self, data_dict: dict) -> tuple:
            losses, _ = self._plain_step(data_dict)
            count = losses["Eval/Main"] * 0 + 1.0
            self.seen = count if not hasattr(self, "seen") else self.seen.add_(1.0)
            return {"Eval/Main": self.seen}, {}

    trainer = trainer_of(Inferring, evaluate=None)
    assert trainer.evaluate(data(30, 10, False)) == {"Eval/Main": 2.0}


# Resuming with another optimizer, or weights of other types


class Masters(torch.optim.SGD):
    """Keeps each weight a second time, in float32, as training in bfloat16 often does."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    master = self.state[weight].setdefault("master", weight.float())
                    weight.copy_(master.sub_(weight.grad.float(), alpha=group["lr"]))


class Bfloat16(Net):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.bfloat16()).float()


def test_weights_kept_in_another_precision_by_the_optimizer_resume(tmp_path):
    goes_on_exactly(tmp_path, model_type=Bfloat16, model={"optimizer_cls": Masters, "optimizer_args": {"lr": 0.01}})


def test_a_state_of_weights_of_another_type_is_refused(tmp_path):
    class Double(Net):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.double()

    stopped(10, tmp_path)
    with pytest.raises(CheckpointError, match=r"net\.0\.weight is of torch\.float32, here it is of torch\.float64"):
        resumed(tmp_path, model_type=Double)


@pytest.mark.parametrize(
    ("then", "now", "complaint"),
    [
        ("Adam", "AdamW", "decoupled_weight_decay=False, this AdamW decoupled_weight_decay=True"),
        ("Adam", "RAdam", "'amsgrad', which RAdam does not know"),
        ("Adam", "Adamax", "'amsgrad', which Adamax does not know"),
        ("Adam", "NAdam", "no 'momentum_decay', which NAdam needs"),
        ("SGD", "Adam", "no 'betas', which Adam needs"),
    ],
)
def test_a_state_of_another_optimizer_is_refused(then, now, complaint, tmp_path):
    stopped(10, tmp_path, model={"optimizer_cls": getattr(torch.optim, then)})
    with pytest.raises(CheckpointError, match=complaint):
        resumed(tmp_path, model={"optimizer_cls": getattr(torch.optim, now)})


class Mixed(Net):
    """Weights of several types, frozen, tied and unused ones, and a buffer of integers that counts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.real = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.complex = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        self.tied = self.net[3].weight
        self.unused = nn.Parameter(torch.ones(2))
        self.net[0].bias.requires_grad = False
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        extra = (self.complex * self.complex.conj()).real.mean() * self.tied.sum()
        return self.net(x) * self.real.mean().float() + extra


class Lazy(Net):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyBatchNorm1d(), nn.LazyLinear(2))


def grouped(weights):
    """An optimizer that makes its own groups of what it is given."""
    weights = list(weights)
    groups = [{"params": weights[:2], "lr": 0.1}, {"params": weights[2:], "weight_decay": 0.1}]
    return torch.optim.AdamW(groups, lr=0.01)


def in_sequence(optimizer):
    schedulers = torch.optim.lr_scheduler
    return schedulers.SequentialLR(
        optimizer, [schedulers.LinearLR(optimizer), schedulers.CosineAnnealingLR(optimizer, 3)], [2]
    )


@pytest.mark.parametrize(
    "of",
    [
        {"model_type": Mixed, "model": {"ema_decay": 0.9, "clip_grad": 1.0}},
        {"model_type": Lazy},
        {"model": {"optimizer_cls": grouped}, "scheduler": in_sequence},
        {"train": lambda: MultiThreadLoader(data())},
        {"evaluate": None, "eval_interval": 9},
    ],
    ids=["mixed", "lazy", "groups", "threads", "no evaluation"],
)
def test_odd_programs_resume(of, tmp_path):
    goes_on_exactly(tmp_path, steps=(10,), **of)


# Experiments


class Drawn(JimmyDataset):
    """Draws its data as it is built, as a random split does."""

    def __init__(self, set_name: str, batch_size: int, drop_last: bool = False, shuffle: bool = False):
        super().__init__(set_name, batch_size, drop_last, shuffle)
        self.x = torch.randn(20, 6) * random.random() + float(np.random.rand())
        self.n_samples = len(self.x)

    def __getitem__(self, idx: int) -> dict:
        x = self.x[self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]]
        return {"data": x, "target": (x[:, 0] > 0).long()}


def experiment_of(model_type=Net, dir_name: str | None = "one", **constants) -> JimmyExperiment:
    experiment = JimmyExperiment("odd", dir_name=dir_name)
    experiment.dataset_cfg = DynamicConfig(Drawn, batch_size=8, shuffle=True)
    experiment.model_cfg = DynamicConfig(model_type)
    experiment.constants = {"n_epochs": 1, "show_progress": False, **constants}
    return experiment


def test_a_resumed_experiment_has_the_data_it_began_with_though_nothing_was_seeded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = experiment_of().start()
    random_state.seed(12345)  # whatever the new process has drawn
    again = experiment_of(n_epochs=2).start(first.save_dir / "last.pth")
    third = experiment_of(n_epochs=3).start(first.save_dir / "last.pth")
    for trainer in (again, third):
        assert torch.equal(trainer.train_set.x, first.train_set.x)
        assert torch.equal(trainer.eval_set.x, first.eval_set.x)
    assert not torch.equal(experiment_of(dir_name="two").start().train_set.x, first.train_set.x)


def test_an_experiment_that_is_resumed_with_another_seed_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    last = experiment_of(seed=1).start().save_dir / "last.pth"
    experiment_of(seed=1, n_epochs=2).start(last)
    assert caplog.messages == []
    experiment_of(seed=2, n_epochs=3).start(last)
    assert "began with seed 1, not 2" in caplog.text


def test_an_experiment_with_lazy_modules_is_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = experiment_of(Lazy).start().save_dir
    assert "\n0 parameters, and those of lazy modules\n" in (folder / "model_arch.txt").read_text()


def test_two_processes_do_not_train_in_one_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jimmy_manager.training.run_directory._PATIENCE_S", 0.3)

    class Forking(Net):
        """Starts, from its first step, the same experiment once more."""

        def trainStep(self, data_dict: dict) -> tuple:
            comments = tmp_path / "Runs/Drawn/Forking/one/comments.txt"
            before = comments.read_bytes()
            with pytest.raises(ConfigError, match=r"another process trains in Runs/Drawn/Forking/one"):
                experiment_of(Forking).start()
            assert comments.read_bytes() == before
            return super().trainStep(data_dict)

    assert experiment_of(Forking).start().loop.step == 3
    with pytest.raises(ConfigError, match="holds a run"):
        experiment_of(Forking).start()
    assert experiment_of(Net).start().loop.step == 3


# Models


@pytest.mark.parametrize("arguments", [{}, {"ema_decay": 0.9}, {"accumulate": 2}])
def test_a_trained_model_can_be_pickled_and_copied_with_all_that_trains_it(arguments):
    trainer = trainer_of(model=arguments, n_epochs=1)
    trainer.start()
    for model in (pickle.loads(pickle.dumps(trainer.model)), copy.deepcopy(trainer.model)):
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        assert pinned(dict(model.state_dict())) == pinned(before)
        JimmyTrainer(data(), data(), model, n_epochs=1, show_progress=False).start()
        assert pinned(dict(model.state_dict())) != pinned(before) == pinned(dict(trainer.model.state_dict()))


@pytest.mark.parametrize(
    ("name", "make", "advice"),
    [
        ("scaler", lambda model: nn.BatchNorm1d(6), "choose another name"),
        ("ema", lambda model: nn.Linear(2, 2), "choose another name"),
        ("optimizer", lambda model: torch.optim.SGD(model.parameters(), 0.1), "give optimizer_cls"),
    ],
)
def test_what_initialize_would_write_over_is_refused(name, make, advice):
    class Clashing(Net):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            setattr(self, name, make(self))

    with pytest.raises(HookError, match=rf"self\.{name} of Clashing, of type .* written over.*{advice}"):
        trainer_of(Clashing)


def test_a_model_may_be_initialised_twice():
    model = Net(ema_decay=0.9, mixed_precision="fp16")
    model.initialize()
    first = model.optimizer
    model.initialize()
    assert model.optimizer is not first


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("own_generator", [False, True])
def test_forked_workers_of_a_loader_resume(persistent, own_generator, tmp_path):
    tensors = data().tensors
    samples = list(zip(tensors["data"], tensors["target"], strict=True))

    def train():
        generator = torch.Generator().manual_seed(1) if own_generator else None
        loader = DataLoader(samples, 8, shuffle=True, num_workers=1, persistent_workers=persistent, generator=generator)
        return TorchDataset(loader)

    goes_on_exactly(tmp_path, steps=(10,), train=train, n_epochs=3)


def test_weights_that_nobody_trains_are_named(caplog):
    model = Net()
    model.initialize()
    JimmyTrainer(data(), None, model, show_progress=False)
    assert caplog.messages == []
    model.net[3] = nn.Linear(8, 2)  # a new head, after the optimizer was made
    JimmyTrainer(data(), None, model, show_progress=False)
    assert "2 weights of Net, net.3.weight first, are in no optimizer" in caplog.text
    caplog.clear()
    model.second = torch.optim.SGD(model.net[3].parameters(), 0.1)
    JimmyTrainer(data(), None, model, show_progress=False)
    model.second = None
    model.net[3].requires_grad_(False)
    JimmyTrainer(data(), None, model, show_progress=False)
    assert caplog.messages == []


# Stop signals


class Broken:
    """A dataset whose helpers are ended by the signal that stops training, so that no batch comes after it."""

    def __init__(self, at: int):
        self.dataset, self.at, self.trainer = data(), at, None

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def n_batches(self) -> int:
        return self.dataset.n_batches

    def samples_in(self, position: int) -> int:
        return self.dataset.samples_in(position)

    def state_dict(self) -> dict:
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.dataset.load_state_dict(state)

    def batches(self, start: int = 0):
        torch.rand(3)  # as a loader seeds its workers
        return self._read(start)

    def _read(self, start: int):
        for batch in self.dataset.batches(start):
            if self.trainer is not None and self.trainer.loop.step == self.at:
                self.trainer.stop.set("SIGTERM")
                raise ConnectionResetError("the worker that made this batch is gone")
            yield batch


@pytest.mark.parametrize("at", [0, 3, 6, 7, 14, 20])
def test_batches_that_a_stop_signal_keeps_from_coming_end_in_a_state_to_resume_from(at, tmp_path, caplog):
    expected = outcome(trainer_of(train=lambda: Broken(99)))
    trainer = trainer_of(train=lambda: Broken(at), save_dir=tmp_path)
    trainer.train_set.trainer = trainer
    with pytest.raises(Stopped, match=rf"SIGTERM: stopped .*\(step {at}\); .*has the newest"):
        trainer.start()
    assert "no more batches after SIGTERM: ConnectionResetError" in caplog.text
    assert outcome(resumed(tmp_path, train=lambda: Broken(99))) == expected


def test_an_error_of_a_dataset_without_a_stop_signal_is_raised_as_it_is(monkeypatch):
    trainer = trainer_of(train=lambda: Broken(3))
    trainer.train_set.trainer = trainer
    monkeypatch.setattr(trainer.stop, "set", lambda reason: None)
    with pytest.raises(ConnectionResetError):
        trainer.start()


def test_the_death_of_a_child_interrupts_no_step_once_a_stop_was_asked_for():
    calls = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: calls.append(number))
    own = signal.getsignal(signal.SIGCHLD)
    try:
        flag = StopFlag()
        with flag.installed():
            os.kill(os.getpid(), signal.SIGCHLD)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGCHLD)
            assert flag.reason == "SIGTERM"
        assert signal.getsignal(signal.SIGCHLD) is own
        os.kill(os.getpid(), signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert len(calls) == 2


class Pretending(DictDataset):
    """Builds an object of another class, as TorchDataset does of a DataLoader."""

    def __new__(cls, set_name):
        return data()


def test_going_on_by_itself_looks_where_the_run_will_be_saved_or_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = experiment_of()
    experiment.dataset_cfg = DynamicConfig(Pretending)
    with pytest.raises(ConfigError, match=r"from Runs/Pretending/Net/one, .* Runs/DictDataset/Net; give"):
        experiment.start("auto")
    assert not (tmp_path / "Runs").exists()
    experiment.constants["save_dir"] = "mine"
    assert experiment.start("auto").loop.epoch == 1
    experiment.constants["n_epochs"] = 2
    assert experiment.start("auto").loop.step == 2 * 7


def test_there_is_no_best_without_a_last_to_go_on_from(tmp_path):
    trainer = trainer_of(save_dir=tmp_path, save_interval=3)
    evaluate, seen = trainer.eval_epoch, []

    def look():
        seen.append(sorted(each.name for each in tmp_path.iterdir()))
        return evaluate()

    trainer.eval_epoch = look
    trainer.start()
    assert seen == [[], *[["best.pth", "last.pth"]] * (N_EPOCHS - 1)]
