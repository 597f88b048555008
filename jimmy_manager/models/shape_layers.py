"""Layers that only change or show a shape, for use inside ``nn.Sequential``."""

from __future__ import annotations

import einops.layers.torch
from torch import Tensor, nn


class Transpose(nn.Module):
    """Swap two dimensions: a view."""

    def __init__(self, dim1: int, dim2: int) -> None:
        super().__init__()
        self.dim1 = dim1
        self.dim2 = dim2

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(self.dim1, self.dim2)

    def extra_repr(self) -> str:
        return f"{self.dim1}, {self.dim2}"


class Permute(nn.Module):
    """Put all dimensions, the batch included, into the order ``dims``: a view."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.dims))


class Reshape(nn.Module):
    """Give the input the shape ``shape``, the batch included; one -1 stands for what is left.

    ``Reshape(-1, 28, 28)`` turns (B, 784) into (B, 28, 28).
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.shape)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.shape))


class PrintShape(nn.Module):
    """Print the shape of what passes, after ``name``, and hand it on unchanged: for a look into a model.

    A compiled model is split here, as printing cannot be compiled.

    >>> PrintShape('encoded')(Tensor(2, 5)).shape
    encoded: (2, 5)
    torch.Size([2, 5])
    """

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        print(f"{self.name}: {shape}" if self.name else shape)  # noqa: T201 - printing is what it is for
        return x

    def extra_repr(self) -> str:
        return repr(self.name)


# A class of its own and not an imported one, so that a configuration can name it: `_target_` stays within this package.
class Rearrange(einops.layers.torch.Rearrange):
    """Rearrange the dimensions by an einops ``pattern``; keywords give the sizes that it does not tell.

    ``Rearrange('b (h d) l -> b h l d', h=4)`` turns (B, 4*D, L) into (B, 4, L, D). A pattern that makes no sense, and
    an input that does not fit it, raise ``einops.EinopsError``.
    """
