"""Trajectories are moved, scaled, turned and resampled as the formulas say, and the argument is left as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline, interp1d
from scipy.spatial.transform import Rotation
from torch import Tensor

from jimmy_manager.datasets.trajectories import (
    centerTraj,
    cropPadTraj,
    flipTrajNorthSouth,
    flipTrajWestEast,
    getLat,
    getLng,
    interpTraj,
    minMaxTraj,
    rotateTraj,
    zScoreTraj,
)
from jimmy_manager.errors import ConfigError, DatasetError

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "getLng": getLng,
    "getLat": getLat,
    "cropPadTraj": lambda trajs: cropPadTraj(trajs, 5),
    "flipTrajWestEast": flipTrajWestEast,
    "flipTrajNorthSouth": flipTrajNorthSouth,
    "centerTraj": centerTraj,
    "zScoreTraj": zScoreTraj,
    "minMaxTraj": minMaxTraj,
    "rotateTraj": lambda trajs: rotateTraj(trajs, 30),
    "interpTraj": lambda trajs: interpTraj(trajs, 7),
    "interpTraj nearest": lambda trajs: interpTraj(trajs, 7, "nearest"),
    "interpTraj cubic": lambda trajs: interpTraj(trajs, 7, "cubic"),
}
SELECTORS = ("getLng", "getLat")
WITH_LENGTHS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "centerTraj": centerTraj,
    "zScoreTraj": zScoreTraj,
    "minMaxTraj": minMaxTraj,
    "interpTraj": lambda trajs, lengths: interpTraj(trajs, 7, traj_lengths=lengths),
    "interpTraj nearest": lambda trajs, lengths: interpTraj(trajs, 7, "nearest", lengths),
    "interpTraj cubic": lambda trajs, lengths: interpTraj(trajs, 7, "cubic", lengths),
}
NORMALISERS = {"centerTraj": centerTraj, "zScoreTraj": zScoreTraj, "minMaxTraj": minMaxTraj}

seeds = st.integers(0, 2**32)
angles = st.floats(-720, 720)


def tracks(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random walks in degrees somewhere in a city."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(*shape, 2, generator=generator, dtype=torch.float64) * 1e-3
    return (steps.cumsum(-2) + torch.tensor([104.06, 30.66], dtype=torch.float64)).to(dtype)


@st.composite
def walks(draw: st.DrawFn, min_points: int = 1) -> Tensor:
    """One trajectory or a batch of them."""
    batch = draw(st.one_of(st.just(()), st.tuples(st.integers(1, 4))))
    return tracks(*batch, draw(st.integers(min_points, 12)), seed=draw(seeds))


def close(result: Tensor, expected: Any, atol: float = 1e-10) -> None:
    torch.testing.assert_close(result, torch.as_tensor(expected), rtol=1e-10, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6,), (3, 6)])
@pytest.mark.parametrize("name", CALLS)
def test_no_function_writes_into_its_argument_or_changes_its_dtype(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    trajs = tracks(*shape, dtype=dtype)
    before = trajs.clone()
    result = CALLS[name](trajs)
    assert torch.equal(trajs, before)
    assert result.dtype == dtype
    assert result.shape[: len(shape) - 1] == trajs.shape[:-2]


@pytest.mark.parametrize("name", [name for name in CALLS if name not in SELECTORS])
def test_a_result_shares_no_memory_with_the_argument(name: str) -> None:
    trajs = tracks(3, 6)
    before = trajs.clone()
    CALLS[name](trajs).fill_(7)
    assert torch.equal(trajs, before)


@pytest.mark.parametrize("name", CALLS)
def test_a_batch_is_treated_as_each_of_its_trajectories_alone(name: str) -> None:
    trajs = tracks(4, 6)
    close(CALLS[name](trajs), torch.stack([CALLS[name](traj) for traj in trajs]))


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    trajs = (tracks(2, 4) - torch.tensor([104.0, 30.0])) * 100
    assert torch.autograd.gradcheck(CALLS[name], trajs.requires_grad_())


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in CALLS for shape in [(4, 3), (2, 5), ()]]
    + [(name, shape) for name in CALLS if name not in SELECTORS for shape in [(2,), (2, 2, 5, 2)]],
)
def test_a_wrong_shape_is_refused_by_function_and_shape(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(DatasetError) as error:
        CALLS[name](torch.zeros(shape))
    assert name.split(maxsplit=1)[0] in str(error.value)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_tensor_is_refused(name: str) -> None:
    with pytest.raises(DatasetError, match=f"{name.split(maxsplit=1)[0]} needs a tensor, not ndarray"):
        CALLS[name](np.zeros((4, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["centerTraj", "zScoreTraj", "minMaxTraj", "rotateTraj", "interpTraj"])
def test_integers_are_refused_where_the_result_has_fractions(name: str) -> None:
    with pytest.raises(DatasetError, match=rf"{name} needs floating point trajectories, not torch.int64"):
        CALLS[name](torch.zeros(4, 2, dtype=torch.int64))


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("interpTraj")])
@pytest.mark.parametrize("shape", [(0, 2), (3, 0, 2), (0, 4, 2), (1, 2), (3, 1, 2)])
def test_none_and_one_point_give_no_nan(name: str, shape: tuple[int, ...]) -> None:
    result = CALLS[name](torch.full(shape, 104.0668))
    assert result.isfinite().all()
    assert len(result.shape) == len(shape) - (name in SELECTORS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NORMALISERS)
@given(value=st.floats(-180, 180), length=st.integers(1, 50))
def test_a_constant_becomes_exactly_zero_with_finite_gradients(
    name: str, dtype: torch.dtype, value: float, length: int
) -> None:
    trajs = torch.full((2, length, 2), value, dtype=dtype, requires_grad=True)
    result = NORMALISERS[name](trajs)
    assert not result.any()
    result.sum().backward()
    assert trajs.grad is not None
    assert trajs.grad.isfinite().all()


def test_longitude_comes_first_and_latitude_second() -> None:
    trajs = tracks(3, 5)
    assert torch.equal(getLng(trajs), trajs[:, :, 0])
    assert torch.equal(getLat(trajs), trajs[:, :, 1])
    assert getLng(trajs[0, 0]) == trajs[0, 0, 0]


@given(walks(), st.integers(0, 20), st.floats(-5, 5))
def test_crop_and_pad_give_the_length_and_keep_what_fits(trajs: Tensor, target_len: int, pad_value: float) -> None:
    result = cropPadTraj(trajs, target_len, pad_value)
    kept = min(target_len, trajs.shape[-2])
    assert result.shape == (*trajs.shape[:-2], target_len, 2)
    assert torch.equal(result[..., :kept, :], trajs[..., :kept, :])
    assert (result[..., kept:, :] == pad_value).all()


@pytest.mark.parametrize("target_len", [-1, 2.0, None])
def test_a_target_length_that_is_no_count_is_refused(target_len: Any) -> None:
    with pytest.raises(DatasetError, match="target_len of 0 or more"):
        cropPadTraj(tracks(4), target_len)


@given(walks())
def test_flips_negate_one_coordinate_and_undo_themselves(trajs: Tensor) -> None:
    assert torch.equal(flipTrajWestEast(trajs), trajs * torch.tensor([-1.0, 1.0]))
    assert torch.equal(flipTrajNorthSouth(trajs), trajs * torch.tensor([1.0, -1.0]))
    for flip in (flipTrajWestEast, flipTrajNorthSouth):
        assert torch.equal(flip(flip(trajs)), trajs)


@given(walks())
def test_centring_subtracts_the_mean(trajs: Tensor) -> None:
    close(centerTraj(trajs), trajs.numpy() - trajs.numpy().mean(-2, keepdims=True))


@given(walks(min_points=3))
def test_z_scores_are_those_of_numpy_with_the_unbiased_deviation(trajs: Tensor) -> None:
    points = trajs.numpy() - np.array([104.06, 30.66])
    expected = (points - points.mean(-2, keepdims=True)) / points.std(-2, ddof=1, keepdims=True)
    # The walks span about 1e-3 of 1e2 degrees, so 5 of the 16 digits are gone before either computes.
    close(zScoreTraj(trajs), expected, atol=1e-9)


def test_z_scores_of_float32_degrees_keep_the_digits_that_float32_holds() -> None:
    trajs = tracks(50, 100, dtype=torch.float32)
    exact = zScoreTraj(trajs.double())
    plain = (trajs - trajs.mean(-2, keepdim=True)) / trajs.std(-2, keepdim=True)
    error, plain_error = ((result.double() - exact).abs().max() for result in (zScoreTraj(trajs), plain))
    assert error < 1e-5
    assert plain_error > 100 * error


@given(walks(min_points=2))
def test_min_max_spans_zero_to_one_exactly(trajs: Tensor) -> None:
    result = minMaxTraj(trajs)
    assert (result.amin(-2) == 0).all()
    assert (result.amax(-2) == 1).all()
    low, high = trajs.numpy().min(-2, keepdims=True), trajs.numpy().max(-2, keepdims=True)
    close(result, (trajs.numpy() - low) / (high - low), atol=1e-9)


@given(walks(), angles)
def test_rotation_is_the_counter_clockwise_one_of_scipy(trajs: Tensor, angle: float) -> None:
    matrix = Rotation.from_euler("z", angle, degrees=True).as_matrix()[:2, :2]
    expected = trajs.numpy() @ matrix.T
    for given_as in (angle, torch.tensor(angle, dtype=torch.float64)):
        close(rotateTraj(trajs, given_as), expected)


@given(walks(), angles)
def test_rotating_back_or_by_a_full_turn_changes_nothing(trajs: Tensor, angle: float) -> None:
    close(rotateTraj(rotateTraj(trajs, angle), -angle), trajs)
    assert torch.equal(rotateTraj(trajs, 360), trajs)
    assert torch.equal(rotateTraj(trajs, torch.tensor(-720)), trajs)


def test_rotation_keeps_the_order_of_dimensions_and_turns_each_by_its_own_angle() -> None:
    # Older code gave (B, 2, L) here.
    trajs, turns = tracks(3, 5), torch.tensor([0.0, 90.0, 200.0], dtype=torch.float64)
    result = rotateTraj(trajs, turns)
    assert result.shape == (3, 5, 2)
    close(result, torch.stack([rotateTraj(traj, turn.item()) for traj, turn in zip(trajs, turns, strict=True)]))


def test_a_single_trajectory_with_many_angles_becomes_a_batch() -> None:
    traj, turns = tracks(5), torch.tensor([10, 20])
    close(rotateTraj(traj, turns), torch.stack([rotateTraj(traj, 10), rotateTraj(traj, 20)]))


def test_large_float32_angles_lose_nothing_to_their_whole_turns() -> None:
    trajs = tracks(5, dtype=torch.float32)
    assert torch.equal(rotateTraj(trajs, torch.tensor(360000.0 + 45)), rotateTraj(trajs, torch.tensor(45.0)))


def test_gradients_reach_the_angles() -> None:
    turns = torch.tensor([10.0, 200.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda by: rotateTraj(tracks(2, 4), by), turns)


@pytest.mark.parametrize("shape", [(2,), (3, 1)])
def test_angles_that_match_no_batch_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DatasetError, match=r"rotateTraj .* angles of shape .* \(3, 5, 2\)"):
        rotateTraj(tracks(3, 5), torch.zeros(shape))


@given(walks(min_points=2), st.integers(2, 30))
def test_linear_interpolation_is_that_of_scipy(trajs: Tensor, num_points: int) -> None:
    length = trajs.shape[-2]
    expected = interp1d(np.arange(length), trajs.numpy(), axis=-2)(np.linspace(0, length - 1, num_points))
    close(interpTraj(trajs, num_points), expected)


def test_linear_interpolation_is_that_of_torch_with_aligned_corners() -> None:
    trajs = tracks(3, 11)
    expected = F.interpolate(trajs.mT, 17, mode="linear", align_corners=True).mT
    close(interpTraj(trajs, 17), expected)


@given(walks(min_points=2), st.integers(2, 30))
def test_cubic_interpolation_is_the_hermite_spline_of_scipy_with_central_slopes(trajs: Tensor, num_points: int) -> None:
    points, length = trajs.numpy(), trajs.shape[-2]
    # Central differences inside, and at the ends those of a line that goes straight on.
    slopes = np.gradient(points, axis=-2)
    expected = CubicHermiteSpline(np.arange(length), points, slopes, axis=-2)(np.linspace(0, length - 1, num_points))
    close(interpTraj(trajs, num_points, "cubic"), expected)


@given(walks(), st.integers(1, 30))
def test_nearest_interpolation_takes_only_points_that_were_there(trajs: Tensor, num_points: int) -> None:
    length = trajs.shape[-2]
    position = np.arange(num_points) * (length - 1) / max(num_points - 1, 1)
    expected = trajs[..., np.floor(position + 0.5 + 1e-9).astype(int), :]
    assert torch.equal(interpTraj(trajs, num_points, "nearest"), expected)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@given(trajs=walks(), num_points=st.integers(2, 100), double=st.booleans())
def test_both_ends_are_kept_exactly(mode: Any, trajs: Tensor, num_points: int, double: bool) -> None:
    trajs = trajs if double else trajs.float()
    result = interpTraj(trajs, num_points, mode)
    assert result.shape == (*trajs.shape[:-2], num_points, 2)
    assert torch.equal(result[..., [0, -1], :], trajs[..., [0, -1], :])


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@given(trajs=walks(), factor=st.integers(1, 4))
def test_points_that_fall_on_old_ones_are_those(mode: Any, trajs: Tensor, factor: int) -> None:
    finer = interpTraj(trajs, (trajs.shape[-2] - 1) * factor + 1, mode)
    assert torch.equal(finer[..., ::factor, :], trajs)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@given(start=st.floats(-50, 50), slope=st.floats(-5, 5), length=st.integers(2, 10), num_points=st.integers(2, 40))
def test_a_straight_line_stays_one(mode: Any, start: float, slope: float, length: int, num_points: int) -> None:
    def line(count: int) -> Tensor:
        along = torch.linspace(0, 1, count, dtype=torch.float64)
        return torch.stack([start + slope * along, 1 - 2 * along], -1)

    close(interpTraj(line(length), num_points, mode), line(num_points))


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_a_single_point_and_a_single_target_are_fine(mode: Any) -> None:
    traj = tracks(1)
    assert torch.equal(interpTraj(traj, 4, mode), traj.expand(4, 2))
    longer = tracks(2, 5)
    assert torch.equal(interpTraj(longer, 1, mode), longer[:, :1])


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"interpTraj cannot resample .* \(3, 0, 2\)"):
        interpTraj(torch.zeros(3, 0, 2), 4)
    with pytest.raises(DatasetError, match="num_points of 1 or more, not 0"):
        interpTraj(tracks(3), 0)
    with pytest.raises(ConfigError, match="no mode 'area'; use 'linear', 'nearest' or 'cubic'"):
        interpTraj(tracks(3), 4, "area")  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", [0.0, -1e9, math.nan])
@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_padding_changes_nothing_given_lengths(name: str, padding: float) -> None:
    call, lengths = WITH_LENGTHS[name], torch.tensor([6, 4, 2, 1])
    trajs = tracks(4, 6)
    trajs[torch.arange(6) >= lengths[:, None]] = padding
    trajs.requires_grad_()
    result = call(trajs, lengths)
    for row, traj, length in zip(result, trajs, lengths.tolist(), strict=True):
        alone = call(traj[:length], length)
        close(row[: len(alone)], alone)
        assert not row[len(alone) :].any()
        assert torch.equal(call(traj, length), row)
    (gradient,) = torch.autograd.grad(result.sum(), trajs)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_a_trajectory_without_real_points_is_finite(name: str) -> None:
    assert WITH_LENGTHS[name](tracks(2, 6), [0, 6]).isfinite().all()


@pytest.mark.parametrize("lengths", [torch.tensor([1, 2]), torch.tensor([1.0, 2.0, 3.0]), 4, torch.ones(3, 1).long()])
@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_lengths_that_match_no_batch_are_refused(name: str, lengths: Any) -> None:
    with pytest.raises(DatasetError, match=rf"{name.split(maxsplit=1)[0]} needs integer lengths of shape \(3,\)"):
        WITH_LENGTHS[name](tracks(3, 6), lengths)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CALLS)
def test_nothing_makes_the_host_wait_for_the_gpu(name: str) -> None:
    trajs, lengths = tracks(3, 6).cuda(), torch.tensor([6, 4, 2]).cuda()
    CALLS[name](trajs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = CALLS[name](trajs)
        if name in WITH_LENGTHS:
            WITH_LENGTHS[name](trajs, lengths)
            WITH_LENGTHS[name](trajs, [6, 4, 2])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(result.cpu(), CALLS[name](trajs.cpu()))
