"""The schema ledger: old keys stay valid for ever, and no two different configurations come to share one."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jimmy_manager.errors import ConfigError, SchemaError
from jimmy_manager.keys import canonical
from jimmy_manager.schema import Ledger, moves, names

# Few names, so that entries meet: containers, what lies in them, and names that begin alike.
PATHS = ["a", "b", "ab", "a.x", "a.y", "b.x", "b.y", "ab.x", "a.x.p", "c.x", "c.y"]
VALUES: list[Any] = [0, 1, True, 0.5, "1", None, [1]]


def nest(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *above, last = path.split(".")
        place = tree
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return tree


def inside(path: str, container: str) -> bool:
    return path.startswith(container + ".")


def clash(path: str, others: set[str]) -> bool:
    return any(path == other or inside(path, other) or inside(other, path) for other in others)


class Model:
    """What the entries mean, said without trees: a field is an origin (its name in stored runs) and a name of today.

    It knows the base fields, which a ledger cannot; an entry that contradicts them is for ``Ledger.check`` to find. Of
    the fields that entries have named the ledger must know as much as the model: ``follow`` asserts that it does.
    """

    def __init__(self, base: set[str]) -> None:
        self.origin = {path: path for path in base}  # name of today -> name in stored runs
        self.named: set[str] = set()  # origins that an entry has named
        self.absent: dict[str, Any] = {}  # origin -> what it means that a configuration of today lacks the field
        self.births: dict[str, list[tuple[str, Any]]] = {}  # origin -> its adds and removes, oldest first
        self.removed: set[str] = set()  # names of today of removed fields
        self.renames: list[tuple[str, str]] = []
        self.vacant: set[str] = set()  # names that a rename took away

    def moving(self, path: str) -> set[str]:
        return {name for name in self.origin if name == path or inside(name, path)}

    def is_past(self, path: str) -> bool:
        return any(path == name or inside(path, name) for name in self.vacant | self.removed)

    def contradicts_base(self, entry: tuple[Any, ...]) -> bool:
        kind, path, other = entry
        unknown = {name for name, origin in self.origin.items() if origin not in self.named}
        # After `rename a to b` a ledger cannot tell whether b is a field or a container; after add or remove it can.
        target = other if kind == "rename" else path
        if any(inside(target, name) for name, origin in self.origin.items() if origin not in self.absent):
            return True
        if kind == "add":
            return clash(path, unknown)
        if kind == "remove":
            known = self.is_past(path) or any(inside(name, path) for name in set(self.origin) - unknown)
            return clash(path, unknown - {path}) or (path not in self.origin and not known)
        return clash(other, unknown - self.moving(path)) or not (self.moving(path) - self.removed or self.is_past(path))

    def follow(self, entry: tuple[Any, ...]) -> None:
        kind, path, other = entry
        if kind == "rename":
            self._rename(path, other)
        elif kind == "add":
            self._add(path, other)
        else:
            assert path in self.origin, f"{path} is no field"
            assert path not in self.removed, f"{path} was removed before"
            self.removed.add(path)
        if kind != "rename":
            origin = self.origin[path]
            self.named.add(origin)
            self.absent[origin] = other
            self.births.setdefault(origin, []).append((kind, other))

    def _rename(self, path: str, other: str) -> None:
        assert self.moving(path) - self.removed, f"{path} is a name of the past"
        assert not clash(other, set(self.origin) - self.moving(path)), f"{other} is taken"
        move = {name: other + name[len(path) :] for name in self.moving(path)}
        if path in self.origin:
            self.named.add(self.origin[path])
        self.origin = {move.get(name, name): origin for name, origin in self.origin.items()}
        self.removed = {move.get(name, name) for name in self.removed}
        self.vacant = {name for name in self.vacant if name != other} | {path}
        self.renames.append((path, other))

    def _add(self, path: str, value: Any) -> None:
        if path in self.origin:
            assert path in self.removed, f"{path} was there before"
            assert canonical(self.absent[self.origin[path]]) == canonical(value), f"{path} came back as another value"
            self.removed.discard(path)
            return
        assert not clash(path, set(self.origin)), f"{path} overlaps a field"
        origin = path
        for old, new in reversed(self.renames):
            if origin == new or inside(origin, new):
                origin = old + origin[len(new) :]
        assert not clash(origin, set(self.origin.values())), f"stored name {origin} is used twice"
        self.origin[path] = origin

    def config(self, draw: random.Random) -> dict[str, Any]:
        """Draw a configuration of today: base fields are there, added and removed ones may be."""
        leaves = {}
        for name, origin in self.origin.items():
            if origin not in self.absent or draw.random() < 0.7:
                leaves[name] = draw.choice(VALUES)
        return leaves

    def meaning(self, leaves: dict[str, Any]) -> bytes:
        """Encode what ``leaves`` says, with every absence spelled out."""
        said = {origin: leaves[name] for name, origin in self.origin.items() if name in leaves}
        return canonical({**self.absent, **said})

    def stored(self, leaves: dict[str, Any]) -> dict[str, Any]:
        """Say what the ledger must store for ``leaves``."""
        form = {}
        for name, origin in self.origin.items():
            there, value = name in leaves, leaves.get(name)
            for kind, default in reversed(self.births.get(origin, [])):
                if kind == "remove" and not there:
                    there, value = True, default
                elif kind == "add" and there and canonical(value) == canonical(default):
                    there = False
            if there:
                form[origin] = value
        return nest(form)


def draw_entry(draw: random.Random) -> tuple[Any, ...]:
    kind = draw.choice(["add", "add", "remove", "rename"])
    other = draw.choice(PATHS) if kind == "rename" else draw.choice(VALUES[:3])
    return kind, draw.choice(PATHS), other


def grow(draw: random.Random, steps: int = 16) -> tuple[Ledger, Model, int]:
    """Return a ledger of random entries beside its model, and how many were refused."""
    base: set[str] = set()
    for path in draw.sample(PATHS, 4):
        if not clash(path, base):
            base.add(path)
    ledger, model, refused = Ledger(), Model(base), 0
    for _ in range(steps):
        entry = draw_entry(draw)
        if model.contradicts_base(entry):
            continue
        try:
            ledger = getattr(ledger, entry[0])(*entry[1:])
        except SchemaError:
            refused += 1
        else:
            model.follow(entry)
    return ledger, model, refused


def fault_against_model(seed: int) -> str | None:
    """Compare one random ledger with its model on random configurations; return what is wrong, if anything."""
    try:
        return _fault(random.Random(seed))
    except (AssertionError, SchemaError) as error:
        return str(error)


def _fault(draw: random.Random) -> str | None:
    ledger, model, _ = grow(draw)
    meanings: dict[bytes, bytes] = {}
    for _ in range(12):
        leaves = model.config(draw)
        config = nest(leaves)
        form = ledger.key_form(config)
        if canonical(form) != canonical(model.stored(leaves)):
            return f"{ledger}: {config} is stored as {form}, not {model.stored(leaves)}"
        if meanings.setdefault(canonical(form), model.meaning(leaves)) != model.meaning(leaves):
            return f"{ledger}: {config} shares its key with a configuration that means something else"
        if canonical(ledger.key_form(ledger.shown_form(form))) != canonical(form):
            return f"{ledger}: {form} loses its key by being shown"
    return None


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_a_ledger_of_any_accepted_entries_does_what_the_model_says(seed: int) -> None:
    assert fault_against_model(seed) is None


def test_the_random_ledgers_are_long_and_are_refused_entries_too() -> None:
    lengths, refusals, kinds = [], 0, set()
    for seed in range(300):
        ledger, _, refused = grow(random.Random(seed))
        lengths.append(len(ledger))
        refusals += refused
        kinds |= set(itertools.pairwise(entry.kind for entry in ledger))
    assert sum(length >= 4 for length in lengths) >= 50
    assert refusals >= 100
    assert len(kinds) == 9, "every kind of entry must follow every other"


def trees(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.sampled_from(VALUES)
    items = leaf if depth == 0 else st.one_of(leaf, st.deferred(lambda: trees(depth - 1)))
    return st.dictionaries(st.sampled_from(["a", "b", "ab", "c", "x", "y", "p"]), items, max_size=3)


PATH = st.sampled_from(PATHS)
DEFAULT = st.sampled_from(VALUES[:3])
ENTRY = st.one_of(
    st.fixed_dictionaries({"add": PATH, "value": DEFAULT}, optional={"into": st.sampled_from(["a", "b", "a.x"])}),
    st.fixed_dictionaries({"remove": PATH, "value": DEFAULT}, optional={"into": st.sampled_from(["a", "b"])}),
    st.fixed_dictionaries({"rename": PATH, "to": PATH}),
)


def extend(ledger: Ledger, entry: dict[str, Any]) -> Ledger | None:
    try:
        return Ledger([*ledger, entry])
    except SchemaError:
        return None


@settings(max_examples=400, deadline=None)
@given(st.lists(ENTRY, max_size=8), st.lists(trees(), min_size=2, max_size=8))
def test_whatever_key_form_accepts_keeps_its_key_and_shares_it_with_nothing(
    entries: list[dict[str, Any]], configs: list[dict[str, Any]]
) -> None:
    """Hostile: any tree, empty containers and names that were renamed away included."""
    ledger = Ledger()
    for entry in entries:
        ledger = extend(ledger, entry) or ledger
    seen: dict[bytes, bytes] = {}
    for config in configs:
        try:
            form = ledger.key_form(config)
        except SchemaError:
            event("refused")
            continue
        shown = ledger.shown_form(form)
        assert ledger.key_form(shown) == form
        assert seen.setdefault(canonical(form), canonical(shown)) == canonical(shown)
        assert_only_sanctioned(ledger, config, shown)


def assert_only_sanctioned(ledger: Ledger, config: dict[str, Any], shown: dict[str, Any]) -> None:
    """``shown`` differs from ``config`` by added fields that were absent, and removed ones that were spelled out."""
    given, seen = flatten(config), flatten(shown)
    gained = {path for path in seen if path not in given}
    lost = {path: given[path] for path in given if path not in seen}
    assert all(canonical(given[path]) == canonical(seen[path]) for path in given.keys() & seen.keys())
    assert gained <= ledger.fields() | {path for path in gained if seen[path] == {}}
    values = [canonical(entry.value) for entry in ledger if entry.kind == "remove"]
    assert all(value == {} or canonical(value) in values for value in lost.values())


def flatten(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{above}{name}.")
        else:
            flat[above + name] = value
    return flat


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_store_that_checks_each_entry_keeps_every_key_for_ever(data: st.DataObject) -> None:
    ledger, runs = Ledger(), dict[str, dict[str, Any]]()
    for _ in range(data.draw(st.integers(1, 6))):
        for config in data.draw(st.lists(trees(), max_size=3)):
            try:
                form = ledger.key_form(config)
            except SchemaError:
                continue
            runs[canonical(form).hex()] = form
        grown = extend(ledger, data.draw(ENTRY))
        if grown is None:
            continue
        try:
            grown.check(runs.items())
        except SchemaError:
            event("the runs contradict the entry")
            continue
        ledger = grown
    shown = {canonical(ledger.shown_form(form)) for form in runs.values()}
    assert len(shown) == len(runs)
    for key, form in runs.items():
        assert canonical(ledger.key_form(ledger.shown_form(form))).hex() == key


@settings(max_examples=100, deadline=None)
@given(st.lists(ENTRY, max_size=8))
def test_a_ledger_survives_being_written_down(entries: list[dict[str, Any]]) -> None:
    ledger = Ledger()
    for entry in entries:
        ledger = extend(ledger, entry) or ledger
    again = Ledger(json.loads(json.dumps(ledger.to_list())))
    assert again == ledger
    assert hash(again) == hash(ledger)
    assert repr(again) == repr(ledger)
    assert again.fields() == ledger.fields()


# Broken twins: each takes one rule out of the ledger, and the checks above must notice.


def take_and_leave_the_empty_container(tree: Any, path: Any, into: int = 0) -> Any:
    container = moves.get(tree, path[:-1])
    return container.pop(path[-1], moves.ABSENT) if isinstance(container, dict) else moves.ABSENT


BROKEN_NAMES = {
    "a removed field comes back with another value": (names, "_same", lambda first, second: True),
    "a name that was renamed away is given again": (names.Names, "_refuse_left", lambda self, field: None),
    "a rename may end on a removed or added name": (names.Names, "_check_target", lambda self, new: None),
    "a rename may start from a name of the past": (names.Names, "_check_source", lambda self, old: None),
    "a field may lie inside another one": (names.Names, "_refuse_overlap", lambda self, field, others: None),
    "a container is taken for a field": (names.Names, "_refuse_container", lambda self, field: None),
    "an emptied container stays": (moves, "take", take_and_leave_the_empty_container),
}


@pytest.mark.parametrize("rule", BROKEN_NAMES)
def test_the_model_notices_when(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(2000)
    monkeypatch.setattr(*BROKEN_NAMES[rule])
    assert any(fault_against_model(seed) for seed in seeds)


class Unverified(Ledger):
    """A ledger that does not go back to see whether a configuration is the one that its form would be shown as."""

    def key_form(self, config: Any) -> dict[str, Any]:
        form = moves.copy_tree(config)
        for entry in reversed([*self]):
            entry.back(form)
        return form


def sharing(ledger: Ledger, configs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return pairs of configurations that are seen as different ones and yet get one form."""
    forms: dict[bytes, dict[str, Any]] = {}
    pairs = []
    for config in configs:
        try:
            form = canonical(ledger.key_form(config))
        except SchemaError:
            continue
        other = forms.setdefault(form, config)
        if canonical(other) != canonical(config):
            pairs.append((other, config))
    return pairs


