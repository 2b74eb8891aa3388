"""Activation maps of a batch of images."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import CamInferenceConfig
from engine.errors import ConfigError, WeightsError
from engine.imaging.codecs import decode_map
from engine.imaging.scaling import as_tensor, resized, scaled_size
from engine.models.cam_net import CamNetwork
from engine.models.segmentation_net import SegmentationNetwork
from engine.networks import load_network
from engine.ops.cam import merge_cams, normalize_cam
from engine.resources import Decoding, PassConfig
from engine.stages.cam import ComputeCam
from tests.engine.stages.examples import MAX_PIXELS, PASSES, picture, png, rows, write_network

CONFIG = CamInferenceConfig(long_side_px=96, scales=(1.0, 0.5), flip=True)
SIZES = [(60, 90), (90, 60), (60, 90), (48, 48), (120, 180)]
TAGS = [[2], [3, 1], [1], [], [1, 2, 3]]
ROUNDING = 4e-3
"""Of float16 maps, and of networks that take another number of images at once."""


class Recording(ComputeCam):
    """Keeps which classes were computed for how many images."""

    def __init__(self, weights: str, config: CamInferenceConfig) -> None:
        super().__init__(weights, config, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS)))
        self.passes: list[tuple[int, list[int]]] = []

    def _activations(self, pictures: Tensor, present: list[int]) -> list[Tensor]:
        self.passes.append((len(pictures), present))
        return super()._activations(pictures, present)


@pytest.fixture(scope="module")
def stage(cam_weights: str) -> ComputeCam:
    return ComputeCam(cam_weights, CONFIG, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS)))


def _encoded() -> list[bytes | None]:
    return [png(picture(*size, number)) for number, size in enumerate(SIZES)]


def test_maps_of_a_batch_are_those_of_a_slow_loop(stage: ComputeCam, cam_weights: str) -> None:
    network, _ = load_network(cam_weights, "cam")
    assert isinstance(network, CamNetwork)
    out = stage(rows(_encoded(), TAGS))
    for number, (size, tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        image = picture(*size, number)
        maps = []
        height, width = scaled_size(*size, long_side_px=96)
        grid = (-(-height // 8), -(-width // 8))
        cam = decode_map(out["cam"][number])
        if not tags:
            assert cam.shape == (0, *grid)
            continue
        for scale in CONFIG.scales:
            scaled = resized(image, scaled_size(*size, long_side_px=96, scale=scale))
            for mirrored in (False, True):
                seen = as_tensor([scaled[:, ::-1] if mirrored else scaled], "cpu")
                with torch.inference_mode():
                    one = network.maps(seen, torch.tensor(tags, dtype=torch.int64) - 1)[0]
                maps.append(one.flip(-1) if mirrored else one)
        expected: NDArray[np.float32] = normalize_cam(merge_cams(maps, grid)).numpy()
        np.testing.assert_allclose(cam, expected, atol=ROUNDING)
    assert out["height"] == [size[0] for size in SIZES]
    assert out["width"] == [size[1] for size in SIZES]
    assert out["error"] == [None] * len(SIZES)


def test_attention_of_a_backbone_without_one_is_refused_by_name(cam_weights: str) -> None:
    config = CamInferenceConfig(attention_steps=2)
    words = "must be 0 for the backbone 'mobilenetv3_small_050', which has no attention, got 2"
    with pytest.raises(ConfigError, match=rf"^cam\.inference\.attention_steps {words}$"):
        ComputeCam(cam_weights, config, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS)))


def test_maps_of_a_transformer_are_spread_along_its_attention(tmp_path: Path) -> None:
    weights = write_network(tmp_path, "cam", backbone="vit_tiny_patch16_224")
    network, _ = load_network(weights, "cam")
    assert isinstance(network, CamNetwork)
    config = CamInferenceConfig(long_side_px=96, scales=(1.0,), flip=False, attention_steps=2, attention_blocks=4)
    stage = ComputeCam(weights, config, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS)))
    seen = as_tensor([resized(picture(60, 90), (64, 96))], "cpu")
    with torch.inference_mode():
        maps = network.maps(seen, torch.tensor([1, 2]), attention_steps=2, attention_blocks=4)[0]
    found = decode_map(stage(rows([png(picture(60, 90))], [[2, 3]]))["cam"][0])
    np.testing.assert_allclose(found, normalize_cam(merge_cams([maps], (8, 12))).numpy(), atol=ROUNDING)


def test_absent_classes_are_not_computed(cam_weights: str) -> None:
    stage = Recording(cam_weights, replace(CONFIG, scales=(1.0,)))
    stage(rows(_encoded()[:4], TAGS[:4]))
    assert sorted(stage.passes) == [(1, [1, 3]), (2, [1, 2])]  # two of one size, one of another, one without tags


def test_image_without_tags_has_no_maps_but_a_grid(stage: ComputeCam) -> None:
    cam = decode_map(stage(rows(_encoded()[:1], [[]]))["cam"][0])
    assert cam.shape == (0, 8, 12)


def test_order_of_the_tags_is_the_order_of_the_maps(stage: ComputeCam) -> None:
    encoded = _encoded()[0]
    forth, back = (decode_map(stage(rows([encoded], [ids]))["cam"][0]) for ids in ([1, 3, 2], [2, 3, 1]))
    np.testing.assert_allclose(forth, back[::-1], atol=ROUNDING)


def test_mirrored_image_has_the_mirrored_maps(stage: ComputeCam) -> None:
    image = picture(60, 90)
    one, other = (decode_map(stage(rows([png(seen)], [[1, 2]]))["cam"][0]) for seen in (image, image[:, ::-1]))
    np.testing.assert_allclose(one, other[:, :, ::-1], atol=ROUNDING)


def test_undecodable_image_becomes_an_error_row_and_costs_no_other(stage: ComputeCam) -> None:
    encoded = _encoded()
    clean = stage(rows(encoded, TAGS))
    encoded[1], encoded[2] = b"no picture", None
    errors = [None, None, "fetch: gone", None, None]
    batch = rows(encoded, TAGS, error=errors)
    before = copy.deepcopy(batch)
    out = stage(batch)
    assert batch == before
    assert out["error"][1].startswith("decode: ")
    assert out["error"][2] == "fetch: gone"
    assert out["cam"][1] is out["cam"][2] is out["height"][1] is out["width"][2] is None
    for row in (0, 3, 4):
        np.testing.assert_allclose(decode_map(out["cam"][row]), decode_map(clean["cam"][row]), atol=ROUNDING)


def test_image_with_too_many_pixels_is_an_error_row(cam_weights: str) -> None:
    stage = ComputeCam(cam_weights, CONFIG, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=6000)))
    out = stage(rows(_encoded()[:4], TAGS[:4]))
    assert [error is None for error in out["error"]] == [True, True, True, True]
    out = stage(rows(_encoded()[4:], TAGS[4:]))
    assert out["error"][0].startswith("decode: ")


def test_images_at_once_do_not_change_the_maps(cam_weights: str, stage: ComputeCam) -> None:
    single = ComputeCam(cam_weights, CONFIG, PASSES)
    for one, other in zip(single(rows(_encoded(), TAGS))["cam"], stage(rows(_encoded(), TAGS))["cam"], strict=True):
        np.testing.assert_allclose(decode_map(one), decode_map(other), atol=ROUNDING)


def test_bfloat16_gives_nearly_the_same_maps(cam_weights: str, stage: ComputeCam) -> None:
    short = replace(CONFIG, precision="bfloat16")
    half = ComputeCam(cam_weights, short, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS)))
    one, other = (decode_map(each(rows(_encoded()[:1], [[1]]))["cam"][0]) for each in (half, stage))
    assert np.abs(one - other).mean() < 0.05


def test_segmentation_network_gives_the_probability_of_each_class_among_those_of_its_image(
    segmentation_weights: str,
) -> None:
    network, _ = load_network(segmentation_weights, "segmentation")
    assert isinstance(network, SegmentationNetwork)
    one_scale = replace(CONFIG, scales=(1.0,), flip=False)
    stage = ComputeCam(
        segmentation_weights, one_scale, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS))
    )
    out = stage(rows(_encoded(), TAGS))
    for number, (size, tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        if not tags:
            continue
        scaled = scaled_size(*size, long_side_px=96)
        with torch.inference_mode():
            logits = network.maps(as_tensor([resized(picture(*size, number), scaled)], "cpu"))[0]
        own = logits[[0, *tags]].softmax(dim=0)[1:]
        grid = (-(-scaled[0] // 8), -(-scaled[1] // 8))
        expected = normalize_cam(merge_cams([own], grid)).numpy()
        np.testing.assert_allclose(decode_map(out["cam"][number]), expected, atol=ROUNDING)


def test_affinity_net_gives_no_maps(affinity_weights: str) -> None:
    with pytest.raises(WeightsError, match="kind 'affinity', not 'cam' or 'segmentation'"):
        ComputeCam(affinity_weights, CONFIG, PassConfig(images_per_pass=8, decoding=Decoding(max_pixels=MAX_PIXELS)))
