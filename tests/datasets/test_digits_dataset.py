import gzip
import hashlib

import numpy as np
import pytest
import torch

from jimmy_manager.datasets import DigitsDataset
from jimmy_manager.datasets.digits_dataset import DATA, SETS, SHARES, read_digits, split_rows
from jimmy_manager.errors import ConfigError

# Of the text inside, which is what scikit-learn ships; the compressed bytes depend on the compressor.
DIGEST = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_data_are_the_published_bytes_and_their_licence_says_so():
    assert hashlib.sha256(gzip.decompress(DATA.read_bytes())).hexdigest() == DIGEST
    licence = DATA.with_name("DIGITS-LICENSE.md").read_text()
    assert DIGEST in licence
    assert "CC BY 4.0" in licence
    assert "https://doi.org/10.24432/C50P49" in licence


def test_the_data_are_1797_images_of_8x8_with_known_class_counts():
    images, labels = read_digits()
    assert images.shape == (1797, 8, 8)
    assert images.min() == 0
    assert images.max() == 16
    assert np.bincount(labels).tolist() == CLASS_COUNTS


def test_the_split_deals_every_row_to_exactly_one_part():
    rows = split_rows(read_digits()[1])
    assert {name: len(part) for name, part in rows.items()} == {"train": 1078, "valid": 360, "test": 359}
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(1797))


def test_the_split_gives_each_part_its_share_of_every_digit():
    labels = read_digits()[1]
    for name, rows in split_rows(labels).items():
        counts = np.bincount(labels[rows], minlength=10)
        assert np.abs(counts - SHARES[name] * np.array(CLASS_COUNTS)).max() <= 1


def test_the_split_is_the_same_on_every_machine():
    rows = split_rows(read_digits()[1])
    digest = hashlib.sha256(b"".join(rows[name].astype("<i8").tobytes() for name in ("train", "valid", "test")))
    assert digest.hexdigest() == "7f848b543a738648ee03e1581f802642ba4f656bd8b1cbf02fdf594e25565a53"


def test_another_seed_gives_another_split():
    labels = read_digits()[1]
    assert not np.array_equal(split_rows(labels)["test"], split_rows(labels, seed=1)["test"])


def test_the_sets_are_the_parts_of_the_split():
    images, labels = read_digits()
    parts = split_rows(labels)
    for name, rows in (("train", parts["train"]), ("eval", parts["valid"]), ("test", parts["test"])):
        (batch,) = DigitsDataset(name, 2000)
        assert np.array_equal(batch["data"][:, 0].cpu().numpy() * 16, images[rows])
        assert np.array_equal(batch["target"].cpu().numpy(), labels[rows])
    assert {name: len(DigitsDataset(name, 64)) for name in SETS} == {
        "train": 1078, "eval": 360, "test": 359, "debug": 100, "all": 1797
    }  # fmt: skip


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_has_the_promised_shapes_and_types(shuffle):
    batch = next(iter(DigitsDataset("train", 64, shuffle=shuffle)))
    assert (batch["data"].shape, batch["data"].dtype) == ((64, 1, 8, 8), torch.float32)
    assert (batch["target"].shape, batch["target"].dtype) == ((64,), torch.int64)
    assert (batch["data"].min(), batch["data"].max()) == (0, 1)


def test_the_older_form_gives_the_training_set_and_counts_from_1():
    dataset = DigitsDataset(64, shuffle=True)
    assert (len(dataset), dataset.index_base) == (1078, 1)
    assert torch.equal(dataset[1]["data"], DigitsDataset("train", 64)[0]["data"])


def test_a_set_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"no set 'valid'; there are 'train', 'eval', 'test', 'debug', 'all'"):
        DigitsDataset("valid", 64)
