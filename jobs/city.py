"""A made-up city: streets, arterial roads, an avenue, a ring road, a river with few bridges, and the ways through it.

Places are metres (east, north) of the centre.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STREET, ARTERIAL, EXPRESSWAY = 0, 1, 2
SPEED_M_S = np.array([8.0, 14.0, 22.0])
"""What is driven on each kind of road where nothing stops the traffic: 29, 50 and 79 km/h."""

LINES = 33  # streets each way
ARTERIAL_EVERY = 5
RING, AVENUE = 11, 4  # in blocks: how far the ring road is from the centre, and the avenue off the diagonal
BRIDGES = (4, 16, 24)  # the lines whose roads cross the river
PARKS = ((-900.0, 1300.0, 420.0), (1500.0, -1700.0, 520.0))  # east, north, radius in metres
CENTRES = ((0.0, 300.0, 700.0), (-1700.0, -300.0, 450.0), (1300.0, 1500.0, 500.0), (600.0, -2100.0, 450.0))
"""Where trips begin and end: downtown, station, university, mall; each with its radius in metres."""


class City(NamedTuple):
    """Crossings and the roads between them; a crossing with fewer neighbours than others has itself as the rest."""

    places: NDArray[np.float64]  # (N, 2)
    neighbours: NDArray[np.int64]  # (N, K)
    kinds: NDArray[np.int64]  # (N, K), of the road to each neighbour
    demand: NDArray[np.float64]  # (N,), probability that a trip begins or ends here
    river: NDArray[np.float64]  # (M, 2)

    def road(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the kind of the road between neighbouring crossings, each (...)."""
        place = (self.neighbours[start] == end[..., None]).argmax(-1)
        return np.take_along_axis(self.kinds[start], place[..., None], -1)[..., 0]

    def segments(self, kind: int) -> NDArray[np.float64]:
        """Return the roads of one kind as lines (E, 2, 2), for drawing."""
        start, column = np.nonzero((self.kinds == kind) & (self.neighbours > np.arange(len(self.places))[:, None]))
        return np.stack([self.places[start], self.places[self.neighbours[start, column]]], 1)

    def routes(
        self, origins: NDArray[np.int64], destinations: NDArray[np.int64], draw: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the fastest ways (B, H), as crossings; behind its end each stays at its destination.

        Drivers to different destinations judge the traffic differently, so not all take the same roads.
        """
        goals, goal_of = np.unique(destinations, return_inverse=True)
        seconds = self._seconds()[..., None] * draw.lognormal(0, 0.2, (*self.neighbours.shape, len(goals)))
        seconds = seconds.astype(np.float32)
        times = np.full((len(self.places), len(goals)), np.inf, np.float32)
        times[goals, np.arange(len(goals))] = 0
        # Bellman-Ford from all destinations at once: as many rounds as the longest way has roads.
        while True:
            through = seconds + times[self.neighbours]  # (N, K, G)
            shorter = np.minimum(times, through.min(1))
            if np.array_equal(shorter, times):
                break
            times = shorter
        onwards = np.take_along_axis(self.neighbours, through.argmin(1), 1)  # (N, G)
        onwards[goals, np.arange(len(goals))] = goals
        ways = [origins]
        while not np.array_equal(ways[-1], destinations):
            ways.append(onwards[ways[-1], goal_of])
        return np.stack(ways, 1)

    def _seconds(self) -> NDArray[np.float64]:
        """Return how long each road takes, (N, K), with 6 s for its crossing; for ever where there is none."""
        metres = np.linalg.norm(self.places[self.neighbours] - self.places[:, None], axis=-1)
        return np.where(metres > 0, metres / SPEED_M_S[self.kinds] + 6 * (self.kinds < EXPRESSWAY), np.inf)


@functools.cache
def build_city(seed: int = 0) -> City:
    """Build the city of ``seed``; the same each time."""
    draw = np.random.default_rng(seed)
    places, river = _lay_out(draw)
    roads = _connect(places, river, draw)
    reached = _reached(roads, start=_number(LINES // 2, LINES // 2))
    order = {old: new for new, old in enumerate(sorted(reached))}
    around: list[dict[int, int]] = [{} for _ in order]
    for (a, b), kind in roads.items():
        if a in reached:
            around[order[a]][order[b]] = around[order[b]][order[a]] = kind
    width = max(map(len, around))
    neighbours = np.array([[*each, *[i] * (width - len(each))] for i, each in enumerate(around)])
    kinds = np.array([[*each.values(), *[STREET] * (width - len(each))] for each in around])
    kept = places[sorted(reached)]
    demand = 0.02 + sum(np.exp(-((kept - (x, y)) ** 2).sum(1) / 2 / r**2) for x, y, r in CENTRES)
    return City(kept, neighbours, kinds, demand / demand.sum(), river)


def _number(column: int, row: int) -> int:
    return column * LINES + row


def _lay_out(draw: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the crossings of a bent grid, finer downtown, and the river."""

    def lines() -> NDArray[np.float64]:
        gaps = (130 + 7 * np.abs(np.arange(LINES - 1) - LINES / 2 + 1)) * draw.uniform(0.75, 1.25, LINES - 1)
        return np.cumsum([-gaps.sum() / 2, *gaps])

    grid = np.stack(np.meshgrid(lines(), lines(), indexing="ij"), -1).reshape(-1, 2)
    grid += draw.normal(0, 7, grid.shape)
    _round_off(grid, [_number(*each) for each in _octagon(LINES // 2, RING)])
    x = np.linspace(1.1 * grid[:, 0].min(), 1.1 * grid[:, 0].max(), 200)
    river = np.stack([x, -700 + 0.25 * x + 420 * np.sin(x / 1150)], 1)
    return _bend(grid), _bend(river)


def _round_off(places: NDArray[np.float64], around: list[int]) -> None:
    """Move the crossings ``around`` the centre onto a circle, and with them those that are near."""
    ring = places[around]
    distance = np.linalg.norm(ring, axis=1, keepdims=True)
    shift = ring * (distance.mean() / distance - 1)
    weight = np.exp(-((places[:, None] - ring) ** 2).sum(-1) / 2 / 150**2)  # (N, R)
    places += (weight @ shift) / np.maximum(weight.sum(1, keepdims=True), 1)
    places[around] = ring + shift


def _bend(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the plan a little and bend it in long waves, as hills and history do."""
    x, y = points.T
    bent = np.stack([x + 130 * np.sin(y / 900 + 1), y + 150 * np.sin(x / 1100)], 1)
    turn = np.deg2rad(9)
    return bent @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _connect(
    places: NDArray[np.float64], river: NDArray[np.float64], draw: np.random.Generator
) -> dict[tuple[int, int], int]:
    """Return the kind of road between crossings (a, b), a < b."""
    middle = LINES // 2
    roads: dict[tuple[int, int], int] = {}

    def add(points: list[tuple[int, int]], kind: int) -> None:
        numbers = [_number(*point) for point in points]
        for a, b in pairwise(numbers):
            roads[min(a, b), max(a, b)] = max(kind, roads.get((min(a, b), max(a, b)), 0))

    for line in range(LINES):
        kind = ARTERIAL if (line - middle) % ARTERIAL_EVERY == 0 or line in BRIDGES else STREET
        add([(line, i) for i in range(LINES)], kind)
        add([(i, line) for i in range(LINES)], kind)
    add([(i, i + AVENUE) for i in range(LINES - AVENUE)], ARTERIAL)
    add(_octagon(middle, RING), EXPRESSWAY)

    side = places[:, 1] > np.interp(places[:, 0], *river.T)
    for (a, b), kind in list(roads.items()):
        between = (places[a] + places[b]) / 2
        in_park = any(np.hypot(*(between - (x, y))) < radius for x, y, radius in PARKS)
        is_bridge = kind == EXPRESSWAY or (kind == ARTERIAL and a // LINES == b // LINES in BRIDGES)
        is_missing = kind == STREET and (in_park or draw.random() < 0.16)
        if is_missing or (side[a] != side[b] and not is_bridge):
            del roads[a, b]
    return roads


def _octagon(middle: int, radius: int) -> list[tuple[int, int]]:
    """Return the crossings around an octagon, from block to block."""
    half = round(radius * 0.41)
    corner = [(radius, i) for i in range(-half, half)] + [(radius - i, half + i) for i in range(radius - half)]
    around = []
    for _ in range(4):
        around += corner
        corner = [(-y, x) for x, y in corner]
    return [(middle + x, middle + y) for x, y in [*around, around[0]]]


def _reached(roads: dict[tuple[int, int], int], start: int) -> set[int]:
    """Return every crossing that can be reached from ``start``."""
    around: dict[int, list[int]] = {}
    for a, b in roads:
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    reached, waiting = {start}, [start]
    while waiting:
        new = set(around[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return reached
