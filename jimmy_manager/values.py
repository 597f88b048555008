"""What a configuration may hold, and how every allowed spelling of a value becomes one plain spelling.

Allowed are None, bool, int, float, str, list and dict with str keys. Tuples become lists; numpy scalars and 0-d arrays
or tensors become Python's; strings become NFC; -0.0 becomes 0.0. Everything else is refused with its dotted path,
because what cannot be written down exactly cannot name a run. numpy and torch are recognised without importing them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from jimmy_manager.errors import ConfigError

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

MAX_DEPTH = 64
# CPython refuses to print integers of more than 4 300 digits, so a larger one could be hashed but not stored as JSON.
MAX_INT_BITS = 13_000


def normalize(value: object, path: str = "") -> Plain:
    """Return ``value`` as a fresh tree of plain Python values; ``path`` is where it stands, for the messages.

    ``1`` and ``1.0`` keep their types here; that they are one value is the business of ``keys``.
    A float of fewer than 64 bits is taken by its shortest decimal, a wider one is rounded to 64 bits.

    Raises ConfigError with the dotted path for NaN, infinities, bytes, sets, paths, objects, keys that are not strings,
    two keys that are one after NFC, lone surrogates, integers above ``MAX_INT_BITS``, cycles, and nesting deeper than
    ``MAX_DEPTH``.

    >>> normalize({'size': (3, 4), 'shift': -0.0})
    {'size': [3, 4], 'shift': 0.0}
    >>> normalize({'data': {'dirs': [b'x']}})
    Traceback (most recent call last):
        ...
    jimmy_manager.errors.ConfigError: value b'x' at 'data.dirs[0]' is of type bytes, which a configuration cannot \
hold; decode it to str
    """
    return _normalize(value, path, [])


def normalize_text(text: str, path: str = "") -> str:
    r"""Return ``text`` as a plain str in NFC; a lone surrogate, which no file could hold, is a ConfigError.

    >>> normalize_text('e\u0301') == '\u00e9'
    True
    """
    plain = str.__str__(text)
    if plain.isascii():
        return plain
    import unicodedata

    plain = unicodedata.normalize("NFC", plain)
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"text {plain!r}{_at(path)} holds a lone surrogate, which UTF-8 cannot store") from error
    return plain


def join_path(path: str, part: str | int) -> str:
    """Return the dotted path of the item ``part`` of the container at ``path``.

    >>> join_path(join_path('model', 'layers'), 2), join_path('model', 'a.b')
    ('model.layers[2]', "model['a.b']")
    """
    if isinstance(part, int):
        return f"{path}[{part}]"
    if not part or not part.isprintable() or any(character in part for character in ".[]'\" "):
        return f"{path}[{part!r}]"
    return f"{path}.{part}" if path else part


def _normalize(value: object, path: str, above: list[int]) -> Plain:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return normalize_text(value, path)
    if isinstance(value, int):
        return _integer(int(value), path)
    if isinstance(value, float):
        return _finite(float(value), path)
    if not isinstance(value, dict | list | tuple):
        return _foreign(value, path)
    if id(value) in above:
        raise ConfigError(f"the container{_at(path)} contains itself")
    if len(above) >= MAX_DEPTH:
        raise ConfigError(f"the value{_at(path)} is nested deeper than {MAX_DEPTH} levels")
    above.append(id(value))
    plain: Plain
    if isinstance(value, dict):
        plain = {}
        for key, item in value.items():
            name = _name(key, path)
            if name in plain:
                raise ConfigError(f"two keys{_at(path)} are both {name!r} after Unicode normalisation (NFC); drop one")
            plain[name] = _normalize(item, join_path(path, name), above)
    else:
        plain = [_normalize(item, join_path(path, index), above) for index, item in enumerate(value)]
    above.pop()
    return plain


def _name(key: object, path: str) -> str:
    if not isinstance(key, str):
        kind = type(key).__name__
        raise ConfigError(f"key {_short(key)}{_at(path)} is of type {kind}; keys must be str, write {str(key)!r}")
    return normalize_text(key, path)


def _integer(value: int, path: str) -> int:
    if value.bit_length() > MAX_INT_BITS:
        raise ConfigError(f"the integer{_at(path)} has {value.bit_length()} bits; at most {MAX_INT_BITS} can be stored")
    return value


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"value {value!r}{_at(path)} is not a finite number; use None or a string for 'no limit'")
    return value + 0.0  # turns -0.0 into 0.0


def _foreign(value: Any, path: str) -> Plain:
    """Turn a numpy or torch scalar into Python's; refuse everything else."""
    if _is_a(value, "numpy", "ndarray") and value.ndim == 0:
        value = value[()]
        if isinstance(value, str):
            return normalize_text(value, path)
    if _is_a(value, "numpy", "generic"):
        return _numpy_scalar(value, path)
    if _is_a(value, "torch", "Tensor") and value.ndim == 0:
        return _torch_scalar(value, path)
    raise _refusal(value, path)


def _is_a(value: Any, module: str, kind: str) -> bool:
    # The default: a module that another thread has only half imported has no such attribute yet.
    return isinstance(value, getattr(sys.modules.get(module), kind, ()))


def _numpy_scalar(value: Any, path: str) -> Plain:
    import numpy as np

    if value.dtype.kind in "biu":
        plain: bool | int = value.item()
        return plain
    # ml_dtypes' bfloat16 and its like are scalars of kind V without being numpy.void.
    if value.dtype.kind not in "fV" or isinstance(value, np.void):
        raise _refusal(value, path)
    with np.errstate(over="ignore"):
        wide = _finite(float(value), path)
        return wide if value.dtype.itemsize == 8 else _shortest(wide, lambda number: float(value.dtype.type(number)))


def _torch_scalar(value: Any, path: str) -> Plain:
    if value.device.type == "meta":
        raise ConfigError(f"the tensor{_at(path)} is on the meta device and has no value")
    value = value.detach().cpu()
    plain = value.item()
    if isinstance(plain, int):
        return plain
    if not isinstance(plain, float):
        raise _refusal(value, path)
    wide = _finite(plain, path)
    return wide if value.element_size() == 8 else _shortest(wide, lambda number: float(value.new_tensor(number).item()))


def _shortest(value: float, narrow: Callable[[float], float]) -> float:
    """Return the decimal of fewest digits that ``narrow`` rounds back to ``value``: 0.1, not 0.10000000149011612."""
    for digits in range(1, 17):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        # The neighbours too: below a power of two floats lie closer, so the nearest decimal may miss and the next hit.
        for step in (0, 1, -1):
            number = float(f"{int(mantissa.replace('.', '')) + step}e{int(exponent) - digits + 1}")
            if narrow(number) == value:
                return number
    return value


_ADVICE = {
    "bytes": "decode it to str",
    "set": "use a sorted list",
    "frozenset": "use a sorted list",
    "ndarray": "use .tolist(), or name the file that holds it",
    "Tensor": "use .tolist(), or name the file that holds it",
    "range": "use a list",
    "complex": "use a list of two numbers",
}


def _refusal(value: object, path: str) -> ConfigError:
    kind = type(value).__name__
    advice = _ADVICE.get(kind)
    if advice is None:
        advice = "use str(...)" if hasattr(value, "__fspath__") else "use a number, a string, a list or a dict"
    where = f"{_short(value)}{_at(path)}"
    return ConfigError(f"value {where} is of type {kind}, which a configuration cannot hold; {advice}")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _at(path: str) -> str:
    return f" at {path!r}" if path else ""
