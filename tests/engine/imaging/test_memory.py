"""No image takes a stage's memory with it: bounds that hold for every size and any number of tags."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import WalkConfig
from engine.guard import guarded
from engine.imaging import memory, scaling
from engine.imaging.codecs import decode_mask, encode_map
from engine.imaging.memory import MASK_BYTES, enlarged, give_back_memory, working_size
from engine.imaging.scaling import scaled_size
from engine.presets import preset
from engine.records import Batch
from engine.resources import Decoding, PassConfig
from engine.stages.cam import ComputeCam
from engine.stages.mask import MakeMask
from engine.stages.segment import Segment
from engine.stages.walk import RefineCam
from tests.engine.stages.examples import MAX_PIXELS, PASSES, picture, png, rows


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(1, 65_535))
def test_working_size_keeps_the_bound_and_the_shape(height: int, width: int, num_maps: int) -> None:
    small = working_size(height, width, num_maps)
    assert 1 <= small[0] <= height
    assert 1 <= small[1] <= width
    assert small[0] * small[1] * (100 + 40 * num_maps) <= MASK_BYTES
    if min(small) >= 50:
        assert small[0] / small[1] == pytest.approx(height / width, rel=0.05)


def test_photograph_with_a_few_tags_keeps_its_own_size() -> None:
    assert working_size(500, 375, 21) == (500, 375)
    assert working_size(1500, 2000, 5) == (1500, 2000)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30))
def test_enlarged_mask_holds_the_nearest_pixels(height: int, width: int, tall: int, wide: int) -> None:
    mask = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    large = enlarged(mask, (tall, wide))
    assert (large.shape, large.dtype) == ((tall, wide), mask.dtype)
    for row, column in ((0, 0), (tall - 1, wide - 1), (tall // 2, wide // 2)):
        assert large[row, column] == mask[int((row + 0.5) * height / tall), int((column + 0.5) * width / wide)]


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a picture of 60 x 80 pixels exceeds."""
    monkeypatch.setattr(memory, "MASK_BYTES", 200_000)
    monkeypatch.setattr("engine.imaging.batches.DECODED_PIXELS", 6_000)


def _stages(cam_weights: str, affinity_weights: str) -> list[tuple[str, Any]]:
    tiny = preset("tiny")
    passes = PassConfig(images_per_pass=4, decoding=Decoding(max_pixels=MAX_PIXELS))
    sight = replace(tiny.affinity.inference, long_side_px=64)
    walk = replace(tiny.walk, num_steps=4)
    crf = replace(tiny.crf, num_iterations=1)
    return [
        ("cam", ComputeCam(cam_weights, replace(tiny.cam.inference, long_side_px=64), passes)),
        ("walk", RefineCam(affinity_weights, sight, walk, passes, keep_cam=True)),
        ("crf", MakeMask(crf, walk, PASSES, num_classes=3, keep_stages=True)),
    ]


def _run(stages: list[tuple[str, Any]], batch: Batch) -> Batch:
    for name, stage in stages:
        batch = guarded(name, stage, batch)
    return batch


@pytest.mark.usefixtures("little_memory")
def test_image_above_the_bound_has_a_mask_of_its_own_size(
    cam_weights: str, affinity_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = rows([png(picture(60, 80)), png(picture(30, 30, 1))], [[1, 3], [2]])
    stages = _stages(cam_weights, affinity_weights)
    out = _run(stages, batch)
    assert out["error"] == [None, None]
    for column in ("mask", "mask_cam", "mask_walk"):
        assert [decode_mask(mask).shape for mask in out[column]] == [(60, 80), (30, 30)]
    assert sum(out["areas"][0]) == pytest.approx(1, abs=1e-5)
    monkeypatch.undo()
    roomy = _run(stages, batch)
    assert out["mask"][1] == roomy["mask"][1]
    assert (decode_mask(out["mask_walk"][0]) == decode_mask(roomy["mask_walk"][0])).mean() > 0.9


@pytest.mark.usefixtures("little_memory")
def test_segmented_image_above_the_bound_has_a_mask_of_its_own_size(segmentation_weights: str) -> None:
    sight = replace(preset("tiny").segmentation.inference, long_side_px=64)
    stage = Segment(segmentation_weights, sight, PASSES, use_tags=False)
    mask = MakeMask(preset("tiny").crf, WalkConfig(), PASSES, num_classes=3, keep_stages=False)
    out = mask(stage(rows([png(picture(60, 80))], [[1]])))
    assert decode_mask(out["mask"][0]).shape == (60, 80)


def test_maps_are_the_same_when_pictures_are_held_a_few_at_a_time(
    cam_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sight = replace(preset("tiny").cam.inference, long_side_px=64)
    stage = ComputeCam(cam_weights, sight, PassConfig(images_per_pass=4, decoding=Decoding(max_pixels=MAX_PIXELS)))
    batch = rows([png(picture(60, 80, number)) for number in range(5)], [[1], [2], [], [3], [1, 2]])
    together = stage(batch)
    held: list[int] = []
    maps = stage.maps

    def counted(images: Any, ids: Any) -> Any:
        held.append(len(images))
        return maps(images, ids)

    monkeypatch.setattr(stage, "maps", counted)
    monkeypatch.setattr("engine.imaging.batches.DECODED_PIXELS", 10_000)
    assert stage(batch) == together
    assert held == [2, 2, 1]


def test_image_of_500_tags_has_a_mask(affinity_weights: str) -> None:
    tiny = preset("tiny")
    count = 500
    maps = np.random.default_rng(0).random((count + 1, 4, 4)).astype(np.float32)
    stage = MakeMask(replace(tiny.crf, num_iterations=1), tiny.walk, PASSES, num_classes=count, keep_stages=False)
    size = working_size(300, 400, count + 1)
    assert size[0] * size[1] < 300 * 400
    batch = rows([png(picture(300, 400))], [list(range(1, count + 1))])
    out = stage({**batch, "height": [300], "width": [400], "refined_cam": [encode_map(maps)]})
    assert decode_mask(out["mask"][0]).shape == (300, 400)
    assert decode_mask(out["mask"][0]).dtype == np.uint16


def test_picture_too_large_for_a_network_is_an_error_of_its_row(
    cam_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MemoryError, match=r"more than 16777216 .*long_side_px"):
        scaled_size(5000, 4000, long_side_px=0)
    monkeypatch.setattr(scaling, "MAX_PIXELS", 100_000)
    sight = replace(preset("tiny").cam.inference, long_side_px=0, scales=(8.0,))
    stage = ComputeCam(cam_weights, sight, PassConfig(images_per_pass=4, decoding=Decoding(max_pixels=MAX_PIXELS)))
    out = guarded("cam", stage, rows([png(picture(32, 32)), png(picture(80, 80))], [[], [1]]))
    assert out["error"][0] is None
    assert out["error"][1].startswith("cam: 640 x 640 pixels are more than 100000")


def test_freed_memory_between_what_is_kept_goes_back_to_the_system() -> None:
    def resident_mb() -> float:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    buffer = ctypes.CDLL(None).malloc
    buffer.argtypes, buffer.restype = [ctypes.c_size_t], ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    places = [buffer(100_000) for _ in range(2000)]  # below what is mapped apart
    for place in places:
        ctypes.memset(place, 1, 100_000)
    for place in places[::2] + places[1:-1:2]:  # the last one holds the heap's end
        free(place)
    full = resident_mb()
    give_back_memory()
    assert resident_mb() < full - 100
    free(places[-1])
