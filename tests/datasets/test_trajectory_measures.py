"""Lengths, distances and divergences are those of independent libraries, and finite where they have a kink."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from geographiclib.geodesic import Geodesic
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from jimmy_manager.datasets.trajectories import centerTraj, flipTrajNorthSouth, flipTrajWestEast, rotateTraj
from jimmy_manager.datasets.trajectory_measures import EARTH_RADIUS_M, computeDistance, computeJSD, geometricDistance
from jimmy_manager.errors import ConfigError, DatasetError

SPHERE = Geodesic(EARTH_RADIUS_M, 0)

lngs = st.floats(-180, 180)
lats = st.floats(-90, 90)

# (lng, lat) in degrees, the published great-circle distance in metres, and the radius in metres that it was given for.
PUBLISHED = {
    "Nashville to Los Angeles (Rosetta Code, Haversine formula)": (
        ((-86.67, 36.12), (-118.40, 33.94)),
        2886_444.44283798329974715782394574671655,
        6_371_000.0,
    ),
    "Lyon to Paris (PyPI, haversine 2.0.0)": (((4.8422, 45.7597), (2.3508, 48.8567)), 392_217.2595594006, 6_371_008.8),
    "Newport to Cleveland (PyPI, geopy 2; 536.997990696 miles)": (
        ((-71.312796, 41.49008), (-81.695391, 41.499498)),
        536.997990696 * 1609.344,
        6_371_009.0,
    ),
}


def points(*shape: int, seed: int = 0) -> Tensor:
    """Points all over the sphere, as (lng, lat) in degrees."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 2 - 1
    return torch.stack([unit[..., 0] * 180, torch.rad2deg(unit[..., 1].asin())], -1)


def walk(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 2, generator=generator, dtype=torch.float64).cumsum(-2)


def geodesic(start: Any, end: Any) -> float:
    distance: float = SPHERE.Inverse(float(start[1]), float(start[0]), float(end[1]), float(end[0]))["s12"]
    return distance


def close(result: Tensor, expected: Any, atol: float = 1e-10) -> None:
    torch.testing.assert_close(result, torch.as_tensor(expected, dtype=result.dtype), rtol=1e-10, atol=atol)


def test_the_distance_of_random_points_is_that_of_geographiclib_on_a_sphere() -> None:
    start, end = points(500), points(500, seed=1)
    expected = [geodesic(*pair) for pair in zip(start, end, strict=True)]
    close(geometricDistance(start, end, "none"), expected)
    close(geometricDistance(start, end, "sum"), sum(expected))
    close(geometricDistance(start, end), sum(expected) / 500)


@pytest.mark.parametrize("scale", [1e-7, 1e-4, 1e-1])
def test_short_distances_keep_their_digits(scale: float) -> None:
    start = points(100)
    start[:, 1].clamp_(-80, 80)
    end = start + scale * points(100, seed=1) / 180
    expected = [geodesic(*pair) for pair in zip(start, end, strict=True)]
    # The points themselves are only known to 1e-14 of their degrees, which is a nanometre.
    close(geometricDistance(start, end, "none"), expected, atol=3e-9)


@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e-6, 1e-3, 1.0])
def test_nearly_antipodal_points_keep_their_digits(offset: float) -> None:
    start = points(100)
    end = torch.stack([start[:, 0] - 180, -start[:, 1] * (1 - offset / 90) + offset * 1e-3], -1)
    expected = [geodesic(*pair) for pair in zip(start, end, strict=True)]
    close(geometricDistance(start, end, "none"), expected)


def test_the_check_near_antipodes_would_catch_the_textbook_formula() -> None:
    start, end = torch.zeros(2, dtype=torch.float64), torch.tensor([180 - 1e-6, 1e-7], dtype=torch.float64)
    (d_lng, d_lat), cos = torch.deg2rad(end - start), torch.deg2rad(end[1]).cos()
    h = (d_lat / 2).sin() ** 2 + cos * (d_lng / 2).sin() ** 2
    textbook = 2 * EARTH_RADIUS_M * h.sqrt().asin()
    close(geometricDistance(start, end), geodesic(start, end))
    with pytest.raises(AssertionError):
        close(textbook, geodesic(start, end))


@given(lngs, lats, lngs, lats)
def test_any_two_points_are_as_far_apart_as_geographiclib_says(
    lng1: float, lat1: float, lng2: float, lat2: float
) -> None:
    start, end = torch.tensor([lng1, lat1], dtype=torch.float64), torch.tensor([lng2, lat2], dtype=torch.float64)
    close(geometricDistance(start, end), geodesic(start, end), atol=1e-8)


