"""Write IDX files, independently of the reader, and the four that make a small MNIST."""

import gzip
from pathlib import Path

import numpy as np

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_mnist(root: Path, train: int = 24, test: int = 6, ending: str = "-idx{}-ubyte") -> dict[str, np.ndarray]:
    """Image i of the training files is full of i, that of the test files of 200 + i; its label is i % 10."""
    arrays = {}
    for part, count, first in (("train", train, 0), ("t10k", test, 200)):
        values = np.arange(first, first + count, dtype=np.uint8)
        arrays[part] = np.broadcast_to(values[:, None, None], (count, 28, 28)).copy()
        write_idx(root / f"{part}-images{ending.format(3)}", arrays[part])
        write_idx(root / f"{part}-labels{ending.format(1)}", (np.arange(count) % 10).astype(np.uint8))
    return arrays
