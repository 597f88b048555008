"""A sequence of layers with several inputs and outputs."""

from __future__ import annotations

from typing import Any

from torch import nn


class SequentialMultiIO(nn.Sequential):
    """Feed what one module returns to the next, where both may be several values.

    The positional inputs go to the first module; a tuple that a module returns becomes the positional inputs of the
    next, any other value its only one. Keyword inputs, such as a condition or a mask, go unchanged to every module, so
    each must accept them. The result is a tuple always, also of one value.

    >>> class SumAndDifference(nn.Module):
    ...     def forward(self, a, b):
    ...         return a + b, a - b
    >>> SequentialMultiIO(SumAndDifference(), SumAndDifference())(3, 1)
    (6, 2)
    """

    # Wider than the one input that nn.Sequential takes; whatever works there works here.
    def forward(self, *dynamic_inputs: Any, **static_inputs: Any) -> tuple[Any, ...]:
        for module in self:
            output = module(*dynamic_inputs, **static_inputs)
            dynamic_inputs = output if isinstance(output, tuple) else (output,)
        return dynamic_inputs
