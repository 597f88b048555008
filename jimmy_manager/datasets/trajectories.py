"""Trajectories as tensors whose last dimension is (longitude, latitude): crop, flip, normalise, rotate, resample.

Each function takes a single trajectory `Traj` ``(L, 2)`` or a batch `BatchTraj` ``(B, L, 2)``, float32 or float64, on
any device, and returns the same kind. None writes into its argument. Where ``traj_lengths`` are given, only the first
``traj_lengths`` points of each trajectory count, and the padding behind them comes back as 0.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor

from jimmy_manager.datasets.sequence_checks import Lengths, require_count, require_lengths, to_device
from jimmy_manager.datasets.sequences import cropPadSequence, lengthsToMask
from jimmy_manager.errors import ConfigError, DatasetError

Traj: TypeAlias = Annotated[Tensor, "L 2"]
"""One trajectory: ``(L, 2)``, its points as (longitude, latitude)."""
BatchTraj: TypeAlias = Annotated[Tensor, "B L 2"]
"""A batch of trajectories: ``(B, L, 2)``."""

InterpMode = Literal["linear", "nearest", "cubic"]


def getLng(trajs: BatchTraj | Traj) -> Tensor:
    """Return the longitudes ``(B, L)`` or ``(L,)``, a view; also of points ``(..., 2)`` of any shape.

    >>> getLng(torch.tensor([[104.5, 30.25], [104.75, 30.5]]))
    tensor([104.5000, 104.7500])
    """
    return require_points("getLng", trajs)[..., 0]


def getLat(trajs: BatchTraj | Traj) -> Tensor:
    """Return the latitudes ``(B, L)`` or ``(L,)``, a view; also of points ``(..., 2)`` of any shape.

    >>> getLat(torch.tensor([[104.5, 30.25], [104.75, 30.5]]))
    tensor([30.2500, 30.5000])
    """
    return require_points("getLat", trajs)[..., 1]


def cropPadTraj(traj: Traj | BatchTraj, target_len: int, pad_value: float = 0.0) -> Traj | BatchTraj:
    """Return a copy with exactly ``target_len`` points, cropped or padded with ``pad_value`` at the tail.

    >>> cropPadTraj(torch.tensor([[1., 2.]]), 2)
    tensor([[1., 2.],
            [0., 0.]])
    """
    return cropPadSequence(require_trajs("cropPadTraj", traj), target_len, pad_value, dim=-2)


def flipTrajWestEast(trajs: BatchTraj | Traj) -> BatchTraj | Traj:
    """Mirror west and east by negating the longitude; centre first to flip a trajectory in its place.

    >>> flipTrajWestEast(torch.tensor([[1., 2.]]))
    tensor([[-1.,  2.]])
    """
    require_trajs("flipTrajWestEast", trajs)
    return torch.stack([-trajs[..., 0], trajs[..., 1]], -1)


def flipTrajNorthSouth(trajs: BatchTraj | Traj) -> BatchTraj | Traj:
    """Mirror north and south by negating the latitude; centre first to flip a trajectory in its place.

    >>> flipTrajNorthSouth(torch.tensor([[1., 2.]]))
    tensor([[ 1., -2.]])
    """
    require_trajs("flipTrajNorthSouth", trajs)
    return torch.stack([trajs[..., 0], -trajs[..., 1]], -1)


def centerTraj(trajs: BatchTraj | Traj, traj_lengths: Lengths | None = None) -> BatchTraj | Traj:
    """Move each trajectory so that the mean of its points is (0, 0).

    >>> centerTraj(torch.tensor([[1., 10.], [3., 10.]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """
    local, mask = _from_first_point("centerTraj", trajs, traj_lengths)
    return _zero_padding(local - _mean(local, mask), mask)


def zScoreTraj(trajs: BatchTraj | Traj, traj_lengths: Lengths | None = None) -> BatchTraj | Traj:
    """Standardise each coordinate of each trajectory to mean 0 and variance 1 over ``L``.

    The variance is the unbiased one, with ``L - 1`` in its denominator. A coordinate that is constant, as that of a
    single point, becomes 0.

    >>> zScoreTraj(torch.tensor([[1., 10.], [2., 10.], [3., 10.]]))
    tensor([[-1.,  0.],
            [ 0.,  0.],
            [ 1.,  0.]])
    """
    local, mask = _from_first_point("zScoreTraj", trajs, traj_lengths)
    centred = _zero_padding(local - _mean(local, mask), mask)
    variance = _mean(centred.square(), mask, fewer=1)
    # The root of 1 where the variance is 0, as that of 0 has a NaN gradient.
    return centred / torch.where(variance > 0, variance, 1).sqrt()


def minMaxTraj(trajs: BatchTraj | Traj, traj_lengths: Lengths | None = None) -> BatchTraj | Traj:
    """Scale each coordinate of each trajectory to [0, 1] over ``L``; one that is constant becomes 0.

    >>> minMaxTraj(torch.tensor([[1., 10.], [2., 10.], [5., 10.]]))
    tensor([[0.0000, 0.0000],
            [0.2500, 0.0000],
            [1.0000, 0.0000]])
    """
    local, mask = _from_first_point("minMaxTraj", trajs, traj_lengths)
    if local.shape[-2] == 0:
        return local
    # Padding lies on the first point here, so it is never the only minimum or maximum.
    low = local.amin(-2, keepdim=True)
    span = local.amax(-2, keepdim=True) - low
    return _zero_padding((local - low) / torch.where(span > 0, span, 1), mask)


def rotateTraj(trajs: BatchTraj | Traj, angles: Tensor | float) -> BatchTraj | Traj:
    """Rotate about (0, 0) by ``angles`` degrees counter-clockwise; centre first to turn a trajectory in its place.

    ``angles`` is one number or 0-d tensor for all, or ``(B,)``. A single trajectory with ``(B,)`` angles becomes a
    batch ``(B, L, 2)``. Gradients flow into both.

    >>> rotateTraj(torch.tensor([[1., 0.], [0., 2.]]), 90).round(decimals=4)
    tensor([[ 0.,  1.],
            [-2.,  0.]])
    """
    require_trajs("rotateTraj", trajs, floating=True)
    cos, sin = _cos_sin(angles, trajs)
    lng, lat = trajs.unbind(-1)
    return torch.stack([cos * lng - sin * lat, sin * lng + cos * lat], -1)


def interpTraj(
    trajs: BatchTraj | Traj, num_points: int, mode: InterpMode = "linear", traj_lengths: Lengths | None = None
) -> BatchTraj | Traj:
    """Resample each trajectory to ``num_points`` points; its first and last point are kept exactly.

    The new points are evenly spaced in the index of the old ones, not in distance. ``mode`` is ``'linear'``,
    ``'nearest'``, or ``'cubic'``: the spline of Catmull and Rom (1974) through all points, continued straight beyond
    the ends, so that a straight line stays one. ``num_points=1`` gives the first point. With ``traj_lengths`` the real
    part of each trajectory is resampled, so the result has no padding, except that of one without points.

    >>> interpTraj(torch.tensor([[0., 0.], [2., 4.]]), 3)
    tensor([[0., 0.],
            [1., 2.],
            [2., 4.]])
    """
    require_trajs("interpTraj", trajs, floating=True)
    require_count("interpTraj", "num_points", num_points, 1)
    if mode not in ("linear", "nearest", "cubic"):
        raise ConfigError(f"interpTraj has no mode {mode!r}; use 'linear', 'nearest' or 'cubic'")
    if trajs.shape[-2] == 0:
        raise DatasetError(f"interpTraj cannot resample trajectories without points, of shape {tuple(trajs.shape)}")
    last: Tensor | int = trajs.shape[-2] - 1
    if traj_lengths is not None:
        mask = _real("interpTraj", trajs, traj_lengths)
        trajs = torch.where(mask, trajs, trajs[..., :1, :])
        last = (mask.sum(-2) - 1).clamp(min=0)
    # Positions as exact fractions of integers, so that old points are hit exactly, the last one too.
    steps = max(num_points - 1, 1)
    position = torch.arange(num_points, device=trajs.device) * last
    if mode == "nearest":
        return _take(trajs, (2 * position + steps) // (2 * steps))
    left = position // steps
    weight = ((position % steps).to(trajs.dtype) / steps)[..., None]
    start = _take(trajs, left)
    if mode == "linear":
        return start + weight * (_take(trajs, left + 1) - start)
    return start + _cubic_offset(trajs.diff(dim=-2), left, weight, last - 1)


def _cubic_offset(segments: Tensor, left: Tensor, weight: Tensor, last: Tensor | int) -> Tensor:
    """Return how far the spline has gone from the left neighbours; ``last`` is the index of the last real segment."""
    if segments.shape[-2] == 0:
        return torch.zeros_like(weight)
    before, here, behind = (_take(segments, (left + step).clamp(max=last)) for step in (-1, 0, 1))
    slope, next_slope = (before + here) / 2, (here + behind) / 2
    curve = 3 * here - 2 * slope - next_slope + weight * (slope + next_slope - 2 * here)
    return weight * (slope + weight * curve)


def _take(points: Tensor, index: Tensor) -> Tensor:
    """Pick points by index ``(N,)`` or ``(B, N)``; one beyond an end means that end."""
    index = index.clamp(0, points.shape[-2] - 1)
    if index.ndim == 1:
        return points.index_select(-2, index)
    return points.take_along_dim(index[..., None], dim=-2)


def _cos_sin(angles: Tensor | float, trajs: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Return cosine and sine of ``angles`` in degrees, shaped to multiply ``(B, L)``."""
    if not isinstance(angles, Tensor):
        # Plain numbers need no copy to the device.
        radians = math.radians(math.fmod(angles, 360))
        return math.cos(radians), math.sin(radians)
    if angles.ndim > 1 or (angles.ndim == 1 and trajs.ndim == 3 and len(angles) != len(trajs)):
        raise DatasetError(
            f"rotateTraj needs one angle or one for each trajectory, not angles of shape {tuple(angles.shape)} "
            f"for trajectories of shape {tuple(trajs.shape)}"
        )
    angles = angles.to(trajs.device, non_blocking=True)
    turns = torch.deg2rad(torch.remainder(angles if angles.is_floating_point() else angles.to(trajs.dtype), 360))
    return turns.cos().to(trajs.dtype)[..., None], turns.sin().to(trajs.dtype)[..., None]


def _from_first_point(function: str, trajs: Tensor, lengths: Lengths | None) -> tuple[Tensor, Tensor | None]:
    """Return the trajectories as seen from their first points, with 0 for padding, and the mask ``(..., L, 1)``.

    A constant coordinate becomes exactly 0, where subtracting its rounded mean would leave a residue that a division by
    the spread blows up; and float32 degrees keep the digits in which neighbouring points differ.
    """
    local = require_trajs(function, trajs, floating=True) - trajs[..., :1, :]
    if lengths is None:
        return local, None
    mask = _real(function, trajs, lengths)
    return _zero_padding(local, mask), mask


def _real(function: str, trajs: Tensor, lengths: Lengths) -> Tensor:
    """Return the mask ``(..., L, 1)`` that is True on the real points."""
    lengths = require_lengths(function, lengths, trajs, batched=trajs.ndim == 3)
    return lengthsToMask(to_device(lengths, trajs.device), trajs.shape[-2])[..., None]


def _mean(values: Tensor, mask: Tensor | None, fewer: int = 0) -> Tensor:
    """Return the sum over ``L`` by the number of real points less ``fewer``, or by 1 where that is not positive."""
    total = values.sum(-2, keepdim=True)
    if mask is None:
        return total / max(values.shape[-2] - fewer, 1)
    return total / (mask.sum(-2, keepdim=True) - fewer).clamp(min=1)


def _zero_padding(trajs: Tensor, mask: Tensor | None) -> Tensor:
    return trajs if mask is None else torch.where(mask, trajs, 0)


def require_points(function: str, points: Tensor) -> Tensor:
    """Return ``points``, or refuse them in the name of ``function`` where their last dimension is not (lng, lat)."""
    if not isinstance(points, Tensor):
        raise DatasetError(f"{function} needs a tensor, not {type(points).__name__}; convert it with torch.as_tensor")
    if points.ndim == 0 or points.shape[-1] != 2:
        raise DatasetError(
            f"{function} needs (longitude, latitude) in the last dimension, of size 2, not shape {tuple(points.shape)}"
        )
    return points


def require_trajs(function: str, trajs: Tensor, floating: bool = False) -> Tensor:
    """Return ``trajs``, or refuse in the name of ``function`` what is not ``(L, 2)`` or ``(B, L, 2)``."""
    if not isinstance(trajs, Tensor):
        raise DatasetError(f"{function} needs a tensor, not {type(trajs).__name__}; convert it with torch.as_tensor")
    if trajs.ndim not in (2, 3) or trajs.shape[-1] != 2:
        raise DatasetError(
            f"{function} needs trajectories of shape (L, 2) or (B, L, 2), with (longitude, latitude) in the last "
            f"dimension, not {tuple(trajs.shape)}"
        )
    if floating and not trajs.is_floating_point():
        raise DatasetError(
            f"{function} needs floating point trajectories, not {trajs.dtype}; convert them with .float()"
        )
    return trajs
