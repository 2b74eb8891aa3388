"""Maps of the segmentation network, and the masks that are made of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.config import CrfConfig, InferenceConfig, WalkConfig
from engine.imaging.codecs import decode_map, decode_mask
from engine.imaging.scaling import as_tensor, resized
from engine.models.segmentation_net import SegmentationNetwork
from engine.networks import load_network
from engine.ops.mask import to_probabilities, upsample
from engine.records import Batch
from engine.resources import Decoding, PassConfig
from engine.stages.mask import MakeMask
from engine.stages.segment import Segment
from tests.engine.stages.examples import MAX_PIXELS, PASSES, picture, png, rows

CONFIG = InferenceConfig(long_side_px=96, scales=(1.0, 0.5), flip=True)
SIZES = [(60, 90), (91, 63), (40, 40)]


def _stage(weights: str, *, use_tags: bool = False, images_per_pass: int = 1) -> Segment:
    return Segment(
        weights,
        CONFIG,
        PassConfig(images_per_pass=images_per_pass, decoding=Decoding(max_pixels=MAX_PIXELS)),
        use_tags=use_tags,
    )


def _masked(batch: Batch, num_iterations: int = 0) -> Batch:
    crf = CrfConfig(num_iterations=num_iterations)
    return MakeMask(crf, WalkConfig(), PASSES, num_classes=3, keep_stages=False)(batch)


def _encoded() -> list[bytes | None]:
    return [png(picture(*size, number)) for number, size in enumerate(SIZES)]


@pytest.mark.parametrize("num_iterations", [0, 2])
def test_masks_have_the_images_own_sizes(num_iterations: int, segmentation_weights: str) -> None:
    batch = rows(_encoded(), [[1], [], [2, 3]])
    before = copy.deepcopy(batch)
    out = _masked(_stage(segmentation_weights)(batch), num_iterations)
    assert batch == before
    masks = [decode_mask(mask) for mask in out["mask"]]
    assert [mask.shape for mask in masks] == SIZES
    assert (out["height"], out["width"]) == ([60, 91, 40], [90, 63, 40])
    assert max(int(mask.max()) for mask in masks) <= 3
    np.testing.assert_allclose(out["areas"][2], [(masks[2] == class_id).mean() for class_id in (0, 2, 3)], rtol=1e-5)
    assert all(0 <= confidence <= 1 for confidence in out["confidence"])
    assert not {"encoded", "class_ids", "found_ids", "refined_cam"} & out.keys()


def test_probabilities_are_the_mean_over_scales_and_mirror_images(segmentation_weights: str) -> None:
    network, _ = load_network(segmentation_weights, "segmentation")
    assert isinstance(network, SegmentationNetwork)
    image, parts = picture(60, 90), []
    for size in ((64, 96), (32, 48)):
        for mirrored in (False, True):
            seen = resized(image, size)[:, ::-1] if mirrored else resized(image, size)
            with torch.inference_mode():
                logits = network.maps(as_tensor([np.ascontiguousarray(seen)], "cpu"))
            logits = functional.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
            scores = logits[0, [0, 1, 3]].softmax(dim=0)
            parts.append(scores.flip(-1) if mirrored else scores)
    (found,) = _stage(segmentation_weights).probabilities([image], [[1, 3]])
    assert found.shape == (3, 16, 24)
    np.testing.assert_allclose(found, torch.stack(parts).mean(dim=0).numpy(), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_with_tags_only_their_classes_appear(segmentation_weights: str) -> None:
    tags = [[1], [], [3, 2]]
    out = _masked(_stage(segmentation_weights, use_tags=True)(rows(_encoded(), tags)))
    for mask, ids in zip(out["mask"], tags, strict=True):
        assert set(np.unique(decode_mask(mask)).tolist()) <= {0, *ids}
    assert out["areas"][1] == [1]
    assert out["confidence"][1] == 1


def test_maps_are_of_the_classes_that_win_and_give_the_mask_of_all_classes(segmentation_weights: str) -> None:
    stage = _stage(segmentation_weights)
    out = stage(rows(_encoded(), [[1], [], [2, 3]]))
    masks = _masked(out)["mask"]
    for number, size in enumerate(SIZES):
        (everything,) = stage.probabilities([picture(*size, number)], [[1, 2, 3]])
        winners = set(np.unique(everything.argmax(axis=0)).tolist()) - {0}
        assert set(out["found_ids"][number]) == winners or (not winners and len(out["found_ids"][number]) == 1)
        kept = decode_map(out["refined_cam"][number])
        assert kept.shape[0] == len(out["found_ids"][number]) + 1
        np.testing.assert_allclose(kept.sum(axis=0), 1, atol=2e-3)
        if winners:
            whole = to_probabilities(upsample(torch.from_numpy(everything), size)).numpy().argmax(axis=0)
            assert (decode_mask(masks[number]) == whole).mean() > 0.98


def test_image_in_which_no_class_wins_is_judged_by_the_nearest(segmentation_weights: str) -> None:
    stage = _stage(segmentation_weights)
    maps = np.zeros((4, 2, 2), dtype=np.float32)
    maps[0], maps[2], maps[3] = 0.7, 0.2, 0.1
    found, kept = stage._winners(maps)
    assert found == [2]
    np.testing.assert_allclose(kept[:, 0, 0], [0.7 / 0.9, 0.2 / 0.9], rtol=1e-6)


def test_without_tags_the_network_decides_alone(segmentation_weights: str) -> None:
    stage = _stage(segmentation_weights)
    one, other = (_masked(stage(rows(_encoded(), [tags] * 3)))["mask"] for tags in ([], [1, 2]))
    assert one == other


def test_mirrored_image_has_the_mirrored_probabilities(segmentation_weights: str) -> None:
    stage, image = _stage(segmentation_weights), picture(64, 96)
    mirror = np.ascontiguousarray(image[:, ::-1])
    mirrored, plain = (stage.probabilities([one], [[1, 2, 3]])[0] for one in (mirror, image))
    np.testing.assert_allclose(mirrored[:, :, ::-1], plain, atol=1e-3)


@pytest.mark.parametrize("use_tags", [False, True])
def test_images_of_one_size_share_a_pass_and_keep_their_own_classes(
    use_tags: bool, segmentation_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [png(picture(*size, number)) for number, size in enumerate([(60, 90), (40, 40), (60, 90), (60, 90)])]
    batch = rows(encoded, [[1], [2], [], [2, 3]])
    alone, together = (_stage(segmentation_weights, use_tags=use_tags, images_per_pass=most) for most in (1, 4))
    passes: list[int] = []
    maps = together._network.maps

    def counted(images: torch.Tensor, channels: torch.Tensor | None) -> torch.Tensor:
        passes.append(len(images))
        return maps(images, channels)

    monkeypatch.setattr(together._network, "maps", counted)
    one, other = alone(batch), together(batch)
    assert passes == [6, 6, 2, 2]  # with their mirror images, at two scales
    assert one["found_ids"] == other["found_ids"]
    for mine, theirs in zip(one["refined_cam"], other["refined_cam"], strict=True):
        np.testing.assert_allclose(decode_map(mine), decode_map(theirs), atol=2e-3)


@pytest.mark.parametrize("use_tags", [False, True])
def test_bad_images_become_error_rows_and_cost_no_other(use_tags: bool, segmentation_weights: str) -> None:
    encoded = _encoded()
    stage = _stage(segmentation_weights, use_tags=use_tags)
    clean = _masked(stage(rows(encoded, [[1], [2], [3]])))
    out = _masked(stage(rows([encoded[0], b"no picture", None], [[1], [2], [3]], error=[None, None, "fetch: gone"])))
    assert out["error"][0] is None
    assert out["error"][1].startswith("decode: ")
    assert out["error"][2] == "fetch: gone"
    assert out["mask"][0] == clean["mask"][0]
    assert out["mask"][1:] == out["areas"][1:] == out["height"][1:] == [None, None]
