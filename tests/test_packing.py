"""Packing and unpacking alone; what files of checkpoints hold of it is tested in ``archives/test_checkpoints.py``."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jimmy_manager.errors import CheckpointError
from jimmy_manager.packing import pack, unpack

NUMBERS = st.none() | st.booleans() | st.integers(-(2**2100), 2**2100) | st.floats(allow_nan=False)
ARRAYS = arrays(st.sampled_from(["f4", ">i8", "?"]), array_shapes(min_dims=0, max_dims=3, max_side=3, min_side=0))
LEAVES = NUMBERS | st.text(max_size=5) | st.binary(max_size=5) | ARRAYS
KEYS = st.text(max_size=3) | st.integers(-9, 9) | st.tuples(st.text(max_size=2), st.integers(-9, 9))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.frozensets(NUMBERS, max_size=3)
    ),
    max_leaves=12,
)


def shown(value: Any) -> str:
    """Types and values, all the way down; sets, and what is equal to a bit, look the same."""
    if isinstance(value, np.ndarray):
        return repr((value.dtype.str, value.shape, value.tobytes()))
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return type(value).__name__ + "(" + ",".join(map(shown, value)) + ")"
    if isinstance(value, frozenset):
        return "frozenset" + repr(sorted(map(repr, value)))
    return repr(value)


def through_torch(packed: Any) -> Any:
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@settings(max_examples=60)
@given(VALUES)
def test_whatever_is_packed_is_readable_without_running_anything_and_comes_back(value: Any) -> None:
    before = shown(value)
    assert shown(unpack(through_torch(pack(value)))) == before
    assert shown(value) == before


def test_packing_leaves_the_value_alone_and_hands_tensors_on_uncopied() -> None:
    weight = torch.ones(2)
    value = {"a": [weight, b"", 2**2500], "b": OrderedDict(c=np.arange(2))}
    before = copy.copy(value["a"])
    packed = pack(value)
    assert packed["a"][0] is weight
    assert packed["a"] is not value["a"] == before
    assert isinstance(value["b"]["c"], np.ndarray)


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_nesting_is_packed_to_a_depth_and_refused_beyond_it(kind: type) -> None:
    def nested(depth: int) -> Any:
        value: Any = 0
        for _ in range(depth):
            value = {"x": value} if kind is dict else kind([value])
        return value

    assert repr(unpack(pack(nested(200)))) == repr(nested(200))
    with pytest.raises(CheckpointError, match=r"^ckpt.* is nested deeper than 200 levels"):
        pack(nested(202))


@pytest.mark.parametrize(
    ("value", "place"),
    [([0, {"x": object()}], r"ckpt\[1\]\['x'\] is"), ({1: (object(),)}, r"ckpt\[1\]\[0\] is"), (object(), "ckpt is")],
)
def test_a_refusal_begins_with_the_path(value: Any, place: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{place} of type builtins.object"):
        pack(value)
