"""Grids: from choices to the configurations that they stand for, without ever writing them all down.

In ``choices`` a mapping is the product of its fields, a list (tuple, range) the union of its items, a mapping inside a
list a sub-grid, a list inside a list one list value, and anything else one value. Points come in the order of nested
loops over the fields, the last one fastest; of two equal points the first counts.

Inside, a set of points is a list of parts that share no point: ``_Values``, single values, or a ``_Box``, the product
of one such set a field. Boxes with different fields, or with nothing in common in one field, are disjoint. From a box
that overlaps an earlier one the common part is cut away, which leaves smaller boxes, so that no union needs to be
expanded; the points that are left may then come in another order.
"""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from operator import index as as_index
from typing import Any, TypeAlias, overload

from jimmy_manager.config import Config, Source, adopt_mapping, load_config
from jimmy_manager.errors import ConfigError
from jimmy_manager.keys import canonical
from jimmy_manager.nesting import cleaned, nest_names
from jimmy_manager.targets import DEFAULT_TARGETS
from jimmy_manager.values import MAX_DEPTH, join_path

# What a grid may cost to build: boxes that overlapping sub-grids fall into, and items of a range that must be compared.
MAX_PARTS = 10_000
MAX_COMPARED = 1_000_000

Choices: TypeAlias = "Source | Sequence[Any]"


class Grid(Sequence[Config]):
    """The configurations that some choices stand for: a lazy sequence without duplicates, made by ``grid``.

    Each access builds a fresh Config. A slice is a Grid. ``len()`` fails beyond ``sys.maxsize`` points, ``size`` never.
    """

    def __init__(self, points: _Points, picks: Sequence[int] | None = None, default: Config | None = None) -> None:
        self._points = points
        self._picks = range(points.size) if picks is None else picks
        self._default = default

    @property
    def size(self) -> int:
        """The number of configurations."""
        return _length(self._picks)

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return self.size > 0

    @overload
    def __getitem__(self, index: int) -> Config: ...
    @overload
    def __getitem__(self, index: slice) -> Grid: ...
    def __getitem__(self, index: int | slice) -> Config | Grid:
        if isinstance(index, slice):
            return Grid(self._points, self._picks[index], self._default)
        try:
            pick = self._picks[as_index(index)]
        except IndexError as error:
            raise IndexError(f"index {index} is outside a grid of {self.size} configurations") from error
        config = adopt_mapping(self._points.at(pick), DEFAULT_TARGETS)
        return config if self._default is None else config.fill(self._default)

    def __iter__(self) -> Iterator[Config]:
        return map(self.__getitem__, range(self.size))

    def __contains__(self, config: object) -> bool:
        if self._default is not None or self._picks != range(self._points.size):
            return super().__contains__(config)
        return isinstance(config, Mapping) and self._points.has(cleaned(dict(config)))

    def __repr__(self) -> str:
        return f"<Grid of {self.size} configurations>"


def grid(choices: Choices) -> Grid:
    """Return the configurations that ``choices``, a mapping, a list of mappings or a YAML file of one, stand for.

    Nothing is built before it is asked for, and no configuration comes twice (by key, so 1 and 1.0 are one).

    >>> points = grid({'arch': ['mlp', 'cnn'], 'optim.lr': [0.1, 0.01], 'seed': range(10**9), 'epochs': 30})
    >>> len(points), points[-1]
    (4000000000, Config({'arch': 'cnn', 'optim': {'lr': 0.01}, 'seed': 999999999, 'epochs': 30}))
    >>> list(grid({'model': [{'depth': [1, 2]}, {'width': 8}], 'sizes': [[3, 4]]}))  # doctest: +NORMALIZE_WHITESPACE
    [Config({'model': {'depth': 1}, 'sizes': [3, 4]}),
     Config({'model': {'depth': 2}, 'sizes': [3, 4]}),
     Config({'model': {'width': 8}, 'sizes': [3, 4]})]
    """
    where = ""
    if isinstance(choices, str | os.PathLike):
        from jimmy_manager import yaml12

        where = f" in {os.fspath(choices)}"
        choices = yaml12.load(choices)
    for item in choices if isinstance(choices, list | tuple) else [choices]:
        if not isinstance(item, Mapping):
            raise ConfigError(f"choices{where} must be a mapping of fields or a list of such mappings, not {item!r}")
    return Grid(_parse(choices, "", 0))


