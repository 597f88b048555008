"""An experiment builds what its configurations say, in a directory of its own, and changes none of them."""

import hashlib
import logging
import re
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from jimmy_manager.datasets import DictDataset, JimmyDataset, MultiThreadLoader, TorchDataset
from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError, UnknownField
from jimmy_manager.models import JimmyModel
from jimmy_manager.state_files import load_state
from jimmy_manager.training import DynamicConfig, JimmyExperiment, JimmyLRScheduler
from jimmy_manager.training.jimmy_trainer import JimmyTrainer
from jimmy_manager.training.run_directory import agreed

SIZES = {"train": 37, "eval": 13, "test": 11}


class Points(JimmyDataset):
    def __init__(self, set_name: str, batch_size: int, drop_last: bool = False, shuffle: bool = False):
        super().__init__(set_name, batch_size, drop_last, shuffle)
        draw = torch.Generator().manual_seed(len(set_name))
        self.x = torch.randn(SIZES[set_name], 4, generator=draw)
        self.n_samples = len(self.x)

    def __getitem__(self, idx: int) -> dict:
        x = self.x[self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]]
        return {"data": x, "target": (x[:, 0] > 0).long()}


class OlderPoints(JimmyDataset):
    def __init__(self, batch_size: int, drop_last: bool = False, shuffle: bool = False):
        super().__init__(batch_size, drop_last, shuffle)
        self.x = torch.randn(37, 4)
        self.n_samples = len(self.x)

    def __getitem__(self, idx: int) -> dict:
        x = self.x[self._indices[(idx - 1) * self.batch_size : idx * self.batch_size]]
        return {"data": x, "target": (x[:, 0] > 0).long()}


class Net(JimmyModel):
    def __init__(self, width: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.2), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def experiment(comments: str = "a try", dir_name: str | None = None, **constants) -> JimmyExperiment:
    exp = JimmyExperiment(comments, dir_name)
    exp.dataset_cfg = DynamicConfig(Points, batch_size=8, drop_last=True, shuffle=True)
    exp.model_cfg = DynamicConfig(Net)
    exp.constants = {"n_epochs": 2, "show_progress": False, "seed": 3, **constants}
    return exp


def runs() -> list[str]:
    return sorted(str(path) for path in Path("Runs").glob("*/*/*"))


def digest(path: Path) -> str:
    hashed = hashlib.sha256()
    for value in load_state(path / "last.pth")["model"].values():
        hashed.update(value.numpy().tobytes())
    return hashed.hexdigest()


# Directories


def test_a_run_has_a_directory_of_class_names_with_all_files() -> None:
    trainer = experiment(dir_name="first").start()
    assert trainer.save_dir == trainer.log_dir == Path("Runs/Points/Net/first")
    files = {path.name for path in trainer.save_dir.iterdir()}
    named = {".lock", "best.pth", "last.pth", "comments.txt", "model_arch.txt", "runtime_param_buffer.yaml"}
    assert named < files
    assert [name.startswith("events.out.tfevents") for name in files - named] == [True]


def test_the_comments_are_the_comment_and_the_configuration() -> None:
    exp = experiment("wide, with a plateau", "first", on_nan="skip")
    exp.model_cfg.width = 5
    directory = exp.start().save_dir
    text = (directory / "comments.txt").read_text()
    assert text.startswith("wide, with a plateau\n")
    assert "dataset_cfg = DynamicConfig(" in text
    assert "width=5" in text
    assert "    'on_nan': 'skip',\n" in text
    assert "    'moving_avg': 100,\n" in text, "also what was left to its default"
    assert "    'seed': 3,\n" in text
    assert "out_features=5" in (directory / "model_arch.txt").read_text()


def test_starts_in_one_second_get_directories_of_their_own_and_none_is_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "240131_235959")
    exp = experiment(n_epochs=1)
    places = [exp.start().save_dir, exp.start().save_dir, experiment(n_epochs=1).start().save_dir]
    assert [place.name for place in places] == ["240131_235959", "240131_235959_2", "240131_235959_3"]
    assert runs() == [f"Runs/Points/Net/{place.name}" for place in places]


