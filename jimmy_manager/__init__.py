"""A butler for training many models on many machines that share nothing but a directory.

The public names are found when they are first asked for, so that ``import jimmy_manager`` costs next to
nothing and a command that only lists runs never loads torch.
"""

import sys

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which would be half of this package's import time
if TYPE_CHECKING:
    from jimmy_manager.archives.store import Store
    from jimmy_manager.config import Config, from_cli
    from jimmy_manager.errors import JimmyError
    from jimmy_manager.grid import grid
    from jimmy_manager.manager.manager import Manager
    from jimmy_manager.manager.trained import TrainedManager

__version__ = "0.1.0"
__all__ = ["Config", "JimmyError", "Manager", "Store", "TrainedManager", "__version__", "from_cli", "grid"]

_HOME = {
    "Config": "config",
    "JimmyError": "errors",
    "Manager": "manager.manager",
    "Store": "archives.store",
    "TrainedManager": "manager.trained",
    "from_cli": "config",
    "grid": "grid",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(type(sys)):  # type: ignore[misc]  # ModuleType, without importing types for it
    """A package in which ``grid`` is always the function, although a submodule has that name.

    Importing a submodule binds it as an attribute of its package, so ``from jimmy_manager import grid`` would give
    the function or the module, depending on what else was imported before.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name == "grid" and isinstance(value, type(sys)):
            value = value.grid
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
