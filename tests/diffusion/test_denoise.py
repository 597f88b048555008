"""The way back: a predictor that knows the data recovers it exactly, through every process, schedule and skip."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jimmy_manager.diffusion import DDIM, DDPM, DiffusionProcess
from jimmy_manager.diffusion.noise_schedule import TimeStep
from jimmy_manager.errors import ConfigError

Predictor = Callable[..., tuple[Tensor | None, ...]]
FORMS: dict[str, tuple[str, ...]] = {
    "x0": ("x0",),
    "eps": ("eps",),
    "v": ("v",),
    "all": ("x0", "eps", "v"),
    "pair": ("eps",),
}
MODES = ("linear", "quadratic", "log")
SCHEDULES = [(1, 1), (1, 5), (2, 1), (10, 1), (10, 3), (10, 4), (10, 10), (10, 99), (100, 1), (100, 7)]  # T, skip_step


def knowing(process: DiffusionProcess, x0: Tensor, form: str) -> Predictor:
    """A predictor that knows the data: whatever it says of x_t, in the form asked for, is true."""
    alpha_bars = (1 - process.betas[:, 0]).cumprod(0)

    def predict(x_t: Tensor, t: Tensor) -> tuple[Tensor | None, ...]:
        bar = alpha_bars[t].reshape(-1, *[1] * (x_t.ndim - 1))
        eps = (x_t - bar.sqrt() * x0) / (1 - bar).sqrt()
        said = {"x0": x0, "eps": eps, "v": bar.sqrt() * eps - (1 - bar).sqrt() * x0}
        triple = tuple(said[name] if name in FORMS[form] else None for name in said)
        return triple[:2] if form == "pair" else triple

    return predict


def recovers(process: DiffusionProcess, form: str, shape: tuple[int, ...] = (4, 5, 2)) -> bool:
    generator = torch.Generator().manual_seed(0)
    x0, x_t = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    data = process.denoise(x_t, knowing(process, x0, form), generator=generator)
    return data.shape == shape and bool((data - x0).abs().max() < 1e-10)


class NoisyToTheEnd(DDPM):
    """The older fault: the last step adds noise like all others."""

    def step(self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, *rest: object) -> Tensor:
        mean = super().step(x_t, t, t_prev, *rest)  # type: ignore[arg-type]
        return mean + 1e-4 * torch.randn_like(mean) if t_prev == -1 else mean


class StopsShort(DDIM):
    """The older fault: the last step goes to step 0 and not to the data."""

    def steps(self) -> list[tuple[int, int]]:
        return [(t, t_prev) for t, t_prev in super().steps() if t_prev >= 0]


class WrapsAround(DDIM):
    """The older fault: where there is no step before, the last entry of the table is read."""

    def step(self, x_t: Tensor, t: TimeStep, t_prev: TimeStep, *rest: object) -> Tensor:
        return super().step(x_t, t, self.T - 1 if t_prev == -1 else t_prev, *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("steps", "skip"), SCHEDULES)
def test_a_perfect_predictor_recovers_the_data_through_ddim(mode: str, steps: int, skip: int, form: str) -> None:
    assert recovers(DDIM(1e-4, 0.05, steps, "cpu", mode, skip), form)  # type: ignore[arg-type]
    assert recovers(DDIM(1e-4, 0.05, steps, "cpu", mode, skip, eta=0.8), form)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_a_perfect_predictor_recovers_the_data_through_ddpm(mode: str, steps: int, form: str) -> None:
    assert recovers(DDPM(1e-4, 0.05, steps, "cpu", mode), form)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [NoisyToTheEnd, StopsShort, WrapsAround])
def test_processes_with_the_older_faults_do_not_recover_the_data(broken: type[DiffusionProcess]) -> None:
    assert not recovers(broken(1e-4, 0.05, 10, "cpu"), "eps")


@pytest.mark.parametrize("shape", [(6,), (6, 2), (3, 8, 2), (2, 3, 5, 4)])
@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_data_of_every_rank_are_recovered(kind: type[DiffusionProcess], shape: tuple[int, ...]) -> None:
    assert recovers(kind(device="cpu"), "v", shape)


@pytest.mark.parametrize("kind", [DDPM, DDIM])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_zero_data_end_as_exact_zeros(kind: type[DiffusionProcess], dtype: torch.dtype) -> None:
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    data = kind(device="cpu").denoise(x, lambda x_t, t: (torch.zeros_like(x_t), None, None))
    assert data.std().item() == 0  # was 1.0003
    assert data.abs().max().item() == 0
    assert data.dtype == dtype


@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_the_last_step_is_the_predicted_data_to_the_bit(kind: type[DiffusionProcess]) -> None:
    process = kind(device="cpu")
    x0, x_t = torch.randn(3, 2), torch.randn(3, 2)
    assert torch.equal(process.denoiseStep(x_t, 0, -1, x0), x0)
    assert torch.equal(process.denoiseStep(x_t, torch.zeros(3, dtype=torch.long), torch.full((3,), -1), x0), x0)


@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_every_negative_step_is_the_data(kind: type[DiffusionProcess]) -> None:
    process = kind(device="cpu")
    x0, x_t = torch.randn(3, 2), torch.randn(3, 2)
    for t_prev in (-1, -7, torch.tensor(-7), torch.tensor([-1, -2, -100])):
        assert torch.equal(process.denoiseStep(x_t, 6, t_prev, x0), x0)


@pytest.mark.parametrize("process", [DDPM(device="cpu"), DDIM(device="cpu", eta=1.0)])
def test_the_last_step_draws_nothing_and_every_other_does(process: DiffusionProcess) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    process.denoiseStep(torch.ones(3, 2), 0, -1, torch.ones(3, 2), generator=generator)
    assert torch.equal(generator.get_state(), before)
    process.denoiseStep(torch.ones(3, 2), 1, 0, torch.ones(3, 2), generator=generator)
    assert not torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_the_data_that_led_a_step_are_returned_on_demand(kind: type[DiffusionProcess]) -> None:
    process = kind(1e-3, 0.1, 20, "cpu")
    x0, eps = torch.randn(2, 3, 2, dtype=torch.float64)
    x_t, v = process.diffuse(x0, 9, eps), process.computeVelocity(x0, 9, eps)
    for given in ({"x0_pred": x0}, {"epsilon_pred": eps}, {"v_pred": v}):
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        plain = process.denoiseStep(x_t, 9, 8, **given, generator=generators[0])
        x_prev, led_by = process.denoiseStep(x_t, 9, 8, **given, need_x0=True, generator=generators[1])
        assert torch.equal(plain, x_prev)
        torch.testing.assert_close(led_by, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_the_velocity_goes_before_the_noise_and_the_noise_before_the_data(kind: type[DiffusionProcess]) -> None:
    process = kind(device="cpu")
    x_t, x0, eps, v = torch.randn(4, 3, 2, dtype=torch.float64)

    def step(*predictions: Tensor | None) -> Tensor:
        return process.denoiseStep(x_t, 9, 8, *predictions, generator=torch.Generator().manual_seed(0))

    assert torch.equal(step(x0, eps, v), step(None, None, v))
    assert torch.equal(step(x0, eps, None), step(None, eps, None))
    assert not torch.equal(step(x0, eps, None), step(x0, None, None))


def test_predictors_get_steps_as_in_training_and_the_arguments_of_the_call() -> None:
    seen: list[tuple[list[int], object]] = []

    def predict(x_t: Tensor, t: Tensor, *, label: str) -> tuple[None, Tensor, None]:
        assert (t.dtype, t.device) == (torch.int64, x_t.device)
        seen.append((t.tolist(), label))
        return None, x_t, None

    DDIM(max_diffusion_step=8, device="cpu", skip_step=3).denoise(torch.randn(2, 3), predict, label="cat")
    assert seen == [([7, 7], "cat"), ([4, 4], "cat"), ([1, 1], "cat")]


@pytest.mark.parametrize("process", [DDPM(device="cpu"), DDIM(device="cpu", skip_step=9, eta=0.5)])
def test_samples_repeat_with_their_generator(process: DiffusionProcess) -> None:
    def sample(seed: int) -> Tensor:
        return process.denoise(
            torch.ones(3, 2), lambda x, t: (None, x, None), generator=torch.Generator().manual_seed(seed)
        )

    before = torch.get_rng_state()
    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_deterministic_process_draws_nothing() -> None:
    before = torch.get_rng_state()
    DDIM(device="cpu").denoise(torch.ones(3, 2), lambda x, t: (None, x, None))
    assert torch.equal(torch.get_rng_state(), before)


def test_verbose_shows_progress_beside_the_output_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    ddim, x = DDIM(device="cpu", skip_step=10), torch.ones(3, 2)
    quiet = ddim.denoise(x, lambda x, t: (None, x, None))
    assert capsys.readouterr() == ("", "")
    shown = ddim.denoise(x, lambda x, t: (None, x, None), verbose=True)
    out, err = capsys.readouterr()
    assert torch.equal(shown, quiet)
    assert out == ""
    assert "denoising" in err


def test_progress_can_be_shown_below_another_live_display() -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(quiet=True)):
        DDIM(device="cpu", skip_step=50).denoise(torch.ones(3, 2), lambda x, t: (None, x, None), verbose=True)


def test_a_skip_may_change_later_but_not_to_nonsense() -> None:
    ddim = DDIM(max_diffusion_step=10, device="cpu")
    ddim.skip_step = 5
    assert ddim.steps() == [(9, 4), (4, -1)]
    ddim.skip_step = 0
    with pytest.raises(ConfigError, match="skip_step=0 must be a whole number of at least 1"):
        ddim.denoise(torch.ones(3, 2), lambda x, t: (None, x, None))
