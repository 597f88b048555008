"""What a user may do wrong: each gives an error that names what, where, and what to do instead."""

import logging
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from jimmy_manager.datasets import DictDataset, JimmyDataset
from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError, NonFiniteLoss
from jimmy_manager.models import JimmyModel
from jimmy_manager.state_files import load_state, save_state
from jimmy_manager.training import DynamicConfig, JimmyExperiment
from jimmy_manager.training.jimmy_trainer import JimmyTrainer

BAD_BATCH = 2


class Net(JimmyModel):
    def __init__(self, width: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def points(n_batches: int = 5, bad: float | None = None) -> DictDataset:
    """Batches of 8; the input of one sample in batch `BAD_BATCH` is ``bad``."""
    x = torch.randn(8 * n_batches, 4, generator=torch.Generator().manual_seed(1))
    target = (x[:, 0] > 0).long()
    if bad is not None:
        x[8 * BAD_BATCH + 3, 1] = bad
    return DictDataset({"data": x, "target": target}, 8)


def trainer(
    train_set: object = None, model: JimmyModel | None = None, eval_set: object = None, **options
) -> JimmyTrainer:
    if model is None:
        torch.manual_seed(0)
        model = Net()
    model.initialize()
    options = {"n_epochs": 2, "show_progress": False, **options}
    return JimmyTrainer(points() if train_set is None else train_set, eval_set, model, **options)


# Datasets


class Countless(JimmyDataset):
    def __init__(self, batch_size: int = 8, **others):
        super().__init__("train", batch_size)
        vars(self).update(others)


def test_a_dataset_without_n_samples() -> None:
    message = r"Countless has no n_samples; set self.n_samples = len\(...\) in __init__ of Countless"
    with pytest.raises(DatasetError, match=message):
        trainer(Countless())
    with pytest.raises(DatasetError, match=message):
        trainer(eval_set=Countless())
    exp = JimmyExperiment()
    exp.dataset_cfg, exp.model_cfg = DynamicConfig(Countless), DynamicConfig(Net)
    with pytest.raises(DatasetError, match=message):
        exp.start()


@pytest.mark.parametrize("count", [-1, 2.5, "8", None])
def test_a_count_of_samples_that_is_none(count: object) -> None:
    with pytest.raises(DatasetError, match=re.escape(f"n_samples of Countless is {count!r}, which is no count; set")):
        trainer(Countless(n_samples=count))


def test_a_dataset_without_batches() -> None:
    with pytest.raises(DatasetError, match=r"train_set has no batches, of 7 samples; .* drop_last=False"):
        trainer(DictDataset({"data": torch.ones(7, 4)}, 8, drop_last=True))


@pytest.mark.parametrize(
    "dataset", [[{"data": 1}], DataLoader(TensorDataset(torch.ones(4, 4)), 2), TensorDataset(torch.ones(4, 4))]
)
def test_what_is_no_dataset(dataset: object) -> None:
    for given in ({"train_set": dataset}, {"eval_set": dataset}):
        (name,) = given
        with pytest.raises(DatasetError, match=rf"{name} is of type {type(dataset).__name__}, .* wrap .* TorchDataset"):
            trainer(**given)
    with pytest.raises(DatasetError, match="dataset is of type"):
        trainer().evaluate(dataset)


# Losses


class Says(Net):
    """Returns from each step whatever it is told to."""

    def __init__(self, train: object = None, evaluated: object = None):
        super().__init__()
        self.train_answer, self.eval_answer = train, evaluated

    def trainStep(self, data_dict: dict) -> object:
        return super().trainStep(data_dict) if self.train_answer is None else self.train_answer

    def evalStep(self, data_dict: dict) -> object:
        return super().evalStep(data_dict) if self.eval_answer is None else self.eval_answer


ANSWERS = [
    (({"Train/Loss": 1.0}, {}), r"returned the losses \['Train/Loss'\], but \w+ declares \['.*Main'\] too; return"),
    (({}, {}), r"returned the losses \[\], but"),
    ({"Train/Main": 1.0}, r"returned an object of type dict; it must return \(losses, outputs\), two dicts"),
    (({"Train/Main": 1.0},), r"returned a tuple of \['dict'\]; it must return \(losses, outputs\), two dicts"),
    ((1.0, {}), r"returned a tuple of \['float', 'dict'\]; it must return"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "message"), ANSWERS)
def test_a_step_that_does_not_return_what_is_declared(answer: object, message: str) -> None:
    with pytest.raises(HookError, match=rf"^Says\.trainStep {message}"):
        trainer(model=Says(train=answer)).start()
    with pytest.raises(HookError, match=rf"^Says\.evalStep {message}"):
        trainer(model=Says(evaluated=answer), eval_set=points()).start()


@pytest.mark.parametrize("value", [None, "low", [0.5], {}])
def test_a_loss_that_is_no_number(value: object) -> None:
    message = rf"'Train/Main' of type {type(value).__name__}; a loss is a number or a tensor"
    with pytest.raises(HookError, match=rf"^Says\.trainStep returned {message}"):
        trainer(model=Says(train=({"Train/Main": value}, {}))).start()


class Moody(Net):
    """Returns a tensor at first, and nothing from then on."""

    is_used = False

    def trainStep(self, data_dict: dict) -> tuple:
        losses, outputs = super().trainStep(data_dict)
        if self.is_used:
            losses = {"Train/Main": None}
        self.is_used = True
        return losses, outputs


def test_a_loss_that_is_a_number_only_at_times() -> None:
    with pytest.raises(HookError, match=r"'Train/Main' of type NoneType; a loss is a number or a tensor"):
        trainer(model=Moody()).start()


@pytest.mark.parametrize("attribute", ["train_loss_names", "eval_loss_names"])
def test_a_model_without_a_main_loss_is_refused_before_it_is_trained(attribute: str) -> None:
    for names, message in (
        ([], f"{attribute} is empty; name one, e.g. "),
        ("Eval/Main", f"{attribute} is the string 'Eval/Main'; write ['Eval/Main']"),
    ):
        model = Net()
        setattr(model, attribute, names)
        with pytest.raises(HookError, match=re.escape(message)):
            trainer(model=model, eval_set=points())


def test_a_loss_that_nobody_declared_is_told_of_once_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    trainer(model=Says(train=({"Train/Main": 1.0, "Train/Extra": 2.0}, {}))).start()
    assert caplog.text.count("Says.trainStep returns ['Train/Extra'], which nobody averages") == 1
    assert "declare it in self.train_loss_names" in caplog.text


@pytest.mark.parametrize(
    ("names", "told"), [(["Eval/Acc"], True), (["Eval/Acc", "Eval/Main"], False), (["Loss"], False)]
)
def test_a_main_loss_that_grows_as_it_gets_better_is_told_of(
    names: list[str], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = Net()
    model.eval_loss_names = names
    trainer(model=model)
    assert ("'Eval/Acc' is taken for the main loss of Net" in caplog.text) == told


class Idle(Net):
    def trainStep(self, data_dict):
        loss = self.criterion(self(data_dict["data"]), data_dict["target"])
        return {"Train/Main": loss.detach()}, {}


def test_a_step_that_trains_nothing_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    trainer(model=Idle()).start()
    assert caplog.text.count("no weight of Idle has changed in its first epoch") == 1


@pytest.mark.parametrize("options", [{}, {"accumulate": 100}, {"optimizer_cls": torch.optim.SGD}])
def test_a_step_that_trains_is_not_told_of(options: dict, caplog: pytest.LogCaptureFixture) -> None:
    trainer(model=Net(**options)).start()
    assert "no weight" not in caplog.text


@pytest.mark.parametrize(("interval", "told"), [("epoch", True), ("step", False)])
def test_a_scheduler_that_would_not_come_to_its_end_is_told_of(
    interval: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = Net()
    model.initialize()
    schedule = torch.optim.lr_scheduler.OneCycleLR(model.optimizer, 0.1, total_steps=10)
    JimmyTrainer(points(), None, model, schedule, n_epochs=2, show_progress=False, scheduler_interval=interval)
    assert ("OneCycleLR has total_steps=10, but is asked once an epoch, 2 times" in caplog.text) == told


# Losses that are not finite


@pytest.mark.parametrize(("bad", "value"), [(float("nan"), "nan"), (float("inf"), "(nan|inf)")])
def test_a_loss_that_is_not_finite_stops_with_its_place_and_what_to_try(bad: float, value: str, tmp_path: Path) -> None:
    train_set = points()
    ours = trainer(train_set, save_dir=tmp_path)
    ours.train_epoch()
    ours.save()
    before = (tmp_path / "last.pth").read_bytes()
    train_set.tensors["data"][8 * BAD_BATCH] = bad
    message = (
        rf"Train/Main is {value} in epoch 1, step {5 + BAD_BATCH}, batch {BAD_BATCH} of 5, counted from 0.*; "
        r"\S*last.pth has the newest saved state; try a lower learning rate, clip_grad=1.0, or on_nan='skip'"
    )
    with pytest.raises(NonFiniteLoss, match=message):
        ours.start()
    assert (tmp_path / "last.pth").read_bytes() == before


def test_with_warn_it_goes_on_and_tells_the_place(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    ours = trainer(points(bad=float("nan")), eval_set=points(), on_nan="warn", save_dir=tmp_path)
    ours.start()
    assert ours.loop.epoch == 2
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert f"Train/Main is nan in epoch 0, step {BAD_BATCH}, batch {BAD_BATCH} of 5" in told[0]
    assert told[0].endswith("training goes on")
    assert "the main evaluation loss is nan" in told[1]
    assert told[1].endswith("training goes on")
    assert (tmp_path / "best.pth").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_with_skip_it_is_as_if_the_batch_were_not_there(bad: float, caplog: pytest.LogCaptureFixture) -> None:
    ours = trainer(points(bad=bad), on_nan="skip", n_epochs=1)
    ours.start()
    assert f"in epoch 0, step {BAD_BATCH}, batch {BAD_BATCH} of 5, counted from 0; the step was skipped" in caplog.text
    whole = points()
    rows = torch.arange(len(whole)) // 8 != BAD_BATCH
    other = trainer(DictDataset({name: value[rows] for name, value in whole.tensors.items()}, 8), n_epochs=1)
    other.start()
    for one, two in zip(ours.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert ours.averages.epoch() == other.averages.epoch()


@pytest.mark.parametrize("on_nan", ["stop", "warn", "skip"])
def test_an_evaluation_that_is_not_finite_is_never_the_best(
    on_nan: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = trainer(eval_set=points(bad=float("nan")), on_nan=on_nan, save_dir=tmp_path)
    if on_nan == "stop":
        with pytest.raises(NonFiniteLoss, match=r"the main evaluation loss is nan after 1 of 2 epochs"):
            ours.start()
        return
    ours.start()
    assert "the main evaluation loss is nan after 1 of 2 epochs" in caplog.text
    assert "skipped" not in caplog.text
    ours.eval_set = points()
    ours.eval_epoch()
    best = load_state(tmp_path / "best.pth")["losses"]
    assert best == ours.eval_losses, "the first finite one replaces it"


def test_an_experiment_hands_the_option_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exp = JimmyExperiment()
    exp.train_set_cfg, exp.model_cfg = DynamicConfig(points, bad=float("nan")), DynamicConfig(Net)
    exp.constants = {"n_epochs": 1, "show_progress": False, "save_dir": tmp_path}
    with pytest.raises(NonFiniteLoss, match=f"epoch 0, step {BAD_BATCH}, batch {BAD_BATCH} of 5"):
        exp.start()
    exp.constants["on_nan"] = "skip"
    assert all(each.isfinite().all() for each in exp.start().model.parameters())
    assert "the step was skipped" in caplog.text


# Options


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("eval_interval", -1, "it must be an integer from 1"),
        ("eval_interval", 0, "it must be an integer from 1"),
        ("save_interval", -2, "it must be an integer from 1"),
        ("save_steps", -1, "it must be an integer from 0"),
        ("moving_avg", 0, "it must be an integer from 1"),
        ("n_epochs", -1, "it must be an integer from 0"),
        ("n_epochs", 1.5, "it must be an integer from 0"),
        ("n_epochs", True, "it must be an integer from 0"),
        ("early_stop_lr", -1e-6, "it must be a number from 0"),
        ("early_stop_lr", None, "it must be a number from 0"),
        ("early_stop_lr", float("nan"), "it must be a number from 0"),
        ("on_nan", "ignore", "it must be one of 'stop', 'warn', 'skip'"),
        ("scheduler_interval", "batch", "it must be one of 'epoch', 'step'"),
    ],
)
def test_an_option_out_of_range(name: str, value: object, advice: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{name} is {value!r}; {advice}")):
        trainer(**{name: value})


def test_what_is_no_model_or_not_ready() -> None:
    with pytest.raises(HookError, match="model is of type Linear; it must be a JimmyModel"):
        JimmyTrainer(points(), None, nn.Linear(4, 2))
    with pytest.raises(HookError, match=r"Net has no optimizer; call model.initialize\(\) before training it"):
        JimmyTrainer(points(), None, Net())


def test_resuming_from_nowhere() -> None:
    with pytest.raises(ConfigError, match="resume what"):
        trainer().resume()
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        trainer(save_dir="nowhere").resume()


# Checkpoints


def saved(tmp_path: Path) -> Path:
    trainer(save_dir=tmp_path).start()
    return tmp_path / "last.pth"


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    message = r"the model of the checkpoint does not fit: .*size mismatch.*; build .* or .* model.loadFrom\(path\)"
    with pytest.raises(CheckpointError, match=message):
        trainer(model=Net(width=7)).resume(saved(tmp_path))
    message = r"nothing in '.*last.pth' fits Other: it has net.0.weight, .*, the model other.weight, .*; build"
    with pytest.raises(CheckpointError, match=message):
        Other().loadFrom(tmp_path / "last.pth")


class Other(JimmyModel):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("options", "scheduler", "message"),
    [
        ({"optimizer_cls": torch.optim.SGD}, None, "the optimizer of the checkpoint .*: it has no 'momentum'"),
        ({"ema_decay": 0.9}, None, "the checkpoint has no 'ema'"),
        ({}, torch.optim.lr_scheduler.StepLR, "the saved scheduler has no 'step_size'"),
    ],
)
def test_a_checkpoint_of_another_way_of_training(
    options: dict, scheduler: type | None, message: str, tmp_path: Path
) -> None:
    model = Net(**options)
    model.initialize()
    lr_scheduler = scheduler and scheduler(model.optimizer, 1)
    ours = JimmyTrainer(points(), None, model, lr_scheduler, show_progress=False)
    with pytest.raises(CheckpointError, match=message):
        ours.resume(saved(tmp_path))


def test_a_checkpoint_whose_parts_nobody_would_take_up(tmp_path: Path) -> None:
    model = Net(ema_decay=0.9)
    model.initialize()
    scheduler = torch.optim.lr_scheduler.StepLR(model.optimizer, 1)
    JimmyTrainer(points(), None, model, scheduler, save_dir=tmp_path, n_epochs=1, show_progress=False).start()
    with pytest.raises(CheckpointError, match=r"has a state of 'ema', which this training has not; build"):
        trainer().resume(tmp_path / "last.pth")
    with pytest.raises(CheckpointError, match=r"the scheduler of the checkpoint does not fit: this training has none"):
        trainer(model=Net(ema_decay=0.9)).resume(tmp_path / "last.pth")


def test_a_file_of_weights_alone_is_no_training_to_go_on_with(tmp_path: Path) -> None:
    trainer(eval_set=points(), save_dir=tmp_path).start()
    with pytest.raises(CheckpointError, match=r"the checkpoint has no 'format', .*; take over the weights alone"):
        trainer().resume(tmp_path / "best.pth")


def test_a_checkpoint_of_another_format(tmp_path: Path) -> None:
    state = load_state(saved(tmp_path))
    save_state({**state, "format": 99}, tmp_path / "newer.pth")
    with pytest.raises(CheckpointError, match="the checkpoint has format 99, this version reads 1"):
        trainer().resume(tmp_path / "newer.pth")


@pytest.mark.parametrize("name", ["LR", "step"])
def test_a_loss_with_a_name_that_is_taken(name: str) -> None:
    model = Net()
    model.eval_loss_names = ["Eval/Main", name]
    with pytest.raises(HookError, match=f"Net has a loss named '{name}', which is taken; rename it"):
        trainer(model=model)


def test_an_early_stop_is_lifted_by_a_lower_threshold(tmp_path: Path) -> None:
    def made(threshold: float) -> JimmyTrainer:
        torch.manual_seed(0)
        model = Net()
        model.initialize()
        scheduler = torch.optim.lr_scheduler.ExponentialLR(model.optimizer, 0.1)
        return JimmyTrainer(
            points(), None, model, scheduler, save_dir=tmp_path, n_epochs=5, early_stop_lr=threshold,
            show_progress=False,
        )  # fmt: skip

    stopped = made(5e-5)
    stopped.start()
    assert stopped.loop.epoch == 2
    again = made(0.0)
    again.resume()
    again.start()
    assert again.loop.epoch == 5


def test_saves_that_fall_between_two_accumulating_steps_are_made_after_them(tmp_path: Path) -> None:
    model = Net(accumulate=4)
    each = trainer(model=model, save_dir=tmp_path, save_steps=4, n_epochs=4)
    saved: list[int] = []
    save = each.save
    each.save = lambda: (saved.append(each.loop.step), save())
    each.start()
    # Epochs of 5 steps, after the last of which the optimizer takes a step of its own.
    assert saved == [4, 5, 9, 10, 14, 15, 19, 20]
