import copy
import gc
import itertools
import pickle
import threading
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.datasets import DEVICE, JimmyDataset
from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError


class Newer(JimmyDataset):
    """As the quick usage of the newer form has it."""

    def __init__(self, set_name="all", batch_size=4, drop_last=False, shuffle=False, count=10):
        super().__init__(set_name, batch_size, drop_last, shuffle)
        self.data_A = torch.arange(count).to(DEVICE)
        self.data_B = torch.arange(count).float().to(DEVICE) * 2
        self.n_samples = len(self.data_A)

    def __getitem__(self, idx):
        start = idx * self.batch_size
        end = min(start + self.batch_size, self.n_samples)
        indices = self._indices[start:end]
        return {"data_A": self.data_A[indices], "data_B": self.data_B[indices]}


class Older(JimmyDataset):
    """As the quick usage of the older form has it."""

    def __init__(self, batch_size: int, shuffle: bool = False):
        super().__init__(batch_size, drop_last=False, shuffle=shuffle)
        self.data = torch.randn(1000, 128).to(DEVICE)
        self.labels = torch.randint(0, 10, (1000,)).to(DEVICE)
        self.n_samples = len(self.data)

    def __getitem__(self, idx):
        start = (idx - 1) * self.batch_size
        end = min(start + self.batch_size, self.n_samples)
        indices = self._indices[start:end]
        return {"data": self.data[indices], "target": self.labels[indices]}


