"""Order of the training samples: pure arithmetic, independent of the number of workers.

Each epoch is a shuffle of all rows. A step takes the next ``batch_size`` samples, so every image is seen exactly once
per epoch, and a run that resumes at a step sees the samples of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WINDOW_ROWS = 8192
"""Rows that are shuffled together; a data set of at most this size is shuffled as a whole."""


def num_steps(num_rows: int, *, num_epochs: int, batch_size: int) -> int:
    """Number of steps; the last, incomplete batch is dropped, but there is at least one step."""
    return max(1, num_rows * num_epochs // batch_size)


def schedule(start: int, steps: int, *, steps_per_epoch: int, held_out_steps: int) -> Iterator[tuple[int, bool]]:
    """Order of the batches: (step, False) for training, and after each epoch (number, True) for validation.

    Args:
        start: steps that are complete, including the validation after them.
        steps: number of steps; a validation follows the last.
        held_out_steps: batches per validation.
    """
    for step in range(start, steps):
        yield step, False
        if ends_epoch(step + 1, steps, steps_per_epoch):
            yield from ((number, True) for number in range(held_out_steps))


def ends_epoch(done: int, steps: int, steps_per_epoch: int) -> bool:
    """Whether an epoch or the training ends after ``done`` steps."""
    return done == steps or done % steps_per_epoch == 0


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


def held_out_of_step(rows_of_shards: Sequence[int], number: int, *, batch_size: int) -> list[tuple[int, int] | None]:
    """The samples of one validation batch, in the order of the shards.

    Args:
        rows_of_shards: number of held-out rows in each shard.
        number: of the batch, from 0.

    Returns:
        ``batch_size`` pairs (shard, row in the shard); None beyond the last.
    """
    ends = np.cumsum(rows_of_shards)
    samples: list[tuple[int, int] | None] = []
    for position in range(number * batch_size, (number + 1) * batch_size):
        shard = int(np.searchsorted(ends, position, side="right"))
        samples.append((shard, int(position - ends[shard] + rows_of_shards[shard])) if shard < len(ends) else None)
    return samples


@lru_cache(maxsize=2)
def epoch_order(rows_of_shards: tuple[int, ...], epoch: int, rng_seed: int) -> NDArray[np.int32]:
    """The order of one epoch: shuffled shards, with the rows of neighboring shards shuffled together.

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
