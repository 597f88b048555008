"""YAML by the 1.2 core rules, as configurations need it: ``loads(dump(x)) == x`` for every value they may hold.

PyYAML is used only to turn text into parse events and events into text. No constructor of it ever runs, so nothing in
a file can be executed, and what its YAML 1.1 rules would guess (`no` is False, `1e-3` a string, `12:30` a number) does
not arise: ``resolve`` alone decides what a plain scalar means, for the reader and for the writer.
Refused, with file and line: duplicate keys, keys that are no strings, aliases, merge keys, tags other than the core
ones, a second document, nesting deeper than ``MAX_DEPTH`` (aliases blow up exponentially, deep nesting the C stack).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml import events as parts

from jimmy_manager.errors import ConfigError
from jimmy_manager.values import MAX_DEPTH, Plain, normalize

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_YAML11: Any = yaml.resolver.Resolver()

_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + name: math.inf for sign in ("", "+") for name in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, type] = {"null": type(None), "bool": bool, "int": int, "float": float}


def resolve(text: str) -> bool | int | float | str | None:
    """Return what a plain (unquoted) scalar means by the YAML 1.2 core schema.

    Raises ValueError for a number that Python cannot hold.

    >>> [resolve(text) for text in ('1e-3', '010', '0o17', 'null', 'true', '.5')]
    [0.001, 10, 15, None, True, 0.5]
    >>> [resolve(text) for text in ('no', 'off', '12:30', '2024-01-01', '1_000')]
    ['no', 'off', '12:30', '2024-01-01', '1_000']
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"number {text} is larger than any float")
        return number
    return text


def load(source: str | os.PathLike[str]) -> Any:
    r"""Read a YAML file, or a text: a ``str`` with a line break in it is a text, any other ``str`` a file name.

    >>> load('optim: {lr: 1e-3}\n')
    {'optim': {'lr': 0.001}}
    """
    if isinstance(source, str) and "\n" in source:
        return loads(source)
    try:
        text = Path(source).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {os.fspath(source)}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{os.fspath(source)}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    return loads(text, os.fspath(source))


def loads(text: str, source: str = "<text>") -> Any:
    r"""Read one YAML document; ``source`` is the name that errors give it. A text without any document is None.

    Not checked here is what only configurations forbid: infinities and NaN are read as such.

    >>> loads('lr: 1\nlr: 2', 'jobs/digits.yaml')
    Traceback (most recent call last):
        ...
    jimmy_manager.errors.ConfigError: jobs/digits.yaml:2: duplicate field 'lr', first given on line 1
    """
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.feed(event)
    except yaml.YAMLError as error:
        raise ConfigError(_explain(error, text, source)) from error
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigError(f"{source}:{line}: a lone surrogate cannot be stored as UTF-8") from error
    return builder.root[0] if builder.root else None


def dump(value: object) -> str:
    """Write a configuration value as one YAML document that ``loads`` reads back equal, without aliases or tags.

    Strings that an older YAML 1.1 reader would take for something else (`no`, `12:30`) are quoted as well.
    Raises ConfigError for what a configuration cannot hold.

    >>> print(dump({'arch': 'cnn', 'lr': 1e-5, 'sizes': [64, 64], 'answer': 'no', 'empty': {}}), end='')
    arch: cnn
    lr: 1.0e-05
    sizes: [64, 64]
    answer: 'no'
    empty: {}
    """
    plain = normalize(value)
    # Unlimited width: a folded line is legal, but no reader is the better for it.
    return str(yaml.emit(_document(plain), Dumper=_Dumper, allow_unicode=True, width=2**30))


@dataclass
class _Open:
    """A container that is being read: for a mapping also the key that waits for its value, and where keys stood."""

    container: Any
    key: str | None = None
    lines: dict[str, int] = field(default_factory=dict)


