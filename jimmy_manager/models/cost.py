"""What a module costs: operations and memory counted, forward passes timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from jimmy_manager import random_state
from jimmy_manager.errors import ConfigError


@dataclass(frozen=True)
class Cost:
    """What one forward pass computes and what the module holds.

    ``flops`` counts matrix products, convolutions and attention, a multiplication with its addition as two.
    Element-wise operations, normalisation and pooling are not counted. ``bytes`` are those of parameters and buffers,
    not of activations.

    >>> print(Cost(flops=203_264, parameters=101_770, bytes=407_080))
    203 kFLOPs, 102 k parameters, 407 kB
    """

    flops: int
    parameters: int
    bytes: int

    def __str__(self) -> str:
        return f"{_short(self.flops)}FLOPs, {_short(self.parameters).rstrip()} parameters, {_short(self.bytes)}B"


@dataclass(frozen=True)
class Speed:
    """How long each of some forward passes took, and on which device.

    >>> print(Speed("cpu", (0.002, 0.001, 0.004)))
    2.00 ms median, 4.00 ms at most, 3 passes on cpu
    """

    device: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The time that half of the passes stayed below."""
        return median(self.seconds)

    @property
    def p90_s(self) -> float:
        """The time that nine of ten passes stayed below."""
        return quantiles(self.seconds, n=10, method="inclusive")[-1] if len(self.seconds) > 1 else self.seconds[0]

    def __str__(self) -> str:
        middle, worst = self.median_s * 1e3, max(self.seconds) * 1e3
        return f"{middle:.2f} ms median, {worst:.2f} ms at most, {len(self.seconds)} passes on {self.device}"


def computation_cost(module: nn.Module, *inputs: Any, **kwargs: Any) -> Cost:
    """Count what ``module(*inputs, **kwargs)`` computes in evaluation mode, and what the module holds.

    The pass really runs, once, without gradients and uncompiled. The mode of every submodule and the random states
    are put back.
    """
    with _undisturbed(module), _countable(), FlopCounterMode(display=False, custom_mapping=_UNREGISTERED) as counter:
        module(*inputs, **kwargs)
    held = list(chain(module.parameters(), module.buffers()))
    return Cost(
        flops=counter.get_total_flops(),
        parameters=sum(each.numel() for each in module.parameters()),
        bytes=sum(each.numel() * each.element_size() for each in held),
    )


def testFlops(model: nn.Module, *inputs: Any, **kwargs: Any) -> Cost:
    """Count what ``model(*inputs, **kwargs)`` costs: `computation_cost` by its older name."""
    return computation_cost(model, *inputs, **kwargs)


def testCudaSpeed(
    model: nn.Module,
    *inputs: Any,
    repeats: int = 50,  # noqa: PT028 - no test, whatever its name
    warmup: int = 10,  # noqa: PT028
    **kwargs: Any,
) -> Speed:
    """Time ``repeats`` forward passes ``model(*inputs, **kwargs)`` after ``warmup`` others, in evaluation mode.

    On CUDA a pass lasts from one event of its stream to the next, and passes are queued without waiting for each
    other; elsewhere, the CPU included, it is timed by the clock. The result says on which device. No gradients; the
    mode of every submodule and the random states are put back.
    """
    if repeats < 1 or warmup < 0:
        raise ConfigError(f"cannot time repeats={repeats!r} passes after warmup={warmup!r}; give at least 1 and 0")
    device = _device_of(model, *inputs, *kwargs.values())

    def run() -> None:
        model(*inputs, **kwargs)

    with _undisturbed(model):
        for _ in range(warmup):
            run()
        seconds = _seconds_by_events(run, repeats, device) if device.type == "cuda" else _by_clock(run, repeats, device)
    return Speed(str(device), tuple(seconds))


# A test module that imports everything of this package would run them as tests of its own.
testFlops.__test__ = False  # type: ignore[attr-defined]
testCudaSpeed.__test__ = False  # type: ignore[attr-defined]


def _seconds_by_events(run: Callable[[], None], repeats: int, device: torch.device) -> list[float]:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    with torch.cuda.device(device):
        events[0].record()
        for after in events[1:]:
            run()
            after.record()
        events[-1].synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]


def _by_clock(run: Callable[[], None], repeats: int, device: torch.device) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _device_of(module: nn.Module, *inputs: Any) -> torch.device:
    tensors = chain(module.parameters(), module.buffers(), (each for each in inputs if isinstance(each, Tensor)))
    return next((each.device for each in tensors if each.device.type != "cpu"), torch.device("cpu"))


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, leaving modes and random states as they were."""
    states = random_state.take()
    # One by one: a part that is frozen in evaluation mode must stay so when its parent trains again.
    modes = {each: each.training for each in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for each, mode in modes.items():
            each.training = mode
        random_state.restore(states, "being measured")


@contextmanager
def _countable() -> Iterator[None]:
    """Keep torch from fusing layers into operations that `FlopCounterMode` does not know and counts as nothing."""
    has_fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # whole transformer layers
    try:
        with (
            torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),  # recurrent layers on the CPU
            torch.backends.cudnn.flags(enabled=False),  # recurrent layers on CUDA
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(has_fast_path)


def _attention_flops(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


# The counter knows the attention kernels of CUDA only; on the CPU the products inside would count as nothing.
_UNREGISTERED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def _short(number: int) -> str:
    """Three digits and the prefix of a unit: ``'203 k'``."""
    value, prefixes = float(number), iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while value >= 999.5 and prefix != "P":
        value, prefix = value / 1e3, next(prefixes)
    return f"{value:.3g} {prefix}"