def test_by_default_a_directory_is_named_after_the_time() -> None:
    name = experiment(n_epochs=1).start().save_dir.name
    assert abs(time.mktime(time.strptime(name, "%y%m%d_%H%M%S")) - time.time()) < 60


def test_a_directory_that_holds_a_run_is_refused_and_left_alone() -> None:
    exp = experiment(dir_name="first")
    directory = exp.start().save_dir
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    for again in (exp, experiment("another", "first")):
        with pytest.raises(ConfigError, match=r"holds a run; .*start\(checkpoint='Runs/Points/Net/first/last.pth'\)"):
            again.start()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    (directory / "last.pth").unlink()
    with pytest.raises(ConfigError, match=r"holds the best.pth of a run"):
        exp.start()


def test_a_directory_whose_run_never_saved_anything_can_be_taken_again() -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not yet")

    exp = experiment(dir_name="first")
    exp.model_cfg.cls = Broken
    with pytest.raises(RuntimeError, match="not yet"):
        exp.start()
    Broken.forward = Net.forward
    assert (exp.start().save_dir / "last.pth").exists()
    assert runs() == ["Runs/Points/Broken/first"]


@pytest.mark.parametrize("dir_name", [None, "first"])
def test_what_fails_before_training_leaves_no_directory(dir_name: str | None) -> None:
    with pytest.raises(ConfigError, match="eval_interval is -1"):
        experiment(dir_name=dir_name, eval_interval=-1).start()
    assert not Path("Runs").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", ".hidden"])
def test_a_dir_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="save_dir"):
        experiment(dir_name=name).start()
    assert not Path("Runs").exists()


def test_a_save_dir_and_a_log_dir_replace_the_directory() -> None:
    trainer = experiment(save_dir="mine", log_dir="logs/1").start()
    assert (trainer.save_dir, trainer.log_dir) == (Path("mine"), Path("logs/1"))
    files = {path.name for path in Path("mine").iterdir()}
    assert files == {".lock", "best.pth", "last.pth", "comments.txt", "model_arch.txt"}
    assert Path("logs/1/runtime_param_buffer.yaml").exists()
    assert not Path("Runs").exists()
    with pytest.raises(ConfigError, match="mine holds a run"):
        experiment(save_dir="mine").start()


class Group:
    """One process of several, of which the first has told ``told``."""

    def __init__(self, rank: int, told: object = None):
        self.is_first, self.told = rank == 0, told

    def first_of(self, value: object) -> object:
        self.told = value if self.is_first else self.told
        return self.told


def test_of_several_processes_the_first_makes_the_directory_and_all_hear_of_it_or_of_its_error() -> None:
    first = Group(0)
    assert agreed(first, lambda: Path("made")) == Path("made")
    assert agreed(Group(1, first.told), lambda: pytest.fail("made twice")) == Path("made")

    def fail() -> Path:
        raise ConfigError("it holds a run")

    with pytest.raises(ConfigError, match="it holds a run"):
        agreed(first, fail)
    with pytest.raises(ConfigError, match="it holds a run"):
        agreed(Group(1, first.told), lambda: pytest.fail("made"))


# Constants


def test_nothing_that_was_set_is_changed() -> None:
    exp = experiment(save_dir=None, log_dir=None)
    exp.lr_scheduler_cfg = DynamicConfig(torch.optim.lr_scheduler.StepLR, step_size=1)
    constants = dict(exp.constants)
    configs = {name: getattr(exp, name).clone() for name in ("dataset_cfg", "model_cfg", "lr_scheduler_cfg")}
    exp.start()
    assert exp.constants == constants
    assert {name: getattr(exp, name) for name in configs} == configs


