"""The constants of a diffusion process, and how a time step looks them up for a batch of any shape."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

from jimmy_manager.devices import DEVICE
from jimmy_manager.diffusion.betas import ScaleMode, beta_schedule
from jimmy_manager.errors import ConfigError

TimeStep: TypeAlias = int | Tensor


class NoiseSchedule(nn.Module):
    """The tables of a diffusion process of ``T`` steps, counted from 0 (least noise) to T - 1.

    ``betas``, ``alphas``, ``alpha_bars``, ``sqrt_alpha_bars`` and ``sqrt_one_minus_alpha_bars`` are (T, 1) and float64,
    whatever the data: a product with float32 data by hand is float64. (The methods of the processes return the data's
    dtype instead.) They are for reading; assigning to them does not change the process.

    As part of a model it follows ``.to(device)``, but neither ``half()`` nor ``double()``, and adds nothing to the
    model's parameters, buffers and ``state_dict``.
    """

    betas: Tensor
    alphas: Tensor
    alpha_bars: Tensor
    sqrt_alpha_bars: Tensor
    sqrt_one_minus_alpha_bars: Tensor
    _log_levels: Tensor

    def __init__(
        self,
        min_beta: float = 1e-4,
        max_beta: float = 0.002,
        max_diffusion_step: int = 100,
        device: torch.device | str = DEVICE,
        scale_mode: ScaleMode = "linear",
    ) -> None:
        super().__init__()
        self.T = positive_int(max_diffusion_step, "max_diffusion_step")
        self.min_beta, self.max_beta, self.scale_mode = min_beta, max_beta, scale_mode
        self._tabulate(torch.device(device))

    @property
    def beta(self) -> Tensor:
        """Older name of ``betas``."""
        return self.betas

    @property
    def alpha(self) -> Tensor:
        """Older name of ``alphas``."""
        return self.alphas

    @property
    def αbar(self) -> Tensor:  # noqa: PLC2401  # users know this name
        """Older name of ``alpha_bars``."""
        return self.alpha_bars

    @property
    def sqrt_αbar(self) -> Tensor:  # noqa: PLC2401  # users know this name
        """Older name of ``sqrt_alpha_bars``."""
        return self.sqrt_alpha_bars

    @property
    def sqrt_1_m_αbar(self) -> Tensor:  # noqa: PLC2401  # users know this name
        """Older name of ``sqrt_one_minus_alpha_bars``."""
        return self.sqrt_one_minus_alpha_bars

    @property
    def device(self) -> torch.device:
        """Where the tables are, and where data must be."""
        return self.betas.device

    def extra_repr(self) -> str:
        return f"T={self.T}, min_beta={self.min_beta}, max_beta={self.max_beta}, scale_mode={self.scale_mode!r}"

    def _tabulate(self, device: torch.device) -> None:
        """Fill the tables (Ho et al. 2020, section 2), computed on the CPU and therefore alike on every device."""
        betas = beta_schedule(self.min_beta, self.max_beta, self.T, self.scale_mode)[:, None]
        # All else comes from log ᾱ: where ᾱ is near 1 the difference 1 - ᾱ would lose digits, expm1 loses none.
        log_alpha_bars = torch.log1p(-betas).cumsum(0)
        tables = {
            "betas": betas,
            "alphas": 1 - betas,
            "alpha_bars": log_alpha_bars.exp(),
            "sqrt_alpha_bars": (log_alpha_bars / 2).exp(),
            "sqrt_one_minus_alpha_bars": log_alpha_bars.expm1().neg().sqrt(),
            # (T + 1, 1): row 0 is the data before any noise, where ᾱ is 1, so that step t stands in row t + 1.
            "_log_levels": nn.functional.pad(log_alpha_bars, (0, 0, 1, 0)),
        }
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        for name, table in tables.items():
            # Not buffers: half() would round them, and DDP would broadcast these constants before every forward.
            setattr(self, name, table.to(device, dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow a model to another device, also from 'meta'; ``Module`` itself moves only parameters and buffers."""
        super()._apply(fn, recurse)
        device = fn(torch.ones(1, device=self.device)).device
        if device != self.device:
            self._tabulate(device)
        return self

    def _checked(self, t: TimeStep, x: Tensor, or_data: bool = False) -> TimeStep:
        """Return ``t`` for the batch ``x``, or say what is wrong with either without waiting for the device.

        With ``or_data`` every negative step means the data and becomes -1.
        """
        check_data(x, self.device)
        if isinstance(t, Tensor):
            check_times(t, x)
            return t.clamp(min=-1) if or_data else t
        try:
            step = operator.index(t)
        except TypeError:
            raise ConfigError(f"time step {t!r} is neither an int nor a tensor of ints") from None
        if step < 0 and or_data:
            return -1
        if not 0 <= step < self.T:
            raise ConfigError(f"time step {step} is out of range; with T={self.T} it goes from 0 to {self.T - 1}")
        return step


def rows(table: Tensor, t: TimeStep, x: Tensor) -> Tensor:
    """Return rows ``t`` of ``table`` (T, 1), shaped to multiply ``x`` (B, ...): (B, 1, ...), for an int (1, 1, ...).

    Never indexes with a tensor: a 0-d one would be read back from the device.
    """
    picked = table.index_select(0, t.reshape(-1)) if isinstance(t, Tensor) else table[t]
    return picked.reshape(-1, *[1] * (x.ndim - 1))


def positive_int(value: int, name: str) -> int:
    """Return ``value`` as an int, or raise ConfigError where it is not a whole number of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name}={value!r} must be a whole number of at least 1")
    return number


def check_data(x: Tensor, device: torch.device) -> None:
    """Raise ConfigError unless ``x`` is a batch of floating-point numbers on ``device``."""
    if not x.is_floating_point() or x.ndim == 0:
        raise ConfigError(f"data of shape {tuple(x.shape)} and dtype {x.dtype}; give a floating-point batch (B, ...)")
    if x.device != device:
        raise ConfigError(f"the data are on {x.device}, the noise schedule on {device}; move one by .to('{x.device}')")


def check_times(t: Tensor, x: Tensor) -> None:
    """Raise ConfigError unless ``t`` can be the time steps of the batch ``x``; its values are not looked at."""
    if t.dtype not in (torch.int64, torch.int32):
        raise ConfigError(f"time steps of dtype {t.dtype}; give int64, and mind the order of arguments: (x, t, ...)")
    if t.ndim > 1 or t.numel() not in (1, len(x)):
        raise ConfigError(
            f"time steps of shape {tuple(t.shape)} do not fit data of shape {tuple(x.shape)}; "
            f"give an int or a tensor of shape ({len(x)},)"
        )
    if t.device != x.device:
        raise ConfigError(f"the time steps are on {t.device}, the data on {x.device}; create them with device=x.device")
