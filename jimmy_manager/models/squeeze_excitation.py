"""Channel attention: squeeze and excitation (Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3)."""

from __future__ import annotations

from torch import Tensor, nn

from jimmy_manager.errors import ConfigError


class _SELayer(nn.Module):
    """What both have: the gate, made of the means and the convolutions of a number of dimensions."""

    def __init__(self, c_in: int, reduction: int, mean: type[nn.Module], conv: type[nn.Conv1d | nn.Conv2d]) -> None:
        super().__init__()
        if reduction < 1:
            raise ConfigError(
                f"reduction={reduction!r} must be at least 1: the gate has c_in // reduction channels inside"
            )
        hidden = max(1, c_in // reduction)
        self.gate = nn.Sequential(
            mean(1),
            conv(c_in, hidden, 1, bias=False),
            nn.LeakyReLU(),
            conv(hidden, c_in, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class SELayer1D(_SELayer):
    """Weight each channel by a number in (0, 1) computed from the means of all: (B, C, L) -> (B, C, L).

    Mean over L, two 1x1 convolutions without bias with a LeakyReLU between them, sigmoid. The layer between has
    ``c_in // reduction`` channels, at least one.
    """

    def __init__(self, c_in: int, reduction: int = 16) -> None:
        super().__init__(c_in, reduction, nn.AdaptiveAvgPool1d, nn.Conv1d)


class SELayer2D(_SELayer):
    """Weight each channel by a number in (0, 1) computed from the means of all: (B, C, H, W) -> (B, C, H, W).

    As `SELayer1D`, with the mean over H and W.
    """

    def __init__(self, c_in: int, reduction: int = 16) -> None:
        super().__init__(c_in, reduction, nn.AdaptiveAvgPool2d, nn.Conv2d)