def choices2configs(choices: Choices, num_configs: int | None = None, default: Source = None) -> Grid:
    """Return ``grid(choices)``, or ``num_configs`` random ones of it by Python's ``random``, filled with ``default``.

    >>> len(choices2configs({'lr': [0.1, 0.01], 'seed': range(100)}, num_configs=5, default={'arch': 'cnn'}))
    5
    """
    points = grid(choices)
    picks = None if num_configs is None else random.sample(range(points.size), min(num_configs, points.size))
    return Grid(points._points, picks, None if default is None else load_config(default))


class _Values:
    """Single values that are no mappings, each once: a range as it is, anything else as a list."""

    def __init__(self, items: range | list[Any]) -> None:
        self.items = items
        self.size = _length(items)

    @cached_property
    def names(self) -> frozenset[bytes]:
        return frozenset(map(canonical, self.items))

    def at(self, index: int) -> Any:
        return self.items[index]

    def has(self, value: Any) -> bool:
        if not isinstance(self.items, range):
            return canonical(value) in self.names
        return type(value) in (int, float) and value == int(value) and int(value) in self.items

    def overlaps(self, other: _Values) -> bool:
        small, large = sorted((self, other), key=lambda values: values.size)
        return bool(small.split(large)[0])

    def split(self, other: _Values) -> tuple[list[_Values], list[_Values]]:
        """Return the values that ``other`` has too, and those that it has not."""
        one, two = self.items, other.items
        if isinstance(one, range) and isinstance(two, range):
            if max(one[0], one[-1]) < min(two[0], two[-1]) or max(two[0], two[-1]) < min(one[0], one[-1]):
                return [], [self]
            if one[0] in two and one[-1] in two and one.step % two.step == 0:
                return [self], []
        if self.size > MAX_COMPARED:
            raise ConfigError(f"sub-grids overlap in {one!r}, which is too long to compare; let them differ in a field")
        common: list[Any] = []
        rest: list[Any] = []
        for item in one:
            (common if other.has(item) else rest).append(item)
        return [_Values(common)] if common else [], [_Values(rest)] if rest else []


class _Box:
    """A product: every mapping that takes each of its fields from a set of points."""

    def __init__(self, fields: dict[str, _Points]) -> None:
        self.fields = fields
        self.size = prod(points.size for points in fields.values())

    @cached_property
    def strides(self) -> list[tuple[str, _Points, int]]:
        steps, step = [], 1
        for name, points in reversed(self.fields.items()):
            steps.append((name, points, step))
            step *= points.size
        return steps[::-1]

    def at(self, index: int) -> dict[str, Any]:
        point = {}
        for name, points, step in self.strides:
            digit, index = divmod(index, step)
            point[name] = points.at(digit)
        return point

    def has(self, value: Any) -> bool:
        if not isinstance(value, dict) or value.keys() != self.fields.keys():
            return False
        return all(points.has(value[name]) for name, points in self.fields.items())

    def overlaps(self, other: _Box) -> bool:
        if self.fields.keys() != other.fields.keys():
            return False
        pairs = [(points, other.fields[name]) for name, points in self.fields.items()]
        # The cheapest comparison first: one field that tells the boxes apart saves all the others.
        pairs.sort(key=lambda pair: min(pair[0].size, pair[1].size))
        return all(one.overlaps(two) for one, two in pairs)

    def split(self, other: _Box) -> tuple[list[_Box], list[_Box]]:
        """Return the points that ``other`` has too, and those that it has not, cut off by one field after the other."""
        if not self.overlaps(other):
            return [], [self]
        inside, rest = dict(self.fields), []
        for name, points in self.fields.items():
            common, left = points.split(other.fields[name])
            if left.size:
                rest.append(_Box({**inside, name: left}))
            inside[name] = common
        return [_Box(inside)], rest


