"""One run at a prompt: all that is known of it, without its checkpoint, and its model."""

from __future__ import annotations

import base64
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from jimmy_manager import Manager, Store
from jimmy_manager.errors import HookError, KeyNotFound
from jimmy_manager.results.run_results import RunResults

HOSTILE = "<script>alert(1)</script>\x1b[2J\nnext"


class Net(Manager):
    num_epochs = 2
    state = ("model",)

    def setup(self, config: Any) -> None:
        super().setup(config)
        self.model = nn.Linear(2, 1).to(self.device)

    def train(self) -> None:
        if self.config.act == "raise":
            raise ValueError(HOSTILE)
        self.model.weight.data += 1

    def eval(self) -> dict[str, Any]:
        from matplotlib.figure import Figure

        self.preview["curve of loss"] = Figure(figsize=(2, 1))
        return {"loss": 1 / (1 + self.epoch), "acc": 123456, "note": HOSTILE, "array": np.arange(3.0), "deep": {"x": 1}}


DEFAULTS = {"lr": 0.1, "act": "", "name": HOSTILE}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "store"
    manager = Net(directory, DEFAULTS, verbose=False, device="cpu")
    manager.process({})
    with pytest.raises(ValueError, match="alert"):
        manager.process({"act": "raise"})
    manager.store.register(manager.get_config({"lr": 9.0}))
    return directory


@pytest.fixture
def manager(made: Path, tmp_path: Path) -> Net:
    copy = shutil.copytree(made, tmp_path / "store")
    return Net(copy, DEFAULTS, verbose=False, device="cpu", read_only=True)


def key_of(manager: Net, **fields: Any) -> str:
    return manager.configs.get_key(DEFAULTS | fields)


def snapshot(directory: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in directory.rglob("*"))


