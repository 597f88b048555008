"""`DigitsDataset`: 1 797 handwritten digits of 8x8 pixels, which come with this package (see DIGITS-LICENSE.md)."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from jimmy_manager.datasets.dict_dataset import DictDataset
from jimmy_manager.datasets.jimmy_dataset import JimmyDataset
from jimmy_manager.devices import DEVICE
from jimmy_manager.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = Path(__file__).with_name("digits.csv.gz")
SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
SETS = ("train", "eval", "test", "debug", "all")


class DigitsDataset(DictDataset):
    """Batches of ``data`` (B, 1, 8, 8) float32, of values 0..1, and ``target`` (B,) int64, on ``device``.

    The sets: ``train`` (1 078 images), ``eval`` (360) and ``test`` (359), each with the same mix of digits, the same
    on every machine; ``debug``, the first 100 of ``train``; ``all``. The older form, without ``set_name``, gives
    ``train``.
    """

    def __init__(
        self,
        set_name: Literal["train", "eval", "test", "debug", "all"] | int | None = None,
        batch_size: int | None = None,
        drop_last: bool = False,
        shuffle: bool = False,
        *,
        device: torch.device | str = DEVICE,
    ) -> None:
        JimmyDataset.__init__(self, set_name, batch_size, drop_last, shuffle)
        images, digits = read_digits()
        rows = _rows_of("train" if self.set_name is None else self.set_name, digits)
        data = torch.from_numpy(images[rows]).float().unsqueeze(1) / 16
        self._hold({"data": data, "target": torch.from_numpy(digits[rows]).long()}, device)


@functools.cache
def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return all images (1797, 8, 8) of values 0..16, and their digits (1797,)."""
    with gzip.open(DATA, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # (1797, 65)
    return table[:, :64].reshape(-1, 8, 8), table[:, 64]


def split_rows(digits: NDArray[np.uint8], seed: int = 0) -> dict[str, NDArray[np.intp]]:
    """Deal the rows of each digit to ``SHARES``, so that every split has the same mix; the same on every machine."""
    draw = np.random.default_rng(seed)
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    parts: dict[str, list[NDArray[np.intp]]] = {name: [] for name in SHARES}
    for digit in range(10):
        rows = draw.permutation(np.flatnonzero(digits == digit))
        for name, part in zip(parts, np.split(rows, np.rint(bounds * len(rows)).astype(int)), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def _rows_of(set_name: str, digits: NDArray[np.uint8]) -> NDArray[np.intp]:
    if set_name not in SETS:
        raise ConfigError(f"DigitsDataset has no set {set_name!r}; there are {', '.join(map(repr, SETS))}")
    if set_name == "all":
        return np.arange(len(digits))
    parts = split_rows(digits)
    if set_name == "debug":
        return parts["train"][:100]
    return parts["valid" if set_name == "eval" else set_name]
