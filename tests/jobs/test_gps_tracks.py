import numpy as np
import pytest
import torch
from matplotlib.image import imread

from jimmy_manager.datasets import computeDistance, geometricDistance
from jobs import gps_tracks as module


@pytest.fixture(scope="module")
def tracks():
    return module.make_tracks(1500)


@pytest.fixture(scope="module")
def is_real(tracks):
    return np.arange(tracks.true.shape[1]) < tracks.lengths[:, None]


def test_the_same_arguments_make_the_same_tracks(tracks):
    module.make_tracks.cache_clear()
    again = module.make_tracks(1500)
    assert again is not tracks
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(tracks, again, strict=True))


def test_no_track_of_one_set_is_in_another():
    sets = [module.GpsTracks(name, 200, n_tracks=200, device="cpu") for name in module.SETS]
    rows = {tuple(row) for each in sets for row in each.clean.flatten(1).tolist()}
    assert len(rows) == 600


def test_tracks_have_their_lengths_and_zeros_behind(tracks, is_real):
    assert tracks.lengths.min() >= 36
    assert tracks.lengths.max() <= tracks.true.shape[1] == 145
    assert len(set(tracks.lengths.tolist())) > 50
    for points in (tracks.true, tracks.measured):
        assert not points[~is_real].any()
        assert points[is_real].all()


def test_cars_stay_on_the_roads(tracks, is_real):
    places = torch.from_numpy(tracks.true[:100][is_real[:100]] / module.UNIT_M)
    assert module.distance_to_roads(places).max() < 1e-6
    assert module.distance_to_roads(places + 30 / module.UNIT_M).mean() > 10  # what the check above would notice


def test_cars_drive_as_cars_do(tracks, is_real):
    metres = np.linalg.norm(np.diff(tracks.true, axis=1), axis=-1)
    speed = (metres / 5)[is_real[:, 1:]]
    assert speed.max() < 45
    assert 5 < speed.mean() < 15
    assert 0.05 < (speed < 0.01).mean() < 0.3, "red lights"
    gained = np.diff(metres / 5, axis=1)[is_real[:, 2:]] / 5
    # Not all of them: a straight line across a sharp corner is shorter than the way.
    slowest, fastest = np.quantile(gained, [0.002, 0.998])
    assert 0.8 * module.SPEED_UP < fastest < 1.05 * module.SPEED_UP
    assert -1.05 * module.SLOW_DOWN < slowest < -0.8 * module.SLOW_DOWN


def test_receivers_are_some_metres_off_for_a_while_and_seldom_far(tracks, is_real):
    errors = tracks.measured - tracks.true
    metres = np.linalg.norm(errors, axis=-1)[is_real]
    assert 4 < np.median(metres) < 9
    assert 0.001 < (metres > 40).mean() < 0.005
    kept = is_real[:, 1:] & (np.abs(errors) < 30).all(-1)[:, 1:] & (np.abs(errors) < 30).all(-1)[:, :-1]
    now, before = errors[:, 1:][kept].ravel(), errors[:, :-1][kept].ravel()
    assert 0.7 < np.corrcoef(now, before)[0, 1] < 0.85  # exp(-5 / 30) of 25 m² of 27.25 m² are drift: 0.78


def test_a_batch_has_the_promised_shapes_and_units(tracks):
    dataset = module.GpsTracks("train", 64, n_tracks=1500, device="cpu")
    batch = dataset[1]
    assert len(dataset) == 1500
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "traj": ((64, 145, 2), torch.float32),
        "clean": ((64, 145, 2), torch.float32),
        "lengths": ((64,), torch.int64),
    }
    np.testing.assert_allclose(batch["clean"] * module.UNIT_M, tracks.true[64:128], atol=1e-3)
    assert batch["clean"].abs().max() < 1.2


def test_degrees_are_as_far_apart_as_the_metres_they_were_made_of():
    draw = torch.Generator().manual_seed(0)
    here, there = torch.rand(2, 100, 2, generator=draw, dtype=torch.float64) * 2 - 1
    metres = (here - there).norm(dim=-1) * module.UNIT_M
    degrees = geometricDistance(module.to_degrees(here), module.to_degrees(there), reduction="none")
    torch.testing.assert_close(degrees, metres, rtol=1e-3, atol=0)
    lng, lat = module.to_degrees(torch.zeros(2)).tolist()
    assert (lng, lat) == module.CENTRE


def test_single_precision_degrees_keep_the_length_of_a_track(tracks):
    places = torch.from_numpy(tracks.true[:20] / module.UNIT_M)
    whole = [module.to_degrees(each[:length]) for each, length in zip(places, tracks.lengths, strict=False)]
    for points in whole:
        exact, rough = (computeDistance(each, unit="m") for each in (points, points.float()))
        assert float(rough) == pytest.approx(float(exact), rel=0.01)


def test_the_distance_to_lines_is_that_to_the_nearest_of_many_points_on_them():
    draw = torch.Generator().manual_seed(0)
    places, lines = torch.rand(50, 2, generator=draw), torch.rand(7, 2, 2, generator=draw)
    share = torch.linspace(0, 1, 2001)[:, None, None]
    points = (lines[:, 0] * (1 - share) + lines[:, 1] * share).reshape(-1, 2)
    nearest = torch.cdist(places, points).amin(1)
    torch.testing.assert_close(module.distance_to_lines(places, lines), nearest, atol=1e-3, rtol=0)
    dot = torch.tensor([[[0.25, 0.5]] * 2])
    assert module.distance_to_lines(torch.tensor([[0.25, 0.75]]), dot).tolist() == [0.25]


def test_the_map_is_drawn(tmp_path):
    module.draw_map(tmp_path / "map.png", count=30)
    picture = imread(tmp_path / "map.png")
    assert picture.shape == (572, 1144, 4)
    assert picture[..., :3].std() > 0.05
