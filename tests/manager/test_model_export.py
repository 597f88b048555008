"""A model leaves the store as safetensors and configuration: whole, strict to load, and never over something else."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from jimmy_manager import Manager
from jimmy_manager.errors import CheckpointError, HookError, KeyNotFound, MissingExtra, StoreError
from jimmy_manager.manager import model_export
from jimmy_manager.yaml12 import loads
from tests.archives.runs import listing


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False, dtype=torch.float32)
        self.out.weight = self.embedding.weight
        self.small = nn.Parameter(torch.randn(4, dtype=torch.bfloat16))
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("turned", torch.arange(6).reshape(2, 3).T)
        self.register_buffer("nothing", torch.zeros(0))


class Exported(Manager):
    state = ("model",)
    num_epochs = 2
    made_on: str = ""

    def setup(self, config: Any) -> None:
        super().setup(config)
        self.made_on = self.device
        self.model: nn.Module = Tied()

    def train(self) -> None:
        with torch.no_grad():
            self.model.small += 1

    def eval(self) -> dict[str, Any]:
        return {"loss": 0.5 / (self.epoch + 1), "bad": math.nan, "by": {1: {"acc": math.inf}}, "curve": [1, 2]}


@pytest.fixture
def manager(tmp_path: Path) -> Exported:
    made = Exported(tmp_path / "S", {"a": {"lr": 0.1}, "seed": 0}, verbose=False, durable=False, device="cpu")
    made.process({})
    return Exported(tmp_path / "S", read_only=True, device="cpu")


@pytest.fixture
def key(manager: Exported) -> str:
    return next(iter(manager.configs))


def test_the_weights_come_back_strictly_bit_by_bit_and_in_their_dtypes(
    manager: Exported, key: str, tmp_path: Path
) -> None:
    before = listing(tmp_path / "S")
    assert manager.export_model(key[:4], tmp_path / "out") == tmp_path / "out"
    found, model = load_file(tmp_path / "out" / "model.safetensors"), Tied()
    assert model.load_state_dict(found) == ([], [])
    expected = manager.fetch(key).state_dict()
    assert set(found) == set(expected)
    assert all(found[name].dtype == each.dtype and found[name].equal(each) for name, each in expected.items())
    assert listing(tmp_path / "S") == before


def test_the_configuration_says_what_the_model_is(manager: Exported, key: str, tmp_path: Path) -> None:
    manager.export_model(key, tmp_path / "out")
    found = loads((tmp_path / "out" / "config.yaml").read_text())
    assert {name: found[name] for name in ("key", "job", "epoch", "config")} == {
        "key": key, "job": "Exported", "epoch": 2, "config": {"a": {"lr": 0.1}, "seed": 0},
    }
    assert found["metrics"] == {"loss": 0.5 / 3, "bad": None, "by.1.acc": "inf"}
    assert found["run"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_nothing_is_overwritten(manager: Exported, key: str, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    {"file": lambda: target.write_text("x"), "folder": target.mkdir, "dangling": lambda: target.symlink_to("x")}[kind]()
    before = listing(tmp_path)
    with pytest.raises(StoreError, match="exists already"):
        manager.export_model(key, target)
    assert listing(tmp_path) == before


def test_a_failed_export_leaves_nothing(
    manager: Exported, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_export, "_sync", full)
    (tmp_path / "here").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*out: No space left"):
        manager.export_model(key, tmp_path / "here" / "out")
    assert list((tmp_path / "here").iterdir()) == []


def test_without_safetensors_the_error_ends_in_the_install_line(
    manager: Exported, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'jimmy_manager\[export\]'$"):
        manager.export_model(key, tmp_path / "out")


def test_a_state_that_is_no_plain_tensor_is_named(
    manager: Exported, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = torch.eye(2).to_sparse()
    monkeypatch.setattr(Tied, "state_dict", lambda self, *a, **k: {"net.sparse": sparse})
    with pytest.raises(CheckpointError, match=r"'net.sparse' is of torch.sparse_coo"):
        model_export._weights(Tied(), manager)
    assert not (tmp_path / "out").exists()


def test_a_job_without_a_model_has_nothing_to_export(tmp_path: Path) -> None:
    class Bare(Manager):
        num_epochs = 1

        def train(self) -> None: ...

        def eval(self) -> None: ...

    bare = Bare(tmp_path / "B", verbose=False, durable=False)
    key = bare.process({"a": 1})
    with pytest.raises(HookError, match=r"no self\.model"):
        bare.export_model(key, tmp_path / "out")
    with pytest.raises(KeyNotFound):
        bare.export_model("ffff", tmp_path / "out")


def test_a_model_is_built_and_handed_over_on_the_device_asked_for(manager: Exported, key: str) -> None:
    model = manager.fetch(key)
    assert (manager.made_on, model.training) == ("cpu", False)

    class Elsewhere(Exported):
        def load_ckpt(self) -> None:
            super().load_ckpt()
            assert self.device == "cpu:0"

    other = Elsewhere(manager.store.directory, read_only=True, device="meta")
    fetched = other.fetch(key, device="cpu:0")
    assert (other.made_on, other.device, fetched.training) == ("cpu:0", "meta", False)
    moved = manager.fetch(key, "meta")  # from where a job built it regardless
    assert {each.device.type for each in moved.parameters()} == {"meta"}
