"""The counting stage against the masks that the labeling stages make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.config import CrfConfig, WalkConfig
from engine.imaging.codecs import decode_map, decode_mask, encode_map, encode_mask, encode_picture
from engine.ops.cam import with_background
from engine.ops.sweep import mask_counts
from engine.records import Batch
from engine.resources import PassConfig
from engine.stages.count import CountMasks, Slice
from engine.stages.mask import MakeMask

NUM_CLASSES, SIZE = 3, (40, 56)
SCALES = ((1.0,), (0.5, 1.0))


def _batch(*rows: tuple[list[int], str | None]) -> Batch:
    rng = np.random.default_rng(0)
    batch: Batch = {name: [] for name in ("image_id", "cams", "distances", "truth", "class_ids", "encoded", "error")}
    for number, (class_ids, error) in enumerate(rows):
        values = {
            "image_id": str(number),
            "cams": [encode_map(rng.random((len(class_ids), 5, 7))) for _ in SCALES],
            "distances": None,
            "truth": encode_mask(rng.choice([0, 1, 2, 3, 255], SIZE).astype(np.uint8)),
            "class_ids": class_ids,
            "encoded": encode_picture(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)),
            "error": error,
        }
        for name, value in values.items():
            batch[name].append(value)
    return {**batch, "height": [SIZE[0]] * len(rows), "width": [SIZE[1]] * len(rows)}


def _labeled(batch: Batch, scales: int, alpha: float, crf: CrfConfig) -> np.ndarray[Any, Any]:
    cam = torch.from_numpy(decode_map(batch["cams"][0][scales]))
    stage = MakeMask(crf, WalkConfig(), PassConfig(), num_classes=NUM_CLASSES, keep_stages=False)
    names = ("class_ids", "height", "width", "error", "encoded")
    rows = {name: batch[name][:1] for name in names}
    return decode_mask(stage({**rows, "refined_cam": [encode_map(with_background(cam, alpha).numpy())]})["mask"][0])


@pytest.mark.parametrize("num_iterations", [0, 2])
def test_counts_are_those_of_the_masks_of_each_set_of_scales_and_alpha(num_iterations: int) -> None:
    batch, crf = _batch(([2, 1], None)), CrfConfig(num_iterations=num_iterations)
    slices = [
        Slice(scales=scales, beta=1.0, alphas=(alpha,), steps=(0,), crf=crf)
        for scales in SCALES
        for alpha in (1.0, 4.0)
    ]
    out = CountMasks(slices, SCALES, WalkConfig(), PassConfig(), num_classes=NUM_CLASSES)(batch)
    assert set(out) == {"image_id", "error", "height", "width", "counts"}
    counts = np.frombuffer(out["counts"][0], np.int32).reshape(4, 2, NUM_CLASSES + 1)
    truth = decode_mask(batch["truth"][0])
    masks = [_labeled(batch, scales, alpha, crf) for scales in (0, 1) for alpha in (1.0, 4.0)]
    slow = [mask_counts(truth, mask, num_classes=NUM_CLASSES, ignore=255) for mask in masks]
    assert counts.tolist() == np.stack(slow).tolist()
    assert len({one.tobytes() for one in counts}) == 4


def test_image_without_tags_or_with_an_error_has_no_counts() -> None:
    batch = _batch(([], None), ([1], "cam: no"), ([1], None))
    slices = [Slice(scales=SCALES[0], beta=1.0, alphas=(1.0,), steps=(0,))]
    out = CountMasks(slices, SCALES, WalkConfig(), PassConfig(), num_classes=NUM_CLASSES)(batch)
    assert [one is None for one in out["counts"]] == [True, True, False]
    assert out["error"] == [None, "cam: no", None]
