"""The ledger of a store: which fields its configurations have gained, renamed and lost since the first run.

A run is hashed and stored in its *key form* and seen in its *shown form*, the schema of today. The entries join the
two, oldest first from stored to shown, and newest first on the way back::

    stored form ── add F = v ──────▶ F = v appears where F is absent            (back: F goes where it equals v)
                ── rename A to B ──▶ A becomes B                                (back: B becomes A)
                ── remove F = v ───▶ F goes where it equals v                   (back: F = v appears where F is absent)

so no entry ever touches a key that was given. Runs that were trained with ``F = v`` between the change of the defaults
and the entry keep their keys as well: such an entry is marked ``kept``, and configurations are looked up in both forms.
What a ledger by itself can tell to be ambiguous is refused when the
entry is made. Whether the runs of a store contradict an entry (one has the "added" field already) only they can tell:
``Ledger.check`` looks. And ``key_form`` verifies every configuration by the way back, so nothing that it accepts can
share a key with something else, whatever the entries are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, combinations
from typing import NamedTuple

from jimmy_manager.errors import ConfigError, SchemaError
from jimmy_manager.keys import canonical, explain
from jimmy_manager.nesting import cleaned, split_path
from jimmy_manager.schema import moves
from jimmy_manager.schema.names import Default, Names, depth, split
from jimmy_manager.values import Plain, normalize


class Entry(NamedTuple):
    """One line of a ledger: ``kind`` is 'add', 'rename' or 'remove'.

    ``to`` is a rename's new name. ``value`` is what the absence of an added or removed field means, and ``into`` the
    container that is there without it; where that is empty, a container goes and comes with its only field. ``kept``
    says that some runs from before an add hold the value themselves, or lack a field that is removed.
    """

    kind: str
    field: str
    value: Plain = None
    into: str = ""
    to: str = ""
    kept: bool = False

    def as_dict(self) -> dict[str, Plain]:
        """Return the form that ``store.yaml`` holds.

        >>> Entry('rename', 'lr', to='optim.lr').as_dict()
        {'rename': 'lr', 'to': 'optim.lr'}
        """
        if self.kind == "rename":
            return {"rename": self.field, "to": self.to}
        extras: dict[str, Plain] = {"into": self.into, "kept": self.kept}
        return {self.kind: self.field, "value": self.value, **{name: extra for name, extra in extras.items() if extra}}

    def __str__(self) -> str:
        if self.kind == "rename":
            return f"rename {self.field} to {self.to}"
        return f"{self.kind} {self.field} = {self.value!r}" + (f" into {self.into}" if self.into else "")

    def forth(self, tree: moves.Tree) -> None:
        """Bring ``tree`` from the schema before this entry to the one after it."""
        if self.kind == "add":
            moves.put(tree, split(self.field), self.value, depth(self.into))
        elif self.kind == "remove":
            moves.drop_equal(tree, split(self.field), self.value, depth(self.into))
        else:
            moves.move(tree, split(self.field), split(self.to))

    def back(self, tree: moves.Tree) -> None:
        """Undo ``forth``."""
        if self.kind == "add":
            moves.drop_equal(tree, split(self.field), self.value, depth(self.into))
        elif self.kind == "remove":
            moves.put(tree, split(self.field), self.value, depth(self.into))
        else:
            moves.move(tree, split(self.to), split(self.field))


class Ledger:
    """An immutable sequence of entries, and the two translations that they define.

    >>> ledger = Ledger().add('optim.beta', 0.9).rename('lr', 'optim.lr')
    >>> ledger.shown_form({'lr': 0.1})
    {'optim': {'beta': 0.9, 'lr': 0.1}}
    >>> ledger.key_form({'optim': {'beta': 0.9, 'lr': 0.1}})
    {'lr': 0.1}
    """

    __slots__ = ("_entries", "_names", "_others")

    def __init__(self, entries: Iterable[Entry | Mapping[str, object]] = ()) -> None:
        self._names = Names()
        self._others: tuple[Ledger, ...] | None = None
        parsed: list[Entry] = []
        for number, given in enumerate(entries, 1):
            try:
                parsed.append(_enter(given, self._names))
            except SchemaError as error:
                raise SchemaError(f"entry {number} of the schema ledger: {error}") from error
        self._entries = tuple(parsed)

    def add(self, field: str, value: object, into: str = "") -> Ledger:
        """Return a ledger in which runs from before ``field`` behave as ``field = value``.

        ``into`` is for a field whose container those runs already have, empty (``augment: {}``); elsewhere the
        container comes with the field. Raises SchemaError where the field is there already or overlaps one that is,
        where stored runs use its name for something else, and where a removed field would come back with another value.
        """
        return self._with({"add": field, "value": value, "into": into})

    def rename(self, old: str, new: str) -> Ledger:
        """Return a ledger in which the field or the container ``old`` is called ``new``.

        Raises SchemaError where ``old`` is no name of today, where ``new`` is taken or still shown by runs from before
        its removal, and where one lies inside the other.
        """
        return self._with({"rename": old, "to": new})

    def remove(self, field: str, value: object, into: str = "") -> Ledger:
        """Return a ledger in which configurations without ``field`` are the runs that had ``field = value``.

        Runs with other values keep them, and show them. Raises SchemaError where the field is no name of today.
        """
        return self._with({"remove": field, "value": value, "into": into})

    def undo(self) -> Ledger:
        """Return the ledger without its newest entry: runs that were registered under it show what is stored."""
        if not self._entries:
            raise SchemaError("the schema ledger is empty, there is nothing to undo")
        return Ledger(self._entries[:-1])

    def key_form(self, config: Mapping[str, object]) -> dict[str, Plain]:
        """Return the form of ``config`` that is hashed and stored, as a fresh, plain tree.

        Dotted names count as nested. An added field that is absent counts as its birth value, a removed one may be
        given with its value. Raises ConfigError for a value that is not allowed, and SchemaError where ``config`` uses
        a name in a way that would make it equal to another configuration (a name that was renamed away, say).
        """
        form = _plain(config)
        if not self._entries:
            return form
        self._names.settle(form)
        settled = canonical(form)
        for entry in reversed(self._entries):
            entry.back(form)
        shown = self.shown_form(form)
        if canonical(shown) != settled:
            raise SchemaError(self._names.reason(_plain(config), shown))
        return form

    def shown_form(self, stored: Mapping[str, object]) -> dict[str, Plain]:
        """Return a stored form as a configuration of today, as a fresh tree.

        ``key_form(shown_form(s)) == s`` for every ``s`` that ``key_form`` of this ledger returned, or that ``check``
        has accepted.
        """
        shown = moves.copy_tree(stored)
        for entry in self._entries:
            entry.forth(shown)
        return shown

    def forms(self, config: Mapping[str, object]) -> list[dict[str, Plain]]:
        """Return every form under which a run of ``config`` may be stored; the first is the key form.

        Others come from entries that are ``kept``.
        """
        if not self._entries:
            return [_plain(config)]
        found = {canonical(form): form for form in [self.key_form(config)]}
        for without in self._without_kept():
            try:
                form = without.key_form(config)
            except SchemaError:  # this configuration cannot have been stored so
                continue
            found.setdefault(canonical(form), form)
        return list(found.values())

    def fitted(self, runs: Iterable[tuple[str, Mapping[str, object]]]) -> Ledger:
        """Return this ledger, its newest entry marked ``kept`` where one of the ``(key, stored form)`` pairs needs it.

        Raises SchemaError as ``check`` does.
        """
        known = list(runs)
        try:
            self.check(known)
        except SchemaError:
            if not self._entries or self._entries[-1].kind == "rename":
                raise
            marked = Ledger((*self._entries[:-1], self._entries[-1]._replace(kept=True)))
            marked.check(known)
            return marked
        return self

    def check(self, runs: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        """Raise SchemaError if one of the ``(key, stored form)`` pairs would lose its key under this ledger.

        To be called before an edited ledger is written. It finds the run that has an "added" field already, the one
        without the removed field, and the one that uses a rename's new name for something else.
        """
        for key, stored in runs:
            try:
                found = self.forms(self.shown_form(stored))
                if any(canonical(form) == canonical(stored) for form in found):
                    continue
                reason = "; ".join(str(one) for one in explain(stored, found[0])[:3])
            except SchemaError as error:
                reason = str(error)
            raise SchemaError(
                f"with this entry run {key} could not be told from another one: {reason} (first: as it is stored, "
                "second: as it would be looked up); leave the ledger as it is, or export and remove that run first"
            )

    def fields(self) -> frozenset[str]:
        """Return the dotted paths of the fields that were added and not removed, as they are called today."""
        return frozenset(self._names.born)

    def to_list(self) -> list[dict[str, Plain]]:
        """Return the entries as plain dicts, oldest first; ``Ledger`` of them is an equal ledger."""
        return [entry.as_dict() for entry in self._entries]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and canonical(self.to_list()) == canonical(other.to_list())

    def __hash__(self) -> int:
        return hash(canonical(self.to_list()))

    def __repr__(self) -> str:
        return f"Ledger({self.to_list()!r})"

    def _without_kept(self) -> tuple[Ledger, ...]:
        """The ledgers that lack some of the kept entries; made once, as few ledgers have any."""
        if self._others is None:
            kept = [number for number, entry in enumerate(self._entries) if entry.kept]
            subsets = chain.from_iterable(combinations(kept, size) for size in range(1, len(kept) + 1))
            self._others = tuple(
                Ledger(entry for number, entry in enumerate(self._entries) if number not in left_out)
                for left_out in subsets
            )
        return self._others

    def _with(self, entry: Mapping[str, object]) -> Ledger:
        grown = Ledger(self._entries)
        grown._entries = (*self._entries, _enter(entry, grown._names))
        return grown


def _plain(config: Mapping[str, object]) -> moves.Tree:
    if not isinstance(config, Mapping):
        raise ConfigError(f"a configuration is a mapping, not {type(config).__name__}")
    plain: moves.Tree = cleaned(config)
    return plain


def _enter(given: Entry | Mapping[str, object], names: Names) -> Entry:
    try:
        entry = _parse(given.as_dict() if isinstance(given, Entry) else given)
    except ConfigError as error:
        raise SchemaError(str(error)) from error
    if entry.kind == "rename":
        names.rename(entry.field, entry.to)
    elif entry.kind == "add":
        names.add(entry.field, Default(entry.value, entry.into))
    else:
        names.remove(entry.field, Default(entry.value, entry.into))
    return entry


def _parse(given: Mapping[str, object]) -> Entry:
    kinds = {"add": {"value"}, "remove": {"value"}, "rename": {"to"}}
    kind = next((kind for kind in kinds if isinstance(given, Mapping) and kind in given), None)
    if kind is None or not {kind, *kinds[kind]} <= given.keys() <= {kind, *kinds[kind], "into", "kept"}:
        raise SchemaError(f"entry {given!r} is neither add or remove with a value, nor rename with to")
    field = _path(given[kind])
    if kind == "rename":
        if "into" in given or "kept" in given:
            raise SchemaError(f"entry {given!r} is a rename, which takes no into and no kept")
        return Entry(kind, field, to=_path(given["to"]))
    value = normalize(given["value"], field)
    if isinstance(value, dict):
        raise SchemaError(f"{field!r} would be a mapping; {kind} its fields one by one, each with its own value")
    into = _path(given["into"]) if given.get("into") else ""
    if into and not field.startswith(into + "."):
        raise SchemaError(f"field {field!r} does not lie inside {into!r}")
    return Entry(kind, field, value, into=into, kept=given.get("kept") is True)


def _path(field: object) -> str:
    names = split_path(field)
    for name in names:
        if "[" in name or "]" in name:
            raise SchemaError(f"field {field!r} points into a list; a list is one value")
    return ".".join(names)