def test_without_the_way_back_a_name_of_the_past_would_be_another_run() -> None:
    configs = [{"lr": 0.1}, {"eta": 0.1}]
    ledger = Ledger().rename("lr", "eta")
    assert sharing(Unverified(ledger), configs) == [(configs[0], configs[1])]
    assert sharing(ledger, configs) == []


# Directed cases.


def test_old_runs_show_an_added_field_and_keep_their_key() -> None:
    ledger = Ledger().add("optim.beta", 0.9)
    assert ledger.shown_form({"lr": 1}) == {"lr": 1, "optim": {"beta": 0.9}}
    assert ledger.key_form({"lr": 1, "optim": {"beta": 0.9}}) == {"lr": 1}
    assert ledger.key_form({"lr": 1}) == {"lr": 1}
    assert ledger.key_form({"lr": 1, "optim": {"beta": 0.5}}) == {"lr": 1, "optim": {"beta": 0.5}}
    assert ledger.fields() == {"optim.beta"}


def test_an_added_field_under_a_renamed_container_is_stored_under_the_old_name() -> None:
    ledger = Ledger().rename("optim", "optimizer").add("optimizer.beta", 0.9)
    assert ledger.key_form({"optimizer": {"lr": 1, "beta": 0.5}}) == {"optim": {"lr": 1, "beta": 0.5}}
    assert ledger.shown_form({"optim": {"lr": 1}}) == {"optimizer": {"lr": 1, "beta": 0.9}}
    assert ledger.fields() == {"optimizer.beta"}
    assert Ledger().add("optim.beta", 0.9).rename("optim", "optimizer").fields() == {"optimizer.beta"}


