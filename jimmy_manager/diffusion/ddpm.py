"""Denoising diffusion probabilistic models: Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jimmy_manager.diffusion.diffusion_process import DiffusionProcess, gaussian, working_dtype
from jimmy_manager.diffusion.noise_schedule import TimeStep

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DDPM(DiffusionProcess):
    """The process whose every step back draws from the posterior; the last one lands on the predicted data.

    Arguments as `NoiseSchedule`. With the defaults ᾱ ends at 0.90: x_T is the data under some noise. Whoever starts
    from pure noise needs ᾱ to end near 0, as with ``DDPM(1e-4, 0.02, 1000)`` of Ho et al. 2020.

    >>> import torch
    >>> ddpm = DDPM(max_diffusion_step=10, device='cpu')
    >>> ddpm.denoise(torch.randn(4, 2), lambda x_t, t: (torch.ones_like(x_t), None, None)).unique()
    tensor([1.])
    """

    def posterior(self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, ...) and standard deviation (B, 1, ...), float64, of q(x at ``t_prev`` | x_t, x0).

        Ho et al. 2020, eq. 6 and 7, with beta for all the steps from ``t_prev`` to ``t``, which may be more than one.
        """
        alpha_bar_prev, noise_t, noise_prev, beta = self._variances(x_t, t, t_prev)
        x0_share = (alpha_bar_prev.sqrt() * beta / noise_t).to(working_dtype(x_t))
        x_t_share = ((1 - beta).sqrt() * noise_prev / noise_t).to(working_dtype(x_t))
        return (x0_share * x0 + x_t_share * x_t).to(x_t.dtype), (noise_prev / noise_t * beta).sqrt()

    def step(
        self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, x0: Tensor, eps: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        mean, std = self.posterior(x_t, t, t_prev, x0)
        return gaussian(mean, std, t_prev, generator)
