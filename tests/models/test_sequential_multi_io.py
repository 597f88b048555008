from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jimmy_manager.models import SequentialMultiIO
from tests.models.block_contract import check_block


class Mix(nn.Module):
    """Two values to two, under a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return self.left(a) + scale * self.right(b), a * b


class Join(nn.Module):
    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return a - scale * b


def test_several_values_pass_from_module_to_module() -> None:
    first, second = Mix(), Mix()
    a, b = torch.randn(2, 4, 3)
    assert all(map(torch.equal, SequentialMultiIO(first, second)(a, b), second(*first(a, b))))


def test_keyword_inputs_go_to_every_module() -> None:
    first, second = Mix(), Join()
    a, b = torch.randn(2, 4, 3)
    (out,) = SequentialMultiIO(first, second)(a, b, scale=3.0)
    torch.testing.assert_close(out, second(*first(a, b, scale=3.0), scale=3.0))


def test_a_module_that_does_not_take_a_keyword_input_says_so() -> None:
    with pytest.raises(TypeError, match="scale"):
        SequentialMultiIO(nn.Linear(3, 3))(torch.zeros(3), scale=2.0)


def test_the_result_is_a_tuple_also_of_one_value_and_of_none() -> None:
    x = torch.randn(2, 3)
    assert SequentialMultiIO(nn.Identity())(x) == (x,)
    assert SequentialMultiIO()(x, x) == (x, x)


def test_a_list_is_one_value() -> None:
    class AsList(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
            return [a, b]

    x = torch.randn(2, 3)
    assert SequentialMultiIO(AsList(), nn.Identity())(x, x) == ([x, x],)


def test_it_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_block(lambda: SequentialMultiIO(Mix(), Mix(), Join()), *torch.randn(2, 4, 3, dtype=torch.float64))


def test_it_is_indexed_and_sliced_as_a_sequence() -> None:
    block = SequentialMultiIO(Mix(), Mix(), Join())
    a, b = torch.randn(2, 4, 3)
    assert isinstance(block[:2], SequentialMultiIO)
    assert torch.equal(block[2](*block[:2](a, b)), block(a, b)[0])
