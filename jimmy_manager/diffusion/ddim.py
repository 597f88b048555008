"""Denoising diffusion implicit models: Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jimmy_manager.devices import DEVICE
from jimmy_manager.diffusion.betas import ScaleMode
from jimmy_manager.diffusion.diffusion_process import DiffusionProcess, gaussian, working_dtype
from jimmy_manager.diffusion.noise_schedule import TimeStep, positive_int
from jimmy_manager.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DDIM(DiffusionProcess):
    """The process whose steps back may skip ``skip_step`` at a time, and draw noise only where ``eta`` > 0.

    ``eta``, from 0 (deterministic) to 1 (as `DDPM`), scales that noise. The last step lands on the predicted data,
    whether ``skip_step`` divides ``T`` or not. Other arguments, and what their defaults are good for, as `DDPM`.

    >>> DDIM(max_diffusion_step=10, device='cpu', skip_step=4).steps()
    [(9, 5), (5, 1), (1, -1)]
    """

    def __init__(
        self,
        min_beta: float = 1e-4,
        max_beta: float = 0.002,
        max_diffusion_step: int = 100,
        device: torch.device | str = DEVICE,
        scale_mode: ScaleMode = "linear",
        skip_step: int = 1,
        eta: float = 0.0,
    ) -> None:
        super().__init__(min_beta, max_beta, max_diffusion_step, device, scale_mode)
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta={eta!r} must be between 0 (no noise) and 1 (as much as DDPM)")
        self.skip_step = positive_int(skip_step, "skip_step")
        self.eta = eta

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, skip_step={self.skip_step}, eta={self.eta}"

    def step(
        self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, x0: Tensor, eps: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return √ᾱ x0 + √(1-ᾱ-sigma²) eps + sigma noise, ᾱ at ``t_prev`` (Song et al. 2021, eq. 12; sigma eq. 16)."""
        alpha_bar_prev, noise_t, noise_prev, beta = self._variances(x_t, t, t_prev)
        variance = self.eta**2 * noise_prev / noise_t * beta
        x0_share = alpha_bar_prev.sqrt().to(working_dtype(x_t))
        # The clamp takes back what rounding may leave below zero where eta is 1.
        eps_share = (noise_prev - variance).clamp(min=0).sqrt().to(working_dtype(x_t))
        mean = (x0_share * x0 + eps_share * eps).to(x_t.dtype)
        return gaussian(mean, variance.sqrt(), t_prev, generator) if self.eta else mean
