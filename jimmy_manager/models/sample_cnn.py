"""``SampleCNN``: a small classifier of images, and an example of a ``JimmyModel`` with steps of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jimmy_manager.devices import getAutoCast
from jimmy_manager.errors import ConfigError
from jimmy_manager.models.conv_blocks import Conv2DBnReLU
from jimmy_manager.models.jimmy_model import JimmyModel, Step


class SampleCNN(JimmyModel):
    """Classify images (B, c_in, H, W) of any size: convolutions that halve them, the means over four quarters, logits.

    Each of ``channels`` is a 3x3 convolution with normalisation, then a pooling by 2. The steps take a batch of
    ``data`` (B, c_in, H, W) and ``target`` (B,), classes, and return cross-entropy and accuracy as 0-d tensors, and
    the logits as ``output`` (B, n_classes). The other arguments are those of `JimmyModel`.
    """

    def __init__(
        self, c_in: int = 1, n_classes: int = 10, channels: Sequence[int] = (16, 32, 64), **jimmy_model_kwargs: Any
    ) -> None:
        super().__init__(**jimmy_model_kwargs)
        if not channels:
            raise ConfigError(f"channels={channels!r} are no layers; give at least one number of channels")
        self.train_loss_names = ["Train/Main", "Train/Acc"]
        self.eval_loss_names = ["Eval/Main", "Eval/Acc"]
        layers: list[nn.Module] = []
        for before, after in zip((c_in, *channels), channels, strict=False):
            # In ceil mode a pixel that has no neighbour left is kept, so that no image is too small.
            layers += [Conv2DBnReLU(before, after, 3, p=1), nn.MaxPool2d(2, ceil_mode=True)]
        # Not the mean over the whole image, which would lose where a feature was.
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Linear(4 * channels[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of images (B, c_in, H, W)."""
        return self.classifier(self.features(x))

    def trainStep(self, data_dict: Mapping[str, Any]) -> Step:
        loss, accuracy, logits = self._judge_images(data_dict)
        self.backwardOptimize(loss)
        return {"Train/Main": loss.detach(), "Train/Acc": accuracy}, {"output": logits.detach()}

    @torch.no_grad()
    def evalStep(self, data_dict: Mapping[str, Any]) -> Step:
        loss, accuracy, logits = self._judge_images(data_dict)
        return {"Eval/Main": loss, "Eval/Acc": accuracy}, {"output": logits}

    def _judge_images(self, data_dict: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        images, classes = data_dict["data"], data_dict["target"]
        with getAutoCast(images, self.mixed_precision):
            logits = self(images)
            loss = self.criterion(logits, classes)
        return loss, (logits.argmax(dim=-1) == classes).float().mean(), logits
