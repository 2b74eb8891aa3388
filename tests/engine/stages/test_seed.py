"""Affinity labels of a batch."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.config import CrfConfig, SeedConfig
from engine.imaging.codecs import decode_mask, encode_map
from engine.ops.cam import normalize_cam
from engine.stages.seed import MakeSeed
from tests.engine.stages.examples import PASSES, picture, png, rows

NO_CRF = CrfConfig(num_iterations=0)
SEED = SeedConfig(alpha_low=0.8, alpha_high=4.0, long_side_px=64, grid_stride=8)


def _stage(crf: CrfConfig = NO_CRF, num_classes: int = 3) -> MakeSeed:
    return MakeSeed(replace(SEED, crf=crf), PASSES, num_classes=num_classes)


def _steps() -> np.ndarray:
    """From left to right: sure class, between the two alphas, sure background."""
    return np.repeat(np.array([[1.0, 0.5, 0.0]]), 4, axis=1).repeat(8, axis=0)[None]


def test_cells_between_the_two_alphas_teach_nothing() -> None:
    batch = rows([png(picture(64, 64))], [[2]], cam=[encode_map(_steps())])
    before = copy.deepcopy(batch)
    out = _stage()(batch)
    assert batch == before
    seed = decode_mask(out["seed"][0])
    assert seed.shape == (8, 8)
    assert (seed[:, 0] == 2).all()
    assert (seed[:, 4] == 255).all()
    assert (seed[:, 7] == 0).all()
    np.testing.assert_allclose(out["areas"][0], [(seed == 0).mean(), (seed == 2).mean()])
    assert not {"cam", "encoded", "class_ids"} & out.keys()


@pytest.mark.parametrize(("size", "grid"), [((50, 64), (7, 8)), ((128, 99), (8, 7)), ((64, 64), (8, 8))])
def test_grid_covers_the_image_whatever_its_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    out = _stage()(rows([png(picture(*size))] * 2, [[1], []], cam=[encode_map(_steps()), encode_map(_steps()[:0])]))
    assert [decode_mask(seed).shape for seed in out["seed"]] == [grid, grid]


def test_image_without_tags_is_sure_background() -> None:
    out = _stage(CrfConfig())(rows([png(picture(64, 64))], [[]], cam=[encode_map(np.zeros((0, 8, 8)))]))
    assert not decode_mask(out["seed"][0]).any()
    assert out["areas"] == [[1]]


def test_map_without_activation_is_sure_background() -> None:
    out = _stage()(rows([png(picture(64, 64))], [[1]], cam=[encode_map(np.zeros((1, 8, 8)))]))
    assert not decode_mask(out["seed"][0]).any()


def test_row_with_an_error_has_no_seed() -> None:
    batch = rows([None, png(picture(64, 64))], [[1], [1]], cam=[None, encode_map(_steps())], error=["fetch: x", None])
    out = _stage()(batch)
    assert out["seed"][0] is out["areas"][0] is None
    assert out["seed"][1] is not None


def test_many_classes_ignore_with_the_wider_value() -> None:
    out = _stage(num_classes=300)(rows([png(picture(64, 64))], [[300]], cam=[encode_map(_steps())]))
    assert set(np.unique(decode_mask(out["seed"][0])).tolist()) == {0, 300, 65535}


def test_crf_takes_the_seed_to_the_edge_of_the_image() -> None:
    pytest.importorskip("pydensecrf")
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, :40, 0] = image[:, 40:, 2] = 200
    crf = CrfConfig(bilateral_sigma_px=30.0)
    seed = decode_mask(_stage(crf)(rows([png(image)], [[2]], cam=[encode_map(_steps())]))["seed"][0])
    assert set(np.unique(seed[:, :5]).tolist()) <= {2, 255}
    assert (seed[:, 6:] == 0).all()
    assert (seed == 2).mean() > 0.3


@pytest.mark.parametrize("num_iterations", [0, 3])
@pytest.mark.parametrize("class_ids", [[], [2], [3, 1]])
def test_seeds_of_many_alphas_are_those_of_one_pair_after_the_other(num_iterations: int, class_ids: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(class_ids))
    cam = functional.interpolate(torch.rand(1, max(1, len(class_ids)), 4, 4, generator=generator), size=(12, 9))[0]
    cam = normalize_cam(cam)[: len(class_ids)]
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    config = SeedConfig(crf=CrfConfig(num_iterations=num_iterations), long_side_px=64)
    pairs = ((0.5, 2.0), (0.5, 6.0), (1.2, 5.0))
    found = MakeSeed(config, PASSES, num_classes=4).seeds(cam, image, class_ids, pairs)
    for (low, high), seed in zip(pairs, found, strict=True):
        stage = MakeSeed(replace(config, alpha_low=low, alpha_high=high), PASSES, num_classes=4)
        alone = stage.seed(cam, image, class_ids)
        assert seed.dtype == alone.dtype
        assert np.array_equal(seed, alone)
