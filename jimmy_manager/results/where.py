"""Filter expressions: ``optim.lr < 0.01 and arch in ["cnn", "mlp"] and state != "failed"``, parsed and never evaluated.

::

    expression = both { "or" both }
    both       = one { "and" one }
    one        = "not" one | "(" expression ")" | value { sign value }
    sign       = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in"
    value      = field | number | quoted text | "true" | "false" | "none" | "[" [ value { "," value } ] "]"

A field is a dotted path, in backquotes where it holds other characters; alone it asks whether it is there and neither
empty, zero, false nor none. ``0.001 < lr < 0.1`` means what it means in Python. Every comparison with a missing field
is false, ``!=`` and ``not in`` too; between unlike types only these two hold. ``true`` is not ``1``, ``1`` is ``1.0``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jimmy_manager.errors import ConfigError, UnknownField, WhereError
from jimmy_manager.nesting import flattened
from jimmy_manager.results.conditions import Chain, Every, Field, Is, Not, Row, Some, Tree, of_mapping

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition

MAX_LENGTH = 4_000
MAX_DEPTH = 50


class Where:
    """A filter: call it with a flat row of dotted paths; ``fields`` are those it asks for, in their order.

    ``tree`` is made of the classes in ``conditions``, or is a function of a row.
    """

    __slots__ = ("_places", "text", "tree")

    def __init__(self, text: str, tree: Tree, places: dict[str, int]) -> None:
        self.text = text
        self.tree = tree
        self._places = places

    @property
    def fields(self) -> tuple[str, ...]:
        """The dotted paths in the order of their first use."""
        return tuple(self._places)

    def place(self, field: str) -> str:
        """Return the text with a caret under the first use of ``field``; nothing where there was no text."""
        return f"\n{_pointer(self.text, self._places[field])}" if self.text else ""

    def is_compared_with(self, field: str) -> bool:
        """Whether ``field`` stands where a value would, to the right of a sign."""
        return bool(_AFTER_SIGN.search(self.text[: self._places[field]]))

    def __call__(self, row: Row) -> bool:
        return self.tree(row)

    def __repr__(self) -> str:
        return f"parse({self.text!r})"


def where_of(condition: Condition) -> Where:
    """The filter that ``condition`` means, in whatever form it was given."""
    if condition is None:
        return Where("", Every(()), {})
    if isinstance(condition, str):
        return parse(condition)
    if isinstance(condition, Mapping):
        wanted = dict(flattened(condition))
        return Where("", of_mapping(wanted), dict.fromkeys(wanted, 0))
    if not callable(condition):
        raise ConfigError(f"{condition!r} is no filter: give a text, a mapping from names to values, or a function")
    return Where("", lambda row: bool(condition(row)), {})


def parse(text: str) -> Where:
    """Return the filter that ``text`` describes; WhereError points at the first place that makes no sense.

    >>> where = parse('optim.lr < 0.01 and arch == "cnn"')
    >>> where.fields, where({'optim.lr': 1e-3, 'arch': 'cnn'}), where({'arch': 'cnn'})
    (('optim.lr', 'arch'), True, False)
    """
    if len(text) > MAX_LENGTH:
        raise WhereError(f"the filter has {len(text)} characters; at most {MAX_LENGTH} are read")
    text = unicodedata.normalize("NFC", text)  # as the stored names and texts are
    parser = _Parser(text)
    return Where(text, parser.parse(), parser.places)


def check_fields(where: Where, known: Iterable[str]) -> None:
    """Raise UnknownField, with the nearest name, if ``where`` asks for a field that is not among ``known``.

    >>> check_fields(parse('optim.lr < 1'), ['optim.lr', 'arch'])
    """
    names = set(known)
    for field in where.fields:
        if field not in names:
            near = nearest(field, names)
            advice = f"; did you mean {near!r}?" if near else ""
            if where.is_compared_with(field):
                advice += f"; put text in quotes: {field!r}"
            raise UnknownField(f"unknown field {field!r} in the filter{advice}{where.place(field)}")


class _Token(NamedTuple):
    kind: str  # number, text, name, quoted, sign, end; and word for a name that is part of the grammar
    text: str
    place: int


_TOKEN = re.compile(
    r"""(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[^\W\d]\w*(?:\.\w+)*)
      | `(?P<quoted>[^`]+)`
      | (?P<sign>==|!=|<=|>=|[<>()\[\],])""",
    re.VERBOSE | re.DOTALL,
)
_AFTER_SIGN = re.compile(r"(?:[=<>]|\bin)\s*\Z")
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_WORDS = {"and", "or", "not", "in"}
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None, "null": None}
_ADVICE = {
    "=": "write == to compare",
    "&": "write and",
    "|": "write or",
    "!": "write not, or != to compare",
    "-": "put a name that holds a hyphen in `backquotes`",
    "`": "the backquote is not closed",
    '"': "the quote is not closed",
    "'": "the quote is not closed",
}


