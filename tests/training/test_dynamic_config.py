"""A class with its arguments: attributes until it is built, and errors that name the class and the argument."""

from __future__ import annotations

import copy
import logging
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jimmy_manager.config import Config
from jimmy_manager.errors import ConfigError, TargetRefused, UnknownField
from jimmy_manager.training.dynamic_config import DynamicConfig


class Data:
    """A dataset of the newer form."""

    def __init__(self, set_name: str, batch_size: int, shuffle: bool = False) -> None:
        self.set_name, self.batch_size, self.shuffle = set_name, batch_size, shuffle


class OlderData:
    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size


class Base:
    def __init__(self, optimizer_cls: Any = None, mixed_precision: bool = False) -> None:
        self.optimizer_cls, self.mixed_precision = optimizer_cls, mixed_precision


class Model(Base):
    def __init__(self, width: int = 1, parts: Any = (), **jimmy_model_kwargs: Any) -> None:
        super().__init__(**jimmy_model_kwargs)
        self.width, self.parts = width, parts


def test_arguments_are_attributes_until_it_is_built() -> None:
    config = DynamicConfig(Data, set_name="train", batch_size=64, shuffle=True)
    config.set_name = "test"
    config.batch_size *= 2
    del config.shuffle
    config.add(shuffle=False, batch_size=3)
    built = config.build()
    assert vars(built) == {"set_name": "test", "batch_size": 3, "shuffle": False}
    config.remove("shuffle")
    assert "shuffle" not in vars(config)
    assert config.build() is not built


def test_cls_may_be_given_by_name_and_changed() -> None:
    config = DynamicConfig(cls=Data, set_name="train", batch_size=4)
    config.cls = partial(Data, shuffle=True)
    assert config.build().shuffle


def test_build_takes_more_for_this_call_only() -> None:
    config = DynamicConfig(Data, set_name="train")
    assert config.build(batch_size=5, set_name="eval").set_name == "eval"
    assert config == DynamicConfig(Data, set_name="train")


def test_names_with_an_underscore_are_notes_and_no_arguments() -> None:
    config = DynamicConfig(OlderData, batch_size=2, _note="try 4 next")
    config._more = 1
    assert config.build().batch_size == 2
    assert "_note" not in repr(config)
    assert config._note == "try 4 next"
    assert config == DynamicConfig(OlderData, batch_size=2)


