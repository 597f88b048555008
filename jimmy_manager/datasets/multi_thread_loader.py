"""`MultiThreadLoader`: threads that make the next batches of a dataset while a step computes.

One pass has three states. *Open*: workers draw positions in turn, never more than a window ahead of the consumer, and
lay down each batch, or the exception in its place, under its position; the consumer waits for the position that is
next. *Closed*, by the end, an exception, ``close()`` or the garbage collector: workers finish the batch at hand and
end. *Ended*: no thread is left. Only `_Pass` knows of these, and all of its state is guarded by one condition.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from jimmy_manager.datasets.jimmy_dataset import Batch
from jimmy_manager.datasets.nested_tensors import map_tensors
from jimmy_manager.devices import DEVICE
from jimmy_manager.errors import ConfigError, DatasetError

log = logging.getLogger(__name__)

_CLOSE_WAIT_S = 5.0


class MultiThreadLoader:
    """Prefetch the batches of ``dataset`` in ``num_workers`` threads, in the order of the dataset.

    For a ``__getitem__`` that waits, for files or a network, or computes outside of the interpreter's lock; one that
    indexes tensors in memory is faster without. At most ``max(queue_size, num_workers)`` batches are ready or in the
    making. Any dataset with the protocol of `JimmyDataset` will do; one without ``open_pass`` is read by one thread.

    On CUDA batches are copied to ``device``, `DEVICE` unless given, from pinned memory and on a stream of their own,
    on which ``__getitem__`` runs as well: the data must not change during a pass.

    ``len`` is the number of batches. The order of a pass is drawn when it starts, so ``state_dict``, taken before,
    resumes it exactly, whatever was prefetched since. Not promised: that random augmentation in ``__getitem__`` is
    reproducible where it draws from a generator that threads share, such as torch's global one.
    """

    def __init__(
        self, dataset: Any, num_workers: int = 1, queue_size: int = 3, *, device: torch.device | str | None = None
    ) -> None:
        for name, value in (("num_workers", num_workers), ("queue_size", queue_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} of MultiThreadLoader is {value!r}; it must be an integer from 1")
        self.dataset = dataset
        self.num_workers = num_workers
        self.queue_size = queue_size
        self.device = torch.device(DEVICE if device is None else device)
        self._newest: Callable[[], _Prefetched | None] = lambda: None

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.n_batches

    @property
    def n_batches(self) -> int:
        """The number of batches of a pass."""
        return int(self.dataset.n_batches)

    @property
    def n_samples(self) -> int:
        """The number of samples of the dataset."""
        return len(self.dataset)

    def samples_in(self, position: int) -> int:
        """Return how many samples the batch at ``position`` of a pass holds."""
        return int(self.dataset.samples_in(position))

    def state_dict(self) -> dict[str, Any]:
        """Return what determines the order of the dataset's next pass."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.dataset.load_state_dict(state)

    def manual_seed(self, seed: int) -> Self:
        """Seed the dataset, and return this loader."""
        self.dataset.manual_seed(seed)
        return self

    def queueSize(self) -> int:
        """Return how many batches of the newest pass are ready and wait to be consumed."""
        newest = self._newest()
        return 0 if newest is None else newest.ready

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Start one pass at batch ``start``, now, and return its iterator, whose ``close()`` ends it early."""
        count = self.n_batches
        if not 0 <= start <= count:
            raise DatasetError(f"cannot start at batch {start!r} of {self.dataset!r}; it has {count} batches")
        is_random_access = hasattr(self.dataset, "open_pass")
        read = self.dataset.open_pass() if is_random_access else _in_turn(self.dataset.batches(start))
        workers = min(self.num_workers if is_random_access else 1, count - start)
        transfer = _SideStream(self.device) if self.device.type == "cuda" else _NoTransfer()
        window = max(self.queue_size, self.num_workers)
        newest = _Prefetched(_Pass(read, range(start, count), window, transfer), workers)
        self._newest = weakref.ref(newest)
        return newest


class _Prefetched(Iterator[Batch]):
    """The consumer's side of one pass. No thread refers to it, so that it can be collected while they work."""

    def __init__(self, shared: _Pass, workers: int) -> None:
        self._pass = shared
        names = [f"MultiThreadLoader-{i}" for i in range(workers)]
        # Daemons, because at its exit the interpreter waits for all others before it calls what ends these: `_end`.
        threads = [threading.Thread(target=_work, args=(shared,), name=name, daemon=True) for name in names]
        self.close = weakref.finalize(self, _end, shared, threads)
        for thread in threads:
            thread.start()

    def __next__(self) -> Batch:
        try:
            return self._pass.collect()
        except BaseException:
            self.close()
            raise

    @property
    def ready(self) -> int:
        return len(self._pass.outcomes)