def test_a_run_has_all_that_is_known_of_it(manager: Net, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    run = manager.run(key_of(manager)[:5])
    assert isinstance(run, RunResults)
    assert (run.key, run.state, run.epoch) == (key_of(manager), "done", 2)
    assert run.config == manager.configs[run.key]
    assert run.preview["loss"] == 1 / 3
    assert run.preview["curve of loss"] == "curve_of_loss"
    assert run.stats == manager.stats[run.key]
    assert list(run.figures) == ["curve_of_loss"]
    assert run.figures["curve_of_loss"].startswith(b"\x89PNG")
    assert run.error is None
    assert run.curves("loss").value.tolist() == [1.0, 0.5, 1 / 3]
    assert [re.sub(r"^[-0-9]{10} [:0-9]{8} ", "", line) for line in run.log.splitlines()] == [
        "epoch 0: loss 1, acc 123456, deep.x 1", "epoch 1: loss 0.5, acc 123456, deep.x 1",
        "epoch 2: loss 0.333333, acc 123456, deep.x 1",
    ]  # fmt: skip
    assert snapshot(tmp_path) == before


def test_it_is_one_line_at_a_prompt(manager: Net) -> None:
    key = key_of(manager)
    assert repr(manager.run(key)) == f"<run {key}: done after epoch 2, loss 0.3333, acc 123456, deep.x 1>"
    assert repr(manager.run(key_of(manager, lr=9.0))) == f"<run {key_of(manager, lr=9.0)}: new>"


def test_only_a_manager_gives_the_model(manager: Net) -> None:
    key = key_of(manager)
    model = manager.run(key).model()
    assert isinstance(model, nn.Linear)
    assert not model.training
    with pytest.raises(HookError, match=rf"ask|Manager can: MyManager\('.*'\)\.run\('{key}'\)\.model\(\)"):
        manager.store.run(key).model()


def test_a_model_comes_on_a_device_of_one_s_own_and_the_manager_keeps_its(manager: Net) -> None:
    assert manager.run(key_of(manager)).model("cpu").weight.device.type == "cpu"
    assert manager.device == "cpu"
    seen = []
    manager.fetch = lambda *asked: seen.append(asked)  # type: ignore[method-assign]
    manager.run(key_of(manager)).model(device="cuda:1")
    assert seen == [(key_of(manager), "cuda:1")]


def test_a_run_that_failed_has_its_traceback_fit_for_a_terminal(manager: Net) -> None:
    run = manager.run(key_of(manager, act="raise"))
    assert run.state == "failed"
    assert run.error is not None
    assert "Traceback" in run.error
    assert "\x1b" not in run.error
    assert run.epoch == 0


def test_a_run_that_has_nothing_yet_is_empty(manager: Net) -> None:
    run = manager.run(key_of(manager, lr=9.0))
    assert (run.state, run.epoch, run.preview, run.stats, run.figures, run.error, run.log) == (
        "new", None, {}, {}, {}, None, ""
    )  # fmt: skip
    assert len(run.curves()) == 0


def test_the_card_shows_configuration_results_and_figures_and_escapes_all(manager: Net) -> None:
    card = manager.run(key_of(manager))._repr_html_()
    assert "<script" not in card
    assert "\x1b" not in card
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in card
    expected = ("done after epoch 2", "lr", "0.3333", "array of float64, shape (3,)")
    assert [text for text in expected if text not in card] == []
    (png,) = re.findall(r'src="data:image/png;base64,([^"]+)"', card)
    assert base64.b64decode(png) == manager.run(key_of(manager)).figures["curve_of_loss"]
    assert not re.search(r'(src|href)="(?!data:)', card)
    failed = manager.run(key_of(manager, act="raise"))._repr_html_()
    assert "\x1b" not in failed
    assert "<script" not in failed


def test_a_time_that_no_calendar_has_does_not_hide_the_log(manager: Net) -> None:
    run = manager.run(key_of(manager))
    file = next(Path(manager.store.logs(run.key) or "").glob("evals.g*.jsonl"))
    with file.open("a") as lines:
        lines.write('{"epoch": 8, "step": 0, "at": 1e300, "values": {"loss": 0.5}}\n')
    assert run.log.splitlines()[-1] == "1e+300 epoch 8: loss 0.5"


def test_logs_that_a_job_left_are_read_to_their_end_and_no_link_is_followed(manager: Net, tmp_path: Path) -> None:
    run = manager.run(key_of(manager))
    place = Path(manager.store.logs(run.key) or "")
    (place / "worker.log").write_bytes(b"x" * (2 << 20) + b"\nthe end \x1b[2J\xff\n")
    (tmp_path / "secret.txt").write_text("secret")
    (place / "a.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(place / "b.log")
    text = run.log
    assert "secret" not in text.replace("secret.txt", "")
    assert "the end \\x1b[2J\ufffd" in text
    assert len(text) < (1 << 20) + 2000
    assert "a.txt: cannot be read" in text
    assert "b.log: cannot be read" in text
    assert text.splitlines()[-1].endswith("epoch 2: loss 0.333333, acc 123456, deep.x 1")


def test_a_damaged_run_is_told_of_at_the_prompt_and_raised_where_it_is_read(manager: Net) -> None:
    run = manager.run(key_of(manager))
    for path in (Path(manager.store.directory or "") / "previews").rglob("*.json"):
        path.write_bytes(b"<b>")
    assert f"run {run.key}: damaged" in repr(run)
    assert "damaged" in run._repr_html_()
    with pytest.raises(ValueError, match="damaged"):
        _ = run.preview


def test_a_run_that_is_not_there_is_an_error_at_once(manager: Net) -> None:
    with pytest.raises(KeyNotFound):
        manager.run("ffffffff")
    key = key_of(manager)
    Store(manager.store.directory).pop(key)
    with pytest.raises(KeyNotFound, match="popped"):
        manager.run(key)


def test_a_run_in_memory_has_no_logs() -> None:
    manager = Net(None, DEFAULTS, verbose=False, device="cpu")
    run = manager.run(manager.process({}))
    assert (run.log, run.state) == ("", "done")


def test_what_a_run_has_is_completed_at_a_prompt(manager: Net) -> None:
    expected = {"config", "preview", "stats", "state", "epoch", "figures", "log", "error", "model", "curves", "key"}
    assert expected <= set(dir(manager.run(key_of(manager))))
