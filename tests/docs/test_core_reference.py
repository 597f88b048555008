"""The pages about datasets, models, diffusion and training: they do what they say, and say it of every public name.

What stands as ``name(arguments)`` in the first cell of a table's row is a signature, and compared with the code. One
that ends with ``...`` leaves out keyword arguments.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.run import parse_args
from torch.utils.data import default_collate

import jimmy_manager.datasets
import jimmy_manager.diffusion
import jimmy_manager.models
import jimmy_manager.training
from jimmy_manager.models import JimmyModel
from jimmy_manager.models.conv_blocks import ConvBlock
from jimmy_manager.training import JimmyTrainer
from tests.docs import test_reference
from tests.docs.test_reference import BLOCK, FILE, ROOT, execute, folder  # noqa: F401  a fixture

PACKAGES = (jimmy_manager.datasets, jimmy_manager.models, jimmy_manager.diffusion, jimmy_manager.training)
NAMES = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
PAGES = {
    name: (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8")
    for name in ("datasets", "models", "diffusion", "training")
}
FIRST_CELL = re.compile(r"^\| (.*?) \|", re.MULTILINE)
CALL = re.compile(r"`([\w.]+)\(([^`]*)\)`")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MPLBACKEND", "agg")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says_from_top_to_bottom(name: str, folder: Path) -> None:  # noqa: F811
    execute(re.sub(r"^```sh\n.*?^```$", "", PAGES[name], flags=re.MULTILINE | re.DOTALL), folder)


@pytest.mark.parametrize("name", PAGES)
def test_every_shell_line_starts_a_program_of_its_page(name: str) -> None:
    # Training in several processes is tested in tests/training; here only that the line is one.
    blocks = BLOCK.findall(PAGES[name])
    programs = [found[1] for _, block in blocks if (found := FILE.match(block))]
    for words in (shlex.split(block, comments=True) for language, block in blocks if language == "sh"):
        assert words[0] == "torchrun"
        assert parse_args(words[1:]).training_script in programs


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    test_reference.test_every_link_of_a_page_leads_to_a_page_and_a_heading(f"reference/{name}.md")


# Every name


def unmentioned(text: str) -> set[str]:
    """The public names that stand nowhere as code, be it in a line or in a block."""
    blocks = "\n".join(block for _, block in BLOCK.findall(text))
    code = set(re.findall(r"\w+", blocks + " ".join(re.findall(r"`([^`]+)`", BLOCK.sub("", text)))))
    return set(NAMES) - code


def test_every_public_name_is_on_a_page() -> None:
    assert unmentioned("\n".join(PAGES.values())) == set()


@pytest.mark.parametrize("name", ["Traj", "GnSiLUConv2D", "beta_schedule", "RunRecord"])
def test_a_name_that_is_only_part_of_another_one_or_no_code_is_missed(name: str) -> None:
    text = re.sub(rf"\b{name}\b", "other", "\n".join(PAGES.values()))
    assert unmentioned(text) == {name}
    assert unmentioned(f"{text}\n{name} in prose") == {name}


# Every signature


def target(dotted: str) -> Any:
    """What is called by a name of these packages or of Python; the first argument of a method is not written."""
    first, *more = dotted.split(".")
    found = NAMES[first] if first in NAMES else getattr(builtins, first)
    for name in more:
        found = getattr(found, name)
    return found


def parameters(found: Any, is_method: bool) -> list[inspect.Parameter]:
    if isinstance(found, type):
        found, is_method = found.__init__, True
    every = list(inspect.signature(found).parameters.values())
    return every[1:] if is_method and not inspect.ismethod(found) else every


def described(name: str, arguments: str) -> str | None:
    """What is wrong with a signature, or None."""
    is_open = arguments.endswith(", ...")
    written: dict[str, Any] = {}
    head = f"def written({arguments.removesuffix('...')}): pass"
    exec(head, NAMES | {"default_collate": default_collate}, written)
    try:
        real = parameters(target(name), "." in name)
    except (KeyError, AttributeError):
        return f"{name} does not exist"
    wanted = list(inspect.signature(written["written"]).parameters.values())
    told = {each.name for each in wanted}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    real = [each for each in real if each.name in told or not (each.kind in variadic or is_open)]
    same = [(each.name, each.kind, each.default) for each in real] == [(e.name, e.kind, e.default) for e in wanted]
    return None if same else f"{name}({', '.join(map(str, real))}) is written as {name}({arguments})"


def signatures(text: str) -> list[tuple[str, str]]:
    calls = [call for cell in FIRST_CELL.findall(text) for call in CALL.findall(cell)]
    return [(name, arguments) for name, arguments in calls if not hasattr(builtins, name)]


@pytest.mark.parametrize("name", PAGES)
def test_every_signature_is_that_of_the_code(name: str) -> None:
    assert [wrong for each in signatures(PAGES[name]) if (wrong := described(*each))] == []


def test_everything_that_can_be_called_has_a_signature() -> None:
    told = [target(name) for text in PAGES.values() for name, _ in signatures(text)] + [JimmyModel, JimmyTrainer]
    for name, found in NAMES.items():
        is_block = isinstance(found, type) and issubclass(found, ConvBlock)
        if callable(found) and getattr(found, "__module__", "").startswith("jimmy_manager.") and not is_block:
            assert any(found is each for each in told), name


@pytest.mark.parametrize(
    "wrong",
    [
        "MHSA(d_in, heads, dropout=0.0, *, rotary=None)",
        "MHSA(d_in, num_heads, dropout=0.1, *, rotary=None)",
        "MHSA(d_in, num_heads, dropout=0.0, rotary=None)",
        "MHSA(d_in, num_heads, dropout=0.0)",
        "MHSA(self, d_in, num_heads, dropout=0.0, *, rotary=None)",
        "MHAS(d_in)",
        "ProgressManager(items_per_epoch, epochs, show_recently, ...)",
        "MovingAvg.updated(value)",
    ],
)
def test_a_signature_that_is_not_that_of_the_code_is_caught(wrong: str) -> None:
    (found,) = signatures(f"| `{wrong}` | does something |\n| and so on | `RMSE(1)` |")
    assert described(*found)


# The arguments of model and trainer, which have tables of their own


def arguments_of(text: str) -> dict[str, str]:
    """The arguments that the table tells of, with what stands there as default."""
    table = text.partition("| argument | default | meaning |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [row.split(" | ") for row in table.strip("| ").splitlines()]
    return {name: row[1].strip("`") for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def is_right(told: dict[str, str], function: Callable[..., Any]) -> bool:
    real = list(inspect.signature(function).parameters.values())
    defaults = {each.name: "required" if each.default is each.empty else each.default for each in real}
    return {name: value if value == "required" else ast.literal_eval(value) for name, value in told.items()} == defaults


@pytest.mark.parametrize(("page", "function"), [("models", JimmyModel), ("training", JimmyTrainer)])
def test_a_table_of_arguments_has_each_of_them_and_its_default(page: str, function: Callable[..., Any]) -> None:
    assert is_right(arguments_of(PAGES[page]), function)


@pytest.mark.parametrize(("right", "wrong"), [("| `save_steps` | `0` |", "| `save_steps` | `1` |"), ("`stop` |", "|")])
def test_a_wrong_default_and_a_missing_argument_are_caught(right: str, wrong: str) -> None:
    assert right in PAGES["training"]
    assert not is_right(arguments_of(PAGES["training"].replace(right, wrong)), JimmyTrainer)
