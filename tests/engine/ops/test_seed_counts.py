"""Counts of the confident cells of seeds, against a loop over the pixels."""

from __future__ import annotations

import numpy as np

from engine.ops.seed_counts import SURE_TRUTH, cell_pixels, seed_counts
from engine.ops.sweep import INTERSECTION, PREDICTED

NUM_CLASSES, IGNORE = 4, 255


def test_counts_of_sure_cells_are_those_of_the_pixels_in_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 3, IGNORE], (31, 45)).astype(np.uint8)
    seed = rng.choice([0, 1, 3, IGNORE], (4, 6)).astype(np.uint8)
    pixels = cell_pixels(truth, seed.shape, num_classes=NUM_CLASSES, ignore=IGNORE)
    counts = seed_counts(seed, pixels, ignore=IGNORE)
    slow = np.zeros((3, NUM_CLASSES + 1), dtype=np.int64)
    for y in range(31):
        for x in range(45):
            given = seed[int((y + 0.5) * 4 / 31), int((x + 0.5) * 6 / 45)]
            if truth[y, x] == IGNORE or given == IGNORE:
                continue
            slow[PREDICTED, given] += 1
            slow[SURE_TRUTH, truth[y, x]] += 1
            slow[INTERSECTION, given] += truth[y, x] == given
    assert counts.tolist() == slow.tolist()
