"""What a class may be called with, and messages that say so before it is."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jimmy_manager.errors import ConfigError, UnknownField

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


class CallSignature:
    """The keyword arguments of ``target``, a class or another callable, as far as its signature tells.

    >>> CallSignature(complex).takes('real')
    True
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        try:
            parameters = list(inspect.signature(target).parameters.values())
        except (TypeError, ValueError):  # many builtins have none
            parameters = [inspect.Parameter("more", inspect.Parameter.VAR_KEYWORD)]
        self._named = {p.name: p for p in parameters if p.kind in _NAMED}
        self._is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def takes(self, name: str) -> bool:
        """Whether an argument of this name may be given; with ``**kwargs`` in the signature any may."""
        return self._is_open or name in self._named

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise ConfigError for the first argument that the target does not take, else for one that it lacks."""
        for name in given:
            if not self.takes(name):
                raise self._refusal(name, list(self._named), self._bridge(name))
        for name, parameter in self._named.items():
            if parameter.default is parameter.empty and name not in given:
                raise ConfigError(f"{short_name(self.target)} needs the argument {name!r}, which is not given")

    def explained(self, error: Exception, given: Mapping[str, Any]) -> ConfigError | None:
        """Return a better error where ``error`` is about an argument that ``**kwargs`` handed on, and nobody took.

        None where the call failed for another reason, for instance deep inside, by an argument of the same name.
        """
        found = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
        known = self._known()
        if found is None or found.group(1) not in given or found.group(1) in known:
            return None
        return self._refusal(found.group(1), known)

    def _known(self) -> list[str]:
        """Return the arguments of the target and, for a class, of the constructors above it."""
        names = dict.fromkeys(self._named)
        for base in self.target.__mro__[1:-1] if isinstance(self.target, type) else ():
            names.update(dict.fromkeys(CallSignature(base)._named))
        return list(names)

    def _bridge(self, name: str) -> str:
        """Return how the argument would reach the constructor above that takes it; nothing where none does."""
        return "; add **kwargs to its __init__ and hand it to super().__init__" if name in self._known() else ""

    def _refusal(self, name: str, known: Iterable[str], advice: str = "") -> UnknownField:
        takes = ", ".join(known) or "none"
        end = advice or nearest(name, known)
        return UnknownField(f"{short_name(self.target)} takes no argument {name!r} (it takes: {takes}){end}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about a name that does not exist: the nearest one, or nothing.

    >>> nearest('batchsize', ['batch_size', 'shuffle'])
    "; did you mean 'batch_size'?"
    """
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def short_name(target: Any) -> str:
    """Return the name of a class or function, also of one in a partial, without its module, else the repr."""
    while isinstance(target, functools.partial):  # its repr has whole arguments in it, for instance an optimizer
        target = target.func
    return getattr(target, "__qualname__", None) or repr(target)


def full_name(target: Any) -> str:
    """Return the name of a class or function with its module, unless everybody has it; else the repr.

    >>> full_name(CallSignature), full_name(int)
    ('jimmy_manager.training.call_signature.CallSignature', 'int')
    """
    module = getattr(target, "__module__", None)
    name = short_name(target)
    return (
        name if module in (None, "builtins", "__main__") or not hasattr(target, "__qualname__") else f"{module}.{name}"
    )
