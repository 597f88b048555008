import contextlib
import gc
import subprocess
import sys
import threading
import time
import traceback
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jimmy_manager.datasets import DEVICE, DictDataset, JimmyDataset, MultiThreadLoader
from jimmy_manager.datasets import multi_thread_loader as module
from jimmy_manager.errors import ConfigError, DatasetError


class Slow(JimmyDataset):
    """Batches of one row; batch ``wait_at`` is slow, batch ``fail_at`` raises."""

    def __init__(self, count=12, fail_at=None, wait=lambda idx: None, shuffle=False):
        super().__init__("all", 1, False, shuffle)
        self.data = torch.arange(count)
        self.n_samples = count
        self.fail_at, self.wait, self.asked = fail_at, wait, []

    def __getitem__(self, idx):
        self.asked.append(idx)
        self.wait(idx)
        if idx == self.fail_at:
            raise FileNotFoundError(f"batch {idx} is gone")
        return {"data": self.data[self._indices[idx : idx + 1]]}


class ProtocolOnly:
    """A dataset with the protocol and nothing else."""

    def __init__(self, dataset, n_batches=None):
        self._dataset = dataset
        self.n_batches = dataset.n_batches if n_batches is None else n_batches

    def __len__(self):
        return len(self._dataset)

    def batches(self, start=0):
        yield from self._dataset.batches(start)


