"""The editable rate: edits win, survive every scheduler and a resume; what cannot be used is reported and ignored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from jimmy_manager import yaml12
from jimmy_manager.errors import CheckpointError
from jimmy_manager.training.runtime_params import RuntimeParams, set_rate
from jimmy_manager.training.scheduler_adapter import adapt_scheduler


def two_groups(rate: Any = 0.1) -> Optimizer:
    first, second = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    return SGD([{"params": [first]}, {"params": [second], "lr": rate / 10}], lr=rate, momentum=0.9)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "runtime_param_buffer.yaml"


def test_the_first_read_makes_a_file_of_one_key(path: Path) -> None:
    assert RuntimeParams(path).read(two_groups()) is None
    assert yaml12.load(path) == {"LR": 0.1}
    assert path.read_text().startswith("LR: 0.1\n")
    assert os.listdir(path.parent) == [path.name]


def test_an_edit_takes_effect_at_the_next_read_in_every_group_and_only_once(path: Path) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    path.write_text("LR: 4e-2\n")
    assert params.read(optimizer) == 0.04
    assert rates(optimizer) == [0.04, pytest.approx(0.004)]
    assert params.read(optimizer) is None
    params.write(optimizer)
    assert path.read_text() == "LR: 4e-2\n"


def test_the_file_follows_the_scheduler(path: Path) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    for rate in (0.05, 1 / 3, 1e-7):
        optimizer.param_groups[0]["lr"] = rate
        params.write(optimizer)
        assert yaml12.load(path) == {"LR": rate}
        assert params.read(optimizer) is None
        assert rates(optimizer)[0] == rate


def test_an_edit_wins_although_the_scheduler_moved_the_rate_in_that_epoch(path: Path) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    path.write_text(path.read_text().replace("0.1\n", "0.3\n", 1))
    optimizer.param_groups[0]["lr"] = 0.09
    params.write(optimizer)
    assert params.read(optimizer) == 0.3
    assert rates(optimizer)[0] == 0.3


def test_an_edit_back_to_the_first_rate_counts(path: Path) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    first = path.read_text()
    for text, rate in ((first.replace("LR: 0.1\n", "LR: 0.3\n"), 0.3), (first, 0.1)):
        path.write_text(text)
        assert params.read(optimizer) == rate
        params.write(optimizer)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("LR: [0.1", "runtime_param_buffer.yaml:"),
        ("LR: 0.1\nLR: 0.2\n", "duplicate field 'LR'"),
        ("lr: 0.2\n", "the fields ['lr'], not the one field 'LR'"),
        ("LR: 0.2\nmomentum: 1\n", "the fields ['LR', 'momentum']"),
        ("", "holds None"),
        ("0.2\n", "holds 0.2"),
        ("LR: -0.2\n", "LR is -0.2"),
        ("LR: 0\n", "LR is 0"),
        ("LR: .nan\n", "LR is nan"),
        ("LR: .inf\n", "LR is inf"),
        (f"LR: 1{'0' * 400}\n", "LR is 1000"),
        ("LR: '0.2'\n", "LR is '0.2'"),
        ("LR: fast\n", "LR is 'fast'"),
        ("LR: true\n", "LR is True"),
        ("LR: [0.1, 0.2]\n", "LR is [0.1, 0.2]"),
        ("LR:\n", "LR is None"),
        (b"LR: \xff\n", "is not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_reported_once_ignored_and_left_to_its_author(
    path: Path, caplog: pytest.LogCaptureFixture, text: str | bytes, complaint: str
) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    for rate in (0.09, 0.08):
        optimizer.param_groups[0]["lr"] = rate
        params.write(optimizer)
        assert params.read(optimizer) is None
        assert rates(optimizer)[0] == rate
    assert len(caplog.messages) == 1
    assert complaint in caplog.messages[0]
    assert str(path) in caplog.messages[0]
    assert path.read_bytes() == content
    path.write_text("LR: 0.5\n")
    assert params.read(optimizer) == 0.5


def test_a_file_that_vanished_is_reported_and_written_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    path.unlink()
    assert params.read(optimizer) is None
    assert [str(path) in each and "vanished" in each for each in caplog.messages] == [True]
    assert yaml12.load(path) == {"LR": 0.1}
    path.unlink()
    params.write(optimizer)
    assert yaml12.load(path) == {"LR": 0.1}


def test_a_file_that_can_be_neither_read_nor_written_does_not_end_training(
    path: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    params, optimizer = RuntimeParams(path), two_groups()
    for _ in range(3):
        assert params.read(optimizer) is None
        params.write(optimizer)
    assert [f"cannot write {path}" in each for each in caplog.messages] == [True]
    directory = tmp_path / "directory.yaml"
    params = RuntimeParams(directory)
    params.read(optimizer)
    directory.unlink()
    directory.mkdir()
    params.read(optimizer)
    params.read(optimizer)
    params.write(optimizer)
    assert [f"cannot read {directory}" in each for each in caplog.messages] == [False, True]


def test_what_an_earlier_training_left_is_no_edit(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("LR: 7.0\n")
    params, optimizer = RuntimeParams(path), two_groups()
    assert params.read(optimizer) is None
    assert yaml12.load(path) == {"LR": 0.1}


def resumed(path: Path, state: dict[str, Any]) -> RuntimeParams:
    params = RuntimeParams(path)
    params.load_state_dict(state)
    return params


def test_after_a_kill_only_what_the_user_wrote_is_an_edit(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params, optimizer = RuntimeParams(path), two_groups()
    params.read(optimizer)
    state = params.state_dict()
    # The scheduler moved the rate after the checkpoint, the run was killed, and goes on from the checkpoint.
    optimizer.param_groups[0]["lr"] = 0.05
    params.write(optimizer)
    again = two_groups()
    params = resumed(path, state)
    assert params.read(again) is None
    params.write(again)
    assert yaml12.load(path) == {"LR": 0.1}
    # Now the user edits while nothing runs, and leaves the comment as it is.
    path.write_text(path.read_text().replace("LR: 0.1\n", "LR: 0.2\n", 1))
    assert resumed(path, state).read(again) == 0.2
    path.unlink()
    assert resumed(path, state).read(again) is None
    assert path.exists()
    assert caplog.messages == []


def test_a_state_that_lacks_its_entry_is_refused_by_name(path: Path) -> None:
    with pytest.raises(CheckpointError, match="'seen'"):
        RuntimeParams(path).load_state_dict({})


FOLLOWERS: dict[str, Callable[[Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 6),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 20),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 6),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, [0.01, 0.001], [0.1, 0.01], 3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.01], 20),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 9), lr_scheduler.StepLR(o, 2)], [6]
    ),
    "SWALR": lambda o: SWALR(o, [0.05, 0.005], 8),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2, eps=0.0),
    "None": lambda o: None,
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_after_an_edit_the_rest_of_every_schedule_is_multiplied_by_one_factor(name: str) -> None:
    left, edited = two_groups(), two_groups()
    schedulers = [adapt_scheduler(FOLLOWERS[name](each), each) for each in (left, edited)]
    for step in range(16):
        for optimizer, scheduler in zip((left, edited), schedulers, strict=True):
            optimizer.step()
            scheduler.update(1.0)
        if step == 4:
            set_rate(edited, rates(left)[0] * 2.5, schedulers[1])
        factor = 2.5 if step >= 4 else 1.0
        assert rates(edited) == pytest.approx([rate * factor for rate in rates(left)], rel=1e-12), step


def test_the_edited_schedule_goes_on_from_a_checkpoint() -> None:
    optimizer, again = two_groups(), two_groups()
    scheduler, resumed = (adapt_scheduler(FOLLOWERS["OneCycleLR"](each)) for each in (optimizer, again))
    optimizer.step()
    set_rate(optimizer, 0.7, scheduler)
    resumed.load_state_dict(scheduler.state_dict())
    again.load_state_dict(optimizer.state_dict())
    again.step()
    for each in (scheduler, resumed):
        each.update(1.0)
    assert rates(again) == rates(optimizer)


def test_from_a_rate_of_zero_the_groups_take_their_initial_proportions() -> None:
    optimizer = two_groups()
    scheduler = adapt_scheduler(lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 10))
    assert rates(optimizer) == [0.0, 0.0]
    set_rate(optimizer, 0.5, scheduler)
    assert rates(optimizer) == pytest.approx([0.5, 0.05])
    optimizer.step()
    scheduler.update(1.0)
    assert rates(optimizer) == pytest.approx([0.01, 0.001])


def test_a_rate_that_is_a_tensor_stays_the_same_tensor(path: Path) -> None:
    rate = torch.tensor(0.125)
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=rate)
    params = RuntimeParams(path)
    params.read(optimizer)
    path.write_text("LR: 0.5\n")
    assert params.read(optimizer) == 0.5
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5
