"""Normalisation, activation, convolution: the 24 pre-activation blocks, such as ``BnReLUConv1D``.

`jimmy_manager.models.conv_blocks` has the 24 that begin with the convolution.
"""

from __future__ import annotations

from torch import nn

from jimmy_manager.models.conv_blocks import ConvBlock, Size


class NormActConv(ConvBlock):
    """Normalisation (child 0), activation (1), convolution (2): (B, c_in, ...) -> (B, c_out, ...).

    The order of He et al. 2016, "Identity Mappings in Deep Residual Networks". The arguments are those of
    `jimmy_manager.models.conv_blocks.ConvNormAct`; as nothing follows the convolution, it has a bias unless ``bias``
    is False.

    Raises ``ConfigError`` where ``gn_groups`` does not divide ``c_in``.
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
        bias: bool = True,
    ) -> None:
        conv, _, act = self._kinds
        super().__init__(
            self._normalise(c_in, gn_groups),
            act(),
            conv(c_in, c_out, k, s, p, d, g, bias=bias),
        )


class BnReLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.ReLU):
    """BatchNorm1d, ReLU, Conv1d."""


class BnLeakyReLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.LeakyReLU):
    """BatchNorm1d, LeakyReLU, Conv1d."""


class BnGELUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.GELU):
    """BatchNorm1d, GELU, Conv1d."""


class BnSiLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.BatchNorm1d, act=nn.SiLU):
    """BatchNorm1d, SiLU, Conv1d."""


class InReLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.ReLU):
    """InstanceNorm1d, ReLU, Conv1d."""


class InLeakyReLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.LeakyReLU):
    """InstanceNorm1d, LeakyReLU, Conv1d."""


class InGELUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.GELU):
    """InstanceNorm1d, GELU, Conv1d."""


class InSiLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.InstanceNorm1d, act=nn.SiLU):
    """InstanceNorm1d, SiLU, Conv1d."""


class GnReLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.ReLU):
    """GroupNorm, ReLU, Conv1d."""


class GnLeakyReLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.LeakyReLU):
    """GroupNorm, LeakyReLU, Conv1d."""


class GnGELUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.GELU):
    """GroupNorm, GELU, Conv1d."""


class GnSiLUConv1D(NormActConv, conv=nn.Conv1d, norm=nn.GroupNorm, act=nn.SiLU):
    """GroupNorm, SiLU, Conv1d."""


class BnReLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.ReLU):
    """BatchNorm2d, ReLU, Conv2d."""


class BnLeakyReLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.LeakyReLU):
    """BatchNorm2d, LeakyReLU, Conv2d."""


class BnGELUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.GELU):
    """BatchNorm2d, GELU, Conv2d."""


class BnSiLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.BatchNorm2d, act=nn.SiLU):
    """BatchNorm2d, SiLU, Conv2d."""


class InReLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.ReLU):
    """InstanceNorm2d, ReLU, Conv2d."""


class InLeakyReLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.LeakyReLU):
    """InstanceNorm2d, LeakyReLU, Conv2d."""


class InGELUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.GELU):
    """InstanceNorm2d, GELU, Conv2d."""


class InSiLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.InstanceNorm2d, act=nn.SiLU):
    """InstanceNorm2d, SiLU, Conv2d."""


class GnReLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.ReLU):
    """GroupNorm, ReLU, Conv2d."""


class GnLeakyReLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.LeakyReLU):
    """GroupNorm, LeakyReLU, Conv2d."""


class GnGELUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.GELU):
    """GroupNorm, GELU, Conv2d."""


class GnSiLUConv2D(NormActConv, conv=nn.Conv2d, norm=nn.GroupNorm, act=nn.SiLU):
    """GroupNorm, SiLU, Conv2d."""
