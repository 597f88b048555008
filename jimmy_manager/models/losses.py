"""Losses that torch does not have: ``RMSE`` and ``KLDLoss``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as func

from jimmy_manager.errors import ConfigError


class RMSE(nn.Module):
    """Root of the mean squared error over all elements, 0-d: ``sqrt(mean((pred - target) ** 2))``.

    Exact, with no epsilon under the root. Its gradient ``(pred - target) / (n * RMSE)`` has a norm of ``1 / sqrt(n)``
    wherever the error is not zero; at zero error, where there is none, it is taken to be 0. Raises ``ConfigError``
    where the shapes differ.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        if pred.shape != target.shape:
            raise ConfigError(f"RMSE of shapes {tuple(pred.shape)} and {tuple(target.shape)}; make them the same")
        mse = func.mse_loss(pred, target)
        is_zero = mse == 0
        # The root is taken of 1 there: what `where` leaves out still has a gradient, and 0 * inf would be NaN.
        return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, mse).sqrt())


class KLDLoss(nn.Module):
    """Divergence of diagonal Gaussians (mu, exp(logvar)) from the standard one, for variational autoencoders; 0-d.

    Called with ``(mu, logvar)``, both (..., D). An element costs ``0.5 * (mu ** 2 + exp(logvar) - logvar - 1)`` nats
    (Kingma and Welling 2014, appendix B), but at least ``free_bits``, below which no gradient pulls on it (after
    Kingma et al. 2016, appendix C.8, there for groups of elements, here for each one). The costs are summed over the
    last dimension and averaged over all others. As none is below 0, the default of ``free_bits`` changes nothing.
    Raises ``ConfigError`` where the shapes differ.
    """

    def __init__(self, free_bits: float = -6.0) -> None:
        super().__init__()
        self.free_bits = free_bits

    def forward(self, mu: Tensor, logvar: Tensor) -> Tensor:
        if mu.shape != logvar.shape:
            raise ConfigError(f"mu has shape {tuple(mu.shape)}, logvar {tuple(logvar.shape)}; make them the same")
        # expm1 keeps what exp(logvar) - 1 rounds away near a variance of 1.
        divergence = 0.5 * (mu.square() + torch.expm1(logvar) - logvar)
        return divergence.clamp(min=self.free_bits).sum(dim=-1).mean()

    def extra_repr(self) -> str:
        return f"free_bits={self.free_bits}"
