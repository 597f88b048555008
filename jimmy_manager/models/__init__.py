"""Models that know how to take a step, and the blocks they are made of: ``from jimmy_manager.models import *``."""

from typing import Literal

import torch
import torch.nn.functional as func
from torch import Tensor, nn

from jimmy_manager.devices import DEVICE, getAutoCast
from jimmy_manager.models.cost import Cost, Speed, computation_cost, testCudaSpeed, testFlops

__all__ = [
    "DEVICE",
    "Cost",
    "Literal",
    "Speed",
    "Tensor",
    "computation_cost",
    "func",
    "getAutoCast",
    "nn",
    "testCudaSpeed",
    "testFlops",
    "torch",
]
