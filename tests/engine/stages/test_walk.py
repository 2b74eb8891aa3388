"""The walk over a batch, and the background without a walk."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.config import AffinityInferenceConfig, WalkConfig
from engine.imaging.codecs import decode_map, encode_map
from engine.imaging.scaling import as_tensor, resized, scaled_size
from engine.models.affinity_net import AffinityNetwork
from engine.networks import load_network
from engine.ops.cam import with_background
from engine.ops.random_walk import refine
from engine.records import Batch
from engine.resources import Decoding, PassConfig
from engine.stages.walk import AddBackground, RefineCam
from tests.engine.stages.examples import MAX_PIXELS, picture, png, rows

WALK = WalkConfig(alpha=2.0, num_steps=16, radius=3)
SIZES = [(60, 90), (90, 60), (60, 90), (40, 56)]
TAGS = [[2], [3, 1], [], [1]]


def _stage(weights: str, *, keep_cam: bool = False, walk: WalkConfig = WALK) -> RefineCam:
    return RefineCam(
        weights,
        AffinityInferenceConfig(long_side_px=96),
        walk,
        PassConfig(images_per_pass=2, decoding=Decoding(max_pixels=MAX_PIXELS)),
        keep_cam=keep_cam,
    )


def _cam(number: int) -> NDArray[np.float32]:
    cam = np.random.default_rng(number).random((len(TAGS[number]), 7, 9)).astype(np.float32)
    return cam / cam.max(axis=(1, 2), keepdims=True) if len(cam) else cam


def _batch() -> Batch:
    return rows(
        [png(picture(*size, number)) for number, size in enumerate(SIZES)],
        TAGS,
        height=[size[0] for size in SIZES],
        width=[size[1] for size in SIZES],
        cam=[encode_map(_cam(number)) for number in range(len(SIZES))],
    )


def test_background_is_put_before_the_maps() -> None:
    batch = _batch()
    batch["cam"][1], batch["error"][1] = None, "decode: odd"
    out = AddBackground(WALK, keep_cam=False)(batch)
    assert "cam" not in out
    assert out["refined_cam"][1] is None
    refined = decode_map(out["refined_cam"][0])
    np.testing.assert_allclose(refined[1:], _cam(0), atol=1e-3)
    np.testing.assert_allclose(refined[0], (1 - _cam(0)[0]) ** 2, atol=1e-3)
    assert decode_map(out["refined_cam"][2]).tolist() == np.ones((1, 7, 9)).tolist()


@pytest.mark.parametrize("keep_cam", [False, True])
def test_cam_stays_only_where_a_later_stage_reads_it(keep_cam: bool, affinity_weights: str) -> None:
    for stage in (AddBackground(WALK, keep_cam=keep_cam), _stage(affinity_weights, keep_cam=keep_cam)):
        batch = _batch()
        before = copy.deepcopy(batch)
        out = stage(batch)
        assert batch == before
        assert ("cam" in out) == keep_cam
        assert out["encoded"] == batch["encoded"]


def test_mixed_sizes_walk_as_each_would_alone(affinity_weights: str) -> None:
    network, _ = load_network(affinity_weights, "affinity")
    assert isinstance(network, AffinityNetwork)
    batch = _batch()
    batch["cam"][3], batch["error"][3], batch["encoded"][3] = None, "decode: odd", None
    out = _stage(affinity_weights)(batch)
    assert out["refined_cam"][3] is None
    for number in (0, 1):
        size = scaled_size(*SIZES[number], long_side_px=96)
        with torch.inference_mode():
            features = network(as_tensor([resized(picture(*SIZES[number], number), size)], "cpu"))[0]
        maps = with_background(torch.from_numpy(_cam(number)), WALK.alpha)
        start = functional.interpolate(maps[None], features.shape[-2:], mode="bilinear", align_corners=False)[0]
        expected = refine(start, features, radius=3, beta=8.0, num_steps=16, tolerance=0.0)
        refined = decode_map(out["refined_cam"][number])
        assert refined.shape == (len(TAGS[number]) + 1, -(-size[0] // 8), -(-size[1] // 8))
        np.testing.assert_allclose(refined, expected.numpy(), atol=3e-3)


def test_image_without_tags_stays_background(affinity_weights: str) -> None:
    refined = decode_map(_stage(affinity_weights)(_batch())["refined_cam"][2])
    assert refined.shape == (1, 7, 9)
    assert (refined == 1).all()


def test_walk_mixes_what_the_background_alone_would_not(affinity_weights: str) -> None:
    near, far = (
        decode_map(_stage(affinity_weights, walk=replace(WALK, num_steps=steps, beta=1.0))(_batch())["refined_cam"][0])
        for steps in (1, 256)
    )
    assert far[1].std() < near[1].std()
    assert far.min() >= 0
    assert far.max() <= 1
