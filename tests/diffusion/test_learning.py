"""From samples to samples: a small network learns two Gaussians in the plane, and every process draws from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from jimmy_manager.diffusion import DDIM, DDPM, DiffusionProcess
from jimmy_manager.diffusion.noise_schedule import TimeStep

CENTRES = torch.tensor([[-2.0, 0.5], [1.5, -0.5]])
SPREADS = torch.tensor([[0.35, 0.6], [0.5, 0.35]])
SHARE = 0.3  # of the first
SCHEDULE = (1e-4, 0.2, 80, "cpu", "quadratic")
PROCESSES = [DDPM(*SCHEDULE), DDIM(*SCHEDULE), DDIM(*SCHEDULE, skip_step=3), DDIM(*SCHEDULE, eta=1.0)]
NAMES = ["ddpm", "ddim", "ddim_skipping", "ddim_with_noise"]


def draw(n: int, generator: torch.Generator) -> Tensor:
    which = (torch.rand(n, generator=generator) > SHARE).long()
    return CENTRES[which] + SPREADS[which] * torch.randn(n, 2, generator=generator)


class Velocity(nn.Module):
    """Predicts the velocity from the point and the time."""

    def __init__(self) -> None:
        super().__init__()
        hidden = [layer for size in (10, 64, 64) for layer in (nn.Linear(size, 64), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 2))

    def forward(self, x_t: Tensor, t: Tensor) -> tuple[None, None, Tensor]:
        phase = (t[:, None] + 0.5) / 80 * math.pi * torch.tensor([0.5, 1, 2, 3])
        return None, None, self.net(torch.cat([x_t, phase.sin(), phase.cos()], 1))


def train(model: Velocity, steps: int = 1500, batch: int = 512) -> None:
    ddpm, generator = DDPM(*SCHEDULE), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, steps)
    for _ in range(steps):
        x0, eps = draw(batch, generator), torch.randn(batch, 2, generator=generator)
        t = torch.randint(ddpm.T, (batch,), generator=generator)
        loss = nn.functional.mse_loss(model(ddpm.diffuse(x0, t, eps), t)[2], ddpm.computeVelocity(x0, t, eps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()


@pytest.fixture(scope="module")
def learned() -> Velocity:
    """A network that has learned, in about two seconds on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Velocity()
        train(model)
    finally:
        torch.set_num_threads(threads)
    return model


def ideal(x_t: Tensor, t: Tensor) -> tuple[None, Tensor, None]:
    """The noise that is to be expected in x_t, in closed form: what the best of all networks would say."""
    bar = DDPM(*SCHEDULE).alpha_bars[t, :, None].float()
    mean, variance = bar.sqrt() * CENTRES, bar * SPREADS.square() + 1 - bar
    away = (x_t[:, None] - mean) / variance
    logits = torch.tensor([SHARE, 1 - SHARE]).log() - (away.square() * variance + variance.log()).sum(-1) / 2
    return None, (1 - bar[:, 0]).sqrt() * (logits.softmax(1)[..., None] * away).sum(1), None


def are_of_the_data(samples: Tensor, mean: float, spread: float) -> bool:
    """Whether share, means and relative spreads of the two groups are those of the data, within what is given."""
    first = torch.cdist(samples, CENTRES).argmin(1) == 0
    if abs(first.float().mean().item() - SHARE) > 0.05:
        return False
    groups = samples[first], samples[~first]
    means = [(group.mean(0) - centre).abs().max() < mean for group, centre in zip(groups, CENTRES, strict=True)]
    spreads = [(group.std(0) / std - 1).abs().max() < spread for group, std in zip(groups, SPREADS, strict=True)]
    return bool(all(means) and all(spreads))


def sample(process: DiffusionProcess, predictor: object) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return process.denoise(torch.randn(3000, 2, generator=generator), predictor, generator=generator)  # type: ignore[arg-type]


class WithoutNoise(DDPM):
    """Takes the mean of each posterior and draws nothing."""

    def step(self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, x0: Tensor, *rest: object) -> Tensor:
        return self.posterior(x_t, t, t_prev, x0)[0]


class NoiseOfWrongSize(DDPM):
    """Takes the variance of each posterior for its standard deviation."""

    def posterior(self, *args: object) -> tuple[Tensor, Tensor]:
        mean, std = super().posterior(*args)  # type: ignore[arg-type]
        return mean, std.square()


class TooFar(DDIM):
    """Goes two steps further than it tells the network."""

    def step(self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, *rest: object) -> Tensor:
        return super().step(x_t, t, max(t_prev - 2, -1), *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_samples_of_a_learned_network_are_like_the_data(process: DiffusionProcess, learned: Velocity) -> None:
    assert are_of_the_data(sample(process, learned), mean=0.15, spread=0.3)


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_samples_of_the_ideal_network_are_like_the_data(process: DiffusionProcess) -> None:
    assert are_of_the_data(sample(process, ideal), mean=0.1, spread=0.15)


@pytest.mark.parametrize("broken", [WithoutNoise, NoiseOfWrongSize, TooFar])
def test_broken_processes_are_noticed(broken: type[DiffusionProcess], learned: Velocity) -> None:
    for predictor in (learned, ideal):
        assert not are_of_the_data(sample(broken(*SCHEDULE), predictor), mean=0.15, spread=0.3)


def test_an_untrained_network_is_noticed() -> None:
    assert not are_of_the_data(sample(DDIM(*SCHEDULE), Velocity()), mean=0.15, spread=0.3)


def test_the_data_are_like_the_data_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(3)
    assert are_of_the_data(draw(3000, generator), mean=0.1, spread=0.1)
    assert not are_of_the_data(torch.randn(3000, 2, generator=generator), mean=0.15, spread=0.3)