def test_a_removed_field_counts_as_its_value_and_other_values_stay_visible() -> None:
    ledger = Ledger().remove("amp", False)
    assert ledger.key_form({"lr": 1}) == {"lr": 1, "amp": False}
    assert ledger.shown_form({"lr": 1, "amp": False}) == {"lr": 1}
    assert ledger.shown_form({"lr": 1, "amp": True}) == {"lr": 1, "amp": True}
    assert ledger.key_form({"lr": 1, "amp": True}) == {"lr": 1, "amp": True}


def test_a_removed_field_comes_back_with_its_value_only() -> None:
    ledger = Ledger().remove("amp", False)
    back = ledger.add("amp", False)
    assert back.key_form({"amp": True}) == {"amp": True}
    assert back.key_form({}) == back.key_form({"amp": False}) == {"amp": False}
    with pytest.raises(SchemaError, match="runs with the one and with the other would share a key"):
        ledger.add("amp", True)


def test_an_added_field_can_be_removed_as_another_value() -> None:
    ledger = Ledger().add("warmup", 0).remove("warmup", 5)
    assert ledger.shown_form({"lr": 1}) == {"lr": 1, "warmup": 0}
    assert ledger.key_form({"lr": 1, "warmup": 0}) == {"lr": 1}
    assert ledger.key_form({"lr": 1}) == {"lr": 1, "warmup": 5}
    assert ledger.shown_form({"lr": 1, "warmup": 5}) == {"lr": 1}


