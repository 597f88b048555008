"""Moving averages: right, lazy, on any device, and back from a checkpoint float by float."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jimmy_manager.errors import CheckpointError, ConfigError, HookError
from jimmy_manager.training.moving_avg import MovingAvg, MovingAvgGroup

finite = st.floats(-1e6, 1e6)


def through_a_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict = torch.load(buffer, weights_only=True)
    return loaded


@given(st.lists(finite, min_size=1, max_size=40), st.integers(1, 12), st.data())
def test_the_mean_is_that_of_the_last_values_whether_floats_or_tensors(
    values: list[float], window_size: int, data: st.DataObject
) -> None:
    average = MovingAvg(window_size)
    for value in values:
        average.update(torch.tensor(value, dtype=torch.float64) if data.draw(st.booleans()) else value)
        if data.draw(st.booleans()):
            average.get()
    last = values[-window_size:]
    assert average.get() == pytest.approx(math.fsum(last) / len(last), rel=1e-10, abs=1e-9)
    assert average.toList() == last
    assert len(average) == len(last)


def test_an_empty_window_has_the_mean_nan() -> None:
    assert math.isnan(MovingAvg(3).get())
    assert len(MovingAvg(3)) == 0
    assert math.isnan(MovingAvgGroup(["a"], 3).get()["a"])


@pytest.mark.parametrize("window_size", [0, -1, 2.5, True, "10", None])
def test_a_window_that_is_no_positive_int_is_refused(window_size: object) -> None:
    with pytest.raises(ConfigError, match="window_size is "):
        MovingAvg(window_size)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="window_size is "):
        MovingAvgGroup(["a"], window_size)  # type: ignore[arg-type]


def test_values_that_are_not_finite_pass_through_the_window_and_leave_it() -> None:
    average = MovingAvg(2)
    average.extend([math.inf, -math.inf])
    assert math.isnan(average.get())
    average.extend([1.0, 2.0])
    assert average.get() == 1.5


def test_nothing_is_read_back_before_somebody_asks() -> None:
    # A tensor on the meta device has no values: whatever reads it raises.
    average, group = MovingAvg(2), MovingAvgGroup(["a"], 2)
    average.update(torch.zeros((), device="meta"))
    average.extend([torch.zeros(1, device="meta")])
    group.update({"a": torch.zeros((), device="meta")})
    assert len(average) == 2
    with pytest.raises((NotImplementedError, RuntimeError)):
        average.get()


def test_a_group_reads_all_that_waits_with_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    read = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: copies.append(1) or read(tensor))
    group = MovingAvgGroup(["a", "b"], 10)
    for i in range(25):
        group.update(a=torch.tensor(i), b=torch.tensor(2.0 * i))
    assert group.get() == {"a": 19.5, "b": 39.0}
    assert len(copies) == 1
    group.get()
    assert len(copies) == 1


def test_a_tensor_may_be_changed_after_it_was_added() -> None:
    loss, average = torch.tensor(4.0), MovingAvg(3)
    average.update(loss)
    loss /= 4
    assert average.get() == 4.0


def test_a_tensor_keeps_no_graph_alive() -> None:
    average = MovingAvg(3)
    average.update(torch.tensor(2.0, requires_grad=True) * 3)
    assert not any(value.requires_grad for value in average._waiting)
    assert average.get() == 6.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool])
def test_any_dtype_is_taken_beside_any_other(dtype: torch.dtype) -> None:
    average = MovingAvg(4)
    average.extend([torch.tensor(1, dtype=dtype), torch.tensor(0.5), 3])
    assert average.get() == 1.5


def test_a_tensor_of_several_numbers_is_refused() -> None:
    with pytest.raises(HookError, match=r"not a tensor of shape \(3,\)"):
        MovingAvg(4).update(torch.zeros(3))


def test_a_group_takes_mappings_keywords_and_rows() -> None:
    group = MovingAvgGroup(["x", "y"], 5)
    group.update({"y": 1.0, "x": 2.0})
    group.update(x=4.0, y=3.0)
    group.extend([(6.0, 5.0), {"x": 8.0, "y": 7.0}])
    assert group.toList() == {"x": [2.0, 4.0, 6.0, 8.0], "y": [1.0, 3.0, 5.0, 7.0]}
    assert list(group.get()) == ["x", "y"]
    assert len(group) == 4


def test_a_group_names_what_is_missing_or_unknown_and_adds_nothing() -> None:
    group = MovingAvgGroup(["Train/Main", "Train/MAE"], 5)
    with pytest.raises(HookError, match=r"missing are \['Train/MAE'\], unknown are \['MAE'\]"):
        group.update({"Train/Main": 1.0, "MAE": 2.0})
    with pytest.raises(HookError, match="a row of 1 values for the 2 averages"):
        group.extend([(1.0,)])
    with pytest.raises(HookError, match="not a tensor of shape"):
        group.update({"Train/Main": 1.0, "Train/MAE": torch.zeros(2)})
    assert len(group) == 0


@given(st.lists(finite, max_size=30))
def test_saved_averages_come_back_float_by_float(values: list[float]) -> None:
    average, group = MovingAvg(7), MovingAvgGroup(["a", "b"], 7)
    average.extend(torch.tensor(values, dtype=torch.float64))
    group.extend([(value, -value) for value in values])
    other, others = MovingAvg(7), MovingAvgGroup(["a", "b"], 7)
    other.update(1.0)
    others.update(a=1.0, b=1.0)
    other.load_state_dict(through_a_file(average.state_dict()))
    others.load_state_dict(through_a_file(group.state_dict()))
    assert (other.toList(), others.toList()) == (average.toList(), group.toList())
    average.update(0.1)
    other.update(0.1)
    assert other.get() == average.get()


def test_a_smaller_window_takes_the_newest_of_the_saved_values() -> None:
    average = MovingAvg(2)
    average.load_state_dict({"values": [1.0, 2.0, 3.0]})
    assert average.toList() == [2.0, 3.0]


def test_a_state_that_lacks_values_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="'values'"):
        MovingAvg(2).load_state_dict({})
    with pytest.raises(CheckpointError, match="no 'b'"):
        MovingAvgGroup(["a", "b"], 2).load_state_dict({"values": {"a": [1.0]}})
    with pytest.raises(CheckpointError, match="no 'a'"):
        MovingAvgGroup(["a", "b"], 2).load_state_dict({})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_an_update_waits_for_nothing() -> None:
    average, loss = MovingAvg(3), torch.tensor(1.0, device="cuda:0")
    torch.cuda.set_sync_debug_mode("error")
    try:
        average.update(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    average.update(3.0)
    assert average.get() == 2.0
