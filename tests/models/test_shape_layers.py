from __future__ import annotations

from collections.abc import Callable

import einops
import pytest
import torch
from torch import Tensor, nn

from jimmy_manager.models import Permute, PrintShape, Rearrange, Reshape, Transpose
from tests.models.block_contract import check_block


def chunks(x: Tensor) -> Tensor:
    """Split the axis (h d) of a tensor with h = 2, by hand."""
    return torch.stack(x.chunk(2, dim=1), dim=1)


LAYERS: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = [
    (Transpose(1, 2), lambda x: torch.stack([each.T for each in x])),
    (Permute(2, 0, 1), lambda x: torch.stack([x[..., i] for i in range(x.shape[-1])])),
    (Reshape(-1, 4), lambda x: torch.cat([each.flatten() for each in x]).view(-1, 4)),
    (Rearrange("b (h d) l -> b h d l", h=2), chunks),
]


@pytest.mark.parametrize(("layer", "expected"), LAYERS, ids=lambda each: type(each).__name__)
def test_a_layer_moves_numbers_as_it_says(layer: nn.Module, expected: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 6, 4)
    assert torch.equal(layer(x), expected(x))
    assert not torch.equal(layer(x), expected(x + 1))


@pytest.mark.parametrize("layer", [each for each, _ in LAYERS], ids=lambda each: type(each).__name__)
def test_every_layer_keeps_the_contract(layer: nn.Module) -> None:
    check_block(lambda: layer, torch.randn(2, 6, 4, dtype=torch.float64))


def test_layers_show_their_arguments() -> None:
    shown = [repr(each) for each in (Transpose(1, 2), Permute(2, 0, 1), Reshape(-1, 4), PrintShape("here"))]
    assert shown == ["Transpose(1, 2)", "Permute(2, 0, 1)", "Reshape(-1, 4)", "PrintShape('here')"]


def test_a_printed_shape_is_on_one_line_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.zeros(2, 5)
    assert PrintShape("encoded")(x) is x
    assert PrintShape()(x) is x
    assert capsys.readouterr().out == "encoded: (2, 5)\n(2, 5)\n"


def test_a_model_that_prints_a_shape_can_be_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(3, 3), PrintShape("middle"), nn.Linear(3, 3))
    x = torch.randn(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))
    assert capsys.readouterr().out == "middle: (2, 3)\n" * 2


@pytest.mark.parametrize(
    "pattern",
    ["b c h w -> b (h w) c", "b c (h p) (w q) -> b h w (p q c)", "... w -> w ...", "b c h w -> b c 1 (h w)"],
)
def test_patterns_mean_what_einops_means(pattern: str) -> None:
    x = torch.randn(2, 3, 4, 6)
    sizes = {"p": 2, "q": 3} if "p" in pattern else {}
    assert torch.equal(Rearrange(pattern, **sizes)(x), einops.rearrange(x, pattern, **sizes))


def test_a_pattern_that_makes_no_sense_is_refused_when_the_layer_is_made() -> None:
    with pytest.raises(einops.EinopsError):
        Rearrange("b c -> b c d")


def test_an_input_that_does_not_fit_the_pattern_is_refused() -> None:
    with pytest.raises(einops.EinopsError, match="can't divide axis of length 5"):
        Rearrange("b (h d) -> b h d", h=2)(torch.zeros(1, 5))
