"""GPS tracks of cars in the city of ``city.py``: fastest ways, real accelerations, red lights, and noisy receivers.

python jobs/gps_tracks.py [PICTURE.png]          generate some, time it, and draw them
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jimmy_manager.datasets import DEVICE, EARTH_RADIUS_M, JimmyDataset, plotTraj

if __package__:  # as jobs.gps_tracks, or else from its own folder
    from .city import ARTERIAL, EXPRESSWAY, SPEED_M_S, STREET, City, build_city
else:
    from city import ARTERIAL, EXPRESSWAY, SPEED_M_S, STREET, City, build_city

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CENTRE = (104.06, 30.67)
"""Longitude and latitude of the centre."""

M_PER_DEGREE = EARTH_RADIUS_M * np.pi / 180 * np.cos(np.deg2rad([CENTRE[1], 0]))
UNIT_M = 3000.0
"""One unit of normalised coordinates: the city lies between about -1 and 1."""

STEP_M = 12.0  # in which ways are driven
SPEED_UP, SLOW_DOWN = 1.6, 2.2  # m/s²
RED_LIGHT = np.array([0.12, 0.35, 0.0])  # probability to meet one at the end of a road of each kind
SETS = {"train": 1, "eval": 2, "test": 3}

Floats = NDArray[np.float64]


class Tracks(NamedTuple):
    """Tracks padded with zeros at their ends: places in metres (east, north) of the centre, and how many are real."""

    measured: Floats  # (B, L, 2)
    true: Floats  # (B, L, 2)
    lengths: NDArray[np.int64]  # (B,)


class GpsTracks(JimmyDataset):
    """Batches of ``traj`` as measured and ``clean`` as driven, (B, L, 2) in units of `UNIT_M`, and ``lengths`` (B,).

    A point every ``interval_s`` seconds; a track has from ``min_points`` to ``max_points`` = L of them, and zeros
    behind its end. ``train``, ``eval`` and ``test`` are different trips in one city; for coordinates see `to_degrees`.
    """

    def __init__(
        self, set_name: str, batch_size: int, drop_last: bool = False, shuffle: bool = False, *,
        n_tracks: int = 4000, interval_s: float = 5.0, min_points: int = 36, max_points: int = 145, seed: int = 0,
        device: torch.device | str = DEVICE,
    ) -> None:
        super().__init__(set_name, batch_size, drop_last, shuffle)
        tracks = make_tracks(n_tracks, (seed, SETS[set_name]), interval_s, min_points, max_points)
        self.traj, self.clean = (torch.from_numpy(each / UNIT_M).float().to(device) for each in tracks[:2])
        self.lengths = torch.from_numpy(tracks.lengths).to(device)
        self.n_samples = len(self.lengths)

    def __getitem__(self, idx: int) -> dict[str, Tensor]:
        rows = self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]
        return {"traj": self.traj[rows], "clean": self.clean[rows], "lengths": self.lengths[rows]}


def to_degrees(places: Tensor) -> Tensor:
    """Turn normalised coordinates (..., 2) into longitude and latitude, in float64."""
    east, north = (places.double() * UNIT_M).unbind(-1)
    return torch.stack([east / M_PER_DEGREE[0] + CENTRE[0], north / M_PER_DEGREE[1] + CENTRE[1]], -1)


def distance_to_lines(places: Tensor, lines: Tensor) -> Tensor:
    """Return how far each of ``places`` (P, 2) is from the nearest of ``lines`` (E, 2, 2), in their unit, (P,)."""
    start, along = lines[:, 0], lines[:, 1] - lines[:, 0]
    nearest = []
    for part in places.split(2000):  # (P, E, 2) would not fit
        share = ((part[:, None] - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
        foot = start + share.clamp(0, 1)[..., None] * along
        nearest.append((part[:, None] - foot).norm(dim=-1).amin(1))
    return torch.cat(nearest)


def distance_to_roads(places: Tensor) -> Tensor:
    """Return how many metres normalised places (P, 2) are from the nearest road of the city, (P,)."""
    roads = np.concatenate([build_city().segments(kind) for kind in (STREET, ARTERIAL, EXPRESSWAY)])
    return distance_to_lines(places * UNIT_M, torch.from_numpy(roads).to(places))


def draw_streets(ax: Axes) -> None:
    """Draw the city in pale colours, to lay tracks on; call it after they are drawn, so that they set the limits."""
    from matplotlib.collections import LineCollection

    limits = ax.axis()
    city = build_city()
    ax.plot(*_degrees(city.river).T, color="#cfe6ef", linewidth=7, zorder=0)
    for kind, width in ((STREET, 0.4), (ARTERIAL, 1.1), (EXPRESSWAY, 1.9)):
        roads = _degrees(city.segments(kind))
        ax.add_collection(LineCollection(list(roads), colors="#d5d2cc", linewidths=width, zorder=0.5))
    ax.axis(limits)


def _degrees(metres: Floats) -> Floats:
    return metres / M_PER_DEGREE + CENTRE


@functools.cache
def make_tracks(
    count: int, seed: tuple[int, ...] = (0, 1), interval_s: float = 5.0, min_points: int = 36, max_points: int = 145
) -> Tracks:
    """Generate ``count`` tracks, the same for the same arguments."""
    draw, parts, found = np.random.default_rng(seed), [], 0
    while found < count:
        part = _some_tracks(draw, interval_s, max_points)
        part = Tracks(*(each[part.lengths >= min_points] for each in part))
        parts.append(part)
        found += len(part.lengths)
    return Tracks(*(np.concatenate(each)[:count] for each in zip(*parts, strict=True)))


def _some_tracks(draw: np.random.Generator, interval_s: float, max_points: int, trips: int = 2000) -> Tracks:
    city = build_city()
    # Few destinations, as each costs a search for the ways to it.
    goals = draw.choice(len(city.places), 150, p=city.demand)[draw.integers(150, size=trips)]
    starts = draw.choice(len(city.places), trips, p=city.demand)
    is_far = np.linalg.norm(city.places[starts] - city.places[goals], axis=1) > 1200
    ways = city.routes(starts[is_far], goals[is_far], draw)
    true, lengths = _drive(city, ways, draw, interval_s, max_points)
    is_whole = lengths <= max_points
    true, lengths = true[is_whole], lengths[is_whole]
    is_real = (np.arange(max_points) < lengths[:, None])[..., None]
    return Tracks(np.where(is_real, _measure(true, draw, interval_s), 0), np.where(is_real, true, 0), lengths)


def _drive(
    city: City, ways: NDArray[np.int64], draw: np.random.Generator, interval_s: float, max_points: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Return where each car is every ``interval_s`` (B, max_points, 2), and how many of these a whole trip takes."""
    corners = city.places[ways]  # (B, H, 2)
    metres = np.linalg.norm(np.diff(corners, axis=1), axis=-1)  # (B, H - 1)
    at = np.cumsum(np.pad(metres, ((0, 0), (1, 0))), 1)  # (B, H), where on its way each corner is
    # Trips begin and end somewhere along a road.
    first, last = (share * draw.uniform(0.1, 0.9, len(ways)) for share in (metres[:, 0], 60))
    way = first[:, None] + STEP_M * np.arange(int(at.max() / STEP_M) + 1)  # (B, S)
    end = np.minimum(way, (at[:, -1] - last)[:, None])
    road, wait = _rules(city, ways, metres, draw)

    piece = _passed(at[:, 1:], end)  # (B, S), the road driven on
    limit = np.take_along_axis(road, piece, 1)
    turned = np.diff(piece, axis=1, prepend=0) > 0
    stop_s = np.where(turned, np.take_along_axis(wait, np.maximum(piece - 1, 0), 1), 0)
    limit = np.where(turned, np.minimum(limit, _turning_speed(corners, piece)), limit)
    is_still = (stop_s > 0) | (end < way)
    is_still[:, 0] = True
    speed = _accelerate(np.where(is_still, 0.5, limit))
    took = np.diff(end, axis=1) * 2 / (speed[:, 1:] + speed[:, :-1])
    leaves = np.cumsum(np.pad(took, ((0, 0), (1, 0))) + stop_s, 1)  # (B, S)
    clock = np.stack([leaves - stop_s, leaves], -1).reshape(len(ways), -1)  # arrives and leaves

    times = np.broadcast_to(interval_s * np.arange(max_points), (len(ways), max_points))
    reached = _interpolate(times, clock, np.repeat(end, 2, 1))
    where = np.stack([_interpolate(reached, at, corners[..., axis]) for axis in (0, 1)], -1)
    return where, (clock[:, -1] // interval_s).astype(np.int64) + 1


def _rules(
    city: City, ways: NDArray[np.int64], metres: Floats, draw: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the speed on each road of each way, and how many seconds it is waited at its end; both (B, H - 1)."""
    kinds = city.road(ways[:, :-1], ways[:, 1:])
    driver = draw.lognormal(0, 0.1, (len(ways), 1))
    traffic = draw.lognormal(-0.1, 0.2, kinds.shape)
    is_red = (draw.random(kinds.shape) < RED_LIGHT[kinds]) & (metres > 0)
    return SPEED_M_S[kinds] * driver * traffic, np.where(is_red, draw.uniform(3, 45, kinds.shape), 0)


def _turning_speed(corners: Floats, piece: NDArray[np.int64]) -> Floats:
    """Return how fast the corner at the beginning of each road can be taken: 5 m/s at right angles."""
    heading = np.diff(corners, axis=1)
    heading /= np.maximum(np.linalg.norm(heading, axis=-1, keepdims=True), 1e-9)
    cosine = np.ones(heading.shape[:2])
    cosine[:, 1:] = (heading[:, 1:] * heading[:, :-1]).sum(-1)
    return np.take_along_axis(5 / np.maximum(1 - cosine, 0.05) ** 0.7, piece, 1)


def _accelerate(limit: Floats) -> Floats:
    """Return the highest speeds (B, S), every `STEP_M`, within the limits and what an engine and brakes can do."""
    speed = limit.copy()
    for i in range(1, speed.shape[1]):
        speed[:, i] = np.minimum(speed[:, i], np.sqrt(speed[:, i - 1] ** 2 + 2 * SPEED_UP * STEP_M))
    for i in range(speed.shape[1] - 2, -1, -1):
        speed[:, i] = np.minimum(speed[:, i], np.sqrt(speed[:, i + 1] ** 2 + 2 * SLOW_DOWN * STEP_M))
    return speed


def _passed(xs: Floats, x: Floats) -> NDArray[np.int64]:
    """Count in each row of ``xs`` (B, H), never falling, how many are not above each of ``x`` (B, S)."""
    offset = _row_offsets(xs, x)
    found = np.searchsorted((xs + offset).ravel(), (x + offset).ravel(), "right").reshape(x.shape)
    return np.minimum(found - xs.shape[1] * np.arange(len(xs))[:, None], xs.shape[1] - 1)


def _interpolate(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """Interpolate in each row of ``xs``, ``ys`` (B, S), both never falling, at ``x`` (B, L)."""
    offset = _row_offsets(xs, x)
    inside = np.clip(x, xs[:, :1], xs[:, -1:])
    return np.interp((inside + offset).ravel(), (xs + offset).ravel(), ys.ravel()).reshape(x.shape)


def _row_offsets(*rows: Floats) -> Floats:
    """Return what lifts each row above the one before, so that one search does for all: one for each would be slow."""
    return (max(each.max() for each in rows) + 1) * np.arange(len(rows[0]))[:, None]


def _measure(true: Floats, draw: np.random.Generator, interval_s: float) -> Floats:
    """Add what a receiver does: errors of 5 m that drift over half a minute, jitter, and now and then a reflection."""
    drift = draw.normal(0, 5, true.shape)
    kept = np.exp(-interval_s / 30)
    for i in range(1, true.shape[1]):
        drift[:, i] = kept * drift[:, i - 1] + np.sqrt(1 - kept**2) * drift[:, i]
    is_reflected = draw.random(true.shape[:2]) < 0.004
    return true + drift + draw.normal(0, 1.5, true.shape) + is_reflected[..., None] * draw.normal(0, 60, true.shape)


def draw_map(picture: Path, count: int = 1500) -> None:
    """Draw ``count`` tracks, where they show the roads, and a few with all their points."""
    from matplotlib.figure import Figure

    data = GpsTracks("train", count, n_tracks=count, device="cpu")[0]
    points, lengths = to_degrees(data["traj"]), data["lengths"]
    figure = Figure(figsize=(10.4, 5.2), layout="constrained")
    many, few = figure.subplots(1, 2)
    plotTraj(many, points, lengths, color="#1f4e8c", linewidth=0.7, geo=True)
    many.set_title(f"{len(points)} tracks", loc="left", size=10)
    shown = [f"C{i}" for i in range(9)]
    some = points[: len(shown)], lengths[: len(shown)], shown
    plotTraj(few, *some, linewidth=0.9, markersize=2.6, alpha=0.95, ends=True, geo=True)
    few.set_title(f"{len(shown)} of them: a point every 5 s, from circle to square", loc="left", size=10)
    for axes in (many, few):
        draw_streets(axes)
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Generate tracks, say how fast, and draw them where a picture is named."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        raise SystemExit(__doc__)
    start = time.perf_counter()
    tracks = make_tracks(5000)
    took = time.perf_counter() - start
    metres = np.linalg.norm(np.diff(tracks.true, axis=1), axis=-1)
    driven = np.where(np.arange(1, tracks.true.shape[1]) < tracks.lengths[:, None], metres, 0).sum(1)
    speed = driven.sum() / 5 / (tracks.lengths - 1).sum()
    print(f"{len(driven)} tracks in {took:.1f} s, {speed * 3.6:.0f} km/h on average, stops included;")
    print(f"in the median {np.median(driven) / 1000:.1f} km and {np.median(tracks.lengths):.0f} points, 5 s apart")
    if len(sys.argv) == 2:
        draw_map(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
