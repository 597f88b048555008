"""What a ``_target_`` in a configuration may name: classes and functions under an allow-list, and nothing else.

Configurations come from files and from stores that other people write, so a name in one must never be able to reach
code that the user has not trusted by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NoReturn

from jimmy_manager.errors import ConfigError, TargetRefused

DEFAULT_TARGETS = ("jimmy_manager", "torch.nn", "torch.optim")


def find_target(target: object, allowed: Sequence[str] = DEFAULT_TARGETS) -> Callable[..., Any]:
    """Return the class or function that the dotted name ``target`` means, if it lies under an ``allowed`` prefix.

    Modules are reached only by importing them under their own name, never as attributes of another module, and what is
    found must be defined under an allowed prefix too, unless it is allowed by its very name. So
    ``torch.nn.modules.module.os.system`` is refused. What an allowed class does when it is called is not restricted.

    >>> find_target('jimmy_manager.errors.ConfigError')
    <class 'jimmy_manager.errors.ConfigError'>
    >>> find_target('os.system')
    Traceback (most recent call last):
        ...
    jimmy_manager.errors.TargetRefused: _target_ 'os.system' is not in the allow-list; if you trust it, write in your \
Manager: targets = ('jimmy_manager', 'torch.nn', 'torch.optim', 'os')
    """
    if not isinstance(target, str) or "." not in target or not all(map(str.isidentifier, target.split("."))):
        raise ConfigError(f"_target_ {target!r} is not the dotted name of a class or function")
    if not _is_under(target, allowed):
        _refuse(target, "is not in the allow-list", allowed, target.rpartition(".")[0])
    module, names = _import_longest(target)
    found: Any = module
    for name in names:
        if name.startswith("_") or (found is not module and not isinstance(found, type)):
            raise TargetRefused(f"_target_ {target!r} is refused: {name!r} is private or not inside a class or module")
        if not hasattr(found, name):
            raise ConfigError(f"_target_ {target!r} does not exist: {found.__name__!r} has no {name!r}")
        found = getattr(found, name)
    maker = found.__func__ if isinstance(found, MethodType) and isinstance(found.__self__, type) else found
    if not isinstance(maker, type | FunctionType | BuiltinFunctionType):
        raise TargetRefused(f"_target_ {target!r} is a {type(found).__name__}, not a class or function")
    if target not in allowed and not _is_under(f"{maker.__module__}.{maker.__qualname__}", allowed):
        _refuse(target, f"is defined in {maker.__module__}, which is not in the allow-list", allowed, target)
    return found  # type: ignore[no-any-return]  # a class, function or class method, as checked above


def _import_longest(target: str) -> tuple[Any, list[str]]:
    """Import the longest prefix of ``target`` that is a module; return it with the names that remain."""
    names = target.split(".")
    for length in range(len(names) - 1, 0, -1):
        name = ".".join(names[:length])
        try:
            return import_module(name), names[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, but something that it imports is not
    raise ConfigError(f"_target_ {target!r} does not exist: no module {names[0]!r} can be imported")


def _is_under(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _refuse(target: str, why: str, allowed: Sequence[str], wanted: str) -> NoReturn:
    line = f"targets = {(*allowed, wanted)!r}"
    raise TargetRefused(f"_target_ {target!r} {why}; if you trust it, write in your Manager: {line}")