def seen(batches):
    return [batch["data"].item() for batch in batches]


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("MultiThreadLoader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert workers() == []


@pytest.mark.parametrize("num_workers", [1, 3, 8])
def test_any_number_of_workers_keeps_the_order(num_workers):
    dataset = Slow(wait=lambda idx: time.sleep(0.003 * (idx % 3 == 0)))
    loader = MultiThreadLoader(dataset, num_workers)
    assert len(loader) == loader.n_batches == 12
    for _ in range(3):
        assert seen(loader) == list(range(12))


@settings(max_examples=30)
@given(
    count=st.integers(0, 20), num_workers=st.integers(1, 5), queue_size=st.integers(1, 5),
    start=st.integers(0, 20), shuffle=st.booleans(),
)  # fmt: skip
def test_a_pass_is_that_of_the_dataset(count, num_workers, queue_size, start, shuffle):
    start = min(start, count)
    loader = MultiThreadLoader(Slow(count, shuffle=shuffle), num_workers, queue_size)
    twin = Slow(count, shuffle=shuffle)
    assert seen(loader) == seen(twin)
    assert seen(loader.batches(start)) == seen(twin.batches(start))


def test_workers_read_batches_at_the_same_time():
    barrier = threading.Barrier(3, timeout=10)
    loader = MultiThreadLoader(Slow(wait=lambda idx: barrier.wait()), num_workers=3)
    assert seen(loader) == list(range(12))


@pytest.mark.parametrize(("num_workers", "fail_at"), [(1, 0), (1, 5), (4, 5), (4, 11)])
def test_an_exception_arrives_where_it_happened_with_its_traceback(num_workers, fail_at):
    loader = MultiThreadLoader(Slow(fail_at=fail_at), num_workers)
    before = []

    def consume():
        for batch in loader:
            before.append(batch["data"].item())

    with pytest.raises(FileNotFoundError, match=f"batch {fail_at} is gone") as caught:
        consume()
    assert before == list(range(fail_at))
    assert "__getitem__" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_a_pass_that_failed_is_over_and_the_next_one_starts_anew():
    loader = MultiThreadLoader(Slow(fail_at=2))
    passing = iter(loader)
    with pytest.raises(FileNotFoundError):
        list(passing)
    assert list(passing) == []
    loader.dataset.fail_at = None
    assert seen(loader) == list(range(12))


def test_an_exception_that_was_handled_keeps_nothing_alive():
    loader = MultiThreadLoader(Slow(fail_at=0))
    gone = weakref.ref(loader.dataset)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(FileNotFoundError):
            list(loader)
        del loader
        assert gone() is None
    finally:
        gc.enable()


def test_a_worker_that_is_told_to_exit_does_not_leave_the_consumer_waiting():
    loader = MultiThreadLoader(Slow(wait=lambda idx: sys.exit(3)))
    with pytest.raises(SystemExit):
        next(iter(loader))


def test_a_contract_that_the_dataset_breaks_is_reported_as_without_threads():
    class Pairs(Slow):
        def __getitem__(self, idx):
            return 1, 2

    with pytest.raises(TypeError, match=r"Pairs\[0\] is of type tuple"):
        list(MultiThreadLoader(Pairs()))


def test_an_abandoned_loop_ends_its_threads():
    loader = MultiThreadLoader(Slow(), num_workers=3)
    for _ in loader:
        assert workers()
        break
    gc.collect()
    assert workers() == []


def test_an_iterator_that_was_never_advanced_ends_its_threads():
    passing = iter(MultiThreadLoader(Slow(), num_workers=3))
    assert len(workers()) == 3
    del passing
    gc.collect()
    assert workers() == []


def test_an_iterator_in_a_circle_of_references_ends_its_threads():
    circle = [iter(MultiThreadLoader(Slow(), num_workers=3))]
    circle.append(circle)
    del circle
    gc.collect()
    assert workers() == []


def test_an_iterator_that_is_collected_in_one_of_its_threads_ends_them():
    kept, has_begun = [], threading.Event()

    def drop(idx):
        has_begun.wait(10)
        kept.clear()

    kept.append(iter(MultiThreadLoader(Slow(wait=drop), num_workers=2)))
    has_begun.set()
    wait_until(lambda: not workers())
    assert kept == []


def test_close_ends_a_pass_early():
    passing = iter(MultiThreadLoader(Slow(), num_workers=2))
    assert next(passing)["data"].item() == 0
    passing.close()
    assert workers() == []
    assert list(passing) == []


def test_close_waits_a_bounded_time_for_a_batch_that_takes_long(monkeypatch, caplog):
    monkeypatch.setattr(module, "_CLOSE_WAIT_S", 0.05)
    go_on = threading.Event()
    passing = iter(MultiThreadLoader(Slow(wait=lambda idx: go_on.wait(10))))
    start = time.monotonic()
    passing.close()
    assert time.monotonic() - start < 5
    assert "MultiThreadLoader-0 still reads a batch" in caplog.text
    go_on.set()
    for thread in workers():
        thread.join(10)
    assert passing.ready == 0


def test_the_interpreter_ends_while_a_pass_is_open():
    code = """
import torch
from jimmy_manager.datasets import *
passing = iter(MultiThreadLoader(DictDataset({'data': torch.arange(1000)}, 1), 2))
print(next(passing)['data'].item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@pytest.mark.parametrize(("num_workers", "queue_size", "window"), [(1, 3, 3), (2, 5, 5), (4, 1, 4)])
def test_no_more_batches_are_made_ahead_than_promised(num_workers, queue_size, window):
    dataset = Slow()
    loader = MultiThreadLoader(dataset, num_workers, queue_size)
    assert loader.queueSize() == 0
    passing = iter(loader)
    for consumed in range(3):
        wait_until(lambda: loader.queueSize() == window)
        assert len(dataset.asked) == consumed + window
        next(passing)
    passing.close()
    assert loader.queueSize() == 0


def wait_until(is_so):
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_consumed_batch_is_kept_alive_by_nobody():
    dataset = Slow()
    loader = MultiThreadLoader(dataset, num_workers=1, queue_size=1)
    passing = iter(loader)
    batch = next(passing)
    wait_until(lambda: loader.queueSize() == 1)
    assert [each for each in gc.get_referrers(batch) if each is not sys._getframe()] == []
    passing.close()


def test_passes_may_be_nested_and_advanced_in_turn():
    loader = MultiThreadLoader(Slow(4), num_workers=2)
    assert [(a, b) for a in seen(loader) for b in seen(loader)] == [(a, b) for a in range(4) for b in range(4)]
    pairs = [(a["data"].item(), b["data"].item()) for a, b in zip(loader, loader, strict=True)]
    assert pairs == [(a, a) for a in range(4)]


def test_a_dataset_with_the_protocol_alone_is_read_by_one_thread():
    loader = MultiThreadLoader(ProtocolOnly(Slow()), num_workers=4)
    passing = iter(loader)
    assert len(workers()) == 1
    assert seen(passing) == list(range(12))
    assert seen(loader.batches(start=9)) == [9, 10, 11]


def test_a_loader_may_wrap_another():
    assert seen(MultiThreadLoader(MultiThreadLoader(Slow(), 3))) == list(range(12))


def test_a_dataset_that_ends_too_early_is_reported():
    with pytest.raises(DatasetError, match=r"ended before batch 12, although its n_batches counts more"):
        list(MultiThreadLoader(ProtocolOnly(Slow(), n_batches=14)))


def test_a_pass_resumes_from_the_state_before_it_whatever_was_prefetched():
    loader = MultiThreadLoader(Slow(shuffle=True), num_workers=3, queue_size=6)
    before = loader.state_dict()
    passing = iter(loader)
    part = [next(passing)["data"].item() for _ in range(5)]
    passing.close()
    after = loader.state_dict()
    resumed = MultiThreadLoader(Slow(shuffle=True), num_workers=1)
    resumed.load_state_dict(before)
    rest = seen(resumed.batches(start=5))
    assert sorted(part + rest) == list(range(12))
    assert torch.equal(resumed.state_dict()["generator"], after["generator"])


def test_counts_are_those_of_the_dataset():
    loader = MultiThreadLoader(DictDataset({"data": torch.arange(10)}, 4))
    assert (loader.n_batches, loader.n_samples, len(loader)) == (3, 10, 3)
    assert [loader.samples_in(i) for i in range(3)] == [4, 4, 2]


@pytest.mark.parametrize("start", [-1, 13])
def test_a_start_outside_of_the_pass_is_refused(start):
    with pytest.raises(DatasetError, match=f"cannot start at batch {start}"):
        MultiThreadLoader(Slow()).batches(start)


@pytest.mark.parametrize("name", ["num_workers", "queue_size"])
@pytest.mark.parametrize("value", [0, -1, True, 2.5, "2"])
def test_counts_of_workers_and_batches_must_be_positive(name, value):
    with pytest.raises(ConfigError, match=rf"{name} of MultiThreadLoader is {value!r}; it must be an integer from 1"):
        MultiThreadLoader(Slow(), **{name: value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_arrive_there_in_order():
    data = torch.randn(4096, 256)
    loader = MultiThreadLoader(DictDataset({"data": data}, 64, shuffle=True), num_workers=3)
    twin = DictDataset({"data": data}, 64, shuffle=True)
    for batch, expected in zip(loader, twin, strict=True):
        assert batch["data"].device.type == DEVICE.type == "cuda"
        doubled = batch["data"] * 2
        del batch
        assert torch.equal(doubled.cpu(), expected["data"] * 2)
