"""`JimmyModel`: its steps, its optimizer, and files of weights."""

import copy
import inspect

import pytest
import torch
from torch import nn

from jimmy_manager.errors import CheckpointError, ConfigError, HookError
from jimmy_manager.models.jimmy_model import JimmyModel


class Small(JimmyModel):
    def __init__(self, width: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, x):
        return self.net(x)


def made(width: int = 3, **kwargs) -> Small:
    torch.manual_seed(0)
    model = Small(width, **kwargs)
    model.initialize()
    return model


def batch(seed: int = 1, size: int = 8) -> dict:
    draw = torch.Generator().manual_seed(seed)
    data = torch.randn(size, 4, generator=draw)
    return {"data": data, "target": (data[:, 0] > 0).long()}


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([each.detach().reshape(-1) for each in model.parameters()])


def by_hand(model: Small, batches: list[dict], make=torch.optim.Adam, clip: float = 0.0, **args) -> Small:
    """Train a copy with nothing but PyTorch."""
    twin = Small(model.net[0].out_features)
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    optimizer = make(twin.parameters(), **args)
    for each in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(each["data"]), each["target"]).backward()
        if clip:
            nn.utils.clip_grad_norm_(twin.parameters(), clip)
        optimizer.step()
    return twin


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_train_step_is_what_pytorch_does_by_hand(clip):
    model, batches = made(clip_grad=clip), [batch(seed) for seed in range(4)]
    twin = by_hand(model, batches, clip=clip, lr=1e-3)
    for each in batches:
        losses, outputs = model.trainStep(each)
    assert torch.equal(weights(model), weights(twin))
    assert losses.keys() == {"Train/Main"}
    assert not losses["Train/Main"].requires_grad
    assert outputs["output"].shape == (8, 2)


def test_the_optimizer_is_the_one_that_was_asked_for_and_tells_its_rate():
    model = made(optimizer_cls=torch.optim.SGD, optimizer_args={"lr": 0.3, "momentum": 0.9})
    assert type(model.optimizer) is torch.optim.SGD
    assert model.optimizer.param_groups[0]["momentum"] == 0.9
    assert model.lr == 0.3
    assert type(made().optimizer) is torch.optim.Adam
    assert made().lr == 1e-3


def test_the_arguments_of_the_optimizer_are_not_shared_with_the_caller():
    args = {"lr": 0.1}
    model = made(optimizer_args=args)
    args["lr"] = 5.0
    assert model.optimizer_args == {"lr": 0.1}


def test_accumulated_steps_equal_one_step_on_the_whole_batch():
    whole = batch(size=12)
    parts = [{name: value[i : i + 4] for name, value in whole.items()} for i in (0, 4, 8)]
    one, many = made().double(), made(accumulate=3).double()
    one.initialize()
    many.initialize()
    one.trainStep({"data": whole["data"].double(), "target": whole["target"]})
    for place, part in enumerate(parts):
        assert many.is_accumulating == (place > 0)
        many.trainStep({"data": part["data"].double(), "target": part["target"]})
    assert not many.is_accumulating
    torch.testing.assert_close(weights(one), weights(many), rtol=1e-12, atol=1e-12)


def test_what_an_epoch_leaves_over_makes_a_step_with_the_mean_of_its_own_gradients():
    left_over, alone = made(accumulate=3, optimizer_cls=torch.optim.SGD, optimizer_args={"lr": 0.1}), made(
        optimizer_cls=torch.optim.SGD, optimizer_args={"lr": 0.1}
    )
    left_over.trainStep(batch())
    assert torch.equal(weights(left_over), weights(made()))
    left_over.finish_accumulation()
    alone.trainStep(batch())
    torch.testing.assert_close(weights(left_over), weights(alone), rtol=1e-6, atol=1e-7)
    before = weights(left_over)
    left_over.finish_accumulation()
    assert torch.equal(weights(left_over), before)


def test_the_average_of_the_weights_follows_its_formula_and_is_used_only_inside_the_block():
    model = made(ema_decay=0.9, optimizer_args={"lr": 0.1})
    expected = weights(model)
    for seed in range(5):
        model.trainStep(batch(seed))
        expected = 0.9 * expected + 0.1 * weights(model)
    raw = weights(model)
    with model.ema.applied():
        torch.testing.assert_close(weights(model), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(weights(model), raw)
    assert not torch.allclose(raw, expected, rtol=1e-3)


def test_the_average_comes_back_from_its_state_and_names_what_that_lacks():
    model = made(ema_decay=0.9)
    model.trainStep(batch())
    state = {name: value.clone() for name, value in model.ema.state_dict().items()}
    other = made(ema_decay=0.9)
    other.ema.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in other.ema.state_dict().items())
    del state["net.0.bias"]
    with pytest.raises(CheckpointError, match=r"net\.0\.bias"):
        other.ema.load_state_dict(state)


