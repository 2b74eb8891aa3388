"""Masks from the segmentation network."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from engine.config import InferenceConfig
from engine.ops.confidence import SEGMENTATION_LEVEL, expected_iou, quality_features
from engine.records import decode_mask
from engine.stages.segment import Segment
from tests.engine.stages.examples import MAX_PIXELS, picture, png, rows

CONFIG = InferenceConfig(long_side_px=96, scales=(1.0, 0.5), flip=True)
SIZES = [(60, 90), (91, 63), (40, 40)]


def _stage(weights: str, *, use_tags: bool = False, config: InferenceConfig = CONFIG) -> Segment:
    return Segment(weights, config, device="cpu", max_pixels=MAX_PIXELS, use_tags=use_tags)


def _encoded() -> list[bytes | None]:
    return [png(picture(*size, number)) for number, size in enumerate(SIZES)]


def test_masks_have_the_images_own_sizes(segmentation_weights: str) -> None:
    batch = rows(_encoded(), [[1], [], [2, 3]])
    before = copy.deepcopy(batch)
    out = _stage(segmentation_weights)(batch)
    assert batch == before
    masks = [decode_mask(mask) for mask in out["mask"]]
    assert [mask.shape for mask in masks] == SIZES
    assert (out["height"], out["width"]) == ([60, 91, 40], [90, 63, 40])
    assert max(int(mask.max()) for mask in masks) <= 3
    np.testing.assert_allclose(out["areas"][2], [(masks[2] == class_id).mean() for class_id in (0, 2, 3)], rtol=1e-5)
    assert all(0 <= confidence <= 1 for confidence in out["confidence"])
    assert not {"encoded", "class_ids"} & out.keys()


def test_with_tags_only_their_classes_appear(segmentation_weights: str) -> None:
    tags = [[1], [], [3, 2]]
    out = _stage(segmentation_weights, use_tags=True)(rows(_encoded(), tags))
    for mask, ids in zip(out["mask"], tags, strict=True):
        assert set(np.unique(decode_mask(mask)).tolist()) <= {0, *ids}
    assert out["areas"][1] == [1]
    assert out["confidence"][1] == 1


def test_confidence_is_the_iou_to_expect_by_the_classes_that_win_or_are_tagged(segmentation_weights: str) -> None:
    config = InferenceConfig(long_side_px=96)
    image = picture(60, 90)
    for tags, allowed in ([], [1, 2, 3]), ([2, 3], [2, 3]):
        stage = _stage(segmentation_weights, use_tags=bool(tags), config=config)
        maps = stage.probabilities(image, allowed)
        won = sorted({allowed[channel - 1] for channel in np.unique(maps.argmax(axis=0)).tolist() if channel})
        classes = tags or won or [allowed[int(maps[1:].max(axis=(1, 2)).argmax())]]
        kept = maps[[0, *(1 + allowed.index(class_id) for class_id in classes)]]
        kept = kept / kept.sum(axis=0)
        out = stage(rows([png(image)], [tags]))
        assert out["confidence"][0] == pytest.approx(
            expected_iou(quality_features(kept, kept), scale=SEGMENTATION_LEVEL[0], offset=SEGMENTATION_LEVEL[1])
        )


def test_without_tags_the_network_decides_alone(segmentation_weights: str) -> None:
    stage = _stage(segmentation_weights)
    one, other = (stage(rows(_encoded(), [tags] * 3))["mask"] for tags in ([], [1, 2]))
    assert one == other


def test_probabilities_sum_to_one(segmentation_weights: str) -> None:
    probabilities = _stage(segmentation_weights).probabilities(picture(61, 83), [1, 3])
    assert probabilities.shape == (3, 61, 83)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_mirrored_image_has_the_mirrored_probabilities(segmentation_weights: str) -> None:
    stage, image = _stage(segmentation_weights), picture(60, 90)
    mirrored = stage.probabilities(np.ascontiguousarray(image[:, ::-1]), [1, 2, 3])
    np.testing.assert_allclose(mirrored[:, :, ::-1], stage.probabilities(image, [1, 2, 3]), atol=1e-3)


@pytest.mark.parametrize("use_tags", [False, True])
def test_bad_images_become_error_rows_and_cost_no_other(use_tags: bool, segmentation_weights: str) -> None:
    encoded = _encoded()
    stage = _stage(segmentation_weights, use_tags=use_tags)
    clean = stage(rows(encoded, [[1], [2], [3]]))
    out = stage(rows([encoded[0], b"no picture", None], [[1], [2], [3]], error=[None, None, "fetch: gone"]))
    assert out["error"][0] is None
    assert out["error"][1].startswith("decode: ")
    assert out["error"][2] == "fetch: gone"
    assert out["mask"][0] == clean["mask"][0]
    assert out["mask"][1:] == out["areas"][1:] == out["height"][1:] == [None, None]
