"""Models that know how to take a step, and the blocks they are made of: ``from jimmy_manager.models import *``."""

from typing import Literal

import torch
import torch.nn.functional as func
from torch import Tensor, nn

from jimmy_manager.devices import DEVICE, getAutoCast

__all__ = ["DEVICE", "Literal", "Tensor", "func", "getAutoCast", "nn", "torch"]