def test_configs_in_arguments_are_built_first_wherever_they_stand() -> None:
    layer = DynamicConfig(nn.Linear, in_features=2, out_features=3)
    sizes = [1, 2]
    model = DynamicConfig(Model, width=DynamicConfig(int), parts=[{"a": (layer, layer)}, sizes]).build()
    first, second = model.parts[0]["a"]
    assert isinstance(first, nn.Linear)
    assert first is not second
    assert model.width == 0
    assert DynamicConfig(Model, parts=sizes).build().parts is sizes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            DynamicConfig(Data, set_name="train", batchsize=4),
            "Data takes no argument 'batchsize' (it takes: set_name, batch_size, shuffle); did you mean 'batch_size'?",
        ),
        (DynamicConfig(OlderData, batch_size=2, depth=3), "OlderData takes no argument 'depth' (it takes: batch_size)"),
        (DynamicConfig(Data, set_name="train"), "Data needs the argument 'batch_size', which is not given"),
        (
            DynamicConfig(Model, optimiser_cls=3),
            "Model takes no argument 'optimiser_cls' (it takes: width, parts, optimizer_cls, mixed_precision); did you",
        ),
        (DynamicConfig(Model, parts=[DynamicConfig(OlderData, size=1)]), "OlderData takes no argument 'size'"),
    ],
)
def test_build_names_the_class_and_the_argument_that_is_wrong(config: DynamicConfig, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build()
    assert str(caught.value).startswith(message)


def test_an_error_of_the_class_itself_stays_what_it_is_and_says_where() -> None:
    def broken(width: int, **more: Any) -> None:
        if width:
            raise OSError("no such file")
        OlderData(width=width)  # type: ignore[call-arg]

    with pytest.raises(OSError, match="no such file") as caught:
        DynamicConfig(broken, width=1).build()
    assert "while building" in caught.value.__notes__[0]
    assert "broken" in caught.value.__notes__[0]
    # `width` is an argument of the one that was built; that something inside does not take it is another matter.
    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        DynamicConfig(broken, width=0).build()


def test_set_name_is_left_out_where_a_dataset_of_the_older_form_does_not_take_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = DynamicConfig(OlderData, batch_size=2)
    config.set_name = "test"
    with caplog.at_level(logging.WARNING):
        assert config.build().batch_size == 2
    assert caplog.messages == ["OlderData takes no argument 'set_name', so it is built without"]
    assert not config.takes("set_name")
    assert DynamicConfig(Data).takes("set_name")
    assert DynamicConfig(Model).takes("anything")


def test_an_unknown_name_suggests_the_nearest() -> None:
    config = DynamicConfig(Data, batch_size=4)
    with pytest.raises(UnknownField, match="no argument 'batchsize' to remove; did you mean 'batch_size'"):
        config.remove("batchsize")
    with pytest.raises(AttributeError, match="no argument 'batch_sise'; did you mean 'batch_size'"):
        _ = config.batch_sise
    with pytest.raises(AttributeError, match="no argument 'batch_sizes' to delete; did you mean 'batch_size'"):
        del config.batch_sizes
    with pytest.raises(AttributeError, match="'cls'"):
        del config.cls
    assert getattr(config, "absent", None) is None


@pytest.mark.parametrize("name", ["build", "add", "remove", "clone", "takes", "from_config"])
def test_an_argument_cannot_hide_a_method(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"argument '{name}' has the name of a method .*partial\(MyClass, {name}="):
        DynamicConfig(dict, **{name: 1})
    with pytest.raises(ConfigError, match=f"'{name}'"):
        setattr(DynamicConfig(dict), name, 1)
    assert DynamicConfig(partial(dict, **{name: 1})).build() == {name: 1}


def test_what_cannot_be_called_is_no_class() -> None:
    with pytest.raises(ConfigError, match="3 cannot be built"):
        DynamicConfig(3)
    with pytest.raises(ConfigError, match="cannot be built"):
        DynamicConfig(dict).cls = "dict"


def test_a_clone_shares_no_container_but_the_data() -> None:
    data = torch.zeros(3)
    config = DynamicConfig(Model, width=[1, {"a": [2]}], parts=DynamicConfig(Data, set_name=data))
    clone, deep = config.clone(), copy.deepcopy(config)
    assert clone == deep == config
    assert clone.parts.set_name is data
    assert deep.parts.set_name is not data
    clone.width[1]["a"].append(3)
    clone.parts.batch_size = 4
    deep.width.append(5)
    assert config == DynamicConfig(Model, width=[1, {"a": [2]}], parts=DynamicConfig(Data, set_name=data))
    assert pickle.loads(pickle.dumps(config)) == config


def test_equality_is_of_class_and_arguments_in_any_order() -> None:
    config = DynamicConfig(Data, set_name="a", batch_size=torch.tensor([1.0, 2.0]))
    assert config == DynamicConfig(Data, batch_size=torch.tensor([1.0, 2.0]), set_name="a")
    for other in (
        DynamicConfig(OlderData, set_name="a", batch_size=torch.tensor([1.0, 2.0])),
        DynamicConfig(Data, set_name="a", batch_size=torch.tensor([1.0, 3.0])),
        DynamicConfig(Data, set_name="a", batch_size=torch.tensor([1.0])),
        DynamicConfig(Data, set_name="a", batch_size=[1.0, 2.0]),
        DynamicConfig(Data, set_name="a"),
        "DynamicConfig",
    ):
        assert config != other
    assert DynamicConfig(Data, batch_size=[np.zeros(2), 1]) == DynamicConfig(Data, batch_size=[np.zeros(2), 1])
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


def test_the_repr_reads_as_configuration() -> None:
    config = DynamicConfig(
        nn.Sequential,
        optimizer_cls=torch.optim.AdamW,
        optimizer_args={"lr": 1e-4, "betas": (0.9,)},
        parts=[DynamicConfig(nn.Linear, in_features=2), int],
        data=DynamicConfig(dict, a="x" * 60, b="y" * 60),
    )
    assert repr(config) == "\n".join(
        [
            "DynamicConfig(",
            "    torch.nn.modules.container.Sequential,",
            "    optimizer_cls=torch.optim.adamw.AdamW,",
            "    optimizer_args={'lr': 0.0001, 'betas': (0.9,)},",
            "    parts=[DynamicConfig(torch.nn.modules.linear.Linear, in_features=2), int],",
            "    data=DynamicConfig(",
            "        dict,",
            f"        a='{'x' * 60}',",
            f"        b='{'y' * 60}',",
            "    ),",
            ")",
        ]
    )


def test_a_configuration_with_targets_becomes_one() -> None:
    fields = {"_target_": "torch.nn.Sequential", "inner": [{"_target_": "torch.nn.ReLU"}], "plain": {"a": 1}}
    config = DynamicConfig.from_config(Config(fields))
    assert config == DynamicConfig(nn.Sequential, inner=[DynamicConfig(nn.ReLU)], plain={"a": 1})
    assert DynamicConfig.from_config(fields) == config
    with pytest.raises(TargetRefused):
        DynamicConfig.from_config({"_target_": "os.system"})
    allowed = DynamicConfig.from_config({"_target_": "collections.Counter", "a": 2}, targets=["collections"])
    assert allowed.build() == {"a": 2}
    assert DynamicConfig.from_config(Config({"_target_": "collections.Counter"}).allow("collections")).build() == {}
    with pytest.raises(ConfigError, match=r"no field '_target_' among \['a'\]"):
        DynamicConfig.from_config({"a": {"_target_": "torch.nn.ReLU"}})
