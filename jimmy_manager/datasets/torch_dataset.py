"""`TorchDataset` and `TorchLoader`: torch's own datasets and loaders as datasets of this package."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from jimmy_manager.datasets.jimmy_dataset import Batch, JimmyDataset
from jimmy_manager.datasets.nested_tensors import map_tensors
from jimmy_manager.devices import DEVICE
from jimmy_manager.errors import CheckpointError, ConfigError, DatasetError, HookError

KEYS = ("data", "target")


class TorchDataset(JimmyDataset):
    """Batches of a ``torch.utils.data.Dataset``, or of anything with ``len`` and ``[i]``.

    Given a DataLoader, it is a `TorchLoader`.

    ::

        TorchDataset(dataset, batch_size=64, shuffle=True)
        TorchDataset(DataLoader(dataset, batch_size=64, shuffle=True, num_workers=4))

    Samples are put together by ``collate``, torch's ``default_collate`` unless given. A batch that is then a tuple or
    list is given the names in ``keys``, a lone tensor the first of them; a dict stays. Its tensors are moved to
    ``device``. Samples are read one by one in this thread: `MultiThreadLoader` or a DataLoader reads ahead.
    """

    def __new__(cls, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        return TorchLoader(source, *args, **kwargs) if isinstance(source, DataLoader) else super().__new__(cls)

    def __init__(
        self,
        source: Any,
        batch_size: int | None = None,
        drop_last: bool = False,
        shuffle: bool = False,
        set_name: str = "all",
        *,
        keys: Sequence[str] = KEYS,
        collate: Callable[[list[Any]], Any] = default_collate,
        device: torch.device | str = DEVICE,
    ) -> None:
        super().__init__(set_name, batch_size, drop_last, shuffle)
        if isinstance(source, IterableDataset) or not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise DatasetError(
                f"{type(source).__name__} cannot be shuffled or resumed, because it lacks len() or [i]; "
                "give it both, or pass TorchDataset a DataLoader that has a length"
            )
        self.source = source
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.collate = collate
        self.device = torch.device(device)
        self.n_samples = len(source)

    def __getitem__(self, idx: int) -> Batch:
        start = (idx - (self.index_base or 0)) * self.batch_size
        rows = self._indices[start : start + self.batch_size].tolist()
        read_many = getattr(self.source, "__getitems__", None)
        samples = [self.source[row] for row in rows] if read_many is None else read_many(rows)
        return _as_dict(self.collate(samples), self.keys, self.device)


class TorchLoader:
    """Batches of a ``DataLoader`` that has a length; ``keys`` and ``device`` as in `TorchDataset`.

    The state of the next pass is that of the generators of the loader and its sampler; of torch's global one where
    they have none. A pass draws its order, and is brought to the batch where it starts, within ``batches``: whoever
    resumes in the middle of a pass restores the global generators after that call. Not promised: ``samples_in`` where
    a batch sampler makes batches of different sizes; and where the loader has ``persistent_workers``, nested passes,
    and after a resume what its workers themselves draw at random.
    """

    def __init__(
        self, source: DataLoader[Any], *, keys: Sequence[str] = KEYS, device: torch.device | str = DEVICE, **others: Any
    ) -> None:
        if others:
            names = ", ".join(others)
            raise ConfigError(f"a DataLoader has its own {names}; pass {names} to DataLoader instead of TorchDataset")
        try:
            len(source)
        except TypeError as error:
            kind = type(source.dataset).__name__
            raise DatasetError(
                f"the DataLoader of {kind} has no length, so a pass has no known end; give {kind} a __len__"
            ) from error
        self.source = source
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Return the number of samples of a pass."""
        if isinstance(self.source.dataset, IterableDataset):
            return len(self.source.dataset)  # type: ignore[arg-type]
        return len(self._sampler())

    @property
    def n_batches(self) -> int:
        """The number of batches of a pass."""
        return len(self.source)

    def samples_in(self, position: int) -> int:
        """Return how many samples the batch at ``position`` of a pass holds."""
        if not 0 <= position < self.n_batches:
            raise DatasetError(f"the DataLoader has no batch at {position!r}; it has {self.n_batches} batches")
        size = getattr(self.source.batch_sampler, "batch_size", self.source.batch_size)
        if size is None:
            raise DatasetError("the sizes of the batches are not known beforehand; give the DataLoader a batch_size")
        return min(size, len(self) - position * size)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Start one pass, now: read and drop the batches before ``start``, and return an iterator over the others."""
        if not 0 <= start <= self.n_batches:
            raise DatasetError(f"cannot start at batch {start!r} of a DataLoader; it has {self.n_batches} batches")
        if getattr(self.source, "_iterator", None) is not None:
            # Workers that persist are seeded once, others for each pass: draw as if they were, or a process that goes
            # on in a later pass, and so begins with new workers, would have other orders from there.
            torch.empty((), dtype=torch.int64).random_(generator=self.source.generator)
        passing = iter(self.source)
        # A sampler draws when it is first asked, so the first batch is read now in any case.
        first = list(itertools.islice(passing, start or 1))
        kept = passing if start else itertools.chain(first, passing)
        return (_as_dict(batch, self.keys, self.device) for batch in kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what determines the order of the next pass; take it before that pass starts."""
        states = {name: generator.get_state() for name, generator in self._generators().items()}
        return states | ({"torch": torch.get_rng_state()} if self._draws_globally() else {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` returned, also torch's global state where that is part of it."""
        generators = self._generators()
        for name in [*generators, *(["torch"] if self._draws_globally() else [])]:
            if name not in state:
                raise CheckpointError(
                    f"the state of a DataLoader has no {name!r}, so the order of its batches cannot be resumed"
                )
        for name, generator in generators.items():
            generator.set_state(state[name].cpu())
        if self._draws_globally():
            torch.set_rng_state(state["torch"].cpu())

    def manual_seed(self, seed: int) -> Self:
        """Seed the generators of the loader and its sampler, and return this dataset; torch's global one is left."""
        for generator in self._generators().values():
            generator.manual_seed(seed)
        return self

    def _sampler(self) -> Any:
        return getattr(self.source.batch_sampler, "sampler", self.source.sampler)

    def _generators(self) -> dict[str, torch.Generator]:
        found = {"loader": self.source.generator, "sampler": getattr(self._sampler(), "generator", None)}
        return {name: generator for name, generator in found.items() if generator is not None}

    def _draws_globally(self) -> bool:
        # The loader draws a seed for its workers in any case, a sampler only where it has a generator at all.
        return self.source.generator is None or getattr(self._sampler(), "generator", ...) is None


def _as_dict(batch: Any, keys: tuple[str, ...], device: torch.device) -> Batch:
    if isinstance(batch, Tensor):
        batch = {keys[0]: batch}
    elif isinstance(batch, tuple) and hasattr(batch, "_asdict"):
        batch = batch._asdict()
    elif isinstance(batch, list | tuple) and len(batch) == len(keys):
        batch = dict(zip(keys, batch, strict=True))
    elif not isinstance(batch, Mapping):
        count = f" with {len(batch)} values" if isinstance(batch, list | tuple) else ""
        raise HookError(
            f"a batch of type {type(batch).__name__}{count} cannot be named by keys={keys!r}; "
            "pass keys= with one name a value, or let each sample be a dict"
        )
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))
