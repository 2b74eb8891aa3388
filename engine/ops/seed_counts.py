"""Count the pixels of confident cells of seeds against the truth.

Letters: C classes, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.sweep import INTERSECTION, PREDICTED

SURE_TRUTH = 2
"""Row of the counts after :data:`INTERSECTION` and :data:`PREDICTED`: true pixels of each class in confident cells."""


def cell_pixels(
    truth: NDArray[np.integer[Any]], grid: tuple[int, ...], *, num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """Count the pixels of each class in each cell, (h * w, C+1); a pixel belongs to the cell that holds its center."""
    rows, columns = (
        ((np.arange(size) + 0.5) * cells / size).astype(np.int64) for size, cells in zip(truth.shape, grid, strict=True)
    )
    cells = rows[:, None] * grid[1] + columns
    valid = truth != ignore
    size = num_classes + 1
    codes = cells[valid] * size + truth[valid]
    return np.bincount(codes, minlength=grid[0] * grid[1] * size).reshape(-1, size)


def seed_counts(seed: NDArray[np.integer[Any]], pixels: NDArray[np.int64], *, ignore: int) -> NDArray[np.int64]:
    """Count the pixels of the confident cells of a seed.

    Args:
        seed: (h, w) ids or ``ignore``.
        pixels: (h * w, C+1) of :func:`cell_pixels`.

    Returns:
        (3, C+1) int64 pixels: rows :data:`INTERSECTION`, :data:`PREDICTED`, :data:`SURE_TRUTH`.
    """
    ids = seed.ravel()
    confident = np.flatnonzero(ids != ignore)
    counts = np.zeros((3, pixels.shape[1]), dtype=np.int64)
    chosen = ids[confident].astype(np.int64)
    np.add.at(counts[INTERSECTION], chosen, pixels[confident, chosen])
    np.add.at(counts[PREDICTED], chosen, pixels[confident].sum(axis=1))
    counts[SURE_TRUTH] = pixels[confident].sum(axis=0)
    return counts
