"""Exponential moving average of a network's weights.

Source: Polyak and Juditsky 1992; the decay increases at the start as in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return the running average of the network, updated by ``update_parameters``; buffers are copied, not averaged.

    Args:
        decay: weight of the old average in each step, in (0, 1); lower in the first steps, so that a short training
            does not stay close to the initial weights.
    """
    return AveragedModel(network, multi_avg_fn=partial(_mix, decay=decay))


def _mix(averages: Sequence[Tensor], currents: Sequence[Tensor], num_averaged: Tensor | int, *, decay: float) -> None:
    count = int(num_averaged)
    for average, current in zip(averages, currents, strict=True):
        average.lerp_(current, 1 - min(decay, (1 + count) / (10 + count)))
