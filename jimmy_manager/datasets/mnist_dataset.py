"""`MNISTDataset`: MNIST, Fashion-MNIST, and whatever else comes as the same four IDX files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from jimmy_manager.datasets.dict_dataset import DictDataset
from jimmy_manager.datasets.idx_files import read_idx
from jimmy_manager.datasets.jimmy_dataset import Batch, JimmyDataset
from jimmy_manager.devices import DEVICE
from jimmy_manager.errors import ConfigError, DatasetError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package ``dataset-fashion-mnist`` puts its files."""

SETS = ("train", "eval", "test", "debug", "all")

# As published, as torchvision's folders have them, and as some mirrors renamed the files.
_FOLDERS = (".", "raw", "MNIST/raw")
_ENDINGS = ("-idx{}-ubyte", "-idx{}-ubyte.gz", ".idx{}-ubyte", ".idx{}-ubyte.gz")


class MNISTDataset(DictDataset):
    """Batches of ``data`` (B, 1, 28, 28) float32, of values 0..1, and ``target`` (B,) int64.

    The sets: ``train``, all but the last twelfth of the training files (55 000 images of MNIST); ``eval``, that
    twelfth (5 000); ``test``, the test files (10 000); ``debug``, the first 100 of ``train``; ``all``, the training
    files, then the test files. The older form, without ``set_name``, gives ``train``.

    ``root`` is the folder of the four files, gzipped or not, or torchvision's ``root``; that of the Debian package
    ``dataset-fashion-mnist`` unless given. With ``normalize=False`` the values are 0..255. The pixels lie on ``device``
    as bytes, which takes a quarter of the memory of floats and, shuffled, no more time.
    """

    def __init__(
        self,
        set_name: Literal["train", "eval", "test", "debug", "all"] | int | None = None,
        batch_size: int | None = None,
        drop_last: bool = False,
        shuffle: bool = False,
        *,
        root: str | os.PathLike[str] | None = None,
        normalize: bool = True,
        device: torch.device | str = DEVICE,
    ) -> None:
        JimmyDataset.__init__(self, set_name, batch_size, drop_last, shuffle)
        self.normalize = normalize
        folder = Path(FASHION_MNIST if root is None else root)
        images, digits = _read_set("train" if self.set_name is None else self.set_name, folder)
        self._hold({"data": images.unsqueeze(1), "target": digits.long()}, device)

    def __getitem__(self, idx: int) -> Batch:
        batch = super().__getitem__(idx)
        batch["data"] = batch["data"].to(torch.float32)
        if self.normalize:
            batch["data"].div_(255)
        return batch


MNISTSampleDataset = MNISTDataset
"""The older name."""


def _read_set(set_name: str, root: Path) -> tuple[Tensor, Tensor]:
    """Return images (N, H, W) and digits (N,) of one set, uint8."""
    if set_name not in SETS:
        raise ConfigError(f"MNISTDataset has no set {set_name!r}; there are {', '.join(map(repr, SETS))}")
    if set_name == "test":
        return _read_pair(root, "t10k")
    images, digits = _read_pair(root, "train")
    if set_name == "all":
        more_images, more_digits = _read_pair(root, "t10k")
        return torch.cat([images, more_images]), torch.cat([digits, more_digits])
    train_count = len(images) - len(images) // 12
    rows = {
        "train": slice(train_count),
        "eval": slice(train_count, None),
        "debug": slice(min(100, train_count)),
    }[set_name]
    # Clones, because a slice would keep all images in memory.
    return images[rows].clone(), digits[rows].clone()


def _read_pair(root: Path, part: str) -> tuple[Tensor, Tensor]:
    image_file, digit_file = _find(root, f"{part}-images", 3), _find(root, f"{part}-labels", 1)
    images, digits = (torch.from_numpy(read_idx(path)) for path in (image_file, digit_file))
    for path, array, ndim in ((image_file, images, 3), (digit_file, digits, 1)):
        if array.ndim != ndim or array.dtype != torch.uint8:
            raise DatasetError(f"{path} holds {tuple(array.shape)} {array.dtype}; expected bytes in {ndim} dimensions")
    if len(images) != len(digits):
        raise DatasetError(f"{image_file} holds {len(images)} images, but {digit_file} {len(digits)} labels")
    return images, digits


def _find(root: Path, stem: str, ndim: int) -> Path:
    for folder in _FOLDERS:
        for ending in _ENDINGS:
            path = root / folder / (stem + ending.format(ndim))
            if path.is_file():
                return path
    raise DatasetError(
        f"there is no {stem}-idx{ndim}-ubyte or .gz in {root}; pass root=, the folder of the four files, "
        "or get Fashion-MNIST by: apt-get install dataset-fashion-mnist"
    )
