import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from jimmy_manager.datasets.mnist_dataset import FASHION_MNIST
from jobs import fashion as module
from jobs import fashion_report as report
from tests.datasets.idx_writer import write_idx

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"model.width": 8, "model.blocks": 1, "batch_size": 32, "optim.lr": 0.02, "scheduler.T_max": 4}

needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST.is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten classes that a square in another place tells apart, under noise: 1200 files to learn from, 200 to test."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 1200), ("t10k", 200)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = draw.integers(0, 64, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[3 + label * 2 : 7 + label * 2, 4 + 5 * (label % 4) : 9 + 5 * (label % 4)] = 255
        write_idx(root / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", labels)
    return root


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(module.ROOT, str(images))
        manager = module.FashionManager(store, verbose=False, device="cpu", threads=1)
        return store, manager.process(SMALL, num_epochs=4)


@pytest.mark.parametrize(("width", "blocks"), [(16, 1), (32, 2), (4, 0)])
def test_each_network_gives_ten_logits_an_image(width, blocks):
    assert module.FashionCNN(width, blocks)(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_a_small_network_learns_small_images(trained):
    store, key = trained
    preview = module.FashionManager(store, read_only=True).previews[key]
    assert preview["acc_eval"] > 0.6  # by chance 0.1
    assert preview["acc_test"] > 0.6


def test_where_the_images_lie_is_no_part_of_a_configuration(images, trained, tmp_path):
    store, key = trained
    assert str(images) not in str(module.FashionManager(store, read_only=True).configs[key])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(images)
    command = [sys.executable, str(ROOT / "jobs" / "fashion.py"), "--root", str(elsewhere), "process", "-q"]
    command += ["--store", str(store), "--num-epochs", "4", *(f"{name}={value}" for name, value in SMALL.items())]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == key, done.stderr
    assert len(module.FashionManager(store, read_only=True).configs) == 1


def test_root_reaches_the_dataset_and_the_rest_of_the_line_the_manager(images, monkeypatch):
    lines = []
    monkeypatch.setattr(module.FashionManager, "main", classmethod(lambda cls, argv: lines.append(argv)))
    monkeypatch.setenv(module.ROOT, "/nowhere")
    monkeypatch.setattr(sys, "argv", ["fashion.py", "--root", str(images), "sweep", "--workers", "2", "optim.lr=1"])
    module.main()
    assert lines == [["sweep", "--workers", "2", "optim.lr=1"]]
    assert len(module.Fashion("train", 100, device="cpu")) == 1100


def test_the_confusion_is_a_share_of_each_row():
    shares = report.confusion(torch.tensor([0, 0, 0, 0, 2]), torch.tensor([0, 0, 0, 1, 3]))
    assert shares.shape == (10, 10)
    assert shares[0, :2].tolist() == [0.75, 0.25]
    assert shares[2, 3] == 1
    assert shares.sum() == 2


def test_the_report_compares_and_draws(images, trained, tmp_path, monkeypatch, capsys):
    store, key = trained
    monkeypatch.setenv(module.ROOT, str(images))
    monkeypatch.setattr(sys, "argv", ["report", str(store), str(tmp_path / "fashion.png")])
    report.main()
    printed = capsys.readouterr().out
    accuracy = module.FashionManager(store, read_only=True).previews[key]["acc_test"]
    assert f"run {key}; {accuracy:.2%} right on the test split" in printed
    picture = imread(tmp_path / "fashion.png")
    assert picture.shape == (616, 1144, 4)
    assert picture[..., :3].std() > 0.05


@needs_fashion_mnist
def test_one_short_epoch_of_the_real_images_is_far_better_than_chance(tmp_path, monkeypatch):
    monkeypatch.delenv(module.ROOT, raising=False)
    manager = module.FashionManager(tmp_path, verbose=False, device="cpu", threads=1)
    key = manager.process({"model.width": 4, "model.blocks": 0, "batch_size": 256, "optim.lr": 0.02}, num_epochs=1)
    assert manager.previews[key]["acc_test"] > 0.6
