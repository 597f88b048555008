from __future__ import annotations

import pytest
import torch

from jimmy_manager.errors import ConfigError
from jimmy_manager.models.extend_as import extendAs


def test_a_value_a_sample_broadcasts_over_all_of_its_sample() -> None:
    scale, x = torch.randn(4), torch.randn(4, 4, 4)
    scaled = extendAs(scale, x) * x
    for i in range(4):
        assert torch.equal(scaled[i], scale[i] * x[i])
    assert not torch.equal(scaled, scale * x)  # what torch makes of it without complaint


@pytest.mark.parametrize("shape", [(), (3,), (3, 5), (3, 5, 2)])
def test_values_are_shared_and_dimensions_appended(shape: tuple[int, ...]) -> None:
    a, b = torch.randn(shape), torch.zeros(3, 5, 2)
    extended = extendAs(a, b)
    assert extended.shape == (*shape, *(1,) * (3 - len(shape)))
    assert extended.data_ptr() == a.data_ptr()


def test_more_dimensions_than_those_of_the_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(2, 1\) to the fewer dimensions of \(2,\)"):
        extendAs(torch.zeros(2, 1), torch.zeros(2))
