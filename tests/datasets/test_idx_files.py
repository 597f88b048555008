import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jimmy_manager.datasets.idx_files import read_idx
from jimmy_manager.errors import DatasetError
from tests.datasets.idx_writer import CODES, idx_bytes, write_idx

EXAMPLE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@given(
    array=hnp.arrays(
        st.sampled_from(sorted(CODES)), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements={"allow_nan": False},
    ),
    ending=st.sampled_from(["", ".gz"]),
)  # fmt: skip
def test_what_was_written_is_read_in_every_dtype_and_shape(array, ending, tmp_path_factory):
    found = read_idx(write_idx(tmp_path_factory.mktemp("idx") / f"array{ending}", array))
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    assert found.flags.writeable
    assert np.array_equal(found, array)


def test_bytes_written_by_hand_are_read_big_endian(tmp_path):
    path = tmp_path / "by-hand"
    path.write_bytes(bytes.fromhex("00000b01 00000002 0102 fffe"))
    assert read_idx(path).tolist() == [258, -2]


def test_gzip_is_told_by_the_content_not_by_the_name(tmp_path):
    path = tmp_path / "no-ending"
    path.write_bytes(gzip.compress(idx_bytes(EXAMPLE)))
    assert np.array_equal(read_idx(path), EXAMPLE)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not an IDX file: it begins with nothing"),
        (b"\0\0\x08", "is not an IDX file: it begins with 00 00 08"),
        (b"\x89PNG\r\n", "is not an IDX file: it begins with 89 50 4e 47"),
        (b"\0\0\x07\x01" + bytes(8), "is not an IDX file: it begins with 00 00 07 01"),
        (b"\0\0\x08\xff" + bytes(2000), "is not an IDX file"),
        (b"\0\0\x08\x03" + bytes(7), "ends within its header"),
        (idx_bytes(EXAMPLE)[:-1], r"is cut off: 47 of the 48 bytes of shape \(2, 3, 4\) are there"),
        (idx_bytes(EXAMPLE) + b"\0", r"goes on after the 48 bytes of shape \(2, 3, 4\)"),
        (b"\0\0\x0e\x02" + b"\xff" * 8, r"says it holds \d+ bytes, of shape .*; at most 4294967296 are read"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_that_is_not_what_it_says_is_refused_by_name(tmp_path, content, complaint, pack):
    path = tmp_path / "broken-idx3-ubyte"
    path.write_bytes(pack(content))
    with pytest.raises(DatasetError, match=rf"broken-idx3-ubyte {complaint}"):
        read_idx(path)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:14] + b"\xff" + b[15:], lambda b: b + b"tail"])
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "broken.gz"
    path.write_bytes(damage(gzip.compress(idx_bytes(EXAMPLE))))
    with pytest.raises(DatasetError, match=r"broken.gz is a damaged gzip file"):
        read_idx(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_memory_is_taken_for_what_is_there_not_for_what_the_header_says(tmp_path, pack):
    path = tmp_path / "liar"
    path.write_bytes(pack(b"\0\0\x08\x01" + (1 << 31).to_bytes(4, "big") + bytes(100)))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"is cut off: 100 of the 2147483648 bytes"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_may_be_set(tmp_path):
    path = write_idx(tmp_path / "small", EXAMPLE)
    assert read_idx(path, max_bytes=48).shape == (2, 3, 4)
    with pytest.raises(DatasetError, match=r"at most 47 are read"):
        read_idx(path, max_bytes=47)


def test_a_file_that_is_not_there_is_an_ordinary_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
