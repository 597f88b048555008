"""Checkpoints: a dictionary of Python values and tensors to a torch file and back, running nothing.

Read with ``weights_only=True`` alone. What that refuses (numpy arrays and scalars) is stored as tagged
tensors and comes back as numpy; anything else is refused when it is *saved*, with its path.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

from jimmy_manager.errors import CheckpointError, DamagedRecord

_TAG = "__jimmy__"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEPTH = 200


def save(ckpt: Mapping[str, Any], file: BinaryIO) -> None:
    """Write ``ckpt`` to ``file``; ``CheckpointError`` names the path of a value that cannot be stored."""
    save_packed(pack(ckpt), file)


def save_packed(packed: Any, file: BinaryIO) -> None:
    """Write what ``pack`` returned; whoever packs first writes nothing at all for a value that is refused."""
    import torch

    torch.save(packed, file)


def load(file: BinaryIO, name: str) -> dict[str, Any]:
    """The dictionary in ``file``, its tensors on the CPU; ``name`` is for the error."""
    import torch

    try:
        packed = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a file that it cannot read
        raise DamagedRecord(f"damaged checkpoint {name}: torch cannot read it: {error}") from error
    loaded: dict[str, Any] = unpack(packed)
    return loaded


def pack(value: Any, path: str = "", depth: int = 0) -> Any:
    """``value`` with everything replaced that ``torch.load(weights_only=True)`` would refuse."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > _DEPTH:
        raise CheckpointError(f"ckpt{path} is nested deeper than {_DEPTH} levels, or contains itself")
    if kind in (dict, OrderedDict) or isinstance(value, Mapping):
        return _pack_mapping(value, path, depth)
    if kind is list:
        return [pack(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if kind is tuple:
        return tuple(pack(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))
    if kind in (set, frozenset):
        items = [pack(item, f"{path}{{}}", depth + 1) for item in sorted(value, key=repr)]
        return {_TAG: kind.__name__, "items": items}
    return _pack_array(value, path)


def _pack_mapping(value: Mapping[Any, Any], path: str, depth: int) -> dict[Any, Any]:
    packed: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
    for key, item in value.items():
        if type(key) not in (str, int, float, bool, bytes, tuple, type(None)):
            raise CheckpointError(f"ckpt{path} has a key of type {type(key).__name__}: {key!r}; use a str or an int")
        if key == _TAG:
            raise CheckpointError(f"ckpt{path} has the key {_TAG!r}, which is reserved")
        packed[key] = pack(item, f"{path}[{key!r}]", depth + 1)
    metadata = getattr(value, "_metadata", None)
    if metadata is not None:  # torch's state dictionaries carry their versions in it
        packed._metadata = metadata  # type: ignore[attr-defined]
    return packed


def _pack_array(value: Any, path: str) -> Any:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return value
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        if value.dtype.hasobject or value.dtype.fields:
            raise CheckpointError(f"ckpt{path} is a numpy array of dtype {value.dtype}, which cannot be stored")
        return _pack_numpy(numpy.asarray(value), isinstance(value, numpy.generic))
    if torch is not None and isinstance(value, (torch.Size, torch.dtype, torch.device)):
        return value
    raise CheckpointError(
        f"ckpt{path} is of type {type(value).__module__}.{type(value).__qualname__}, which a checkpoint cannot hold; "
        "store tensors, arrays, numbers, str, bytes, list, tuple, set or dict, or the state_dict() of an object"
    )


def _pack_numpy(array: Any, is_scalar: bool) -> dict[str, Any]:
    import numpy
    import torch

    # As bytes: torch lacks some of numpy's types, and a copy is due anyway, since arrays change in place.
    raw = torch.from_numpy(numpy.frombuffer(array.tobytes(), dtype=numpy.uint8).copy())
    return {_TAG: "scalar" if is_scalar else "array", "dtype": array.dtype.str, "shape": list(array.shape), "raw": raw}


def unpack(value: Any) -> Any:
    """The inverse of ``pack``."""
    if isinstance(value, dict):
        if _TAG in value:
            return _unpack_tagged(value)
        for key, item in value.items():
            value[key] = unpack(item)
        return value
    if type(value) is list:
        return [unpack(item) for item in value]
    if type(value) is tuple:
        return tuple(unpack(item) for item in value)
    return value


def _unpack_tagged(value: dict[str, Any]) -> Any:
    kind = value[_TAG]
    if kind in ("set", "frozenset"):
        items = (unpack(item) for item in value["items"])
        return set(items) if kind == "set" else frozenset(items)
    import numpy

    array = numpy.frombuffer(value["raw"].numpy().tobytes(), dtype=numpy.dtype(value["dtype"]))
    array = array.reshape(value["shape"]).copy()
    return array[()] if kind == "scalar" else array
