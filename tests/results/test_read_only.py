"""Whatever is asked of a store that was opened read-only, nothing in it changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from jimmy_manager import Manager, Store
from jimmy_manager.archives.looking import Looking
from jimmy_manager.errors import ReadOnlyStore
from tests.archives.runs import listing


class Job(Manager):
    num_epochs = 2
    state = ("model",)

    def setup(self, config: Any) -> None:
        super().setup(config)
        self.model = torch.nn.Linear(1, 1)

    def train(self) -> None:
        if self.config.get("bad"):
            raise ValueError("bad")

    def eval(self) -> Mapping[str, Any]:
        figure = Figure(figsize=(1, 1))
        figure.subplots()
        self.preview["drawn"] = figure
        return {"loss": self.config.lr + self.epoch, "acc": 0.5}


Ask = Callable[[Looking, list[str]], object]

QUESTIONS: dict[str, Ask] = {
    "table": lambda store, keys: store.table("loss > 0", sort="-loss"),
    "group": lambda store, keys: store.group(over="seed"),
    "best": lambda store, keys: store.best("loss"),
    "compare": lambda store, keys: store.compare(keys),
    "diff": lambda store, keys: store.diff(*keys[:2]),
    "curves": lambda store, keys: store.curves(),
    "run": lambda store, keys: [*all_of(store.run(keys[0])), store.run(keys[0]).curves()],
    "runs": lambda store, keys: [all_of(store.runs[keys[0][:7]]), store.runs, list(store.runs), len(store.runs)],
    "gallery": lambda store, keys: store.gallery(),
    "plot": lambda store, keys: [
        store.plot, store.plot.curves("loss"), store.plot.metric("loss", by="lr"), store.plot.parallel("loss"),
        store.plot.pareto("loss", "acc"), store.plot.timeline(),
    ],
}  # fmt: skip
OF_A_MANAGER: dict[str, Callable[[Job, list[str]], object]] = {
    "fetch": lambda manager, keys: [manager.fetch(keys[0]), manager.run(keys[0]).model("cpu")],
    "best_work": lambda manager, keys: manager.best_work("loss"),
    "overview": lambda manager, keys: manager.overview(),
    "completed": lambda manager, keys: list(manager.completed_items()),
    "configs": lambda manager, keys: manager.configs.compare(keys),
    "mappings": lambda manager, keys: [
        (mapping, mapping._ipython_key_completions_(), [mapping[key] for key in keys])
        for mapping in (manager.configs, manager.stats, manager.previews, manager.ckpts)
    ],
}


def all_of(found: Any) -> list[object]:
    """``found`` and all of its public attributes."""
    return [found, *(getattr(found, name) for name in dir(found) if not name.startswith("_"))]


def shown(answer: object) -> None:
    """Look at an answer as a notebook does."""
    for each in answer if isinstance(answer, list) else [answer]:
        assert repr(each)
        for form in ("_repr_html_", "_repr_png_"):
            getattr(each, form, str)()


def content(root: Path) -> dict[str, object]:
    """Everything that can be known of the files below ``root``."""
    files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}
    return {**listing(root), **files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    place = tmp_path_factory.mktemp("trained") / "store"
    manager = Job(place, {"lr": 1.0, "seed": 0}, verbose=False, device="cpu", durable=False)
    report = manager.sweep({"lr": [0.1, 0.2], "seed": [0, 1]})
    manager.batch([{"bad": True}], max_errors=9)
    return place, sorted(report.done)


@pytest.fixture
def unchanged(trained: tuple[Path, list[str]]) -> Iterator[None]:
    before = content(trained[0])
    yield
    plt.close("all")
    assert content(trained[0]) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_changes_nothing(question: str, trained: tuple[Path, list[str]]) -> None:
    place, keys = trained
    for looking in (Store(place, read_only=True), Job(place, read_only=True, verbose=False)):
        shown(looking)
        shown(QUESTIONS[question](looking, keys))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("question", OF_A_MANAGER)
def test_what_a_manager_is_asked_changes_nothing(question: str, trained: tuple[Path, list[str]]) -> None:
    place, keys = trained
    shown(OF_A_MANAGER[question](Job(place, read_only=True, verbose=False, device="cpu"), keys))


def test_every_question_is_asked() -> None:
    assert {name for name in vars(Looking) if not name.startswith("_")} == set(QUESTIONS)


def test_writing_is_refused_and_a_change_of_one_file_is_noticed(trained: tuple[Path, list[str]]) -> None:
    place, keys = trained
    with pytest.raises(ReadOnlyStore):
        Store(place, read_only=True).pop(keys[0])
    before = content(place)
    (place / "new").touch()
    assert content(place) != before
    (place / "new").unlink()
