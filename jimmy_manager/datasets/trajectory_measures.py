"""How long trajectories are, how far apart points lie, and how much two sets of trajectories differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from jimmy_manager.datasets.sequence_checks import Lengths, require_count, require_lengths, to_device
from jimmy_manager.datasets.sequences import lengthsToMask
from jimmy_manager.datasets.trajectories import BatchTraj, Traj, require_points, require_trajs
from jimmy_manager.errors import ConfigError, DatasetError

EARTH_RADIUS_M = 6_371_000.0
"""The mean radius of the Earth in metres, of which `geometricDistance` makes a sphere."""

Trajs = BatchTraj | Traj | Sequence[Traj]
Bounds = tuple[float, float, float, float]

_CHUNK = 1 << 18  # points at a time: a few MB of scratch, whatever the size of a dataset


def computeDistance(
    trajs: BatchTraj | Traj, traj_lengths: Lengths | None = None, unit: Literal["deg", "m"] = "deg"
) -> Tensor:
    """Sum the distances between consecutive points along each path: ``(B, L, 2)`` -> ``(B,)``, ``(L, 2)`` -> 0-d.

    ``unit='deg'`` is the planar distance in the unit of the coordinates, whatever that is; ``'m'`` the one of
    `geometricDistance` in metres, for coordinates in degrees. Only the first ``traj_lengths`` points count, where
    given. A path of fewer than two points has length 0.

    >>> computeDistance(torch.tensor([[0., 0.], [3., 4.], [3., 5.]]))
    tensor(6.)
    """
    require_trajs("computeDistance", trajs, floating=True)
    if unit not in ("deg", "m"):
        raise ConfigError(f"computeDistance has no unit {unit!r}; use 'deg' or 'm'")
    start, end = trajs[..., :-1, :], trajs[..., 1:, :]
    if traj_lengths is not None:
        lengths = to_device(require_lengths("computeDistance", traj_lengths, trajs, trajs.ndim == 3), trajs.device)
        real = lengthsToMask(lengths - 1, start.shape[-2])[..., None]
        # Before the distances, not after: padding may be NaN, and NaN times 0 is NaN in the gradient.
        start, end = torch.where(real, start, 0), torch.where(real, end, 0)
    steps = torch.linalg.vector_norm(end - start, dim=-1) if unit == "deg" else _great_circle(start, end)
    return steps.sum(-1)


def geometricDistance(
    pred_points: Tensor, gt_points: Tensor, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor:
    """Return the great-circle distance in metres between points (lng, lat) in degrees, on a sphere of `EARTH_RADIUS_M`.

    Points are ``(..., 2)`` of equal shape; ``reduction='none'`` gives ``(...)``, the others a 0-d tensor. It is the
    haversine formula in a form that stays exact near antipodes too. At equal points and at antipodes, where the
    distance has a kink, the gradient is 0.

    In float32 neighbouring degrees near longitude 180 are 1.7 m apart: measure short distances in float64.

    >>> paris, berlin = torch.tensor([2.3522, 48.8566]), torch.tensor([13.4050, 52.5200])
    >>> round(geometricDistance(paris, berlin).item() / 1000)
    877
    """
    require_points("geometricDistance", pred_points)
    require_points("geometricDistance", gt_points)
    if pred_points.shape != gt_points.shape:
        raise DatasetError(
            f"geometricDistance needs as many predicted as true points, not {tuple(pred_points.shape)} and "
            f"{tuple(gt_points.shape)}; use expand_as where one point stands for many"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"geometricDistance has no reduction {reduction!r}; use 'mean', 'sum' or 'none'")
    distances = _great_circle(pred_points, gt_points)
    if reduction == "none":
        return distances
    if reduction == "sum":
        return distances.sum()
    if distances.numel() == 0:
        raise DatasetError(f"geometricDistance has no points to average: their shape is {tuple(pred_points.shape)}")
    return distances.mean()


def computeJSD(
    dataset1: Trajs,
    dataset2: Trajs,
    num_bins: int = 50,
    lengths1: Lengths | None = None,
    lengths2: Lengths | None = None,
    bounds: Bounds | None = None,
) -> float:
    """Return the Jensen-Shannon divergence between where the points of two datasets lie: 0 to ln 2, alike to disjoint.

    Each dataset is a batch, a trajectory or a list of trajectories; padding behind ``lengths1`` and ``lengths2`` does
    not count. All points of a dataset go into one histogram of ``num_bins`` x ``num_bins`` cells over the bounds common
    to both, or over ``bounds`` ``(lng_min, lat_min, lng_max, lat_max)``, which make values of several calls comparable;
    points outside are left out. 1e-10 is added to each cell's probability, which is then normalised anew.

    With P, Q the histograms and M their mean: (KL(P, M) + KL(Q, M)) / 2 in natural logarithms (Lin 1991, eq. 4.1).
    Computed in float64, in pieces, so scratch memory does not grow with a batch. Waits for the device.

    >>> here, there = torch.zeros(10, 2), torch.ones(10, 2)
    >>> computeJSD(here, here), round(computeJSD(here, there), 4)
    (0.0, 0.6931)
    """
    require_count("computeJSD", "num_bins", num_bins, 1)
    points1, points2 = _Points("dataset1", dataset1, lengths1), _Points("dataset2", dataset2, lengths2)
    # Also where bounds are given, as a NaN lies neither within nor outside them.
    (low1, high1), (low2, high2) = points1.extent(), points2.extent()
    if bounds is None:
        low, high = torch.minimum(low1, low2), torch.maximum(high1, high2)
    else:
        low, high = _corners(bounds)
    p, q = (points.probabilities(low, high, num_bins) for points in (points1, points2))
    mean = (p + q) / 2
    divergence = ((p * (p / mean).log()).sum() + (q * (q / mean).log()).sum()) / 2
    return max(divergence.item(), 0.0)


class _Points:
    """The real points of a dataset of `computeJSD`, handed out in pieces."""

    def __init__(self, name: str, dataset: Trajs, lengths: Lengths | None) -> None:
        self.name = name
        self.mask: Tensor | None = None
        if not isinstance(dataset, Tensor):
            if lengths is not None:
                raise DatasetError(f"computeJSD takes lengths only beside a tensor, and {name} is a list")
            parts = [require_trajs("computeJSD", traj).reshape(-1, 2) for traj in dataset]
            dataset = torch.cat(parts) if parts else torch.empty(0, 2)
        require_trajs("computeJSD", dataset)
        if lengths is not None:
            lengths = require_lengths("computeJSD", lengths, dataset, dataset.ndim == 3)
            self.mask = lengthsToMask(to_device(lengths, dataset.device), dataset.shape[-2]).reshape(-1)
        self.flat = dataset.detach().reshape(-1, 2)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.flat), _CHUNK):
            piece = self.flat[start : start + _CHUNK]
            if self.mask is not None:
                piece = piece[self.mask[start : start + _CHUNK]]
            # Apple's GPUs have no float64.
            yield (piece.cpu() if piece.device.type == "mps" else piece).double()

    def extent(self) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest coordinates, each ``(2,)`` float64 on the CPU."""
        pieces = [torch.stack([piece.amin(0), piece.amax(0)]) for piece in self if len(piece)]
        if not pieces:
            raise DatasetError(f"computeJSD found no points in {self.name}")
        corners = torch.stack(pieces).cpu()
        low, high = corners[:, 0].amin(0), corners[:, 1].amax(0)
        if not torch.stack([low, high]).isfinite().all():
            raise DatasetError(
                f"computeJSD found coordinates in {self.name} that are NaN or infinite; leave such points out, "
                "or give lengths if they are padding"
            )
        return low, high

    def probabilities(self, low: Tensor, high: Tensor, num_bins: int) -> Tensor:
        """Return the smoothed histogram over the cells between two corners, flat, float64 on the CPU."""
        counts = torch.zeros(num_bins**2, dtype=torch.int64)
        span = torch.where(high > low, high - low, 1)
        for piece in self:
            corner, size = low.to(piece.device), span.to(piece.device)
            inside = piece[((piece >= corner) & (piece <= high.to(piece.device))).all(-1)]
            cell = ((inside - corner) / size * num_bins).long().clamp(max=num_bins - 1)
            counts += torch.bincount(cell[:, 0] * num_bins + cell[:, 1], minlength=num_bins**2).cpu()
        if not counts.any():
            raise DatasetError(
                f"computeJSD found no points of {self.name} within the bounds {(*low.tolist(), *high.tolist())!r}"
            )
        smooth = counts / counts.sum(dtype=torch.float64) + 1e-10
        return smooth / smooth.sum()