def test_mixed_precision_computes_in_bfloat16_and_keeps_the_weights_in_float32():
    seen = []

    class Spying(Small):
        def forward(self, x):
            output = super().forward(x)
            seen.append(output.dtype)
            return output

    model = Spying(mixed_precision=True)
    model.initialize()
    assert model.scaler is None
    model.trainStep(batch())
    model.evalStep(batch())
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def test_float16_scales_its_gradients_and_skips_a_step_whose_gradients_overflow():
    model = made(mixed_precision="fp16", clip_grad=1.0)
    assert model.scaler.get_scale() == 2.0**14
    before = weights(model)
    model.trainStep(batch())
    assert not torch.equal(weights(model), before)
    before = weights(model)
    model.backwardOptimize(model(batch()["data"]).sum() * 1e38)
    assert torch.equal(weights(model), before)
    assert model.scaler.get_scale() == 2.0**13


def test_a_step_with_a_loss_that_is_not_finite_is_skipped_where_that_was_asked_for():
    model = made()
    model.skip_non_finite = True
    model.trainStep(batch())
    before = weights(model)
    model.backwardOptimize(model(batch()["data"]).sum() * float("nan"))
    assert torch.equal(weights(model), before)
    model.trainStep(batch(2))
    assert torch.isfinite(weights(model)).all()
    assert not torch.equal(weights(model), before)


def test_compiling_keeps_the_names_of_the_weights():
    model = made()
    names = list(model.state_dict())
    model.compile_model = True
    model.compile = lambda: nn.Module.compile(model, backend="eager")
    model.initialize()
    model.trainStep(batch())
    assert list(model.state_dict()) == names


class OnlyTest(Small):
    def testStep(self, data_dict):
        return {"Eval/Main": 1.0}, {"by": "testStep"}


class OnlyEval(Small):
    def evalStep(self, data_dict):
        return {"Eval/Main": 2.0}, {"by": "evalStep"}


class EvalOverTest(Small):
    def testStep(self, data_dict):
        return {"Eval/Main": 3.0}, {"by": "testStep"}

    def evalStep(self, data_dict):
        losses, outputs = self.testStep(data_dict)
        return losses, {**outputs, "fig": "drawn"}


class EvalOverPlain(Small):
    def evalStep(self, data_dict):
        losses, outputs = self.testStep(data_dict)
        return losses, {**outputs, "fig": "drawn"}


def test_each_of_the_evaluation_steps_stands_in_for_the_other():
    assert OnlyTest().evalStep(batch())[1] == {"by": "testStep"}
    assert OnlyEval().testStep(batch())[1] == {"by": "evalStep"}
    assert EvalOverTest().evalStep(batch())[1] == {"by": "testStep", "fig": "drawn"}
    assert EvalOverTest().testStep(batch())[1] == {"by": "testStep"}


def test_neither_overridden_or_one_built_on_the_other_gives_the_plain_step_without_gradients():
    model = EvalOverPlain()
    losses, outputs = model.evalStep(batch())
    assert outputs["fig"] == "drawn"
    expected = nn.functional.cross_entropy(model(batch()["data"]), batch()["target"])
    torch.testing.assert_close(losses["Eval/Main"], expected.detach())
    assert model.testStep(batch())[1]["fig"] == "drawn"
    losses, outputs = Small().testStep(batch())
    assert not outputs["output"].requires_grad
    assert losses.keys() == {"Eval/Main"}


def test_saved_weights_come_back_whole(tmp_path):
    model, other = made(), Small()
    model.trainStep(batch())
    model.saveTo(tmp_path / "deep" / "w.pth")
    report = other.loadFrom(tmp_path / "deep" / "w.pth")
    assert torch.equal(weights(model), weights(other))
    assert report.is_complete
    assert len(report.loaded) == 4
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["w.pth"]


def test_a_file_that_fits_in_part_loads_that_part_and_reports_the_rest(tmp_path, caplog):
    made(3).saveTo(tmp_path / "w.pth")
    other = made(5)
    other.extra = nn.Linear(1, 1)
    report = other.loadFrom(tmp_path / "w.pth")
    assert report.loaded == ("net.2.bias",)
    assert set(report.skipped) == {"net.0.weight", "net.0.bias", "net.2.weight"}
    assert "(3, 4), the model's (5, 4)" in report.skipped["net.0.weight"]
    assert "extra.weight" in report.missing
    assert "net.0.weight" in caplog.text


