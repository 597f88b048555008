import numpy as np
import pytest
import torch

from jimmy_manager.datasets import MNISTDataset, MNISTSampleDataset
from jimmy_manager.datasets import mnist_dataset as module
from jimmy_manager.errors import ConfigError, DatasetError
from tests.datasets.idx_writer import write_idx, write_mnist

needs_fashion_mnist = pytest.mark.skipif(
    not module.FASHION_MNIST.is_dir(), reason="needs the Debian package dataset-fashion-mnist"
)


def values(dataset):
    """Which images a pass holds, by the one value of which each is full."""
    return [value for batch in dataset for value in batch["data"][:, 0, 0, 0].int().tolist()]


def test_the_sets_are_disjoint_parts_of_their_files(tmp_path):
    write_mnist(tmp_path)
    sets = {name: values(MNISTDataset(name, 4, root=tmp_path, normalize=False)) for name in module.SETS}
    assert sets["train"] == list(range(22))
    assert sets["eval"] == [22, 23]
    assert sets["test"] == list(range(200, 206))
    assert sets["debug"] == sets["train"]
    assert sets["all"] == [*range(24), *range(200, 206)]


def test_a_batch_has_the_promised_shapes_types_and_values(tmp_path):
    write_mnist(tmp_path)
    batch = MNISTDataset("train", 4, root=tmp_path)[1]
    assert (batch["data"].shape, batch["data"].dtype) == ((4, 1, 28, 28), torch.float32)
    assert (batch["target"].shape, batch["target"].dtype) == ((4,), torch.int64)
    assert torch.equal(batch["data"][:, 0, 5, 5].cpu(), torch.arange(4, 8) / 255)
    assert batch["target"].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_pass_leaves_the_data_as_they_were_and_pairs_them_with_their_labels(tmp_path, shuffle):
    write_mnist(tmp_path)
    dataset = MNISTDataset("train", 4, shuffle=shuffle, root=tmp_path)
    for _ in range(2):
        for batch in dataset:
            assert torch.equal((batch["data"][:, 0, 3, 3] * 255).round().long() % 10, batch["target"])
    assert values(dataset) == [0] * 22
    dataset.normalize = False
    assert sorted(values(dataset)) == list(range(22))


@pytest.mark.parametrize("folder", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("ending", ["-idx{}-ubyte", "-idx{}-ubyte.gz", ".idx{}-ubyte", ".idx{}-ubyte.gz"])
def test_files_are_found_under_each_of_their_usual_names(tmp_path, folder, ending):
    write_mnist(tmp_path / folder, ending=ending)
    assert len(MNISTDataset("all", 4, root=str(tmp_path))) == 30


def test_the_older_name_takes_the_older_arguments_and_counts_from_1(tmp_path):
    write_mnist(tmp_path)
    dataset = MNISTSampleDataset(4, True, root=tmp_path, normalize=False)
    assert (dataset.batch_size, dataset.drop_last, dataset.index_base) == (4, True, 1)
    assert values(dataset) == list(range(20))
    assert dataset[1]["target"].tolist() == [0, 1, 2, 3]


def test_a_set_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no set 'valid'; there are 'train', 'eval', 'test', 'debug', 'all'"):
        MNISTDataset("valid", 4, root=tmp_path)


def test_missing_files_give_the_line_that_installs_some(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert len(MNISTDataset("train", 4, root=tmp_path)) == 22
    with pytest.raises(DatasetError, match=r"no t10k-labels-idx1-ubyte .*root=.*apt-get install dataset-fash"):
        MNISTDataset("test", 4, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("train-labels-idx1-ubyte", np.zeros(23, np.uint8), "holds 24 images, but .*train-labels-idx1-ubyte 23 labels"),
        ("train-labels-idx1-ubyte", np.zeros((24, 1), np.uint8), r"train-labels-idx1-ubyte holds \(24, 1\) torch"),
        ("train-images-idx3-ubyte", np.zeros((24, 28, 28), np.int16), r"train-images-idx3-ubyte holds .* torch.int16"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, name, array, complaint):
    write_mnist(tmp_path)
    write_idx(tmp_path / name, array)
    with pytest.raises(DatasetError, match=complaint):
        MNISTDataset("train", 4, root=tmp_path)


def test_a_set_keeps_only_its_own_images_in_memory(tmp_path):
    write_mnist(tmp_path)
    data = MNISTDataset("eval", 4, root=tmp_path, device="cpu").tensors["data"]
    assert data.untyped_storage().nbytes() == 2 * 28 * 28


@needs_fashion_mnist
def test_fashion_mnist_has_its_published_counts():
    sets = {name: MNISTDataset(name, 500) for name in ("train", "eval", "test", "debug")}
    assert {name: len(each) for name, each in sets.items()} == {
        "train": 55_000, "eval": 5_000, "test": 10_000, "debug": 100
    }  # fmt: skip
    counts = {name: each.tensors["target"].bincount().cpu() for name, each in sets.items()}
    assert (counts["train"] + counts["eval"]).tolist() == [6_000] * 10
    assert counts["test"].tolist() == [1_000] * 10


@needs_fashion_mnist
def test_the_first_picture_of_fashion_mnist_is_the_ankle_boot():
    batch = MNISTDataset("train", 1)[0]
    assert batch["target"].tolist() == [9]
    assert batch["data"].sum().item() * 255 == pytest.approx(76_247, rel=1e-6)
