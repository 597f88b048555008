from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as func

from jimmy_manager.errors import ConfigError
from jimmy_manager.models import JimmyModel, SampleCNN


def batch(n: int = 16, size: int = 28, c_in: int = 1) -> dict[str, Tensor]:
    return {"data": torch.randn(n, c_in, size, size), "target": torch.randint(10, (n,))}


def ready(**kwargs: Any) -> SampleCNN:
    model = SampleCNN(**kwargs)
    model.initialize()
    return model


def test_it_is_a_small_jimmy_model_that_names_its_losses() -> None:
    model = SampleCNN()
    assert isinstance(model, JimmyModel)
    assert model.train_loss_names == ["Train/Main", "Train/Acc"]
    assert model.eval_loss_names == ["Eval/Main", "Eval/Acc"]
    assert sum(each.numel() for each in model.parameters()) < 50_000


@pytest.mark.parametrize("size", [28, 8, 32, 5, 2])
def test_images_of_any_size_have_logits(size: int) -> None:
    assert SampleCNN()(torch.randn(4, 1, size, size)).shape == (4, 10)
    assert SampleCNN(3, 7, channels=[4])(torch.randn(4, 3, size, size)).shape == (4, 7)


def test_the_losses_are_cross_entropy_and_accuracy() -> None:
    model, data = ready().double().eval(), batch()
    data["data"] = data["data"].double()
    losses, outputs = model.evalStep(data)
    logits = model(data["data"])
    assert torch.equal(outputs["output"], logits)
    expected = -logits.log_softmax(-1)[torch.arange(16), data["target"]].mean()
    torch.testing.assert_close(losses["Eval/Main"], expected.detach(), rtol=1e-10, atol=0)
    right = sum(int(row.argmax() == target) for row, target in zip(logits, data["target"], strict=True))
    assert float(losses["Eval/Acc"]) == right / 16
    tested, _ = model.testStep(data)
    assert tested == losses


def test_steps_return_what_they_declare_as_tensors_without_history() -> None:
    model, data = ready(), batch()
    for step, names in ((model.trainStep, model.train_loss_names), (model.evalStep, model.eval_loss_names)):
        losses, outputs = step(data)
        assert list(losses) == names
        assert all(isinstance(each, Tensor) and each.ndim == 0 and not each.requires_grad for each in losses.values())
        assert outputs["output"].shape == (16, 10)
        assert not outputs["output"].requires_grad


def test_evaluation_changes_neither_weights_nor_gradients() -> None:
    model, data = ready().eval(), batch()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    model.evalStep(data)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())


def test_a_step_moves_every_parameter_as_plain_torch_does() -> None:
    torch.manual_seed(0)
    model, data = ready(optimizer_cls=torch.optim.SGD, optimizer_args={"lr": 0.1}), batch()
    plain = SampleCNN()
    plain.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    func.cross_entropy(plain(data["data"]), data["target"]).backward()
    optimizer.step()
    before = [each.clone() for each in model.parameters()]
    model.trainStep(data)
    for mine, its, old in zip(model.parameters(), plain.parameters(), before, strict=True):
        assert torch.equal(mine, its)
        assert not torch.equal(mine, old)


@pytest.mark.parametrize("mixed_precision", [False, "bf16"])
def test_it_learns_to_tell_patterns_apart(mixed_precision: bool | str) -> None:
    torch.manual_seed(0)
    patterns = torch.randn(10, 1, 8, 8)
    model = ready(mixed_precision=mixed_precision, optimizer_args={"lr": 1e-2})
    for _ in range(40):
        target = torch.randint(10, (64,))
        losses, _ = model.trainStep({"data": patterns[target] + 0.3 * torch.randn(64, 1, 8, 8), "target": target})
    assert losses["Train/Main"].isfinite()
    target = torch.arange(10).repeat(20)
    losses, _ = model.eval().evalStep({"data": patterns[target] + 0.3 * torch.randn(200, 1, 8, 8), "target": target})
    assert losses["Eval/Acc"] > 0.9


def test_no_value_is_read_back() -> None:
    with torch.device("meta"):  # whose tensors have no values to read
        model = ready()
        data = {"data": torch.zeros(4, 1, 28, 28), "target": torch.zeros(4).long()}
        model.trainStep(data)
        model.evalStep(data)


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"channels=\(\) are no layers"):
        SampleCNN(channels=())
