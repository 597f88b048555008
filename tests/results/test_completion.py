"""The tab key of IPython finds keys of runs and fields of configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from IPython.core.completer import IPCompleter, provisionalcompleter

from jimmy_manager import Config, Manager, Store
from tests.archives.runs import train

Complete = Callable[[str], set[str]]


class Job(Manager):
    num_epochs = 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two trained runs, one that was popped, and one that waits."""
    store = Store(tmp_path / "store", durable=False)
    keys = [train(store, {"seed": seed}) for seed in range(3)]
    store.pop(keys[2])
    store.register({"seed": 3})
    return store


def completer(**names: object) -> Complete:
    magics = [f"IPCompleter.magic_{each}matcher" for each in ("", "config_", "color_")]
    real = IPCompleter(namespace=names, disable_matchers=magics)  # those need a whole shell

    def complete(text: str) -> set[str]:
        with provisionalcompleter():
            return {found.text for found in real.completions(text, len(text))}

    return complete


@pytest.mark.parametrize("name", ["configs", "stats", "previews", "ckpts", "runs"])
@pytest.mark.parametrize("whose", ["store", "manager"])
def test_keys_of_the_mappings_are_completed(store: Store, name: str, whose: str) -> None:
    complete = completer(store=store, manager=Job(store.directory, verbose=False, read_only=True))
    assert {"configs", "stats", "previews", "ckpts", "runs"} <= complete(f"{whose}.")
    trained, every = set(store.committed_keys()), set(store.keys())
    assert len(trained) == 2
    assert len(every) == 3
    assert complete(f'{whose}.{name}["') & every == (every if name in ("configs", "runs") else trained)
    first = min(trained)
    assert first in complete(f'{whose}.{name}["{first[:3]}')
    popped = set(store.registry) - every
    assert not complete(f'{whose}.{name}["') & popped


def test_dotted_fields_and_attributes_of_a_configuration_are_completed() -> None:
    complete = completer(config=Config({"optim": {"lr": 0.1, "adam": {"eps": 1}}, "not a name": 1}))
    assert complete('config["') >= {"optim", "optim.lr", "optim.adam", "optim.adam.eps", "not a name"}
    assert complete('config["optim.a') >= {"optim.adam", "optim.adam.eps"}
    assert complete("config.op") == {"optim"}
    assert {"lr", "adam"} <= complete("config.optim.")
    assert complete("config.optim.adam.e") == {"eps"}
    assert "not a name" not in complete("config.")


def test_without_the_method_nothing_is_completed() -> None:
    class Twin(dict[str, int]):
        """Of a dict only the keys themselves are known."""

    assert "optim.lr" not in completer(config=Twin(optim=1))('config["optim.')


def test_runs_are_a_mapping_that_reads_nothing_before_it_is_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "run", lambda key: f"run {key}")
    keys = list(store.keys())
    assert list(store.runs) == keys
    assert len(store.runs) == 3
    assert store.runs[keys[0]] == f"run {keys[0]}"
    assert keys[0][:4] in store.runs
    assert "zz" not in store.runs
    assert 1 not in store.runs
    assert repr(store.runs) == f"<3 runs in {store}>"
    assert store.runs._repr_html_() == store._repr_html_()
    popped = next(key for key in store.registry if key not in keys)
    assert popped not in store.runs


def test_the_mappings_of_a_manager_are_those_of_its_store_and_cannot_be_replaced(tmp_path: Path) -> None:
    manager = Job(tmp_path / "store", verbose=False)
    assert manager.configs is manager.store.configs
    with pytest.raises(AttributeError, match="cannot be set"):
        manager.configs = {}


def test_a_job_may_have_an_attribute_of_that_name(tmp_path: Path) -> None:
    manager = Job(tmp_path / "store", verbose=False)
    manager.runs = 3  # type: ignore[assignment]
    manager.gallery = []  # type: ignore[method-assign,assignment]
    assert manager.runs == 3  # type: ignore[comparison-overlap]