def test_constants_have_defaults_and_reach_the_trainer() -> None:
    exp = JimmyExperiment()
    exp.dataset_cfg, exp.model_cfg = DynamicConfig(Points, batch_size=8), DynamicConfig(Net)
    exp.constants["n_epochs"] = 1
    exp.constants["show_progress"] = False
    trainer = exp.start()
    assert (trainer.n_epochs, trainer.eval_interval, trainer.on_nan, trainer.early_stop_lr) == (1, 1, "stop", 0.0)
    options = {"on_nan": "warn", "save_steps": 2, "save_interval": 3, "early_stop_lr": 1e-9, "eval_interval": 2}
    trainer = experiment(**options).start()
    assert {name: getattr(trainer, name) for name in options} == options
    assert JimmyExperiment().constants == {}, "each experiment has constants of its own"


def test_an_unknown_constant_is_refused_before_anything_is_built() -> None:
    exp = experiment(n_epoch=3)
    exp.dataset_cfg.cls = lambda **_: pytest.fail("built")
    with pytest.raises(UnknownField, match="'n_epoch', which JimmyTrainer does not take; did you mean 'n_epochs'"):
        exp.start()
    exp.constants = {"gan": 1}
    with pytest.raises(UnknownField, match=r"there are: .*n_epochs.*seed"):
        exp.start()
    exp.constants = None
    with pytest.raises(ConfigError, match="constants is None; it must be a dict"):
        exp.start()
    exp.constants = {"seed": "one"}
    with pytest.raises(ConfigError, match=r"constants\['seed'\] is 'one'"):
        exp.start()


def test_a_seed_makes_a_whole_experiment_reproducible() -> None:
    class Drawn(OlderPoints):
        """Draws its data anew for each object."""

    ends = []
    for seed in (1, 1, 2):
        exp = experiment(seed=seed)
        exp.dataset_cfg = DynamicConfig(Drawn, batch_size=8, shuffle=True)
        ends.append(digest(exp.start().save_dir))
    assert ends[0] == ends[1] != ends[2]


def test_another_trainer_is_given_its_own_options() -> None:
    class Twice(JimmyTrainer):
        def __init__(self, *args, ratio: float, **kwargs):
            super().__init__(*args, **kwargs)
            self.ratio = ratio

    exp = experiment(ratio=0.5, on_nan="warn")
    exp.trainer_type = Twice
    trainer = exp.start()
    assert (type(trainer), trainer.ratio, trainer.on_nan) == (Twice, 0.5, "warn")
    del exp.constants["ratio"]
    with pytest.raises(ConfigError, match=r"Twice needs 'ratio'; set constants\['ratio'\]"):
        exp.start()


def test_a_trainer_with_the_ten_arguments_of_old_gets_them_all() -> None:
    class Old:
        def __init__(
            self, train_set, eval_set, model, lr_scheduler, log_dir, save_dir, n_epochs, moving_avg, eval_interval,
            early_stop_lr,
        ):  # fmt: skip
            self.seen = (save_dir.name, n_epochs, moving_avg, eval_interval, early_stop_lr)

        def start(self):
            self.has_started = True

    exp = experiment(dir_name="old")
    exp.trainer_type, exp.constants = Old, {"n_epochs": 7}
    trainer = exp.start()
    assert trainer.has_started
    assert trainer.seen == ("old", 7, 100, 1, 0.0)


# Datasets


def test_evaluation_inherits_neither_shuffle_nor_drop_last() -> None:
    trainer = experiment().start()
    train, judged = trainer.train_set, trainer.eval_set
    assert (train.set_name, train.shuffle, train.drop_last, train.n_batches) == ("train", True, True, 4)
    assert (judged.set_name, judged.shuffle, judged.drop_last, judged.n_batches) == ("eval", False, False, 2)


def test_the_older_form_trains_and_evaluates_on_the_same_data(caplog: pytest.LogCaptureFixture) -> None:
    exp = experiment()
    exp.start()
    assert not caplog.messages
    exp.dataset_cfg.cls = OlderPoints
    trainer = exp.start()
    told = "OlderPoints takes no 'set_name': evaluation uses the training data; for others set eval_set_cfg"
    assert caplog.messages == [told]
    train, judged = trainer.train_set, trainer.eval_set
    assert train.x.data_ptr() == judged.x.data_ptr()
    assert (train.shuffle, train.drop_last, judged.shuffle, judged.drop_last) == (True, True, False, False)
    assert torch.equal(torch.cat([batch["data"] for batch in judged]), train.x)


