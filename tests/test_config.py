"""Config as a dict with dotted access: reading, writing, defaults, the command line, and objects built from it."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.config import Config, from_cli, load_config
from jimmy_manager.errors import ConfigError, TargetRefused, UnknownField

names = st.sampled_from(["lr", "arch", "optim", "model", "items", "a b", "größe", "_target_", "x1"])
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3))
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda inner: st.dictionaries(names, leaves | inner, max_size=4),
    max_leaves=10,
)
paths = st.lists(names, min_size=1, max_size=3).map(".".join)


def containers(value: Any) -> set[int]:
    """The identities of all mappings and lists inside."""
    found = {id(value)} if isinstance(value, dict | list) else set()
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found |= containers(item)
    return found


@given(trees)
def test_a_config_is_rebuilt_from_its_leaves_and_from_its_dict(tree: dict[str, Any]) -> None:
    config = Config(tree)
    assert Config(config.flatten()) == config == Config(config.asdict())
    assert config.asdict() == json.loads(json.dumps(config))
    assert type(config.asdict()) is dict
    assert config.flatten() == {path: config[path] for path in config.flatten()}
    assert all(path in config and config.get(path, ...) == config[path] for path in config.flatten())


@given(trees)
def test_copies_are_equal_and_share_nothing(tree: dict[str, Any]) -> None:
    config = Config(tree).allow(["somewhere"])
    for twin in (config.clone(), config.copy(), copy.copy(config), copy.deepcopy(config), Config(config)):
        assert twin == config
        assert type(twin) is Config
        assert not containers(twin) & containers(config)
    loaded = pickle.loads(pickle.dumps(config))
    assert loaded == config
    assert loaded._targets == ("somewhere",)
    assert not containers(config) & containers(tree)


@given(trees, paths, leaves)
def test_what_is_set_is_read_back_and_can_be_taken_out_again(tree: dict[str, Any], path: str, value: Any) -> None:
    config = Config(tree)
    before = config.clone()
    try:
        config[path] = value
    except ConfigError:
        parents = [path[:end] for end, letter in enumerate(path) if letter == "."]
        assert any(parent in before and not isinstance(before[parent], dict) for parent in parents)
        return
    fresh = Config({path: value})
    assert config[path] == fresh[path] == config.get(path)
    assert path in config
    if path not in before:
        assert config.pop(path) == fresh[path]
        assert config.get(path, "gone") == "gone"
        assert {p: v for p, v in config.flatten().items() if v != {}} == {
            p: v for p, v in before.flatten().items() if v != {}
        }


@given(trees, trees)
def test_filling_changes_nothing_that_is_there_and_adds_what_is_not(one: dict[str, Any], two: dict[str, Any]) -> None:
    config, defaults = Config(one), Config(two)
    filled = config.clone().fill(defaults)
    assert {path: filled[path] for path in config.flatten() if config[path] != {}} == {
        path: value for path, value in config.flatten().items() if value != {}
    }
    assert filled.clone().fill(defaults) == filled
    assert config.clone().fill({}) == config
    assert Config().fill(defaults) == defaults
    assert not containers(filled) & containers(defaults)
    if not ("_target_" in config and "_target_" in defaults and config["_target_"] != defaults["_target_"]):
        assert set(defaults) <= set(filled)


@given(trees, trees)
def test_updating_lets_the_new_value_win(one: dict[str, Any], two: dict[str, Any]) -> None:
    config, new = Config(one), Config(two)
    merged = config | new
    assert all(merged[path] == value for path, value in new.flatten().items() if value != {})
    assert set(merged) == {*config, *new}
    assert (merged | new) == merged
    assert (config | {}) == config == ({} | config)


def test_fields_are_reached_by_index_by_dotted_path_and_by_attribute() -> None:
    config = Config({"optim": {"lr": 0.1}, "tags": [{"a": 1}]}, seed=3)
    assert config["optim.lr"] == config["optim"]["lr"] == config.optim.lr == 0.1
    assert type(config.optim) is type(config.tags[0]) is Config
    config.optim.lr = 0.2
    config["optim.betas"] = (0.9, 0.99)
    config["sched.gamma"] = 0.5
    assert config == {
        "optim": {"lr": 0.2, "betas": [0.9, 0.99]},
        "tags": [{"a": 1}],
        "seed": 3,
        "sched": {"gamma": 0.5},
    }
    del config["optim.betas"], config.seed
    assert config.pop("sched.gamma") == 0.5
    assert config == {"optim": {"lr": 0.2}, "tags": [{"a": 1}]}
    assert config.setdefault("optim.lr", 9) == 0.2
    assert config.setdefault("optim.m", 9) == 9
    assert isinstance(config, dict)


def test_methods_are_never_shadowed_by_fields() -> None:
    config = Config({"items": 1, "a b": 2, "values": {"get": 3}})
    assert callable(config.items)
    assert config["items"] == 1
    assert config["values.get"] == 3
    assert config["a b"] == 2
    with pytest.raises(AttributeError, match=r"'items' is a method of Config; write config\['items'\]"):
        config.items = 2  # type: ignore[method-assign, assignment]
    with pytest.raises(AttributeError, match="'_targets' is a method"):
        config._targets = ("os",)
    assert dict(config) == {"items": 1, "a b": 2, "values": {"get": 3}}


def test_a_missing_field_suggests_the_nearest_one() -> None:
    config = Config({"learning_rate": 0.1, "optim": {"momentum": 0.9}})
    with pytest.raises(KeyError, match=r"no field 'lerning_rate'; did you mean 'learning_rate'\?") as caught:
        config["lerning_rate"]
    assert isinstance(caught.value, UnknownField)
    for ask in (lambda: config["momentum"], lambda: config.pop("momentum"), lambda: config.momentum):
        with pytest.raises((KeyError, AttributeError), match=r"did you mean 'optim\.momentum'"):
            ask()
    with pytest.raises(UnknownField, match="there is 'learning_rate', 'optim'"):
        config["zzz"]
    assert not hasattr(config, "zzz")
    assert 3 not in config
    assert config.get("learning_rate.x") is None
    assert config.pop("zzz", None) is None


def test_values_are_normalised_and_refused_with_their_path() -> None:
    import numpy as np

    config = Config({"a": {"size": (1, 2), "lr": np.float32(0.1), "zero": -0.0}})
    assert repr(config) == "Config({'a': {'size': [1, 2], 'lr': 0.1, 'zero': 0.0}})"
    assert Config({"e\u0301": 1}) == Config({"\u00e9": 1})
    assert Config({"\u00e9": 1})["e\u0301"] == 1
    for bad in ({"a": {"b": [object()]}}, {"a.b": [object()]}):
        with pytest.raises(ConfigError, match=r"a\.b"):
            Config(bad)
    with pytest.raises(ConfigError, match=r"at 'a\.b\[0\]'"):
        config["a.b"] = [float("nan")]
    assert "a.b" not in config


def test_what_is_put_in_is_copied() -> None:
    tags, inner = ["x"], {"lr": 1}
    config = Config(tags=tags)
    config["inner"] = inner
    config["other"] = config.inner
    tags.append("y")
    inner["lr"] = 2
    config.other.lr = 3
    config["self"] = config
    assert config.flatten() == {
        "tags": ["x"],
        "inner.lr": 1,
        "other.lr": 3,
        "self.tags": ["x"],
        "self.inner.lr": 1,
        "self.other.lr": 3,
    }
    config.flatten()["tags"].append("z")
    config.asdict()["tags"].append("z")
    assert config.tags == ["x"]


@pytest.mark.parametrize("fields", [{"a.b": 1, "a": 2}, {"a": 2, "a.b": 1}, {"a": {"b": 1}, "a.b": 2}])
def test_a_field_given_in_two_ways_is_refused_in_either_order(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        Config(fields)
    assert Config({"a": {"b": 1}, "a.c": 2}) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_names_with_nothing_between_the_dots_are_refused(path: str) -> None:
    config = Config()
    with pytest.raises(ConfigError, match="empty name"):
        config[path] = 1
    with pytest.raises(ConfigError, match="empty name"):
        Config({path: 1})
    assert path not in config
    assert config == {}


@pytest.mark.parametrize("fields", [5, "lr", None.__class__, [1, 2], [("a",)]])
def test_what_is_no_mapping_is_no_configuration(fields: Any) -> None:
    with pytest.raises((ConfigError, TypeError, ValueError)):
        Config(fields)


@pytest.mark.parametrize("path", [3, ("a",), None])
def test_names_are_strings(path: Any) -> None:
    config = Config()
    with pytest.raises(ConfigError, match="names must be str"):
        config[path] = 1


def test_nesting_has_a_limit_also_through_dots() -> None:
    with pytest.raises(ConfigError, match="nested deeper"):
        Config({".".join("a" * 1000): 1})
    with pytest.raises(ConfigError, match="nested deeper"):
        Config()[".".join("a" * 1000)] = 1
    with pytest.raises(ConfigError, match="nested deeper"):
        Config({".".join("a" * 40): {".".join("b" * 40): 1}})


def test_a_path_through_a_single_value_is_refused() -> None:
    config = Config(optim="sgd")
    with pytest.raises(ConfigError, match=r"cannot set field 'optim\.lr': 'optim' is 'sgd', not a mapping"):
        config["optim.lr"] = 0.1
    assert config == {"optim": "sgd"}


def test_defaults_do_not_cross_two_targets() -> None:
    defaults = {"model": {"_target_": "a.Net", "width": 64, "sub": {"x": 1}}, "seed": 0}
    assert Config({"model": {"_target_": "a.Other"}}).fill(defaults) == {"model": {"_target_": "a.Other"}, "seed": 0}
    assert Config({"model": {"_target_": "a.Net"}}).fill(defaults) == defaults
    assert Config({"model": {"width": 1}}).fill(defaults)["model._target_"] == "a.Net"
    assert Config({"model": None}).fill(defaults) == {"model": None, "seed": 0}
    config = Config(defaults)
    config.update({"model": {"_target_": "a.Other", "depth": 2}})
    assert config.model == {"_target_": "a.Other", "depth": 2}


def test_strict_defaults_name_the_unknown_field_and_its_source() -> None:
    defaults = {
        "learning_rate": 0.1,
        "optim": {"lr": 1, "extra": {}},
        "sched": None,
        "model": {"_target_": "a.A", "w": 1},
    }
    config = Config(lerning_rate=1)
    with pytest.raises(UnknownField) as caught:
        config.fill(defaults, strict=True, source="jobs/digits.yaml")
    assert str(caught.value) == "unknown field 'lerning_rate' in jobs/digits.yaml; did you mean 'learning_rate'?"
    assert config == {"lerning_rate": 1}
    with pytest.raises(UnknownField, match=r"unknown field 'optim\.Lr'; did you mean 'optim\.lr'\?"):
        Config({"optim.Lr": 1}).fill(defaults, strict=True)
    with pytest.raises(UnknownField, match=r"unknown field 'lr'; did you mean 'optim\.lr'\?"):
        Config({"lr": 1}).fill(defaults, strict=True)
    with pytest.raises(ConfigError, match=r"'learning_rate' is a mapping; the default is the single value 0\.1"):
        Config({"learning_rate.x": 1}).fill(defaults, strict=True)
    open_ones = {"sched": {"gamma": 1}, "optim": {"extra": {"any": 1}}, "model": {"_target_": "a.B", "depth": 3}}
    assert Config(open_ones).fill(defaults, strict=True)["optim.lr"] == 1


def test_files_serve_as_defaults_and_updates(tmp_path: Path) -> None:
    path = tmp_path / "defaults.yaml"
    path.write_text("optim: {lr: 1e-3}\nseed: 0\n")
    assert load_config(path) == load_config(str(path)) == {"optim": {"lr": 0.001}, "seed": 0}
    assert Config({"seed": 1}).fill(str(path)) == {"optim": {"lr": 0.001}, "seed": 1}
    config = Config(seed=1)
    config.update(path)
    assert config == load_config(path)
    path.write_text("# nothing yet\n")
    assert load_config(path) == load_config(None) == {}
    for text, reason in (("- 1", "is a list, not a mapping"), ("hello", "is a str, not a"), ("a: .nan", "at 'a'")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=reason) as caught:
            load_config(path)
        assert "defaults.yaml" in str(caught.value)


def test_the_command_line_overrides_by_dotted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    config = from_cli(
        ["optim.lr=1e-3", "arch=cnn", "tags=[a,b]", "x=", "model={_target_: a.B}", "s='1'", "e=a=b", "n=no"]
    )
    assert config == {
        "optim": {"lr": 0.001},
        "arch": "cnn",
        "tags": ["a", "b"],
        "x": None,
        "model": {"_target_": "a.B"},
        "s": "1",
        "e": "a=b",
        "n": "no",
    }
    assert from_cli(["lr=1", "lr=2"]) == {"lr": 2}
    assert from_cli([]) == {}
    monkeypatch.setattr(sys, "argv", ["job.py", "seed=3"])
    assert from_cli() == {"seed": 3}


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("lr", "not of the form NAME=VALUE"),
        ("--lr=1", "not of the form NAME=VALUE"),
        ("=1", "not of the form NAME=VALUE"),
        ("lr=[1", "VALUE:1: did not find expected"),
        ("lr=*x", "alias"),
        ("lr=.nan", "not a finite number"),
        ("a..b=1", "empty name"),
        ("seed.x=1", "'seed' is 0, not a mapping"),
        ("x=\udcff", "surrogate"),
        ("x=" + "[" * 100_000, "nested deeper than 64"),
    ],
)
def test_an_argument_that_is_wrong_is_named(argument: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_cli(["seed=0", argument])
    assert repr(argument)[:20] in str(caught.value)
    assert reason in str(caught.value)


class Probe:
    """A class of the job's own module, as ``_target_`` would name it."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        if "fail" in fields:
            raise ValueError("no")
        self.args, self.fields = args, fields


