"""The sources of what was defined in a notebook or at a prompt, where there is no file to read.

Of the cells only the classes and functions are taken that are still there, never a cell as a whole: others may hold a
password. IPython and newer prompts leave their cells in ``linecache``; what nobody left there is not known.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from typing import Any

FOLDER = "notebook"
UNKNOWN = "it was defined in a notebook or at a prompt, and its source is not known"


def definitions() -> dict[str, Any]:
    """The classes and functions of ``__main__`` by name; none where that is a file."""
    main = sys.modules.get("__main__")
    if main is None or getattr(main, "__file__", None):
        return {}
    return {
        name: each for name, each in vars(main).items()
        if isinstance(each, type) or inspect.isfunction(each)
        if each.__module__ == "__main__" and each.__name__ == name and name.isidentifier()
    }


def source(definition: Any) -> str | None:
    """The source of a class or function with its decorators; None where it is not known."""
    for code in _code_of(definition):
        cell = "".join(linecache.getlines(code.co_filename))
        try:
            found = list(_named(ast.parse(cell), definition.__name__))
        except (SyntaxError, ValueError):
            continue
        if found:
            first = min([found[-1].lineno, *(each.lineno for each in found[-1].decorator_list)])
            return "".join(cell.splitlines(keepends=True)[first - 1 : found[-1].end_lineno])
    return None


def mark(definition: Any) -> tuple[int, str]:
    """What is another one once a class or function was defined anew."""
    return id(definition), next((code.co_filename for code in _code_of(definition)), "")


def _code_of(definition: Any) -> Iterator[Any]:
    """The code objects that tell in which cell something was defined: its own, or those of its methods."""
    if inspect.isfunction(definition):
        yield definition.__code__
        return
    for each in vars(definition).values():
        function: Callable[..., Any] | None = getattr(each, "__func__", each)
        if inspect.isfunction(function) and function.__qualname__.startswith(f"{definition.__qualname__}."):
            yield function.__code__


def _named(cell: ast.Module, name: str) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in cell.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            yield node