def test_a_loader_around_a_dataset_is_switched_inside() -> None:
    exp = experiment(dir_name="loaded")
    exp.dataset_cfg = DynamicConfig(MultiThreadLoader, dataset=exp.dataset_cfg, num_workers=2)
    trainer = exp.start()
    train, judged = trainer.train_set, trainer.eval_set
    assert (type(train), train.dataset.set_name, train.dataset.shuffle) == (MultiThreadLoader, "train", True)
    assert (type(judged), judged.dataset.set_name, judged.dataset.shuffle) == (MultiThreadLoader, "eval", False)
    exp.dataset_cfg.dataset.cls = OlderPoints
    trainer = exp.start()
    assert trainer.save_dir == Path("Runs/OlderPoints/Net/loaded")
    assert trainer.eval_set.num_workers == 2
    assert trainer.train_set.dataset.x.data_ptr() == trainer.eval_set.dataset.x.data_ptr()
    assert len(exp.test(trainer.model, trainer.train_set)) == 37


def test_a_set_with_a_configuration_of_its_own_is_built_as_it_is() -> None:
    exp = experiment()
    exp.eval_set_cfg = DynamicConfig(Points, set_name="test", batch_size=5, drop_last=True)
    trainer = exp.start()
    assert (trainer.train_set.set_name, trainer.train_set.batch_size) == ("train", 8)
    assert (trainer.eval_set.set_name, trainer.eval_set.batch_size, trainer.eval_set.drop_last) == ("test", 5, True)


def test_a_dataset_that_knows_no_sets_is_no_source_of_several() -> None:
    exp = experiment()
    exp.dataset_cfg = DynamicConfig(DictDataset, tensors={"data": torch.ones(4, 2)}, batch_size=2)
    with pytest.raises(ConfigError, match="holds the same data whatever its set_name; give train_set_cfg"):
        exp.start()


def test_sets_may_be_given_one_by_one_and_evaluation_left_out() -> None:
    exp = experiment()
    exp.train_set_cfg, exp.dataset_cfg = exp.dataset_cfg, None
    trainer = exp.start()
    assert trainer.train_set.set_name == "train", "is added where the class takes it"
    assert trainer.eval_set is None
    with pytest.raises(ConfigError, match="no test_set_cfg and no dataset_cfg; set test_set_cfg = DynamicConfig"):
        exp.test(trainer.model)
    exp.test_set_cfg = DynamicConfig(Points, batch_size=4)
    assert len(exp.test(trainer.model)) == SIZES["test"]


def test_a_function_may_make_the_datasets_and_the_schedulers() -> None:
    def load(batch_size: int, set_name: str) -> TorchDataset:
        x = torch.randn(20, 4)
        return TorchDataset(DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size))

    def schedule(optimizer, factor):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: factor**epoch)

    exp = experiment()
    exp.dataset_cfg = DynamicConfig(load, batch_size=5)
    exp.lr_scheduler_cfg = DynamicConfig(schedule, factor=0.5)
    trainer = exp.start()
    assert trainer.model.lr == pytest.approx(1e-3 * 0.25)


@pytest.mark.parametrize(
    ("config", "rate"),
    [
        (DynamicConfig(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1), 1e-5),
        (DynamicConfig(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=5), 1e-3),
        (DynamicConfig(JimmyLRScheduler, peak_lr=0.2, min_lr=1e-7, warmup_count=2), 0.2),
    ],
    ids=["StepLR", "ReduceLROnPlateau", "JimmyLRScheduler"],
)
def test_any_scheduler_is_given_the_optimizer(config: DynamicConfig, rate: float) -> None:
    exp = experiment()
    exp.lr_scheduler_cfg = config
    assert exp.start().model.lr == pytest.approx(rate)


