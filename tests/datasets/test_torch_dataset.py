import copy
from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from jimmy_manager.datasets import MultiThreadLoader, TorchDataset, TorchLoader
from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError

ROWS = TensorDataset(torch.arange(10), torch.arange(10) * 3)
Sample = namedtuple("Sample", "x y")


class Dicts(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, row):
        return {"x": row, "y": 3.0 * row}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class CountedStream(Stream):
    def __len__(self):
        return 10


class Noisy(Dataset):
    """Draws from torch's global generator for every sample, as augmentation does."""

    def __len__(self):
        return 12

    def __getitem__(self, row):
        return row, torch.rand(())


def seen(batches, key="data"):
    return [batch[key].tolist() for batch in batches]


def loader(**arguments):
    return TorchDataset(DataLoader(ROWS, **{"batch_size": 4, **arguments}))


def own_generator():
    return torch.Generator().manual_seed(7)


def make_map(shuffle):
    return TorchDataset(ROWS, 4, shuffle=shuffle)


def make_loader(shuffle):
    return loader(shuffle=shuffle)


def make_loader_with_generator(shuffle):
    return loader(shuffle=shuffle, generator=own_generator())


def make_loader_with_sampler(shuffle):
    sampler = RandomSampler(ROWS, generator=own_generator()) if shuffle else SequentialSampler(ROWS)
    return loader(sampler=sampler)


def make_loader_with_batch_sampler(shuffle):
    sampler = RandomSampler(ROWS, generator=own_generator()) if shuffle else SequentialSampler(ROWS)
    return TorchDataset(DataLoader(ROWS, batch_sampler=BatchSampler(sampler, 4, drop_last=False)))


MAKERS = [
    make_map, make_loader, make_loader_with_generator, make_loader_with_sampler, make_loader_with_batch_sampler
]  # fmt: skip


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_a_pass_names_the_values_of_every_sample_once(make, shuffle):
    dataset = make(shuffle)
    assert (len(dataset), dataset.n_batches) == (10, 3)
    batches = list(dataset)
    assert [len(batch["data"]) for batch in batches] == [dataset.samples_in(i) for i in range(3)] == [4, 4, 2]
    assert all(torch.equal(batch["target"], batch["data"] * 3) for batch in batches)
    order = torch.cat([batch["data"] for batch in batches]).tolist()
    assert sorted(order) == list(range(10))
    assert (order == list(range(10))) is not shuffle


@pytest.mark.parametrize("start", [0, 1, 2, 3])
@pytest.mark.parametrize("make", MAKERS)
def test_a_pass_resumes_from_the_state_before_it(make, start):
    dataset = make(shuffle=True)
    list(dataset)
    before = dataset.state_dict()
    whole, following = seen(dataset), seen(dataset)
    resumed = make(shuffle=True)
    resumed.load_state_dict(before)
    assert seen(resumed.batches(start)) == whole[start:]
    assert seen(resumed) == following


@pytest.mark.parametrize("make", MAKERS)
def test_the_order_is_drawn_when_the_pass_is_started(make):
    dataset = make(shuffle=True)
    before = dataset.state_dict()
    passing = dataset.batches()
    torch.rand(100)
    order = seen(passing)
    dataset.load_state_dict(before)
    assert seen(dataset) == order


@pytest.mark.parametrize("make", MAKERS)
def test_each_entry_of_the_state_is_needed_and_its_absence_named(make):
    dataset = make(shuffle=True)
    state = dataset.state_dict()
    assert state
    for name in state:
        with pytest.raises(CheckpointError, match=f"has no '{name}'"):
            dataset.load_state_dict({each: value for each, value in state.items() if each != name})


@pytest.mark.parametrize("make", MAKERS)
def test_a_state_is_loaded_with_weights_only(make, tmp_path):
    torch.save(make(shuffle=True).state_dict(), tmp_path / "state.pth")
    make(shuffle=True).load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))


def test_only_what_a_loader_draws_from_is_in_its_state():
    assert make_loader(shuffle=True).state_dict().keys() == {"torch"}
    assert make_loader_with_generator(shuffle=True).state_dict().keys() == {"loader", "sampler"}
    assert make_loader_with_sampler(shuffle=True).state_dict().keys() == {"sampler", "torch"}


def test_augmentation_that_draws_globally_resumes_with_the_generators_restored_after_the_call():
    dataset = TorchDataset(DataLoader(Noisy(), batch_size=4, shuffle=True))
    before = dataset.state_dict()
    passing = dataset.batches()
    next(passing)
    torch.rand(5)  # a step with dropout
    middle = torch.get_rng_state()
    rest = [(batch["data"].tolist(), batch["target"].tolist()) for batch in passing]
    dataset.load_state_dict(before)
    resumed = dataset.batches(start=1)
    torch.set_rng_state(middle)
    assert [(batch["data"].tolist(), batch["target"].tolist()) for batch in resumed] == rest


@pytest.mark.parametrize("make", [make_map, make_loader_with_generator])
def test_workers_of_a_loader_and_threads_change_nothing(make):
    assert seen(MultiThreadLoader(make(shuffle=True), 3)) == seen(make(shuffle=True))


