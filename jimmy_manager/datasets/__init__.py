"""Datasets whose batches are dictionaries of tensors: ``from jimmy_manager.datasets import *``."""

from typing import Literal

import torch
from torch import Tensor, nn

from jimmy_manager.datasets.dict_dataset import DictDataset
from jimmy_manager.datasets.digits_dataset import DigitsDataset
from jimmy_manager.datasets.jimmy_dataset import JimmyDataset
from jimmy_manager.datasets.mnist_dataset import MNISTDataset, MNISTSampleDataset
from jimmy_manager.datasets.multi_thread_loader import MultiThreadLoader
from jimmy_manager.datasets.torch_dataset import TorchDataset, TorchLoader
from jimmy_manager.devices import DEVICE, getAutoCast

__all__ = [
    "DEVICE",
    "DictDataset",
    "DigitsDataset",
    "JimmyDataset",
    "Literal",
    "MNISTDataset",
    "MNISTSampleDataset",
    "MultiThreadLoader",
    "Tensor",
    "TorchDataset",
    "TorchLoader",
    "getAutoCast",
    "nn",
    "torch",
]