@pytest.mark.parametrize("pair", PUBLISHED)
def test_city_pairs_are_as_far_apart_as_published(pair: str) -> None:
    cities, metres, radius = PUBLISHED[pair]
    start, end = torch.tensor(cities, dtype=torch.float64)
    assert geometricDistance(start, end).item() == pytest.approx(metres * EARTH_RADIUS_M / radius, rel=1e-10)


def test_a_quarter_and_a_half_of_the_equator_are_exact() -> None:
    origin = torch.zeros(2, dtype=torch.float64)
    for lng, lat, part in [(90, 0, 1 / 4), (180, 0, 1 / 2), (-180, 0, 1 / 2), (0, 90, 1 / 4), (77, -90, 1 / 4)]:
        close(geometricDistance(origin, torch.tensor([lng, lat]).double()), 2 * math.pi * EARTH_RADIUS_M * part)


def test_the_date_line_is_no_barrier() -> None:
    east, west = torch.tensor([179.95, 10.0]).double(), torch.tensor([-179.95, 10.0]).double()
    close(geometricDistance(east, west), geodesic(east, west), atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_and_opposite_points_have_finite_distances_and_gradients(dtype: torch.dtype) -> None:
    start = torch.tensor([[104.0, 30.0], [0.0, 90.0], [10.0, 20.0], [0.0, 90.0], [0.0, 0.0]], dtype=dtype)
    end = torch.tensor([[104.0, 30.0], [50.0, 90.0], [-170.0, -20.0], [0.0, -90.0], [180.0, 0.0]], dtype=dtype)
    start.requires_grad_()
    distances = geometricDistance(start, end, "none")
    half = math.pi * EARTH_RADIUS_M
    torch.testing.assert_close(distances, torch.tensor([0, 0, half, half, half], dtype=dtype), rtol=1e-7, atol=1)
    assert distances[0] == 0
    (gradient,) = torch.autograd.grad(distances.sum(), start)
    assert gradient.isfinite().all()
    assert not gradient[0].any()


def test_the_gradient_of_the_distance_is_that_of_finite_differences() -> None:
    start, end = points(6).requires_grad_(), points(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *pair: geometricDistance(*pair, "none") / EARTH_RADIUS_M, (start, end), eps=1e-4, atol=1e-8
    )


@given(lngs, lats, lngs, lats, st.floats(-360, 360))
def test_distance_is_symmetric_and_the_same_at_any_longitude(
    lng1: float, lat1: float, lng2: float, lat2: float, turn: float
) -> None:
    start, end = torch.tensor([lng1, lat1], dtype=torch.float64), torch.tensor([lng2, lat2], dtype=torch.float64)
    forth = geometricDistance(start, end)
    assert 0 <= forth <= math.pi * EARTH_RADIUS_M * (1 + 1e-15)
    assert forth == geometricDistance(end, start)
    by = torch.tensor([turn, 0.0])
    close(geometricDistance(start + by, end + by), forth, atol=1e-6)


def test_what_has_no_distance_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"geometricDistance .* \(4, 3\)"):
        geometricDistance(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(DatasetError, match=r"\(4, 2\) and \(1, 2\); use expand_as"):
        geometricDistance(torch.zeros(4, 2), torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="no reduction 'max'"):
        geometricDistance(torch.zeros(4, 2), torch.zeros(4, 2), "max")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"no points to average: their shape is \(0, 2\)"):
        geometricDistance(torch.zeros(0, 2), torch.zeros(0, 2))
    assert geometricDistance(torch.zeros(0, 2), torch.zeros(0, 2), "sum") == 0


def test_path_length_sums_the_steps_of_each_trajectory() -> None:
    # Older code differenced the two coordinates of a point, not consecutive points.
    trajs = walk(4, 9)
    expected = [sum(math.dist(a, b) for a, b in pairwise(traj)) for traj in trajs.tolist()]
    close(computeDistance(trajs), expected)
    with pytest.raises(AssertionError):
        close((trajs[..., 1] - trajs[..., 0]).abs().sum(-1), expected)
    close(computeDistance(trajs[0]), expected[0])
    assert computeDistance(trajs[0]).shape == ()


def test_path_length_in_metres_sums_the_great_circles() -> None:
    trajs = points(3, 7)
    expected = [sum(geodesic(a, b) for a, b in pairwise(traj)) for traj in trajs]
    close(computeDistance(trajs, unit="m"), expected)


@given(st.integers(0, 2**32), st.floats(-720, 720))
def test_path_length_survives_turning_moving_and_mirroring(seed: int, angle: float) -> None:
    trajs = walk(2, 6, seed=seed)
    length = computeDistance(trajs)
    for moved in (rotateTraj(trajs, angle), centerTraj(trajs), flipTrajWestEast(trajs), flipTrajNorthSouth(trajs)):
        close(computeDistance(moved), length)
    close(computeDistance(trajs.flip(-2)), length)