class _Builder:
    """Builds plain values from parse events, one at a time and without recursion."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: list[Any] = []
        self.open = [_Open(self.root)]

    def feed(self, event: parts.Event) -> None:
        if isinstance(event, parts.ScalarEvent):
            self._put(self._scalar(event), event)
        elif isinstance(event, parts.MappingStartEvent | parts.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, parts.CollectionEndEvent):
            self.open.pop()
        elif isinstance(event, parts.AliasEvent):
            self._refuse(event, f"alias *{event.anchor} is not supported; write the value out")
        elif isinstance(event, parts.DocumentStartEvent) and self.root:
            self._refuse(event, "a second document starts here; one file holds one")

    def _start(self, event: parts.MappingStartEvent | parts.SequenceStartEvent) -> None:
        is_mapping = isinstance(event, parts.MappingStartEvent)
        container: dict[str, Any] | list[Any] = {} if is_mapping else []
        if event.tag not in (None, "!", _TAG + ("map" if is_mapping else "seq")):
            self._refuse(event, f"tag {_short(event.tag)} is not supported")
        if len(self.open) > MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        self._put(container, event)
        self.open.append(_Open(container))

    def _put(self, value: Any, event: parts.NodeEvent) -> None:
        top = self.open[-1]
        if isinstance(top.container, list):
            top.container.append(value)
        elif top.key is not None:
            top.container[top.key] = value
            top.key = None
        else:
            top.key = self._key(value, event, top)

    def _key(self, value: Any, event: parts.NodeEvent, top: _Open) -> str:
        if isinstance(value, dict | list):
            self._refuse(event, "a mapping or list cannot be the name of a field")
        if not isinstance(value, str):
            written = event.value if isinstance(event, parts.ScalarEvent) else ""
            kind = type(value).__name__
            self._refuse(event, f"field {written} is of type {kind}; names are strings, write {written!r} in quotes")
        if value == "<<" and _is_plain(event):
            self._refuse(event, "merge key << is not supported; write the fields out")
        if value in top.lines:
            self._refuse(event, f"duplicate field {value!r}, first given on line {top.lines[value]}")
        top.lines[value] = _line(event)
        return value

    def _scalar(self, event: parts.ScalarEvent) -> Any:
        tag = event.tag
        if tag in ("!", _TAG + "str") or (tag is None and not _is_plain(event)):
            return event.value
        try:
            value = resolve(event.value)
        except ValueError as error:
            self._refuse(event, str(error))
        if tag is None:
            return value
        wanted = _SCALAR_TAGS.get(tag.removeprefix(_TAG))
        if wanted is None or not tag.startswith(_TAG):
            self._refuse(event, f"tag {_short(tag)} is not supported")
        if wanted is float and type(value) is int:
            return float(value)
        if type(value) is not wanted:
            self._refuse(event, f"{event.value!r} does not fit its tag {_short(tag)}")
        return value

    def _refuse(self, event: parts.Event, reason: str) -> NoReturn:
        raise ConfigError(f"{self.source}:{_line(event)}: {reason}")


def _is_plain(event: parts.NodeEvent) -> bool:
    return isinstance(event, parts.ScalarEvent) and bool(event.implicit[0])


def _line(event: parts.Event) -> int:
    mark = event.start_mark
    return int(mark.line) + 1 if mark else 1


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!", 1)


def _explain(error: yaml.YAMLError, text: str, source: str) -> str:
    """Turn an error of the parser into one line with file and line."""
    if not isinstance(error, yaml.MarkedYAMLError):  # a ReaderError, which knows only an offset
        line = text.encode("utf-8").count(b"\n", 0, getattr(error, "position", 0)) + 1
        return f"{source}:{line}: {getattr(error, 'reason', error)}"
    start, mark = error.context_mark, error.problem_mark
    began = start.line + 1 if start else 1
    # What is missing at the end of a text is reported on a line after its last one.
    line = min(mark.line + 1, len(text.splitlines())) if mark else began
    reason = error.problem or "not YAML"
    if error.context and began != line:
        reason += f" {error.context} from line {began}"
    if "cannot start any token" in reason:
        reason += "; put the text in quotes"
    return f"{source}:{line}: {reason}"


def _document(value: Plain) -> Iterator[parts.Event]:
    yield parts.StreamStartEvent()
    yield parts.DocumentStartEvent(explicit=False)
    yield from _nodes(value)
    yield parts.DocumentEndEvent(explicit=False)
    yield parts.StreamEndEvent()


def _nodes(value: Plain) -> Iterator[parts.Event]:
    if isinstance(value, dict):
        yield parts.MappingStartEvent(None, None, True, flow_style=not value)
        for key, item in value.items():
            yield _scalar_event(key)
            yield from _nodes(item)
        yield parts.MappingEndEvent()
    elif isinstance(value, list):
        yield parts.SequenceStartEvent(None, None, True, flow_style=not any(isinstance(v, dict | list) for v in value))
        for item in value:
            yield from _nodes(item)
        yield parts.SequenceEndEvent()
    else:
        yield _scalar_event(value)


def _scalar_event(value: bool | int | float | str | None) -> parts.ScalarEvent:
    if isinstance(value, str):
        style = None
        if not value.isprintable():
            style = '"'  # one line with escapes; the other styles fold line breaks
        elif not _reads_as_text(value):
            style = "'"
        return parts.ScalarEvent(None, None, (style is None, True), value, style=style)
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = repr(value)
        if isinstance(value, float) and "." not in text:
            text = text.replace("e", ".0e")  # YAML 1.1 readers take 1e-05 for a string
    return parts.ScalarEvent(None, None, (True, False), text)


def _reads_as_text(text: str) -> bool:
    """Say whether ``text`` without quotes is a string, by these rules and by those of YAML 1.1."""
    try:
        by_12 = resolve(text) is text
    except ValueError:  # looks like a number, if one too large
        return False
    return by_12 and str(_YAML11.resolve(yaml.ScalarNode, text, (True, False))) == _TAG + "str"