def _corners(bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return the lower and the upper corner of ``bounds``."""
    corners = torch.as_tensor(bounds, dtype=torch.float64, device="cpu").flatten()
    if len(corners) != 4 or not (corners[:2] < corners[2:]).all():
        raise ConfigError(f"computeJSD got the bounds {bounds!r}; they must be (lng_min, lat_min, lng_max, lat_max)")
    return corners[:2], corners[2:]


def _great_circle(start: Tensor, end: Tensor) -> Tensor:
    """Return the distance in metres between points ``(..., 2)`` in degrees.

    Haversine, h = sin²(Δφ/2) + cos φ₁ cos φ₂ sin²(Δλ/2) (Sinnott 1984), with cos φ₁ cos φ₂ = cos²φ̄ - sin²(Δφ/2) for the
    mean latitude φ̄. That makes h and 1 - h sums of squares, so the angle 2 atan2(√h, √(1 - h)) loses no digits
    anywhere; asin(√h) loses half of them near antipodes.
    """
    half = torch.deg2rad((end - start) / 2)
    middle = torch.deg2rad((start[..., 1] + end[..., 1]) / 2)
    (sin_lng, sin_lat), (cos_lng, cos_lat) = half.sin().unbind(-1), half.cos().unbind(-1)
    # Not hypot, whose gradient at 0 is NaN.
    near = torch.linalg.vector_norm(torch.stack([sin_lat * cos_lng, middle.cos() * sin_lng]), dim=0)
    far = torch.linalg.vector_norm(torch.stack([cos_lat * cos_lng, middle.sin() * sin_lng]), dim=0)
    return 2 * EARTH_RADIUS_M * torch.atan2(near, far)