def test_names_can_be_swapped_by_three_renames() -> None:
    ledger = Ledger().rename("a", "t").rename("b", "a").rename("t", "b")
    assert ledger.shown_form({"a": 1, "b": 2}) == {"a": 2, "b": 1}
    assert ledger.key_form({"a": 2, "b": 1}) == {"a": 1, "b": 2}


def test_true_is_not_the_birth_value_one() -> None:
    ledger = Ledger().add("amp", 1)
    assert ledger.key_form({"amp": True}) == {"amp": True}
    assert ledger.key_form({"amp": 1.0}) == {}


def test_an_empty_container_is_not_the_absence_of_its_new_field_unless_the_entry_says_so() -> None:
    plain, into = Ledger().add("aug.flip", False), Ledger().add("aug.flip", False, into="aug")
    assert plain.key_form({"aug": {}}) == {"aug": {}}
    assert plain.key_form({"aug": {"flip": False}}) == {}
    assert into.key_form({"aug": {"flip": False}}) == {"aug": {}}
    assert into.shown_form({"aug": {}}) == {"aug": {"flip": False}}
    assert into.shown_form({}) == {}


def test_dotted_and_nested_names_are_one_configuration() -> None:
    assert Ledger().key_form({"optim.lr": 1}) == Ledger().key_form({"optim": {"lr": 1}}) == {"optim": {"lr": 1}}
    assert Ledger().add("optim.lr", 1).key_form({"optim.lr": 1.0}) == {}


