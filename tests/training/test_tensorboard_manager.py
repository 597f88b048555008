from __future__ import annotations

import errno
import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginAccumulator
from tensorboard.compat.tensorflow_stub.io import gfile
from tensorboard.plugins.hparams import api_pb2, metadata

from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.training.tensorboard_manager import TensorBoardManager


def read(log_dir: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def scalars(log_dir: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(log_dir).Scalars(tag)]


def event_files(log_dir: Path) -> list[Path]:
    return sorted(log_dir.rglob("*tfevents*"))


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5, dtype=torch.bfloat16),
     torch.tensor(0.5, requires_grad=True)],
)  # fmt: skip
def test_scalars_of_any_kind_are_read_back(tmp_path: Path, value: object) -> None:
    with TensorBoardManager(tmp_path, ["Train/Main", "Eval/Main"], ["scalar", "scalar"]) as tm:
        tm.log(3, **{"Train/Main": value})
        tm.log(4, **{"Train/Main": 1, "Eval/Main": float("nan")})
    assert scalars(tmp_path, "Train/Main") == [(3, 0.5), (4, 1.0)]
    assert np.isnan(scalars(tmp_path, "Eval/Main")[0][1])


def test_every_type_of_value_is_written(tmp_path: Path) -> None:
    types = ["scalar", "figure", "histogram", "image", "text"]
    with TensorBoardManager(tmp_path, types, types) as tm:
        tm.log(1, scalar=1, figure=pyplot.figure(), histogram=torch.randn(5), image=torch.rand(3, 4, 5), text="*t*")
    tags = read(tmp_path).Tags()
    assert tags["scalars"] == ["scalar"]
    assert tags["images"] == ["figure", "image"]
    assert tags["histograms"] == ["histogram"]
    assert tags["tensors"] == ["text/text_summary"]


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5), (4, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.bool])
def test_images_of_every_shape_are_written(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    pixels = torch.ones(shape, dtype=dtype)
    if dtype.is_floating_point:
        pixels[..., 0, 0] = torch.nan
    with TensorBoardManager(tmp_path, ["image"], "image") as tm:
        tm.log(0, image=pixels)
    image = read(tmp_path).Images("image")[0]
    assert (image.height, image.width) == (4, 5 if len(shape) < 4 else 2 * 5)


@pytest.mark.parametrize("log_dir", [True, False])
def test_figures_are_closed_whether_or_not_they_are_written(tmp_path: Path, log_dir: bool) -> None:
    pyplot.close("all")
    with TensorBoardManager(tmp_path if log_dir else None, ["figure", "loss"], ["figure", "scalar"]) as tm:
        tm.log(0, figure=pyplot.figure())
        tm.log(1, figure=[pyplot.figure(), pyplot.figure()])
        with pytest.raises(UnknownField):
            tm.log(1, figure=pyplot.figure(), los=1)
    with pytest.raises(ConfigError, match="closed"):
        tm.log(2, figure=pyplot.figure())
    assert pyplot.get_fignums() == []


def test_a_figure_that_cannot_be_drawn_is_left_out_and_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pyplot.close("all")
    with TensorBoardManager(tmp_path, ["figure", "loss"], ["figure", "scalar"]) as tm:
        for step in range(2):
            figure = pyplot.figure()
            figure.suptitle("$\\nonsense{$")
            tm.log(step, figure=figure, loss=1)
    assert pyplot.get_fignums() == []
    assert scalars(tmp_path, "loss") == [(0, 1.0), (1, 1.0)]
    told = [each.getMessage() for each in caplog.records if each.name.startswith("jimmy_manager")]
    assert ["figure 'figure' of step 0 is left out" in each for each in told] == [True]


def test_histograms_without_a_finite_value_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TensorBoardManager(tmp_path, ["h"], "histogram") as tm:
        for step, value in enumerate(([], [np.nan], torch.tensor([np.inf, 2.0]), [1, 2], np.ones((2, 2)))):
            tm.log(step, h=value)
    assert [(each.step, each.histogram_value.num) for each in read(tmp_path).Histograms("h")] == [
        (2, 1), (3, 2), (4, 4),
    ]  # fmt: skip
    assert "histogram 'h' of step 0 is left out: none of its 0 values is finite" in caplog.text


@pytest.mark.parametrize("log_dir", [True, False])
def test_an_unknown_tag_names_those_that_are_known(tmp_path: Path, log_dir: bool) -> None:
    with TensorBoardManager(tmp_path if log_dir else None, ["Train/Main", "LR"]) as tm:
        with pytest.raises(UnknownField, match="unknown tag 'Train/Mian' of TensorBoard; did you mean 'Train/Main'"):
            tm.log(0, **{"Train/Mian": 1})
        with pytest.raises(UnknownField, match="there are Train/Main, LR"):
            tm.log(0, **{"?": 1})


@pytest.mark.parametrize(
    ("value_type", "value", "complaint"),
    [
        ("scalar", torch.zeros(2), "takes a number or a 0-d tensor, and was given a Tensor of shape"),
        ("scalar", "0.5", "was given '0.5' of type str"),
        ("scalar", 1j, "of type complex"),
        ("figure", torch.zeros(2), "takes a Figure of matplotlib or a list of them"),
        ("figure", [], r"was given \[\] of type list"),
        ("histogram", "abc", "takes a tensor, an array or a list"),
        ("image", torch.zeros(5, 6, 3), r"with C of 1, 3 or 4, and was given a Tensor of shape \(5, 6, 3\)"),
        ("image", [[0.0]], "of type list"),
        ("text", 3, "takes a str, and was given 3 of type int"),
    ],
)
def test_a_value_of_another_type_is_refused_and_nothing_is_written(
    tmp_path: Path, value_type: str, value: object, complaint: str
) -> None:
    with TensorBoardManager(tmp_path, ["loss", "tag"], ["scalar", value_type]) as tm:
        with pytest.raises(ConfigError, match=f"tag 'tag' .*{complaint}"):
            tm.log(0, loss=1, tag=value)
        tm.flush()
    assert read(tmp_path).Tags()["scalars"] == []


def test_tags_are_registered_once_with_one_type() -> None:
    tm = TensorBoardManager(None, ["a"], "scalar")
    tm.register("a", "scalar")
    tm.register("fig", "figure")
    assert tm.tags == {"a": "scalar", "fig": "figure"}
    for tag, value_type, complaint in (
        ("a", "text", "is a scalar already"), ("b", "scalars", "there are scalar, figure, histogram, image, text"),
        ("step", "scalar", "other than self and step"), ("", "scalar", "cannot be used"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=complaint):
            tm.register(tag, value_type)
    with pytest.raises(ConfigError, match="2 tags and 1 value_types"):
        TensorBoardManager(None, ["a", "b"], ["scalar"])


def test_without_a_directory_nothing_is_written_and_tensorboard_is_not_even_imported(tmp_path: Path) -> None:
    code = """
import sys
from jimmy_manager.training.tensorboard_manager import TensorBoardManager
with TensorBoardManager(None, ['loss'], ['scalar']) as tm:
    tm.log(0, loss=1.0)
    tm.log_hparams({'lr': 1}, {'best': 1.0})
    tm.flush()
    assert tm.writer is None
print([name for name in sys.modules if name.split('.')[0] in ('tensorboard', 'matplotlib', 'rich', 'pandas')])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == []


def hparams(log_dir: Path) -> tuple[dict[str, object], int | None]:
    """Return what the HPARAMS page reads of a run: its fields, and the status, None while it has not finished."""
    accumulator = PluginAccumulator(str(log_dir))
    accumulator.Reload()
    content = {tag: accumulator.SummaryMetadata(tag).plugin_data.content for tag in accumulator.Tags()["tensors"]}
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    fields = {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in start.hparams.items()}
    if metadata.SESSION_END_INFO_TAG not in content:
        return fields, None
    return fields, metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG]).status


def test_hparams_stand_beside_the_curves_in_one_file(tmp_path: Path) -> None:
    config = {"optim": {"lr": 1e-3, "betas": [0.9, 0.99]}, "amp": True, "name": "cnn", "seed": None, "extra": {}}
    with TensorBoardManager(tmp_path, ["Eval/Main"]) as tm:
        tm.log_hparams(config)
        tm.log(5, **{"Eval/Main": 0.5})
        tm.log_hparams(config, {"best": torch.tensor(0.25)})
    assert len(event_files(tmp_path)) == 1
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert hparams(tmp_path) == (
        {"optim.lr": 1e-3, "optim.betas": "[0.9, 0.99]", "amp": True, "name": "cnn", "seed": "None", "extra": "{}"},
        api_pb2.STATUS_SUCCESS,
    )
    assert scalars(tmp_path, "best") == [(0, 0.25)]
    assert scalars(tmp_path, "Eval/Main") == [(5, 0.5)]


def test_a_run_that_broke_off_is_not_marked_as_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        break_off(tmp_path)
    assert hparams(tmp_path) == ({"lr": 0.1}, None)


def break_off(log_dir: Path) -> None:
    with TensorBoardManager(log_dir) as tm:
        tm.log_hparams({"lr": 0.1})
        raise KeyError


def test_metrics_must_be_numbers_and_not_tags() -> None:
    tm = TensorBoardManager(None, ["Eval/Main"])
    with pytest.raises(ConfigError, match="metric 'Eval/Main' is a tag that is logged already"):
        tm.log_hparams({}, {"Eval/Main": 1.0})
    with pytest.raises(ConfigError, match="metric 'best' is 'low' of type str"):
        tm.log_hparams({}, {"best": "low"})


@pytest.mark.parametrize("accumulator", [EventAccumulator, PluginAccumulator])
def test_what_an_interrupted_attempt_logged_later_vanishes(
    tmp_path: Path, accumulator: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt, (first, value) in enumerate([(None, 1.0), (10, 2.0), (12, 3.0)]):
        # Files are read in the order of their names, which begin with the second in which they were made.
        monkeypatch.setattr("time.time", lambda attempt=attempt: 1e9 + attempt)
        with TensorBoardManager(tmp_path, ["loss"], purge_step=first) as tm:
            for step in range(first or 0, 20 - attempt):
                tm.log(step, loss=value)
            tm.log_hparams({"lr": 0.1})
    read = accumulator(str(tmp_path))
    read.Reload()
    events = read.Scalars("loss") if accumulator is EventAccumulator else read.Tensors("loss")
    assert [event.step for event in events] == list(range(18))
    assert [value for _, value in scalars(tmp_path, "loss")] == [1.0] * 10 + [2.0] * 2 + [3.0] * 6
    assert hparams(tmp_path)[0] == {"lr": 0.1}


def test_a_second_manager_without_purge_step_adds_to_what_is_there(tmp_path: Path) -> None:
    for step in range(2):
        with TensorBoardManager(tmp_path, ["loss"]) as tm:
            tm.log(step, loss=step)
    assert sorted(scalars(tmp_path, "loss")) == [(0, 0.0), (1, 1.0)]


def test_flush_puts_all_on_disk_and_close_may_be_called_again(tmp_path: Path) -> None:
    tm = TensorBoardManager(tmp_path, ["loss"])
    tm.log(0, loss=1)
    tm.flush()
    assert scalars(tmp_path, "loss") == [(0, 1.0)]
    tm.log(1, loss=1)
    tm.close()
    tm.close()
    tm.flush()
    assert len(scalars(tmp_path, "loss")) == 2
    assert tm.writer is None
    with pytest.raises(ConfigError, match="is closed; log before close"):
        tm.log(2, loss=1)


def test_what_nobody_closed_is_written_all_the_same_and_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    tm = TensorBoardManager(tmp_path, ["loss"], flush_s=3600)
    for step in range(100):
        tm.log(step, loss=step)
    del tm
    gc.collect()
    assert threading.active_count() == before
    assert len(scalars(tmp_path, "loss")) == 100


def test_a_directory_that_cannot_be_written_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ConfigError, match=r"cannot log to .*file/logs.*; give another log_dir, or None"):
        TensorBoardManager(tmp_path / "file" / "logs", ["loss"])


@pytest.fixture
def failing_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | None]]:
    """Wait for the threads that a test has started, and gather by what they ended, instead of letting it be shown."""
    before = set(threading.enumerate())
    errors: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_value))
    yield errors
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    assert [isinstance(error, OSError) and error.errno for error in errors] == [errno.ENOSPC]


def test_a_full_disk_drops_events_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing_threads: list
) -> None:
    now = 0.0
    tm = TensorBoardManager(tmp_path, ["loss"], retry_s=60, clock=lambda: now)
    tm.log(0, loss=0)
    tm.flush()
    write = gfile.LocalFileSystem._write

    def full(self: object, name: bytes, content: bytes, mode: str = "w") -> None:
        write(self, name, content[: len(content) // 2], mode)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gfile.LocalFileSystem, "_write", full)
        patch.setattr("jimmy_manager.training.tensorboard_manager._probe", lambda _: full(None, b"", b""))
        for step in range(1, 5):
            tm.log(step, loss=step)
            tm.flush()
        assert tm.writer is None
        patch.setattr("jimmy_manager.training.tensorboard_manager._probe", fail)
        now = 61.0
        tm.log(5, loss=5)
    tm.log(6, loss=6)
    now = 122.0
    tm.log(7, loss=7)
    tm.close()
    assert sorted(scalars(tmp_path, "loss")) == [(0, 0.0), (7, 7.0)]
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [text.partition(str(tmp_path))[2] for text in warnings if "logging to" in text] == [
        " failed, and training goes on without it: [Errno 28] No space left on device",
        " goes on; 5 events were dropped",
    ]


def fail(log_dir: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_the_end_does_not_fail_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing_threads: list
) -> None:
    tm = TensorBoardManager(tmp_path, ["loss"])
    tm.log_hparams({"lr": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gfile.LocalFileSystem, "_write", full)
    tm.log(0, loss=1)
    tm.close()
    tm.close()
    assert "No space left on device" in caplog.text