def test_an_argument_that_a_scheduler_does_not_take_is_told_of_by_its_class_alone() -> None:
    exp = experiment()
    exp.lr_scheduler_cfg = DynamicConfig(torch.optim.lr_scheduler.StepLR, step=3)
    with pytest.raises(UnknownField, match=r"^StepLR takes no argument 'step' \(.*\); did you mean 'step_size'\?$"):
        exp.start()


def test_an_argument_of_the_base_that_a_model_does_not_hand_on_says_how_to() -> None:
    class Closed(Net):
        def __init__(self, width: int = 3):
            super().__init__(width)

    exp = experiment()
    exp.model_cfg = DynamicConfig(Closed, optimizer_args={"lr": 1e-3})
    remedy = r"takes no argument 'optimizer_args' .*; add \*\*kwargs to its __init__ and hand it to super\(\).__init__$"
    with pytest.raises(UnknownField, match=remedy):
        exp.start()


# Checkpoints


def test_a_script_that_is_started_again_goes_on_from_its_own_directory() -> None:
    whole = experiment(dir_name="whole", n_epochs=4).start().save_dir
    parts = [experiment(dir_name="parts", n_epochs=count).start("auto") for count in (2, 4)]
    assert [part.loop.epoch for part in parts] == [2, 4]
    assert parts[1].save_dir == parts[0].save_dir == Path("Runs/Points/Net/parts")
    assert digest(parts[1].save_dir) == digest(whole)
    own = [experiment(n_epochs=count, save_dir="own").start("auto") for count in (1, 2)]
    assert [(each.loop.epoch, each.save_dir) for each in own] == [(1, Path("own")), (2, Path("own"))]
    assert runs() == ["Runs/Points/Net/parts", "Runs/Points/Net/whole"]


def test_a_start_that_goes_on_by_itself_finds_the_directory_of_a_loader() -> None:
    for count in (1, 2):
        exp = experiment(dir_name="loaded", n_epochs=count)
        exp.dataset_cfg = DynamicConfig(MultiThreadLoader, dataset=exp.dataset_cfg)
        trainer = exp.start("auto")
    assert (trainer.loop.epoch, trainer.save_dir) == (2, Path("Runs/Points/Net/loaded"))


def test_a_start_that_goes_on_by_itself_needs_a_directory_that_it_can_tell() -> None:
    with pytest.raises(ConfigError, match="same name at each start; give dir_name"):
        experiment().start("auto")
    with pytest.raises(ConfigError, match="no name of a directory"):
        experiment(dir_name="../first").start("auto")

    def make() -> Net:
        return Net()

    exp = experiment(dir_name="first")
    exp.model_cfg.cls = make
    with pytest.raises(ConfigError, match=r"where a function makes .*; give constants\['save_dir'\]"):
        exp.start("auto")
    exp.constants["save_dir"] = "own"
    assert exp.start("auto").save_dir == Path("own")


def test_a_checkpoint_may_be_the_directory_of_a_run() -> None:
    first = experiment(dir_name="first").start().save_dir
    trainer = experiment(n_epochs=3).start(first)
    assert (trainer.loop.epoch, trainer.save_dir) == (3, first)
    (first / "last.pth").unlink()
    with pytest.raises(CheckpointError, match=r"'Runs/Points/Net/first' holds no last.pth; there is a best.pth"):
        experiment().start(str(first))
    with pytest.raises(CheckpointError, match=r"the directory 'Runs' holds no last.pth$"):
        experiment().start("Runs")


def test_a_checkpoint_goes_on_exactly_and_in_its_own_directory() -> None:
    whole = experiment("whole", "whole", n_epochs=4).start().save_dir
    part = experiment("part", "part", n_epochs=2).start().save_dir
    exp = experiment("the rest", n_epochs=4)
    trainer = exp.start(part / "last.pth")
    assert trainer.save_dir == trainer.log_dir == part
    assert digest(part) == digest(whole)
    assert runs() == ["Runs/Points/Net/part", "Runs/Points/Net/whole"]
    text = (part / "comments.txt").read_text()
    assert text.index("part\n") < text.index("the rest\n") < text.index("from Runs/Points/Net/part/last.pth\n")
    assert len(list(part.glob("events.*"))) == 2


