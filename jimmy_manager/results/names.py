"""Dotted names as people write them: by their last parts, where no other name ends alike.

``lr`` is ``optim.lr`` unless there is a field ``lr``, which wins, or another one that ends in ``.lr``, which makes it
an error that lists both. Tables head their columns with the shortest of these, so whatever stands there can be typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from jimmy_manager.errors import UnknownField
from jimmy_manager.results.where import Where, check_fields, parse

Row = Mapping[str, object]

_MOST_NAMED = 8


class Names:
    """The names that a table knows, to be found by their last parts."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = dict.fromkeys(known)
        self._ending: dict[str, list[str]] = {}
        for name in self._known:
            for end in _proper_ends(name):
                self._ending.setdefault(end, []).append(name)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def ends(self) -> Iterable[str]:
        """The last parts of known names, whether or not they stand for one alone."""
        return self._ending

    def meant(self, name: str) -> list[str]:
        """The known names that ``name`` may stand for; several where it cannot be told.

        >>> Names(['optim.lr', 'a.width', 'b.width']).meant('lr')
        ['optim.lr']
        """
        return [name] if name in self._known else list(self._ending.get(name, ()))

    def full(self, name: str) -> str:
        """The one known name that ``name`` stands for; UnknownField, with advice, for none or several."""
        meant = self.meant(name)
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise UnknownField(_confused(name, meant))
        from difflib import get_close_matches

        near = get_close_matches(name[:100], [*self._known, *self._ending], n=1)
        shown = list(self._known)[:_MOST_NAMED]
        there = ", ".join(shown) + (", ..." if len(self._known) > len(shown) else "")
        advice = f"did you mean {near[0]!r}?" if near else f"there are {there}"
        raise UnknownField(f"no run has a field {name!r}; {advice}")

    def short(self, name: str) -> str:
        """The fewest last parts of ``name`` that stand for it alone.

        >>> names = Names(['optim.lr', 'a.width', 'b.width', 'loss', 'eval.loss'])
        >>> [names.short(name) for name in names]
        ['lr', 'a.width', 'b.width', 'loss', 'eval.loss']
        """
        ends = reversed(list(_proper_ends(name)))
        return next((end for end in ends if self.meant(end) == [name]), name)


def condition(text: str, names: Names | None) -> Callable[[Row], bool]:
    """The filter ``text``, whose fields may be named by their last parts; without ``names`` it may ask for any.

    UnknownField, which points at the place, for a field that is not there or may be one of several.
    """
    where = parse(text)
    if names is None:
        return where
    check_names(where, names)
    renamed = {field: full for field in where.fields if (full := names.full(field)) != field}
    return (lambda row: where(_Renamed(row, renamed))) if renamed else where


def check_names(where: Where, names: Names) -> None:
    """Raise UnknownField, which points at the place, where a field of the filter is none of ``names``, or several."""
    for field in where.fields:
        if len(found := names.meant(field)) > 1:
            raise UnknownField(f"{_confused(field, found)}{where.place(field)}")
    check_fields(where, [*names, *names.ends()])


class _Renamed(Mapping[str, object]):
    """A row that answers to other names as well."""

    __slots__ = ("_names", "_row")

    def __init__(self, row: Row, names: Mapping[str, str]) -> None:
        self._row = row
        self._names = names

    def __getitem__(self, name: str) -> object:
        return self._row[self._names.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


def _proper_ends(name: str) -> Iterator[str]:
    """Everything after a dot, the longest first."""
    while "." in name:
        name = name.partition(".")[2]
        if name:
            yield name


def _confused(name: str, meant: list[str]) -> str:
    more = f" or {len(meant) - _MOST_NAMED} more" if len(meant) > _MOST_NAMED else ""
    return f"the field {name!r} may be {' or '.join(map(repr, meant[:_MOST_NAMED]))}{more}; write more of its name"
