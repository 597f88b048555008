"""Training that was stopped goes on bit by bit, from every epoch and from any step; or it refuses and says why."""

import copy
import hashlib
import random
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jimmy_manager import random_state
from jimmy_manager.datasets import JimmyDataset
from jimmy_manager.errors import CheckpointError, Stopped
from jimmy_manager.models import JimmyModel
from jimmy_manager.state_files import leaves, load_state, save_state
from jimmy_manager.training.jimmy_lr_scheduler import JimmyLRScheduler
from jimmy_manager.training.jimmy_trainer import JimmyTrainer
from tests.training.stop_at import StopAt

N_EPOCHS = 6
N_BATCHES = 7


class Noisy(JimmyDataset):
    """Augments from torch's, numpy's and Python's global generators, and ends in a smaller batch."""

    def __init__(self, set_name: str, shuffle: bool = False):
        super().__init__(set_name, 8, shuffle=shuffle)
        draw = torch.Generator().manual_seed(5)
        self.x = torch.randn(8 * N_BATCHES - 3, 6, generator=draw)
        self.n_samples = len(self.x)

    def __getitem__(self, idx: int) -> dict:
        x = self.x[self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]]
        noise = torch.randn_like(x) * (0.1 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return {"data": x + noise, "target": (x[:, 0] > 0).long()}


class Net(JimmyModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.train_loss_names = ["Train/Main", "Train/Acc"]
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def trainStep(self, data_dict: dict) -> tuple:
        losses, outputs = super().trainStep(data_dict)
        hits = outputs["output"].argmax(1) == data_dict["target"]
        return {**losses, "Train/Acc": hits.float().mean()}, outputs


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N_EPOCHS)


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=N_EPOCHS * N_BATCHES)


def jimmy(optimizer):
    return JimmyLRScheduler(optimizer, 0.05, 1e-4, 2, window_size=2, patience=1)


# What a training is made of: arguments of the model, the scheduler, arguments of the trainer.
KINDS = {
    "adam, ema, cosine": ({"ema_decay": 0.9, "clip_grad": 1.0}, cosine, {}),
    "sgd, plateau": (
        {"optimizer_cls": torch.optim.SGD, "optimizer_args": {"lr": 0.1, "momentum": 0.9}},
        plateau,
        {"eval_interval": 2},
    ),
    "accumulating": ({"accumulate": 3, "optimizer_args": {"lr": 0.01}}, jimmy, {}),
    "float16, every step": ({"mixed_precision": "fp16"}, one_cycle, {"scheduler_interval": "step"}),
}  # fmt: skip


def trainer_of(kind: str, save_dir, **options) -> JimmyTrainer:
    arguments, scheduler, more = KINDS[kind]
    random_state.seed(11)
    model = Net(**arguments)
    model.initialize()
    train_set = Noisy("train", shuffle=True)
    return JimmyTrainer(
        train_set, Noisy("eval"), model, scheduler(model.optimizer), save_dir=save_dir, n_epochs=N_EPOCHS, moving_avg=5,
        show_progress=False, **{"log_dir": None, **more, **options},
    )  # fmt: skip


def fingerprint(trainer: JimmyTrainer) -> str:
    """SHA-256 over every value that training holds, the random states too."""
    digest = hashlib.sha256()

    def take(value) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                digest.update(f"{name}:".encode())
                take(item)
        elif isinstance(value, list | tuple):
            for item in value:
                take(item)
        elif isinstance(value, Tensor | np.ndarray):
            digest.update(np.asarray(value).tobytes())
        else:
            digest.update(repr(value).encode())

    take(trainer.state_dict())
    return digest.hexdigest()


def stopped_at(step: int, kind: str, save_dir) -> JimmyTrainer:
    flag = StopAt(step)
    flag.trainer = trainer = trainer_of(kind, save_dir, stop=flag)
    with pytest.raises(Stopped, match="SIGTEST"):
        trainer.start()
    return trainer


def resumed(kind: str, save_dir) -> JimmyTrainer:
    trainer = trainer_of(kind, save_dir)
    random_state.seed(12345)  # whatever the new process has drawn
    trainer.resume()
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    """The fingerprints of trainings that nobody stopped."""
    found = {}
    for kind in KINDS:
        trainer = trainer_of(kind, tmp_path_factory.mktemp("whole"))
        trainer.start()
        found[kind] = fingerprint(trainer)
    return found


def test_the_fingerprint_sees_one_bit_in_every_part(tmp_path):
    trainer = trainer_of("adam, ema, cosine", tmp_path)
    trainer.start()
    first = fingerprint(trainer)
    assert fingerprint(trainer) == first
    with torch.no_grad():
        trainer.model.net[0].weight.view(torch.int32)[0, 0] ^= 1
    assert fingerprint(trainer) != first
    assert {"model", "optimizer", "ema", "scheduler", "averages", "loop", "random"} <= trainer.state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_training_resumed_at_every_epoch_ends_in_the_same_bytes(kind, whole, tmp_path):
    trainer = trainer_of(kind, tmp_path, save_interval=1)
    states = recorded(trainer)
    trainer.start()
    assert [state["loop"]["epoch"] for state in states] == list(range(1, N_EPOCHS + 1))
    for state in states:
        again = trainer_of(kind, None)
        random_state.seed(12345)  # whatever the new process has drawn
        again.load_state_dict(state)
        assert again.loop.batch == 0
        again.start()
        assert fingerprint(again) == whole[kind], state["loop"]["epoch"]


