"""What a ledger knows of the names of today, which decides whether one more entry makes sense."""

from __future__ import annotations

from typing import NamedTuple

from jimmy_manager.errors import SchemaError
from jimmy_manager.keys import canonical, explain
from jimmy_manager.schema.moves import ABSENT, Tree, drop_equal, get, put
from jimmy_manager.values import Plain


class Default(NamedTuple):
    """What the absence of a field means: ``value``; and the container ``into`` that stays without it."""

    value: Plain
    into: str = ""


class Names:
    """The fields and containers that entries have touched, by their names of today.

    The base fields, which no entry mentions, are not known here: what depends on them, ``Ledger.check`` must find.
    """

    def __init__(self) -> None:
        self.born: dict[str, Default] = {}  # added
        self.gone: dict[str, Default] = {}  # removed; runs that had another value still show the field
        self.landed: set[str] = set()  # named by a rename
        self.left: dict[str, str] = {}  # names that a rename took away -> what it is called now

    def add(self, field: str, default: Default) -> None:
        """Let ``field`` be there from now on, or raise SchemaError with what would become ambiguous."""
        self._refuse_left(field)
        self._refuse_overlap(field, self.gone)
        self._refuse_overlap(field, self.born)
        if field in self.born or field in self.landed:
            raise SchemaError(f"field {field!r} is in the schema ledger already; a changed default needs no entry")
        self._refuse_container(field)
        removed = self.gone.get(field)
        if removed is not None and not _same(removed, default):
            raise SchemaError(
                f"field {field!r} was removed as {_show(removed)}, so it cannot come back as {_show(default)}: runs "
                f"with the one and with the other would share a key; add it as {_show(removed)}, or under another name"
            )
        self.gone.pop(field, None)
        self.born[field] = default

    def remove(self, field: str, default: Default) -> None:
        """Let ``field`` be no name of today, or raise SchemaError."""
        self._refuse_left(field)
        self._refuse_overlap(field, self.gone)
        self._refuse_overlap(field, self.born)
        if field in self.gone:
            raise SchemaError(f"field {field!r} is removed already, as {_show(self.gone[field])}")
        self._refuse_container(field)
        self.born.pop(field, None)
        self.landed.discard(field)
        self.gone[field] = default

    def rename(self, old: str, new: str) -> None:
        """Let what was called ``old`` be called ``new``, or raise SchemaError."""
        if old == new or _overlap(old, new):
            raise SchemaError(f"{old!r} cannot become {new!r}: a name moves neither to, nor into, nor around itself")
        self._check_source(old)
        self._check_target(new)
        self.born = {_moved(name, old, new): _moved_default(name, it, old, new) for name, it in self.born.items()}
        self.gone = {_moved(name, old, new): _moved_default(name, it, old, new) for name, it in self.gone.items()}
        self.landed = {_moved(name, old, new) for name in self.landed} | {new}
        self.left = {_moved(name, old, new): _moved(now, old, new) for name, now in self.left.items()}
        self.left.pop(new, None)
        self.left[old] = new

    def settle(self, config: Tree) -> None:
        """Write ``config`` in its one spelling: removed fields gone where they say nothing, added ones there."""
        for field, default in self.gone.items():
            drop_equal(config, split(field), default.value, depth(default.into))
        # Again and again: a field that enters its container may open it to another one.
        while sum(put(config, split(name), it.value, depth(it.into)) for name, it in self.born.items()):
            continue

    def reason(self, config: Tree, shown: Tree) -> str:
        """Return why ``config``, which would come back as ``shown``, is refused."""
        for name, now in self.left.items():
            if get(config, split(name)) is not ABSENT:
                return f"field {name!r} was renamed to {now!r} in the schema ledger; write {now!r}"
        differences = "; ".join(str(one) for one in explain(config, shown)[:3])
        return f"under the schema ledger this configuration would get the key of another one ({differences})"

    def _check_source(self, old: str) -> None:
        for name, now in self.left.items():
            if name == old or _inside(old, name):
                raise SchemaError(f"{old!r} is called {_moved(old, name, now)!r} since an earlier rename; rename that")
        for name in self.gone:
            if name == old or _inside(old, name):
                raise SchemaError(f"field {old!r} was removed; there is nothing to rename")
        for name in self.born:
            if _inside(old, name):
                raise SchemaError(f"field {old!r} cannot lie inside {name!r}, which was added as one value")

    def _check_target(self, new: str) -> None:
        for name, now in self.left.items():
            if _overlap(name, new):
                raise SchemaError(f"{new!r} overlaps {name!r}, where stored runs keep what is now called {now!r}")
        for name in self.gone:
            if name == new or _overlap(name, new):
                raise SchemaError(f"{new!r} is taken: runs from before {name!r} was removed still show other values")
        for name in self.born.keys() | self.landed:
            if name == new or _inside(name, new) or (name in self.born and _inside(new, name)):
                raise SchemaError(f"{new!r} is taken by {name!r} of the schema ledger")

    def _refuse_left(self, field: str) -> None:
        for name, now in self.left.items():
            if name == field or _overlap(name, field):
                raise SchemaError(
                    f"stored runs keep what is now called {now!r} under the name {name!r}, so field {field!r} could "
                    "not be told from it; take another name"
                )

    def _refuse_overlap(self, field: str, others: dict[str, Default]) -> None:
        for name in others:
            if _overlap(name, field):
                raise SchemaError(f"field {field!r} overlaps {name!r} of the schema ledger: one would hold the other")

    def _refuse_container(self, field: str) -> None:
        for name in self.landed:
            if _inside(name, field):
                raise SchemaError(f"{field!r} is a container: it holds {name!r}; name its fields one by one")


def split(field: str) -> tuple[str, ...]:
    """Return the names along a dotted path that was checked before."""
    return tuple(field.split("."))


def depth(container: str) -> int:
    """Return how many containers deep ``container`` is; the configuration itself, '', is 0."""
    return container.count(".") + 1 if container else 0


def _inside(name: str, container: str) -> bool:
    return name.startswith(container + ".")


def _overlap(first: str, second: str) -> bool:
    return _inside(first, second) or _inside(second, first)


def _moved(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name == old or _inside(name, old) else name


def _moved_default(name: str, default: Default, old: str, new: str) -> Default:
    into = _moved(default.into, old, new)
    return default._replace(into=into if _inside(_moved(name, old, new), into) else "")


def _same(first: Default, second: Default) -> bool:
    return canonical(first.value) == canonical(second.value) and first.into == second.into


def _show(default: Default) -> str:
    return repr(default.value) + (f" into {default.into!r}" if default.into else "")
