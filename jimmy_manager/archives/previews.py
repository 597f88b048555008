"""Previews: small results as JSON, read without torch or the model.

Arrays of up to 1 000 elements and non-finite floats are tagged (``{"$array": ...}``, ``{"$float": "nan"}``);
matplotlib figures become PNG files beside the record. A key of the user's that begins with ``$`` gets one more.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jimmy_manager.archives.record import seal, unseal
from jimmy_manager.errors import CheckpointError
from jimmy_manager.values import MAX_INT_BITS

MOST_ELEMENTS = 1_000
MOST_BYTES = 1 << 20
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEPTH = 64
_SCALARS = {"b": bool, "i": int, "u": int, "f": float, "U": str}


def save(preview: Mapping[str, Any], key: str) -> tuple[bytes, dict[str, bytes]]:
    """The record of ``preview`` and the PNG of each figure in it, by label.

    Raises ``CheckpointError`` with the path of what a preview cannot hold.
    """
    if not isinstance(preview, Mapping):
        raise CheckpointError(f"the preview is of type {type(preview).__qualname__}, it must be a dict")
    figures: dict[str, bytes] = {}
    raw = seal("preview", {"key": key, "preview": _encode(preview, "", figures, 0)})
    if len(raw) > MOST_BYTES:
        largest = max(preview, key=lambda name: len(json.dumps(_encode(preview[name], "", {}, 0))))
        raise CheckpointError(
            f"the preview takes {len(raw)} bytes, {largest!r} most of them; at most {MOST_BYTES} are allowed, "
            "as every preview is read to list a store: keep large values in ckpt"
        )
    return raw, figures


def load(raw: bytes, name: str) -> dict[str, Any]:
    """The preview in the record ``raw`` of the file ``name``; a figure comes back as its label."""
    decoded: dict[str, Any] = _decode(unseal("preview", raw, name)["preview"])
    return decoded


def load_scalars(raw: bytes, name: str) -> dict[str, Any]:
    """What ``load`` gives, flat by dotted path, less lists and arrays: numpy is not needed for it."""
    return dict(_scalars(unseal("preview", raw, name)["preview"], ""))


def _scalars(value: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        below = f"{path}{_decode_key(key)}"
        if isinstance(item, dict):
            if item.keys() == {"$float"}:
                yield below, float(item["$float"])
            elif item.keys() == {"$figure"} and isinstance(item["$figure"], str):
                yield below, item["$figure"]
            elif "$array" not in item:
                yield from _scalars(item, f"{below}.")
        elif not isinstance(item, list):
            yield below, item


def _encode(value: Any, path: str, figures: dict[str, bytes], depth: int) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise CheckpointError(f"preview{path} is an integer of more than {MAX_INT_BITS} bits: too long")
        return int(value)
    if depth > _DEPTH:
        raise CheckpointError(f"preview{path} is nested deeper than {_DEPTH} levels, or contains itself")
    if isinstance(value, Mapping):
        return _encode_mapping(value, path, figures, depth)
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{path}[{i}]", figures, depth + 1) for i, item in enumerate(value)]
    return _encode_array(value, path, figures)


def _encode_mapping(value: Mapping[Any, Any], path: str, figures: dict[str, bytes], depth: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is int:  # epochs: jarvis users index their records by number
            name = f"$int:{key}"
        elif isinstance(key, str):
            name = f"${key}" if key.startswith("$") else key
        else:
            raise CheckpointError(f"preview{path} has a key of type {type(key).__name__}: {key!r}; use a str or an int")
        encoded[name] = _encode(item, f"{path}[{key!r}]", figures, depth + 1)
    return encoded


def _encode_array(value: Any, path: str, figures: dict[str, bytes]) -> Any:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        _check_size(value.numel(), path)
        value = _numpy_of(value)
        numpy = sys.modules["numpy"]
    if numpy is not None and (isinstance(value, numpy.generic) or type(value) in (numpy.ndarray, numpy.memmap)):
        if value.ndim == 0 and value.dtype.kind in _SCALARS:
            return _encode(_SCALARS[value.dtype.kind](value), path, figures, 0)
        if value.dtype.kind in "biuf":
            _check_size(value.size, path)
            # Bytes, not decimals: what comes back is what was put in, NaN and all.
            raw = base64.b64encode(value.tobytes()).decode("ascii")
            return {"$array": {"dtype": value.dtype.str, "shape": list(value.shape), "raw": raw}}
    figure = sys.modules.get("matplotlib.figure")
    if figure is not None and isinstance(value, figure.Figure):
        return {"$figure": _draw(value, path, figures)}
    raise CheckpointError(
        f"preview{path} is of type {type(value).__module__}.{type(value).__qualname__}, which a preview cannot hold; "
        f"use numbers, str, list, dict, arrays of up to {MOST_ELEMENTS} elements or matplotlib figures"
    )


def _check_size(size: int, path: str) -> None:
    if size > MOST_ELEMENTS:
        raise CheckpointError(
            f"preview{path} is an array of {size} elements, a preview holds up to {MOST_ELEMENTS}; "
            "keep it in ckpt, or give self.preview a summary of it"
        )


def _numpy_of(tensor: Any) -> Any:
    """``tensor`` as an array; the tensor itself where numpy has no such thing (complex, sparse, quantized)."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        return tensor
    tensor = tensor.detach().cpu().resolve_neg()
    has_dtype = tensor.dtype in (torch.float16, torch.float32, torch.float64) or not tensor.is_floating_point()
    return tensor.numpy() if has_dtype else tensor.float().numpy()


def _draw(figure: Any, path: str, figures: dict[str, bytes]) -> str:
    label = "_".join(_LABEL.findall(path))[:60] or "figure"
    # Without regard to case: on some file systems two such names are one file.
    taken = {name.casefold() for name in figures}
    stem, number = label, 1
    while label.casefold() in taken:
        number += 1
        label = f"{stem[:56]}_{number}"
    file = io.BytesIO()
    figure.savefig(file, format="png")
    figures[label] = file.getvalue()
    return label


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        tag, content = next(iter(value.items()))
        if tag == "$float":
            return float(content)
        if tag == "$array":
            import numpy

            raw = base64.b64decode(content["raw"])
            return numpy.frombuffer(raw, dtype=numpy.dtype(content["dtype"])).reshape(content["shape"]).copy()
        if tag == "$figure":
            return content
    return {_decode_key(key): _decode(item) for key, item in value.items()}


def _decode_key(key: str) -> str | int:
    if key.startswith("$int:"):
        return int(key[5:])
    return key.removeprefix("$")
