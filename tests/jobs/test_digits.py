import pytest
import torch

from jimmy_manager.datasets.digits_dataset import read_digits, split_rows
from jobs import digits


def test_images_come_as_floats_between_0_and_1_beside_their_digits():
    images, labels = read_digits()
    inputs, targets = digits.load_splits()["valid"]
    rows = split_rows(labels)["valid"]
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
