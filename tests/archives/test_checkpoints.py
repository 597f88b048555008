from __future__ import annotations

import ast
import errno
import io
import os
import pickle
from collections import Counter, OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jimmy_manager
from jimmy_manager import packing
from jimmy_manager.archives import checkpoints
from jimmy_manager.archives.files import Content
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import CheckpointError, UnreadableRecord
from tests.archives.runs import attempt_at, commit, filling, saved, train

CONFIG = {"lr": 0.1}
PACKAGE = Path(jimmy_manager.__file__).parent


def loaded(raw: bytes) -> dict[str, Any]:
    return checkpoints.load(io.BytesIO(raw), "ckpts/x.pt")


def round_trip(value: Any) -> Any:
    return loaded(saved({"v": value}))["v"]


def assert_same(first: Any, second: Any) -> None:
    """Equal in type and value, to the bit, all the way down."""
    # numpy's long long is another type than its int64, with an equal dtype.
    assert type(first) is type(second) or isinstance(second, np.longlong | np.ulonglong)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert first.shape == second.shape
        assert first.requires_grad == second.requires_grad
        assert first.contiguous().flatten().view(torch.uint8).equal(second.contiguous().flatten().view(torch.uint8))
    elif isinstance(first, np.ndarray | np.generic):
        assert first.dtype == second.dtype
        assert first.dtype.str == second.dtype.str
        assert first.shape == second.shape
        # A long double is padded with bytes that mean nothing.
        assert first.tobytes() == second.tobytes() or (first.dtype.char in "gG" and np.array_equal(first, second))
    elif isinstance(first, dict):
        assert list(first) == list(second)
        assert list(map(type, first)) == list(map(type, second))
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for left, right in zip(first, second, strict=True):
            assert_same(left, right)
    else:
        assert first == second or repr(first) == repr(second)


PLAIN = [
    None, True, False, 0, -1, 255, 256, 2**31, -(2**63), 2**1999, 2**2000, 2**2040, -(10**1_000), 10**5_000, 0.1, -0.0,
    float("inf"), float("nan"), 1e-320, 1 - 2j, "", "ä€𝄞", "a\0b", "\ud800", b"", b"\0\xff\x80",
    b"x" * 100_000, "x" * 100_000,
]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back(value: Any) -> None:
    assert_same(round_trip(value), value)
    assert_same(round_trip([value, {"k": (value,)}]), [value, {"k": (value,)}])


CONTAINERS = [
    [], (), {}, set(), frozenset(), [[], ((),)], ((1, [2, (3,)]), {"a": ({},)}), {1, "a", (2, 3), frozenset({4})},
    frozenset({b"x", None}), {1: "a", "1": "b", 2.5: "c", None: "d", (1, "x"): "e", True + 1: "f", b"k": "g"},
    OrderedDict(b=1, a=2), {"items": {"raw": [1], "dtype": "x"}},
]


@pytest.mark.parametrize("value", CONTAINERS, ids=range(len(CONTAINERS)))
def test_containers_come_back_in_their_order(value: Any) -> None:
    assert_same(round_trip(value), value)


DTYPES = [
    *(code for code in np.typecodes["All"] if code not in "OUSVmM"),
    "U3", "S3", "V3", "datetime64[ns]", "timedelta64[s]", ">f4", ">i8", ">c16", ">u2", ">U3",
]


