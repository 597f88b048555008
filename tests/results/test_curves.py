"""Learning curves of real runs: of small Managers, and of one that logs for TensorBoard."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jimmy_manager import Manager, Store, TrainedManager
from jimmy_manager.errors import AmbiguousKey, KeyNotFound, UnknownField
from jimmy_manager.training.tensorboard_manager import TensorBoardManager


class Line(Manager):
    num_epochs = 3

    def train(self) -> None:
        pass

    def eval(self) -> dict[str, Any]:
        return {"loss": self.config.lr / (1 + self.epoch), "top": {"acc": 0.5}}


def two_blobs(n: int) -> dict[str, Any]:
    targets = torch.arange(n) % 2
    inputs = torch.randn(n, 2) + 4 * targets[:, None]
    return {"train": (inputs[::2], targets[::2]), "valid": (inputs[1::2], targets[1::2])}


class Blobs(TrainedManager):
    targets = (__name__,)


BLOBS = {
    "data": {"_target_": f"{__name__}.two_blobs", "n": 64},
    "model": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
    "optim": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "store"
    manager = Line(directory, {"lr": 1.0}, verbose=False, device="cpu")
    for lr in (1.0, 2.0):
        manager.process({"lr": lr})
    return directory


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(made, tmp_path / "store"), read_only=True)


def key_of(store: Store, lr: float) -> str:
    return store.configs.get_key({"lr": lr})


def test_a_plain_manager_has_learning_curves(store: Store) -> None:
    frame = store.curves()
    assert list(frame.columns) == ["key", "tag", "step", "epoch", "value", "at"]
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "key": "str", "tag": "str", "step": "float64", "epoch": "float64", "value": "float64",
        "at": "datetime64[ns, UTC]",
    }  # fmt: skip
    loss = frame[(frame.key == key_of(store, 2.0)) & (frame.tag == "loss")]
    assert loss.epoch.tolist() == [0, 1, 2, 3]
    assert loss.value.tolist() == [2.0, 1.0, 2 / 3, 0.5]
    assert loss.step.isna().all()  # nobody counts them there
    assert (loss["at"].diff().dropna().dt.total_seconds() >= 0).all()
    assert len(frame) == 2 * 2 * 4


def test_a_trained_manager_has_those_of_tensorboard_as_well(tmp_path: Path) -> None:
    manager = Blobs(tmp_path / "store", device="cpu", verbose=False)
    key = manager.process(BLOBS, num_epochs=2)
    frame = manager.curves(key[:4])
    assert {"Train/Main", "Eval/Main", "Eval/acc", "LR", "loss_train", "loss_valid", "acc_valid"} <= set(frame.tag)
    logged, evaluated = (frame[frame.tag == tag] for tag in ("Eval/acc", "acc_valid"))
    assert logged.step.tolist() == [2, 4]
    assert logged.epoch.isna().all()
    assert evaluated[["step", "epoch"]].values.tolist() == [[0, 0], [2, 1], [4, 2]]
    assert evaluated.value.tolist()[1:] == pytest.approx(logged.value.tolist())
    assert evaluated.value.tolist()[-1] == manager.previews[key]["acc_valid"]


def test_a_trained_run_that_was_stopped_and_resumed_has_each_step_once(tmp_path: Path) -> None:
    manager = Blobs(tmp_path / "store", device="cpu", verbose=False)
    key = manager.process(BLOBS, num_epochs=2)
    assert manager.process(BLOBS, num_epochs=3) == key
    frame = manager.curves(key, ["Eval/Main", "loss_valid"])
    assert frame[frame.tag == "Eval/Main"].step.tolist() == [2, 4, 6]
    assert frame[frame.tag == "loss_valid"].epoch.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("loss", {"loss"}), (["loss"], {"loss"}), ("top.*", {"top.acc"}), (["*"], {"loss", "top.acc"}),
        (["loss", "t??.acc"], {"loss", "top.acc"}), ([], set()),
    ],
)  # fmt: skip
def test_tags_are_names_or_patterns(store: Store, tags: Any, found: set[str]) -> None:
    assert set(store.curves(tags=tags).tag) == found


@pytest.mark.parametrize(
    ("tags", "advice"),
    [
        ("lsos", "did you mean 'loss'?"), ("acc", "did you mean 'top.acc'?"),
        (["loss", "x*"], "there are loss, top.acc"),
    ],
)  # fmt: skip
def test_a_tag_that_no_run_has_is_an_error_with_the_nearest(store: Store, tags: Any, advice: str) -> None:
    with pytest.raises(UnknownField) as raised:
        store.curves(tags=tags)
    assert advice in str(raised.value)


def test_runs_are_chosen_by_prefix_and_by_filter(store: Store) -> None:
    one, two = key_of(store, 1.0), key_of(store, 2.0)
    assert set(store.curves(one[:5]).key) == {one}
    assert store.curves([two, one, two]).key.drop_duplicates().tolist() == [two, one]
    assert set(store.curves(where="lr > 1").key) == {two}
    assert set(store.curves([one], where={"lr": 2.0}).key) == set()
    with pytest.raises(KeyNotFound):
        store.curves("ffffffff")
    writable = Store(store.directory)
    others = [writable.register({"lr": 10.0 + n}).key for n in range(17)]
    shared = next(key[0] for key in others if sum(other[0] == key[0] for other in others) > 1)
    with pytest.raises(AmbiguousKey):
        store.curves(shared)
    writable.pop(two)
    assert set(store.curves().key) == {one}
    with pytest.raises(KeyNotFound, match="popped"):
        store.curves(two)


def test_where_there_is_nothing_the_columns_are_there_all_the_same(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(Path(store.directory or "") / "logs")
    empty = Line(tmp_path / "empty", {"lr": 1.0}, verbose=False)
    for frame in (store.curves(tags="unknown"), empty.curves(tags="unknown"), Line(None, {}, verbose=False).curves()):
        assert len(frame) == 0
        assert str(frame.dtypes["at"]) == "datetime64[ns, UTC]"
        assert str(frame.dtypes["value"]) == "float64"


class Jarvis(Manager):
    def train(self) -> None:
        pass

    def eval(self) -> None:
        self.ckpt["eval_records"][self.epoch] = {"loss": 1.0 + self.epoch, "nan": float("nan")}
        self.preview = self.ckpt


def test_records_in_a_preview_stand_in_for_a_log_that_is_not_there(tmp_path: Path) -> None:
    manager = Jarvis(tmp_path / "store", {"lr": 1.0}, verbose=False, device="cpu")
    key = manager.process({}, num_epochs=3)
    logged = manager.curves(key, "loss")
    place = Path(manager.store.logs(key) or "")
    (place / "evals.g1.jsonl").write_text((place / "evals.g1.jsonl").read_text().splitlines()[1] + "\n")
    frame = manager.curves(key, "loss")
    assert frame.value.tolist() == logged.value.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert frame["at"].isna().tolist() == [True, False, True, True]
    memory = Jarvis(None, {"lr": 1.0}, verbose=False, device="cpu")
    memory.process({}, num_epochs=1)
    assert memory.curves().value.tolist()[:2] == [1.0, 2.0]
    assert [math.isnan(value) for value in memory.curves(tags="nan").value] == [True, True]


def test_a_tag_of_tensorboard_with_the_name_of_a_result_is_told_apart(store: Store) -> None:
    key = key_of(store, 1.0)
    with TensorBoardManager(store.logs(key), ["loss", "other"]) as tm:
        tm.log(5, loss=9.0, other=8.0)
    frame = store.curves(key)
    assert frame[frame.tag == "tensorboard.loss"][["step", "value"]].values.tolist() == [[5.0, 9.0]]
    assert frame[frame.tag == "loss"].value.tolist() == [1.0, 0.5, 1 / 3, 0.25]
    assert frame[frame.tag == "other"].value.tolist() == [8.0]


def break_log(place: Path) -> Path:
    with TensorBoardManager(place, ["x"]) as tm:
        for step in range(9):
            tm.log(step, x=step)
    (path,) = place.glob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-5])
    return path


def test_a_truncated_event_file_is_named_and_the_rest_is_shown(store: Store) -> None:
    path = break_log(Path(store.logs(key_of(store, 1.0)) or ""))
    with pytest.warns(UserWarning, match=re.escape(str(path))) as told:
        frame = store.curves()
    assert [each.filename for each in told] == [__file__]
    assert frame[frame.tag == "x"].value.tolist() == list(range(8))
    assert len(frame[frame.tag == "loss"]) == 8


def test_of_a_run_in_training_the_end_of_its_log_may_be_on_its_way(tmp_path: Path) -> None:
    seen = []

    class Looking(Line):
        def train(self) -> None:
            if self.epoch == 1:
                break_log(Path(self.store.logs(self.key) or ""))
                seen.append(Store(tmp_path / "store", read_only=True).curves(tags="x"))  # a warning would be an error

    Looking(tmp_path / "store", {"lr": 1.0}, verbose=False, device="cpu").process({})
    assert len(seen[0]) == 8


def test_a_damaged_preview_costs_no_curve(store: Store) -> None:
    for path in (Path(store.directory or "") / "previews").rglob("*.json"):
        path.write_bytes(b"x")
    with pytest.warns(UserWarning, match="previews/"):
        assert len(store.curves()) == 16


def test_looking_at_curves_writes_nothing_and_follows_nothing(store: Store, tmp_path: Path) -> None:
    (secret := tmp_path / "secret").mkdir()
    break_log(secret)
    place = Path(store.logs(key_of(store, 1.0)) or "")
    (place / "linked").symlink_to(secret)
    os.symlink(next(secret.iterdir()), place / "events.out.tfevents.7")
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in (tmp_path / "store").rglob("*"))
    with pytest.warns(UserWarning, match=r"tfevents\.7: "):
        assert "x" not in set(store.curves().tag)
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in (tmp_path / "store").rglob("*")) == before


@pytest.mark.parametrize("read_steps", [lambda at: at, np.asarray])
def test_epochs_are_numbers_that_anything_can_plot(store: Store, read_steps: Callable[[Any], Any]) -> None:
    table = store.curves(tags="loss").pivot_table(index="epoch", columns="key", values="value")
    assert read_steps(table.index).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_time_that_no_calendar_has_is_none(store: Store) -> None:
    place = Path(store.logs(key_of(store, 1.0)) or "")
    with (place / "evals.g9.jsonl").open("w") as file:
        file.write('{"epoch": 7, "step": 0, "at": 1e300, "values": {"loss": 1}}\n')
    frame = store.curves(key_of(store, 1.0), "loss")
    assert frame["at"].isna().tolist() == [False] * 4 + [True]
