"""The tables, their older names, and how they live inside a model."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from jimmy_manager.diffusion import DDIM, DDPM, NoiseSchedule
from jimmy_manager.errors import ConfigError, JimmyError

TABLES = ("betas", "alphas", "alpha_bars", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars")


class Model(nn.Module):
    """A network with a process among its parts."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.ddpm = DDPM(device=device)


def same_tables(a: NoiseSchedule, b: NoiseSchedule) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in (*TABLES, "_log_levels"))


def test_the_tables_are_the_running_products_of_the_betas() -> None:
    schedule = NoiseSchedule(1e-3, 0.3, 20, "cpu", "quadratic")
    alphas = 1 - schedule.betas.numpy()
    alpha_bars = np.cumprod(alphas, axis=0)
    expected = (1 - alphas, alphas, alpha_bars, np.sqrt(alpha_bars), np.sqrt(1 - alpha_bars))
    for name, table in zip(TABLES, expected, strict=True):
        mine = getattr(schedule, name)
        assert mine.shape == (20, 1)
        assert mine.dtype == torch.float64
        np.testing.assert_allclose(mine.numpy(), table, rtol=1e-12, err_msg=name)


def test_the_defaults_are_those_that_users_know() -> None:
    for process in (DDPM(device="cpu"), DDIM(device="cpu")):
        assert (process.T, process.skip_step) == (100, 1)
        assert process.betas[0].item() == 1e-4
        assert process.betas[-1].item() == 0.002
        assert process.betas.diff(dim=0).std() < 1e-12


def test_arguments_have_the_order_that_users_know() -> None:
    ddim = DDIM(1e-3, 0.1, 30, "cpu", "log", 4)
    assert (ddim.min_beta, ddim.max_beta, ddim.T, ddim.scale_mode, ddim.skip_step) == (1e-3, 0.1, 30, "log", 4)


def test_older_names_are_the_same_tensors() -> None:
    schedule = NoiseSchedule(device="cpu")
    older = (schedule.beta, schedule.alpha, schedule.αbar, schedule.sqrt_αbar, schedule.sqrt_1_m_αbar)
    assert all(old is getattr(schedule, name) for old, name in zip(older, TABLES, strict=True))


def test_tiny_betas_keep_their_digits() -> None:
    schedule = NoiseSchedule(1e-15, 1e-15, 4, "cpu")
    expected = np.sqrt(1e-15 * np.arange(1, 5))
    np.testing.assert_allclose(schedule.sqrt_one_minus_alpha_bars[:, 0].numpy(), expected, rtol=1e-12)
    naive = np.sqrt(1 - np.cumprod(schedule.alphas.numpy()))
    assert not np.allclose(naive, expected, rtol=1e-6, atol=0), "the naive formula would do, so this test shows nothing"


def test_a_process_adds_nothing_to_the_state_of_its_model() -> None:
    model = Model()
    assert list(model.state_dict()) == ["net.weight", "net.bias"]
    assert len(list(model.parameters())) == 2
    assert not list(model.buffers())


@pytest.mark.parametrize("convert", ["half", "bfloat16", "float", "double"])
def test_conversions_of_the_model_leave_the_tables_alone(convert: str) -> None:
    model = getattr(Model(), convert)()
    assert model.net.weight.dtype == {"half": torch.half, "bfloat16": torch.bfloat16, "double": torch.double}.get(
        convert, torch.float
    )
    assert same_tables(model.ddpm, DDPM(device="cpu"))


def test_the_tables_move_with_the_model() -> None:
    model = Model().to("meta")
    assert model.ddpm.device.type == "meta"
    assert all(getattr(model.ddpm, name).device.type == "meta" for name in (*TABLES, "_log_levels"))
    assert same_tables(model.to_empty(device="cpu").ddpm, DDPM(device="cpu"))


def test_the_device_argument_decides_and_not_the_default_device() -> None:
    assert DDIM(device=torch.device("meta")).betas.device.type == "meta"
    with torch.device("meta"):
        inside = DDPM(device="cpu")
    assert same_tables(inside, DDPM(device="cpu"))


def test_copies_are_whole() -> None:
    model = Model()
    assert same_tables(copy.deepcopy(model).ddpm, model.ddpm)
    assert same_tables(pickle.loads(pickle.dumps(model)).ddpm, model.ddpm)


def test_a_printed_model_tells_the_schedule() -> None:
    text = "DDIM(T=8, min_beta=0.0001, max_beta=0.002, scale_mode='linear', skip_step=3, eta=0.5)"
    assert repr(DDIM(max_diffusion_step=8, device="cpu", skip_step=3, eta=0.5)) == text


@pytest.mark.parametrize("steps", [0, -3, 2.5, None])
def test_a_number_of_steps_that_is_none_is_refused(steps: object) -> None:
    with pytest.raises(ConfigError, match=r"max_diffusion_step=.* must be a whole number of at least 1"):
        DDPM(max_diffusion_step=steps, device="cpu")  # type: ignore[arg-type]


def test_numpy_integers_are_integers() -> None:
    ddim = DDIM(max_diffusion_step=np.int64(9), device="cpu", skip_step=np.int32(2))  # type: ignore[arg-type]
    x = torch.randn(3, 2)
    assert torch.equal(ddim.diffuse(x, np.int64(4), x), ddim.diffuse(x, 4, x))  # type: ignore[arg-type]


def test_errors_of_a_schedule_are_of_both_families() -> None:
    with pytest.raises(JimmyError) as error:
        DDPM(2.0, 3.0, device="cpu")
    assert isinstance(error.value, ValueError)
