"""Pixel-adaptive refinement of a batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from engine.config import PamrConfig
from engine.imaging.codecs import decode_map, encode_map
from engine.imaging.scaling import as_tensor, resized
from engine.ops.mask import to_probabilities, upsample
from engine.ops.pamr import pamr
from engine.records import Batch
from engine.resources import PassConfig
from engine.stages import pamr as stage_module
from engine.stages.pamr import AdaptMaps
from tests.engine.stages.examples import MAX_PIXELS, picture, png, rows

SIZES = [(60, 90), (90, 60), (60, 90), (40, 56), (60, 90)]
TAGS = [[2], [3, 1], [1], [], [1, 3]]


def _batch() -> Batch:
    rng = np.random.default_rng(0)
    return rows(
        [png(picture(*size, number)) for number, size in enumerate(SIZES)],
        TAGS,
        height=[size[0] for size in SIZES],
        width=[size[1] for size in SIZES],
        refined_cam=[encode_map(rng.random((len(tags) + 1, 7, 9)).astype(np.float32)) for tags in TAGS],
    )


def _stage(long_side_px: int = 48) -> AdaptMaps:
    config = PamrConfig(num_iterations=3, long_side_px=long_side_px)
    return AdaptMaps(config, PassConfig(images_per_pass=2, max_pixels=MAX_PIXELS))


def test_each_image_of_a_batch_is_refined_as_it_would_be_alone() -> None:
    batch = _batch()
    before = copy.deepcopy(batch)
    out = _stage()(batch)
    assert batch == before
    for number, size in [(0, (32, 48)), (1, (48, 32)), (2, (32, 48)), (4, (32, 48))]:
        image = as_tensor([resized(picture(*SIZES[number], number), size)], "cpu").float()
        start = to_probabilities(upsample(torch.from_numpy(decode_map(batch["refined_cam"][number])), size))
        expected = pamr(image, start[None], num_iterations=3)[0]
        np.testing.assert_allclose(decode_map(out["refined_cam"][number]), expected.numpy(), atol=2e-3)


def test_rows_without_maps_or_with_background_alone_stay_as_they_are() -> None:
    batch = _batch()
    batch["refined_cam"][1], batch["encoded"][1], batch["error"][1] = None, None, "decode: odd"
    out = _stage()(batch)
    assert out["refined_cam"][1] is None
    assert out["refined_cam"][3] == batch["refined_cam"][3]


def test_an_image_of_many_pixels_is_refined_alone_and_not_larger_than_its_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage_module, "_MOST_PIXELS_IN_A_PASS", 1000)
    seen: list[int] = []

    class Counting(AdaptMaps):
        def _adapted(self, pictures: list[np.ndarray], scores: torch.Tensor) -> np.ndarray:
            seen.append(len(pictures))
            return super()._adapted(pictures, scores)

    Counting(PamrConfig(num_iterations=1, long_side_px=48), PassConfig(images_per_pass=8, max_pixels=MAX_PIXELS))(
        _batch()
    )
    assert seen == [1] * 4
    batch = rows(
        [png(picture(2000, 3000))],
        [[1]],
        height=[2000],
        width=[3000],
        refined_cam=[encode_map(np.random.default_rng(0).random((2, 7, 9)).astype(np.float32))],
    )
    refined = decode_map(_stage(long_side_px=0)(batch)["refined_cam"][0])
    assert 900_000 < refined.shape[1] * refined.shape[2] < 2_100_000
