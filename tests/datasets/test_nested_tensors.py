from collections import namedtuple

import torch

from jimmy_manager.datasets.nested_tensors import map_tensors


def test_tensors_are_found_wherever_a_batch_holds_them():
    Pair = namedtuple("Pair", "a b")
    batch = {"x": torch.ones(1), "more": [torch.ones(2), (torch.ones(3), "text")], "pair": Pair(torch.ones(4), None)}
    found = map_tensors(batch, len)
    assert found == {"x": 1, "more": [2, (3, "text")], "pair": Pair(4, None)}
