"""Several processes that train one model: each takes its rows of every batch, and their gradients are summed.

Not torch's ``DistributedDataParallel``: that has to see a ``forward`` before each ``backward``, while here the model's
own ``trainStep`` calls both. The price is that gradients are exchanged after the backward pass, not during it.
"""

from __future__ import annotations

import atexit
import functools
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jimmy_manager.devices import DEVICE
from jimmy_manager.errors import DatasetError
from jimmy_manager.models.jimmy_model import JimmyModel

Batch = Mapping[str, Any]


class ProcessGroup:
    """The processes of a ``torchrun``; all of them must call each method, but `share` and `shares`, at the same point.

    A batch of N rows is cut into rows for each process, and losses are weighed by ``rows / N``, so that gradients and
    means are those of one process with the whole batch, to rounding. What differs: batch normalisation sees the rows of
    its process alone (as in torch's own, without ``SyncBatchNorm``), and the running statistics are those of the first
    process; random numbers drawn in a step belong to other rows; and a loss that is no mean over samples, such as
    `MaskedLoss` and `SequentialLossWithLength`, which average over what is selected, is still weighed by rows, so that
    an element counts more where few of them are selected. A batch with fewer rows than there are processes is computed
    whole by each.

    A stop is heeded when losses are read next, after about a second or a step: only there do the processes agree on it.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.weight = 1.0
        self.device = DEVICE if dist.get_backend() == "nccl" else torch.device("cpu")

    @classmethod
    def current(cls) -> ProcessGroup | None:
        """Return the group of this process, joined first if ``torchrun`` started it; None for a process of its own.

        gloo joins processes without a GPU, nccl those with one each.
        """
        if not dist.is_available():
            return None
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
                return None
            if DEVICE.type == "cuda":
                torch.cuda.set_device(DEVICE)
            backend = "nccl" if DEVICE.type == "cuda" else "gloo"
            dist.init_process_group(backend)
            if backend == "gloo":
                # A thread of gloo's may drop the last finished exchange while the interpreter already ends, which
                # aborts the process now and then.
                atexit.register(time.sleep, 0.2)
        return cls() if dist.get_world_size() > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    # Batches

    def shares(self, batches: Iterable[Batch], samples: Iterable[int]) -> Iterator[Batch]:
        """Yield this process's rows of each batch, and set ``weight`` to what they count for."""
        for batch, count in zip(batches, samples, strict=False):
            share, self.weight = self.share(batch, count)
            yield share

    def share(self, batch: Batch, count: int) -> tuple[Batch, float]:
        """Return this process's rows of a batch of ``count`` samples, and their part of all rows."""
        if count < self.size:
            return batch, 1 / self.size
        first, last = self._bounds(count)
        rows = {name: _rows(value, count, first, last) for name, value in batch.items()}
        if all(rows[name] is value for name, value in batch.items()):
            raise DatasetError(
                f"a batch of {count} samples cannot be shared by processes: no entry has as many rows, {sorted(batch)}"
            )
        return rows, (last - first) / count

    def _bounds(self, count: int) -> tuple[int, int]:
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    # Gradients and numbers

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of the gradients of all; a parameter without one counts as zero."""
        by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for each in parameters:
            if each.requires_grad:
                if each.grad is None:
                    each.grad = torch.zeros_like(each)
                by_kind.setdefault((each.grad.dtype, each.grad.device), []).append(each.grad)
        for gradients in by_kind.values():
            flat = torch.cat([each.reshape(-1) for each in gradients])  # one exchange for all of them
            dist.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def sum(self, rows: list[list[float]]) -> list[list[float]]:
        """Return the sums over all processes of a table of numbers."""
        if not rows:
            return []
        table = torch.tensor(rows, dtype=torch.float64, device=self.device)
        # Added up in the order of the ranks: an all_reduce adds in an order that depends on how many rows there are, so
        # that the last digits would depend on how fast the machine is.
        tables = [torch.empty_like(table) for _ in range(self.size)]
        dist.all_gather(tables, table)
        return functools.reduce(torch.add, tables).tolist()

    def mean(self, rows: list[list[float]], samples: list[int]) -> list[list[float]]:
        """Return the means over whole batches of so many ``samples``; each process gives those over its own rows."""
        weights = [1 / self.size if count < self.size else _length(self._bounds(count)) / count for count in samples]
        return self.sum([[value * weight for value in row] for row, weight in zip(rows, weights, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        votes = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(votes)
        return bool(votes.item())

    # States

    def align(self, model: JimmyModel, *sets: Any) -> None:
        """Give every process the weights, the averages and the orders of the samples that the first one has."""
        self.spread([*model.parameters(), *model.buffers()])
        if model.ema is not None:
            model.ema.restart()
        for each in sets:
            if each is not None:
                each.load_state_dict(self.first_of(each.state_dict()))

    def first_of(self, value: Any) -> Any:
        """Return what the first process has here."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process has here, by rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @torch.no_grad()
    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        for each in tensors:
            dist.broadcast(each, src=0)


def _length(bounds: tuple[int, int]) -> int:
    return bounds[1] - bounds[0]


def _rows(value: Any, count: int, first: int, last: int) -> Any:
    is_by_row = (isinstance(value, Tensor) and value.ndim > 0) or isinstance(value, list | tuple)
    return value[first:last] if is_by_row and len(value) == count else value
