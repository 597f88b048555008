"""What every diffusion process shares: adding noise, converting between predictions, and the loop back to the data.

Notation: x0 is the data, eps the noise, v the velocity, ᾱ (``alpha_bars``) that of Ho et al. 2020, for which
Song et al. 2021 write alpha. Results have the dtype of the data; inside, half precision is computed in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from jimmy_manager.diffusion.noise_schedule import NoiseSchedule, TimeStep, check_data, positive_int, rows
from jimmy_manager.errors import ConfigError

Prediction: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None] | tuple[Any, Tensor]


class DiffusionProcess(NoiseSchedule, ABC):
    """A noise schedule with the steps forth, and with the loop back around a ``step`` that subclasses define.

    In every method ``t`` is an int or an integer tensor (B,) on the data's device. An int out of range is a
    ConfigError. The values of a tensor are not looked at, since that would wait for the device: one out of range is
    torch's IndexError on the CPU and a device-side assertion on CUDA.
    """

    skip_step = 1

    def diffuse(
        self, x0: Tensor, t: TimeStep, eps: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x_t (B, ...), the data ``x0`` (B, ...) under the noise of step ``t``; always this one tensor.

        Without ``eps`` standard normal noise is drawn and not handed out; whoever trains on the noise draws it first:
        ``eps = torch.randn_like(x0)``.
        """
        if eps is None:
            check_data(x0, self.device)
            eps = standard_noise(x0, generator)
        return self.combineNoise(x0, t, eps)

    def combineNoise(self, x0: Tensor, t: TimeStep, eps: Tensor) -> Tensor:
        """Return x_t = √ᾱ x0 + √(1-ᾱ) eps (Ho et al. 2020, eq. 4)."""
        signal, noise = self._scales(x0, t, eps)
        return (signal * x0 + noise * eps).to(x0.dtype)

    def extractNoise(self, x_t: Tensor, t: TimeStep, x0: Tensor) -> Tensor:
        """Return eps = (x_t - √ᾱ x0) / √(1-ᾱ) (Ho et al. 2020, eq. 4 solved for it)."""
        signal, noise = self._scales(x_t, t, x0)
        return ((x_t - signal * x0) / noise).to(x_t.dtype)

    def extract_x0(self, x_t: Tensor, t: TimeStep, eps: Tensor) -> Tensor:
        """Return x0 = (x_t - √(1-ᾱ) eps) / √ᾱ (Ho et al. 2020, eq. 4 solved for it)."""
        signal, noise = self._scales(x_t, t, eps)
        return ((x_t - noise * eps) / signal).to(x_t.dtype)

    def computeVelocity(self, x0: Tensor, t: TimeStep, eps: Tensor) -> Tensor:
        """Return v = √ᾱ eps - √(1-ᾱ) x0 (Salimans & Ho 2022, section 4)."""
        signal, noise = self._scales(x0, t, eps)
        return (signal * eps - noise * x0).to(x0.dtype)

    def extractVelocity(self, x_t: Tensor, t: TimeStep, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x0, eps) = (√ᾱ x_t - √(1-ᾱ) v, √(1-ᾱ) x_t + √ᾱ v) (Salimans & Ho 2022, section 4)."""
        signal, noise = self._scales(x_t, t, v)
        return (signal * x_t - noise * v).to(x_t.dtype), (noise * x_t + signal * v).to(x_t.dtype)

    def steps(self) -> list[tuple[int, int]]:
        """Return the pairs (t, t_prev) that ``denoise`` walks: from T - 1, ``skip_step`` at a time, to -1, the data."""
        return list(pairwise([*range(self.T - 1, -1, -positive_int(self.skip_step, "skip_step")), -1]))

    @torch.no_grad()
    def denoise(
        self,
        x_T: Tensor,
        pred_func: Callable[..., Prediction],
        verbose: bool = False,
        *,
        generator: torch.Generator | None = None,
        **pred_args: Any,
    ) -> Tensor:
        """Return data (B, ...) made from the noise ``x_T`` (B, ...) of step T - 1, in its shape and dtype.

        ``pred_func(x_t, t, **pred_args)``, with ``t`` (B,) int64 as in training, returns the triple (x0, eps, v) with
        None for what it does not predict; the first of v, eps, x0 that is there is used. The older pair (_, eps) will
        do. ``verbose`` shows a progress bar on stderr. Noise that is drawn comes from ``generator``.

        Records no gradients: whoever wants them calls ``denoiseStep`` for each of ``steps()``.
        Raises ConfigError where the predictor returns anything else, or a shape other than that of ``x_t``.
        """
        check_data(x_T, self.device)
        x_t = x_T
        for t, t_prev in _shown(self.steps(), verbose):
            batch_t = torch.full((len(x_t),), t, device=x_t.device)
            x0, eps, v = _triple(pred_func(x_t, batch_t, **pred_args))
            x_t = cast("Tensor", self.denoiseStep(x_t, t, t_prev, x0, eps, v, generator=generator))
        return x_t

    def denoiseStep(
        self,
        x_t: Tensor,
        t: TimeStep,
        t_prev: TimeStep,
        x0_pred: Tensor | None = None,
        epsilon_pred: Tensor | None = None,
        v_pred: Tensor | None = None,
        need_x0: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return x at step ``t_prev`` < ``t``; with ``need_x0`` the pair of it and the x0 that led there.

        A negative ``t_prev``, int or in a tensor, is the data. The first of v, eps, x0 that is given decides, the
        others follow from it. ``t_prev`` >= ``t`` is a ConfigError for ints; in tensors it is not noticed.
        """
        t, t_prev = self._checked(t, x_t), self._checked(t_prev, x_t, or_data=True)
        if isinstance(t, int) and isinstance(t_prev, int) and t_prev >= t:
            raise ConfigError(f"t_prev={t_prev} is not before t={t}; denoising goes to smaller steps, the last is -1")
        x0, eps = self._resolve(x_t, t, x0_pred, epsilon_pred, v_pred)
        x_prev = self.step(x_t, t, t_prev, x0, eps, generator)
        return (x_prev, x0) if need_x0 else x_prev

    @abstractmethod
    def step(
        self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, x0: Tensor, eps: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return x at ``t_prev``, drawn given ``x_t`` and its parts ``x0`` and ``eps``, which agree with each other."""

    def _resolve(
        self, x_t: Tensor, t: TimeStep, x0: Tensor | None, eps: Tensor | None, v: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if v is not None:
            return self.extractVelocity(x_t, t, v)
        if eps is not None:
            return self.extract_x0(x_t, t, eps), eps
        if x0 is not None:
            return x0.to(x_t.dtype), self.extractNoise(x_t, t, x0)
        raise ConfigError("nothing was predicted: x0, eps and v are all None; give at least one of them")

    def _scales(self, x: Tensor, t: TimeStep, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return √ᾱ and √(1-ᾱ) at ``t``, ready to multiply ``x`` and ``other`` (both (B, ...))."""
        t, dtype = self._checked(t, x), working_dtype(x)
        if other.shape != x.shape:  # broadcasting would turn a missing dimension into wrong numbers
            shapes = f"{tuple(x.shape)} and {tuple(other.shape)}"
            raise ConfigError(f"shapes {shapes} differ; data, noise, velocity and predictions all have one shape")
        signal, noise = rows(self.sqrt_alpha_bars, t, x), rows(self.sqrt_one_minus_alpha_bars, t, x)
        return signal.to(dtype), noise.to(dtype)

    def _variances(self, x: Tensor, t: TimeStep, t_prev: TimeStep) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ᾱ at ``t_prev``, 1-ᾱ at ``t`` and at ``t_prev``, and the beta between them, in float64 for ``x``."""
        t, t_prev = self._checked(t, x), self._checked(t_prev, x, or_data=True)
        log_t, log_prev = rows(self._log_levels[1:], t, x), rows(self._log_levels, t_prev + 1, x)
        return log_prev.exp(), -log_t.expm1(), -log_prev.expm1(), -(log_t - log_prev).expm1()


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype to compute in for ``x``: its own, but no less than float32."""
    return torch.promote_types(x.dtype, torch.float32)


def standard_noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard normal noise of the shape, dtype and device of ``x``."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def gaussian(mean: Tensor, std: Tensor, t_prev: TimeStep, generator: torch.Generator | None) -> Tensor:
    """Draw from N(mean, std²), in the dtype of ``mean``; on a step to the data (``t_prev`` the int -1) draw nothing."""
    if isinstance(t_prev, int) and t_prev < 0:
        return mean
    return (mean + std.to(working_dtype(mean)) * standard_noise(mean, generator)).to(mean.dtype)


def _triple(prediction: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if isinstance(prediction, (tuple, list)) and len(prediction) == 3:
        return prediction[0], prediction[1], prediction[2]
    if isinstance(prediction, (tuple, list)) and len(prediction) == 2:
        return None, prediction[1], None
    raise ConfigError(
        f"pred_func returned {type(prediction).__name__}; it must return the triple (x0, eps, v) with None for what it "
        "does not predict, or the older pair (_, eps)"
    )


def _shown(steps: list[tuple[int, int]], verbose: bool) -> Iterable[tuple[int, int]]:
    if not verbose:
        return steps
    from rich.console import Console
    from rich.progress import track

    # A console of its own: on one console rich may refuse a second live display beside a trainer's.
    return track(steps, description="denoising", console=Console(stderr=True))
