"""Small CNNs on Fashion-MNIST: photographs of clothes, 28x28 pixels, ten kinds; 60 000 to learn from, 10 000 to test.

python jobs/fashion.py [--root DIR] sweep --workers 2 --store store/fashion
python jobs/fashion_report.py store/fashion PICTURE.png

The images come from the Debian package dataset-fashion-mnist, else from --root or $FASHION_MNIST, the folder of the
four IDX files. Where they lie is no hyper-parameter, so it is no part of a configuration and of its key.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from jimmy_manager import TrainedManager
from jimmy_manager.datasets import MNISTDataset
from jimmy_manager.models import Conv2DBnReLU, ResWrapper, SELayer2D, Tensor, nn, torch

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
ROOT = "FASHION_MNIST"


class FashionManager(TrainedManager):
    """Train the configurations of ``fashion.yaml``; ``acc_eval`` chooses among them, ``acc_test`` only reports.

    The network is a plain module, so the loss and the accuracy are those that `TrainedManager` has for classification.
    """

    num_epochs = 6
    splits = ("train", "eval", "test")
    default_config = "fashion_defaults.yaml"
    choices = "fashion.yaml"
    main_metric = "acc_eval"


class Fashion(MNISTDataset):
    """Batches of ``data`` (B, 1, 28, 28) and ``target`` (B,), an index of `CLASSES`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, root=os.environ.get(ROOT), **kwargs)


class FashionCNN(nn.Sequential):
    """Two strided convolutions, residual blocks with squeeze and excitation, a mean over the image, logits (B, 10)."""

    def __init__(self, width: int = 32, blocks: int = 2, dropout: float = 0.1) -> None:
        super().__init__(
            Conv2DBnReLU(1, width, 5, s=2, p=2),  # (B, width, 14, 14)
            Conv2DBnReLU(width, 2 * width, 3, s=2, p=1),  # (B, 2 width, 7, 7)
            *(ResWrapper(self.block(2 * width)) for _ in range(blocks)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, len(CLASSES)),
        )
        self.to(memory_format=torch.channels_last)  # half as much time on a CPU

    @staticmethod
    def block(channels: int) -> nn.Module:
        return nn.Sequential(Conv2DBnReLU(channels, channels, 3, p=1), SELayer2D(channels, reduction=4))


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Return the probability of each class (N, 10) for images (N, 1, 28, 28)."""
    return torch.cat([network(part).softmax(-1) for part in images.split(1000)])


def main() -> None:
    """Take --root out of the command line, and leave the rest to the Manager."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--root")
    options, rest = parser.parse_known_args()
    if options.root is not None:
        os.environ[ROOT] = options.root  # which workers inherit
    FashionManager.main(rest)


if __name__ == "__main__":
    main()