def test_a_form_is_a_fresh_tree() -> None:
    birth = [1, [2]]
    ledger, stored = Ledger().add("sizes", birth), {"layers": [[1]]}
    shown: Any = ledger.shown_form(stored)
    shown["sizes"][1].append(3)
    shown["layers"][0].append(3)
    assert stored == {"layers": [[1]]}
    assert ledger.shown_form({}) == {"sizes": [1, [2]]}


@pytest.mark.parametrize(
    ("entries", "entry", "message"),
    [
        ([("add", "a", 1)], ("add", "a", 2), "in the schema ledger already"),
        ([("add", "a", 1)], ("add", "a.b", 2), "overlaps 'a'"),
        ([("add", "a.b", 1)], ("add", "a", 2), "overlaps 'a.b'"),
        ([("rename", "b", "a")], ("add", "a", 2), "in the schema ledger already"),
        ([("rename", "b", "a.c")], ("add", "a", 2), "holds 'a.c'"),
        ([("rename", "lr", "eta")], ("add", "lr", 0), "stored runs keep what is now called 'eta' under the name 'lr'"),
        ([("rename", "lr", "eta")], ("add", "lr.x", 0), "stored runs keep"),
        ([("remove", "a", 1)], ("remove", "a", 1), "removed already, as 1"),
        ([("remove", "a", 1)], ("add", "a", 2), "was removed as 1"),
        ([("remove", "a", 1)], ("add", "a", True), "was removed as 1"),
        ([("remove", "a", 1)], ("rename", "b", "a"), "still show other values"),
        ([("remove", "a", 1)], ("rename", "a", "b"), "nothing to rename"),
        ([("rename", "a", "b")], ("rename", "a", "c"), "is called 'b' since an earlier rename"),
        ([("rename", "a", "b")], ("rename", "a.x", "c"), "is called 'b.x' since"),
        ([("rename", "a", "b")], ("remove", "a", 1), "now called 'b'"),
        ([("rename", "a.x", "b")], ("rename", "c", "a"), "overlaps 'a.x'"),
        ([("add", "a", 1)], ("rename", "b", "a"), "taken by 'a'"),
        ([("add", "a", 1)], ("rename", "b", "a.c"), "taken by 'a'"),
        ([("add", "a", 1)], ("rename", "a.b", "c"), "added as one value"),
        ([], ("rename", "a", "a"), "neither to, nor into, nor around itself"),
        ([], ("rename", "a", "a.b"), "neither to, nor into, nor around itself"),
        ([], ("rename", "a.b", "a"), "neither to, nor into, nor around itself"),
        ([], ("add", "a", {}), "would be a mapping"),
        ([], ("add", "a..b", 1), "empty name"),
        ([], ("add", "a[0]", 1), "points into a list"),
        ([], ("add", "a", float("nan")), "not a finite number"),
        ([], ("add", 3, 1), "names must be str"),
        ([], ("add", "a.b", 1, "c"), "does not lie inside 'c'"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(entries: Any, entry: Any, message: str) -> None:
    ledger = Ledger()
    for kind, *rest in entries:
        ledger = getattr(ledger, kind)(*rest)
    with pytest.raises(SchemaError, match=message):
        getattr(ledger, entry[0])(*entry[1:])


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"add": "a"},
        {"add": "a", "value": 1, "to": "b"},
        {"drop": "a"},
        {"rename": "a", "to": "b", "into": "c"},
        "add a",
    ],
)
def test_a_line_of_the_file_that_is_no_entry_is_refused_with_its_number(entry: Any) -> None:
    with pytest.raises(SchemaError, match=r"entry 2 of the schema ledger: entry .* (is neither|takes no into)"):
        Ledger([{"add": "z", "value": 1}, entry])