def recorded(trainer: JimmyTrainer) -> list[dict]:
    """The list to which every state will be added that ``trainer`` saves."""
    states: list[dict] = []
    save = trainer.save

    def record() -> None:
        states.append(copy.deepcopy(trainer.state_dict()))
        save()

    trainer.save = record
    return states


def test_training_resumed_at_fifty_random_steps_ends_in_the_same_bytes(whole, tmp_path):
    draw = random.Random(3)
    kinds = list(KINDS)
    middles = 0
    for place, step in enumerate(draw.choices(range(1, N_EPOCHS * N_BATCHES), k=50)):
        kind = kinds[place % len(kinds)]
        folder = tmp_path / str(place)
        stopped_at(step, kind, folder)
        again = resumed(kind, folder)
        middles += again.loop.batch > 0
        again.start()
        assert fingerprint(again) == whole[kind], (kind, step)
    assert middles >= 30


def test_training_stopped_again_and_again_ends_in_the_same_bytes(whole, tmp_path):
    kind = "adam, ema, cosine"
    stopped_at(3, kind, tmp_path)
    for step in (4, 9, 10, 17, 30, 31):
        flag = StopAt(step)
        flag.trainer = trainer = trainer_of(kind, tmp_path, stop=flag)
        trainer.resume()
        with pytest.raises(Stopped):
            trainer.start()
    again = resumed(kind, tmp_path)
    again.start()
    assert fingerprint(again) == whole[kind]


def test_saving_every_few_steps_changes_nothing_and_each_of_these_states_resumes(whole, tmp_path):
    kind = "accumulating"
    trainer = trainer_of(kind, tmp_path, save_steps=4)
    states = recorded(trainer)
    trainer.start()
    assert fingerprint(trainer) == whole[kind]
    assert len(states) > N_EPOCHS
    for state in states:
        again = trainer_of(kind, None)
        random_state.seed(1)
        again.load_state_dict(state)
        again.start()
        assert fingerprint(again) == whole[kind]


class Ignoring:
    """Stands for a part that is saved, but left as it is when it is loaded."""

    def __init__(self, part):
        self.state_dict = part.state_dict

    def load_state_dict(self, state):
        pass


def forget(part: str):
    """A trainer whose ``load_state_dict`` leaves one part as it is: what the tests above must notice."""

    class Forgetful(JimmyTrainer):
        @property
        def parts(self):
            return {name: Ignoring(each) if name == part else each for name, each in super().parts.items()}

    return Forgetful


@pytest.mark.parametrize("part", ["model", "optimizer", "ema", "scheduler", "averages", "order"])
def test_a_trainer_that_forgets_a_part_is_caught(part, whole, tmp_path):
    kind = "adam, ema, cosine"
    # So late that nothing is washed out before the end: neither the window of the averages nor the order of the pass.
    stopped_at(N_EPOCHS * N_BATCHES - 3, kind, tmp_path)
    again = trainer_of(kind, None)
    again.__class__ = forget(part)
    again.load_state_dict(load_state(tmp_path / "last.pth"))
    again.__class__ = JimmyTrainer
    if part == "order":
        again.loop.order = trainer_of(kind, None).train_set.state_dict()
    again.start()
    assert fingerprint(again) != whole[kind]


def without(state, path: str):
    """A copy of a state that lacks the entry at a dotted path."""
    state = copy.deepcopy(state)
    names = path.split(".")
    inner = state
    while names:
        # Names of weights have dots in them.
        length = next(n for n in range(1, len(names) + 1) if _has(inner, ".".join(names[:n])))
        name, names = ".".join(names[:length]), names[length:]
        key = name if not isinstance(inner, list | tuple) else int(name)
        key = int(name) if isinstance(inner, dict) and key not in inner else key
        if names:
            if isinstance(inner[key], tuple):
                inner[key] = list(inner[key])
            inner = inner[key]
        else:
            del inner[key]
    return state


def _has(state, name: str) -> bool:
    if isinstance(state, list | tuple):
        return name.isdecimal() and int(name) < len(state)
    return name in state or (name.isdecimal() and int(name) in state)


def test_a_state_that_lacks_any_of_its_parts_is_refused_by_name(tmp_path):
    kind = "adam, ema, cosine"
    state = stopped_at(10, kind, tmp_path).state_dict()
    for name in state:
        whole = {each: value for each, value in state.items() if each != name}
        with pytest.raises(CheckpointError, match=f"'{name}'"):
            trainer_of(kind, None).load_state_dict(whole)


