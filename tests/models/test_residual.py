from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import ResWrapper, makeItResidual
from tests.models.block_contract import check_block


class Scaled(nn.Linear):
    @makeItResidual
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Say what it does."""
        return scale * super().forward(x)


def test_a_decorated_forward_adds_its_input() -> None:
    block, x = Scaled(3, 3), torch.randn(2, 3)
    for scale in (1.0, 2.5):
        torch.testing.assert_close(block(x, scale=scale), x + scale * (x @ block.weight.T + block.bias))


def test_a_decorated_forward_keeps_its_name_and_docstring() -> None:
    assert (Scaled.forward.__name__, Scaled.forward.__doc__) == ("forward", "Say what it does.")


def test_a_wrapped_module_adds_its_input_and_hands_on_the_rest() -> None:
    inner, x = Scaled(3, 3), torch.randn(2, 3)
    torch.testing.assert_close(ResWrapper(inner)(x, scale=2.0), x + inner(x, scale=2.0))
    torch.testing.assert_close(ResWrapper(inner)(x, 2.0), x + inner(x, 2.0))


def test_both_keep_the_contract() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64)
    check_block(lambda: Scaled(3, 3), x)
    check_block(lambda: ResWrapper(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))), x)


@pytest.mark.parametrize("block", [Scaled(3, 1), ResWrapper(nn.Linear(3, 1))])
def test_a_changed_shape_is_refused_instead_of_broadcast(block: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"(Scaled|Linear) turned shape \(2, 3\) into \(2, 1\)"):
        block(torch.zeros(2, 3))
