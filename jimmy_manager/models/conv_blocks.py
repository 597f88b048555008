"""Convolution, normalisation, activation: the 24 post-activation blocks, such as ``Conv2DBnGELU``.

`jimmy_manager.models.preact_conv_blocks` has the 24 that begin with the normalisation. Each class is written out, so
that editors and type checkers know it and a pickle finds it; a test holds the classes against their names.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.layer_stack import LayerStack

Size = int | tuple[int, ...]
"""A length that holds for each dimension, or one length per dimension."""


class ConvBlock(LayerStack):
    """What the blocks of both orders have in common: the three kinds of layer, named in the class statement."""

    _kinds: ClassVar[tuple[type[nn.Module], type[nn.Module], type[nn.Module]]]

    def __init_subclass__(
        cls,
        conv: type[nn.Module] | None = None,
        norm: type[nn.Module] | None = None,
        act: type[nn.Module] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        # A class derived from a block names none of them and keeps those of the block.
        if conv is not None and norm is not None and act is not None:
            cls._kinds = (conv, norm, act)

    @classmethod
    def _normalise(cls, channels: int, gn_groups: int) -> nn.Module:
        norm = cls._kinds[1]
        if norm is not nn.GroupNorm:
            return norm(channels)
        if gn_groups < 1 or channels % gn_groups:
            raise ConfigError(
                f"gn_groups={gn_groups!r} does not divide the {channels!r} channels that {cls.__name__} normalises; "
                f"pass a divisor of {channels!r} as gn_groups, or other channels"
            )
        return nn.GroupNorm(gn_groups, channels)


class ConvNormAct(ConvBlock):
    """Convolution (child 0), normalisation (1), activation (2): (B, c_in, ...) -> (B, c_out, ...).

    Kernel size ``k``, stride ``s``, padding ``p``, dilation ``d`` and groups ``g`` are those of the convolution. It has
    no bias: ``Bn`` and ``In`` would subtract it again, ``Gn`` adds a shift of its own. Normalisation and activation
    have torch's defaults, so ``In`` learns neither scale nor shift. ``gn_groups`` matters to ``Gn`` alone.

    Raises ``ConfigError`` where ``gn_groups`` does not divide ``c_out``.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        k: Size,
        s: Size = 1,
        p: Size | str = 0,
        d: Size = 1,
        g: int = 1,
        gn_groups: int = 8,
    ) -> None:
        conv, _, act = self._kinds
        super().__init__(
            conv(c_in, c_out, k, s, p, d, g, bias=False),
            self._normalise(c_out, gn_groups),
            act(),
        )


class Conv1DBnReLU(ConvNormAct, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.ReLU):
    """Conv1d without bias, BatchNorm1d, ReLU."""


class Conv1DBnLeakyReLU(ConvNormAct, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.LeakyReLU):
    """Conv1d without bias, BatchNorm1d, LeakyReLU."""


class Conv1DBnGELU(ConvNormAct, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.GELU):
    """Conv1d without bias, BatchNorm1d, GELU."""


class Conv1DBnSiLU(ConvNormAct, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.SiLU):
    """Conv1d without bias, BatchNorm1d, SiLU."""


class Conv1DInReLU(ConvNormAct, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.ReLU):
    """Conv1d without bias, InstanceNorm1d, ReLU."""


class Conv1DInLeakyReLU(ConvNormAct, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.LeakyReLU):
    """Conv1d without bias, InstanceNorm1d, LeakyReLU."""


class Conv1DInGELU(ConvNormAct, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.GELU):
    """Conv1d without bias, InstanceNorm1d, GELU."""


class Conv1DInSiLU(ConvNormAct, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.SiLU):
    """Conv1d without bias, InstanceNorm1d, SiLU."""


class Conv1DGnReLU(ConvNormAct, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.ReLU):
    """Conv1d without bias, GroupNorm, ReLU."""


class Conv1DGnLeakyReLU(ConvNormAct, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.LeakyReLU):
    """Conv1d without bias, GroupNorm, LeakyReLU."""


class Conv1DGnGELU(ConvNormAct, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.GELU):
    """Conv1d without bias, GroupNorm, GELU."""


class Conv1DGnSiLU(ConvNormAct, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.SiLU):
    """Conv1d without bias, GroupNorm, SiLU."""


class Conv2DBnReLU(ConvNormAct, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.ReLU):
    """Conv2d without bias, BatchNorm2d, ReLU."""


class Conv2DBnLeakyReLU(ConvNormAct, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.LeakyReLU):
    """Conv2d without bias, BatchNorm2d, LeakyReLU."""


class Conv2DBnGELU(ConvNormAct, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.GELU):
    """Conv2d without bias, BatchNorm2d, GELU."""


class Conv2DBnSiLU(ConvNormAct, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.SiLU):
    """Conv2d without bias, BatchNorm2d, SiLU."""


class Conv2DInReLU(ConvNormAct, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.ReLU):
    """Conv2d without bias, InstanceNorm2d, ReLU."""


class Conv2DInLeakyReLU(ConvNormAct, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.LeakyReLU):
    """Conv2d without bias, InstanceNorm2d, LeakyReLU."""


class Conv2DInGELU(ConvNormAct, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.GELU):
    """Conv2d without bias, InstanceNorm2d, GELU."""


class Conv2DInSiLU(ConvNormAct, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.SiLU):
    """Conv2d without bias, InstanceNorm2d, SiLU."""


class Conv2DGnReLU(ConvNormAct, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.ReLU):
    """Conv2d without bias, GroupNorm, ReLU."""


class Conv2DGnLeakyReLU(ConvNormAct, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.LeakyReLU):
    """Conv2d without bias, GroupNorm, LeakyReLU."""


class Conv2DGnGELU(ConvNormAct, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.GELU):
    """Conv2d without bias, GroupNorm, GELU."""


class Conv2DGnSiLU(ConvNormAct, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.SiLU):
    """Conv2d without bias, GroupNorm, SiLU."""
