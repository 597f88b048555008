from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.archives import previews
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import CheckpointError, DamagedRecord
from tests.archives.runs import attempt_at, commit, train

KEY = "abcdef12"
PNG = b"\x89PNG\r\n\x1a\n"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text() | st.integers(), below, max_size=4),
    max_leaves=12,
)


def round_trip(value: Any) -> Any:
    raw, figures = previews.save({"v": value}, KEY)
    assert figures == {}
    json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return previews.load(raw, "previews/x.json")["v"]


def figure() -> Any:
    from matplotlib.figure import Figure

    mpl.use("agg")
    drawn = Figure(figsize=(1, 1))
    drawn.subplots().plot([1, 2])
    return drawn


@given(st.dictionaries(st.text() | st.integers(), JSON, max_size=5))
def test_json_values_and_integer_keys_come_back(preview: dict[Any, Any]) -> None:
    raw, _ = previews.save(preview, KEY)
    back = previews.load(raw, "x.json")
    assert back == preview
    assert list(map(type, back)) == list(map(type, preview))


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e-320, -0.0, 1, 1.0, True])
def test_numbers_keep_value_and_type(value: Any) -> None:
    assert repr(round_trip(value)) == repr(value)


def test_nan_comes_back() -> None:
    assert math.isnan(round_trip([float("nan")])[0])


@pytest.mark.parametrize(
    "tagged",
    [
        {"$float": "nan"}, {"$array": {"dtype": "f8", "shape": [0], "raw": ""}}, {"$figure": "x"}, {"$int:3": 1},
        {"$": 1}, {"$$float": "nan"}, {3: 1, "3": 2, "$int:3": 3}, {"$float": {"$float": 1}},
    ],
)
def test_what_looks_like_a_tag_is_the_users_own(tagged: Any) -> None:
    assert round_trip(tagged) == tagged


def test_tuples_come_back_as_lists_and_configurations_as_dicts() -> None:
    from jimmy_manager import Config

    assert round_trip((1, (2,))) == [1, [2]]
    assert round_trip(Config({"a": {"b": 1}})) == {"a": {"b": 1}}


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", "f2", "f4", "f8", ">f4", ">i2"])
def test_arrays_come_back_to_the_bit(dtype: str) -> None:
    array = np.arange(6).astype(dtype).reshape(2, 3)
    for value in (array, array.T, array[::2], array[:0]):
        back = round_trip(value)
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert back.tobytes() == value.tobytes()
        back[...] = 0  # it is the reader's own