@pytest.mark.parametrize("unit", ["deg", "m"])
@pytest.mark.parametrize("padding", [0.0, math.nan])
def test_padding_adds_no_length_given_lengths(unit: Any, padding: float) -> None:
    trajs, lengths = walk(5, 6), torch.tensor([6, 4, 2, 1, 0])
    trajs[torch.arange(6) >= lengths[:, None]] = padding
    trajs.requires_grad_()
    result = computeDistance(trajs, lengths, unit)
    cropped = [computeDistance(traj[:n], unit=unit) for traj, n in zip(trajs, lengths.tolist(), strict=True)]
    close(result, torch.stack(cropped))
    (gradient,) = torch.autograd.grad(result.sum(), trajs)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("unit", ["deg", "m"])
@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_a_path_that_goes_nowhere_has_length_zero_and_a_finite_gradient(unit: Any, length: int) -> None:
    trajs = torch.full((3, length, 2), 30.1, requires_grad=True)
    result = computeDistance(trajs, unit=unit)
    assert torch.equal(result, torch.zeros(3))
    (gradient,) = torch.autograd.grad(result.sum(), trajs)
    assert gradient.isfinite().all()


def test_path_length_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(DatasetError, match=r"computeDistance .* \(4, 3\)"):
        computeDistance(torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="no unit 'km'; use 'deg' or 'm'"):
        computeDistance(torch.zeros(4, 2), unit="km")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"computeDistance needs integer lengths of shape \(3,\)"):
        computeDistance(torch.zeros(3, 4, 2), torch.tensor([1, 2]))


def expected_jsd(
    a: Tensor, b: Tensor, num_bins: int = 50, bounds: tuple[float, float, float, float] | None = None
) -> float:
    """The divergence by numpy's histogram and scipy's distance."""
    a, b = a.reshape(-1, 2), b.reshape(-1, 2)
    both = torch.cat([a, b])
    low, high = (both.amin(0), both.amax(0)) if bounds is None else torch.tensor(bounds).double().split(2)
    edges = list(zip(low.tolist(), high.tolist(), strict=True))
    p, q = (np.histogram2d(*x.T.double().numpy(), bins=num_bins, range=edges)[0].ravel() for x in (a, b))
    p, q = p / p.sum() + 1e-10, q / q.sum() + 1e-10
    return float(jensenshannon(p / p.sum(), q / q.sum()) ** 2)


