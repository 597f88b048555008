"""Grids against the plain definition: write every point down, drop what is there already."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.config import Config
from jimmy_manager.errors import ConfigError
from jimmy_manager.grid import choices2configs, grid
from jimmy_manager.keys import canonical

names = st.sampled_from(["a", "b", "c"])
# Few different values, so that duplicates and overlaps are the rule; some that Python takes for equal.
scalars = st.sampled_from([0, 1, 1.0, True, "1", None, "x", 2**53 + 1, float(2**53)])
ranges = st.builds(range, st.integers(0, 3), st.integers(0, 5), st.integers(1, 2))
list_values = st.lists(scalars, max_size=2)


def unions(mappings: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(scalars | list_values | mappings, max_size=4)


mappings = st.recursive(
    st.dictionaries(names, scalars | ranges | unions(st.just({})), max_size=3),
    lambda inner: st.dictionaries(names, scalars | ranges | inner | unions(inner), max_size=3),
    max_leaves=6,
)
# Sub-grids over the same fields, which overlap in every way: at corners, in one point, one inside the other.
boxes = st.fixed_dictionaries({name: st.lists(st.integers(0, 2), min_size=1, max_size=3) for name in "abc"})
overlapping = st.lists(boxes, min_size=2, max_size=4)
choices = mappings | st.lists(mappings, max_size=4) | overlapping | overlapping.map(lambda items: {"inner": items})


def by_definition(tree: Any) -> list[Any]:
    """Every point of a set of choices, written down by the definition, duplicates and all."""
    if isinstance(tree, dict):
        products = itertools.product(*(by_definition(value) for value in tree.values()))
        return [dict(zip(tree, values, strict=True)) for values in products]
    if isinstance(tree, list | tuple | range):
        return [
            point for item in tree for point in (by_definition(item) if isinstance(item, dict) else [as_value(item)])
        ]
    return [tree]


def as_value(item: Any) -> Any:
    return list(item) if isinstance(item, list | tuple | range) else item


def distinct(points: list[Any]) -> list[Any]:
    first: dict[bytes, Any] = {}
    for point in points:
        first.setdefault(canonical(point), point)
    return list(first.values())


def keys(points: Any) -> list[bytes]:
    return [canonical(point) for point in points]


def subtrees(tree: Any) -> Iterator[Any]:
    yield tree
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from subtrees(item)


def is_order_kept(tree: Any) -> bool:
    """Say whether no list inside has two sub-grids, of which one may be cut to pieces."""
    return not any(isinstance(t, list) and sum(isinstance(i, dict) for i in t) > 1 for t in subtrees(tree))


@given(choices)
def test_a_grid_holds_every_point_of_the_definition_once(tree: Any) -> None:
    points = grid(tree)
    expected = distinct(by_definition(tree))
    assert sorted(keys(points)) == sorted(keys(expected))
    assert len(points) == points.size == len(expected) == len(set(keys(points)))
    assert bool(points) == bool(expected)
    if is_order_kept(tree):
        assert keys(points) == keys(expected)


def test_the_definition_would_catch_a_grid_with_duplicates() -> None:
    twin = by_definition([{"a": [1, 2]}, {"a": [2, 3]}])
    assert len(twin) != len(set(keys(twin)))


@given(choices, st.integers(-20, 20), st.slices(12))
def test_indexing_agrees_with_iteration(tree: Any, index: int, part: slice) -> None:
    points = grid(tree)
    listed = list(points)
    assert [points[i] for i in range(len(points))] == listed
    assert list(points[part]) == listed[part]
    assert list(reversed(points)) == listed[::-1]
    if -len(listed) <= index < len(listed):
        assert points[index] == listed[index]
    else:
        with pytest.raises(IndexError, match=f"index {index} is outside a grid of {len(listed)} configurations"):
            points[index]


@given(choices, choices)
def test_membership_is_that_of_the_points(one: Any, two: Any) -> None:
    inside, others = grid(one), set(keys(grid(two)))
    for point in inside:
        assert point in inside
        assert (canonical(point) in others) == (point in grid(two))


@given(choices, choices)
def test_a_union_holds_what_either_holds_and_itself_only_once(one: Any, two: Any) -> None:
    parts = [*(one if isinstance(one, list) else [one]), *(two if isinstance(two, list) else [two])]
    union = grid(parts)
    assert set(keys(union)) == set(keys(grid(one))) | set(keys(grid(two)))
    assert len(union) <= len(grid(one)) + len(grid(two))
    assert len(grid([one, one] if isinstance(one, dict) else one * 2)) == len(grid(one))


@given(mappings, mappings)
def test_a_product_is_as_long_as_its_factors_together(one: Any, two: Any) -> None:
    product = grid({"left": one, "right": two})
    assert len(product) == len(grid(one)) * len(grid(two))
    expected = [Config(left=a, right=b) for a, b in itertools.product(grid(one), grid(two))]
    assert list(product) == expected


@given(choices)
def test_configurations_share_no_container(tree: Any) -> None:
    points = grid(tree)
    for index in range(len(points)):
        config, before = points[index], points[index].asdict()
        assert type(config) is Config
        for part in subtrees(config):
            if isinstance(part, list):
                part.append("changed")
            elif isinstance(part, dict):
                part["changed"] = True
        assert config != before
        assert points[index] == before


def test_each_spelling_of_choices_has_its_meaning() -> None:
    assert list(grid({"arch": ["mlp", "cnn"], "seed": range(2), "epochs": 30})) == [
        {"arch": "mlp", "seed": 0, "epochs": 30},
        {"arch": "mlp", "seed": 1, "epochs": 30},
        {"arch": "cnn", "seed": 0, "epochs": 30},
        {"arch": "cnn", "seed": 1, "epochs": 30},
    ]
    assert list(grid({"optim.lr": (0.1, 0.2), "optim": {"name": "sgd"}})) == [
        {"optim": {"lr": 0.1, "name": "sgd"}},
        {"optim": {"lr": 0.2, "name": "sgd"}},
    ]
    assert [c["sizes"] for c in grid({"sizes": [[3, 4], (5,), range(2), [], [[1, 2]]]})] == [
        [3, 4],
        [5],
        [0, 1],
        [],
        [[1, 2]],
    ]
    assert [c["sched"] for c in grid({"sched": [None, {"name": "step", "gamma": [0.1, 0.5]}, "cosine"]})] == [
        None,
        {"name": "step", "gamma": 0.1},
        {"name": "step", "gamma": 0.5},
        "cosine",
    ]
    assert list(grid([{"arch": "mlp", "width": [1, 2]}, {"arch": "cnn", "channels": 8}])) == [
        {"arch": "mlp", "width": 1},
        {"arch": "mlp", "width": 2},
        {"arch": "cnn", "channels": 8},
    ]
    assert list(grid({})) == [{}]
    assert list(grid([])) == []
    assert list(grid({"lr": [], "seed": range(10)})) == []
    assert list(grid({"a": [{}, None]})) == [{"a": {}}, {"a": None}]


def test_one_varied_at_a_time_has_its_centre_once() -> None:
    base = {"lr": 0.1, "width": 64, "depth": 2}
    star = grid([base | {"lr": [0.01, 0.1, 1]}, base | {"width": [32, 64]}, base | {"depth": [1, 2, 3]}])
    assert [tuple(c.values()) for c in star] == [
        *[(0.01, 64, 2), (0.1, 64, 2), (1, 64, 2)],
        (0.1, 32, 2),
        *[(0.1, 64, 1), (0.1, 64, 3)],
    ]


def test_huge_grids_cost_nothing() -> None:
    start = time.perf_counter()
    huge = grid({"a": range(10**6), "b": range(10**6), "c": [{"d": range(10**30)}, {"e": range(5)}]})
    assert huge.size == 10**12 * (10**30 + 5)
    assert huge[-1] == {"a": 10**6 - 1, "b": 10**6 - 1, "c": {"e": 4}}
    assert huge[10**20] == {"a": 0, "b": 0, "c": {"d": 10**20}}
    assert {"a": 5, "b": 7, "c": {"d": 10**29}} in huge
    assert {"a": 5, "b": 7, "c": {"d": True}} not in huge
    overlapping = grid([{"a": range(10**9), "b": [1, 2]}, {"a": range(10**9), "b": [2, 3]}])
    assert len(overlapping) == 3 * 10**9
    assert overlapping[-1] == {"a": 10**9 - 1, "b": 3}
    assert len(overlapping[::-1][10**6 : 2 * 10**9]) == 2 * 10**9 - 10**6
    assert len(grid([{"a": range(10**9)}, {"a": range(10**9, 10**10)}])) == 10**10
    assert time.perf_counter() - start < 1


def test_ranges_too_long_to_compare_are_refused_and_told_apart_by_another_field() -> None:
    long, longer = range(10**7), range(5, 2 * 10**7)
    with pytest.raises(ConfigError, match="too long to compare; let them differ in a field"):
        grid([{"seed": long}, {"seed": longer}])
    assert len(grid([{"seed": long, "arch": "mlp"}, {"seed": longer, "arch": "cnn"}])) == 3 * 10**7 - 5


def test_hopelessly_tangled_sub_grids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[grid.__module__], "MAX_PARTS", 20)
    letters = "abcdef"
    tangled = [{name: [i, i + 1, i + 2] for name in letters} | {"abcdef"[i]: range(9)} for i in range(6)]
    with pytest.raises(ConfigError, match="more than 20 pieces"):
        grid(tangled)


def test_a_long_list_of_whole_configurations_is_quick() -> None:
    start = time.perf_counter()
    listed = grid([{"lr": i % 5000, "seed": 0} for i in range(10_000)])
    assert len(listed) == 5000
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (5, "must be a mapping of fields or a list of such mappings, not 5"),
        ([{"a": 1}, 7], "not 7"),
        (range(3), r"not range\(0, 3\)"),
        ({"a": {"b": [1, b"x"]}}, r"at 'a\.b\[1\]'"),
        ({"a": [{"b": float("nan")}]}, r"at 'a\[0\]\.b'"),
        ({"a": [[float("nan")]]}, r"at 'a\[0\]\[0\]'"),
        ({"a": {1, 2}}, "at 'a'"),
        ({"a": iter([1])}, "at 'a'"),
        ({3: 1}, "names must be str"),
        ({"": 1}, "empty name"),
        ({"a.b": 1, "a": {"b": 2}}, r"'a\.b' is given twice"),
        ({"a": [{"b.c": 1, "b": 2}]}, r"'a\[0\]\.b' is given twice"),
    ],
)
def test_choices_that_make_no_sense_are_refused_with_their_place(tree: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        grid(tree)


def test_choices_nested_without_end_are_refused() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = [loop]
    with pytest.raises(ConfigError, match="nested deeper than 64"):
        grid(loop)


def test_choices_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "choices.yaml"
    path.write_text("arch: [mlp, cnn]\noptim.lr: [1e-3, 1e-2]\n")
    assert len(grid(path)) == len(choices2configs(str(path))) == 4
    path.write_text("mlp\n")
    with pytest.raises(ConfigError, match=r"choices\.yaml must be a mapping"):
        grid(path)


def test_the_older_name_draws_some_configurations_at_random_and_fills_them() -> None:
    tree = {"lr": [0.1, 0.2], "seed": range(10**9)}
    random.seed(3)
    drawn = choices2configs(tree, num_configs=5, default={"lr": 1, "arch": "cnn"})
    random.seed(3)
    assert list(choices2configs(tree, 5, {"arch": "cnn"})) == list(drawn)
    assert len(set(keys(drawn))) == 5
    assert all(config.arch == "cnn" and config.lr < 1 for config in drawn)
    assert drawn[0] in drawn
    assert {"lr": 0.1, "seed": 1} not in drawn
    assert len(choices2configs({"lr": [1, 2]}, num_configs=10)) == 2
    assert list(choices2configs({"lr": [1, 2]})) == [{"lr": 1}, {"lr": 2}]