def test_a_state_that_lacks_any_of_its_values_is_refused_by_name(tmp_path):
    kind = "adam, ema, cosine"
    state = stopped_at(10, kind, tmp_path).state_dict()
    trainer = trainer_of(kind, None)
    paths = leaves({name: state[name] for name in state if name not in ("format", "leaves")})
    assert len(paths) > 60
    for path in paths:
        damaged = without(state, path)
        # Of a list that lost an element the last place is empty, whichever it was.
        place = re.escape(re.sub(r"\.\d+$", "", path))
        with pytest.raises(CheckpointError, match=f"lost '{place}"):
            trainer.load_state_dict(damaged)


def test_a_state_of_another_model_optimizer_or_scheduler_is_refused_with_what_to_do(tmp_path):
    stopped_at(10, "sgd, plateau", tmp_path)
    with pytest.raises(CheckpointError, match=r"no 'ema'.*model\.loadFrom"):
        trainer_of("adam, ema, cosine", None).resume(tmp_path / "last.pth")
    wider = trainer_of("sgd, plateau", None)
    wider.model.net[0] = nn.Linear(6, 9)
    with pytest.raises(CheckpointError, match=r"the model of the checkpoint does not fit.*net\.0\.weight"):
        wider.resume(tmp_path / "last.pth")
    other = trainer_of("sgd, plateau", None)
    other.model.train_loss_names = ["Train/Main"]
    again = JimmyTrainer(other.train_set, None, other.model, plateau(other.model.optimizer), show_progress=False)
    with pytest.raises(CheckpointError, match=r"averages the losses \['Train/Main', 'Train/Acc'\]"):
        again.resume(tmp_path / "last.pth")


def test_weights_alone_are_no_state_to_resume_from(tmp_path):
    trainer = trainer_of("sgd, plateau", tmp_path)
    trainer.model.saveTo(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="no 'format'"):
        trainer.resume(tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match=r"last\.pth"):
        trainer.resume()


def test_a_state_of_a_later_format_is_refused(tmp_path):
    trainer = trainer_of("sgd, plateau", tmp_path)
    state = {**trainer.state_dict(), "format": 2}
    save_state(state, tmp_path / "later.pth")
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        trainer.resume(tmp_path / "later.pth")


def test_a_crash_while_saving_leaves_the_state_before(tmp_path, monkeypatch):
    trainer = trainer_of("sgd, plateau", tmp_path)
    trainer.save()
    before = (tmp_path / "last.pth").read_bytes()

    def cut(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(OSError, match="No space"):
        trainer.save()
    assert (tmp_path / "last.pth").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["last.pth"]


class TwoOptimizers(Net):
    """Trains its parts by an optimizer each, the second with a scheduler of its own."""

    def initialize(self) -> None:
        super().initialize()
        self.second = torch.optim.SGD(self.net[4].parameters(), lr=0.1, momentum=0.9)
        self.decay = torch.optim.lr_scheduler.StepLR(self.second, 3, 0.9)

    def trainStep(self, data_dict: dict) -> tuple:
        loss = self.criterion(self(data_dict["data"]), data_dict["target"])
        self.second.zero_grad()
        loss.backward(retain_graph=True)
        self.second.step()
        self.decay.step()
        return super().trainStep(data_dict)


def test_what_a_model_keeps_beside_its_optimizer_is_resumed_too(tmp_path):
    def made(stop=None) -> JimmyTrainer:
        random_state.seed(3)
        model = TwoOptimizers()
        model.initialize()
        trainer = JimmyTrainer(
            Noisy("train", shuffle=True), None, model, save_dir=tmp_path, n_epochs=3, show_progress=False,
            **({} if stop is None else {"stop": stop}),
        )  # fmt: skip
        if stop is not None:
            stop.trainer = trainer
        return trainer

    whole = made()
    whole.start()
    with pytest.raises(Stopped):
        made(StopAt(11)).start()
    again = made()
    again.resume()
    again.start()
    assert {"model.second", "model.decay"} <= again.parts.keys()
    assert fingerprint(again) == fingerprint(whole)


def test_a_state_from_the_middle_of_another_number_of_batches_is_refused(tmp_path):
    kind = "sgd, plateau"
    trainer = stopped_at(10, kind, tmp_path)
    again = trainer_of(kind, tmp_path)
    again.train_set.batch_size = 5
    again = JimmyTrainer(
        again.train_set, None, again.model, plateau(again.model.optimizer), moving_avg=5, show_progress=False
    )
    with pytest.raises(CheckpointError, match=r"after batch 3 of a pass of 7 batches, but a pass .* has 11; resume"):
        again.load_state_dict(trainer.state_dict())


def test_a_training_that_had_no_log_goes_on_with_one(tmp_path):
    kind = "sgd, plateau"
    stopped_at(10, kind, tmp_path)
    again = trainer_of(kind, tmp_path, log_dir=tmp_path / "log")
    again.resume()
    again.start()
    assert (tmp_path / "log" / "runtime_param_buffer.yaml").exists()
