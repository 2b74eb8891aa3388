"""Which image comes when in training: pure arithmetic, the same on any number of workers.

The stream of samples is one shuffle of all rows after another, an epoch each. A step takes the next ``batch_size`` of
it, so every image is seen exactly once an epoch, and a run that is continued at a step sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WINDOW_ROWS = 8192
"""Rows that are shuffled together; a data set up to this size is shuffled as a whole."""


def num_steps(num_rows: int, *, num_epochs: int, batch_size: int) -> int:
    """Steps of a training run; the last, incomplete batch is left out, but there is one at least."""
    return max(1, num_rows * num_epochs // batch_size)


def samples_of_step(
    rows_of_shards: Sequence[int], step: int, *, batch_size: int, rng_seed: int
) -> list[tuple[int, int, int]]:
    """The samples of one step.

    Args:
        rows_of_shards: number of rows in each shard.
        step: from 0.

    Returns:
        ``batch_size`` triples (epoch, shard, row in the shard).
    """
    shards = tuple(rows_of_shards)
    num_rows = sum(shards)
    samples = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, index = divmod(position, num_rows)
        shard, row = epoch_order(shards, epoch, rng_seed)[index]
        samples.append((epoch, int(shard), int(row)))
    return samples


@lru_cache(maxsize=2)
def epoch_order(rows_of_shards: tuple[int, ...], epoch: int, rng_seed: int) -> NDArray[np.int32]:
    """The order of one epoch: shards shuffled, then the rows of neighbouring shards shuffled together.

    Returns:
        (N, 2) int32: shard and row in the shard, every row once.
    """
    rng = np.random.default_rng([rng_seed, epoch])
    order: list[NDArray[np.int32]] = []
    window: list[NDArray[np.int32]] = []
    size = 0
    for shard in rng.permutation(len(rows_of_shards)):
        rows = np.arange(rows_of_shards[shard], dtype=np.int32)
        window.append(np.stack([np.full_like(rows, shard), rows], axis=1))
        size += len(rows)
        if size >= WINDOW_ROWS:
            order.append(rng.permutation(np.concatenate(window)))
            window, size = [], 0
    if window:
        order.append(rng.permutation(np.concatenate(window)))
    return np.concatenate(order)
