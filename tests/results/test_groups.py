"""``group``: what the repetitions of one configuration have in common."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd  # noqa: TC002
import pytest
from scipy import stats

from jimmy_manager import Store
from jimmy_manager.archives.columns import Columns, Indexed
from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.results import groups
from jimmy_manager.results.groups import STATS, statistics_of
from jimmy_manager.results.runs import Runs
from jimmy_manager.results.student import t_of_95
from tests.archives.runs import attempt_at, commit

NAN = float("nan")
EMPTY = Indexed("00000000", "done", 1, 0, 1.0, 0.5, 0.25, True, {}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store", durable=False)
    for lr in (0.1, 0.2):
        for seed in range(3):
            attempt = attempt_at(store, {"optim": {"lr": lr}, "arch": "cnn", "seed": seed})
            commit(attempt, 1, loss=lr * (seed + 1) if seed or lr > 0.1 else NAN, acc=0.5, note="text")
            attempt.finish()
    return store


def grouped(fields: list[str], metrics: list[str], *runs: tuple[Mapping[str, Any], Mapping[str, Any]]) -> pd.DataFrame:
    rows = [EMPTY._replace(key=f"{n:08x}", config=dict(c), preview=dict(p)) for n, (c, p) in enumerate(runs)]
    return statistics_of(Runs(Columns.of(rows)), fields, metrics)


def test_runs_that_differ_by_their_seed_alone_are_one_group(store: Store) -> None:
    found = store.group()
    assert found.index.tolist() == [0.1, 0.2]
    assert found.index.name == "optim.lr"
    assert found.columns.names == ["metric", "stat"]
    assert found.columns.tolist() == [(metric, stat) for metric in ("preview.epoch", "loss", "acc") for stat in STATS]


def test_each_statistic_is_that_of_the_textbook_and_nan_does_not_count(store: Store) -> None:
    losses = {0.1: [0.2, 0.3], 0.2: [0.2, 0.4, 0.6]}
    losses = {lr: [lr * (seed + 1) for seed in range(3) if seed or lr > 0.1] for lr in losses}
    found = store.group(metrics="loss")["loss"]
    for lr, values in losses.items():
        row = found.loc[lr]
        assert row["n"] == len(values)
        assert row["mean"] == pytest.approx(statistics.fmean(values))
        assert row["std"] == pytest.approx(statistics.stdev(values))
        assert (row["min"], row["max"]) == (min(values), max(values))
        low, high = stats.t.interval(0.95, len(values) - 1, loc=row["mean"], scale=stats.sem(values))
        assert row["mean"] - row["ci95"] == pytest.approx(low)
        assert row["mean"] + row["ci95"] == pytest.approx(high)
    assert found["n"].dtype == "int64"


def test_a_wrong_deviation_would_be_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: the interval of a normal distribution, too narrow for three seeds."""
    monkeypatch.setattr(groups, "t_of_95", lambda freedom: 1.96)
    with pytest.raises(AssertionError):
        test_each_statistic_is_that_of_the_textbook_and_nan_does_not_count(store)


@pytest.mark.parametrize("freedom", [*range(1, 40), 199, 200, 201, 202, 1000, 10**6])
def test_the_quantile_of_students_t_is_scipys(freedom: int) -> None:
    assert t_of_95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-10)


def test_a_single_run_has_no_deviation_and_no_interval(store: Store) -> None:
    row = store.group(["optim.lr", "seed"], metrics=["loss"])["loss"].loc[(0.2, 0)]
    assert (row["n"], row["mean"], row["min"], row["max"]) == (1, 0.2, 0.2, 0.2)
    assert math.isnan(row["std"])
    assert math.isnan(row["ci95"])
    nothing = store.group(["optim.lr", "seed"], metrics=["loss"])["loss"].loc[(0.1, 0)]
    assert nothing["n"] == 0
    assert nothing.drop("n").isna().all()


def test_groups_are_by_what_was_asked_for(store: Store) -> None:
    assert store.group("seed", metrics=["acc"])["acc", "n"].tolist() == [2, 2, 2]
    assert store.group(["seed", "arch"]).index.names == ["seed", "arch"]
    assert store.group([]).index.tolist() == ["all"]
    assert store.group(over=["seed", "optim.lr"])["acc", "n"].tolist() == [6]
    assert store.group(over="optim.lr").index.name == "seed"
    assert store.group(where="seed > 0", metrics=["acc"])["acc", "n"].tolist() == [2, 2]
    assert store.group("state", metrics=["train_s", "epoch"]).index.tolist() == ["done"]


def test_only_numbers_are_metrics_and_truth_values_where_asked_for() -> None:
    shown = {"ok": True, "note": "x", "loss": 1, "mixed": "x"}
    runs = [({"a": 1}, shown), ({"a": 1}, shown | {"ok": False, "mixed": 3})]
    rows = [EMPTY._replace(config=dict(c), preview=p) for c, p in runs]
    assert Runs(Columns.of(rows)).numeric() == ("loss", "mixed")
    found = grouped(["a"], ["ok", "mixed"], *runs)
    assert found["ok", "mean"].tolist() == [0.5]
    assert found["mixed"].loc[1, ["n", "mean"]].tolist() == [1, 3]
    with pytest.raises(ConfigError, match="'note' is a number in no run; numbers are loss, mixed"):
        grouped(["a"], ["note"], *runs)


def test_values_that_pandas_takes_for_one_are_kept_apart() -> None:
    values: list[Any] = [1, True, 1.0, "1", None, [1, 2], [True, 2], [1.0, 2]]
    found = grouped(["a"], ["x"], *(({"a": value}, {"x": 1}) for value in values), ({}, {"x": 1}))
    assert dict(zip(map(str, found.index), found["x", "n"], strict=True)).keys() >= {"1", "true", "[1, 2]", "[true, 2]"}
    assert sorted(found["x", "n"]) == [1, 1, 1, 1, 1, 2, 2]
    both = grouped(["a", "b"], ["x"], *(({"a": value, "b": [0]}, {"x": 1}) for value in values))
    assert sorted(both["x", "n"]) == [1, 1, 1, 1, 2, 2]
    assert len(set(map(str, both.index))) == len(both)


def test_many_fields_of_many_values_do_not_overflow() -> None:
    rows = [({f"f{j}": i * (j + 1) for j in range(12)}, {"x": i}) for i in range(300)]
    assert grouped([f"f{j}" for j in range(12)], ["x"], *rows, *rows)["x", "n"].tolist() == [2] * 300


def test_infinity_is_counted_and_warns_of_nothing() -> None:
    found = grouped([], ["x"], ({}, {"x": math.inf}), ({}, {"x": 1.0}))["x"]
    assert found["n"].tolist() == [2]
    assert found["max"].tolist() == [math.inf]
    assert math.isnan(found["ci95"].iloc[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: store.group("optim.lrr"), "did you mean 'optim.lr'"),
        (lambda store: store.group(over="sede"), "did you mean 'seed'"),
        (lambda store: store.group(metrics=["los"]), "did you mean 'loss'"),
        (lambda store: store.group(where="los < 1"), "did you mean 'loss'"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(store: Store, call: Callable[[Store], object], message: str) -> None:
    with pytest.raises(UnknownField, match=message):
        call(store)


def test_nothing_to_group_is_an_empty_table(store: Store) -> None:
    for found in (Store(None).group(), store.group(where="seed > 9"), Store(None).group(["a", "b"], metrics=["x"])):
        assert len(found) == 0
        assert found.columns.names == ["metric", "stat"]
    assert store.group("seed", where="seed > 9", metrics=["loss"]).columns.tolist() == [("loss", s) for s in STATS]