def test_a_name_of_the_past_is_refused_with_the_name_of_today() -> None:
    with pytest.raises(SchemaError, match="'lr' was renamed to 'eta' in the schema ledger; write 'eta'"):
        Ledger().rename("lr", "eta").key_form({"lr": 0.1})


def test_a_configuration_must_be_a_mapping() -> None:
    config: Any = [1]
    with pytest.raises(ConfigError, match="a configuration is a mapping, not list"):
        Ledger().key_form(config)
    with pytest.raises(ConfigError, match="a configuration is a mapping, not list"):
        Ledger().shown_form(config)


@pytest.mark.parametrize(
    ("ledger", "run", "reason"),
    [
        (Ledger().add("amp", False), {"lr": 1, "amp": False}, "amp: only the first has it, False"),
        (Ledger().remove("amp", False), {"lr": 1}, "amp: only the second has it, False"),
        (Ledger().rename("lr", "eta"), {"eta": 1}, "eta: only the first has it, 1; lr: only the second has it, 1"),
    ],
)
def test_a_run_that_contradicts_an_entry_is_named(ledger: Ledger, run: dict[str, Any], reason: str) -> None:
    ledger.check([("ab12", {"other": 1, "lr": 2, "amp": True})])
    with pytest.raises(SchemaError, match=f"run 0badc0de could not be told from another one: {reason}"):
        ledger.check([("ab12", {"lr": 2, "amp": True}), ("0badc0de", run)])