def test_a_file_of_which_nothing_fits_is_refused_with_what_both_have(tmp_path):
    nn.Conv2d(1, 1, 3).state_dict()
    torch.save(nn.Conv2d(1, 1, 3).state_dict(), tmp_path / "conv.pth")
    with pytest.raises(CheckpointError, match=r"nothing in .*conv\.pth.* fits Small: it has weight, bias"):
        made().loadFrom(tmp_path / "conv.pth")


@pytest.mark.parametrize("harm", ["truncate", "flip", "object", "list"])
def test_a_damaged_or_unsafe_file_is_refused_and_changes_nothing(tmp_path, harm):
    model, path = made(), tmp_path / "w.pth"
    model.saveTo(path)
    raw = path.read_bytes()
    if harm == "truncate":
        path.write_bytes(raw[: len(raw) // 2])
    elif harm == "flip":
        path.write_bytes(b"\0" * 40 + raw[40:])
    elif harm == "object":
        torch.save(model, path)
    else:
        torch.save([1, 2], path)
    before = weights(model)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        model.loadFrom(path)
    assert torch.equal(weights(model), before)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        made().loadFrom(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"clip_grad": -1.0}, "clip_grad is -1.0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"mixed_precision": "half"}, "mixed_precision is 'half'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Small(**arguments)


@pytest.mark.parametrize("step", ["trainStep", "evalStep", "testStep"])
@pytest.mark.parametrize("lacking", ["data", "target"])
def test_a_batch_that_the_plain_steps_cannot_read_is_named_by_what_it_has(step, lacking):
    given = batch()
    given["points"] = given.pop(lacking)
    with pytest.raises(HookError, match=r"steps of Small read 'data' and 'target', but.*\['.*'points'\]; write train"):
        getattr(made(), step)(given)


def test_what_a_layer_does_not_find_is_not_blamed_on_the_batch():
    class Table(Small):
        def forward(self, x):
            return {}["data"]

    with pytest.raises(KeyError, match="data"):
        Table().evalStep(batch())


def test_a_model_that_was_not_initialized_says_so():
    with pytest.raises(HookError, match=r"call initialize\(\)"):
        Small().trainStep(batch())
    with pytest.raises(HookError, match=r"call initialize\(\)"):
        _ = Small().lr
    with pytest.raises(HookError, match="no parameters"):
        JimmyModel().initialize()


def test_the_cost_of_a_forward_pass_is_counted():
    assert made().getCompCost(torch.zeros(8, 4)).flops == 2 * 8 * (4 * 3 + 3 * 2)


def test_loading_weights_begins_their_average_anew(tmp_path):
    made().saveTo(tmp_path / "w.pth")
    torch.manual_seed(5)
    model = Small(ema_decay=0.9)
    model.initialize()
    model.loadFrom(tmp_path / "w.pth")
    assert all(torch.equal(value, model.ema.state_dict()[name]) for name, value in model.named_parameters())


def test_a_finite_loss_with_gradients_that_are_not_is_skipped_too():
    model = made()
    model.skip_non_finite = True
    model.trainStep(batch())
    before = weights(model)
    zero = model(batch()["data"]).sum() * 0.0
    model.backwardOptimize(zero.sqrt())  # its gradient at 0 is infinite, and times 0 not a number
    assert torch.equal(weights(model), before)
    assert model.skipped_steps == 1
    model.trainStep(batch(2))
    assert torch.isfinite(weights(model)).all()


def test_a_step_that_all_peers_skipped_moves_nothing_by_its_momentum():
    class Peers:
        weight = 0.5

        def sum_gradients(self, parameters):
            for each in parameters:
                each.grad = torch.zeros_like(each) if each.grad is None else each.grad * 2

        def any(self, flag):
            return flag

    model = made()
    model.skip_non_finite, model.peers = True, Peers()
    model.trainStep(batch())
    before = weights(model)
    model.backwardOptimize(model(batch()["data"]).sum() * float("inf"))
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize(("kind", "is_fused"), [(torch.optim.Adam, True), (torch.optim.RMSprop, False)])
def test_with_float16_on_a_gpu_an_optimizer_is_fused_where_it_can_be(kind, is_fused, monkeypatch):
    # No GPU is needed to see what the optimizer is given: its device is only said to be one.
    given = {}

    def make(parameters, **args):
        given.update(args)
        return kind(parameters, **{name: value for name, value in args.items() if name != "fused"})

    make.__signature__ = inspect.signature(kind)
    model = Small(optimizer_cls=make, mixed_precision="fp16")
    monkeypatch.setattr(torch.Tensor, "device", property(lambda self: torch.device("cuda")))
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *args, **kwargs: None)
    model.initialize()
    assert given == ({"fused": True} if is_fused else {})
