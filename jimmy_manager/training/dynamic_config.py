"""A class and the arguments to call it with, later and as often as wanted."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

from jimmy_manager.config import Config
from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.targets import DEFAULT_TARGETS, find_target
from jimmy_manager.training.call_signature import CallSignature, full_name, nearest, short_name

log = logging.getLogger(__name__)

_LINE = 100


class DynamicConfig:
    """A class, or anything that can be called, with keyword arguments that are attributes until `build` calls it.

    Attributes that begin with ``_`` are notes of the user and no arguments. An argument that is a DynamicConfig, also
    inside a list, tuple or dict, is built first. An argument cannot have the name of a method here, nor ``cls``: give
    such a one with ``functools.partial(MyClass, build=...)``. Two are equal where class and arguments are.

    >>> config = DynamicConfig(dict, batch_size=32, shuffle=True)
    >>> config.set_name = 'test'
    >>> del config.shuffle
    >>> config
    DynamicConfig(dict, batch_size=32, set_name='test')
    >>> config.build()
    {'batch_size': 32, 'set_name': 'test'}
    """

    cls: Any

    def __init__(self, /, cls: Any, **kwargs: Any) -> None:
        self.cls = cls
        self.add(**kwargs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], targets: Sequence[str] | None = None) -> DynamicConfig:
        """Make one of a mapping whose ``_target_`` names the class, and of each mapping in it that has a ``_target_``.

        ``targets`` is the allow-list, by default that of ``config``. Raises TargetRefused for what is outside it.
        """
        own = config._targets if isinstance(config, Config) else DEFAULT_TARGETS
        made = _from_plain(config, own if targets is None else targets)
        if not isinstance(made, DynamicConfig):
            raise ConfigError(f"no field '_target_' among {list(config)}; it names the class to build")
        return made

    def build(self, /, **more: Any) -> Any:
        """Call the class with the arguments; ``more`` adds to them or overrides them for this call.

        Raises ConfigError that names the class for an argument that it does not take or lacks. ``set_name`` alone is
        left out with a warning where the class does not take it: a dataset of the older form has one set only.
        """
        signature, given = CallSignature(self.cls), {**self._arguments(), **more}
        if "set_name" in given and not signature.takes("set_name"):
            log.warning("%s takes no argument 'set_name', so it is built without", short_name(self.cls))
            del given["set_name"]
        signature.check(given)
        arguments = {name: _built(value) for name, value in given.items()}
        try:
            return self.cls(**arguments)
        except Exception as error:
            if better := signature.explained(error, arguments):
                raise better from error
            error.add_note(f"while building {full_name(self.cls)}")
            raise

    def add(self, /, **kwargs: Any) -> None:
        """Add arguments, or replace them."""
        for name, value in kwargs.items():
            setattr(self, name, value)

    def remove(self, key: str) -> None:
        """Take one argument out; UnknownField suggests the nearest one where there is none of this name."""
        if key not in self._arguments():
            raise UnknownField(f"no argument {key!r} to remove{nearest(key, self._arguments())}")
        delattr(self, key)

    def takes(self, name: str) -> bool:
        """Whether the class takes an argument of this name, as far as its signature tells."""
        return CallSignature(self.cls).takes(name)

    def clone(self) -> DynamicConfig:
        """Return a copy that shares datasets, tensors and the like, but no DynamicConfig, list, tuple or dict.

        ``copy.deepcopy`` copies those too.
        """
        clone = copy.copy(self)
        vars(clone).update({name: _cloned(value) for name, value in vars(self).items()})
        return clone

    def __getattr__(self, name: str) -> Any:
        # Probes of libraries (`__deepcopy__`, `_repr_html_`) must not pay for a suggestion.
        advice = "" if name.startswith("_") else nearest(name, self._arguments())
        raise AttributeError(f"no argument {name!r}{advice}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "cls" and not callable(value):
            raise ConfigError(f"{value!r} cannot be built; a DynamicConfig takes a class, not an instance")
        if not name.startswith("_") and hasattr(type(self), name):
            raise ConfigError(
                f"argument {name!r} has the name of a method of DynamicConfig; give it with "
                f"functools.partial(MyClass, {name}=...) in the place of the class"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name == "cls" or name not in vars(self):
            raise AttributeError(f"no argument {name!r} to delete{nearest(name, self._arguments())}")
        super().__delattr__(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DynamicConfig):
            return NotImplemented
        return self.cls == other.cls and _is_same(self._arguments(), other._arguments())

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        parts = [_text(self.cls), *(f"{name}={_text(value)}" for name, value in self._arguments().items())]
        line = f"DynamicConfig({', '.join(parts)})"
        if len(line) <= _LINE and "\n" not in line:
            return line
        inside = ",\n".join(parts).replace("\n", "\n    ")
        return f"DynamicConfig(\n    {inside},\n)"

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "cls" and not name.startswith("_")}


def _items(value: Any) -> list[Any]:
    """Return what a plain container holds; nothing for anything else."""
    if type(value) is dict:
        return list(value.values())
    return list(value) if type(value) in (list, tuple) else []


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a new container with each item changed; anything else as it is."""
    if type(value) is dict:
        return {key: change(item) for key, item in value.items()}
    return type(value)(map(change, value)) if type(value) in (list, tuple) else value


def _built(value: Any) -> Any:
    if isinstance(value, DynamicConfig):
        return value.build()
    # The very list that the user gave, unless something in it is to be built.
    return _mapped(value, _built) if _holds_config(value) else value


def _holds_config(value: Any) -> bool:
    return any(isinstance(item, DynamicConfig) or _holds_config(item) for item in _items(value))


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, DynamicConfig) else _mapped(value, _cloned)


def _from_plain(value: Any, targets: Sequence[str]) -> Any:
    if not isinstance(value, Mapping):
        return _mapped(value, lambda item: _from_plain(item, targets))
    fields = {name: _from_plain(item, targets) for name, item in value.items()}
    if "_target_" not in fields:
        return fields
    made = DynamicConfig(find_target(fields.pop("_target_"), targets))
    made.add(**fields)
    return made


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if hasattr(one, "shape"):
        return hasattr(other, "shape") and one.shape == other.shape and bool((one == other).all())
    return bool(one == other)


def _text(value: Any) -> str:
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return full_name(value)
    if type(value) is dict:
        return f"{{{', '.join(f'{_text(key)}: {_text(item)}' for key, item in value.items())}}}"
    if type(value) is list:
        return f"[{', '.join(map(_text, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    return repr(value)
