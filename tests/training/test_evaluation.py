"""Means over a dataset; the losses of each sample are tested in ``test_jimmy_trainer.py``."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from jimmy_manager.datasets import DictDataset, TorchLoader
from jimmy_manager.errors import HookError
from jimmy_manager.models import JimmyModel
from jimmy_manager.training.evaluation import mean_losses


class Sized(JimmyModel):
    """Loses as many values as the batch has samples, or always ``size``."""

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.net = nn.Linear(1, 1)

    def evalStep(self, data_dict):
        losses = data_dict["data"] * 2
        return {"Eval/Main": losses if self.size is None else losses.new_ones(self.size)}, {}


def data() -> DictDataset:
    return DictDataset({"data": torch.arange(7.0)}, batch_size=4)


def test_a_mean_counts_each_sample_once_also_where_the_last_batch_is_smaller():
    assert mean_losses(Sized(), data()) == {"Eval/Main": 6.0}
    assert mean_losses(Sized(1), data()) == {"Eval/Main": 1.0}


@pytest.mark.parametrize("size", [3, 5])
def test_a_vector_of_losses_that_are_not_those_of_the_samples_is_refused_with_both_lengths(size):
    says = rf"^Sized\.evalStep returned 'Eval/Main' with {size} values for a batch of 4 samples; return one a sample"
    with pytest.raises(HookError, match=says):
        mean_losses(Sized(size), data())


def test_batches_of_other_sizes_than_were_counted_on_are_not_blamed_on_the_losses():
    loader = DataLoader(torch.arange(7.0), batch_sampler=Uneven())
    assert mean_losses(Sized(), TorchLoader(loader)).keys() == {"Eval/Main"}


class Uneven:
    batch_size = 4
    sampler = range(7)

    def __iter__(self):
        return iter([[0, 1], [2, 3, 4, 5, 6]])

    def __len__(self):
        return 2
