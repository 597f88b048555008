"""Datasets whose batches are dictionaries of tensors: ``from jimmy_manager.datasets import *``."""

from typing import Literal

import torch
from torch import Tensor, nn

from jimmy_manager.datasets.dict_dataset import DictDataset
from jimmy_manager.datasets.digits_dataset import DigitsDataset
from jimmy_manager.datasets.jimmy_dataset import JimmyDataset
from jimmy_manager.datasets.mnist_dataset import MNISTDataset, MNISTSampleDataset
from jimmy_manager.datasets.multi_thread_loader import MultiThreadLoader
from jimmy_manager.datasets.sequence_collate import collateSequences
from jimmy_manager.datasets.sequence_packing import packByLength, packSequences, unpackSequences
from jimmy_manager.datasets.sequences import (
    cropPadSequence,
    cropSequences,
    lengthsFromMask,
    lengthsToMask,
    padSequences,
    shiftForNextStep,
    slidingWindows,
)
from jimmy_manager.datasets.torch_dataset import TorchDataset, TorchLoader
from jimmy_manager.datasets.trajectories import (
    BatchTraj,
    Traj,
    centerTraj,
    cropPadTraj,
    flipTrajNorthSouth,
    flipTrajWestEast,
    getLat,
    getLng,
    interpTraj,
    minMaxTraj,
    rotateTraj,
    zScoreTraj,
)
from jimmy_manager.datasets.trajectory_measures import EARTH_RADIUS_M, computeDistance, computeJSD, geometricDistance
from jimmy_manager.datasets.trajectory_plot import plotTraj
from jimmy_manager.devices import DEVICE, getAutoCast

__all__ = [
    "DEVICE",
    "EARTH_RADIUS_M",
    "BatchTraj",
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
    "Traj",
    "centerTraj",
    "collateSequences",
    "computeDistance",
    "computeJSD",
    "cropPadSequence",
    "cropPadTraj",
    "cropSequences",
    "flipTrajNorthSouth",
    "flipTrajWestEast",
    "geometricDistance",
    "getAutoCast",
    "getLat",
    "getLng",
    "interpTraj",
    "lengthsFromMask",
    "lengthsToMask",
    "minMaxTraj",
    "nn",
    "packByLength",
    "packSequences",
    "padSequences",
    "plotTraj",
    "rotateTraj",
    "shiftForNextStep",
    "slidingWindows",
    "torch",
    "unpackSequences",
    "zScoreTraj",
]
