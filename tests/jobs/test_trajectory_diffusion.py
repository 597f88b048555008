import math
import sys

import pytest
import torch
from matplotlib.image import imread

from jobs import trajectory_diffusion as module
from jobs import trajectory_diffusion_report as report
from jobs.gps_tracks import UNIT_M

SMALL = {
    "data.n_train": 640, "model.width": 32, "model.layers": 1, "model.noise_steps": 100, "model.map_sizes": [16, 48],
    "model.ema_decay": 0.95, "batch_size": 64, "scheduler.T_max": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    manager = module.TrackDiffusionManager(store, verbose=False, device="cpu", threads=1)
    return store, manager.process(SMALL, num_epochs=10)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return module.TrackDiffusion(width=16, layers=1, heads=2, map_sizes=(5, 9), noise_steps=20)


def test_whole_tracks_have_one_number_of_points_from_first_to_last():
    dataset = module.WholeTracks("test", 10, n_train=160, n_points=64, device="cpu")
    assert len(dataset) == 20
    assert dataset[1]["track"].shape == (10, 64, 2)
    for row, length in enumerate(dataset.lengths.tolist()):
        assert torch.equal(dataset.track[row, [0, -1]], dataset.clean[row, [0, length - 1]])


def test_the_map_is_read_between_its_corners(model):
    corners = torch.linspace(-module.EDGE, module.EDGE, 5)
    north, east = torch.meshgrid(corners, corners, indexing="ij")
    with torch.no_grad():
        model.map[0][0, 0], model.map[0][0, 1] = 2 * east - north, 7.0
    places = torch.rand(3, 6, 2) * 2 - 1
    read = model.read_map(places / module.SPREAD)
    assert [each.shape for each in read] == [(3, 6, 8)] * 2
    torch.testing.assert_close(read[0][..., 0], 2 * places[..., 0] - places[..., 1])
    torch.testing.assert_close(read[0][..., 1], torch.full((3, 6), 7.0))


def test_the_features_of_the_map_are_learned_and_a_model_without_a_map_works(model):
    x, t = torch.randn(4, 64, 2), torch.tensor([0, 5, 10, 19])
    assert model(x, t)[0].shape == model(x, t)[1].shape == (4, 64, 2)
    model(x, t)[0].sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in model.map)
    assert module.TrackDiffusion(width=16, map_sizes=(), noise_steps=20)(x, t)[0].shape == (4, 64, 2)


def test_a_point_has_a_step_to_the_next_and_a_bend():
    step, bend = module.differences(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]]))
    assert step.tolist() == [[[1, 0], [0, 2], [0, 0]]]
    assert bend.tolist() == [[[1, 0], [-1, 2], [0, -2]]]


def test_tracks_are_generated_by_their_seed_alone(model):
    state = torch.get_rng_state()
    tracks = model.generate(5, seed=1)
    assert tracks.shape == (5, 64, 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(model.generate(5, seed=1), tracks)
    assert not torch.equal(model.generate(5, seed=2), tracks)


def test_evaluation_uses_the_same_noise_each_time(model):
    batch = {"track": torch.randn(30, 64, 2)}
    assert model.evalStep(batch)[0] == model.evalStep(batch)[0]


def test_sets_of_tracks_are_compared_in_place_and_in_length():
    here = torch.rand(50, 10, 2) - 0.5
    assert module.compare(here, here) == {"jsd": 0, "length": 0}
    longer = here * 1.5
    km = (longer - here).diff(dim=1).norm(dim=-1).sum(1).mean().item() * UNIT_M / 1000
    assert module.compare(longer, here)["length"] == pytest.approx(km, rel=1e-5)
    assert module.compare(here / 10, here / 10 + 0.9)["jsd"] == pytest.approx(math.log(2), abs=1e-3)


def test_little_training_learns_to_remove_noise_and_where_cars_are(trained):
    store, key = trained
    manager = module.TrackDiffusionManager(store, read_only=True, device="cpu")
    preview = manager.previews[key]
    assert preview["loss_eval"] < 0.45, "1 is what predicting nothing costs"
    measured = report.measure(report.candidates(manager))
    assert list(measured) == ["real", "real, other trips", f"diffusion {key}", "Gaussian", "random walk"]
    assert measured["real"]["jsd"] == 0
    assert measured["real"]["off"] < 0.5
    assert measured["real, other trips"]["jsd"] < measured["Gaussian"]["jsd"] < measured["random walk"]["jsd"]
    assert measured[f"diffusion {key}"]["jsd"] < measured["random walk"]["jsd"]


def test_the_gaussian_baseline_has_the_moments_of_the_tracks():
    draw = torch.Generator().manual_seed(0)
    tracks = torch.rand(500, 3, 2, generator=draw).cumsum(1)
    made = report.gaussian(tracks, 20_000, draw)
    torch.testing.assert_close(made.mean(0), tracks.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(made.flatten(1).T.cov(), tracks.flatten(1).T.cov(), atol=0.03, rtol=0)


def test_the_report_prints_and_draws(trained, tmp_path, monkeypatch, capsys):
    store, key = trained
    monkeypatch.setattr(sys, "argv", ["report", str(store), str(tmp_path / "tracks.png")])
    report.main()
    printed = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in printed[1:]] == [
        "real", "real, other trips", f"diffusion {key}", "Gaussian", "random walk"
    ]  # fmt: skip
    assert " 16,48 " in printed[3]
    picture = imread(tmp_path / "tracks.png")
    assert picture.shape == (770, 1144, 4)
    assert picture[..., :3].std() > 0.05
