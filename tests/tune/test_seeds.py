"""The sweep over the alphas of the seeds, against the stage that makes them and against the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.config import CrfConfig, SeedConfig
from engine.ops.cam import normalize_cam
from engine.resources import PassConfig
from engine.stages.seed import MakeSeed
from tune.seeds import SURE_TRUTH, cell_pixels, pairs_of, seed_counts
from tune.sweep import INTERSECTION, PREDICTED

NUM_CLASSES, IGNORE = 4, 255


@pytest.mark.parametrize("num_iterations", [0, 3])
@pytest.mark.parametrize("class_ids", [[], [2], [3, 1]])
def test_seeds_of_many_alphas_are_those_of_one_pair_after_the_other(num_iterations: int, class_ids: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(class_ids))
    cam = functional.interpolate(torch.rand(1, max(1, len(class_ids)), 4, 4, generator=generator), size=(12, 9))[0]
    cam = normalize_cam(cam)[: len(class_ids)]
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    config = SeedConfig(crf=CrfConfig(num_iterations=num_iterations), long_side_px=64)
    pairs = ((0.5, 2.0), (0.5, 6.0), (1.2, 5.0))
    found = MakeSeed(config, PassConfig(), num_classes=NUM_CLASSES).seeds(cam, image, class_ids, pairs)
    for (low, high), seed in zip(pairs, found, strict=True):
        stage = MakeSeed(replace(config, alpha_low=low, alpha_high=high), PassConfig(), num_classes=NUM_CLASSES)
        alone = stage.seed(cam, image, class_ids)
        assert seed.dtype == alone.dtype
        assert np.array_equal(seed, alone)


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


def test_pairs_are_those_that_make_sense_and_the_default() -> None:
    assert pairs_of((1.0, 4.0), (2.0, 8.0), SeedConfig()) == ((1.0, 2.0), (1.0, 8.0), (1.2, 5.0), (4.0, 8.0))