def _tokens(text: str) -> list[_Token]:
    tokens = []
    place = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches nothing, too
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            advice = _ADVICE.get(text[place])
            raise _error(text, place, f"unexpected {text[place]!r}" + (f": {advice}" if advice else ""))
        kind = str(match.lastgroup)
        word = match[kind]
        tokens.append(_Token("word" if kind == "name" and word in _WORDS else kind, word, place))
        place = _SPACE.match(text, match.end()).end()  # type: ignore[union-attr]
    return [*tokens, _Token("end", "", len(text))]


class _Parser:
    """Recursive descent over the tokens; each level that the text can nest is counted, so the stack cannot overflow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self.places: dict[str, int] = {}

    def parse(self) -> Tree:
        """The whole tree."""
        test = self._expression()
        if self._token.kind != "end":
            raise self._expected("'and', 'or' or the end")
        return test

    def _expression(self) -> Tree:
        tests = [self._both()]
        while self._accept("or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else Some(tuple(tests))

    def _both(self) -> Tree:
        tests = [self._one()]
        while self._accept("and"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else Every(tuple(tests))

    def _one(self) -> Tree:
        if self._accept("not"):
            self._deeper()
            test = self._one()
            self._depth -= 1
            return Not(test)
        if self._accept("("):
            self._deeper()
            test = self._expression()
            self._close(")")
            return test
        return self._comparison()

    def _comparison(self) -> Tree:
        values, signs = [self._value()], []
        while sign := self._sign():
            place = self._token.place
            values.append(self._value())
            if sign.endswith("in") and not isinstance(values[-1], Field | list | str):
                raise _error(self._text, place, "only a list, a text or a field can hold a value")
            signs.append(sign)
        first = values[0]
        if signs:
            return Chain(tuple(values), tuple(signs))
        if not isinstance(first, Field):
            raise self._expected("a comparison")
        return Is(first.name)

    def _sign(self) -> str:
        if self._token.text == "not" and self._token.kind == "word" and self._tokens[self._next + 1].text == "in":
            self._next += 2
            return "not in"
        for sign in ("==", "!=", "<", "<=", ">", ">=", "in"):
            if self._accept(sign):
                return sign
        return ""

    def _value(self) -> object:
        token = self._token
        if token.kind in ("name", "quoted", "text", "number"):
            self._next += 1
            if token.kind == "number":
                return _number(token.text)
            if token.kind == "text":
                return self._unquoted(token)
            if token.kind == "name" and token.text in _CONSTANTS:
                return _CONSTANTS[token.text]
            self.places.setdefault(token.text, token.place)
            return Field(token.text)
        if self._accept("["):
            return self._list()
        raise self._expected("a field or a value")

    def _list(self) -> list[object]:
        self._deeper()
        items: list[object] = []
        while not (self._token.kind == "sign" and self._token.text == "]"):
            place = self._token.place
            items.append(self._value())
            if isinstance(items[-1], Field):
                raise _error(self._text, place, "a list holds values, not fields; put text in quotes")
            if not self._accept(","):
                break
        self._close("]")
        return items

    def _unquoted(self, token: _Token) -> str:
        def unescape(match: re.Match[str]) -> str:
            if match[1] not in _ESCAPED:
                place = token.place + 1 + match.start()
                raise _error(self._text, place, f"unknown escape {match[0]!r}; write a backslash twice")
            return _ESCAPED[match[1]]

        return _ESCAPE.sub(unescape, token.text[1:-1])

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, text: str) -> bool:
        found = self._token.kind in ("word", "sign") and self._token.text == text
        self._next += found
        return found

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(self._text, self._tokens[self._next - 1].place, f"nested deeper than {MAX_DEPTH} levels")

    def _close(self, bracket: str) -> None:
        if not self._accept(bracket):
            raise self._expected(f"{bracket!r}")
        self._depth -= 1

    def _expected(self, what: str) -> WhereError:
        found = f"not {self._token.text!r}" if self._token.kind != "end" else "but the filter ends"
        return _error(self._text, self._token.place, f"expected {what} here, {found}")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _error(text: str, place: int, reason: str) -> WhereError:
    return WhereError(f"cannot read the filter: {reason}\n{_pointer(text, place)}")


def _pointer(text: str, place: int) -> str:
    """Return the part of ``text`` around ``place`` in one printable line, and a caret below it."""
    start = max(0, place - 50)
    shown = "".join(character if character.isprintable() else " " for character in text[start : place + 30])
    lead, tail = "..." if start else "", "..." if len(text) > place + 30 else ""
    return f"  {lead}{shown}{tail}\n  {' ' * (len(lead) + place - start)}^"


def nearest(field: str, names: Iterable[str]) -> str | None:
    """Return the known field of the same last name, else the one spelled most alike."""
    import difflib

    below = sorted(name for name in names if name.endswith("." + field))
    near = below or difflib.get_close_matches(field[:100], sorted(names), n=1)
    return near[0] if near else None
