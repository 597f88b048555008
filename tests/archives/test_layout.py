from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.archives import layout

KEYS = st.text("0123456789abcdef", min_size=4, max_size=64)
NUMBERS = st.integers(1, 999_999_999)
LABELS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)


@given(KEYS, NUMBERS, st.integers(0, 999_999_999), LABELS)
def test_every_name_parses_to_what_it_was_made_of(key: str, generation: int, commit: int, label: str) -> None:
    made = {
        layout.config(key): ("configs", key, 0, 0, ""),
        layout.claim(key, generation): ("claims", key, generation, 0, ""),
        layout.stats(key, generation): ("stats", key, generation, 0, ""),
        layout.ckpt(key, generation, commit): ("ckpts", key, generation, commit, ""),
        layout.preview(key, generation, commit): ("previews", key, generation, commit, ""),
        layout.figure(key, generation, commit, label): ("previews", key, generation, commit, label),
    }
    for name, meaning in made.items():
        folder, _, last = name.rpartition("/")
        assert layout.parse(meaning[0], last) == meaning
        assert folder == layout.shard(meaning[0], key)
        assert layout.is_shard(folder.rpartition("/")[2])


@pytest.mark.parametrize(
    ("archive", "name"),
    [
        ("configs", "abcdef12.json\n"),
        ("configs", "ABCDEF12.json"),
        ("configs", "abc.json"),
        ("configs", "a" * 65 + ".json"),
        ("configs", ".abcdef12.json.0123456789abcdef"),
        ("configs", "abcdef12.json~"),
        ("configs", "abcdef12.g1.json"),
        ("claims", "abcdef12.json"),
        ("claims", "abcdef12.g0.json"),
        ("claims", "abcdef12.g01.json"),
        ("claims", "abcdef12.g-1.json"),
        ("claims", "abcdef12.g1.json.bak"),
        ("claims", "abcdef12.g\u0661.json"),
        ("claims", "abcdef12.g1234567890.json"),
        ("ckpts", "abcdef12.g1.pt"),
        ("ckpts", "abcdef12.g1.c01.pt"),
        ("ckpts", "abcdef12.g1.c1.pt/../x"),
        ("previews", "abcdef12.g1.c1.a.b.png"),
        ("previews", "abcdef12.g1.c1..png"),
        ("previews", "abcdef12.g1.c1.ä.png"),
        ("stats", "../abcdef12.g1.json"),
    ],
)
def test_a_name_that_differs_from_the_pattern_in_one_character_is_not_ours(archive: str, name: str) -> None:
    assert layout.parse(archive, name) is None


def test_a_looser_pattern_would_take_a_foreign_name(monkeypatch: pytest.MonkeyPatch) -> None:
    loose = re.compile(r"(?P<key>[0-9a-f]{4,64})\.g(?P<generation>[0-9]+)\.json")
    monkeypatch.setitem(layout._PATTERNS, "claims", loose)
    assert layout.parse("claims", "abcdef12.g01.json") == layout.parse("claims", "abcdef12.g1.json") is not None


def test_ten_comes_after_nine() -> None:
    names = [layout.claim("abcdef12", n).rpartition("/")[2] for n in (10, 9, 100)]
    parsed = [layout.parse("claims", name) for name in names]
    assert sorted(found.generation for found in parsed if found) == [9, 10, 100]
    assert sorted(names) != [names[1], names[0], names[2]]  # what sorting the names would say


@pytest.mark.parametrize("text", ["", "abc", "../..", "abcdef12\n", "ABCDEF12", "abcdefg1", "a" * 65, "abcd/ef1"])
def test_what_has_not_the_form_of_a_key_is_no_key(text: str) -> None:
    assert not layout.is_key(text)


@pytest.mark.parametrize("name", ["store.yaml", "claims/ab/abcdef12.g3.json", "ckpts/ab/abcdef12.g3.c1.pt"])
def test_scratch_names_are_unique_hidden_beside_their_target_and_no_record(name: str) -> None:
    made = {layout.scratch(name) for _ in range(1_000)}
    assert len(made) == 1_000
    folder, _, last = made.pop().rpartition("/")
    assert folder == name.rpartition("/")[0]
    assert last.startswith(".")
    assert layout.scratch_target(last) == name.rpartition("/")[2]
    assert all(layout.parse(archive, last) is None for archive in layout.ARCHIVES)


@pytest.mark.parametrize("name", ["abcdef12.g3.json", ".store.yaml.lock", ".x", ".abcdef12.json.0123"])
def test_what_is_no_scratch_file_is_not_called_one(name: str) -> None:
    assert layout.scratch_target(name) is None
