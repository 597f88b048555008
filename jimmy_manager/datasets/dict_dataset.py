"""`DictDataset`: named tensors in memory as a dataset, like torch's ``TensorDataset`` with names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from jimmy_manager.datasets.jimmy_dataset import Batch, JimmyDataset
from jimmy_manager.errors import ConfigError, DatasetError


class DictDataset(JimmyDataset):
    """Batches of the rows of named tensors: ``DictDataset({'data': x, 'target': y}, batch_size=64, shuffle=True)``.

    All tensors, or numpy arrays, have one row a sample, shape (n_samples, ...), and lie on one device, or are moved to
    ``device`` once, here. Nothing is copied otherwise, and without ``shuffle`` the batches are views: a step that
    writes into its batch writes into the data.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor | np.ndarray],
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = False,
        set_name: str = "all",
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(set_name, batch_size, drop_last, shuffle)
        self._hold(tensors, device)

    def __getitem__(self, idx: int) -> Batch:
        start = (idx - (self.index_base or 0)) * self.batch_size
        stop = min(start + self.batch_size, self.n_samples)
        order = self._reading.order
        if order is None or order is self._plain:
            return {name: value[start:stop] for name, value in self.tensors.items()}
        rows = order[start:stop]
        # Twice as fast as value[rows].
        return {name: value.index_select(0, rows) for name, value in self.tensors.items()}

    @classmethod
    def split(
        cls,
        tensors: Mapping[str, Tensor | np.ndarray],
        batch_size: int,
        shares: Mapping[str, float] = {"train": 0.8, "eval": 0.1, "test": 0.1},
        *,
        seed: int = 0,
        **arguments: Any,
    ) -> dict[str, Self]:
        """Deal the rows at random to one dataset for each of ``shares``, which sum to 1; the same for equal ``seed``.

        Only the set called ``train`` is shuffled. ``arguments`` go to every dataset and may say otherwise.
        """
        if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
            raise ConfigError(f"shares are {dict(shares)!r}; none may be negative, and they must sum to 1")
        whole = cls(tensors, batch_size)
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
        bounds = np.rint(np.cumsum(list(shares.values()))[:-1] * len(whole)).astype(int).tolist()
        parts = zip(shares, order.tensor_split(bounds), strict=True)
        return {
            name: cls(
                {key: value[rows.to(value.device)] for key, value in whole.tensors.items()},
                **{"batch_size": batch_size, "shuffle": name == "train", "set_name": name, **arguments},
            )
            for name, rows in parts
        }

    def _hold(self, tensors: Mapping[str, Tensor | np.ndarray], device: torch.device | str | None) -> None:
        self.tensors = {name: _as_tensor(name, value, device) for name, value in tensors.items()}
        self.n_samples = _agreed_length(self.tensors)

    def _data_device(self) -> torch.device:
        return next(iter(self.tensors.values())).device


def _as_tensor(name: str, value: object, device: torch.device | str | None) -> Tensor:
    if isinstance(value, np.ndarray):
        # torch warns of arrays that are read-only, and refuses negative strides and foreign byte orders.
        plain = np.require(value, value.dtype.newbyteorder("="), ["C", "W"])
        try:
            value = torch.from_numpy(plain)
        except TypeError as error:
            raise DatasetError(f"array {name!r} is of dtype {plain.dtype}, which torch does not have") from error
    if not isinstance(value, Tensor):
        raise DatasetError(f"{name!r} is of type {type(value).__name__}; it must be a tensor or a numpy array")
    if not value.ndim:
        raise DatasetError(f"{name!r} is a scalar; it must have one row a sample")
    return value if device is None else value.to(device)


def _agreed_length(tensors: Mapping[str, Tensor]) -> int:
    if not tensors:
        raise DatasetError("there are no tensors; pass at least one, {'data': x}")
    for what, found in (
        ("lengths", {name: len(value) for name, value in tensors.items()}),
        ("devices", {name: str(value.device) for name, value in tensors.items()}),
    ):
        if len(set(found.values())) > 1:
            hint = "pass device=" if what == "devices" else "each needs one row a sample"
            raise DatasetError(f"the tensors differ in their {what}, {found}; {hint}")
    return len(next(iter(tensors.values())))