# Python 3.12 warns of forks where there are threads, which torch always has.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_loader_with_processes_gives_the_same_batches_and_resumes():
    dataset = loader(shuffle=True, generator=own_generator(), num_workers=1)
    assert seen(dataset.batches(start=1)) == seen(make_loader_with_generator(shuffle=True))[1:]


def test_passes_over_a_loader_may_be_nested():
    dataset = make_loader(shuffle=False)
    assert [seen(dataset) for _ in dataset] == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]] * 3


@given(drop_last=st.booleans(), batch_size=st.integers(1, 12))
def test_counts_agree_with_what_a_loader_yields(drop_last, batch_size):
    dataset = loader(batch_size=batch_size, drop_last=drop_last)
    found = seen(dataset)
    assert [len(batch) for batch in found] == [dataset.samples_in(i) for i in range(dataset.n_batches)]


def test_a_sampler_decides_how_many_samples_a_loader_has():
    dataset = loader(sampler=SubsetRandomSampler([1, 3, 5]))
    assert (len(dataset), dataset.n_batches, dataset.samples_in(0)) == (3, 1, 3)


@pytest.mark.parametrize(
    ("source", "keys", "expected"),
    [
        (Dicts(), ("data", "target"), {"x": [0, 1], "y": [0.0, 3.0]}),
        ([Sample(1, 2), Sample(3, 4)], ("data", "target"), {"x": [1, 3], "y": [2, 4]}),
        ([(1, 2, 3), (4, 5, 6)], ("a", "b", "c"), {"a": [1, 4], "b": [2, 5], "c": [3, 6]}),
        ([5, 6, 7], ("data", "target"), {"data": [5, 6]}),
        ([(5,), (6,)], "data", {"data": [5, 6]}),
    ],
)
def test_samples_of_every_usual_kind_become_dicts(source, keys, expected):
    for dataset in (TorchDataset(source, 2, keys=keys), TorchDataset(DataLoader(source, 2), keys=keys)):
        assert {name: value.tolist() for name, value in next(iter(dataset)).items()} == expected


@pytest.mark.parametrize("source", [[(1, 2, 3)] * 4, [("a",)] * 4])
def test_values_without_names_are_refused_with_what_to_pass(source):
    with pytest.raises(HookError, match=r"type (list|tuple) with \d values cannot be named by keys=\('data', "):
        next(iter(TorchDataset(source, 2)))


def test_samples_are_put_together_as_told_and_moved_to_the_device():
    dataset = TorchDataset(ROWS, 4, collate=lambda samples: {"n": len(samples), "x": torch.ones(2)}, device="meta")
    batch = dataset[2]
    assert (batch["n"], batch["x"].device.type) == (2, "meta")


def test_many_samples_are_read_at_once_where_the_source_can():
    class Many(Dicts):
        def __getitems__(self, rows):
            return [(row, 0) for row in rows]

        def __getitem__(self, row):
            raise AssertionError

    assert TorchDataset(Many(), 4)[1]["data"].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("source", [Stream(), CountedStream(), iter([1, 2])])
def test_what_has_no_rows_is_refused_with_the_way_out(source):
    with pytest.raises(DatasetError, match=r"cannot be shuffled or resumed.*pass TorchDataset a DataLoader that has a"):
        TorchDataset(source, 4)


def test_a_stream_passes_through_a_loader_only_with_a_length():
    dataset = TorchDataset(DataLoader(CountedStream(), 4))
    assert (len(dataset), dataset.n_batches, dataset.samples_in(2)) == (10, 3, 2)
    assert seen(dataset.batches(start=1)) == [[4, 5, 6, 7], [8, 9]]
    with pytest.raises(DatasetError, match=r"DataLoader of Stream has no length.*give Stream a __len__"):
        TorchDataset(DataLoader(Stream(), 4))


def test_a_loader_with_arguments_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"a DataLoader has its own shuffle; pass shuffle to DataLoader"):
        TorchDataset(DataLoader(ROWS, 4), shuffle=True)


def test_a_dataset_without_a_batch_size_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size of TorchDataset is None"):
        TorchDataset(ROWS)


def test_batches_of_unknown_size_have_no_number_of_samples():
    dataset = TorchLoader(DataLoader(ROWS, batch_sampler=[[0], [1, 2, 3]]))
    assert seen(dataset) == [[0], [1, 2, 3]]
    with pytest.raises(DatasetError, match="not known beforehand"):
        dataset.samples_in(0)


@pytest.mark.parametrize("start", [-1, 4])
def test_a_start_outside_of_the_pass_is_refused(start):
    with pytest.raises(DatasetError, match=f"cannot start at batch {start}"):
        make_loader(shuffle=False).batches(start)
    with pytest.raises(DatasetError, match=f"no batch at {start}"):
        make_loader(shuffle=False).samples_in(start)


def test_a_map_style_dataset_may_be_copied():
    dataset = TorchDataset(ROWS, 4, shuffle=True)
    assert seen(copy.deepcopy(dataset)) == seen(dataset)
