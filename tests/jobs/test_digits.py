import gzip
import hashlib

import numpy as np
import pytest
import torch

from jobs import digits

# Of the text inside, which is what scikit-learn ships; the compressed bytes depend on the compressor.
DIGEST = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_data_are_the_published_bytes_and_their_licence_says_so():
    assert hashlib.sha256(gzip.decompress(digits.DATA.read_bytes())).hexdigest() == DIGEST
    licence = digits.DATA.with_name("DIGITS-LICENSE.md").read_text()
    assert DIGEST in licence
    assert "CC BY 4.0" in licence
    assert "https://doi.org/10.24432/C50P49" in licence


def test_the_data_are_1797_images_of_8x8_with_known_class_counts():
    images, labels = digits.read_digits()
    assert images.shape == (1797, 8, 8)
    assert images.min() == 0
    assert images.max() == 16
    assert np.bincount(labels).tolist() == CLASS_COUNTS


def test_the_split_deals_every_row_to_exactly_one_part():
    rows = digits.split_rows(digits.read_digits()[1])
    assert {name: len(part) for name, part in rows.items()} == {"train": 1078, "valid": 360, "test": 359}
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(1797))


def test_the_split_gives_each_part_its_share_of_every_digit():
    labels = digits.read_digits()[1]
    for name, rows in digits.split_rows(labels).items():
        counts = np.bincount(labels[rows], minlength=10)
        assert np.abs(counts - digits.SHARES[name] * np.array(CLASS_COUNTS)).max() <= 1


def test_the_split_is_the_same_on_every_machine():
    rows = digits.split_rows(digits.read_digits()[1])
    digest = hashlib.sha256(b"".join(rows[name].astype("<i8").tobytes() for name in ("train", "valid", "test")))
    assert digest.hexdigest() == "7f848b543a738648ee03e1581f802642ba4f656bd8b1cbf02fdf594e25565a53"


def test_another_seed_gives_another_split():
    labels = digits.read_digits()[1]
    assert not np.array_equal(digits.split_rows(labels)["test"], digits.split_rows(labels, seed=1)["test"])


def test_images_come_as_floats_between_0_and_1_beside_their_digits():
    images, labels = digits.read_digits()
    inputs, targets = digits.load_splits()["valid"]
    rows = digits.split_rows(labels)["valid"]
    assert inputs.shape == (360, 1, 8, 8)
    assert inputs.dtype == torch.float32
    assert inputs.max() == 1
    assert torch.equal(inputs[:, 0] * 16, torch.from_numpy(images[rows]).float())
    assert targets.tolist() == labels[rows].tolist()


@pytest.mark.parametrize(("arch", "width"), [("mlp", 32), ("mlp", 128), ("cnn", 4), ("cnn", 16)])
def test_each_network_gives_ten_logits_an_image(arch, width):
    assert digits.build_network(arch, width)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'rnn'; there are 'mlp' and 'cnn'"):
        digits.build_network("rnn", 8)
