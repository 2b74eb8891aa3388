"""From refined maps to masks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import ConfidenceConfig, CrfConfig, WalkConfig
from engine.imaging.codecs import decode_mask, encode_map
from engine.records import Batch
from engine.stages.mask import MakeMask
from tests.engine.stages.examples import PASSES, picture, png, rows

NO_CRF = CrfConfig(num_iterations=0)


def _stage(crf: CrfConfig = NO_CRF, *, num_classes: int = 3, keep_stages: bool = False) -> MakeMask:
    return MakeMask(crf, WalkConfig(alpha=1.0), PASSES, num_classes=num_classes, keep_stages=keep_stages)


def _refined(*foreground: NDArray[Any]) -> bytes:
    maps = np.stack(foreground).astype(np.float32)
    return encode_map(np.concatenate([1 - maps.max(axis=0, keepdims=True), maps]))


def _left(share: float, width: int = 8, height: int = 6) -> NDArray[np.float32]:
    return np.tile(np.arange(width) < share * width, (height, 1)).astype(np.float32)


def _batch(images: list[NDArray[np.uint8]], tags: list[list[int]], refined: list[bytes | None], **more: Any) -> Batch:
    return rows(
        [png(image) for image in images],
        tags,
        height=[image.shape[0] for image in images],
        width=[image.shape[1] for image in images],
        refined_cam=refined,
        **more,
    )


def test_mask_has_the_images_own_size_and_the_class_where_its_map_is_highest() -> None:
    images = [picture(48, 64), picture(31, 77)]
    refined: list[bytes | None] = [_refined(_left(0.5)), _refined(_left(0.25), 1 - _left(0.5))]
    batch = _batch(images, [[3], [2, 1]], refined)
    before = copy.deepcopy(batch)
    out = _stage()(batch)
    assert batch == before
    first, second = map(decode_mask, out["mask"])
    assert first.shape == (48, 64)
    assert second.shape == (31, 77)
    np.testing.assert_array_equal(first, np.tile(np.where(np.arange(64) < 32, 3, 0), (48, 1)))
    assert set(np.unique(second).tolist()) == {0, 1, 2}
    assert (second[:, :15] == 2).all()
    assert (second[:, 45:] == 1).all()
    np.testing.assert_allclose(out["areas"][0], [0.5, 0.5])
    np.testing.assert_allclose(out["areas"][1], [(second == 0).mean(), (second == 2).mean(), (second == 1).mean()])
    assert all(0 <= confidence <= 1 for confidence in out["confidence"])
    assert not {"encoded", "class_ids", "refined_cam", "cam", "mask_cam"} & out.keys()


def test_clearer_maps_give_more_confidence() -> None:
    image, left = picture(48, 64), _left(0.5)
    sure, vague = _stage()(_batch([image, image], [[1], [1]], [_refined(left), _refined(0.4 + 0.2 * left)]))[
        "confidence"
    ]
    assert 0 < vague < sure


def test_mask_without_a_pixel_of_a_tag_is_never_expected_to_be_better_than_the_others_allow() -> None:
    sure, nothing = _left(0.5), np.zeros((6, 8), np.float32)
    batch = _batch([picture(48, 64)] * 2, [[1], [1, 2]], [_refined(sure), _refined(sure, nothing)])
    config = ConfidenceConfig(offset=5.0)
    stage = MakeMask(NO_CRF, WalkConfig(), PASSES, num_classes=3, keep_stages=False, confidence=config)
    alone, missing = stage(batch)["confidence"]
    assert alone > 0.9
    assert missing == pytest.approx(2 / 3)


def test_map_without_activation_is_all_background() -> None:
    out = _stage(CrfConfig())(_batch([picture(40, 40)], [[1, 2]], [_refined(np.zeros((5, 5)), np.zeros((5, 5)))]))
    assert not decode_mask(out["mask"][0]).any()
    assert out["areas"][0] == [1, 0, 0]


def test_image_without_tags_is_all_background_and_sure() -> None:
    out = _stage(CrfConfig())(_batch([picture(40, 40)], [[]], [encode_map(np.ones((1, 5, 5)))]))
    assert not decode_mask(out["mask"][0]).any()
    assert out["areas"] == [[1]]
    assert out["confidence"] == [1]


def test_row_with_an_error_has_no_mask() -> None:
    batch = _batch([picture(40, 40)] * 2, [[1], [1]], [None, _refined(_left(0.5))])
    batch["error"][0], batch["encoded"][0] = "decode: odd", None
    out = _stage(keep_stages=True)({**batch, "cam": [None, encode_map(_left(0.5)[None])]})
    for name in ("mask", "areas", "confidence", "mask_cam", "mask_walk"):
        assert out[name][0] is None
        assert out[name][1] is not None
    assert out["error"] == ["decode: odd", None]


def test_many_classes_widen_the_mask() -> None:
    out = _stage(num_classes=300)(_batch([picture(48, 64)], [[299]], [_refined(_left(0.5))]))
    mask = decode_mask(out["mask"][0])
    assert mask.dtype == np.uint16
    assert set(np.unique(mask).tolist()) == {0, 299}


def _edge_image() -> NDArray[np.uint8]:
    """Red up to column 24, then blue, with a little noise."""
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:, :24, 0] = image[:, 24:, 2] = 200
    return image + np.random.default_rng(0).integers(0, 12, image.shape, dtype=np.uint8)


def test_crf_moves_the_border_to_the_edge_of_the_image() -> None:
    pytest.importorskip("pydensecrf")
    batch = _batch([_edge_image()], [[1]], [_refined(0.2 + 0.6 * _left(0.5))])
    expected = np.tile(np.arange(64) < 24, (48, 1))
    plain, sharp = (decode_mask(_stage(crf)(batch)["mask"][0]) for crf in (NO_CRF, CrfConfig(bilateral_sigma_px=30.0)))
    assert (plain == expected).mean() < 0.9
    assert (sharp == expected).mean() > 0.99


def test_stages_are_kept_as_masks_of_their_own() -> None:
    pytest.importorskip("pydensecrf")
    batch = _batch([_edge_image()], [[1]], [_refined(0.2 + 0.6 * _left(0.5))], cam=[encode_map(_left(0.75)[None])])
    out = _stage(CrfConfig(bilateral_sigma_px=30.0), keep_stages=True)(batch)
    cam, walk, final = (decode_mask(out[name][0]) for name in ("mask_cam", "mask_walk", "mask"))
    assert [int(mask[0].sum()) for mask in (cam, walk)] == [48, 32]
    assert abs(int(final[20].sum()) - 24) <= 1
    walk_only = decode_mask(_stage()(batch)["mask"][0])
    np.testing.assert_array_equal(walk, walk_only)


def test_every_backend_of_the_dcrf_makes_the_same_mask() -> None:
    pytest.importorskip("pydensecrf")
    batch = _batch([picture(48, 64)], [[1, 2]], [_refined(_left(0.3), 1 - _left(0.6))])
    masks = {_stage(CrfConfig(backend=backend))(batch)["mask"][0] for backend in ("numba", "torch", "pydensecrf")}
    assert len(masks) == 1