def test_arrays_with_nan_and_infinity_come_back_to_the_bit() -> None:
    array = np.array([np.nan, np.inf, -0.0])
    assert round_trip(array).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5), (np.float64(0.1), 0.1), (np.int8(-3), -3), (np.uint64(2**63), 2**63),
        (np.bool_(1), True), (np.str_("ä"), "ä"), (np.longdouble(0.5), 0.5), (np.array(2), 2),
        (torch.tensor(0.5), 0.5), (torch.tensor(3), 3), (torch.tensor(True), True),
        (torch.ones((), requires_grad=True), 1.0), (torch.tensor(0.5).bfloat16(), 0.5),
    ],
)
def test_scalars_of_numpy_and_torch_come_back_as_plain_ones(value: Any, plain: Any) -> None:
    back = round_trip(value)
    assert type(back) is type(plain)
    assert back == plain


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn", "int64", "bool"])
def test_tensors_come_back_as_arrays(dtype: str) -> None:
    back = round_trip(torch.tensor([[1.0, 0.0]]).to(getattr(torch, dtype)))
    assert back.tolist() == [[1, 0]]
    assert back.shape == (1, 2)


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Path("x"), "PosixPath"), ({1, 2}, "builtins.set"), (b"x", "builtins.bytes"), (1j, "builtins.complex"),
        (lambda: 0, "function"), (np.array([object()]), "ndarray"), (np.ma.array([1], mask=[1]), "MaskedArray"),
        (np.array([1j]), "ndarray"), (np.bytes_(b"x"), "bytes_"), (torch.tensor([1j]), "torch.Tensor"),
        (torch.eye(2).to_sparse(), "torch.Tensor"), (torch.ones(2, device="meta"), "torch.Tensor"),
        ({1.5: 0}, "key of type float"), ({True: 0}, "key of type bool"), ({(1,): 0}, "key of type tuple"),
        (np.zeros(1_001), "1001 elements, a preview holds up to 1000"), (torch.zeros(7, 143), "1001 elements"),
        (_cycle(), "contains itself"), (1 << 20_000, "13000 bits"), (-1 << 20_000, "13000 bits"),
    ],
    ids=range(20),
)
def test_what_a_preview_cannot_hold_is_refused_with_its_path(value: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        previews.save({"records": [0, {3: value}]}, KEY)
    assert str(caught.value).startswith("preview['records'][1][3]")


@pytest.mark.parametrize("value", [[1], None, 3, np.zeros(3)])
def test_a_preview_is_a_dict(value: Any) -> None:
    with pytest.raises(CheckpointError, match="must be a dict"):
        previews.save(value, KEY)


def test_a_thousand_elements_and_a_mebibyte_are_allowed_and_one_more_is_not() -> None:
    assert round_trip(np.zeros(1_000)).size == round_trip(torch.zeros(1_000)).size == 1_000
    fixed = len(previews.save({"small": 1, "big": ""}, KEY)[0])
    most = "x" * (previews.MOST_BYTES - fixed)
    assert len(previews.save({"small": 1, "big": most}, KEY)[0]) == previews.MOST_BYTES == 1 << 20
    with pytest.raises(CheckpointError, match=r"1048577 bytes, 'big' most of them; at most 1048576 are allowed"):
        previews.save({"small": 1, "big": most + "x"}, KEY)


def test_a_preview_that_is_the_checkpoint_works_or_says_why() -> None:
    ckpt = {"epoch": 3, "eval_records": {1: {"loss": np.float32(0.5)}, 2: {"loss": torch.tensor(0.25)}}}
    raw, _ = previews.save(ckpt, KEY)
    assert previews.load(raw, "x") == {"epoch": 3, "eval_records": {1: {"loss": 0.5}, 2: {"loss": 0.25}}}
    ckpt["model"] = torch.nn.Linear(100, 100).state_dict()
    with pytest.raises(CheckpointError, match=r"preview\['model'\]\['weight'\] is an array of 10000 elements"):
        previews.save(ckpt, KEY)


def test_a_figure_becomes_a_png_and_its_label() -> None:
    raw, figures = previews.save({"loss curve": figure(), "n": 1}, KEY)
    assert previews.load(raw, "x") == {"loss curve": "loss_curve", "n": 1}
    assert list(figures) == ["loss_curve"]
    assert figures["loss_curve"].startswith(PNG)


def test_a_list_of_runs_has_the_label_of_a_figure() -> None:
    raw, _ = previews.save({"loss curve": figure(), "n": {"array": np.arange(3), "own": {"$figure": "x"}}}, KEY)
    assert previews.load_scalars(raw, "x") == {"loss curve": "loss_curve", "n.own.$figure": "x"}


def test_no_two_figures_share_a_file_on_any_file_system() -> None:
    names = ["a", "A", "a ", "a_2", "ä", "ö", "x" * 100, "x" * 99 + "y", "a!", "../../a"]
    raw, figures = previews.save({name: figure() for name in names}, KEY)
    assert len({label.casefold() for label in figures}) == len(names)
    assert all(len(label) <= 64 and previews._LABEL.fullmatch(label) for label in figures)
    assert set(previews.load(raw, "x").values()) == set(figures)


@pytest.mark.parametrize("directory", [True, False])
def test_figures_are_read_back_through_the_store(tmp_path: Path, directory: bool) -> None:
    store = Store(tmp_path / "s" if directory else None)
    attempt = attempt_at(store, {"lr": 0.1})
    commit(attempt, 1, curve=figure())
    assert store.previews[attempt.key] == {"epoch": 1, "curve": "curve"}
    assert store.previews.figures(attempt.key)["curve"].startswith(PNG)


def test_a_changed_figure_is_reported_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    attempt = attempt_at(store, {"lr": 0.1})
    commit(attempt, 1, curve=figure())
    name = f"previews/{attempt.key[:2]}/{attempt.key}.g1.c1.curve.png"
    path = tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedRecord, match=name.replace(".", r"\.")):
        store.previews.figures(attempt.key)


def test_reading_previews_needs_neither_torch_nor_checkpoints(tmp_path: Path) -> None:
    import subprocess
    import sys

    key = train(Store(tmp_path / "s"), {"lr": 0.1})
    for path in (tmp_path / "s/ckpts").rglob("*.pt"):
        path.unlink()
    program = (
        "import sys; from jimmy_manager import Store\n"
        f"store = Store({str(tmp_path / 's')!r}, read_only=True)\n"
        f"print(store.previews[{key!r}], store.stats[{key!r}]['epoch'], 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    root = Path(previews.__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout == "{'epoch': 2} 2 False False\n"


def test_arrays_are_stored_as_bytes_and_not_as_decimals() -> None:
    raw, _ = previews.save({"a": np.array([0.1], "f4")}, KEY)
    stored = json.loads(raw)["data"]["preview"]["a"]["$array"]
    assert stored == {"dtype": "<f4", "shape": [1], "raw": base64.b64encode(np.array([0.1], "<f4").tobytes()).decode()}
    assert io.BytesIO(base64.b64decode(stored["raw"])).read() == b"\xcd\xcc\xcc="
