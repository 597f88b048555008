import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from jobs import trajectories as module
from jobs import trajectories_report as report
from jobs.gps_tracks import UNIT_M

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"data.n_train": 600, "model.width": 32, "model.layers": 1, "scheduler.T_max": 10}


@pytest.fixture(scope="module")
def batch():
    return module.Tracks("train", 16, n_train=600, device="cpu")[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    manager = module.TrajectoryManager(store, verbose=False, device="cpu", threads=1)
    return store, manager.process(SMALL, num_epochs=10)


def test_straight_lines_are_exact_for_a_car_that_drives_straight_on_at_one_speed():
    model = module.TrackRecovery(every=12)
    places = torch.linspace(0, 1, 25, dtype=torch.float64)[:, None] * torch.tensor([0.5, -0.25])
    torch.testing.assert_close(model.straight(places[None, ::12])[0], places[:-1])


def test_an_untrained_model_draws_straight_lines(batch):
    model = module.TrackRecovery(width=16)
    given, _, gaps, _ = model.task(batch)
    assert torch.equal(model(given, gaps), model.straight(given))


def test_the_task_is_every_twelfth_point_and_all_places_up_to_the_last_of_these(batch):
    model = module.TrackRecovery(every=12)
    given, places, gaps, mask = model.task(batch, first=5)
    assert (given.shape, places.shape) == ((16, 12, 2), (16, 132, 2))
    assert torch.equal(given[:, 3], batch["traj"][:, 41])
    assert torch.equal(places[:, 40], batch["clean"][:, 45])
    for row, length in enumerate(batch["lengths"].tolist()):
        count = (length - 5 - 1) // 12
        assert gaps[row].tolist() == [True] * count + [False] * (11 - count)
        assert mask[row].sum() == 12 * count
        assert batch["clean"][row, 5 + 12 * count].any(), "the last point given is real"


def test_what_is_found_does_not_depend_on_the_padding(batch):
    model = module.TrackRecovery(width=16)
    torch.nn.init.normal_(model.head[1].weight)
    given, _, gaps, mask = model.task(batch)
    other = given.clone()
    other[:, 1:][~gaps] = 7.0
    assert not torch.equal(other, given)
    torch.testing.assert_close(model(other, gaps)[mask], model(given, gaps)[mask])


def test_the_error_is_measured_in_metres_and_without_the_padding():
    true = torch.zeros(1, 3, 2)
    found = torch.tensor([[[30.0, 40.0], [0.0, 0.0], [1e6, 1e6]]]) / UNIT_M
    mask = torch.tensor([[True, True, False]])
    assert module.mean_error(found, true, mask).item() == pytest.approx(25, rel=2e-3)


def test_little_training_beats_straight_lines_on_tracks_that_it_has_not_seen(trained):
    store, key = trained
    preview = module.TrajectoryManager(store, read_only=True).previews[key]
    assert preview["metres_test"] < 0.95 * preview["straight_test"]
    assert preview["metres_eval"] < 0.95 * preview["straight_eval"]


def test_the_report_compares_and_draws(trained, tmp_path, monkeypatch, capsys):
    store, key = trained
    monkeypatch.setattr(sys, "argv", ["report", str(store), str(tmp_path / "tracks.png")])
    report.main()
    printed = capsys.readouterr().out
    assert f"best on the evaluation split: run {key}" in printed
    preview = module.TrajectoryManager(store, read_only=True).previews[key]
    assert f"on the test split {preview['metres_test']:.1f} m" in printed
    picture = imread(tmp_path / "tracks.png")
    assert picture.shape == (726, 1144, 4)
    assert picture[..., :3].std() > 0.05


def test_the_report_measures_what_the_run_has_measured(trained):
    store, key = trained
    manager = module.TrajectoryManager(store, read_only=True, device="cpu")
    tracks = report.recover(manager, key)
    assert len(tracks) == 120
    for name, field in (("model", "metres_test"), ("straight lines", "straight_test")):
        mean = sum(track.mean_error(name) for track in tracks) / 120
        assert mean == pytest.approx(manager.previews[key][field], rel=1e-4)


def test_the_report_knows_the_way_at_constant_speed():
    corner = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 3.0], [1.0, 3.0], [1.0, 3.0]])
    found = report.constant_speed(corner, every=4)
    assert found.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert report.off_way(found, corner).tolist() == [0] * 4
    assert report.off_way(torch.tensor([[0.5, 1.0]]), corner).item() == 0.5 * UNIT_M
    assert report.constant_speed(torch.ones(5, 2), every=4).tolist() == [[1, 1]] * 4


def test_a_killed_and_a_stopped_run_end_in_the_same_weights_as_one_without_a_break(trained, tmp_path):
    store, key = trained
    heir = module.TrajectoryManager(tmp_path, verbose=False, device="cpu", threads=1)
    command = [sys.executable, str(ROOT / "jobs" / "trajectories.py"), "process", "--store", str(tmp_path), "-q"]
    command += ["--device", "cpu", "--threads", "1", "--num-epochs", "10", *(f"{k}={v}" for k, v in SMALL.items())]
    for blow, epoch in ((signal.SIGKILL, 1), (signal.SIGTERM, 3)):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        deadline = time.monotonic() + 60
        while heir.stats.get(key, {"epoch": -1})["epoch"] < epoch and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(blow)
        assert process.wait(30) == (-blow if blow == signal.SIGKILL else 128 + blow)
    assert epoch <= heir.stats[key]["epoch"] < 10, "it was stopped in the middle"
    assert heir.process(SMALL, num_epochs=10) == key
    broken = heir.fetch(key).state_dict()
    for name, weight in module.TrajectoryManager(store, read_only=True, device="cpu").fetch(key).state_dict().items():
        assert torch.equal(weight, broken[name]), name
