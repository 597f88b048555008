"""IDX files, the format of MNIST: a magic number, the sizes of the dimensions, then the values, all big-endian."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jimmy_manager.errors import DatasetError

# By the third byte of the magic number, http://yann.lecun.com/exdb/mnist (archived).
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_MAX_DIMENSIONS = 32
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str], max_bytes: int = 1 << 32) -> np.ndarray:
    """Return the array in an IDX file, gzipped or not, in this machine's byte order.

    Raises DatasetError that names the file where it is not IDX, is shorter or longer than its header says, or would
    take more than ``max_bytes``. What is not there is never allocated for, whatever the header says.
    """
    path = Path(path)
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == _GZIP
        raw.seek(0)
        try:
            if not is_gzip:
                return _read(raw, path, max_bytes)
            with gzip.GzipFile(fileobj=raw) as file:
                return _read(file, path, max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetError(f"{path} is a damaged gzip file: {error}") from error


def _read(file: BinaryIO | gzip.GzipFile, path: Path, max_bytes: int) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] > _MAX_DIMENSIONS:
        raise DatasetError(f"{path} is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DatasetError(f"{path} ends within its header")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    dtype = np.dtype(_DTYPES[magic[2]])
    expected = math.prod(shape) * dtype.itemsize
    if expected > max_bytes:
        raise DatasetError(f"{path} says it holds {expected} bytes, of shape {shape}; at most {max_bytes} are read")
    values = _read_at_most(file, expected)
    if len(values) < expected:
        raise DatasetError(f"{path} is cut off: {len(values)} of the {expected} bytes of shape {shape} are there")
    if file.read(1):
        raise DatasetError(f"{path} goes on after the {expected} bytes of shape {shape}")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_at_most(file: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    """Read until ``count`` bytes or the end; what is allocated grows with what is there."""
    values = bytearray()
    while len(values) < count and (chunk := file.read(min(_CHUNK, count - len(values)))):
        values += chunk
    return values
