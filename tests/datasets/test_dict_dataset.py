import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.datasets import DictDataset
from jimmy_manager.errors import ConfigError, DatasetError


def numbered(count=10, **arguments):
    data = torch.arange(count)
    return DictDataset({"data": data, "twice": torch.stack([data, 2 * data], 1)}, 4, **arguments)


@given(shuffle=st.booleans(), drop_last=st.booleans(), count=st.integers(1, 30))
def test_a_pass_holds_the_rows_of_every_tensor_together(shuffle, drop_last, count):
    dataset = numbered(count, drop_last=drop_last, shuffle=shuffle)
    batches = list(dataset)
    assert [len(batch["data"]) for batch in batches] == [dataset.samples_in(i) for i in range(dataset.n_batches)]
    for batch in batches:
        assert torch.equal(batch["twice"], torch.stack([batch["data"], 2 * batch["data"]], 1))
    seen = [row for batch in batches for row in batch["data"].tolist()]
    assert len(set(seen)) == len(seen) == (count - count % 4 if drop_last else count)
    assert shuffle or seen == sorted(seen)


def test_batches_in_plain_order_are_views_and_shuffled_ones_are_not():
    dataset = numbered()
    storage = dataset.tensors["data"].untyped_storage().data_ptr()
    assert all(batch["data"].untyped_storage().data_ptr() == storage for batch in dataset)
    dataset.shuffle = True
    assert all(batch["data"].untyped_storage().data_ptr() != storage for batch in dataset)
    assert dataset[1]["data"].tolist() == [4, 5, 6, 7]


def test_a_subclass_may_count_its_batches_from_1():
    class FromOne(DictDataset):
        index_base = 1

    dataset = FromOne({"data": torch.arange(10)}, 4)
    assert [batch["data"].tolist() for batch in dataset] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert dataset[1]["data"].tolist() == [0, 1, 2, 3]


def test_fewer_samples_than_rows_may_be_asked_for():
    dataset = numbered()
    dataset.n_samples = 6
    assert [batch["data"].tolist() for batch in dataset] == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0)[::-1],
        np.arange(6, dtype=">i4"),
        np.frombuffer(bytes(range(6)), dtype=np.uint8),
        np.arange(12, dtype=np.float32).reshape(6, 2).T[:1].T,
    ],
)
def test_numpy_arrays_are_taken_as_they_come(array):
    (batch,) = DictDataset({"data": array}, 6)
    assert np.array_equal(batch["data"].numpy(), array)
    assert batch["data"].dtype == torch.from_numpy(np.empty(1, array.dtype.newbyteorder("="))).dtype


def test_an_array_that_torch_could_share_is_not_copied():
    array = np.arange(6.0)
    assert DictDataset({"data": array}, 6).tensors["data"].data_ptr() == array.ctypes.data


def test_a_device_is_moved_to_once():
    dataset = DictDataset({"data": torch.arange(6), "target": np.arange(6)}, 3, shuffle=True, device="meta")
    assert {value.device.type for value in dataset.tensors.values()} == {"meta"}
    assert next(iter(dataset))["target"].device.type == "meta"


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({}, "there are no tensors"),
        ({"a": torch.ones(3), "b": torch.ones(4)}, r"differ in their lengths, \{'a': 3, 'b': 4\}"),
        ({"a": torch.ones(3), "b": torch.ones(3, device="meta")}, r"devices, \{'a': 'cpu', 'b': 'meta'\}; pass "),
        ({"a": [1, 2]}, "'a' is of type list; it must be a tensor or a numpy array"),
        ({"a": torch.tensor(1)}, "'a' is a scalar"),
        ({"a": np.array(["x", "y"])}, "array 'a' is of dtype <U1, which torch does not have"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused_with_its_name(tensors, complaint):
    with pytest.raises(DatasetError, match=complaint):
        DictDataset(tensors, 2)


def test_a_split_deals_every_row_to_one_set_alike_for_a_seed():
    tensors = {"data": torch.arange(50), "target": np.arange(50) * 3}
    sets = DictDataset.split(tensors, 8, seed=5)
    assert {name: len(each) for name, each in sets.items()} == {"train": 40, "eval": 5, "test": 5}
    assert [(each.set_name, each.shuffle) for each in sets.values()] == [
        ("train", True), ("eval", False), ("test", False)
    ]  # fmt: skip
    assert sorted(torch.cat([each.tensors["data"] for each in sets.values()]).tolist()) == list(range(50))
    assert all(torch.equal(each.tensors["target"], each.tensors["data"] * 3) for each in sets.values())
    again, other = DictDataset.split(tensors, 8, seed=5), DictDataset.split(tensors, 8, seed=6)
    assert torch.equal(again["train"].tensors["data"], sets["train"].tensors["data"])
    assert not torch.equal(other["train"].tensors["data"], sets["train"].tensors["data"])


def test_a_split_passes_arguments_on():
    sets = DictDataset.split({"data": torch.arange(9)}, 2, {"a": 1 / 3, "b": 2 / 3}, drop_last=True, shuffle=True)
    assert [(len(each), each.n_batches, each.shuffle) for each in sets.values()] == [(3, 1, True), (6, 3, True)]


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ConfigError, match=r"shares are \{'a'.*sum to 1"):
        DictDataset.split({"data": torch.arange(9)}, 2, shares)