def probe_config(**fields: Any) -> Config:
    return Config(fields, _target_=f"{Probe.__module__}.Probe")


def test_instantiate_calls_the_target_with_the_fields() -> None:
    config = probe_config(width=3, tags=[1], sub=probe_config(x=1)).allow([Probe.__module__])
    before = config.clone()
    probe = config.instantiate("env", width=4, device="cpu")
    assert probe.args == ("env",)
    assert {**probe.fields, "sub": None} == {"width": 4, "tags": [1], "sub": None, "device": "cpu"}
    # A nested one is built by whoever gets it, with the same allow-list.
    assert probe.fields["sub"].instantiate(7).args == (7,)
    probe.fields["tags"].append(2)
    probe.fields["sub"]["x"] = 2
    assert config == before


def test_only_what_is_allowed_is_built_here_and_below() -> None:
    config = Config({"model": probe_config(), "layers": [probe_config()]})
    with pytest.raises(TargetRefused, match="write in your Manager"):
        config.model.instantiate()
    assert config.model.instantiate(targets=[Probe.__module__]).fields == {}
    with pytest.raises(TargetRefused):
        config.model.instantiate()
    config.allow((Probe.__module__,))
    for allowed in (config.clone().model, config.layers[0], config.pop("model")):
        assert isinstance(allowed.instantiate(), Probe)
    config["late"] = probe_config()
    config["deep.er"] = probe_config()
    assert isinstance(config.late.instantiate(), Probe)
    assert isinstance(config.deep.er.instantiate(), Probe)
    config.allow("torch.nn")
    with pytest.raises(TargetRefused):
        config.late.instantiate()
    assert "_targets" not in config


def test_the_default_targets_are_this_package_and_torch() -> None:
    assert Config(_target_="jimmy_manager.config.Config", a=1).instantiate() == {"a": 1}
    with pytest.raises(TargetRefused, match=r"'torch\.optim', 'os'\)$"):
        Config(_target_="os.getcwd").instantiate()
    with pytest.raises(ConfigError, match="no field '_target_' among 'a'"):
        Config(a=1).instantiate()


def test_an_error_of_the_target_says_which_one_it_was() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        probe_config(fail=1).instantiate(targets=[Probe.__module__])
    assert caught.value.__notes__ == [f"while instantiating '{Probe.__module__}.Probe'"]


def test_torch_is_reached_but_not_through_it() -> None:
    torch = pytest.importorskip("torch")
    layer = Config(_target_="torch.nn.Linear", in_features=2, out_features=3).instantiate()
    assert isinstance(layer, torch.nn.Linear)
    for target in ("torch.nn.modules.module.torch.load", "torch.nn.functional.warnings.warn", "torch.load"):
        with pytest.raises(TargetRefused):
            Config(_target_=target).instantiate()
