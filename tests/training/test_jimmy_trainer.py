"""The loop itself: what it evaluates, saves and logs, when, and what its scheduler is told.

`Counting` is trained by numbers that are known beforehand: each step adds the learning rate to its weight, and its
losses are the means of the batch.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from jimmy_manager.datasets import DictDataset
from jimmy_manager.errors import NonFiniteLoss
from jimmy_manager.models import JimmyModel
from jimmy_manager.state_files import load_state
from jimmy_manager.training import jimmy_trainer
from jimmy_manager.training.jimmy_lr_scheduler import JimmyLRScheduler
from jimmy_manager.training.jimmy_trainer import JimmyTrainer

N_BATCHES = 3
VALUES = (1.0, 3.0, 10.0, 20.0, 300.0)
"""In batches of 2 the means are 2, 15 and 300: over the samples 66.8, over the batches 105.67."""


class Counting(JimmyModel):
    """Its weight is the number of steps at a rate of 1; it is evaluated by its distance from ``goal``."""

    goal = 0.0

    def __init__(self, rate: float = 1.0, **arguments: Any):
        super().__init__(torch.optim.SGD, {"lr": rate}, **arguments)
        self.train_loss_names = ["Train/Negative", "Train/Main"]
        self.weight = nn.Parameter(torch.zeros(()))

    def trainStep(self, data_dict: dict[str, Tensor]) -> tuple:
        mean = data_dict["data"].mean()
        self.backwardOptimize(-self.weight)
        return {"Train/Negative": -mean, "Train/Main": mean}, {}

    def evalStep(self, data_dict: dict[str, Tensor]) -> tuple:
        return {"Eval/Main": (self.weight - self.goal).abs()}, {}


class Rates:
    """Sets one rate after the other, the last one again and again, and notes what it is told."""

    def __init__(self, model: JimmyModel, rates: Sequence[float] = (1.0,)):
        self.model, self.rates, self.metrics = model, rates, []

    def update(self, metric: float) -> None:
        rate = self.rates[min(len(self.metrics), len(self.rates) - 1)]
        self.metrics.append(metric)
        for group in self.model.optimizer.param_groups:
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": list(self.metrics)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.metrics = list(state["metrics"])


def data() -> DictDataset:
    return DictDataset({"data": torch.tensor(VALUES)}, 2)


def trainer_of(model: JimmyModel | None = None, eval_set: Any = data, **arguments: Any) -> JimmyTrainer:
    model = Counting() if model is None else model
    if model.optimizer is None:
        model.initialize()
    rates = arguments.pop("rates", None)
    scheduler = Rates(model, rates) if rates else arguments.pop("scheduler", None)
    arguments = {"show_progress": False} | arguments
    return JimmyTrainer(data(), eval_set() if eval_set else None, model, scheduler, **arguments)


def noted_evaluations(trainer: JimmyTrainer) -> list[int]:
    """The list of the epochs after which ``trainer`` will have evaluated."""
    epochs: list[int] = []
    evaluate = trainer.eval_epoch

    def noting() -> dict[str, float]:
        epochs.append(trainer.loop.epoch)
        return evaluate()

    trainer.eval_epoch = noting
    return epochs


# Which epochs are evaluated and saved


def test_the_last_epoch_is_evaluated_and_saved_whatever_the_interval(tmp_path):
    trainer = trainer_of(n_epochs=3, eval_interval=2, save_dir=tmp_path)
    evaluations = noted_evaluations(trainer)
    trainer.start()
    assert evaluations == [2, 3]
    assert load_state(tmp_path / "last.pth")["loop"]["epoch"] == 3
    assert load_state(tmp_path / "last.pth")["model"]["weight"] == 3 * N_BATCHES


def test_saves_have_an_interval_of_their_own(tmp_path):
    trainer = trainer_of(n_epochs=5, eval_interval=1, save_interval=2, save_dir=tmp_path)
    saved = []
    save = trainer.save
    trainer.save = lambda: (save(), saved.append(load_state(tmp_path / "last.pth")["loop"]["epoch"]))
    trainer.start()
    assert saved == [1, 2, 4, 5]  # and with the first best.pth, which alone could not be gone on from


def test_no_epochs_train_evaluate_and_save_nothing(tmp_path, capsys):
    trainer = trainer_of(n_epochs=0, save_dir=tmp_path, show_progress=True)
    evaluations = noted_evaluations(trainer)
    assert trainer.is_finished
    trainer.start()
    assert (trainer.model.weight.item(), trainer.loop.step, evaluations) == (0, 0, [])
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_without_an_evaluation_set_only_the_state_is_saved(tmp_path):
    trainer = trainer_of(eval_set=None, n_epochs=3, eval_interval=2, save_dir=tmp_path)
    trainer.start()
    assert trainer.eval_epoch() == {}
    assert trainer.eval_losses == {}
    assert trainer.loop.best is None
    assert [each.name for each in tmp_path.iterdir()] == ["last.pth"]
    assert load_state(tmp_path / "last.pth")["loop"]["epoch"] == 3


# Early stop


def stopped_after(rates: Sequence[float], first: float = 0.01) -> int:
    """After how many epochs a training ends whose rate is ``first`` in the first epoch, then ``rates``."""
    trainer = trainer_of(Counting(first), rates=rates, n_epochs=9, early_stop_lr=0.1)
    trainer.start()
    assert trainer.loop.has_ended == (trainer.loop.epoch < 9)
    return trainer.loop.epoch


def test_a_rate_that_warms_up_from_below_does_not_end_training_but_its_fall_does():
    assert stopped_after([0.02, 0.05, 0.5, 0.2, 0.1, 0.09]) == 6
    assert stopped_after([0.05], first=0.5) == 1
    assert stopped_after([0.05], first=0.1) == 1
    assert stopped_after([0.1, 0.05]) == 2


def test_a_rate_that_has_never_been_that_high_or_has_not_fallen_below_ends_nothing():
    assert stopped_after([0.02, 0.05, 0.09, 0.05, 0.01]) == 9
    assert stopped_after([0.5, 0.1]) == 9


def test_the_warm_up_of_the_scheduler_of_this_package_does_not_end_training():
    model = Counting(1e-3)
    model.initialize()
    scheduler = JimmyLRScheduler(model.optimizer, peak_lr=0.1, min_lr=1e-3, warmup_count=4, window_size=2, patience=1)
    trainer = trainer_of(model, scheduler=scheduler, n_epochs=30, early_stop_lr=0.04)
    assert model.lr < 0.04
    trainer.start()
    assert 4 < trainer.loop.epoch < 30
    assert model.lr < 0.04


def test_the_epoch_that_ends_training_early_is_evaluated_and_saved_and_a_resumed_training_ends_there(tmp_path):
    arguments = {"n_epochs": 9, "eval_interval": 7, "early_stop_lr": 0.1, "save_dir": tmp_path}
    trainer = trainer_of(rates=[0.5, 0.05], **arguments)
    evaluations = noted_evaluations(trainer)
    trainer.start()
    assert evaluations == [2]
    assert load_state(tmp_path / "last.pth")["loop"]["epoch"] == 2
    resumed = trainer_of(rates=[0.5, 0.05], **arguments)
    resumed.resume()
    resumed.start()
    assert (resumed.loop.epoch, resumed.loop.step) == (2, 2 * N_BATCHES)


def test_how_high_the_rate_was_is_known_after_a_resume(tmp_path):
    first = trainer_of(Counting(0.5), rates=[0.2, 0.2], n_epochs=2, save_dir=tmp_path)
    first.start()
    resumed = trainer_of(Counting(0.5), rates=[0.2, 0.2, 0.05], n_epochs=9, early_stop_lr=0.3, save_dir=tmp_path)
    resumed.resume()
    resumed.start()
    assert resumed.loop.epoch == 3


# What the scheduler is told


def test_the_scheduler_is_given_the_moving_average_of_the_main_training_loss_once_an_epoch():
    trainer = trainer_of(rates=[1.0], n_epochs=3, moving_avg=4)
    trainer.start()
    of_three, of_four = (2 + 15 + 300) / 3, (300 + 2 + 15 + 300) / 4
    assert trainer.lr_scheduler.metrics == pytest.approx([of_three, of_four, of_four], rel=1e-6)
    narrow = trainer_of(rates=[1.0], n_epochs=2, moving_avg=2)
    narrow.start()
    assert narrow.lr_scheduler.metrics == pytest.approx([(15 + 300) / 2] * 2, rel=1e-6)
    assert narrow.averages.epoch()["Train/Main"] == pytest.approx(sum(VALUES) / 5, rel=1e-6)


def test_a_scheduler_that_counts_batches_is_told_after_each():
    trainer = trainer_of(rates=[1.0], n_epochs=2, moving_avg=1, scheduler_interval="step")
    trainer.start()
    assert trainer.lr_scheduler.metrics == [2.0, 15.0, 300.0] * 2


# The best weights


@pytest.mark.parametrize(("goal", "best_epoch"), [(2.0 * N_BATCHES, 2), (-1.0, 1), (100.0, 4)])
def test_the_best_file_has_the_weights_of_the_lowest_evaluation_loss(goal, best_epoch, tmp_path):
    model = Counting()
    model.goal = goal
    trainer = trainer_of(model, n_epochs=4, save_dir=tmp_path)
    trainer.start()
    best = load_state(tmp_path / "best.pth")
    lowest = abs(best_epoch * N_BATCHES - goal)
    assert best["model"]["weight"] == best_epoch * N_BATCHES
    assert (best["epoch"], best["step"]) == (best_epoch, best_epoch * N_BATCHES)
    assert best["losses"] == {"Eval/Main": lowest}
    assert trainer.loop.best == lowest
    assert trainer.eval_losses == {"Eval/Main": abs(4 * N_BATCHES - goal)}


def test_after_a_resume_the_best_is_still_that_of_before(tmp_path):
    for n_epochs in (2, 4):
        model = Counting()
        model.goal = 2.0 * N_BATCHES
        trainer = trainer_of(model, n_epochs=n_epochs, save_dir=tmp_path)
        if n_epochs == 4:
            trainer.resume()
        trainer.start()
    assert load_state(tmp_path / "best.pth")["epoch"] == 2
    assert trainer.loop.best == 0


def test_of_equal_losses_the_first_is_kept_and_no_loss_that_is_not_finite_is_the_best(tmp_path, caplog):
    class Scripted(Counting):
        losses = iter([math.nan, -math.inf, 5.0, 5.0, -math.inf])

        def evalStep(self, data_dict):
            return {"Eval/Main": self.loss}, {}

    trainer = trainer_of(Scripted(), n_epochs=5, save_dir=tmp_path, on_nan="warn")
    evaluate = trainer.eval_epoch
    kept = []

    def scripted() -> None:
        trainer.model.loss = next(Scripted.losses)
        evaluate()
        kept.append((load_state(tmp_path / "best.pth")["epoch"], trainer.loop.best))

    trainer.eval_epoch = scripted
    trainer.start()
    assert kept == [(1, math.inf), (1, math.inf), (3, 5.0), (3, 5.0), (3, 5.0)]
    assert caplog.text.count("the main evaluation loss is") == 3


def test_the_loss_that_ends_in_main_chooses_the_best(tmp_path):
    class Two(Counting):
        def __init__(self):
            super().__init__()
            self.eval_loss_names = ["Eval/Growing", "Eval/Main"]

        def evalStep(self, data_dict):
            return {"Eval/Growing": self.weight, "Eval/Main": -self.weight}, {}

    trainer_of(Two(), n_epochs=3, save_dir=tmp_path).start()
    assert load_state(tmp_path / "best.pth")["epoch"] == 3


def test_averaged_weights_are_what_is_evaluated_and_what_the_best_file_has(tmp_path):
    trainer = trainer_of(Counting(ema_decay=0.5), n_epochs=2, save_dir=tmp_path)
    trainer.model.goal = -1.0
    trainer.start()
    average, averages = 0.0, {}
    for step in range(1, 2 * N_BATCHES + 1):
        averages[step] = average = (average + step) / 2
    best = load_state(tmp_path / "best.pth")
    assert (best["epoch"], best["model"]["weight"]) == (1, averages[N_BATCHES])
    assert trainer.loop.best == averages[N_BATCHES] + 1
    assert trainer.eval_losses["Eval/Main"] == averages[2 * N_BATCHES] + 1
    assert trainer.model.weight == load_state(tmp_path / "last.pth")["model"]["weight"] == 2 * N_BATCHES


# Means over samples


class Measured(Counting):
    """Evaluated by the mean of the batch, like it is trained."""

    def evalStep(self, data_dict):
        return {"Eval/Main": data_dict["data"].mean()}, {}


@pytest.mark.parametrize("read_every", [1, 2, 1024])
def test_a_smaller_last_batch_weighs_less(read_every):
    trainer = trainer_of(Measured(), n_epochs=2)
    trainer.meter.read_every = read_every
    trainer.start()
    assert trainer.averages.epoch()["Train/Main"] == pytest.approx(sum(VALUES) / 5, rel=1e-6)
    assert trainer.averages.epoch()["Train/Negative"] == pytest.approx(-sum(VALUES) / 5, rel=1e-6)
    assert trainer.eval_losses["Eval/Main"] == pytest.approx(sum(VALUES) / 5, rel=1e-6)
    assert trainer.averages.samples == 5


def test_each_sample_has_its_own_loss():
    losses = trainer_of(Measured()).evaluate(data(), compute_avg=False)
    assert losses == {"Eval/Main": list(VALUES)}


# Modes and gradients


class Watched(Counting):
    """Notes the mode it is in and whether gradients are on."""

    def __init__(self, fails: bool = False):
        super().__init__(ema_decay=0.9)
        self.fails, self.seen = fails, set()

    def trainStep(self, data_dict):
        self.seen.add(("train", self.training, torch.is_grad_enabled()))
        return super().trainStep(data_dict)

    def evalStep(self, data_dict):
        self.seen.add(("eval", self.training, torch.is_grad_enabled()))
        if self.fails:
            raise RuntimeError("broken")
        return super().evalStep(data_dict)


def test_steps_of_training_are_in_training_mode_and_those_of_evaluation_are_not_and_have_no_gradients():
    model = Watched().eval()
    trainer_of(model, n_epochs=2).start()
    assert model.seen == {("train", True, True), ("eval", False, False)}


@pytest.mark.parametrize("compute_avg", [True, False])
@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_an_evaluation_leaves_mode_gradients_and_weights_as_they_were(is_training, fails, compute_avg):
    model = Watched(fails)
    trainer = trainer_of(model)
    trainer.train_epoch()
    model.train(is_training)
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            trainer.evaluate(data(), compute_avg)
    else:
        trainer.evaluate(data(), compute_avg)
    assert model.training == is_training
    assert torch.is_grad_enabled()
    assert model.weight == N_BATCHES


# The rate in a file


class TwoGroups(JimmyModel):
    """Notes the rates of both its groups at each step, and lets ``edit`` happen at the second."""

    def __init__(self, edit: Callable[[], object]):
        super().__init__(self._grouped, {"lr": 1.0})
        self.weight, self.other = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.edit, self.rates = edit, []

    @staticmethod
    def _grouped(weights, lr):
        first, second = weights
        return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": lr / 4}], lr)

    def trainStep(self, data_dict):
        self.rates.append(tuple(group["lr"] for group in self.optimizer.param_groups))
        if len(self.rates) == 2:
            self.edit()
        self.backwardOptimize(self.weight + self.other)
        return {"Train/Main": 1.0}, {}


def test_an_edited_rate_takes_effect_at_the_next_epoch_in_every_group(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "runtime_param_buffer.yaml"
    model = TwoGroups(lambda: path.write_text("LR: 0.5\n"))
    trainer_of(model, eval_set=None, n_epochs=3, log_dir=tmp_path).start()
    assert model.rates == [(1.0, 0.25)] * N_BATCHES + [(0.5, 0.125)] * 2 * N_BATCHES
    assert caplog.text.count("learning rate edited from 1.0 to 0.5") == 1


def test_an_edit_wins_over_a_scheduler_that_moved_the_rate_in_that_epoch(tmp_path):
    path = tmp_path / "runtime_param_buffer.yaml"
    model = TwoGroups(lambda: path.write_text("LR: 0.5\n"))
    model.initialize()
    halving = torch.optim.lr_scheduler.ExponentialLR(model.optimizer, 0.5)
    trainer_of(model, eval_set=None, scheduler=halving, n_epochs=3, log_dir=tmp_path).start()
    assert model.rates[::N_BATCHES] == [(1.0, 0.25), (0.5, 0.125), (0.25, 0.0625)]


def test_the_file_has_the_rate_of_the_epoch_to_come(tmp_path):
    trainer = trainer_of(rates=[0.5, 0.2], n_epochs=2, log_dir=tmp_path)
    trainer.start()
    assert (tmp_path / "runtime_param_buffer.yaml").read_text().startswith("LR: 0.2\n")


# TensorBoard


def events(log_dir: Path) -> EventAccumulator:
    return EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "images": 0}).Reload()


def logged(log_dir: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(log_dir).Scalars(tag)]


def test_the_step_of_the_log_is_the_number_of_batches_seen(tmp_path):
    trainer = trainer_of(n_epochs=2, log_dir=tmp_path)
    trainer.meter.read_every, trainer.meter.read_every_s = 2, math.inf
    trainer.start()
    assert logged(tmp_path, "Eval/Main") == [(N_BATCHES, N_BATCHES), (2 * N_BATCHES, 2 * N_BATCHES)]
    assert set(events(tmp_path).Tags()["scalars"]) == {"Train/Main", "Train/Negative", "Eval/Main", "LR"}
    for tag in ("Train/Main", "LR"):
        assert [step for step, _ in logged(tmp_path, tag)] == [2, 3, 5, 6]
    assert logged(tmp_path, "Train/Main")[0] == (2, (2 + 15) / 2)


def test_on_resume_the_log_loses_what_came_after_the_step_that_was_resumed_from(tmp_path, monkeypatch):
    def train(attempt: int, n_epochs: int, goal: float) -> None:
        # Files are read in the order of their names, which begin with the second in which they were made.
        monkeypatch.setattr("time.time", lambda: 1e9 + attempt)
        model = Counting()
        model.goal = goal
        trainer = trainer_of(model, n_epochs=n_epochs, log_dir=tmp_path / "log", save_dir=tmp_path / str(attempt))
        if attempt:
            trainer.resume(tmp_path / "0" / "last.pth")
        trainer.start()

    train(0, 2, goal=0)
    train(1, 4, goal=100)
    assert logged(tmp_path / "log", "Eval/Main") == [(3, 3), (6, 6), (9, 91), (12, 88)]
    train(2, 3, goal=200)
    assert logged(tmp_path / "log", "Eval/Main") == [(3, 3), (6, 6), (9, 191)]
    assert max(step for step, _ in logged(tmp_path / "log", "Train/Main")) == 9


class Drawing(Counting):
    """Draws a figure a batch, labelled with the number of the drawing."""

    def __init__(self):
        super().__init__()
        self.drawn = 0

    def evalStep(self, data_dict):
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(1, 1))
        figure.set_label(str(self.drawn))
        self.drawn += 1
        return super().evalStep(data_dict)[0], {"fig": figure}


@pytest.mark.parametrize("has_log", [True, False])
def test_only_the_first_figure_of_an_evaluation_is_logged_and_none_stays_open(has_log, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    trainer = trainer_of(Drawing(), n_epochs=2, log_dir=tmp_path if has_log else None)
    shown = []
    log = jimmy_trainer.TensorBoardManager.log

    def noting(self: Any, step: int, **values: Any) -> None:
        if "Visualization" in values:
            shown.append((step, values["Visualization"].get_label()))
        log(self, step, **values)

    monkeypatch.setattr(jimmy_trainer.TensorBoardManager, "log", noting)
    trainer.start()
    assert pyplot.get_fignums() == []
    assert trainer.model.drawn == 2 * N_BATCHES
    if has_log:
        assert shown == [(N_BATCHES, "0"), (2 * N_BATCHES, str(N_BATCHES))]
        assert [image.step for image in events(tmp_path).Images("Visualization")] == [N_BATCHES, 2 * N_BATCHES]
    else:
        assert shown == []


# The display, for which stands in what only notes how it is called


class Display:
    newest: "Display"

    def __init__(self, items_per_epoch: int, epochs: int, show_recent: int, custom_fields: Any = None):
        Display.newest = self
        self.sizes, self.fields = (items_per_epoch, epochs), list(custom_fields)
        self.calls: list[Any] = []
        self.shown: list[tuple[int, int, dict[str, float]]] = []
        self.is_paused = False

    def begin(self, epoch: int, step: int = 0) -> None:
        self.calls.append(("begin", epoch, step))

    def update(self, epoch: int, step: int, **fields: float) -> None:
        assert not self.is_paused
        self.calls.append("update")
        self.shown.append((epoch, step, fields))

    @contextmanager
    def pause(self, note: str = "") -> Iterator[None]:
        self.calls.append("pause")
        self.is_paused = True
        yield
        self.is_paused = False
        self.calls.append("go on")

    def close(self) -> None:
        self.calls.append("close")


class Displayed(Counting):
    """Notes in the display what it does, and whether the time of that counts."""

    def trainStep(self, data_dict):
        Display.newest.calls.append(("train", Display.newest.is_paused))
        return super().trainStep(data_dict)

    def evalStep(self, data_dict):
        Display.newest.calls.append(("eval", Display.newest.is_paused))
        return super().evalStep(data_dict)


@pytest.fixture
def display(monkeypatch):
    monkeypatch.setattr(jimmy_trainer, "ProgressManager", Display)


def displayed(**arguments: Any) -> JimmyTrainer:
    trainer = trainer_of(Displayed(), show_progress=True, **arguments)
    trainer.meter.read_every_s = math.inf
    return trainer


def test_the_time_of_an_evaluation_counts_for_no_epoch(display):
    displayed(n_epochs=2).start()
    calls = Display.newest.calls
    steps = [("train", False)] * N_BATCHES
    evaluation = ["pause", *[("eval", True)] * N_BATCHES, "go on"]
    epoch = [*steps, "update", *evaluation, "update"]
    assert calls == [("begin", 0, 0), *epoch, *epoch, "close"]


def test_what_is_shown_belongs_to_the_epoch_and_the_step_that_were_done(display):
    trainer = displayed(n_epochs=2)
    trainer.meter.read_every = 2
    trainer.start()
    shown = Display.newest.shown
    assert [(epoch, step) for epoch, step, _ in shown] == [(e, s) for e in (0, 1) for s in (1, 2, 2)]
    assert shown[0][2] == {"LR": 1.0, "Train/Main": 8.5, "Train/Negative": -8.5}
    assert shown[2][2]["Eval/Main"] == N_BATCHES
    assert Display.newest.sizes == (N_BATCHES, 2)
    assert set(Display.newest.fields) == {name for _, _, fields in shown for name in fields}


def test_on_resume_the_display_is_told_where_training_begins(display, tmp_path):
    first = displayed(n_epochs=1, save_dir=tmp_path)
    first.start()
    between = displayed(n_epochs=2, save_dir=tmp_path)
    between.resume()
    between.start()
    assert Display.newest.calls[0] == ("begin", 1, 0)
    assert Display.newest.shown[0][:2] == (1, N_BATCHES - 1)


def test_on_resume_in_the_middle_of_an_epoch_the_display_is_told_its_step(display, tmp_path):
    first = displayed(n_epochs=1, save_steps=2, save_dir=tmp_path)
    first.eval_epoch = lambda: 1 / 0  # ends training after the only save
    with pytest.raises(ZeroDivisionError):
        first.start()
    resumed = displayed(n_epochs=2, save_dir=tmp_path)
    resumed.resume()
    resumed.start()
    assert Display.newest.calls[0] == ("begin", 0, 2)
    assert Display.newest.calls[1:3] == [("train", False), "update"]
    assert resumed.model.weight == 2 * N_BATCHES


def test_the_display_is_closed_where_training_fails(display):
    trainer = displayed(n_epochs=2)
    trainer.model.goal = math.nan
    with pytest.raises(NonFiniteLoss, match="the main evaluation loss is nan after 1 of 2 epochs"):
        trainer.start()
    assert Display.newest.calls[-1] == "close"
    assert trainer.pm is None
