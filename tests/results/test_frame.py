"""``table`` and ``best``: the runs as a DataFrame, with the types that people of pandas expect."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jimmy_manager import Store
from jimmy_manager.archives import layout
from jimmy_manager.archives.columns import Columns, Indexed
from jimmy_manager.errors import ConfigError, KeyNotFound, UnknownField, WhereError
from jimmy_manager.results import frame
from jimmy_manager.results.frame import frame_of
from jimmy_manager.results.runs import Runs, read_runs
from tests.archives.runs import attempt_at, commit, listing

NAN = float("nan")
EMPTY = Indexed("00000000", "new", None, None, None, None, None, False, {}, {})
ALWAYS = ["state", "epoch", "saved_at", "train_s", "eval_s"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def finished(store: Store, config: Mapping[str, Any], **shown: Any) -> str:
    attempt = attempt_at(store, config)
    commit(attempt, 1, **shown)
    attempt.finish()
    return attempt.key


def framed(*configs: Mapping[str, Any], **results: list[Any]) -> pd.DataFrame:
    """The frame of runs with these configurations and results; their keys are 0, 1, 2, ..."""
    rows = []
    for number, config in enumerate(configs):
        shown = {name: values[number] for name, values in results.items()}
        rows.append(EMPTY._replace(key=str(number), config=dict(config), preview=shown))
    return frame_of(Runs(Columns.of(rows)))


def test_a_table_has_what_varies_all_results_and_times_by_key(store: Store) -> None:
    keys = [finished(store, {"optim": {"lr": lr}, "arch": "cnn"}, loss=lr, deep={"acc": 0.5}) for lr in (0.1, 0.2)]
    found = store.table()
    assert found.index.tolist() == sorted(keys)
    assert found.index.name == "key"
    assert found.columns.tolist() == [
        "state", "epoch", "optim.lr", "preview.epoch", "loss", "deep.acc", "saved_at", "train_s", "eval_s",
    ]  # fmt: skip
    row = found.loc[keys[0]]
    assert (row["state"], row["epoch"], row["optim.lr"], row["loss"]) == ("done", 1, 0.1, 0.1)
    stats = store.stats[keys[0]]
    assert row["saved_at"].timestamp() == pytest.approx(stats["at"], abs=1e-6)
    assert found["saved_at"].dtype == "datetime64[ns, UTC]"
    assert (row["train_s"], row["eval_s"]) == (stats["train_s"], stats["eval_s"])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "float64"),
        ([1, None], "float64"),
        ([2**63 - 1, 0], "int64"),
        ([2**63, 0], "object"),
        ([2**53 + 1, None], "object"),
        ([2**53 + 1, 0.5], "object"),
        ([0.5, NAN], "float64"),
        ([None, NAN], "float64"),
        ([True, False], "bool"),
        ([True, None], "object"),
        ([True, 1], "object"),
        (["a", 1], "object"),
        ([None, None], "object"),
    ],
)
def test_a_column_has_the_narrowest_type_that_keeps_every_value(values: list[Any], dtype: str) -> None:
    column = framed({}, {}, x=values)["x"]
    assert column.dtype == dtype
    for found, value in zip(column, values, strict=True):
        is_none = value is None or value != value
        assert pd.isna(found) if is_none else found == value
        assert is_none or isinstance(found, (bool, np.bool_)) == isinstance(value, bool)


def test_texts_are_the_texts_of_pandas() -> None:
    column = framed({"a": "x"}, {"a": None}, {"a": "y"})["a"]
    assert column.dtype == pd.Series(["x"]).dtype
    assert column.tolist()[::2] == ["x", "y"]
    assert column.isna().tolist() == [False, True, False]


def test_what_a_run_lacks_is_missing_like_none_and_lists_stay_lists() -> None:
    found = framed({"a": [1, 2]}, {"a": None}, {})
    assert found["a"].tolist() == [[1, 2], None, None]
    assert framed({"n": 1}, {})["n"].tolist()[0] == 1.0
    assert math.isnan(framed({"n": 1}, {})["n"].tolist()[1])


def test_integers_are_integers_again_once_those_without_are_filtered_out(store: Store) -> None:
    finished(store, {"n": 1})
    finished(store, {"n": 2})
    store.register({"m": 3})
    assert store.table()[["epoch", "n"]].dtypes.tolist() == ["float64", "float64"]
    assert store.table("state == 'done'")[["epoch", "n"]].dtypes.tolist() == ["int64", "int64"]


def test_an_empty_store_is_an_empty_table_with_the_columns_that_every_table_has(tmp_path: Path) -> None:
    for store in (Store(None), Store(tmp_path / "nothing")):
        found = store.table()
        assert found.columns.tolist() == ALWAYS
        assert (len(found), found.index.name) == (0, "key")
        assert found["saved_at"].dtype == "datetime64[ns, UTC]"
        assert found["epoch"].dtype == "float64"
        assert store.table("lr < 1", ["lr"], "-lr").columns.tolist() == ["lr"]
    assert not (tmp_path / "nothing").exists()


def test_a_run_that_is_only_registered_has_no_epoch_and_no_times(store: Store) -> None:
    key = store.register({"lr": 1}).key
    row = store.table().loc[key]
    assert row["state"] == "new"
    assert row[["epoch", "saved_at", "train_s", "eval_s"]].isna().all()


def test_columns_are_those_asked_for_in_their_order(store: Store) -> None:
    key = finished(store, {"lr": 1, "seed": 0}, loss=1.0)
    found = store.table(columns=["loss", "lr", "key", "loss", "saved_at"])
    assert found.columns.tolist() == ["loss", "lr", "saved_at"]
    assert found.index.tolist() == [key]
    assert store.table(columns="loss").columns.tolist() == ["loss"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda store: store.table("lrr < 1"), UnknownField, "unknown field 'lrr' in the filter; did you mean 'lr'"),
        (lambda store: store.table({"sede": 1}), UnknownField, "unknown field 'sede' in the filter; did you mean 'see"),
        (lambda store: store.table("lr <"), WhereError, "the filter ends"),
        (lambda store: store.table(columns=["los"]), UnknownField, "did you mean 'loss'"),
        (lambda store: store.table(sort="-los"), UnknownField, "did you mean 'loss'"),
        (lambda store: store.best("los"), UnknownField, "did you mean 'loss'"),
        (lambda store: store.best("loss", "lowest"), ConfigError, "'lowest' is neither 'min' nor 'max'"),
        (lambda store: store.best("loss", where="lr > 5"), KeyNotFound, "there are no such runs"),
        (lambda store: store.table(5), ConfigError, "5 is no filter: give a text, a mapping"),
        (lambda store: store.table(["lr"]), ConfigError, r"\['lr'\] is no filter"),
        (lambda store: store.table(sort=["lr"]), ConfigError, r"cannot sort by \['lr'\]: give one name"),
        (lambda store: store.table("note == text"), UnknownField, "unknown field 'text'.*put text in quotes: 't"),
        (lambda store: store.best("note"), KeyNotFound, "of 1 runs 1 have NaN or nothing there"),
    ],
)
def test_bad_input_gets_one_clear_error(
    store: Store, call: Callable[[Store], object], error: type[Exception], message: str
) -> None:
    finished(store, {"lr": 1, "seed": 0}, loss=1.0, note="text")
    with pytest.raises(error, match=message):
        call(store)


def test_a_table_is_sorted_with_nan_last_in_either_direction(store: Store) -> None:
    values = {finished(store, {"n": n}, loss=loss): loss for n, loss in enumerate([2.0, NAN, 1.0, 3])}
    values[store.register({"n": 9}).key] = None
    for sort, expected in (("loss", [1.0, 2.0, 3.0]), ("-loss", [3.0, 2.0, 1.0])):
        found = store.table(sort=sort)
        assert found["loss"].tolist()[:3] == expected
        assert math.isnan(values[found.index[3]])
        assert values[found.index[4]] is None


def test_a_filter_may_be_text_a_mapping_or_a_function(store: Store) -> None:
    keys = {lr: finished(store, {"optim": {"lr": lr}}, loss=lr) for lr in (0.1, 0.2, 0.3)}
    for where in (
        "optim.lr > 0.15 and loss < 0.25", {"optim.lr": 0.2}, {"optim": {"lr": [0.2, 7]}}, {"loss": lambda x: x == 0.2},
        lambda row: row["optim.lr"] == 0.2,
    ):
        assert store.table(where).index.tolist() == [keys[0.2]], where


def test_times_can_be_filtered_and_sorted_by(store: Store) -> None:
    keys = [finished(store, {"n": n}) for n in range(3)]
    at = [store.stats[key]["at"] for key in keys]
    assert set(store.table(f"saved_at >= {at[0]}").index) == set(keys)
    assert store.table(f"saved_at > {at[2] + 1}").empty
    assert store.table(sort="-saved_at")["saved_at"].is_monotonic_decreasing


@pytest.mark.parametrize("at", [NAN, math.inf, 1e300, -1e300, 9.1e9])
def test_a_time_that_no_clock_shows_is_none(at: float) -> None:
    found = frame_of(Runs(Columns.of([EMPTY._replace(at=at), EMPTY._replace(at=1.5)])))
    assert found["saved_at"].isna().tolist() == [True, False]
    assert found["saved_at"].iloc[1] == pd.Timestamp("1970-01-01 00:00:01.5", tz="UTC")


def test_a_damaged_record_among_many_is_told_by_name_and_the_rest_is_shown(store: Store) -> None:
    keys = [finished(store, {"n": n}, loss=n) for n in range(20)]
    name = layout.preview(keys[7], 1, 1)
    (Path(store.directory or "") / name).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=name.replace(".", r"\.")) as told:
        found = Store(store.directory, read_only=True).table()
    assert len(told) == 1
    assert told[0].filename == __file__, "the warning points at whoever asked for the table"
    assert len(found) == 20
    assert found["loss"].isna().sum() == 1
    with pytest.warns(UserWarning, match=name):
        assert store.best("loss") == keys[0]


def test_of_many_damaged_records_a_few_are_named(store: Store) -> None:
    for n in range(24):
        key = finished(store, {"n": n})
        (Path(store.directory or "") / layout.preview(key, 1, 1)).write_bytes(b"")
    with pytest.warns(UserWarning, match="and 4 more") as told:
        store.table()
    assert str(told[0].message).count("damaged file") == 20


def test_a_whole_store_warns_of_nothing(store: Store) -> None:
    finished(store, {"n": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.table()


def test_one_field_in_a_thousand_columns_is_filtered_and_sorted(store: Store) -> None:
    for seed in range(4):
        fields, numbers = {f"x{n}": n * seed for n in range(400)}, {f"m{n}": n + seed for n in range(600)}
        finished(store, {"seed": seed, "f": fields}, **numbers)
    found = store.table("f.x399 > 0", sort="-m599")
    assert found.shape == (3, 2 + 400 + 601 + 3)
    assert found["m599"].tolist() == [602, 601, 600]
    assert store.table().equals(Store(store.directory, read_only=True).table()), "the second time from the index"


def test_hostile_names_are_only_names(store: Store) -> None:
    finished(store, {"\x1b[2J": 1, "<b>": [2], "key": 3, "saved_at": 4, "state": 5}, **{"<script>": 1, "train_s": 2})
    finished(store, {"\x1b[2J": 2, "<b>": [3], "key": 4, "saved_at": 5, "state": 6}, **{"<script>": 1, "train_s": 2})
    names = set(store.table().columns)
    assert {"\x1b[2J", "<b>", "config.key", "config.saved_at", "config.state", "<script>", "preview.train_s"} < names
    assert len(store.table("`\x1b[2J` == 1")) == 1


def test_looking_at_a_read_only_store_writes_nothing_there(store: Store) -> None:
    finished(store, {"n": 1}, loss=1)
    before = listing(Path(store.directory or ""))
    looking = Store(store.directory, read_only=True)
    assert len(looking.table()) == len(looking.group()) == 1
    assert looking.best("loss")
    assert listing(Path(store.directory or "")) == before


def test_a_store_in_memory_has_a_table_as_well() -> None:
    store = Store(None)
    key = finished(store, {"n": 1}, loss=0.5)
    assert store.table().loc[key, "loss"] == 0.5


def test_a_live_run_overrides_what_the_index_has_kept(store: Store) -> None:
    attempt = attempt_at(store, {"n": 1})
    for epoch in (1, 2, 3):
        commit(attempt, epoch, loss=float(epoch))
        assert store.table().loc[attempt.key, ["state", "epoch", "loss"]].tolist() == ["running", epoch, float(epoch)]
    attempt.finish()
    assert store.table().loc[attempt.key, "state"] == "done"
    store.pop(attempt.key)
    assert store.table().empty


def settle(store: Store) -> None:
    """Make every directory as old as those of a store that was not written to for a while."""
    for path in Path(store.directory or "").glob("*/*"):
        os.utime(path, (1e9, 1e9))


def test_what_is_kept_for_the_next_table_is_nobodys_to_change(store: Store) -> None:
    finished(store, {"n": 1, "sizes": [1, [2]], "text": "a"}, loss=1.0)
    finished(store, {"n": 2, "sizes": [1, [3]], "text": "b"}, loss=2.0)
    settle(store)
    store.table()
    kept = read_runs(store)
    assert read_runs(store) is kept, "nothing has changed"
    first = store.table(sort="n")
    first["loss"] = 7.0
    first.loc[first.index[0], "n"] = 7
    first["sizes"].iloc[0][1][0] = 7
    second = store.table(sort="n")
    assert second[["n", "loss"]].to_numpy().tolist() == [[1, 1.0], [2, 2.0]]
    assert second["sizes"].tolist() == [[1, [2]], [1, [3]]]
    finished(store, {"n": 3, "sizes": [], "text": ""}, loss=3.0)
    assert len(store.table()) == 3
    assert read_runs(store) is not kept


def test_the_best_run_is_the_lowest_loss_or_the_highest_accuracy(store: Store) -> None:
    keys = [finished(store, {"n": n}, loss=n, valid={"acc": n}, score=n) for n in range(3)]
    assert store.best("loss") == keys[0]
    assert store.best("valid.acc") == store.best("score", "max") == keys[2]
    assert store.best("valid.acc", "min") == keys[0]
    assert store.best("loss", where={"n": [1, 2]}) == store.best("loss", where="n > 0") == keys[1]
    assert store.best("n", "max") == keys[2], "a field of the configuration will do"


@pytest.mark.parametrize("metric", ["val_acc", "f1", "Acc", "valAccuracy", "auc"])
def test_the_best_is_never_the_worst_where_the_name_says_what_is_better(store: Store, metric: str) -> None:
    keys = [finished(store, {"n": n}, **{metric: value}) for n, value in enumerate((0.1, 0.9, 0.5))]
    assert store.best(metric) == keys[1]
    assert store.best(metric, "min") == keys[0]


def test_what_no_word_tells_of_is_minimised(store: Store) -> None:
    keys = [finished(store, {"n": n}, accuracy_error=n, metres=n) for n in range(3)]
    assert store.best("accuracy_error") == store.best("metres") == keys[0]


def test_a_name_may_be_given_by_its_last_parts_wherever_runs_are_asked_for(store: Store) -> None:
    keys = [finished(store, {"optim": {"lr": n}, "seed": n % 2}, eval={"loss": 4 - n}) for n in range(4)]
    assert store.best("loss", where="lr < 3") == keys[2]
    assert store.table("lr < 2").equals(store.table("optim.lr < 2"))
    assert sorted(store.table({"lr": [0, 3]}).index) == sorted([keys[0], keys[3]])
    found = store.table(columns=["lr", "loss"], sort="-lr")
    assert found.columns.tolist() == ["lr", "loss"], "columns are called as they were asked for"
    assert found["lr"].tolist() == [3, 2, 1, 0]
    assert store.group("lr", metrics=["loss"])[("loss", "mean")].tolist() == [4, 3, 2, 1]
    assert store.group(over=["seed", "lr"], metrics=["loss"]).index.tolist() == ["all"]
    assert store.plot.metric("loss", by="lr").axes


def test_a_name_that_may_be_two_is_refused_with_both(store: Store) -> None:
    finished(store, {"a": {"width": 1}, "b": {"width": 2}}, loss=1)
    for ask in (
        lambda: store.table("width > 1"), lambda: store.table({"width": 1}), lambda: store.table(columns=["width"]),
        lambda: store.table(sort="-width"), lambda: store.group("width"), lambda: store.best("width"),
    ):  # fmt: skip
        with pytest.raises(UnknownField, match=r"'width' may be 'a\.width' or 'b\.width'; write more of its name"):
            ask()


def test_a_filter_that_compares_text_with_numbers_is_warned_of_once(store: Store) -> None:
    finished(store, {"lr": 1, "seed": 0}, loss=1.0, note="text")
    for text, told in (
        ('epoch == "5"', "'epoch', which holds numbers, with the text '5': true of no run; leave out the quotes"),
        ('saved_at > "2026-01-01"', "holds seconds since 1970, with the text '2026-01-01': true of no run; give a num"),
        ("note == 5 or note < 5", "'note', which holds text, with the number 5: true of no run; put it in quotes"),
        ('lr in ["1", "2"]', "'lr', which holds numbers, with the text"),
        ('not ("x" < loss and true == false)', "with the text 'x'"),
    ):
        with pytest.warns(UserWarning, match=told) as caught:
            store.table(text)
        assert [each.filename for each in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.table('epoch != "5" and lr in [1, "auto"] and note == "5" and epoch == none and "5" in note')


def test_the_best_passes_over_nan_and_infinity_and_says_how_many_when_none_is_left(store: Store) -> None:
    good = finished(store, {"n": 0}, loss=5.0)
    for n, loss in enumerate((NAN, math.inf, -math.inf, None), 1):
        finished(store, {"n": n}, loss=loss)
    store.register({"n": 9})
    assert store.best("loss") == store.best("loss", "max") == good
    with pytest.raises(KeyNotFound, match=r"a finite number 'loss': of 5 runs 3 have NaN or nothing there, 2"):
        store.best("loss", where="n > 0")


def test_of_equally_good_runs_the_first_key_is_the_best(store: Store) -> None:
    keys = [finished(store, {"n": n}, loss=1.0) for n in range(4)]
    assert store.best("loss") == store.best("loss", "max") == min(keys)


def test_a_filter_that_forgot_its_rows_would_be_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: a table of all runs, whatever was asked for."""
    monkeypatch.setattr(frame.Runs, "where", lambda self, _: self)
    with pytest.raises(AssertionError):
        test_a_filter_may_be_text_a_mapping_or_a_function(store)
