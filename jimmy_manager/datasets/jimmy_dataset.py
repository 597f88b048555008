"""`JimmyDataset`: data that lie in memory, handed out as batches that are dictionaries of tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, Self, TypeGuard

import torch
from torch import Tensor

from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError

Batch = dict[str, Any]

_SET_BY_INIT = ("set_name", "batch_size", "drop_last", "shuffle", "_generator", "_reading", "_plain")


class _Reading(threading.local):
    """The order of the pass of which this thread reads a batch at this moment; None while it reads none."""

    order: Tensor | None = None


class JimmyDataset:
    """Base of datasets: a subclass loads tensors, sets ``n_samples``, and returns batch ``idx`` as a dictionary.

    ::

        class Points(JimmyDataset):
            def __init__(self, set_name, batch_size, drop_last=False, shuffle=False):
                super().__init__(set_name, batch_size, drop_last, shuffle)
                self.points = load_points(set_name).to(DEVICE)
                self.n_samples = len(self.points)

            def __getitem__(self, idx):
                rows = self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]
                return {'points': self.points[rows]}

    The older form has no ``set_name``: ``super().__init__(batch_size, drop_last, shuffle)``. Its ``__getitem__`` counts
    batches from 1, that of the newer form from 0; a class attribute ``index_base`` overrides either.

    Each iterator is one pass with an order of its own, so passes may be nested and run in several threads. The orders
    come from a generator of this dataset alone, seeded from ``torch.initial_seed()`` when it is constructed, or by
    `manual_seed`. A batch asked for by hand, ``dataset[0]``, is of the order in which the data lie.

    ``len`` is the number of samples, ``n_batches`` that of batches. With ``drop_last`` and fewer samples than
    ``batch_size`` there are none.
    """

    index_base: int | None = None
    n_samples: int

    def __init__(
        self,
        set_name: str | int | None = None,
        batch_size: int | None = None,
        drop_last: bool = False,
        shuffle: bool = False,
    ) -> None:
        is_older = not isinstance(set_name, str)
        if is_older and set_name is not None:
            # The older form by position: every argument came in under the name of the one before it.
            if batch_size is not None:
                drop_last, shuffle = batch_size, shuffle or drop_last  # type: ignore[assignment]
            set_name, batch_size = None, set_name
        _check_arguments(type(self).__name__, batch_size, drop_last, shuffle)
        self.set_name: str | None = set_name  # type: ignore[assignment]
        self.batch_size = int(batch_size)  # type: ignore[arg-type]
        self.drop_last = drop_last
        self.shuffle = shuffle
        if self.index_base is None:
            self.index_base = 1 if is_older else 0
        self._generator = torch.Generator().manual_seed(torch.initial_seed())
        self._reading = _Reading()
        self._plain: Tensor | None = None

    def __getitem__(self, idx: int) -> Batch:
        owner = type(self).__name__
        raise HookError(f"{owner} has no __getitem__; define one that returns batch idx as a dict of tensors")

    def __len__(self) -> int:
        """Return the number of samples."""
        count = self.n_samples
        if not _is_integer(count) or count < 0:
            owner = type(self).__name__
            raise DatasetError(
                f"n_samples of {owner} is {count!r}, which is no count; "
                f"set self.n_samples = len(...) in __init__ of {owner}"
            )
        return int(count)

    @property
    def n_batches(self) -> int:
        """The number of batches of a pass; an incomplete last one counts unless ``drop_last``."""
        return len(self) // self.batch_size if self.drop_last else -(-len(self) // self.batch_size)

    def samples_in(self, position: int) -> int:
        """Return how many samples the batch at ``position`` of a pass holds; positions count from 0 in either form."""
        left = len(self) - position * self.batch_size
        if position < 0 or left < (self.batch_size if self.drop_last else 1):
            raise DatasetError(f"{type(self).__name__} has no batch at {position!r}; it has {self.n_batches} batches")
        return min(self.batch_size, left)

    @property
    def _indices(self) -> Tensor:
        """The order (n_samples,) int64 on the data's device that ``__getitem__`` slices to find the rows of a batch."""
        order = self._reading.order
        return self._plain_order() if order is None else order

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Draw the order of one pass, now, and return an iterator over its batches from the one at ``start`` on."""
        count = self.n_batches
        if not 0 <= start <= count:
            raise DatasetError(f"{type(self).__name__} cannot start at batch {start!r}; it has {count} batches")
        return map(self.open_pass(), range(start, count))

    def open_pass(self) -> Callable[[int], Batch]:
        """Draw the order of one pass, and return the function that reads its batch at a position, counted from 0.

        Several threads may call that function at once, for positions in any order.
        """
        order, reading, base = self._draw_order(), self._reading, self.index_base or 0
        ends = {0, self.n_batches - 1}

        def read(position: int) -> Batch:
            outer = reading.order
            reading.order = order
            try:
                batch = self[position + base]
            finally:
                reading.order = outer
            # Only the first batch and the last one: to look at each would cost time.
            if position in ends:
                self._check(batch, position + base)
            return batch

        return read

    def manual_seed(self, seed: int) -> Self:
        """Seed the generator of the orders, and return this dataset."""
        self._generator.manual_seed(seed)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return what determines the order of the next pass; take it before that pass starts."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` returned: the next pass has the order that it had then."""
        if "generator" not in state:
            raise CheckpointError(
                f"the state of {type(self).__name__} has no 'generator', so the order of its batches cannot be resumed"
            )
        self._generator.set_state(state["generator"].cpu())

    def _draw_order(self) -> Tensor:
        if not self.shuffle:
            return self._plain_order()
        order = torch.randperm(len(self), generator=self._generator)
        device = self._data_device()
        # From pinned memory the copy need not wait for what the device still computes.
        return order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order.to(device)

    def _plain_order(self) -> Tensor:
        count, device, plain = len(self), self._data_device(), self._plain
        if plain is None or len(plain) != count or plain.device != device:
            plain = self._plain = torch.arange(count, device=device)
        return plain

    def _data_device(self) -> torch.device:
        """Where the first attribute lies that is a tensor with one row a sample; the CPU where there is none."""
        count = len(self)
        for value in vars(self).values():
            if isinstance(value, Tensor) and value is not self._plain and value.ndim and len(value) == count:
                return value.device
        return torch.device("cpu")

    def _check(self, batch: object, idx: int) -> None:
        where = f"{type(self).__name__}[{idx}]"
        if not isinstance(batch, Mapping):
            raise HookError(f"{where} is of type {type(batch).__name__}; __getitem__ must return a dict of tensors")
        tensors = [value for value in batch.values() if isinstance(value, Tensor) and value.ndim]
        if tensors and not any(map(len, tensors)):
            raise HookError(
                f"{where} is empty; its batches are counted from {self.index_base}: "
                "count so in __getitem__, or set index_base on the class; "
                f"or n_samples, {len(self)}, is larger than the data"
            )

    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that are not there.
        owner = type(self).__name__
        if name == "n_samples":
            raise DatasetError(f"{owner} has no n_samples; set self.n_samples = len(...) in __init__ of {owner}")
        if name in _SET_BY_INIT:
            raise DatasetError(
                f"{owner} has no {name}; call super().__init__(set_name, batch_size, drop_last, shuffle) "
                f"in __init__ of {owner}"
            )
        raise AttributeError(f"{owner!r} object has no attribute {name!r}", name=name, obj=self)

    def __getstate__(self) -> dict[str, Any]:
        # What a thread reads right now is no part of a copy, and the plain order need not be.
        return {name: value for name, value in vars(self).items() if name not in ("_reading", "_plain")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _reading=_Reading(), _plain=None)

    def __repr__(self) -> str:
        known = vars(self)
        fields = ("set_name", "n_samples", "batch_size", "drop_last", "shuffle")
        return f"{type(self).__name__}({', '.join(f'{f}={known[f]!r}' for f in fields if f in known)})"


def _is_integer(value: object) -> TypeGuard[int]:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _check_arguments(owner: str, batch_size: object, drop_last: object, shuffle: object) -> None:
    if not _is_integer(batch_size) or batch_size < 1:
        raise ConfigError(f"batch_size of {owner} is {batch_size!r}; it must be an integer from 1")
    for name, flag in (("drop_last", drop_last), ("shuffle", shuffle)):
        if not isinstance(flag, bool):
            raise ConfigError(
                f"{name} of {owner} is {flag!r}; it must be True or False: the arguments are "
                "(set_name, batch_size, drop_last, shuffle), or, without the name of the set, all from batch_size on"
            )
