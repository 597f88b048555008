from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as func

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.cost import Cost, Speed, computation_cost, testCudaSpeed, testFlops


class Noisy(nn.Module):
    """Uses every generator, and keeps what mode and gradients it met."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.met: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        random.random()
        np.random.random()
        self.met.append((self.training, torch.is_grad_enabled()))
        return self.linear(x) * scale + torch.randn(2)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_the_products_of_a_perceptron_are_counted_twice_per_weight_and_sample() -> None:
    net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    weights, biases = 784 * 128 + 128 * 10, 128 + 10
    assert computation_cost(net, torch.zeros(5, 784)) == Cost(5 * 2 * weights, weights + biases, 4 * (weights + biases))


def test_bytes_follow_the_dtype_and_include_buffers() -> None:
    assert computation_cost(nn.Linear(3, 2).double(), torch.zeros(1, 3).double()).bytes == 8 * 8
    norm = nn.BatchNorm1d(4)
    assert computation_cost(norm, torch.zeros(2, 4)) == Cost(0, 8, 4 * (8 + 8) + 8)  # one int64 counts the batches


def test_a_convolution_is_counted_by_its_windows() -> None:
    conv = nn.Conv2d(3, 8, kernel_size=5, groups=1, bias=False)
    assert computation_cost(conv, torch.zeros(2, 3, 12, 9)).flops == 2 * 2 * (8 * 5) * 8 * 3 * 25


def attention(batch: int, length: int, d: int) -> int:
    projections = 4 * 2 * batch * length * d * d
    return projections + 2 * 2 * batch * length * length * d


@pytest.mark.parametrize("fast_path", [True, False])
def test_layers_that_torch_fuses_are_counted_like_others(fast_path: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        cost_of_layer = computation_cost(layer, torch.randn(2, 7, 16))
        assert torch.backends.mha.get_fastpath_enabled() == fast_path
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert cost_of_layer.flops == attention(2, 7, 16) + 2 * 2 * 7 * 2 * 16 * 32
    lstm = nn.LSTM(16, 8, batch_first=True)
    assert computation_cost(lstm, torch.randn(2, 7, 16)).flops == 2 * 2 * 7 * 4 * 8 * (16 + 8)
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled


def test_attention_on_the_cpu_is_not_free() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return func.scaled_dot_product_attention(x, x, x)

    assert computation_cost(Attention(), torch.randn(2, 3, 5, 8)).flops == 2 * 2 * (2 * 3) * 5 * 5 * 8


def test_a_compiled_module_costs_what_it_cost_before() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    before = computation_cost(net, torch.zeros(2, 4))
    net.compile(backend="eager")
    assert computation_cost(net, torch.zeros(2, 4)) == before


@pytest.mark.parametrize("measure", [computation_cost, testFlops, testCudaSpeed])
def test_measuring_leaves_modes_random_states_and_gradients_alone(measure: object) -> None:
    net = nn.Sequential(Noisy(), nn.Dropout(0.5), nn.BatchNorm1d(2))
    net[2].eval()  # frozen, inside a network that trains
    running = net[2].running_mean.clone()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    measure(net, torch.ones(4, 3))  # type: ignore[operator]
    assert draw() == expected
    assert [each.training for each in net] == [True, True, False]
    assert set(net[0].met) == {(False, False)}
    assert torch.equal(net[2].running_mean, running)
    assert all(each.grad is None for each in net.parameters())


def test_what_fails_inside_is_raised_and_everything_is_put_back() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="shapes"):
        computation_cost(net, torch.zeros(1, 4))
    assert net.training
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_keyword_inputs_reach_the_module() -> None:
    assert testFlops(Noisy(), torch.zeros(4, 3), scale=2.0).flops == 2 * 4 * 3 * 2
    assert len(testCudaSpeed(Noisy(), repeats=3, warmup=0, x=torch.zeros(4, 3)).seconds) == 3


def test_timing_says_on_which_device_and_runs_as_often_as_asked() -> None:
    net = Noisy()
    speed = testCudaSpeed(net, torch.zeros(4, 3), repeats=7, warmup=2)
    assert speed.device == "cpu"
    assert len(net.met) == 9
    assert len(speed.seconds) == 7
    assert 0 < min(speed.seconds) <= speed.median_s <= speed.p90_s <= max(speed.seconds)


def test_timing_measures_time() -> None:
    class Slow(nn.Module):
        def forward(self) -> None:
            import time

            time.sleep(0.01)

    assert 0.01 <= testCudaSpeed(Slow(), repeats=3, warmup=0).median_s < 1


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warmup": -1}])
def test_nothing_to_time_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1 and 0"):
        testCudaSpeed(Noisy(), torch.zeros(4, 3), **wrong)


def test_both_results_read_well() -> None:
    assert str(Cost(0, 12, 48)) == "0 FLOPs, 12 parameters, 48 B"
    assert str(Cost(1_234_567_890_123, 999_600, 4_000_000_000)) == "1.23 TFLOPs, 1 M parameters, 4 GB"
    assert Speed("cpu", (0.5,)).p90_s == 0.5
