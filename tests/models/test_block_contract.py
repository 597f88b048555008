"""The contract of the blocks catches blocks that break it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.models import block_contract
from tests.models.block_contract import check_block


class WrongGradient(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + y.detach()


class IdleParameter(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.idle = nn.Parameter(torch.zeros(1))


class StateLeftOut(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_buffer("shift", torch.rand(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


class Unpicklable(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 3)
        self.act = lambda x: x


class LooksAtValues(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum().item() > 0 else -x)


class AlwaysFloat32(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.float() if y.dtype == torch.bfloat16 else y


def test_a_good_block_passes() -> None:
    check_block(lambda: nn.Linear(3, 3), torch.randn(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: WrongGradient(3, 3), "check_gradients"),
        (IdleParameter, "check_learning"),
        (StateLeftOut, "check_state"),
        (Unpicklable, "check_copies"),
        (lambda: LooksAtValues(3, 3), "check_compiled"),
        (lambda: AlwaysFloat32(3, 3), "check_dtypes"),
    ],
)
def test_each_broken_twin_is_caught_by_its_rule(
    make: Callable[[], nn.Module], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    with pytest.raises(Exception):  # noqa: B017, PT011 - compiling and pickling have errors of their own
        check_block(make, x)
    monkeypatch.setattr(block_contract, rule, lambda *_: None)
    check_block(make, x)
