"""Noise and back: the forward marginals, the three predictions, dtypes, gradients, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import jimmy_manager.diffusion as package
from jimmy_manager.diffusion import DDIM, DDPM, DiffusionProcess
from jimmy_manager.diffusion.diffusion_process import standard_noise
from jimmy_manager.errors import ConfigError

SHAPES = [(5,), (5, 3), (5, 7, 2), (5, 3, 4, 6)]


@pytest.fixture
def ddpm() -> DDPM:
    return DDPM(1e-3, 0.2, 25, "cpu", "quadratic")


def randoms(*shape: int, n: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(n))


def level(process: DiffusionProcess, t: Tensor, ndim: int) -> np.ndarray:
    """The ᾱ of each sample, by numpy alone."""
    alpha_bars = np.cumprod(1 - process.betas[:, 0].numpy())
    return alpha_bars[t.numpy()].reshape(-1, *[1] * (ndim - 1))


def test_the_package_hands_out_what_it_lists() -> None:
    assert package.__all__ == ["DDIM", "DDPM", "DiffusionProcess", "NoiseSchedule", "beta_schedule"]
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_formula_agrees_with_numpy_for_mixed_steps_and_any_rank(ddpm: DDPM, shape: tuple[int, ...]) -> None:
    (a, b), t = randoms(*shape), torch.tensor([0, 24, 3, 3, 11])
    bar, x, y = level(ddpm, t, len(shape)), a.numpy(), b.numpy()
    expected = {
        "diffuse": np.sqrt(bar) * x + np.sqrt(1 - bar) * y,
        "combineNoise": np.sqrt(bar) * x + np.sqrt(1 - bar) * y,
        "extractNoise": (x - np.sqrt(bar) * y) / np.sqrt(1 - bar),
        "extract_x0": (x - np.sqrt(1 - bar) * y) / np.sqrt(bar),
        "computeVelocity": np.sqrt(bar) * y - np.sqrt(1 - bar) * x,
    }
    for name, values in expected.items():
        result = getattr(ddpm, name)(a, t, b)
        assert result.shape == shape
        np.testing.assert_allclose(result.numpy(), values, rtol=0, atol=1e-12 * np.abs(values).max(), err_msg=name)
    x0, eps = ddpm.extractVelocity(a, t, b)
    np.testing.assert_allclose(x0.numpy(), np.sqrt(bar) * x - np.sqrt(1 - bar) * y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(eps.numpy(), np.sqrt(1 - bar) * x + np.sqrt(bar) * y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["linear", "quadratic", "log"])
def test_data_noise_and_velocity_come_back_from_each_other(mode: str) -> None:
    ddpm = DDPM(1e-4, 0.1, 60, "cpu", mode)  # type: ignore[arg-type]
    (x0, eps), t = randoms(60, 4, 2), torch.arange(60)
    x_t = ddpm.diffuse(x0, t, eps)
    v = ddpm.computeVelocity(x0, t, eps)
    found = (*ddpm.extractVelocity(x_t, t, v), ddpm.extract_x0(x_t, t, eps), ddpm.extractNoise(x_t, t, x0))
    for result, truth in zip(found, (x0, eps, x0, eps), strict=True):
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_mixed_steps_equals_its_samples_one_by_one(ddpm: DDPM, dtype: torch.dtype) -> None:
    (a, b), steps = randoms(5, 7, 2), [0, 24, 3, 3, 11]
    a, b = a.to(dtype), b.to(dtype)
    for method in (ddpm.diffuse, ddpm.extractNoise, ddpm.extract_x0, ddpm.computeVelocity):
        together = method(a, torch.tensor(steps), b)
        alone = torch.cat([method(a[i : i + 1], t, b[i : i + 1]) for i, t in enumerate(steps)])
        assert torch.equal(together, alone)


def test_an_int_a_scalar_a_single_and_a_whole_tensor_of_steps_mean_the_same(ddpm: DDPM) -> None:
    x0, eps = randoms(4, 3)
    forms = (torch.tensor(7), torch.tensor([7]), torch.full((4,), 7), torch.full((4,), 7, dtype=torch.int32))
    assert all(torch.equal(ddpm.diffuse(x0, t, eps), ddpm.diffuse(x0, 7, eps)) for t in forms)


def test_the_marginals_are_those_of_the_chain_of_single_steps(ddpm: DDPM) -> None:
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(ddpm.betas[:, 0].tolist()):
        mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        assert ddpm.diffuse(one, t, zero).item() == pytest.approx(mean, rel=1e-12)
        assert ddpm.diffuse(zero, t, one).item() ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("t", [0, 8, 24])
def test_drawn_noise_has_the_mean_and_spread_of_its_step(ddpm: DDPM, t: int) -> None:
    x_t = ddpm.diffuse(torch.full((100_000,), 2.0), t, generator=torch.Generator().manual_seed(1)).double()
    signal, sigma = ddpm.sqrt_alpha_bars[t].item(), ddpm.sqrt_one_minus_alpha_bars[t].item()
    assert abs(x_t.mean().item() - 2 * signal) < 5 * sigma / 100_000**0.5
    assert abs(x_t.std().item() / sigma - 1) < 5 / 200_000**0.5


def test_drawn_noise_repeats_with_its_generator_and_leaves_the_global_one_alone(ddpm: DDPM) -> None:
    x0, before = torch.zeros(3, 2), torch.get_rng_state()
    first, again, other = (ddpm.diffuse(x0, 5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_one_is_used(ddpm: DDPM) -> None:
    torch.manual_seed(3)
    drawn = ddpm.diffuse(torch.zeros(3, 2), 5)
    torch.manual_seed(3)
    assert torch.equal(drawn, ddpm.diffuse(torch.zeros(3, 2), 5, torch.randn(3, 2)))


@pytest.mark.parametrize("name", ["diffuse", "extractNoise", "extract_x0", "computeVelocity"])
def test_float32_data_give_float32_results_of_its_precision(ddpm: DDPM, name: str) -> None:
    a, b = (r.float() for r in randoms(5, 7, 2))
    t = torch.tensor([0, 24, 3, 3, 11])
    result, exact = getattr(ddpm, name)(a, t, b), getattr(ddpm, name)(a.double(), t, b.double())
    assert result.dtype == torch.float32
    assert ((result - exact).abs() <= 3e-7 * exact.abs().max()).all()


@pytest.mark.parametrize("name", ["diffuse", "extractNoise", "extract_x0", "computeVelocity"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_data_are_rounded_only_once(ddpm: DDPM, name: str, dtype: torch.dtype) -> None:
    a, b = (r.to(dtype) for r in randoms(5, 50, 2))
    t = torch.tensor([0, 24, 3, 3, 11])
    result, exact = getattr(ddpm, name)(a, t, b), getattr(ddpm, name)(a.double(), t, b.double())
    assert result.dtype == dtype
    assert (result == exact.to(dtype)).double().mean() > 0.99  # a rounded coefficient would leave about half


@pytest.mark.parametrize("process", [DDPM(device="cpu"), DDIM(device="cpu", eta=1.0)])
def test_predictions_of_autocast_do_not_change_the_dtype_of_the_samples(process: DiffusionProcess) -> None:
    x_t, prediction = torch.randn(3, 2), torch.randn(3, 2).bfloat16()
    for given in ({"x0_pred": prediction}, {"epsilon_pred": prediction}, {"v_pred": prediction}):
        x_prev, x0 = process.denoiseStep(x_t, 5, 4, **given, need_x0=True)
        assert (x_prev.dtype, x0.dtype) == (torch.float32, torch.float32)


def test_gradients_flow_to_data_and_noise(ddpm: DDPM) -> None:
    x0, eps = (r.requires_grad_() for r in randoms(4, 3))
    t = torch.tensor([0, 8, 24, 24])
    ddpm.diffuse(x0, t, eps).sum().backward()
    torch.testing.assert_close(x0.grad, ddpm.sqrt_alpha_bars[t].expand(4, 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(eps.grad, ddpm.sqrt_one_minus_alpha_bars[t].expand(4, 3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["x0_pred", "epsilon_pred", "v_pred"])
@pytest.mark.parametrize("kind", [DDPM, DDIM])
@pytest.mark.parametrize("t_prev", [torch.tensor([0, 5, -1]), 0])
def test_gradients_of_a_step_are_those_of_finite_differences(
    kind: type[DiffusionProcess], name: str, t_prev: Tensor | int
) -> None:
    process, t = kind(1e-2, 0.3, 10, "cpu"), torch.tensor([9, 6, 2])

    def step(x_t: Tensor, prediction: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return process.denoiseStep(x_t, t, t_prev, **{name: prediction}, generator=generator)

    assert torch.autograd.gradcheck(step, tuple(r.requires_grad_() for r in randoms(3, 2)))


def test_denoising_records_no_gradients() -> None:
    weight = torch.ones((), requires_grad=True)
    data = DDIM(device="cpu", skip_step=20).denoise(torch.randn(3, 2), lambda x, t: (None, weight * x, None))
    assert not data.requires_grad


def look(x: Tensor) -> bool:
    return bool((x > 0).all())


@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_no_step_looks_at_values_and_so_none_waits_for_a_device(kind: type[DiffusionProcess]) -> None:
    process = kind(device="meta")
    x, t = torch.randn(4, 3, 2, device="meta"), torch.randint(100, (4,), device="meta")
    with pytest.raises(RuntimeError):
        look(x)  # on the meta device there are no values to look at
    process.diffuse(x, t)
    process.computeVelocity(x, t, x)
    process.denoiseStep(x, t, t - 1, v_pred=x)
    assert process.denoise(x, lambda x_t, t: (None, x_t, None)).shape == x.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [DDPM, DDIM])
def test_no_step_waits_for_the_gpu(kind: type[DiffusionProcess]) -> None:
    process = kind(device="cuda")
    x, t = torch.randn(4, 3, 2, device="cuda"), torch.randint(1, 100, (4,), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        process.denoiseStep(process.diffuse(x, t), t, t - 1, v_pred=process.computeVelocity(x, t, x))
        process.denoise(x, lambda x_t, t: (None, x_t, None))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_diffusing_can_be_compiled_as_one_graph(ddpm: DDPM) -> None:
    (x0, eps), t = randoms(5, 3), torch.tensor([0, 24, 3, 3, 11])
    compiled = torch.compile(ddpm.diffuse, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x0, t, eps), ddpm.diffuse(x0, t, eps))


X = torch.zeros(4, 2)
REFUSED: list[tuple[Callable[[DDPM], object], str]] = [
    (lambda d: d.diffuse(X, 25), "time step 25 is out of range; with T=25 it goes from 0 to 24"),
    (lambda d: d.diffuse(X, -1), "time step -1 is out of range"),
    (lambda d: d.diffuse(X, 1.0), "time step 1.0 is neither an int nor a tensor of ints"),
    (lambda d: d.diffuse(X, X, torch.tensor(3)), "time steps of dtype torch.float32; .* mind the order"),
    (lambda d: d.diffuse(X, torch.zeros(3, dtype=torch.long)), r"shape \(3,\) do not fit data of shape \(4, 2\)"),
    (lambda d: d.diffuse(X, torch.zeros(4, 1, dtype=torch.long)), r"give an int or a tensor of shape \(4,\)"),
    (lambda d: d.diffuse(X, 3, X[:, :1]), r"shapes \(4, 2\) and \(4, 1\) differ"),
    (lambda d: d.diffuse(X.long(), 3), "dtype torch.int64; give a floating-point batch"),
    (lambda d: d.diffuse(torch.tensor(1.0), 3), r"data of shape \(\) "),
    (lambda d: d.diffuse(X.to("meta"), 3), r"data are on meta, the noise schedule on cpu; move one by .to\('meta'\)"),
    (
        lambda d: d.diffuse(X, torch.zeros(4, dtype=torch.long, device="meta")),
        "time steps are on meta, the data on cpu",
    ),
    (lambda d: d.denoiseStep(X, 3, 3, X), "t_prev=3 is not before t=3"),
    (lambda d: d.denoiseStep(X, 25, 3, X), "time step 25 is out of range"),
    (lambda d: d.denoiseStep(X, -1, -2, X), "time step -1 is out of range"),
    (lambda d: d.denoiseStep(X, 3, None, X), "time step None is neither"),
    (lambda d: d.denoiseStep(X, 3, 2), "nothing was predicted"),
    (lambda d: d.denoiseStep(X, 3, 2, X[:, :1]), "differ"),
    (lambda d: d.denoise(X, lambda x, t: (None, None, None)), "nothing was predicted"),
    (lambda d: d.denoise(X, lambda x, t: (x, None)), "nothing was predicted"),
    (lambda d: d.denoise(X, lambda x, t: x), "pred_func returned Tensor; it must return the triple"),
    (lambda d: d.denoise(X, lambda x, t: None), "pred_func returned NoneType"),
    (lambda d: d.denoise(X, lambda x, t: (None, x[:, :1], None)), "differ"),
    (lambda d: d.denoise(X.long(), lambda x, t: 1 / 0), "floating-point batch"),  # before the network is asked
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_meant_is_refused_in_words(ddpm: DDPM, call: Callable[[DDPM], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(ddpm)


def test_a_tensor_of_steps_out_of_range_is_an_error_of_torch_on_the_cpu(ddpm: DDPM) -> None:
    for wrong in (25, -1):
        with pytest.raises(IndexError):
            ddpm.diffuse(X, torch.tensor([0, 1, wrong, 3]))


def test_nothing_is_changed_in_place(ddpm: DDPM) -> None:
    x, y = randoms(4, 2)
    copies = x.clone(), y.clone()
    ddpm.diffuse(x, 3, y)
    ddpm.extractVelocity(x, 3, y)
    ddpm.denoise(x, lambda x_t, t: (None, y, None))
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


def test_only_a_process_with_a_step_back_can_be_made() -> None:
    with pytest.raises(TypeError, match="abstract method"):
        DiffusionProcess(device="cpu")  # type: ignore[abstract]


def test_standard_noise_follows_its_sample() -> None:
    noise = standard_noise(torch.zeros(2, 3, dtype=torch.float16), None)
    assert (noise.shape, noise.dtype) == ((2, 3), torch.float16)
