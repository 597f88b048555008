"""Python values and tensors, to a form that torch reads back without running anything, and back.

What ``torch.load(weights_only=True)`` refuses (numpy arrays and scalars, huge integers) is stored in a tagged form and
comes back as what it was; anything else is refused when it is *saved*, with its path. Mappings of other kinds come back
as dicts; an object that stands at two places comes back as two, but for tensors.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from jimmy_manager.errors import CheckpointError

_TAG = "__jimmy__"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_KEYS = (type(None), bool, int, float, str, bytes)
_DEPTH = 200
_INT_BITS = 2_000
"""Longer integers, and empty bytes, are pickled in a way that the restricted reader does not know."""


def pack(value: Any, path: str = "", depth: int = 0) -> Any:
    """``value`` with everything replaced that ``torch.load(weights_only=True)`` would refuse."""
    kind = type(value)
    if kind in _PLAIN:
        return value if _is_readable(value) else {_TAG: kind.__name__, "hex": _as_hex(value)}
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
        if not _is_key(key):
            raise CheckpointError(f"ckpt{path} has a key of type {type(key).__name__}: {key!r}; use a str or an int")
        if key == _TAG:
            raise CheckpointError(f"ckpt{path} has the key {_TAG!r}, which is reserved")
        packed[key] = pack(item, f"{path}[{key!r}]", depth + 1)
    metadata = getattr(value, "_metadata", None) if isinstance(value, OrderedDict) else None
    if metadata is not None:  # torch's state dictionaries carry their versions in it
        packed._metadata = pack(metadata, f"{path}._metadata", depth + 1)  # type: ignore[attr-defined]
    return packed


def _is_readable(value: Any) -> bool:
    """Whether the restricted reader understands how ``value``, of a type in ``_PLAIN``, is pickled."""
    return value.bit_length() <= _INT_BITS if type(value) is int else value != b""


def _is_key(key: Any) -> bool:
    return all(map(_is_key, key)) if type(key) is tuple else type(key) in _KEYS and _is_readable(key)


def _as_hex(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:x}"


def _pack_array(value: Any, path: str) -> Any:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and type(value) in (torch.Tensor, torch.nn.Parameter):
        _check_attributes(value, path)
        return value
    if numpy is not None and (isinstance(value, numpy.generic) or type(value) in (numpy.ndarray, numpy.memmap)):
        if value.dtype.hasobject or value.dtype.fields or numpy.dtype(value.dtype.str) != value.dtype:
            raise CheckpointError(f"ckpt{path} is a numpy array of dtype {value.dtype}, which cannot be stored")
        return _pack_numpy(numpy.asarray(value), isinstance(value, numpy.generic))
    if torch is not None and isinstance(value, (torch.Size, torch.dtype, torch.device)):
        return value
    raise CheckpointError(
        f"ckpt{path} is of type {type(value).__module__}.{type(value).__qualname__}, which a checkpoint cannot hold; "
        "store tensors, arrays, numbers, str, bytes, list, tuple, set or dict, or the state_dict() of an object"
    )


def _check_attributes(tensor: Any, path: str) -> None:
    """Refuse a tensor that carries what cannot be read back: torch saves the attributes that users give to tensors."""
    for name, value in vars(tensor).items():
        if type(value) not in _PLAIN or not _is_readable(value):
            raise CheckpointError(
                f"ckpt{path} is a tensor with the attribute {name!r} of type {type(value).__qualname__}, which a "
                "checkpoint cannot hold; store its detach()"
            )


def _pack_numpy(array: Any, is_scalar: bool) -> dict[str, Any]:
    import numpy
    import torch

    # The order in memory decides the last bits of a sum, so it is kept where an array can be laid out in it again.
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    # As bytes: torch lacks some of numpy's types, and a copy is due anyway, since arrays change in place.
    raw = torch.from_numpy(numpy.frombuffer(array.tobytes(order), dtype=numpy.uint8).copy())
    kind = "scalar" if is_scalar else "array"
    return {_TAG: kind, "dtype": array.dtype.str, "shape": list(array.shape), "order": order, "raw": raw}


def unpack(value: Any) -> Any:
    """The inverse of ``pack``."""
    if isinstance(value, dict):
        if _TAG in value:
            return _unpack_tagged(value)
        for key, item in value.items():
            value[key] = unpack(item)
        if hasattr(value, "_metadata"):
            value._metadata = unpack(value._metadata)
        return value
    if type(value) is list:
        return [unpack(item) for item in value]
    if type(value) is tuple:
        return tuple(unpack(item) for item in value)
    return value


def _unpack_tagged(value: dict[str, Any]) -> Any:
    kind = value[_TAG]
    if kind == "int":
        return int(value["hex"], 16)
    if kind == "bytes":
        return bytes.fromhex(value["hex"])
    if kind in ("set", "frozenset"):
        items = (unpack(item) for item in value["items"])
        return set(items) if kind == "set" else frozenset(items)
    import numpy

    array = numpy.frombuffer(value["raw"].numpy().tobytes(), dtype=numpy.dtype(value["dtype"]))
    array = array.reshape(value["shape"], order=value["order"]).copy(order="K")
    return array[()] if kind == "scalar" else array