class Counting(JimmyDataset):
    """Says which batches were asked for, and never looks at the order."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.n_samples = 10

    def __getitem__(self, idx):
        return {"idx": idx}


def rows(batches):
    return [batch["data_A"].tolist() for batch in batches]


def flat(batches):
    return list(itertools.chain.from_iterable(rows(batches)))


def test_the_newer_quick_usage_gives_every_sample_once_a_pass():
    train_set = Newer(set_name="train", batch_size=4, shuffle=True)
    for _ in range(3):
        batches = list(train_set)
        assert [len(batch["data_A"]) for batch in batches] == [4, 4, 2]
        assert sorted(flat(batches)) == list(range(10))
        assert all(torch.equal(batch["data_B"], batch["data_A"] * 2.0) for batch in batches)


def test_the_older_quick_usage_gives_every_sample_once_a_pass():
    train_set = Older(batch_size=32, shuffle=True)
    batches = list(train_set)
    assert len(batches) == train_set.n_batches == 32
    assert len(train_set) == 1000
    seen = torch.cat([batch["data"] for batch in batches])
    assert torch.equal(seen.sort(0).values, train_set.data.sort(0).values)


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (("train", 64), {}, ("train", 64, False, False, 0)),
        (("train", 64, True, True), {}, ("train", 64, True, True, 0)),
        ((), {"set_name": "eval", "batch_size": 8, "shuffle": True}, ("eval", 8, False, True, 0)),
        ((64,), {}, (None, 64, False, False, 1)),
        ((64, True), {}, (None, 64, True, False, 1)),
        ((64, False, True), {}, (None, 64, False, True, 1)),
        ((64, True, True), {}, (None, 64, True, True, 1)),
        ((64, True), {"shuffle": True}, (None, 64, True, True, 1)),
        ((64,), {"drop_last": True, "shuffle": True}, (None, 64, True, True, 1)),
        ((), {"batch_size": 64, "drop_last": True}, (None, 64, True, False, 1)),
    ],
)
def test_both_forms_of_the_arguments_are_understood(args, kwargs, expected):
    dataset = Counting(*args, **kwargs)
    found = (dataset.set_name, dataset.batch_size, dataset.drop_last, dataset.shuffle, dataset.index_base)
    assert found == expected


def test_batches_are_counted_from_1_in_the_older_form_and_from_0_in_the_newer():
    assert [batch["idx"] for batch in Counting(4)] == [1, 2, 3]
    assert [batch["idx"] for batch in Counting("all", 4)] == [0, 1, 2]


def test_a_class_may_say_itself_from_where_its_batches_are_counted():
    class FromOne(Counting):
        index_base = 1

    assert [batch["idx"] for batch in FromOne("all", 4)] == [1, 2, 3]
    assert [batch["idx"] for batch in FromOne("all", 4).batches(start=1)] == [2, 3]


@pytest.mark.parametrize("batch_size", [0, -1, True, 2.0, "8", None])
def test_a_batch_size_that_is_no_positive_integer_is_refused(batch_size):
    with pytest.raises(ConfigError, match=r"batch_size of Counting is .*; it must be an integer from 1"):
        Counting("all", batch_size)


def test_a_flag_that_is_no_bool_is_refused_with_the_order_of_the_arguments():
    with pytest.raises(ConfigError, match=r"drop_last of Counting is 32; .*\(set_name, batch_size, drop_last, shuffle"):
        Counting(64, 32)


@given(count=st.integers(0, 40), batch_size=st.integers(1, 12), drop_last=st.booleans(), shuffle=st.booleans())
def test_counts_agree_with_what_a_pass_yields(count, batch_size, drop_last, shuffle):
    dataset = Newer("all", batch_size, drop_last, shuffle, count=count)
    found = rows(dataset)
    assert len(found) == dataset.n_batches == (count // batch_size if drop_last else -(-count // batch_size))
    assert [len(batch) for batch in found] == [dataset.samples_in(i) for i in range(dataset.n_batches)]
    kept = count - count % batch_size if drop_last else count
    seen = list(itertools.chain.from_iterable(found))
    assert len(set(seen)) == len(seen) == kept
    assert shuffle or seen == list(range(kept))


@given(start=st.integers(0, 3), shuffle=st.booleans(), seed=st.integers(0, 99))
def test_a_pass_resumed_at_a_batch_yields_what_was_left(start, shuffle, seed):
    dataset = Newer(shuffle=shuffle).manual_seed(seed)
    list(dataset)
    before = dataset.state_dict()
    whole, following = rows(dataset), rows(dataset)
    resumed = Newer(shuffle=shuffle)
    resumed.load_state_dict(before)
    assert rows(resumed.batches(start=start)) == whole[start:]
    assert rows(resumed) == following


def test_a_state_survives_torch_save_with_weights_only(tmp_path):
    dataset = Newer(shuffle=True, count=50)
    torch.save(dataset.state_dict(), tmp_path / "state.pth")
    expected = rows(dataset)
    dataset.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert rows(dataset) == expected


def test_a_state_without_its_generator_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"state of Newer has no 'generator'"):
        Newer(shuffle=True).load_state_dict({})


@pytest.mark.parametrize("start", [-1, 4])
def test_a_start_outside_of_the_pass_is_refused(start):
    with pytest.raises(DatasetError, match=rf"Newer cannot start at batch {start}; it has 3 batches"):
        Newer().batches(start=start)


@pytest.mark.parametrize("position", [-1, 3])
def test_a_batch_outside_of_the_pass_has_no_number_of_samples(position):
    with pytest.raises(DatasetError, match=rf"Newer has no batch at {position}; it has 3 batches"):
        Newer().samples_in(position)


def test_the_order_is_drawn_when_the_pass_is_opened():
    dataset = Newer(shuffle=True, count=50)
    first, second = dataset.batches(), dataset.batches()
    dataset.manual_seed(1)
    later = rows(second), rows(first)
    dataset = Newer(shuffle=True, count=50)
    assert (rows(dataset), rows(dataset)) == later[::-1]


def test_orders_follow_the_seed_and_nothing_else():
    orders = [flat(Newer(shuffle=True, count=50).manual_seed(seed)) for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
    dataset = Newer(shuffle=True, count=50).manual_seed(3)
    torch.rand(5)
    assert flat(dataset) == orders[0]
    assert flat(dataset) != orders[0]


def test_the_first_seed_is_that_of_torch():
    torch.manual_seed(11)
    dataset = Newer(shuffle=True, count=50)
    assert flat(dataset) == flat(Newer(shuffle=True, count=50).manual_seed(11))


def test_a_pass_leaves_the_generator_of_torch_alone():
    before = torch.get_rng_state()
    list(Newer(shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_passes_may_be_nested():
    dataset = Newer(shuffle=True)
    expected = rows(Newer(shuffle=True))
    outer = []
    for batch in dataset:
        outer.append(batch["data_A"].tolist())
        assert sorted(flat(dataset)) == list(range(10))
    assert outer == expected


def test_two_passes_may_be_advanced_in_turn():
    dataset = Newer(shuffle=True)
    twin = Newer(shuffle=True)
    expected = rows(twin), rows(twin)
    pairs = list(zip(dataset, dataset, strict=True))
    assert tuple(rows(side) for side in zip(*pairs, strict=True)) == expected


def test_threads_may_iterate_over_one_dataset_at_once():
    barrier = threading.Barrier(4, timeout=10)

    class Together(Newer):
        def __getitem__(self, idx):
            barrier.wait()  # all threads stand within a batch before any of them looks at its order
            return super().__getitem__(idx)

    dataset = Together(shuffle=True, batch_size=1, count=20)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(tuple(flat(dataset)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    twin = Newer(shuffle=True, batch_size=1, count=20)
    assert set(seen) == {tuple(flat(twin)) for _ in range(4)}
    assert len(set(seen)) == 4


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_by_hand_is_of_the_plain_order_at_any_time(shuffle):
    dataset = Newer(shuffle=shuffle)
    assert dataset[0]["data_A"].tolist() == [0, 1, 2, 3]
    for _ in dataset:
        assert dataset[1]["data_A"].tolist() == [4, 5, 6, 7]
    assert dataset[0]["data_A"].tolist() == [0, 1, 2, 3]
    older = Older(32, shuffle)
    assert torch.equal(older[1]["target"], older.labels[:32])


def test_a_getitem_that_reads_other_batches_reads_them_of_the_same_pass():
    class Mixed(Newer):
        def __getitem__(self, idx):
            if self.shuffle:
                self.shuffle = False
                assert flat(self) == list(range(10))
            mine, other = super().__getitem__(idx), super().__getitem__((idx + 1) % 2)
            return {**mine, "next": other["data_A"]}

    batches = list(Mixed(batch_size=5, shuffle=True))
    assert flat(batches) == flat(Newer(batch_size=5, shuffle=True))
    for batch in batches:
        assert sorted(torch.cat([batch["data_A"], batch["next"]]).tolist()) == list(range(10))


def test_the_order_lies_where_the_data_lie():
    dataset = Newer(shuffle=True)
    dataset.data_A = dataset.data_A.to("meta")
    assert dataset._indices.device.type == "meta"
    assert next(iter(dataset))["data_A"].device.type == "meta"
    order = dataset._draw_order()
    assert (order.dtype, order.device.type) == (torch.int64, "meta")


def test_the_number_of_samples_may_change_between_passes():
    dataset = Newer(shuffle=True)
    assert dataset[0]["data_A"].tolist() == [0, 1, 2, 3]
    dataset.n_samples = 3
    assert dataset._indices.tolist() == [0, 1, 2]
    assert sorted(flat(dataset)) == [0, 1, 2]
    assert dataset[0]["data_A"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("method", [len, iter, lambda d: d.n_batches, lambda d: d._indices])
def test_a_dataset_without_n_samples_says_what_to_write(method):
    class NoCount(JimmyDataset):
        def __init__(self):
            super().__init__("all", 4)

    assert repr(NoCount()) == "NoCount(set_name='all', batch_size=4, drop_last=False, shuffle=False)"
    with pytest.raises(DatasetError, match=r"NoCount has no n_samples; set self.n_samples = len\(...\) in __init__ of"):
        method(NoCount())


@pytest.mark.parametrize("count", [-1, 2.5, True, None, "10", torch.tensor(3)])
def test_an_n_samples_that_is_no_count_is_refused(count):
    dataset = Newer()
    dataset.n_samples = count
    with pytest.raises(DatasetError, match=r"n_samples of Newer is .*, which is no count; set self.n_samples = len"):
        iter(dataset)


def test_a_subclass_that_forgets_the_base_is_told_so():
    class Forgetful(JimmyDataset):
        def __init__(self):
            self.n_samples = 3

    for use in (iter, lambda d: d.n_batches, lambda d: d._indices, lambda d: d.state_dict()):
        with pytest.raises(DatasetError, match=r"Forgetful has no \w+; call super\(\).__init__\(set_name, "):
            use(Forgetful())


def test_any_other_attribute_that_is_missing_is_an_ordinary_error():
    with pytest.raises(AttributeError, match=r"'Newer' object has no attribute 'nope'"):
        _ = Newer().nope
    assert not hasattr(Newer(), "nope")


def test_a_class_without_getitem_is_told_to_write_one():
    dataset = JimmyDataset("all", 4)
    dataset.n_samples = 8
    with pytest.raises(HookError, match=r"JimmyDataset has no __getitem__; define one"):
        next(iter(dataset))


def test_a_batch_that_is_no_dict_is_refused_with_the_name_of_the_class():
    class Pairs(Newer):
        def __getitem__(self, idx):
            return tuple(super().__getitem__(idx).values())

    with pytest.raises(HookError, match=r"Pairs\[0\] is of type tuple; __getitem__ must return a dict of tensors"):
        next(iter(Pairs()))


def test_batches_counted_from_the_other_end_are_noticed():
    class OlderInNewer(Older):
        index_base = 0

    class NewerInOlder(Newer):
        index_base = 1

    with pytest.raises(HookError, match=r"OlderInNewer\[0\] is empty; its batches are counted from 0.*index_base"):
        list(OlderInNewer(32))
    with pytest.raises(HookError, match=r"NewerInOlder\[3\] is empty; its batches are counted from 1"):
        list(NewerInOlder())


def test_an_empty_last_batch_may_also_be_of_an_n_samples_beyond_the_data():
    class Short(JimmyDataset):
        def __init__(self):
            super().__init__("all", 4)
            self.points = torch.arange(8.0)
            self.n_samples = 9

        def __getitem__(self, idx):
            return {"points": self.points[idx * 4 : (idx + 1) * 4]}

    with pytest.raises(HookError, match=r"Short\[2\] is empty; .*; or n_samples, 9, is larger than the data$"):
        list(Short())


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_copy_goes_on_with_the_same_orders(clone):
    dataset = Newer(shuffle=True, count=50)
    list(dataset)
    twin = clone(dataset)
    state = dataset.state_dict()
    expected = rows(dataset)
    twin.load_state_dict(state)
    assert rows(twin) == expected
    assert twin[0]["data_A"].tolist() == [0, 1, 2, 3]


def test_a_deep_copy_draws_from_a_generator_of_its_own():
    dataset = Newer(shuffle=True, count=50)
    twin = copy.deepcopy(dataset)
    list(twin)
    assert flat(dataset) == flat(Newer(shuffle=True, count=50))


def test_an_abandoned_pass_keeps_nothing_alive():
    dataset = Newer(shuffle=True)
    passes = iter(dataset)
    next(passes)
    gone = weakref.ref(dataset)
    del dataset, passes
    gc.collect()
    assert gone() is None