def test_a_run_may_go_on_elsewhere_but_not_over_another_one() -> None:
    first = experiment(dir_name="first").start().save_dir
    before = (first / "last.pth").read_bytes()
    trainer = experiment(n_epochs=3, save_dir="branch").start(first / "last.pth")
    assert (trainer.loop.epoch, trainer.save_dir) == (3, Path("branch"))
    assert (first / "last.pth").read_bytes() == before
    with pytest.raises(ConfigError, match="branch holds a run"):
        experiment(n_epochs=3, save_dir="branch").start(first / "last.pth")
    assert experiment(n_epochs=4, save_dir="branch").start("branch/last.pth").loop.epoch == 4


def test_a_checkpoint_of_a_run_that_has_ended_is_said_to_have_ended(caplog: pytest.LogCaptureFixture) -> None:
    first = experiment(dir_name="first").start().save_dir
    assert not caplog.records
    experiment(dir_name="first").start(first / "last.pth")
    assert "last.pth has ended after 2 epochs; for more, raise n_epochs" in caplog.text
    early = experiment(dir_name="early", early_stop_lr=1.0)
    early.lr_scheduler_cfg = DynamicConfig(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    early.model_cfg.optimizer_args = {"lr": 1.5}
    early.start(early.start().save_dir / "last.pth")
    assert "last.pth has ended after 1 epochs; early_stop_lr was reached" in caplog.text


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_weights_begin_a_new_run(ema_decay: float) -> None:
    first = experiment(dir_name="first").start()
    exp = experiment(dir_name="second", n_epochs=0)
    exp.model_cfg.ema_decay = ema_decay
    trainer = exp.start(first.save_dir / "best.pth")
    assert trainer.save_dir.name == "second"
    assert trainer.loop.epoch == 0
    assert exp.load_report.is_complete
    assert "4 loaded, 0 skipped, 0 missing" in (trainer.save_dir / "comments.txt").read_text()
    best = load_state(first.save_dir / "best.pth")["model"]
    state = trainer.model.state_dict()
    assert all(torch.equal(state[name], best[name]) for name in best)
    if trainer.model.ema is not None:
        average = trainer.model.ema.state_dict()
        assert all(torch.equal(average[name], best[name]) for name in average)


def test_weights_that_do_not_fit_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    model = Net(width=6)
    model.saveTo("wide.pth")
    exp = experiment()
    exp.start("wide.pth")
    assert "1 loaded, 3 skipped, 3 missing" in caplog.text
    assert set(exp.load_report.skipped) == {"net.0.weight", "net.0.bias", "net.2.weight"}


def test_a_checkpoint_that_is_not_there_or_does_not_fit_is_refused_without_a_trace() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint 'none.pth'"):
        experiment().start("none.pth")
    Path("bad.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"cannot load 'bad.pth': it is damaged"):
        experiment().start("bad.pth")
    assert not Path("Runs").exists()
    first = experiment(dir_name="first").start().save_dir
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    exp = experiment(dir_name="first")
    exp.model_cfg.width = 9
    with pytest.raises(CheckpointError, match=r"the model of the checkpoint does not fit: .*size mismatch"):
        exp.start(first / "last.pth")
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before


# Testing


def test_a_report_has_a_row_for_each_sample_in_the_order_of_the_data() -> None:
    exp = experiment()
    model = exp.start().model
    test_set = Points("test", 4, drop_last=True, shuffle=True)
    report = exp.test(model, test_set)
    x = test_set.x.double()
    logits = model.double().eval()(x)
    expected = logits.logsumexp(1) - logits.gather(1, (x[:, :1] > 0).long())[:, 0]
    assert list(report.columns) == ["Eval/Main"]
    assert list(report.index) == list(range(SIZES["test"]))
    assert torch.allclose(torch.tensor(report["Eval/Main"].to_numpy()), expected.detach(), atol=1e-6)
    assert (test_set.shuffle, test_set.drop_last) == (True, True)


def test_a_set_that_is_set_to_test_and_built_by_hand_is_judged_whole() -> None:
    exp = experiment()
    model = exp.start().model
    exp.dataset_cfg.set_name = "test"
    report = exp.test(model, exp.dataset_cfg.build())
    assert report.equals(exp.test(model))
    report.to_csv("report.csv")
    lines = Path("report.csv").read_text().splitlines()
    assert (lines[0], len(lines)) == ("sample,Eval/Main", 1 + SIZES["test"])


def test_a_test_leaves_the_mode_of_the_model_and_an_order_behind_as_they_were() -> None:
    exp = experiment()
    model, test_set = Net(), Points("test", 4, shuffle=True)
    state = test_set.state_dict()["generator"].clone()
    with pytest.raises(RuntimeError, match="stop"):
        exp.test(Stops(), test_set)
    exp.test(model, test_set)
    assert model.training
    assert test_set.shuffle
    assert torch.equal(test_set.state_dict()["generator"], state)


class Stops(Net):
    def testStep(self, data_dict: dict) -> tuple:
        raise RuntimeError("stop")


def test_what_cannot_be_tested_is_refused() -> None:
    exp = experiment()
    with pytest.raises(HookError, match="model is of type Linear; it must be a JimmyModel"):
        exp.test(nn.Linear(2, 2))
    with pytest.raises(DatasetError, match="test_set is of type list"):
        exp.test(Net(), [1, 2])


# Bad input


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model_cfg", None, "the experiment has no model_cfg; set model_cfg = DynamicConfig(MyClass, ...)"),
        ("model_cfg", Net, "model_cfg is the class Net; write DynamicConfig(Net, ...)"),
        ("model_cfg", DynamicConfig(nn.ReLU), "model_cfg builds an object of type ReLU; it must be a JimmyModel"),
        ("dataset_cfg", None, "the experiment has no dataset_cfg"),
        ("dataset_cfg", DictDataset({"data": torch.ones(2, 4)}, 1), "give the class and its arguments"),
        ("lr_scheduler_cfg", JimmyLRScheduler, "lr_scheduler_cfg is the class JimmyLRScheduler"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused(name: str, value: object, message: str) -> None:
    exp = experiment()
    setattr(exp, name, value)
    with pytest.raises((ConfigError, HookError), match=re.escape(message)):
        exp.start()
    assert not Path("Runs").exists()


def test_a_dataset_that_cannot_be_built_says_for_which_set() -> None:
    def load(set_name: str) -> JimmyDataset:
        return {"train": Points("train", 4)}[set_name]

    exp = experiment()
    exp.dataset_cfg = DynamicConfig(load)
    with pytest.raises(KeyError, match="eval") as caught:
        exp.start()
    assert any("this is the eval set" in note for note in caught.value.__notes__)


def test_an_attribute_that_nobody_reads_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    exp = experiment()
    exp.lr_schedular_cfg = DynamicConfig(JimmyLRScheduler)
    exp.optimizer_args, exp.n_epochs, exp.seed, exp._note = {}, 9, 4, "mine"
    assert exp.start().loop.epoch == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert caplog.messages == [
        "nobody reads the attribute 'lr_schedular_cfg' of the experiment; is 'lr_scheduler_cfg' meant?",
        "nobody reads the attribute 'optimizer_args' of the experiment",
        "nobody reads the attribute 'n_epochs' of the experiment; 'n_epochs' is a constant: exp.constants['n_epochs']",
        "nobody reads the attribute 'seed' of the experiment; 'seed' is a constant: exp.constants['seed']",
    ]


def test_a_subclass_may_have_attributes_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    class Folds(JimmyExperiment):
        rounds = 1

    exp, own = experiment(), Folds()
    vars(own).update(vars(exp))
    own.rounds, own.fold, own.model_cgf = 2, 3, None
    own.start()
    assert caplog.messages == ["nobody reads the attribute 'model_cgf' of the experiment; is 'model_cfg' meant?"]
