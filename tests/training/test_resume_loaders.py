"""Exact resume in the middle of an epoch, whatever hands out the batches."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from jimmy_manager import random_state
from jimmy_manager.datasets import DictDataset, MultiThreadLoader, TorchDataset
from jimmy_manager.errors import Stopped
from jimmy_manager.models import JimmyModel
from jimmy_manager.training.jimmy_trainer import JimmyTrainer
from tests.training.stop_at import StopAt

X = torch.randn(45, 4, generator=torch.Generator().manual_seed(2))
Y = (X.sum(1) > 0).long()


class Dropping(JimmyModel):
    """Draws from the global generator, in training and in evaluation."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.Linear(8, 2))

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))


class Augmented(TensorDataset):
    def __getitem__(self, place):
        x, y = super().__getitem__(place)
        return x + 0.1 * torch.randn(4), y


def loader(**options):
    return TorchDataset(DataLoader(Augmented(X, Y), batch_size=8, shuffle=True, **options), device="cpu")


SETS = {
    "DictDataset": lambda: DictDataset({"data": X, "target": Y}, 8, shuffle=True),
    "MultiThreadLoader": lambda: MultiThreadLoader(SETS["DictDataset"](), 2, device="cpu"),
    "TorchDataset": lambda: TorchDataset(Augmented(X, Y), batch_size=8, shuffle=True, device="cpu"),
    "DataLoader": loader,
    "DataLoader with a generator": lambda: loader(generator=torch.Generator().manual_seed(3)),
    "DataLoader with processes": lambda: loader(num_workers=1),
}


def trainer_of(kind, folder, stop=None):
    random_state.seed(4)
    model = Dropping()
    model.initialize()
    trainer = JimmyTrainer(
        SETS[kind](), DictDataset({"data": X, "target": Y}, 8), model, None, save_dir=folder, n_epochs=3,
        eval_interval=2, show_progress=False, **({} if stop is None else {"stop": stop}),
    )  # fmt: skip
    if stop is not None:
        stop.trainer = trainer
    return trainer


@pytest.mark.parametrize("kind", SETS)
def test_training_resumed_in_the_middle_of_an_epoch_or_at_its_end_ends_in_the_same_bytes(kind, tmp_path):
    whole = trainer_of(kind, tmp_path / "whole")
    whole.start()
    for step in (6, 8, 11, 12) if kind != "DataLoader with processes" else (8,):
        with pytest.raises(Stopped):
            trainer_of(kind, tmp_path / str(step), StopAt(step)).start()
        again = trainer_of(kind, tmp_path / str(step))
        random_state.seed(99)
        again.resume()
        assert again.loop.step == step
        again.start()
        for name, value in whole.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[name], value), (step, name)
        assert again.averages.state_dict() == whole.averages.state_dict()
        assert torch.equal(torch.get_rng_state(), again.state_dict()["random"][0]["torch"])
