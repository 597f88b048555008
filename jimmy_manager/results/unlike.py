"""Comparisons in a filter that can hold of no run, as text is compared with numbers: said, for they are no error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from jimmy_manager.results.conditions import Chain, Every, Field, Not, Some, Tree
from jimmy_manager.results.where import Where

Kinds = Callable[[str], set[type]]
"""The types of the values that runs have under a name, as ``kinds_in`` counts them."""


def doubts(where: Where, kinds: Kinds) -> list[str]:
    """What to say of each comparison in the text of ``where`` of a field that holds nothing of that type.

    >>> from jimmy_manager.results.where import parse
    >>> doubts(parse('epoch == "5"'), lambda name: {float})
    ["the filter compares 'epoch', which holds numbers, with the text '5': true of no run; leave out the quotes"]
    """
    if not where.text:
        return []
    return list(dict.fromkeys(told for pair in _pairs(where.tree) if (told := _told(*pair, kinds))))


def kinds_in(values: Iterable[object]) -> set[type]:
    """The types of ``values``, but for None; an int is a float."""
    found = {type(value) for value in values if value is not None}
    return {float if kind is int else kind for kind in found}


def _pairs(tree: Tree) -> Iterator[tuple[str, object]]:
    """Each field with a value that it is compared with, so that unlike types do not match."""
    if isinstance(tree, Not):
        yield from _pairs(tree.part)
    elif isinstance(tree, Every | Some):
        for part in tree.parts:
            yield from _pairs(part)
    elif isinstance(tree, Chain):
        for left, sign, right in tree.pairs():
            if isinstance(left, Field) and sign not in ("!=", "not in"):
                yield left.name, right
            elif isinstance(right, Field) and sign not in ("!=", "in", "not in"):
                yield right.name, left


def _told(name: str, value: object, kinds: Kinds) -> str:
    given, held = kinds_in(value if isinstance(value, list) else [value]), kinds(name)
    if (given, held) not in (({str}, {float}), ({float}, {str})):
        return ""
    if held == {str}:
        what, other, advice = "text", "the number", "put it in quotes"
    elif name == "saved_at":
        what, other, advice = "seconds since 1970", "the text", "give a number"
    else:
        what, other, advice = "numbers", "the text", "leave out the quotes"
    return f"the filter compares {name!r}, which holds {what}, with {other} {value!r}: true of no run; {advice}"
