"""Sliding windows over sequences and images, as the first layer of a patch-wise model."""

from __future__ import annotations

from torch import Tensor, nn

from jimmy_manager.errors import ConfigError


class PatchMaker1D(nn.Module):
    """Cut a sequence into windows: (B, L, D) -> (B, N, P*D), or (B, N, P, D) without ``patch_as_vector``.

    Window n covers the P = ``patch_size`` steps from n * ``stride``, so N = (L - P) // stride + 1; steps after the last
    whole window are left out. Within a vector the step is the outer axis: all D of the first step come first.

    Raises ``ConfigError`` for a sequence shorter than one window.
    """

    def __init__(self, patch_size: int, stride: int = 1, patch_as_vector: bool = True) -> None:
        super().__init__()
        _check_sizes(patch_size, stride)
        self.patch_size = patch_size
        self.stride = stride
        self.patch_as_vector = patch_as_vector

    def forward(self, x: Tensor) -> Tensor:
        _check_input(x, 3, (1,), self.patch_size, "(B, L, D)")
        patches = x.unfold(1, self.patch_size, self.stride).transpose(2, 3)  # (B, N, P, D)
        return patches.flatten(2) if self.patch_as_vector else patches

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}, stride={self.stride}, patch_as_vector={self.patch_as_vector}"


class PatchMaker2D(nn.Module):
    """Cut an image into P x P windows: (B, C, H, W) -> (B, P*P*C, N), or (B, P*P*C, nh, nw) without ``flatten``.

    P is ``patch_size``, nh = (H - P) // stride + 1, nw likewise, and N = nh * nw row by row. Within a vector the order
    is row, column, channel: the C values of a pixel are neighbours (`torch.nn.functional.unfold` has the channel
    outermost). Without ``patch_as_vector`` these three stay axes of their own: (B, P, P, C, N) or (B, P, P, C, nh, nw).

    Raises ``ConfigError`` for an image smaller than one window.
    """

    def __init__(self, patch_size: int, stride: int = 1, patch_as_vector: bool = True, flatten: bool = True) -> None:
        super().__init__()
        _check_sizes(patch_size, stride)
        self.patch_size = patch_size
        self.stride = stride
        self.patch_as_vector = patch_as_vector
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        _check_input(x, 4, (2, 3), self.patch_size, "(B, C, H, W)")
        size, stride = self.patch_size, self.stride
        patches = x.unfold(2, size, stride).unfold(3, size, stride)  # (B, C, nh, nw, P, P)
        patches = patches.permute(0, 4, 5, 1, 2, 3)  # (B, P, P, C, nh, nw)
        if self.flatten:
            patches = patches.flatten(-2)
        return patches.flatten(1, 3) if self.patch_as_vector else patches

    def extra_repr(self) -> str:
        return (
            f"patch_size={self.patch_size}, stride={self.stride}, "
            f"patch_as_vector={self.patch_as_vector}, flatten={self.flatten}"
        )


def _check_sizes(patch_size: int, stride: int) -> None:
    if patch_size < 1 or stride < 1:
        raise ConfigError(f"patch_size={patch_size!r} and stride={stride!r}: both must be at least 1")


def _check_input(x: Tensor, ndim: int, axes: tuple[int, ...], patch_size: int, expected: str) -> None:
    shape = tuple(x.shape)
    if len(shape) != ndim:
        raise ConfigError(f"patches are cut from {expected}, but the input has shape {shape!r}")
    if any(shape[axis] < patch_size for axis in axes):
        raise ConfigError(
            f"an input {expected} of shape {shape!r} has no room for a patch of size {patch_size!r}; pad it"
        )
