"""The main job: an MLP and a small CNN on 1 797 handwritten digits of 8x8 pixels.

python jobs/digits.py sweep --workers 3        or        jimmy sweep jobs/digits.py --workers 3
"""

import torch
from torch import Tensor, nn

from jimmy_manager import TrainedManager
from jimmy_manager.datasets.digits_dataset import read_digits, split_rows


class DigitsManager(TrainedManager):
    """Train the configurations of ``digits.yaml``; ``acc_valid`` chooses among them, ``acc_test`` only reports."""

    num_epochs = 30
    default_config = "../defaults.yaml"
    choices = "digits.yaml"


def load_splits() -> dict[str, tuple[Tensor, Tensor]]:
    """Return images (N, 1, 8, 8) of values 0..1 and digits (N,) by split."""
    images, digits = read_digits()
    inputs = torch.from_numpy(images).float().unsqueeze(1) / 16
    targets = torch.from_numpy(digits).long()
    return {name: (inputs[rows], targets[rows]) for name, rows in split_rows(digits).items()}


def build_network(arch: str, width: int) -> nn.Module:
    """Return an ``mlp`` with two hidden layers of ``width``, or a ``cnn`` with ``width`` and twice as many channels."""
    if arch == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 10),
        )
    if arch == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, width, 3),  # (B, width, 6, 6)
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3),  # (B, 2 width, 4, 4)
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 16, 10),
        )
    raise ValueError(f"unknown arch {arch!r}; there are 'mlp' and 'cnn'")


if __name__ == "__main__":
    DigitsManager.main()