@pytest.mark.parametrize("num_bins", [1, 7, 50, 200])
@pytest.mark.parametrize("shift", [0.0, 0.3, 30.0])
def test_jsd_is_that_of_scipy_on_the_histograms_of_numpy(num_bins: int, shift: float) -> None:
    a, b = walk(40, 25), walk(30, 20, seed=1) + shift
    assert computeJSD(a, b, num_bins) == pytest.approx(expected_jsd(a, b, num_bins), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jsd_takes_batches_single_trajectories_and_lists(dtype: torch.dtype) -> None:
    a, b = walk(8, 25).to(dtype), walk(30, seed=1).to(dtype)
    expected = expected_jsd(a, b)
    assert computeJSD(a, b) == pytest.approx(expected, abs=1e-10)
    assert computeJSD(list(a), [b[:10], b[10:]]) == pytest.approx(expected, abs=1e-10)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_jsd_is_symmetric_between_zero_and_ln_two_and_zero_to_itself(seed: int, num_bins: int) -> None:
    a, b = walk(2, 9, seed=seed), walk(3, 7, seed=seed + 1)
    forth = computeJSD(a, b, num_bins)
    assert forth == pytest.approx(computeJSD(b, a, num_bins), abs=1e-12)
    assert 0 <= forth <= math.log(2)
    assert computeJSD(a, a.flip(1), num_bins) == 0


def test_jsd_of_disjoint_datasets_is_ln_two() -> None:
    assert computeJSD(walk(9, 9), walk(9, 9) + 1000) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("padding", [0.0, math.nan])
def test_jsd_ignores_padding_given_lengths(padding: float) -> None:
    a, b, lengths = walk(6, 8), walk(4, 8, seed=1), torch.tensor([8, 5, 3, 1, 0, 2])
    a[torch.arange(8) >= lengths[:, None]] = padding
    real = torch.cat([traj[:n] for traj, n in zip(a, lengths.tolist(), strict=True)])
    assert computeJSD(a, b, lengths1=lengths) == pytest.approx(expected_jsd(real, b), abs=1e-10)
    assert computeJSD(b, a, lengths2=lengths.tolist()) == pytest.approx(expected_jsd(b, real), abs=1e-10)
    # Without lengths the padding is taken for points, or refused.
    if padding == 0:
        assert computeJSD(a, b, 4) != pytest.approx(expected_jsd(real, b, 4), abs=1e-3)


def test_jsd_within_bounds_leaves_out_what_lies_outside() -> None:
    a, b, bounds = walk(40, 25), walk(30, 20, seed=1), (-2.0, -3.0, 4.0, 5.0)
    assert computeJSD(a, b, 20, bounds=bounds) == pytest.approx(expected_jsd(a, b, 20, bounds), abs=1e-10)
    with pytest.raises(DatasetError, match=r"no points of dataset2 within the bounds \(-2.0, -3.0, 4.0, 5.0\)"):
        computeJSD(a, b + 1000, bounds=bounds)


@pytest.mark.parametrize("bounds", [(0, 0, 0, 1), (1, 1, 0, 0), (0, 1), (0, 0, math.nan, 1)])
def test_jsd_refuses_bounds_that_bound_nothing(bounds: Any) -> None:
    with pytest.raises(ConfigError, match="lng_min, lat_min, lng_max, lat_max"):
        computeJSD(walk(4), walk(4), bounds=bounds)


def test_jsd_of_constants_needs_no_range() -> None:
    constant = torch.full((3, 4, 2), 30.1)
    assert computeJSD(constant, constant) == 0
    assert computeJSD(constant, constant + 1) == pytest.approx(math.log(2), abs=1e-6)
    # Constant in latitude only.
    line = torch.stack([torch.linspace(0, 1, 50), torch.zeros(50)], -1)
    assert 0 < computeJSD(line, line[:25]) < math.log(2)


def test_jsd_splits_large_datasets_into_pieces_without_a_seam() -> None:
    a, b = walk(700_000), walk(300_000, seed=1)
    assert computeJSD(a, b) == pytest.approx(expected_jsd(a, b), abs=1e-10)
    batch, lengths = a.reshape(7, 100_000, 2), torch.arange(100_000, 30_000, -10_000)
    real = torch.cat([traj[:n] for traj, n in zip(batch, lengths.tolist(), strict=True)])
    assert computeJSD(batch, b, lengths1=lengths) == pytest.approx(expected_jsd(real, b), abs=1e-10)


def test_jsd_says_which_dataset_cannot_be_counted() -> None:
    good = walk(4)
    for empty in (torch.zeros(0, 2), torch.zeros(3, 0, 2), []):
        with pytest.raises(DatasetError, match="computeJSD found no points in dataset2"):
            computeJSD(good, empty)
    with pytest.raises(DatasetError, match="computeJSD found no points in dataset1"):
        computeJSD(good, good, lengths1=0)
    for bad in (math.nan, math.inf):
        with pytest.raises(DatasetError, match="coordinates in dataset1 that are NaN or infinite"):
            computeJSD(torch.tensor([[0.0, bad]]), good, bounds=(0, 0, 1, 1))
    with pytest.raises(DatasetError, match=r"computeJSD .* \(4, 3\)"):
        computeJSD(good, torch.zeros(4, 3))
    with pytest.raises(DatasetError, match="computeJSD takes lengths only beside a tensor"):
        computeJSD([good], good, lengths1=[4])
    with pytest.raises(DatasetError, match="num_bins of 1 or more, not 0"):
        computeJSD(good, good, 0)


def test_no_measure_writes_into_its_arguments() -> None:
    a, b = walk(3, 6).requires_grad_(), walk(3, 6, seed=1)
    before = a.clone(), b.clone()
    lengths = torch.tensor([6, 3, 2])
    computeDistance(a, lengths), computeDistance(a, lengths, "m"), geometricDistance(a, b), computeJSD(a, b, 5, lengths)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
    assert lengths.tolist() == [6, 3, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_distances_never_make_the_host_wait_for_the_gpu() -> None:
    a, b, lengths = walk(3, 6).cuda(), walk(3, 6, seed=1).cuda(), torch.tensor([6, 3, 2]).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = computeDistance(a, lengths), computeDistance(a, [6, 3, 2], "m"), geometricDistance(a, b)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(results[0].cpu(), computeDistance(a.cpu(), lengths.cpu()))
    close(results[1].cpu(), computeDistance(a.cpu(), lengths.cpu(), "m"))
    close(results[2].cpu(), geometricDistance(a.cpu(), b.cpu()))
    assert computeJSD(a, b, lengths1=lengths) == pytest.approx(computeJSD(a.cpu(), b.cpu(), lengths1=lengths.cpu()))
