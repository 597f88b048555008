"""``NAME=VALUE`` on the command line: which names are taken for misspelt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from jimmy_manager import Config, Manager
from jimmy_manager.cli import fields

DEFAULTS = {
    "learning_rate": 0.1,
    "model": {"_target_": "torch.nn.Linear", "in_features": 1},
    "extra": {},
    "note": None,
    "optim": {"name": "sgd"},
}


class Job(Manager):
    choices = ({"width": [8, 16]}, {"optim": [{"name": "sgd", "momentum": [0, 0.9]}, {"name": "adam"}]})

    def get_config(self, config: Mapping[str, Any]) -> Config:
        return super().get_config(config).fill({"filled.here": 1})


class OnlyChoices(Manager):
    choices = ({"width": [8, 16]},)


def refused(manager: Manager, *arguments: str, sweep: bool = False, choices: str | None = None) -> str:
    """Why the arguments are refused; nothing where they are not."""
    try:
        fields.check(fields.read(arguments), manager, choices, is_sweep=sweep)
    except click.UsageError as error:
        return error.message
    return ""


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("learnign_rate=3", "unknown field 'learnign_rate'; did you mean 'learning_rate'?"),
        ("optm.name=adam", "unknown field 'optm'; did you mean"),
        ("optim.nmae=adam", "unknown field 'optim.nmae'; did you mean 'optim.name'?"),
        ("model.in_feature=2", "unknown field 'model.in_feature'; did you mean 'model.in_features'?"),
        ("widht=8", "unknown field 'widht'; did you mean 'width'?"),
        ("batch=8", "unknown field 'batch'; there is 'learning_rate', "),
    ],
)
def test_a_field_that_the_job_does_not_know_is_refused(sweep: bool, argument: str, advice: str) -> None:
    found = refused(Job(None, DEFAULTS), "learning_rate=0.2", argument, sweep=sweep)
    assert found.startswith(advice)
    assert found.endswith(" (write +NAME=VALUE for a new field)")
    assert refused(Job(None, DEFAULTS), "learning_rate=0.2", f"+{argument}", sweep=sweep) == ""


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize(
    "argument",
    [
        "learning_rate=1", "optim.name=adam", "optim={name: adam}", "model.in_features=2", "width=8",
        "optim.momentum=0.5", "extra.what.ever=1", "note.of=mine", "filled.here=2",
    ],
)  # fmt: skip
def test_a_field_of_the_defaults_the_choices_or_get_config_is_known(sweep: bool, argument: str) -> None:
    assert refused(Job(None, DEFAULTS), argument, sweep=sweep) == ""


def test_another_target_has_other_fields() -> None:
    assert refused(Job(None, DEFAULTS), "model._target_=torch.nn.Conv1d", "model.kernel_size=3") == ""


def test_a_job_without_defaults_knows_no_field_of_a_single_run_and_those_of_its_grid_in_a_sweep() -> None:
    assert refused(OnlyChoices(None), "depth=3") == ""
    assert "unknown field 'layers'; there is 'width' (" in refused(OnlyChoices(None), "layers=3", sweep=True)
    assert refused(Manager(None), "depth=3", sweep=True) == ""


def test_the_fields_of_a_file_of_choices_are_known_beside_those_of_the_job(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("- {depth: [1, 2]}\n- {layers.size: 3}\n")
    for known in ("depth=3", "layers.size=4", "width=8"):
        assert refused(OnlyChoices(None), known, sweep=True, choices=str(path)) == ""
    assert "did you mean 'depth'" in refused(OnlyChoices(None), "detph=3", sweep=True, choices=str(path))


def test_a_job_that_is_not_strict_takes_every_field() -> None:
    class Free(Job):
        strict = False

    assert refused(Free(None, DEFAULTS), "learnign_rate=3") == ""


def test_a_get_config_that_needs_what_the_command_line_gives_speaks_for_itself() -> None:
    class Needing(Job):
        def get_config(self, config: Mapping[str, Any]) -> Config:
            whole = Config(config)
            whole.total = whole.batch * 2
            return whole.fill(self.defaults)

    assert refused(Needing(None, DEFAULTS), "batch=3") == ""


def test_later_arguments_win_and_a_new_one_need_not_be_marked_twice() -> None:
    read = fields.read(["+warmup=1", "warmup=2", "++a.b=[1, 2]"])
    assert (read.values, read.new) == (Config({"warmup": 2, "a": {"b": [1, 2]}}), ("warmup", "a.b"))
    assert refused(Job(None, DEFAULTS), "+warmup=1", "warmup=2") == ""


@pytest.mark.parametrize("argument", ["lr", "=1", "--lr=1", "+", "+=1", "lr=[1", "a..b=1"])
def test_what_is_not_name_and_value_is_a_wrong_command_line(argument: str) -> None:
    with pytest.raises(click.UsageError, match="argument "):
        fields.read([argument])