def array_of(dtype: str) -> Any:
    """Twelve different values (four for texts that have no room for more)."""
    if np.dtype(dtype).kind in "USV":
        return np.array([b"a", b"bc", b"", b"def"] * 3).astype(dtype).reshape(3, 4)
    return (np.arange(12) * 7 - 3).astype("i8").astype(dtype).reshape(3, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_and_scalars_of_every_type_come_back_to_the_bit(dtype: str) -> None:
    array = array_of(dtype)
    zero_d = array.reshape(-1)[1:2].reshape(())
    for value in (array, array.T, array[::2], array[..., ::-1], array[:0], zero_d, array[None]):
        assert_same(round_trip(value), value)
    assert isinstance(array[0, 1], np.generic)
    assert_same(round_trip(array[0, 1]), array[0, 1])


def test_arrays_keep_their_order_in_memory_where_it_is_one_of_the_two() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert round_trip(array).flags.c_contiguous
    assert round_trip(array.T).flags.f_contiguous
    assert round_trip(np.asfortranarray(array)).strides == np.asfortranarray(array).strides


def test_what_comes_back_can_be_written_to() -> None:
    array = round_trip(np.arange(3))
    array += 1
    assert array.tolist() == [1, 2, 3]


def test_a_mapped_file_comes_back_as_an_array(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x", dtype="i4", mode="w+", shape=(3,))
    mapped[:] = 5
    assert_same(round_trip(mapped), np.full(3, 5, "i4"))
    del mapped


TENSORS = {
    "float": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "bf16": torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "half": torch.ones(2).half(),
    "float8": torch.ones(2).to(torch.float8_e4m3fn),
    "bool": torch.tensor([True, False]),
    "int64": torch.tensor(2**62),
    "complex": torch.tensor([1 + 2j]),
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
    "transposed": torch.arange(6).reshape(2, 3).T,
    "view": torch.arange(10)[2:5],
    "grad": torch.ones(2, requires_grad=True),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
    "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    "random state": torch.get_rng_state(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_back_to_the_bit(name: str) -> None:
    assert_same(round_trip(TENSORS[name]), TENSORS[name])


def test_sparse_tensors_types_sizes_and_devices_come_back() -> None:
    assert round_trip(torch.eye(3).to_sparse()).to_dense().equal(torch.eye(3))
    for value in (torch.bfloat16, torch.Size([1, 2]), torch.device("cpu")):
        assert_same(round_trip(value), value)


def test_a_buffer_and_a_tensor_with_plain_attributes_come_back() -> None:
    marked = torch.ones(2)
    marked.note = "mine"  # type: ignore[attr-defined]
    assert round_trip(marked).equal(torch.ones(2))
    assert round_trip(torch.nn.Buffer(torch.ones(2))).equal(torch.ones(2))


def test_tensors_that_share_memory_share_it_again() -> None:
    base = torch.arange(6.0)
    back = round_trip({"base": base, "view": base[2:4], "same": [base]})
    back["base"][2] = 100
    assert back["view"][0] == 100
    assert back["same"][0][2] == 100


def test_a_state_dictionary_keeps_order_versions_and_bits() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict()
    back = round_trip(state)
    assert type(back) is OrderedDict
    assert back._metadata == state._metadata
    assert back._metadata["1"]["version"] == 2
    assert_same(dict(back), dict(state))
    torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).load_state_dict(back)


def test_an_optimizer_and_a_scheduler_go_on_from_what_came_back() -> None:
    def made() -> tuple[Any, ...]:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def step(model: Any, optimizer: Any, scheduler: Any) -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()

    through, resumed = made(), made()
    for _ in range(3):
        step(*through)
    back = round_trip([part.state_dict() for part in through])
    for part, state in zip(resumed, back, strict=True):
        part.load_state_dict(state)
    for parts in (through, resumed):
        step(*parts)
    assert_same(dict(resumed[0].state_dict()), dict(through[0].state_dict()))


def test_mappings_of_other_kinds_come_back_as_dicts() -> None:
    assert_same(round_trip(Counter("aab")), {"a": 2, "b": 1})
    assert_same(round_trip(jimmy_manager.Config({"a": {"b": 1}})), {"a": {"b": 1}})


class Sub(torch.Tensor):
    pass


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _marked(value: Any) -> torch.Tensor:
    tensor = torch.ones(1)
    tensor.hook = value  # type: ignore[attr-defined]
    return tensor


REFUSED = {
    "lambda": (lambda: 0, "type builtins.function"),
    "path": (Path("x"), "PosixPath"),
    "module": (torch.nn.Linear(1, 1), r"state_dict\(\)"),
    "optimizer class": (torch.optim.SGD, "builtins.type"),
    "object array": (np.array([object()]), "dtype object"),
    "structured array": (np.zeros(1, dtype=[("a", "i4")]), "dtype"),
    "masked array": (np.ma.array([1, 2], mask=[0, 1]), "MaskedArray"),
    "record array": (np.zeros(1, dtype="i4").view(np.recarray), "recarray"),
    "string dtype": (np.array(["a"], dtype=np.dtypes.StringDType()), "StringDType"),
    "tensor subclass": (torch.ones(1).as_subclass(Sub), "Sub"),
    "tensor with an object": (_marked(object()), "attribute 'hook'"),
    "uninitialized": (torch.nn.UninitializedParameter(), "Uninitialized"),
    "named tuple": (namedtuple("P", "x")(1), "P"),
    "generator": (np.random.default_rng(0), "Generator"),
    "torch generator": (torch.Generator(), "Generator"),
    "bytearray": (bytearray(b"x"), "bytearray"),
    "key": ({Path("x"): 1}, "key of type PosixPath"),
    "key in a tuple": ({(Path("x"), 1): 1}, "key of type tuple"),
    "numpy key": ({np.int64(1): 1}, "key of type int64"),
    "long key": ({2**3_000: 1}, "key of type int"),
    "reserved key": ({"__jimmy__": 1}, "reserved"),
    "itself": (_cycle(), "contains itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_come_back_is_refused_when_saved_with_its_path(name: str) -> None:
    value, reason = REFUSED[name]
    file = io.BytesIO()
    with pytest.raises(CheckpointError, match=reason) as caught:
        checkpoints.save({"model": [0, {"x": value}]}, file)
    assert str(caught.value).startswith("ckpt['model'][1]['x']")
    assert file.getvalue() == b""


UNREADABLE = ["path", "optimizer class", "tensor subclass", "tensor with an object", "key", "key in a tuple"]


@pytest.mark.parametrize("name", UNREADABLE)
def test_without_the_refusal_it_would_be_lost_on_loading(name: str) -> None:
    """torch saves all of these without a word; the run that is to resume from them cannot."""
    file = io.BytesIO()
    torch.save({"x": REFUSED[name][0]}, file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)


def test_a_number_type_that_numpy_does_not_know_by_its_code_is_refused() -> None:
    """bfloat16 arrays call themselves "<V2": they would come back as two bytes without a meaning."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(CheckpointError, match="bfloat16"):
        saved({"x": np.ones(2, ml_dtypes.bfloat16)})


@pytest.mark.parametrize("directory", [True, False])
def test_an_array_changed_in_place_after_the_save_does_not_change_what_is_read(tmp_path: Path, directory: bool) -> None:
    store = Store(tmp_path / "s" if directory else None)
    ckpt = {"a": np.arange(3), "t": torch.arange(3), "l": [1], "d": {"x": 1}}
    attempt = attempt_at(store, CONFIG)
    commit(attempt, 1, ckpt)
    ckpt["a"][0], ckpt["t"][0] = 100, 100
    ckpt["l"].append(2)
    ckpt["d"]["x"] = 2
    back = store.ckpts[attempt.key]
    assert_same(back, {"a": np.arange(3), "t": torch.arange(3), "l": [1], "d": {"x": 1}})
    back["a"][1], back["t"][1] = 200, 200
    assert_same(store.ckpts[attempt.key]["a"], np.arange(3))
    assert_same(store.ckpts[attempt.key]["t"], torch.arange(3))


def test_packing_alone_takes_the_array_as_it_is_now() -> None:
    array = np.arange(3)
    packed = packing.pack({"a": array})
    array[0] = 100
    assert packing.unpack(packed)["a"].tolist() == [0, 1, 2]


# ---- nothing that is read is executed


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


def _planted(attempt_bytes: bytes, store: Store) -> str:
    attempt = attempt_at(store, CONFIG)
    preview = b"{}"
    attempt.commit(epoch=1, checkpoint=filling(attempt_bytes), preview=preview)
    return attempt.key


def _bombs() -> dict[str, bytes]:
    zipped = io.BytesIO()
    torch.save({"x": Bomb()}, zipped)
    legacy = io.BytesIO()
    torch.save({"x": Bomb()}, legacy, _use_new_zipfile_serialization=False)
    return {"pickle": pickle.dumps(Bomb()), "zip": zipped.getvalue(), "legacy": legacy.getvalue()}


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_planted_pickle_with_a_matching_digest_does_not_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "s")
    key = _planted(_bombs()[kind], store)
    with pytest.raises(CheckpointError, match=rf"ckpts/{key[:2]}/{key}\.g1\.c1\.pt"):
        store.ckpts[key]
    assert not Path("exploded").exists()


def test_the_bomb_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(_bombs()["pickle"])
    assert Path("exploded").exists()


def test_an_array_of_objects_cannot_be_planted() -> None:
    file, raw = io.BytesIO(), torch.zeros(8, dtype=torch.uint8)
    torch.save({"x": {"__jimmy__": "array", "dtype": "O", "shape": [1], "order": "C", "raw": raw}}, file)
    with pytest.raises(CheckpointError, match=r"ckpts/x\.pt"):
        loaded(file.getvalue())


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
UNSAFE_CALLS = {
    "eval", "exec", "builtins.eval", "builtins.exec", "__import__", "os.system", "yaml.load", "yaml.load_all",
    "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.Loader", "yaml.FullLoader",
}


def unsafe_calls(source: str) -> list[str]:
    """Everything in ``source`` that could execute what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in UNSAFE_CALLS:
            found.append(called)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in {"torch.load", "torch.jit.load", "load_file"} and options.get("weights_only") != "True":
            found.append(called)
        if options.get("allow_pickle", "False") != "False":
            found.append(called)
    return found


def test_the_package_has_no_call_that_executes_what_it_reads() -> None:
    found = {str(path): unsafe_calls(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: calls for path, calls in found.items() if calls} == {}
    assert len(found) > 20


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import a, joblib.x", "eval(x)", "exec(x)", "yaml.load(f)",
        "yaml.load(f, Loader=yaml.Loader)", "yaml.unsafe_load(f)", "np.load(f, allow_pickle=True)", "torch.load(f)",
        "torch.load(f, weights_only=False)", "torch.load(f, weights_only=flag)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(line: str) -> None:
    assert unsafe_calls(f"def f(x):\n    {line}\n")
    assert not unsafe_calls("torch.load(f, map_location='cpu', weights_only=True)")


# ---- absent, unreadable, damaged


class Failing(io.BytesIO):
    """A file that stops being readable after it was verified."""

    fails = False

    def read(self, *args: Any) -> bytes:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(*args)

    readinto = property()  # type: ignore[assignment]  # torch then uses read alone


def test_a_file_that_stops_being_readable_under_torch_is_unreadable_and_not_passed_over() -> None:
    file = Failing(saved({"w": torch.ones(3)}))
    file.fails = True
    with pytest.raises(UnreadableRecord, match="Input/output error") as caught:
        checkpoints.load(file, "ckpts/x.pt")
    assert caught.value.errno == errno.EIO


def test_no_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", exhausted)
    with pytest.raises(MemoryError):
        loaded(saved({}))


def test_the_error_of_a_refused_file_is_one_line_without_control_characters() -> None:
    file = io.BytesIO()
    torch.save({"x": Path("x")}, file)
    with pytest.raises(CheckpointError) as caught:
        loaded(file.getvalue())
    assert str(caught.value).isprintable()


def test_the_file_is_the_same_for_the_same_values() -> None:
    ckpt = {"w": torch.ones(3), "s": {"b", "a", "c"}, "n": np.arange(3)}
    assert Content.of(saved(ckpt)) == Content.of(saved(ckpt))


def test_a_whole_run_comes_back_through_the_store(tmp_path: Path) -> None:
    ckpt = {"model": torch.nn.Linear(2, 2).state_dict(), "records": {1: {"loss": np.float32(0.5)}}}
    store = Store(tmp_path / "s")
    assert_same(store.ckpts[train(store, CONFIG, ckpt=ckpt)], ckpt)