class _Points:
    """A set of points in their order: parts that share none."""

    def __init__(self, parts: Sequence[_Values | _Box]) -> None:
        self.parts = [part for part in parts if part.size]
        self.ends = list(accumulate(part.size for part in self.parts))
        self.size: int = self.ends[-1] if self.ends else 0

    def at(self, index: int) -> Any:
        number = bisect_right(self.ends, index) if len(self.ends) > 1 else 0
        return self.parts[number].at(index - self.ends[number - 1] if number else index)

    def has(self, value: Any) -> bool:
        kind = _Box if isinstance(value, dict) else _Values
        return any(isinstance(part, kind) and part.has(value) for part in self.parts)

    def overlaps(self, other: _Points) -> bool:
        return any(_overlap(one, two) for one in self.parts for two in other.parts)

    def split(self, other: _Points) -> tuple[_Points, _Points]:
        """Return the points that ``other`` has too, and those that it has not."""
        common: list[_Values | _Box] = []
        rest: list[_Values | _Box] = list(self.parts)
        for cut in other.parts:
            kept: list[_Values | _Box] = []
            for part in rest:
                inside, outside = _split(part, cut)
                common += inside
                kept += outside
            rest = kept
        return _Points(common), _Points(rest)


def _overlap(one: _Values | _Box, two: _Values | _Box) -> bool:
    if isinstance(one, _Box):
        return isinstance(two, _Box) and one.overlaps(two)
    return isinstance(two, _Values) and one.overlaps(two)


def _split(part: _Values | _Box, cut: _Values | _Box) -> tuple[Sequence[_Values | _Box], Sequence[_Values | _Box]]:
    if isinstance(part, _Box):
        return part.split(cut) if isinstance(cut, _Box) else ([], [part])
    return part.split(cut) if isinstance(cut, _Values) else ([], [part])


class _Union:
    """Collects the items of one list in their order and leaves out what an earlier one has."""

    def __init__(self) -> None:
        self.parts: list[_Values | _Box] = []
        self.run: list[Any] = []  # the values since the last mapping
        self.seen: set[bytes] = set()  # values, and mappings that stand for one point
        self.singles: list[_Box] = []
        self.boxes: list[_Box] = []

    def add_value(self, value: Any) -> None:
        name = canonical(value)
        if name not in self.seen:
            self.seen.add(name)
            self.run.append(value)

    def add_box(self, box: _Box) -> None:
        self._end_run()
        if box.size == 1:  # so that a long list of whole configurations is not compared pair by pair
            point = box.at(0)
            name = canonical(point)
            if name not in self.seen and not any(earlier.has(point) for earlier in self.boxes):
                self.seen.add(name)
                self.singles.append(box)
                self.parts.append(box)
            return
        left = [box] if box.size else []
        for earlier in [*self.boxes, *(single for single in self.singles if box.has(single.at(0)))]:
            left = [piece for part in left for piece in part.split(earlier)[1]]
            if len(left) > MAX_PARTS:
                raise ConfigError(f"a sub-grid overlaps others in more than {MAX_PARTS} pieces; make them disjoint")
        self.boxes += left
        self.parts += left

    def points(self) -> _Points:
        self._end_run()
        return _Points(self.parts)

    def _end_run(self) -> None:
        if self.run:
            self.parts.append(_Values(self.run))
            self.run = []


def _parse(choices: Any, path: str, depth: int) -> _Points:
    if depth > MAX_DEPTH:
        raise ConfigError(f"the choices at {path!r} are nested deeper than {MAX_DEPTH} levels")
    if isinstance(choices, Mapping):
        names = nest_names(dict(choices), path)
        return _Points([_Box({name: _parse(item, join_path(path, name), depth + 1) for name, item in names.items()})])
    if isinstance(choices, range):
        return _Points([_Values(choices)])
    union = _Union()
    if not isinstance(choices, list | tuple):
        union.add_value(cleaned(choices, path))
        return union.points()
    for number, item in enumerate(choices):
        where = join_path(path, number)
        if isinstance(item, Mapping):
            for part in _parse(item, where, depth + 1).parts:
                assert isinstance(part, _Box)
                union.add_box(part)
        else:
            union.add_value(cleaned(list(item) if isinstance(item, range) else item, where))
    return union.points()


def _length(items: Sequence[Any]) -> int:
    """Return the length also of a range that is too long for ``len``."""
    if not isinstance(items, range):
        return len(items)
    return max(0, -((items.start - items.stop) // items.step))