class _Pass:
    """What the workers and the consumer of one pass share."""

    def __init__(
        self, read: Callable[[int], Batch], positions: range, window: int, transfer: _SideStream | _NoTransfer
    ) -> None:
        self.read = read
        self.transfer = transfer
        self.outcomes: dict[int, tuple[Any, BaseException | None]] = {}
        self._untaken, self._wanted, self._stop = positions.start, positions.start, positions.stop
        self._window = window
        self._changed = threading.Condition()

    def take(self) -> int | None:
        """Wait for room in the window and return the next position to be read; None where there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: self._untaken >= self._stop or self._untaken < self._wanted + self._window)
            if self._untaken >= self._stop:
                return None
            self._untaken += 1
            return self._untaken - 1

    def lay_down(self, position: int, batch: Any, error: BaseException | None) -> None:
        """Hand the batch at ``position`` to the consumer, or what was raised instead; once closed, drop it."""
        with self._changed:
            if position < self._stop:
                self.outcomes[position] = batch, error
            self._changed.notify_all()

    def collect(self) -> Batch:
        """Wait for the next batch in order and return it; raise what its worker raised, or StopIteration at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted >= self._stop or self._wanted in self.outcomes)
            if self._wanted >= self._stop:
                raise StopIteration
            batch, error = self.outcomes.pop(self._wanted)
            self._wanted += 1
            self._changed.notify_all()
        if error is None:
            return self.transfer.receive(batch)
        try:
            raise error
        finally:
            del error  # this frame is in its traceback: a circle that would keep all of them alive

    def close(self) -> None:
        """Let no position be read or waited for any more."""
        with self._changed:
            self._stop = self._untaken = self._wanted = 0
            self.outcomes.clear()
            self._changed.notify_all()


def _work(shared: _Pass) -> None:
    while (position := shared.take()) is not None:
        shared.lay_down(position, *_attempt(shared, position))


def _attempt(shared: _Pass, position: int) -> tuple[Any, BaseException | None]:
    try:
        return shared.transfer.send(shared.read, position), None
    except BaseException as error:  # noqa: BLE001  the consumer raises it, and waits for ever without
        return None, error


def _end(shared: _Pass, threads: list[threading.Thread]) -> None:
    shared.close()
    deadline = time.monotonic() + _CLOSE_WAIT_S
    for thread in threads:
        # The garbage collector may call this in any thread, also in one of these.
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s still reads a batch that nobody waits for; it ends when that is done", thread.name)
    shared.transfer.close()


def _in_turn(batches: Iterator[Batch]) -> Callable[[int], Batch]:
    def read(position: int) -> Batch:
        for batch in batches:
            return batch
        raise DatasetError(f"the dataset ended before batch {position}, although its n_batches counts more")

    return read


class _NoTransfer:
    """Batches stay where the dataset made them."""

    def send(self, read: Callable[[int], Batch], position: int) -> Batch:
        return read(position)

    def receive(self, batch: Batch) -> Batch:
        return batch

    def close(self) -> None:
        pass


class _SideStream:
    """Batches are made and copied on one CUDA stream, and used on the one that is current for the consumer."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        # What the dataset holds, and the order of this pass, may still be on their way.
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def send(self, read: Callable[[int], Batch], position: int) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            batch = map_tensors(read(position), self._copy)
            return batch, self._stream.record_event()

    def receive(self, sent: tuple[Batch, torch.cuda.Event]) -> Batch:
        batch, event = sent
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        # Without this the allocator would give their memory back to the side stream while a step still reads it.
        map_tensors(batch, lambda tensor: tensor.record_stream(current))
        return batch

    def close(self) -> None:
        # What is freed from now on may still be read by a copy that nobody waited for.
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def _copy(self, tensor: Tensor) -> Tensor:
        pinned = tensor.pin_memory() if tensor.device.type == "cpu" else tensor
        return pinned.to(self._device, non_blocking=True)
