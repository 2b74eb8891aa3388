"""The stage that counts seeds against the stage that makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from engine.config import CrfConfig, SeedConfig
from engine.imaging.codecs import decode_map, encode_map, encode_mask, encode_picture
from engine.ops.seed_counts import cell_pixels, seed_counts
from engine.records import Batch
from engine.resources import PassConfig
from engine.stages.count_seeds import CountSeeds
from engine.stages.seed import MakeSeed

NUM_CLASSES, SIZE = 3, (64, 80)


def test_counts_are_those_of_the_seeds_and_null_for_an_image_with_an_error() -> None:
    rng = np.random.default_rng(0)
    image, truth = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), rng.integers(0, 4, SIZE).astype(np.uint8)
    cams = [encode_map(rng.random((2, 5, 6))) for _ in range(2)]
    config = SeedConfig(crf=CrfConfig(num_iterations=0), long_side_px=64)
    pairs = ((0.5, 2.0), (1.0, 6.0))
    batch: Batch = {
        "cams": [cams, cams],
        "truth": [encode_mask(truth)] * 2,
        "class_ids": [[3, 1], [3, 1]],
        "encoded": [encode_picture(image)] * 2,
        "error": [None, "fetch: gone"],
    }
    out = CountSeeds(pairs, config, PassConfig(), num_classes=NUM_CLASSES)(batch)
    assert out["counts"][1] is None
    counts = np.frombuffer(out["counts"][0], np.int32).reshape(4, 3, NUM_CLASSES + 1)
    slow = []
    for cam in cams:
        for low, high in pairs:
            stage = MakeSeed(replace(config, alpha_low=low, alpha_high=high), PassConfig(), num_classes=NUM_CLASSES)
            seed = stage.seed(torch.from_numpy(decode_map(cam)), image, [3, 1])
            pixels = cell_pixels(truth, seed.shape, num_classes=NUM_CLASSES, ignore=255)
            slow.append(seed_counts(seed, pixels, ignore=255))
    assert counts.tolist() == np.stack(slow).tolist()
