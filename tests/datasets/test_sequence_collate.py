"""Samples of different lengths become one padded batch, or are refused by field and sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from jimmy_manager.datasets.sequence_collate import collateSequences
from jimmy_manager.errors import DatasetError


def sample(length: int, number: int) -> dict[str, Any]:
    return {
        "traj": torch.full((length, 2), float(number)),
        "time": np.arange(length),
        "label": number,
        "weight": number / 2,
        "scale": torch.tensor(number),
        "name": f"trip {number}",
    }


def test_sequences_are_padded_numbers_stacked_and_the_rest_listed() -> None:
    batch = collateSequences([sample(2, 5), sample(3, 6)], pad_value=-1)
    assert batch["traj"].tolist() == [[[5, 5], [5, 5], [-1, -1]], [[6, 6], [6, 6], [6, 6]]]
    assert batch["time"].tolist() == [[0, 1, -1], [0, 1, 2]]
    assert batch["time"].dtype == torch.int64
    assert batch["label"].tolist() == [5, 6]
    assert batch["weight"].tolist() == [2.5, 3]
    assert batch["scale"].tolist() == [5, 6]
    assert batch["name"] == ["trip 5", "trip 6"]
    assert batch["lengths"].tolist() == [2, 3]
    assert batch["mask"].tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("target_len", [0, 2, 5])
def test_a_target_length_crops_and_pads_every_sequence(target_len: int) -> None:
    batch = collateSequences([sample(1, 5), sample(3, 6)], target_len)
    assert batch["traj"].shape == (2, target_len, 2)
    assert batch["time"].shape == batch["mask"].shape == (2, target_len)
    assert batch["lengths"].tolist() == [min(1, target_len), min(3, target_len)]
    assert batch["mask"].sum(1).tolist() == batch["lengths"].tolist()


def test_bare_tensors_and_arrays_are_the_field_data() -> None:
    for samples in ([torch.ones(2), torch.ones(1)], [np.ones(2), np.ones(1)]):
        batch = collateSequences(samples)
        assert batch["data"].tolist() == [[1, 1], [1, 0]]
        assert batch["lengths"].tolist() == [2, 1]


def test_fields_of_fixed_size_are_stacked_once_the_sequences_are_named() -> None:
    samples = [{"traj": torch.ones(n, 2), "attributes": torch.ones(8)} for n in (3, 8)]
    with pytest.raises(DatasetError, match="sample 0 with 8 elements of 'attributes' and 3 of 'traj'; name in seq"):
        collateSequences(samples)
    batch = collateSequences(samples, 10, sequence_keys=["traj"])
    assert batch["traj"].shape == (2, 10, 2)
    assert batch["attributes"].shape == (2, 8)


def test_samples_are_left_as_they_were() -> None:
    samples = [sample(2, 5), sample(3, 6)]
    collateSequences(samples, 1)["traj"].fill_(9)
    assert [len(each["traj"]) for each in samples] == [2, 3]
    assert samples[0]["traj"].tolist() == [[5, 5], [5, 5]]
    assert isinstance(samples[0]["time"], np.ndarray)
    assert "mask" not in samples[0]


def test_it_collates_for_a_data_loader() -> None:
    data: Any = [sample(length, length) for length in (1, 4, 2)]
    first, second = DataLoader(data, batch_size=2, collate_fn=collateSequences)
    assert first["traj"].shape == (2, 4, 2)
    assert second["lengths"].tolist() == [2]


@pytest.mark.parametrize(
    ("samples", "keys", "message"),
    [
        ([], None, "needs at least one sample"),
        ([{"a": torch.ones(1)}, {"b": torch.ones(1)}], None, r"sample 1 with the fields \['b'\] .* \['a'\]"),
        ([{"mask": torch.ones(1)}], None, "adds the fields .* rename 'mask'"),
        ([{"a": 1}], None, r"finds no sequence in the samples, whose fields are \['a'\]"),
        ([{"a": torch.ones(1)}], ["b"], r"finds no sequence 'b' in the samples, whose fields are \['a'\]"),
        ([{"a": 1}], ["a"], "collateSequences needs a tensor, not int"),
        ([{"a": torch.ones(2, 3)}, {"a": torch.ones(2, 4)}], None, r"sequence 1 of shape \(2, 4\)"),
        (
            [{"a": torch.ones(2), "b": torch.ones(n)} for n in (2, 3)],
            ["a"],
            r"cannot stack field 'b', whose shapes differ: \[\(2,\), \(3,\)\]",
        ),
    ],
)
def test_samples_that_make_no_batch_are_refused(samples: Any, keys: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        collateSequences(samples, sequence_keys=keys)
